import inspect
from math import prod

import pytest
import torch

from selfsup import masks
from selfsup.methods import HuBERT, Wav2Vec2

GRIDS = [(8,), (64,), (4, 4), (14, 14), (1, 40), (4, 8, 8), (2, 2, 2)]


@pytest.mark.parametrize("grid", GRIDS)
def test_blocks_hide_the_same_number_everywhere(grid):
    n = prod(grid)
    for ratio in (0.1, 0.4, 0.75):
        hidden = masks.blocks(ratio)(200, grid).sum(1)
        assert (hidden == max(1, min(round(n * ratio), n - 1))).all()
        one = masks.block(ratio)(50, grid).sum(1)
        assert (one == one[0]).all() and one[0] > 0


def test_blocks_are_blocks():
    """Of hidden tokens, far more have hidden neighbours than by chance."""
    for mask, low, high in ((masks.random(0.4), 0.35, 0.45), (masks.blocks(0.4), 0.65, 0.95)):
        hidden = mask(300, (14, 14)).view(300, 14, 14)
        right = (hidden[:, :, :-1] & hidden[:, :, 1:]).sum() / hidden[:, :, :-1].sum()
        assert low < right < high


def test_blocks_and_spans_are_like_those_of_the_authors_samplers():
    """Means of what these give: MaskingGenerator of unilm at 2312c6f, 78 of 14 x 14; jepa's
    multiblock3d.py, both masks; compute_mask_indices of fairseq, 500 tokens, 0.65 and 0.8 by 10."""
    torch.manual_seed(0)
    hidden = masks.blocks(0.4)(200, (14, 14)).view(200, 14, 14)
    right = (hidden[:, :, :-1] & hidden[:, :, 1:]).sum() / hidden[:, :, :-1].sum()
    assert float(right) == pytest.approx(0.866, rel=0.06)
    for blocks, scale, share in ((8, 0.15, 0.621), (2, 0.7, 0.807)):
        draw = masks.multiblock(blocks, (scale, scale), (0.75, 1.5), (1.0, 1.0))
        found = torch.stack([draw(1, (1, 14, 14))[1].float().mean() for _ in range(100)]).mean()
        assert float(found) == pytest.approx(share, rel=0.06)
    for method, share, run in ((Wav2Vec2, 0.488, 14.5), (HuBERT, 0.568, 16.2)):
        ratio = inspect.signature(method).parameters["ratio"].default
        assert ratio == pytest.approx(share, abs=0.005)
        hidden = masks.spans(ratio, 10)(100, (500,))
        runs = (hidden[:, 1:] & ~hidden[:, :-1]).sum() + hidden[:, 0].sum()
        assert float(hidden.sum() / runs) == pytest.approx(run, rel=0.1)


def test_each_token_is_hidden_now_and_then():
    often = masks.blocks(0.4)(3000, (8, 8)).float().mean(0)
    assert often.min() > 0.03 and often.max() < 0.85  # corners are rarely in a block
    often = masks.block(0.25)(3000, (8, 8)).float().mean(0)
    assert often.min() > 0.01 and often.max() < 0.8


def test_a_single_block_is_a_box_of_its_share():
    for hidden in masks.block(0.25)(20, (8, 8)).view(20, 8, 8):
        rows, columns = hidden.any(1), hidden.any(0)
        assert int(rows.sum()) == int(columns.sum()) == 4
        assert torch.equal(hidden, rows[:, None] & columns)


@pytest.mark.parametrize("grid", GRIDS)
def test_cells_are_hidden_whole(grid):
    hidden = masks.cells(0.5, 2)(20, grid).view(20, *grid)
    assert len(set(hidden.flatten(1).sum(1).tolist())) == 1
    for axis, side in enumerate(grid, 1):
        if side % 2 == 0 and side > 2:
            halves = hidden.unflatten(axis, (side // 2, 2))
            assert torch.equal(*halves.unbind(axis + 1))


def test_masks_do_not_depend_on_anything_but_the_generator():
    for mask in (masks.blocks(0.4), masks.block(0.3), masks.cells(0.6, 2)):
        torch.manual_seed(3)
        one = mask(6, (8, 8))
        torch.manual_seed(3)
        assert torch.equal(one, mask(6, (8, 8)))
