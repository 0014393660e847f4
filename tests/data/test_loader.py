"""Batches are a pure function of the step: of nothing else."""

import numpy as np
import pytest
import torch

from selfsup.data import Loader, open_source, open_store
from selfsup.errors import SelfsupError
from tests.data.pictures import encoded, pixels, write


@pytest.fixture
def bad_folder(tmp_path):
    """Fifty pictures, of which every seventh cannot be read."""
    files = {f"{i:02d}.png": b"not a picture" if i % 7 == 0 else encoded(i) for i in range(50)}
    return write(tmp_path / "photos", files)


def drawn(folder, image, steps=14, batch=8, seed=1, parts=1, **options):
    with (
        open_store(open_source(folder), image, 24) as store,
        Loader(store, batch, seed, **options) as loader,
    ):
        batches = [loader.batch(s, p, parts) for s in range(steps) for p in range(parts)]
    return tuple(
        torch.cat([getattr(b, name) for b in batches]) for name in ("indices", "samples", "pixels")
    )


def equal(one, other):
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.fixture
def reference(bad_folder, image):
    return drawn(bad_folder, image, workers=0)


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_the_number_of_workers_changes_nothing(bad_folder, image, reference, workers):
    assert equal(drawn(bad_folder, image, workers=workers), reference)


def test_another_seed_is_another_order(bad_folder, image, reference):
    assert drawn(bad_folder, image, seed=2)[0].tolist() != reference[0].tolist()


def test_each_epoch_sees_every_good_sample_in_an_order_of_its_own(folder, image):
    indices, samples, _ = drawn(folder, image, steps=15)
    epochs = indices.view(6, 20)
    assert all(sorted(epoch.tolist()) == list(range(20)) for epoch in epochs)
    assert len({tuple(epoch.tolist()) for epoch in epochs}) == 6
    assert samples.tolist() == list(range(120))  # a new view of a sample in every epoch


def test_bad_samples_are_redrawn_among_good_ones(bad_folder, image, reference):
    indices, _, got = reference
    assert not (indices % 7 == 0).any()
    for row in range(0, len(indices), 9):
        np.testing.assert_array_equal(got[row].permute(1, 2, 0), pixels(int(indices[row])))


def test_bad_samples_are_not_all_replaced_by_one(tmp_path, image):
    """In the first epoch 24 of 50 samples are replaced; by one and the same, 27 would be seen."""
    files = {f"{i:02d}.png": encoded(i) if i % 2 or i < 2 else b"" for i in range(50)}
    indices, _, _ = drawn(write(tmp_path / "half", files), image, steps=1, batch=50)
    assert np.bincount(indices).max() < 8 and not (indices[indices > 1] % 2 == 0).any()


def test_a_redraw_does_not_depend_on_what_was_asked_before(bad_folder, image, reference):
    with open_store(open_source(bad_folder), image, 24) as store, Loader(store, 8, 1) as loader:
        for step in (13, 2, 3, 2, 0, 12):
            batch = loader.batch(step)
            assert batch.indices.tolist() == reference[0][step * 8 : step * 8 + 8].tolist()
            assert batch.samples.tolist() == list(range(step * 8, step * 8 + 8))


@pytest.mark.parametrize("world", [2, 3])
def test_ranks_and_parts_cut_the_same_batch(bad_folder, image, reference, world):
    by_rank = [drawn(bad_folder, image, rank=r, world=world, parts=2) for r in range(world)]
    for place in range(3):
        rows = [part[place].tensor_split(14) for part in by_rank]
        steps = [torch.cat([rank[step] for rank in rows]) for step in range(14)]
        assert torch.equal(torch.cat(steps), reference[place])


@pytest.mark.parametrize(("n", "batch"), [(1, 8), (7, 8), (8, 8), (9, 8)])
def test_little_data(tmp_path, image, n, batch):
    write(tmp_path, {f"{i}.png": encoded(i) for i in range(n)})
    with open_store(open_source(tmp_path), image, 24) as store, Loader(store, batch, 0) as loader:
        seen = torch.cat([loader.batch(step).indices for step in range(4)])
        assert loader.batch_size == min(n, batch) and len(seen) == 4 * min(n, batch)
        assert bool(loader.notes) == (n < batch)
    assert set(seen.tolist()) == set(range(n))


def test_fewer_samples_than_processes(tmp_path, image):
    write(tmp_path, {"1.png": encoded(1)})
    with open_store(open_source(tmp_path), image, 24) as store:
        with pytest.raises(SelfsupError) as error:
            Loader(store, 8, 0, world=2)
        assert error.value.exit_code == 66


def test_nothing_but_rejected_samples(tmp_path, image):
    write(tmp_path, {f"{i}.png": b"nothing" for i in range(70)})
    with pytest.raises(SelfsupError) as error:
        open_store(open_source(tmp_path), image, 24).fill()
    assert error.value.exit_code == 65
    with (
        open_store(open_source(tmp_path), image, 24, max_skipped=1.0) as store,
        Loader(store, 8, 0) as loader,
    ):
        with pytest.raises(SelfsupError) as error:
            loader.batch(0)
        assert error.value.exit_code == 65


def test_batches_come_ahead_of_time(folder, image):
    with open_store(open_source(folder), image, 24) as store, Loader(store, 4, 0) as loader:
        loader.batch(0)
        coming = list(loader._coming.values())
        assert [key[0] for key in loader._coming] == [1, 2]
        expected = coming[0].result()
        assert loader.batch(1) is expected


def test_a_batch_on_another_device_is_the_same_batch(folder, image):
    with open_store(open_source(folder), image, 24) as store, Loader(store, 4, 0) as loader:
        batch = loader.batch(0)
        moved = batch.to("meta")
        assert moved.pixels.shape == batch.pixels.shape and moved.samples.device.type == "meta"
        assert batch.to("cpu").pixels.data_ptr() == batch.pixels.data_ptr()


def test_nothing_is_written_beside_the_data(folder, image):
    def state():
        return sorted((p, p.stat().st_mtime_ns, p.stat().st_size) for p in folder.rglob("*"))

    before = state()
    drawn(folder, image)
    assert state() == before
