"""The fused linear layers against PyTorch's own."""

import pytest
import torch
from torch import nn
from torch.nn.functional import gelu

from selfsup import fused
from selfsup.machine import bf16_pays


@pytest.mark.parametrize("autocast", [True, False])
@pytest.mark.parametrize("shape", [(7, 96), (2, 5, 96)])
def test_equal_to_the_layer_in_bfloat16(autocast, shape, monkeypatch):
    used = []
    kernel = fused._KERNEL
    monkeypatch.setattr(fused, "_KERNEL", lambda *a: used.append(a[3]) or kernel(*a))
    torch.manual_seed(0)
    layer, x = nn.Linear(96, 160), torch.randn(shape)
    if not autocast:
        layer, x = layer.bfloat16(), x.bfloat16()
    exact = nn.functional.linear(x.double(), layer.weight.double(), layer.bias.double())
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        plain, active = fused.linear(layer, x), fused.linear_gelu(layer, x)
    assert used == ["none", "gelu"]
    for found, right in ((plain, exact), (active, gelu(exact))):
        assert found.dtype == torch.bfloat16 and found.shape == right.shape
        assert ((found.double() - right).norm() / right.norm()).item() < 5e-3


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_gradients_go_the_usual_way(dtype):
    torch.manual_seed(0)
    layer, x = nn.Linear(8, 8).to(dtype), torch.randn(3, 8, dtype=dtype)
    out = fused.linear_gelu(layer, x)
    assert torch.equal(out, gelu(layer(x)))
    out.sum().backward()
    assert layer.weight.grad.abs().sum() > 0 and layer.bias.grad.abs().sum() > 0


def test_float32_is_untouched():
    layer, x = nn.Linear(8, 8), torch.randn(3, 8)
    with torch.no_grad():
        assert torch.equal(fused.linear(layer, x), layer(x))


def test_layers_without_a_bias():
    layer, x = nn.Linear(8, 8, bias=False).bfloat16(), torch.randn(3, 8).bfloat16()
    with torch.no_grad():
        torch.testing.assert_close(fused.linear(layer, x), layer(x))


def test_without_the_kernel(monkeypatch):
    monkeypatch.setattr(fused, "_KERNEL", None)
    layer, x = nn.Linear(8, 8).bfloat16(), torch.randn(3, 8).bfloat16()
    with torch.no_grad():
        assert torch.equal(fused.linear_gelu(layer, x), gelu(layer(x)))


@pytest.mark.skipif(not bf16_pays(), reason="this machine has no fast bfloat16")
def test_an_encoder_gives_the_same_vectors_fused():
    from selfsup.encoder import build
    from selfsup.inference import Fast

    torch.manual_seed(0)
    encoder, x = build("vit_tiny", 32, patch=8, depth=3), torch.randn(4, 3, 32, 32)
    with torch.no_grad():
        right = encoder.eval()(x)
    assert (nn.functional.cosine_similarity(Fast(encoder, "bf16")(x), right) > 0.999).all()
