"""Every method, on every grid: the contract. Adding a method adds one line to METHODS."""

import copy
from math import prod
from pathlib import Path

import pytest
import torch
from torch.nn.modules.batchnorm import _BatchNorm

from selfsup import listing, methods, released
from selfsup.carp import Carp
from selfsup.data.graphs import canonical
from selfsup.dilated import Dilated
from selfsup.encoder import Encoder, resnet
from selfsup.errors import SelfsupError
from selfsup.graph import network
from selfsup.language import Language
from selfsup.ragged import Ragged
from selfsup.randomness import mix
from selfsup.sound import Waveform
from selfsup.sparse import Graphs
from selfsup.stems import Patches
from selfsup.steps import Observer, Steps
from selfsup.towers import Parts, Towers

GRIDS = {
    "series": ((64,), (8,)),
    "image": ((16, 16), (4, 4)),
    "video": ((4, 16, 16), (2, 8, 8)),
    "sound": ((16, 32), (16, 4)),  # all bands of a few frames, as sound's own encoders see it
}
SMALLER = {"series": (32,), "image": (8, 8), "video": (2, 8, 8), "sound": (16, 16)}
METHODS = {
    "SimCLR": lambda e: methods.SimCLR(e, hidden=64, dim=16),
    "DINO": lambda e: methods.DINO(e, prototypes=32, hidden=64, dim=16, momentum=0.9),
    "MAE": lambda e: methods.MAE(e, decoder_dim=32, decoder_depth=1, decoder_heads=2),
    "JEPA": lambda e: methods.JEPA(
        e, predictor_dim=24, predictor_depth=1, predictor_heads=2, momentum=0.9
    ),
    "TS2Vec": lambda e: methods.TS2Vec(e),
    "Wav2Vec2": lambda e: methods.Wav2Vec2(e, span=2, codes=8, dim=16),
    "HuBERT": lambda e: methods.HuBERT(e, span=2, clusters=8, dim=16),
    "GraphMAE": lambda e: methods.GraphMAE(e),
    "GRACE": lambda e: methods.GRACE(e, hidden=32, dim=16),
    "DGI": methods.DGI,
    "BGRL": lambda e: methods.BGRL(e, hidden=32, momentum=0.9),
    "MLM": methods.MLM,
    "CLM": methods.CLM,
    "MDLM": methods.MDLM,
    "ELECTRA": methods.ELECTRA,
    "SimCSE": methods.SimCSE,
    "MoCo": lambda e: methods.MoCo(e, queue=24, hidden=64, dim=16, momentum=0.9, norm_batch=4),
    "CURL": methods.CURL,
    "MoCoV3": lambda e: methods.MoCoV3(e, hidden=64, dim=16, momentum=0.9),
    "BYOL": lambda e: methods.BYOL(e, hidden=64, dim=16, momentum=0.9),
    "SimSiam": lambda e: methods.SimSiam(e, hidden=64, bottleneck=16),
    "BarlowTwins": lambda e: methods.BarlowTwins(e, dim=32),
    "VICReg": lambda e: methods.VICReg(e, dim=32),
    "SwAV": lambda e: methods.SwAV(e, prototypes=32, hidden=64, dim=16, queue=16),
    "NNCLR": lambda e: methods.NNCLR(e, queue=24, hidden=64, dim=16, predictor_hidden=64),
    "TiCo": lambda e: methods.TiCo(e, hidden=64, dim=16, momentum=0.9),
    "LeJEPA": lambda e: methods.LeJEPA(e, hidden=64, dim=8, slices=32),
    "MSN": lambda e: methods.MSN(e, prototypes=32, hidden=64, dim=16, local_views=4, momentum=0.9),
    "CLIP": methods.CLIP,
    "World_Model": lambda e: methods.WorldModel(e, hidden=32),
    "SimMIM": methods.SimMIM,
    "Data2Vec": lambda e: methods.Data2Vec(e, layers=2, momentum=0.9),
    "IBOT": lambda e: methods.IBOT(e, prototypes=32, hidden=64, dim=16, momentum=0.9),
    "DINOv2": lambda e: methods.DINOv2(e, prototypes=32, hidden=64, dim=16, momentum=0.9),
    "Rotation": methods.Rotation,
    "Jigsaw": methods.Jigsaw,
    "RelativePosition": lambda e: methods.RelativePosition(e, hidden=64),
    "Colorization": lambda e: methods.Colorization(e, hidden=64),
    "Inpainting": lambda e: methods.Inpainting(e, hidden=64),
    "CPC": lambda e: methods.CPC(e, negatives=16, hidden=32, dim=16),
    "MaskFeat": methods.MaskFeat,
    "Distill": lambda e: methods.Distill(e, teacher=released.of(copy.deepcopy(e))),
    "IGPT": lambda e: methods.IGPT(e, clusters=8, upper=1),
    "TFC": lambda e: methods.TFC(e, hidden=32, dim=16),
    "SameSample": lambda e: methods.SameSample(e, hidden=32),
    "BEiT": lambda e: methods.BEiT(e, codes=8, hidden=16, settle=0.6),
}
# which need a transformer's tokens; which need two axes, of which none is time
TOKENS = ("SimMIM", "Data2Vec", "IBOT", "DINOv2", "Jigsaw", "CPC", "MaskFeat", "IGPT", "BEiT")
FLAT = ("Rotation", "MaskFeat")
NO_TOKENS = {("TS2Vec", "convolutional"), ("Wav2Vec2", "convolutional"), ("MAE", "convolutional")}
NO_TOKENS |= {("MAE", "dilated"), ("Wav2Vec2", "dilated")}
NO_TOKENS |= {("HuBERT", "convolutional"), ("HuBERT", "dilated")}
NO_TOKENS |= {("MSN", "convolutional"), ("MSN", "dilated")}
NO_TOKENS |= {("JEPA", "convolutional"), ("JEPA", "dilated")}
NO_TOKENS |= {(m, g) for m in TOKENS for g in ("convolutional", "dilated")}
NO_TOKENS |= {(m, g) for m in FLAT for g in ("series", "video", "dilated")}
NO_TOKENS |= {("Rotation", "sound"), ("Colorization", "sound")}  # no squares, one channel
KINDS = ("series", "image", "video", "sound", "convolutional", "dilated")
NODES = ("GraphMAE", "GRACE", "DGI", "BGRL")  # methods for graphs, whose nodes have no grid
WORDS = ("MLM", "CLM", "MDLM", "ELECTRA")  # methods for tokens of a vocabulary
PARTED = ("CLIP",)  # methods for samples of several parts
ACTED = ("World_Model",)  # methods for what actions lead to
ANY = ("SimCLR", "DINO", "MoCo", "MoCoV3", "BYOL", "SimSiam", "BarlowTwins", "VICReg", "SwAV",
       "NNCLR", "TiCo", "LeJEPA", "CURL", "SameSample")  # fmt: skip
WAVES = ("SimCLR", "MAE", "JEPA", "Wav2Vec2", "HuBERT", "Data2Vec", "SimMIM", "CPC")  # as a sample
CASES = [(m, g) for m in METHODS for g in KINDS if (m, g) not in NO_TOKENS]
CASES = [(m, g) for m, g in CASES if m not in (*NODES, *WORDS, *PARTED, *ACTED, "SimCSE")]
CASES += [(m, g) for m in (*ANY, *NODES) for g in ("graphs", "nodes")]
CASES += [(m, "text") for m in (*ANY, *WORDS, "Data2Vec")]
CASES += [(m, "residues") for m in (*ANY, *WORDS, "Data2Vec")]  # tokens that come in rescaled
CASES += [(m, "convolved") for m in ("SimCLR", "MLM", "MDLM", "ELECTRA", "Data2Vec", "SimCSE")]
CASES += [("SimCSE", g) for g in ("dilated", "graphs", "nodes", "text", "residues")]
CASES += [(m, "wave") for m in WAVES]
CASES += [(m, "pairs") for m in (*ANY, *PARTED)]
CASES += [(m, g) for m in (*ANY, *ACTED) for g in ("frames", "vectors")]
# what a sample adds to the loss depends on no other one; all nodes are of one graph
ALONE = [(m, g) for m, g in CASES if g != "nodes"]
ALONE = [(m, g) for m, g in ALONE if not getattr(methods, m.replace("_", "")).across_batch]
# what each modality's data are here
BUILT = {
    "audio": ("sound", "wave"),
    "graph": ("graphs",),
    "image": ("image", "convolutional"),
    "network": ("nodes",),
    "pairs": ("pairs",),
    "protein": ("residues", "convolved"),
    "series": ("series", "dilated"),
    "text": ("text",),
    "trajectory": ("frames", "vectors"),
    "video": ("video",),
}


def build(name: str, kind: str):
    """A small method and eight samples of each of the views it asks for."""
    torch.manual_seed(0)
    if kind in ("graphs", "nodes"):
        drop = 0.1 if name == "SimCSE" else 0.0
        encoder = network(
            "gin" if kind == "graphs" else "gat", 12, dim=24, depth=2, heads=2, drop=drop
        )
        method = METHODS[name](encoder)
        return method, [some_graphs(8, kind == "nodes") for _ in range(method.views.count)]
    if kind in ("text", "residues"):
        shape = {"dim": 24, "depth": 2, "heads": 2, "rescale": kind == "residues"}
        shape["dropout"] = 0.1 if name == "SimCSE" else 0.0
        encoder = Language(16, 23, **shape, causal=name == "CLM")
        method = METHODS[name](encoder)
        return method, texts(method.views.count, method.views.local)
    if kind == "convolved":
        encoder = Carp(16, 23, dim=24, depth=2, dropout=0.1 if name == "SimCSE" else 0.0)
        method = METHODS[name](encoder)
        return method, texts(method.views.count, method.views.local)
    if kind == "pairs":
        patches = Encoder(Patches((16, 16), (4, 4), 3, 24), dim=24, depth=2, heads=2)
        words = Language(16, 23, dim=24, depth=2, heads=2, causal=False)
        method = METHODS[name](Towers({"image": patches, "text": words}, dim=16))
        made = texts(method.views.count, method.views.local)
        return method, [Parts({"image": torch.randn(8, 3, 16, 16), "text": x}) for x in made]
    if kind in ("frames", "vectors"):
        shape = (3, 8, 8) if kind == "frames" else (5,)
        encoder = Observer(shape, 2, dim=12, hidden=64, depth=2)
        return METHODS[name](encoder), some_steps(shape, METHODS[name](encoder).views.count)
    channels = 1 if kind in ("sound", "wave") else 3
    if kind == "wave":
        stem, size, small = Waveform(240, 800, 8, 24), (240,), (120,)  # 12 tokens of 20 samples
        encoder = Encoder(stem, dim=24, depth=2, heads=2, causal=name == "IGPT")
    elif kind == "convolutional":
        encoder, size, small = resnet("resnet18", 16, width=0.125), (16, 16), (8, 8)
    elif kind == "dilated":
        encoder, size, small = Dilated(32, 3, dim=24, hidden=16, depth=3), (32,), (16,)
    else:
        size, patch = GRIDS[kind]
        small = SMALLER[kind]
        shape = {"dim": 24, "depth": 2, "heads": 2, "causal": name == "IGPT"}
        encoder = Encoder(Patches(size, patch, channels, 24), **shape)
    method = METHODS[name](encoder)
    sizes = [size] * (method.views.light + method.views.strong) + [small] * method.views.local
    return method, [torch.randn(8, channels, *s) for s in sizes]


def some_graphs(count: int, nodes: bool) -> Graphs:
    """Rings of different lengths; or one ring, of which so many nodes are the samples."""
    sizes = torch.tensor([20] if nodes else [4 + i for i in range(count)])
    n, graph = int(sizes.sum()), torch.arange(len(sizes)).repeat_interleave(sizes)
    first = (sizes.cumsum(0) - sizes)[graph]
    here = torch.arange(n)
    edges = torch.stack([here, first + (here - first + 1) % sizes[graph]])
    edges = torch.from_numpy(canonical(edges.numpy(), n))
    rows = torch.randperm(n)[:count] if nodes else None
    columns = torch.randint(12, (2 * n,))
    return Graphs(2 * here, columns, torch.rand(2 * n), 12, edges, graph, len(sizes), rows)


def some_steps(shape: tuple[int, ...], views: int) -> list[Steps]:
    """Eight rows of up to 6 steps, of which each action moves all that is seen."""
    actions = torch.randn(8, 6, 2)
    moved = actions.cumsum(1).sum(-1).view(8, 6, *[1] * len(shape))
    seen = torch.randn(8, 1, *shape) + 0.3 * moved
    valid = torch.arange(6) < torch.tensor([6, 6, 3, 6, 5, 6, 2, 6])[:, None]
    return [Steps(seen, actions, valid)] * views


def texts(views: int, local: int = 0) -> list[Ragged]:
    """Eight texts of 3 to 16 tokens, in as many views; local ones show the first half."""
    lengths = [16, 3, 7, 16, 9, 5, 12, 4]
    made = [torch.randint(3, 23, (n,)) for n in lengths]
    whole = Ragged.of(made)
    half = Ragged.of([row[: max(2, len(row) // 2)] for row in made])
    return [whole] * (views - local) + [half] * local


@pytest.fixture(params=CASES, ids="-".join)
def case(request):
    return build(*request.param)


def run(method, views, steps, lr=3e-3, time_stands=False):
    """The plainest loop there is; the loss of each step. What moves without gradients (schedules,
    teachers, queues) may stand still."""
    optimizer = torch.optim.AdamW((p for p in method.parameters() if p.requires_grad), lr=lr)
    seen = []
    for step in range(steps):
        torch.manual_seed(mix(0, step))
        buffers = [buffer.clone() for buffer in method.buffers()]
        progress = 0.5 if time_stands else step / steps
        loss = sum(method(views, progress).values())
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        if not time_stands:
            method.after_step(progress)
        else:
            for now, before in zip(method.buffers(), buffers, strict=True):
                now.data.copy_(before)
        seen.append(loss.item())
    return seen


def test_every_file_in_methods_is_in_the_contract():
    files = {p.stem for p in Path(methods.__file__).parent.glob("[!_]*.py")}
    assert files == {name.lower() for name in METHODS}


def test_every_kind_of_data_is_in_the_contract():
    assert set(BUILT) == set(listing.modalities())


@pytest.mark.parametrize("name", METHODS)
def test_methods_run_in_the_cases_above_and_refuse_elsewhere_with_a_reason(name):
    """Of waves and of convolutions over tokens few have cases: the others run once there."""
    for modality, kinds in BUILT.items():
        lack(name.lower(), modality)
        for kind in kinds:
            if kind == "convolved" and name != "CLM" and (name, "residues") in CASES:
                assert one_loss(name, kind).isfinite()
            elif (name, kind) not in CASES and kind != "wave":
                with pytest.raises(SelfsupError, match="E202"):
                    one_loss(name, kind)
    if (name, "sound") in CASES and name != "MaskFeat":  # of waves few have a case; one axis
        assert one_loss(name, "wave").isfinite()


def lack(method: str, modality: str) -> str:
    """What the encoders of such data do not have, by the words of the method that refuses them."""
    name = next(name for name in METHODS if name.lower() == method)
    if any((name, kind) in CASES for kind in BUILT[modality]):
        return ""
    with pytest.raises(SelfsupError, match="E202") as refused:
        one_loss(name, BUILT[modality][0])
    said = refused.value.why.rpartition("this encoder ")[2]
    assert said.startswith("has "), (name, modality)
    return said


def one_loss(name: str, kind: str) -> torch.Tensor:
    method, views = build(name, kind)
    return sum(method(views, 0.5).values())


def test_loss_is_finite_and_reaches_every_trainable_parameter(case):
    method, views = case
    terms = method(views, 0.5)
    loss = sum(terms.values())
    assert loss.isfinite() and loss.ndim == 0
    loss.backward()
    for name, p in method.named_parameters():
        assert (p.grad is not None) == p.requires_grad, name
        if p.requires_grad and p.numel() > 1:
            assert p.grad.abs().sum() > 0 or _may_be_zero(name), name


def _may_be_zero(name: str) -> bool:
    """Layers behind a block that starts as its shortcut (zero-initialised gain) wait a step."""
    return "layer" in name and any(part in name for part in ("conv", "bn1", "bn2", "bn3"))


def test_loss_goes_down(case):
    method, views = case
    seen = run(method, views, 60, time_stands=True)  # with a moving target it may well rise
    assert sum(seen[-5:]) < 0.97 * sum(seen[:5])


def test_what_the_monitor_and_the_report_need_is_there(case):
    method, views = case
    method(views, 0.0)
    embedding = method.watch["embedding"]
    assert embedding.shape[1] == method.encoder.dim and not embedding.requires_grad
    if "assignments" in method.watch:
        torch.testing.assert_close(
            method.watch["assignments"].sum(-1), torch.ones(len(method.watch["assignments"]))
        )
    assert set(method.chance) | set(method.constant) <= set(method(views, 0.0))
    for caption, made in method.show(views).items():
        assert len(made) == len(views[0]), caption
        assert getattr(made, "shape", views[0].shape) == views[0].shape, caption


def test_same_step_same_numbers_and_state_dict_is_the_whole_state(case):
    method, views = case
    run(method, views, 3)
    twin = copy.deepcopy(method)
    fresh, _ = copy.deepcopy(method), run(method, views, 3)
    fresh.load_state_dict(twin.state_dict())
    assert run(fresh, views, 3) == run(twin, views, 3)
    for key, value in fresh.state_dict().items():
        assert torch.equal(value, twin.state_dict()[key]), key


def test_teachers_move_only_in_after_step_and_have_no_gradient(case):
    method, views = case
    statistics = ("running_mean", "running_var", "num_batches_tracked")
    slow = {
        key: value.clone()
        for key, value in method.state_dict().items()
        if ".slow." in key and not key.endswith(statistics)
    }
    sum(method(views, 0.5).values()).backward()
    for key, value in slow.items():
        assert torch.equal(value, method.state_dict()[key]), key
    assert all(not p.requires_grad for n, p in method.named_parameters() if ".slow." in n)
    run(method, views, 3)
    if slow:
        assert any(not torch.equal(v, method.state_dict()[k]) for k, v in slow.items())


def test_kept_encoder_gives_one_vector_a_sample_and_one_a_place(case):
    method, views = case
    encoder = method.kept.eval()
    assert encoder(views[0]).shape == (8, encoder.dim)
    found = encoder.features(views[0]).shape
    if hasattr(encoder, "grid"):
        assert found == (8, prod(encoder.grid), encoder.dim)
    else:  # the largest graph says how many places there are
        assert found[0] == 8 and found[2] == encoder.dim


def changed(x, sample):
    """The same samples, but for what one of them shows."""
    if isinstance(x, Parts):
        return Parts({name: changed(part, sample) for name, part in x.of.items()})
    x = copy.deepcopy(x)
    if isinstance(x, Graphs):
        x.values[x.graph[x.owner] == sample] *= 3.0
    elif isinstance(x, Ragged):
        x.values[sample] = 3 + (x.values[sample] - 2) % 20
    elif isinstance(x, Steps):
        x.observations[sample] = 1 - x.observations[sample].flip(-1)
    else:
        x[sample] = 1 - x[sample].flip(-1)
    return x


@pytest.mark.parametrize(("name", "kind"), ALONE, ids=map("-".join, ALONE))
def test_what_a_sample_adds_to_the_loss_is_its_own(name, kind):
    """What a change of one sample does to the loss is the same whatever another one shows. Batch
    norm has fixed statistics here."""
    method, views = build(name, kind)
    for module in method.modules():
        if isinstance(module, _BatchNorm):
            module.eval()
    found, state = [], copy.deepcopy(method.state_dict())
    for samples in ((), (0,), (1,), (0, 1)):
        method.load_state_dict(state)
        torch.manual_seed(1)
        others = list(views)
        for sample in samples:
            others = [changed(x, sample) for x in others]
        with torch.no_grad():
            found.append(sum(method(others, 0.5).values()).item())
    plain, one, other, both = found
    assert one != plain != other
    assert plain + both == pytest.approx(one + other, rel=1e-6, abs=2e-8)


def test_masked_methods_refuse_an_encoder_without_tokens():
    with pytest.raises(SelfsupError, match="E202"):
        METHODS["MAE"](resnet("resnet18", 16, width=0.125))
    with pytest.raises(SelfsupError, match="E202"):
        METHODS["MAE"](Dilated(32, 3, dim=24, hidden=16, depth=3))
    with pytest.raises(SelfsupError, match="E202"):
        METHODS["TS2Vec"](resnet("resnet18", 16, width=0.125))
    for name in NODES:
        with pytest.raises(SelfsupError, match="E202"):
            METHODS[name](resnet("resnet18", 16, width=0.125))
