import json
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from pyarrow import csv, parquet

from selfsup.data import open_source
from selfsup.data.copies import content_print
from selfsup.data.pairs import Part as Side
from selfsup.data.pairs import as_pairs
from selfsup.errors import SelfsupError
from selfsup.evaluate.split import fifth, shared, split, together
from selfsup.transfer.tasks import Classify, Part, Regress


class Labelled:
    """What `split` asks of a source."""

    place = "here"

    def __init__(self, parts=None):
        self.parts = parts

    def splits(self):
        return self.parts

    def groups(self):
        return None

    def name(self, i):
        return f"{i}.png"


def prints(n, equal=()):
    made = [str(i).encode() for i in range(n)]
    for a, b in equal:
        made[b] = made[a]
    return made


def test_a_fifth_of_each_class_tests_and_the_draw_is_fixed():
    labels = np.repeat([0, 1, 2], [50, 10, 2])
    found = split(Labelled(), labels, np.arange(62), prints(62))
    assert np.bincount(labels[found.test]).tolist() == [10, 2, 1]
    assert not set(found.train) & set(found.test) and len(found.train) + len(found.test) == 62
    again = split(Labelled(), labels, np.arange(62), prints(62))
    assert np.array_equal(found.test, again.test)
    other = split(Labelled(), labels, np.arange(62), prints(62), seed=1)
    assert not np.array_equal(found.test, other.test)
    assert found.kind == "made" and "20 %" in found.statement and "seed 0" in found.statement


def test_equal_samples_stay_on_one_side():
    labels = np.arange(200) % 2
    equal = [(i, i + 100) for i in range(0, 100)]
    found = split(Labelled(), labels, np.arange(200), prints(200, equal))
    assert {i % 100 for i in found.test}.isdisjoint({i % 100 for i in found.train})
    assert found.duplicates["in both"] == 0 and found.duplicates["test"] > 0


@pytest.mark.parametrize("task", [Regress(0.0, 1.0), Classify(["a", "b"])])
def test_no_copy_of_a_sample_that_chooses_teaches(task):
    labels = np.arange(200) % 2
    equal = [(i, i + 100) for i in range(0, 100)]
    found = split(Labelled(), labels, np.arange(200), prints(200, equal))
    store = SimpleNamespace(source=Labelled())
    part = Part(store, found.train, labels[found.train], found.groups).take(np.arange(10, 160))
    held = task.held(part, 0)
    assert 20 <= held.sum() <= 40
    assert {i % 100 for i in part.rows[held]}.isdisjoint({i % 100 for i in part.rows[~held]})


def test_parts_of_the_data_are_taken_and_the_test_part_is_preferred():
    parts = np.array([0, 0, 0, 0, 1, 1, 2, 2]), ["train", "val", "test"]
    labels = np.array([0, 1, 0, 1, 0, 1, 0, 1])
    found = split(Labelled(parts), labels, np.arange(8), prints(8))
    assert found.train.tolist() == [0, 1, 2, 3] and found.test.tolist() == [6, 7]
    assert found.kind == "given" and "2 samples of val are not used" in found.notes
    only = np.zeros(8, np.int64), ["train"]  # nothing to test with: split here instead
    assert split(Labelled(only), labels, np.arange(8), prints(8)).kind == "made"


def test_a_leak_is_an_error_that_names_both_files_or_is_dropped():
    parts = np.array([0, 0, 0, 0, 1, 1]), ["train", "test"]
    labels = np.array([0, 1, 0, 1, 0, 1])
    same = prints(6, [(1, 5)])
    with pytest.raises(SelfsupError) as caught:
        split(Labelled(parts), labels, np.arange(6), same)
    assert caught.value.code == "E502" and caught.value.exit_code == 65
    assert "'1.png'" in caught.value.where and "'5.png'" in caught.value.where
    found = split(Labelled(parts), labels, np.arange(6), same, drop_leaks=True)
    assert found.train.tolist() == [0, 2, 3] and found.test.tolist() == [4, 5]
    assert any("1 training samples were dropped" in note for note in found.notes)


def table(path, parts):
    """Twelve rows, of groups of three; each group is of one class."""
    n = range(len(parts))
    key, cells = ("smiles", "C" * 3) if path.stem == "molecules" else ("text", "words that tell")
    columns = {
        key: [f"{cells}{'C' * i if key == 'smiles' else f' of {i}'}" for i in n],
        "label": [i // 3 % 2 for i in n],
        "Groups": [f"patient number {i // 3}" if i < 11 else None for i in n],
        "split": parts,
    }
    if path.suffix == ".jsonl":
        rows = (dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True))
        path.write_text("\n".join(map(json.dumps, rows)))
    else:
        write = parquet.write_table if path.suffix == ".parquet" else csv.write_csv
        write(pa.table(columns), path)
    return open_source(path)


TABLES = ["texts.csv", "texts.jsonl", "texts.parquet", "molecules.csv"]


@pytest.mark.parametrize("name", TABLES)
def test_groups_in_a_table_stay_whole_and_are_told_of_where_the_parts_divide_them(name, tmp_path):
    labels = np.arange(12) // 3 % 2
    source = table(tmp_path / name, [None] * 12)
    assert len(source) == 12 and source.labels()[0].tolist() == labels.tolist()
    first = np.unique(source.groups(), return_index=True)[1]
    assert sorted(first.tolist()) == [0, 3, 6, 9, 11]  # the last row stands for itself
    made = split(source, labels, np.arange(12), prints(12))
    own = source.groups()
    assert not set(own[made.train]) & set(own[made.test]) and len(made.test)
    given = table(tmp_path / name, ["train"] * 8 + ["test"] * 4)
    found = split(given, labels, np.arange(12), prints(12))
    assert len(found.train) == 8 and found.duplicates["in both"] == 0
    assert "2 training samples may flatter the scores (--drop-leaks)" in found.notes[-1]
    without = split(given, labels, np.arange(12), prints(12), drop_leaks=True)
    assert (
        without.train.tolist() == [0, 1, 2, 3, 4, 5]
        and "2 training samples were" in without.notes[-1]
    )


def test_a_captioned_picture_keeps_its_group(tmp_path):
    rows = [f"{i}.png,some words that tell of {i},patient {i // 2}" for i in range(4)]
    for i in range(4):
        Image.new("RGB", (4, 4), (i, 0, 0)).save(tmp_path / f"{i}.png")
    (tmp_path / "captions.csv").write_text("\n".join(["image,caption,group_id", *rows]))
    groups = Side(open_source(tmp_path / "captions.csv"), "image").groups()
    assert groups[0] == groups[1] != groups[2] == groups[3]


def test_groups_and_classes_of_pairs_may_be_zero(tmp_path):
    rows = [
        {"text": f"words of {i}", "caption": f"others of {i}", "group_id": i // 3, "label": i // 3}
        for i in range(6)
    ]
    (tmp_path / "pairs.jsonl").write_text("\n".join(map(json.dumps, rows)))
    source = as_pairs(open_source(tmp_path / "pairs.jsonl"), ["text", "caption"])
    assert source.groups().tolist() == source.labels()[0].tolist() == [0, 0, 0, 1, 1, 1]


def test_groups_that_share_a_copy_are_not_one_where_they_are_dropped():
    """Ten patients, each with a picture that all share; the last two test."""
    own = np.arange(40) // 4
    source = Labelled((np.repeat([0, 1], [32, 8]), ["train", "test"]))
    source.groups = lambda: own
    made = prints(40, [(0, i) for i in range(4, 40, 4)])
    labels = np.arange(40) % 2
    found = split(source, labels, np.arange(40), made, drop_leaks=True)
    assert len(found.train) == 24 and len(np.unique(found.groups)) == 8
    assert "8 training samples were dropped: they are also in test" in found.notes
    assert not any("others of their" in note for note in found.notes)
    lost = shared(source, np.arange(40), made, np.arange(32), np.arange(32, 40))
    assert np.flatnonzero(lost).tolist() == list(range(0, 32, 4))


@pytest.mark.parametrize("parts", [None, (np.arange(20) % 2, ["train", "test"])])
def test_where_groups_leave_too_little_the_error_says_so(parts):
    source = Labelled(parts)
    source.groups = lambda: np.zeros(20, np.int64)
    labels = np.arange(20) // 2 % 2
    with pytest.raises(SelfsupError, match="E503") as caught:
        split(source, labels, np.arange(20), prints(20), drop_leaks=True)
    assert "recording or group" in caught.value.why and "groups, group_id" in caught.value.do
    with pytest.raises(SelfsupError, match="E503") as caught:  # one class is too few without, too
        split(source, labels * 0, np.arange(20), prints(20), drop_leaks=True)
    assert "two classes" in caught.value.why


def test_a_column_of_groups_that_is_the_label_is_no_group(tmp_path):
    for i in range(4):
        Image.new("RGB", (4, 4), (i, 0, 0)).save(tmp_path / f"{i}.png")
    table = tmp_path / "t.csv"
    table.write_text("path,groups\n" + "".join(f"{i}.png,{i % 2}\n" for i in range(4)))
    assert open_source(table).groups() is not None
    source = open_source(table, labels=f"{table}:Groups")
    assert source.labels()[0].tolist() == [0, 1, 0, 1] and source.groups() is None


def test_unreadable_and_unlabelled_samples_are_in_neither_part():
    labels = np.array([0, 1, -1, 0, 1, 0, 1, 0, 1, 0, 1, 0])
    usable = np.array([0, 1, 2, 4, 5, 6, 7, 8, 9, 10, 11])  # 3 could not be read
    found = split(Labelled(), labels, usable, prints(11))
    both = np.concatenate([found.train, found.test])
    assert 2 not in both and 3 not in both and len(both) == 10
    assert any("1 samples without a label" in note for note in found.notes)


@pytest.mark.parametrize("labels", [[0, 0, 0, 0], [0, 1], [-1, -1, 0]])
def test_too_little_is_an_error(labels):
    labels = np.array(labels)
    with pytest.raises(SelfsupError) as caught:
        split(Labelled(), labels, np.arange(len(labels)), prints(len(labels)))
    assert caught.value.code == "E503"


def test_a_print_is_of_pixels_and_shape():
    x = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    assert content_print(x) == content_print(x.copy(order="F"))
    assert content_print(x) != content_print(x.reshape(1, 4, 3))
    changed = x.copy()
    changed[0, 0, 0] += 1
    assert content_print(x) != content_print(changed)


def test_groups_are_joined_whatever_their_numbers():
    own = np.array([9, 9, 9, 3, 3, 4, 5])
    usable = np.array([2, 3, 4, 5, 6])
    found = together(np.array([90, 71, 71, 71, 12]), own, usable)
    assert found[1] == found[2] == found[3] and sorted(set(found.tolist())) == [0, 1, 2]


def test_a_fifth_is_of_whole_groups_and_leaves_each_class_something():
    assert np.flatnonzero(fifth(np.arange(23))).tolist() == [0, 1, 2, 3]
    groups = np.array([5, 5, 7, 1, 7, 2, 2, 3, 3, 4])
    assert np.flatnonzero(fifth(groups)).tolist() == [0, 1]
    assert np.flatnonzero(fifth(groups[2:])).tolist() == [0, 2]
    classes = np.array([0, 0, 1, 1, 1, 1, 1, 1, 1, 1])  # group 5 is all of its class
    assert np.flatnonzero(fifth(groups, classes)).tolist() == [2, 4]
    assert np.flatnonzero(fifth(np.zeros(10, int))).tolist() == [0, 1]  # sample by sample
