"""Parameter groups, schedules and LARS, each beside a slow reading."""

import pytest
import torch
from torch import nn

from selfsup import methods, optim
from selfsup.encoder import build
from selfsup.optim import LARS, Optim

torch.set_num_threads(1)


def names_by_decay(method, optimizer) -> dict[bool, set[str]]:
    names = {id(p): name for name, p in method.named_parameters()}
    found = {True: set(), False: set()}
    for group in optimizer.param_groups:
        found[group["decays"]] |= {names[id(p)] for p in group["params"]}
    return found


def test_what_decays_are_matrices_and_nothing_else():
    method = methods.MAE(build("vit_tiny", 32, patch=16), decoder_dim=32, decoder_depth=1)
    groups = names_by_decay(method, optim.build(method, Optim(), 256))
    assert groups[True] | groups[False] == {
        name for name, p in method.named_parameters() if p.requires_grad
    }
    assert not groups[True] & groups[False]
    for name in groups[True]:
        assert name.endswith("weight") and method.get_parameter(name).ndim > 1, name
    assert "blank" in groups[False]
    assert any(name.endswith("bias") for name in groups[False])


def test_cls_token_and_registers_neither_decay_nor_are_made_orthogonal():
    encoder = build("vit_tiny", 32, patch=16, cls=True, registers=2)
    method = methods.MAE(encoder, decoder_dim=32, decoder_depth=1)
    groups = names_by_decay(method, optim.build(method, Optim("muon"), 256))
    assert {"encoder.trunk.prefix", "encoder.positions", "blank"} <= groups[False]


def test_the_teacher_is_not_optimised():
    method = methods.DINO(build("vit_tiny", 32, patch=16), prototypes=16, hidden=16, dim=8)
    groups = names_by_decay(method, optim.build(method, method.optim, 256))
    assert not [name for name in groups[True] | groups[False] if name.startswith("teacher")]


@pytest.mark.parametrize(("batch", "expected"), [(256, 0.3), (64, 0.075), (1024, 1.2)])
def test_the_rate_follows_the_batch(batch, expected):
    recipe = Optim("sgd", lr=0.3, per=256, warmup=0.25, final=0.1, weight_decay=0.01)
    model = nn.Linear(2, 2)
    optimizer = optim.build(model, recipe, batch)
    assert optim.set_progress(optimizer, recipe, batch, 0.0) == 0
    assert optim.set_progress(optimizer, recipe, batch, 0.125) == pytest.approx(expected / 2)
    assert optim.set_progress(optimizer, recipe, batch, 0.25) == pytest.approx(expected)
    assert optim.set_progress(optimizer, recipe, batch, 1.0) == pytest.approx(0.1 * expected)
    halved = optim.set_progress(optimizer, recipe, batch, 0.25, scale=0.5)
    assert halved == pytest.approx(expected / 2)
    assert all(group["lr"] == halved for group in optimizer.param_groups)


def test_weight_decay_moves_only_where_it_applies():
    recipe = Optim("adamw", weight_decay=0.04, weight_decay_end=0.4)
    optimizer = optim.build(nn.Linear(2, 2), recipe, 256)
    seen = []
    for progress in (0.0, 0.5, 1.0):
        optim.set_progress(optimizer, recipe, 256, progress)
        seen.append({g["decays"]: g["weight_decay"] for g in optimizer.param_groups})
    assert [s[True] for s in seen] == pytest.approx([0.04, 0.22, 0.4])
    assert [s[False] for s in seen] == [0.0, 0.0, 0.0]


def test_unknown_name():
    with pytest.raises(ValueError, match="adamw, muon, sgd or lars"):
        optim.build(nn.Linear(2, 2), Optim("adamm"), 256)


def test_lars_against_a_slow_reading_of_the_paper():
    torch.manual_seed(0)
    model = nn.Linear(3, 4)
    w, b = model.weight.detach().clone(), model.bias.detach().clone()
    recipe = Optim("lars", lr=0.5, per=1, weight_decay=0.1, momentum=0.8, warmup=0.0)
    optimizer = optim.build(model, recipe, 1)
    assert isinstance(optimizer, LARS)
    vw, vb = torch.zeros_like(w), torch.zeros_like(b)
    for step in range(4):
        lr = optim.set_progress(optimizer, recipe, 1, step / 4)
        gw, gb = torch.randn(4, 3), torch.randn(4)
        model.weight.grad, model.bias.grad = gw.clone(), gb.clone()
        optimizer.step()
        slope = gw + 0.1 * w
        rate = 0.001 * w.pow(2).sum().sqrt() / slope.pow(2).sum().sqrt()
        vw = 0.8 * vw + rate * slope
        vb = 0.8 * vb + gb  # a bias is neither scaled nor decayed
        w, b = w - lr * vw, b - lr * vb
        torch.testing.assert_close(model.weight.detach(), w)
        torch.testing.assert_close(model.bias.detach(), b)


def test_lars_moves_a_weight_that_is_zero():
    model = nn.Linear(2, 2, bias=False)
    nn.init.zeros_(model.weight)
    optimizer = optim.build(model, Optim("lars", lr=1.0, per=1), 1)
    model.weight.grad = torch.ones(2, 2)
    optimizer.step()
    assert torch.equal(model.weight, -torch.ones(2, 2))


@pytest.mark.parametrize("shape", [(6, 40), (40, 6), (16, 16)])
def test_orthogonal_keeps_directions_and_evens_out_their_sizes(shape):
    torch.manual_seed(0)
    matrices = []
    for length in (1, 300):  # one's size does not count for another
        u, _, v = torch.linalg.svd(torch.randn(shape), full_matrices=False)
        matrices.append((u, length * torch.logspace(0, -1, min(shape)), v))
    both = optim.orthogonal(torch.stack([u * sizes @ v for u, sizes, v in matrices]))
    for (u, _, v), found in zip(matrices, both, strict=True):
        inner = u.T @ found @ v.T
        assert inner.diagonal().min() > 0.6 and inner.diagonal().max() < 1.3
        assert (inner - inner.diagonal().diag()).abs().max() < 0.05  # bfloat16


def test_muon_against_a_slow_reading():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 4), nn.Linear(4, 3), nn.Linear(6, 4))  # two are alike
    layers = [layer for layer in model if isinstance(layer, nn.Linear)]
    weights = [layer.weight.detach().clone() for layer in layers]
    recipe = Optim("muon", lr=0.1, per=1, weight_decay=0.5, warmup=0.0)
    optimizer = optim.build(model, recipe, 1)
    velocities = [torch.zeros_like(w) for w in weights]
    for step in range(3):
        lr = optim.set_progress(optimizer, recipe, 1, step / 4)
        for layer in layers:
            layer.weight.grad = torch.randn_like(layer.weight)
            layer.bias.grad = torch.ones_like(layer.bias)
        gradients = [layer.weight.grad.clone() for layer in layers]
        biases = [layer.bias.detach().clone() for layer in layers]
        optimizer.step()
        for i, (layer, g) in enumerate(zip(layers, gradients, strict=True)):
            velocities[i] = 0.95 * velocities[i] + g
            (direction,) = optim.orthogonal((g + 0.95 * velocities[i])[None])
            length = lr * 0.2 * max(g.shape) ** 0.5  # arXiv 2502.16982, equation 4
            weights[i] = weights[i] * (1 - lr * 0.5) - length * direction
            torch.testing.assert_close(layer.weight.detach(), weights[i])
            # biases are AdamW's, whose first steps are as long as the rate
            torch.testing.assert_close(layer.bias.detach(), biases[i] - lr, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("name", ["adamw", "muon", "sgd", "lars"])
def test_state_goes_through_names_and_back(name):
    """A copy that is given the state by parameter name makes the same next step."""
    from selfsup.distributed import like

    def trained(steps):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(16, 2))
        model.to(memory_format=torch.channels_last)
        optimizer = optim.build(model, Optim(name, lr=0.01, per=1), 1)
        for step in range(steps):
            advance(model, optimizer, step)
        return model, optimizer

    def advance(model, optimizer, step):
        x = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(step))
        model(x).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()

    model, optimizer = trained(3)
    saved = {k: v.clone().contiguous() for k, v in optim.state_tensors(model, optimizer).items()}
    weights = {k: v.clone() for k, v in model.state_dict().items()}
    advance(model, optimizer, 3)

    other, fresh = trained(0)
    other.load_state_dict(weights)
    optim.load_state_tensors(other, fresh, saved.items(), like)
    for name_, parameter in other.named_parameters():
        for value in fresh.state[parameter].values():
            if isinstance(value, torch.Tensor) and value.ndim:
                assert value.stride() == parameter.stride(), name_  # fused kernels rely on it
    advance(other, fresh, 3)
    for a, b in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b)
