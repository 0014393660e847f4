"""Convolutions over tokens: against a slow reading; nothing comes from another document."""

import math

import pytest
import torch

from selfsup.carp import PERIOD, WIDTH, Carp, carp
from selfsup.errors import SelfsupError
from selfsup.language import Layout
from selfsup.methods import CLM
from selfsup.ragged import Ragged

LENGTHS = [16, 3, 7, 1, 9, 5, 12, 4]


def encoder() -> Carp:
    torch.manual_seed(0)
    made = Carp(16, 23, dim=12, depth=4)
    for p in made.parameters():  # large weights, so that a leak would show
        torch.nn.init.normal_(p, std=0.5)
    return made.eval()


def documents() -> list[torch.Tensor]:
    torch.manual_seed(1)
    return [torch.randint(3, 23, (n,)) for n in LENGTHS]


@torch.no_grad()
def test_features_against_a_slow_reading():
    net, text = encoder().double(), documents()[4]
    x = net.stem.tokens[text]  # (n, d)

    def norm(x, layer, eps=1e-5):
        mean, var = x.mean(-1, keepdim=True), x.var(-1, keepdim=True, unbiased=False)
        return (x - mean) / (var + eps).sqrt() * layer.weight + layer.bias

    def gelu(x):
        return x * 0.5 * (1 + torch.erf(x / math.sqrt(2)))

    for number, block in enumerate(net.blocks):
        gap = (1, 2, 4, 1)[number]
        inside = gelu(norm(x, block.norm1)) @ block.fall.weight.T + block.fall.bias
        inside = gelu(norm(inside, block.norm2))
        mixed = block.mix.bias.expand(len(x), -1).clone()
        for i in range(len(x)):
            for tap in range(5):
                j = i + (tap - 2) * gap
                if 0 <= j < len(x):
                    mixed[i] += block.mix.weight[:, :, tap] @ inside[j]
        x = x + gelu(norm(mixed, block.norm3)) @ block.rise.weight.T + block.rise.bias
    found = net.features(Ragged.of([text]))[0]
    torch.testing.assert_close(found, norm(x, net.norm), atol=1e-9, rtol=1e-9)


def test_a_document_in_a_batch_is_as_it_is_alone():
    net, texts = encoder(), documents()
    x = Ragged.of(texts)
    layout = Layout.of(x, net.gap)
    assert len(layout.document) < len(texts)  # several share a row
    together, last = net.features(x), net.added(x, 1)[0]
    for i, text in enumerate(texts):
        alone = Ragged.of([text])
        n = len(text)
        torch.testing.assert_close(together[i, :n], net.features(alone)[0], atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(last[i, :n], net.added(alone, 1)[0][0], atol=1e-5, rtol=1e-5)
        assert not together[i, n:].any()
    torch.testing.assert_close(net.at(x, x.valid), together[x.valid])


def test_documents_of_a_row_are_as_far_apart_as_the_widest_convolution_reaches():
    assert Carp.gap == WIDTH // 2 * 2 ** (PERIOD - 1)
    rows = Layout.of(Ragged.of(documents()), Carp.gap).document
    shared = 0
    for row in rows:
        last, where = -1, None
        for place, document in enumerate(row.tolist()):
            if document < 0:
                continue
            if where is not None and document != last:
                assert place - where > Carp.gap
                shared += 1
            last, where = document, place
    assert shared


def test_it_sees_both_sides():
    with pytest.raises(SelfsupError, match="E202"):
        CLM(carp("carp_micro", 16, 23, dim=24, depth=1))
    assert len(carp("carp_small", 16, 23, dim=24).blocks) == 8
