"""Every method, on every grid: the contract. Adding a method adds one line to METHODS."""

import copy
from math import prod
from pathlib import Path

import pytest
import torch

from selfsup import methods
from selfsup.encoder import Encoder, resnet
from selfsup.randomness import mix
from selfsup.stems import Patches

GRIDS = {
    "series": ((64,), (8,)),
    "image": ((16, 16), (4, 4)),
    "video": ((4, 16, 16), (2, 8, 8)),
}
SMALLER = {"series": (32,), "image": (8, 8), "video": (2, 8, 8)}
METHODS = {
    "SimCLR": lambda e: methods.SimCLR(e, hidden=64, dim=16),
    "DINO": lambda e: methods.DINO(e, prototypes=32, hidden=64, dim=16, momentum=0.9),
    "MAE": lambda e: methods.MAE(e, decoder_dim=32, decoder_depth=1, decoder_heads=2),
}
NO_TOKENS = {("MAE", "convolutional")}
CASES = [(m, g) for m in METHODS for g in (*GRIDS, "convolutional") if (m, g) not in NO_TOKENS]


def build(name: str, kind: str):
    """A small method and eight samples of each of the views it asks for."""
    torch.manual_seed(0)
    if kind == "convolutional":
        encoder, size, small = resnet("resnet18", 16, width=0.125), (16, 16), (8, 8)
    else:
        size, patch = GRIDS[kind]
        small = SMALLER[kind]
        encoder = Encoder(Patches(size, patch, 3, 24), dim=24, depth=2, heads=2)
    method = METHODS[name](encoder)
    sizes = [size] * (method.views.light + method.views.strong) + [small] * method.views.local
    return method, [torch.randn(8, 3, *s) for s in sizes]


@pytest.fixture(params=CASES, ids="-".join)
def case(request):
    return build(*request.param)


def run(method, views, steps, lr=3e-3, time_stands=False):
    """The plainest loop there is; the loss of each step. Schedules and teachers may stand still."""
    optimizer = torch.optim.AdamW((p for p in method.parameters() if p.requires_grad), lr=lr)
    seen = []
    for step in range(steps):
        torch.manual_seed(mix(0, step))
        progress = 0.5 if time_stands else step / steps
        loss = sum(method(views, progress).values())
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        if not time_stands:
            method.after_step(progress)
        seen.append(loss.item())
    return seen


def test_every_file_in_methods_is_in_the_contract():
    files = {p.stem for p in Path(methods.__file__).parent.glob("[!_]*.py")}
    assert files == {name.lower() for name in METHODS}


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
    assert set(method.chance) <= set(method(views, 0.0))
    for caption, picture in method.show(views).items():
        assert picture.shape == views[0].shape, caption


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
    assert encoder.features(views[0]).shape == (8, prod(encoder.grid), encoder.dim)


def test_masked_methods_refuse_an_encoder_without_tokens():
    from selfsup.errors import SelfsupError

    with pytest.raises(SelfsupError, match="E202"):
        METHODS["MAE"](resnet("resnet18", 16, width=0.125))
