"""Copies: found without reading more than must be, and left out of whatever holds them."""

import numpy as np
import pytest
import torch
from data.pictures import encoded

from selfsup.data import open_source, open_store
from selfsup.data.batch import Batch
from selfsup.data.copies import count_copies, without_copies
from selfsup.modalities import find


@pytest.fixture
def folder(tmp_path):
    for i in range(6):
        (tmp_path / f"{i}.png").write_bytes(encoded(i % 4, 12 + i % 4, 12))
    (tmp_path / "bad.png").write_bytes(b"")
    (tmp_path / "worse.png").write_bytes(b"")
    return tmp_path


def test_the_first_by_name_stays(folder):
    source = open_source(folder)
    kept = without_copies(source)
    names = [kept.name(i) for i in range(len(kept))]
    assert names == ["0.png", "1.png", "2.png", "3.png", "bad.png"]  # two empty ones are equal too
    assert kept.found == source.found == 8 and kept.problems.counts() == {"copy": 3}
    assert [p["name"] for p in kept.problems] == ["4.png", "5.png", "worse.png"]
    assert kept.read(3) == source.read(3) and kept.size(4) == 0
    assert kept.fingerprint() not in (source.fingerprint(), without_copies(kept).place)
    assert len(kept.stamps()) == 5


def test_only_files_of_equal_size_are_read(folder, monkeypatch):
    source = open_source(folder)
    asked = []
    read = type(source).read
    monkeypatch.setattr(type(source), "read", lambda self, i: asked.append(i) or read(self, i))
    (folder / "alone.png").write_bytes(b"of a size of its own")
    without_copies(open_source(folder))
    assert len(asked) == 6  # of nine: 2.png, 3.png and alone.png have sizes of their own


def test_nothing_to_leave_out_is_the_source_itself():
    source = open_source(np.arange(5 * 48, dtype=np.uint8).reshape(5, 4, 4, 3))
    assert without_copies(source) is source


def test_arrays_and_python_objects():
    x = np.random.default_rng(0).integers(0, 256, (9, 8, 8, 3), np.uint8)
    x[4] = x[7] = x[1]
    labels = np.arange(9)
    for data in ({"x": x, "y": labels}, [(torch.from_numpy(a), int(b)) for a, b in zip(x, labels)]):
        kept = without_copies(open_source(data))
        assert len(kept) == 7 and kept.problems.counts() == {"copy": 2}
        numbers, names = kept.labels()
        assert [names[k] for k in numbers] == list("0123568")
        store = open_store(kept, find("image")(), 8)
        assert (store.batch([4]).pixels[0].permute(1, 2, 0).numpy() == x[5]).all()
        assert count_copies(store, np.arange(7)) == 0 and store.counts()["skipped"] == 2
        store.close()
    store = open_store(open_source(x), find("image")(), 8)
    assert count_copies(store, np.arange(9)) == 2


def test_copies_among_samples_of_several_sizes(folder, tmp_path):
    store = open_store(open_source(folder), find("image")(), 64, cache=tmp_path / "c")
    assert count_copies(store, np.arange(8)) == 2
    store.close()


def test_a_batch_of_one_sample_again_and_again():
    x = torch.zeros(3, 3, 4, 4, dtype=torch.uint8)
    n = torch.arange(3)
    assert Batch(x, None, n, n).alike()
    assert not Batch(x[:1], None, n[:1], n[:1]).alike()  # one sample differs from no other
    assert not Batch(x, torch.tensor([[4, 4], [4, 4], [4, 3]]), n, n).alike()
    x[2, 0, 0, 0] = 1
    assert not Batch(x, None, n, n).alike()
