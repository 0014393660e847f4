import pytest
import torch

from selfsup import masks

GRIDS = [(16,), (8, 8), (7, 9), (2, 4, 4)]


@pytest.mark.parametrize("grid", GRIDS)
def test_blocks_hide_as_many_as_asked_in_whole_boxes(grid):
    torch.manual_seed(0)
    n = torch.zeros(grid).numel()
    hidden = masks.blocks(0.4, 0.4)(64, grid, None)
    assert (hidden.sum(1) == round(0.4 * n)).all()
    assert len({tuple(row.tolist()) for row in hidden}) > 10
    share = masks.blocks(0.1, 0.5)(200, grid, None).float().mean(1)
    assert 0.1 - 1 / n <= share.min() < share.max() <= 0.5 + 1 / n


def test_blocks_are_more_together_than_chance():
    torch.manual_seed(0)
    together = []
    for mask in (masks.blocks(0.4, 0.4), masks.random(0.4)):
        hidden = mask(200, (10, 10), None).view(200, 10, 10).float()
        together.append(float((hidden[:, 1:] * hidden[:, :-1]).mean()))
    assert together[0] > 1.4 * together[1]


def test_cells_are_whole():
    torch.manual_seed(0)
    hidden = masks.cells(0.6, 2)(50, (6, 5), None).view(50, 6, 5)
    assert torch.equal(hidden[:, ::2], hidden[:, 1::2])
    assert torch.equal(hidden[:, :, 0], hidden[:, :, 1]) and torch.equal(
        hidden[:, :, 2], hidden[:, :, 3]
    )
    assert (hidden[:, ::2, ::2].flatten(1).sum(1) == round(0.6 * 9)).all()
