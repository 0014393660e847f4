import pytest
import torch
from test_contract import METHODS, build

from selfsup.encoder import Encoder, resnet
from selfsup.errors import SelfsupError
from selfsup.methods.relativeposition import window
from selfsup.stems import Patches


def numbered(size):
    """Values that tell where they are."""
    return torch.stack(torch.meshgrid(*(torch.arange(n) for n in size), indexing="ij")).float()


def convolutional(size=64):
    return METHODS["RelativePosition"](resnet("resnet18", size, width=0.125))


def starts(method, count, size, channels):
    x = numbered(size).expand(count, channels, *size)
    first, second, side = method.cells(x)
    corner = (..., *(0,) * len(size))
    return first, second, first[corner].long(), second[corner].long(), side


def test_cells_lie_where_the_side_says():
    first, second, a, b, side = starts(convolutional(), 4000, (64, 64), 2)
    assert first.shape == second.shape == (4000, 2, 24, 24)
    sides = [(h, v) for v in (-1, 0, 1) for h in (-1, 0, 1)]
    sides.remove((0, 0))
    apart = b - a  # (rows, columns)
    for number, way in enumerate(sides):
        rows = apart[side == number]
        assert 400 < len(rows) < 600  # all sides equally often
        for axis, towards in enumerate(way):
            centre = towards * (24 + 12)
            moved = rows[:, axis] - centre
            assert moved.abs().max() == 2 and len(set(moved.tolist())) == 5  # jitter
    assert (apart.abs().amax(1) >= 24 + 12 - 2).all()  # never touching


def test_cells_are_anywhere_and_whole():
    first, second, a, b, _ = starts(convolutional(), 4000, (64, 64), 2)
    for cell, corner in ((first, a), (second, b)):
        assert corner.min() == 0 and corner.max() == 64 - 24
        grid = numbered((24, 24))
        assert torch.equal(cell, grid + corner[:, :, None, None])
    other = torch.randn(3, 2, 9)
    found = window(other, 0, torch.tensor([0, 2, 5]), 4)
    assert torch.equal(found[1], other[1, :, 2:6]) and torch.equal(found[2], other[2, :, 5:9])


def test_cells_are_whole_patches_of_a_transformer_and_axes_of_one_place_have_no_sides():
    size, patch = (8, 32), (8, 2)
    encoder = Encoder(Patches(size, patch, 2, 24), dim=24, depth=1, heads=2)
    method = METHODS["RelativePosition"](encoder)
    assert method.sides == 2
    first, _, a, b, side = starts(method, 200, size, 2)
    assert first.shape == (200, 2, 8, 12) and (a[:, 0] == 0).all()
    assert torch.equal(b[:, 1] > a[:, 1], side == 1) and ((b - a)[:, 1].abs() >= 12).all()
    whole = Encoder(Patches((8, 2), patch, 2, 24), dim=24, depth=1, heads=2)
    with pytest.raises(SelfsupError, match="E202"):
        METHODS["RelativePosition"](whole)


def test_loss_against_a_slow_reading():
    method, (x,) = build("RelativePosition", "image")
    method.eval()
    torch.manual_seed(3)
    first, second, side = method.cells(x)
    total = 0.0
    for a, b, number in zip(first, second, side, strict=True):
        h = torch.cat([method.encoder(a[None]), method.encoder(b[None])], 1)
        total -= method.side(h)[0].log_softmax(0)[number] / 8
    torch.manual_seed(3)
    torch.testing.assert_close(method([x], 0.0)["side"], total, atol=1e-5, rtol=1e-5)
