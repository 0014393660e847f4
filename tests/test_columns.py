"""Convolutions by products against PyTorch's own."""

import pytest
import torch
from torch import nn

from selfsup import columns
from selfsup.encoder import resnet


@pytest.fixture(autouse=True)
def everywhere(monkeypatch):
    """Also on processors where it does not pay."""
    monkeypatch.setattr(columns, "matrix_unit", lambda: True)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", [(4, 4), (3, 5), (2, 2), (1, 1)])
def test_output_and_gradients(stride, size, monkeypatch):
    used = []
    apply = columns._Convolution.apply
    monkeypatch.setattr(columns._Convolution, "apply", lambda *a: used.append(1) or apply(*a))
    torch.manual_seed(0)
    layer = columns.Conv2d(64, 32, 3, stride, 1, bias=False)
    x = torch.randn(4, 64, *size).contiguous(memory_format=torch.channels_last).requires_grad_()
    exact = nn.functional.conv2d(x.double(), layer.weight.double(), None, stride, 1)
    dy = torch.randn(exact.shape)
    wanted = torch.autograd.grad(exact, (x, layer.weight), dy.double())
    with torch.autocast("cpu", torch.bfloat16):
        y = layer(x)
    assert used and y.dtype == torch.bfloat16
    assert y.is_contiguous(memory_format=torch.channels_last)
    found = torch.autograd.grad(y, (x, layer.weight), dy.bfloat16())
    for a, b in zip((y, *found), (exact, *wanted), strict=True):
        assert ((a - b).norm() / b.norm()).item() < 1e-2


def test_large_maps_few_channels_and_float32_stay_with_pytorch(monkeypatch):
    monkeypatch.setattr(columns._Convolution, "apply", None)
    wide, narrow = (columns.Conv2d(c, 8, 3, 1, 1, bias=False) for c in (64, 32))
    with torch.autocast("cpu", torch.bfloat16):
        wide(torch.randn(1, 64, 8, 8))
        narrow(torch.randn(1, 32, 4, 4))
    wide(torch.randn(1, 64, 4, 4))


def test_a_resnet_has_the_layers_and_names_of_before():
    encoder = resnet("resnet18", 32, width=0.5)
    kinds = [type(m) for m in encoder.modules() if isinstance(m, nn.Conv2d)]
    assert kinds.count(columns.Conv2d) == 16
    assert "layer4.1.conv2.weight" in encoder.state_dict()
