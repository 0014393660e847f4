"""Methods of one view: silent when all is well; alarms ring where the encoder is blind.

Most of them cannot collapse by their loss. But an encoder may die, and what follows it then learns
what can be said without looking at a sample.
"""

import copy

import pytest
import torch
from test_contract import METHODS, build
from test_health import BATCH, NAMES, Digits, look, vit
from test_health_all import KINDS
from test_health_joint import MADE
from torch import nn

from selfsup import methods, released
from selfsup.encoder import Encoder
from selfsup.losses import unseen
from selfsup.optim import Optim
from selfsup.stems import Patches

OPTIM = Optim("adamw", lr=2e-3, per=BATCH, weight_decay=0.0, clip=3.0)
PICTURES = {
    "MAE": {"decoder_dim": 32, "decoder_depth": 1, "decoder_heads": 2},
    "SimMIM": {},
    "MaskFeat": {},
    "Data2Vec": {"layers": 2, "momentum": 0.99},
    "BEiT": {"codes": 16, "hidden": 32},
    "HuBERT": {"clusters": 16, "span": 2, "dim": 16},
    "Wav2Vec2": {"codes": 16, "span": 2, "dim": 16},
    "IGPT": {"clusters": 16, "upper": 1},
    "CPC": {"negatives": 64, "hidden": 32, "dim": 16},
    "Jigsaw": {},
    "Rotation": {},
    "RelativePosition": {"hidden": 64, "cell": 0.5, "gap": 0.0},
    "Colorization": {"hidden": 64},
    "Inpainting": {"hidden": 64},
    "Distill": {},
}
WORDS = ("MLM", "CLM", "MDLM", "ELECTRA")
NODES = ("GraphMAE", "DGI")


def test_every_method_has_a_collapse_of_its_own_and_a_healthy_run():
    """In this file and in its neighbours; that of the world model is in its own."""
    others = {"SameSample", "World_Model"}
    assert {*NAMES, *MADE, *KINDS, *PICTURES, *WORDS, *NODES, *others} == set(METHODS)


def make(name):
    """On pictures of digits in two colours: one of them is the other, moved."""
    torch.manual_seed(0)
    stem = Patches((8, 8), (2, 2), 2, 32)
    encoder = Encoder(stem, dim=32, depth=2, heads=2, causal=name == "IGPT")
    settings = dict(PICTURES[name])
    if name == "Distill":
        settings["teacher"] = released.of(copy.deepcopy(encoder))
    return getattr(methods, name)(encoder, **settings)


class Coloured:
    """Digits; `anywhere` on a picture that has no borders, so that no place tells anything."""

    def __init__(self, anywhere=False):
        self.digits, self.anywhere = Digits(1, noise=0.1), anywhere

    def __call__(self, step, part=0, parts=1):
        (x,) = self.digits(step)
        if self.anywhere:
            generator = torch.Generator().manual_seed(step)
            by = torch.randint(8, (len(x), 2), generator=generator).tolist()
            x = torch.stack([one.roll(shift, (1, 2)) for one, shift in zip(x, by, strict=True)])
        return [torch.cat([x, x.roll(1, 3)], 1)]


def blind(encoder):
    """What comes in is the same for all samples, whatever they are, and nothing can change that."""
    if hasattr(encoder, "entrance"):
        nn.init.zeros_(encoder.entrance)
        encoder.entrance.requires_grad_(False)
    else:
        first = encoder.stem if hasattr(encoder, "stem") else encoder.steps[0]
        first.register_forward_hook(lambda module, args, out: even(out))


def even(x):
    """One vector everywhere, which no norm makes nothing of."""
    return torch.linspace(-1, 1, x.shape[-1]).expand_as(x)


@pytest.mark.parametrize("name", PICTURES)
def test_silent_on_a_healthy_run(name):
    steps = 150 if name == "MaskFeat" else 50  # so slow is it to leave what is the same for all
    outcome, rows, _ = look(make(name), Coloured(), steps, OPTIM, every=5)
    assert [e for e in outcome.events if e["kind"] != "spike"] == [], rows[-1]
    assert outcome.verdict == "healthy"


@pytest.mark.parametrize("name", PICTURES)
def test_a_blind_encoder_of_pictures_rings(name):
    method = make(name)
    blind(method.encoder)
    if name == "Data2Vec":
        method.momentum = 0.5  # its teacher, too, is blind soon
    outcome, rows, alarms = look(method, Coloured(anywhere=True), 50, OPTIM, every=2)
    assert outcome.verdict == "collapsed", rows[-1]
    said = alarms[-1]["message"]
    assert "same embedding" in said or "guessing" in said, said
    for term, least in method.constant.items():  # it found the best answer, and there is no better
        assert rows[-1][f"train/{term}"] == pytest.approx(least.item(), rel=0.05)
        # (a teacher's features, which distillation foretells, also tell places)
        assert rows[-1][f"train/{term}"] > 0.995 * least or name == "Distill"


@pytest.mark.parametrize("name", [*WORDS, *NODES])
def test_a_blind_encoder_of_words_and_of_nodes_rings(name):
    method, views = build(name, "text" if name in WORDS else "graphs")
    blind(method.encoder)
    outcome, rows, alarms = look(method, lambda step, part=0, parts=1: views, 20, every=1)
    assert outcome.verdict == "collapsed", rows[-1]
    assert "same embedding" in alarms[-1]["message"]


@pytest.mark.parametrize("sees", [True, False])
def test_same_sample_or_not(sees):
    torch.manual_seed(0)
    method = methods.SameSample(vit(), hidden=32)
    if not sees:
        blind(method.encoder)
    outcome, rows, alarms = look(method, Digits(2), 30, OPTIM, every=5)
    assert outcome.verdict == ("healthy" if sees else "collapsed"), rows[-1]
    assert sees or "same embedding" in alarms[-1]["message"]


def test_data2vec_that_follows_itself():
    """Neither a slow teacher nor a predictor: what the teacher says is the same of all samples."""
    method = make("Data2Vec")
    method.momentum, method.predict = 0.0, nn.Identity()
    optim = Optim("adamw", lr=1e-2, per=BATCH, weight_decay=0.0, clip=3.0)
    outcome, rows, alarms = look(method, Coloured(), 60, optim, every=4)
    assert outcome.verdict == "collapsed" and rows[-1]["monitor/std"] < 0.02
    assert "same embedding" in alarms[-1]["message"]


def one_name(name, method):
    """Whatever comes gets the first of a book's names."""
    with torch.no_grad():
        if name == "BEiT":
            nn.init.zeros_(method.tokeniser.choose[-1].weight)
            method.tokeniser.choose[-1].bias[0] = 20.0
            method.after_step(0.0)
        elif name == "Wav2Vec2":
            nn.init.zeros_(method.quantiser.choose.weight)
            method.quantiser.choose.bias.view(-1, 16)[:, 0] = 20.0
        else:
            book = method.outer if name == "HuBERT" else method.palette
            book.counts.fill_(1.0)
            book.centres[1:] = 1e3
        if name == "HuBERT":
            method.again = 1.0  # this book to the end


@pytest.mark.parametrize("name", ["BEiT", "HuBERT", "IGPT", "Wav2Vec2"])
def test_one_name_for_everything_rings(name):
    method = make(name)
    one_name(name, method)
    _outcome, rows, alarms = look(method, Coloured(), 12, OPTIM)
    assert "same prototype" in alarms[0]["message"] and alarms[0]["verdict"] == "collapsed"
    assert rows[-1]["monitor/perplexity"] < 1.5


# -- what the best answer costs that is the same for all -------------------------------------------


def test_unseen_against_slow_readings():
    target = torch.randn(5, 3, 4, generator=torch.Generator().manual_seed(0))
    rows = target.view(15, 4).tolist()
    mean = [sum(row[k] for row in rows) / 15 for k in range(4)]
    middle = [sorted(row[k] for row in rows)[7] for k in range(4)]
    squares = sum((row[k] - mean[k]) ** 2 for row in rows for k in range(4)) / 60
    sizes = sum(abs(row[k] - middle[k]) for row in rows for k in range(4)) / 60
    assert unseen(target).item() == pytest.approx(squares, rel=1e-5)
    assert unseen(target, nn.functional.l1_loss).item() == pytest.approx(sizes, rel=1e-5)


def test_one_answer_for_all_is_never_better_than_the_best():
    target = torch.randn(40, 3, generator=torch.Generator().manual_seed(0)) + 1
    for error in (nn.functional.mse_loss, nn.functional.l1_loss):
        for guess in torch.randn(20, 3, generator=torch.Generator().manual_seed(1)) + 1:
            assert error(guess.expand_as(target), target) >= unseen(target, error) - 1e-6
