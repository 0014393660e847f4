"""CLIP's two losses against slow readings of the papers, and what training would not reveal."""

import math

import pytest
import torch
from fixed import ONE, OTHER
from test_contract import build
from torch.nn.functional import normalize

from selfsup.encoder import Encoder
from selfsup.errors import SelfsupError
from selfsup.health import Monitor
from selfsup.language import Language
from selfsup.logs import Events
from selfsup.methods import CLIP
from selfsup.methods.clip import sigmoid, softmax
from selfsup.ragged import Ragged
from selfsup.stems import Patches
from selfsup.towers import Parts, Towers

torch.set_num_threads(1)
LENGTHS = [16, 3, 7, 16, 9, 5, 12, 4]


def towers(third=False, **keywords):
    torch.manual_seed(0)
    made = {
        "a": Encoder(Patches((8, 8), (4, 4), 3, 16), dim=16, depth=1, heads=2),
        "b": Language(16, 23, dim=24, depth=1, heads=2, causal=False),
    }
    if third:
        made["c"] = Encoder(Patches((32,), (8,), 2, 16), dim=16, depth=1, heads=2)
    return Towers(made, dim=12, **keywords)


def view(third=False):
    torch.manual_seed(1)
    of = {"a": torch.randn(8, 3, 8, 8)}
    of["b"] = Ragged.of([torch.randint(3, 23, (n,)) for n in LENGTHS])
    if third:
        of["c"] = torch.randn(8, 2, 32)
    return Parts(of)


def slow_softmax(a, b, scale):
    """Section 2.3 and figure 3 of CLIP, one sample at a time, both ways."""
    total = 0.0
    for z, others in ((a, b), (b, a)):
        for i in range(len(z)):
            weights = [math.exp(scale * float(z[i] @ others[j])) for j in range(len(z))]
            total -= math.log(weights[i] / sum(weights)) / len(z)
    return total / 2


def slow_sigmoid(a, b, scale, bias):
    """Algorithm 1 of SigLIP, one pair at a time."""
    total = 0.0
    for i in range(len(a)):
        for j in range(len(b)):
            wanted = 1 if i == j else -1
            total += math.log(1 + math.exp(-wanted * (scale * float(a[i] @ b[j]) + bias)))
    return total / len(a)


@pytest.mark.parametrize("kind", ["softmax", "sigmoid"])
def test_the_loss_is_the_papers(kind):
    method = CLIP(towers(), kind=kind)
    x = view()
    (name, found), *rest = method([x], 0.0).items()
    assert name == "a_b" and not rest
    z = {k: normalize(v, dim=-1).double() for k, v in method.encoder.vectors(x).items()}
    scale = float(method.log_scale.detach().exp())
    if kind == "softmax":
        assert scale == pytest.approx(1 / 0.07)
        expected = slow_softmax(z["a"], z["b"], scale)
    else:
        assert scale == pytest.approx(10) and float(method.bias) == -10
        expected = slow_sigmoid(z["a"], z["b"], scale, -10.0)
    assert found.item() == pytest.approx(expected, rel=1e-5)


def test_losses_against_another_implementation():
    """open_clip_torch 3.3.0, loss.py: ClipLoss, and SigLipLoss with a bias of -3; scale 10."""
    a, b, scale = normalize(ONE, dim=1), normalize(OTHER, dim=1), torch.tensor(10.0)
    found = (softmax(a, b, 0, scale) + softmax(b, a, 0, scale)) / 2
    torch.testing.assert_close(found, torch.tensor(1.4166164398), atol=1e-5, rtol=1e-5)
    found = sigmoid(a, b, 0, scale, torch.tensor(-3.0))
    torch.testing.assert_close(found, torch.tensor(12.9824132919), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", ["softmax", "sigmoid"])
def test_a_temperature_that_is_given_counts(kind):
    method = CLIP(towers(), kind=kind, temperature=0.05)
    assert float(method.log_scale.detach().exp()) == pytest.approx(20)


def test_rows_from_anywhere_find_their_own_partners():
    """What a second rank computes: its rows are not the first ones of the whole batch."""
    torch.manual_seed(2)
    a, b = (normalize(torch.randn(6, 4), dim=-1) for _ in range(2))
    t, bias = torch.tensor(5.0), torch.tensor(-2.0)
    for both in (lambda z, o, f: softmax(z, o, f, t), lambda z, o, f: sigmoid(z, o, f, t, bias)):
        halves = (both(a[:3], b, 0) + both(a[3:], b, 3)) / 2
        torch.testing.assert_close(halves, both(a, b, 0))


@pytest.mark.parametrize("kind", ["softmax", "sigmoid"])
def test_chance_is_what_guessing_costs(kind):
    """The best that logits without any knowledge can reach, found by trying."""
    method = CLIP(towers(), kind=kind)
    method([view()], 0.0)
    same = normalize(torch.ones(8, 4), dim=-1)
    if kind == "softmax":
        best = softmax(same, same, 0, torch.tensor(3.0)).item()
    else:
        guesses = torch.linspace(-12, 2, 1401)
        best = min(sigmoid(same, same, 0, torch.tensor(0.0), g).item() for g in guesses)
    assert method.chance["a_b"] == pytest.approx(best, rel=1e-4)


def test_pairs_of_three_towers_and_an_anchor():
    x = view(third=True)
    every = CLIP(towers(third=True))
    terms = every([x], 0.0)
    assert list(terms) == ["a_b", "a_c", "b_c"] == list(every.chance)
    z = {k: normalize(v, dim=-1).double() for k, v in every.encoder.vectors(x).items()}
    expected = slow_softmax(z["b"], z["c"], float(every.log_scale.exp())) / 3
    assert terms["b_c"].item() == pytest.approx(expected, rel=1e-5)
    assert every.chance["b_c"] == pytest.approx(math.log(8) / 3)
    anchored = CLIP(towers(third=True), anchor="b")
    assert list(anchored([x], 0.0)) == ["a_b", "b_c"]
    with pytest.raises(SelfsupError, match="E202"):
        CLIP(towers(), anchor="d")


def test_the_scale_is_clamped_and_learned():
    method = CLIP(towers())
    sum(method([view()], 0.0).values()).backward()
    assert method.log_scale.grad.abs() > 0
    with torch.no_grad():
        method.log_scale.fill_(9.0)
    method.after_step(0.0)
    assert method.log_scale.exp().item() == pytest.approx(100, rel=1e-5)


def test_vectors_count_by_direction_alone():
    method = CLIP(towers())
    before = method([view()], 0.0)["a_b"].item()
    with torch.no_grad():
        method.encoder.towers["a"].projection.weight.mul_(7.0)
    assert method([view()], 0.0)["a_b"].item() == pytest.approx(before, rel=1e-5)


def test_padding_and_partners_do_not_leak():
    """A sample's vector is a function of that sample alone, however long its neighbours are."""
    encoder, x = towers().eval(), view()
    alone = encoder.vectors(x[2:3])
    for name, vectors in encoder.vectors(x).items():
        torch.testing.assert_close(vectors[2:3], alone[name], rtol=1e-4, atol=1e-5)


def test_frozen_towers_keep_still_but_for_their_maps():
    encoder = towers(frozen=("a",))
    method = CLIP(encoder).train()
    assert not encoder.towers["a"].encoder.training and encoder.towers["b"].encoder.training
    sum(method([view()], 0.0).values()).backward()
    for name, p in method.named_parameters():
        still = name.startswith("encoder.towers.a.encoder.")
        assert (p.grad is None) == still, name
    with pytest.raises(SelfsupError, match="E202"):
        towers(frozen=("c",))


def test_every_tower_is_watched():
    method = CLIP(towers())
    method([view()], 0.0)
    assert set(method.watch) == {"embedding", "embedding/a", "embedding/b"}
    z = method.watch
    torch.testing.assert_close(z["embedding"], (z["embedding/a"] + z["embedding/b"]) / 2)
    assert z["embedding"].shape == (8, 12)


@pytest.mark.parametrize(
    ("lost", "verdict"), [({"b_c"}, "warning"), ({"a_b", "a_c", "b_c"}, "collapsed")]
)
def test_some_parts_that_share_nothing_are_no_collapse(lost, verdict):
    x, method = view(third=True), CLIP(towers(third=True))
    monitor, events = Monitor(method), Events(None)
    for _ in range(3):
        method([x], 0.0)
        terms = {n: cost if n in lost else cost / 2 for n, cost in method.chance.items()}
        method.log_scale.data += 0.1
        monitor.look(1, 0.6, [x.of["a"]], terms, events)
    assert monitor.verdict.kind == verdict and "guessing" in monitor.verdict.message


def test_it_refuses_an_encoder_without_towers():
    with pytest.raises(SelfsupError, match="E202"):
        CLIP(Encoder(Patches((8, 8), (4, 4), 3, 16), dim=16, depth=1, heads=2))
    with pytest.raises(SelfsupError, match="E202"):
        Towers({"a": Encoder(Patches((8,), (4,), 3, 16), dim=16, depth=1, heads=2)}, dim=4)


def test_show_compares_each_part_with_all_others():
    method, (x,) = build("CLIP", "pairs")
    (alike,) = method.show([x]).values()
    z = method.encoder.vectors(x)
    assert alike.parts == ("image", "text")
    wanted = torch.cosine_similarity(z["image"][2], z["text"][5], dim=0)
    torch.testing.assert_close(alike.cosines[2, 5], wanted)
