"""Encoders of series: convolutions as products, patches that know what is missing."""

import pytest
import torch
from torch.nn.functional import conv1d

from selfsup.dilated import MarkedPatches, Steps
from selfsup.encoder import Encoder
from selfsup.methods import HuBERT, Wav2Vec2

METHODS = {
    "wav2vec2": lambda e: Wav2Vec2(e, span=2, codes=8, dim=16),
    "hubert": lambda e: HuBERT(e, span=2, clusters=8, dim=16),
}


@pytest.mark.parametrize("gap", [1, 3, 6, 7])
def test_steps_are_a_dilated_convolution(gap):
    torch.manual_seed(0)
    layer, x = Steps(3, 5, gap).double(), torch.randn(2, 7, 3, dtype=torch.double)
    expected = conv1d(x.mT, layer.weight, layer.bias, padding=gap, dilation=gap).mT
    torch.testing.assert_close(layer(x), expected)


def marked(dim=16):
    torch.manual_seed(0)
    stem = MarkedPatches((64,), (8,), 2, dim)
    torch.nn.init.normal_(stem.marks)
    values, marks = torch.randn(4, 2, 64), (torch.rand(4, 2, 64) < 0.7).float()
    return stem, values, marks


def test_two_steps_are_two_convolutions():
    stem, values, marks = marked()
    x = torch.cat([values, marks], 1)
    expected = conv1d(values * marks, stem.weight, stem.bias, stride=8)
    expected = (expected + conv1d(1 - marks, stem.marks, stride=8)).transpose(1, 2)
    torch.testing.assert_close(stem(x), expected, atol=1e-5, rtol=1e-5)
    local = stem.local(x)
    assert local.shape == (4, 8, stem.local_dim)
    torch.testing.assert_close(stem.project(local), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", METHODS)
def test_methods_that_look_between_the_steps_learn_of_marks_and_see_no_lines(name):
    stem, values, marks = marked()
    method = METHODS[name](Encoder(stem, dim=16, depth=2, heads=2))

    def loss(x):
        torch.manual_seed(1)
        return sum(method([torch.cat([x, marks], 1)], 0.5).values())

    found = loss(values)
    found.backward()
    assert all(p.grad is not None for p in method.parameters() if p.requires_grad)
    assert stem.marks.grad.abs().sum() > 0
    torch.testing.assert_close(loss(torch.where(marks > 0, values, 7.0)), found)
