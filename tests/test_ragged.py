"""Batches of samples of different lengths, and their form in the store."""

import numpy as np
import pytest
import torch

from selfsup.data.batch import Batch
from selfsup.data.fields import pack, unpack
from selfsup.inference import assemble
from selfsup.ragged import Ragged, mean, those


def test_rows_of_different_lengths():
    rows = [torch.arange(3), torch.arange(1), torch.arange(5)]
    batch = Ragged.of(rows)
    assert batch.shape == (3, 5) and batch.lengths.tolist() == [3, 1, 5]
    for row, values, valid in zip(rows, batch.values, batch.valid, strict=True):
        assert torch.equal(values[valid], row)
    both = torch.cat([batch, Ragged.of([torch.arange(7)])])
    assert both.shape == (4, 7) and both.lengths.tolist() == [3, 1, 5, 7]
    assert torch.equal(both[2:].values[0][:5], rows[2]) and len(both[1:]) == 3


def test_mean_leaves_padding_out():
    x = torch.randn(2, 4, 3)
    valid = torch.tensor([[True, True, False, False], [True] * 4])
    found = mean(x, valid)
    torch.testing.assert_close(found[0], x[0, :2].mean(0))
    torch.testing.assert_close(found[1], x[1].mean(0))


def test_those_of_all_tokens_are_not_copied():
    x = torch.randn(2, 4, 3)
    some = torch.tensor([[True, False, True, False], [True] * 4])
    assert torch.equal(those(x, some), x[some])
    found = those(x, torch.ones_like(some))
    assert torch.equal(found, x.view(8, 3)) and found.data_ptr() == x.data_ptr()


def test_other_functions_of_tensors_are_refused():
    with pytest.raises(TypeError):
        torch.stack([Ragged.of([torch.ones(2)])])


def test_packed_samples_come_back_from_a_padded_batch():
    samples = [
        {"tokens": np.arange(n, dtype="<u2"), "wave": np.ones((n, 2), "<f4"), "rate": np.array(n)}
        for n in (3, 9, 0)
    ]
    batch = assemble([pack(s) for s in samples])
    assert isinstance(batch, Batch)
    for found, sample in zip(unpack(batch), samples, strict=True):
        assert found.keys() == sample.keys()
        for name, value in sample.items():
            assert found[name].dtype == value.dtype and np.array_equal(found[name], value)
