import math

import pytest
import torch
from fixed import waves
from test_contract import GRIDS, METHODS, build

from selfsup.dilated import Dilated
from selfsup.encoder import Encoder
from selfsup.errors import SelfsupError
from selfsup.methods.rotation import turned
from selfsup.stems import Patches


def test_loss_against_a_slow_reading():
    method, (x,) = build("Rotation", "image")
    total = 0.0
    for sample in x:
        upright = sample
        for quarters in range(4):
            scores = method.turns(method.encoder(upright[None]))[0]
            total -= scores.log_softmax(0)[quarters] / 32
            upright = upright.transpose(1, 2).flip(1)  # once more against the clock
    torch.testing.assert_close(method([x], 0.0)["turns"], total, atol=1e-5, rtol=1e-5)


def test_turns_against_the_authors_code():
    """FeatureLearningRotNet at 8539de6, dataloader.py: rotate_img; a linear map instead of their
    network, and its cross-entropy."""
    method, _ = build("Rotation", "image")
    method.encoder.forward = lambda x: x.flatten(1)
    method.turns.forward = lambda h: h @ waves(1.9, 4, 48).T
    found = method([waves(0.3, 2, 3, 4, 4).cumsum(3)], 0.0)["turns"]
    torch.testing.assert_close(found, torch.tensor(1.9189189672), atol=1e-5, rtol=1e-5)


def test_four_quarters_are_none_and_all_turns_differ():
    x = torch.randn(2, 3, 6, 6)
    four = turned(x).view(4, 2, 3, 6, 6)
    assert torch.equal(four[0], x) and torch.equal(four[2], x.flip(2, 3))
    assert torch.equal(four[3].rot90(1, (2, 3)), x)
    assert len({tuple(part.flatten().tolist()) for part in four}) == 4


def test_other_grids_are_refused():
    for kind in ("series", "video"):
        size, patch = GRIDS[kind]
        with pytest.raises(SelfsupError, match="E202"):
            METHODS["Rotation"](Encoder(Patches(size, patch, 3, 24), dim=24, depth=1, heads=2))
    with pytest.raises(SelfsupError, match="E202"):
        METHODS["Rotation"](Dilated(32, 3, dim=24, hidden=16, depth=3))
    method, _ = build("Rotation", "image")
    with pytest.raises(SelfsupError, match="squares"):
        method([torch.randn(2, 3, 16, 8)], 0.0)


def test_what_looks_the_same_in_all_directions_stays_at_chance():
    method, _ = build("Rotation", "convolutional")
    flat = torch.randn(8, 3, 1, 1).expand(8, 3, 16, 16)
    best = torch.stack([method([flat], 0.0)["turns"] for _ in range(3)]).min()
    assert best >= math.log(4) - 1e-4
