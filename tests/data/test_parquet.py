"""Parquet that is damaged or announces too much (D18): a reason or an error with an id."""

import os
from contextlib import nullcontext

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from selfsup.data import BadSample, open_source, parquet, shards
from selfsup.errors import SelfsupError
from tests.data.pictures import encoded

PROSE = ["the cat sat on a mat", "dogs run in the park today", "it rains all day long here"]
TEXTS = [f"{PROSE[i % 3]} {i}" for i in range(12)]
TABLES = {
    "texts": {"text": TEXTS, "label": [i % 2 for i in range(12)]},
    "pictures": {"image": [encoded(i) for i in range(12)], "label": [i % 2 for i in range(12)]},
    "pairs": {"image": [encoded(i) for i in range(12)], "caption": TEXTS},
    "names": {"file": [f"{i}.png" for i in range(12)], "caption": TEXTS},
    "series": {"date": list(range(12)), "a": np.arange(12.0), "b": np.arange(12.0) ** 2},
    "episodes": {"episode": [0] * 6 + [1] * 6, "observation": [[1.0, 2.0]] * 12,
                 "action": [[0.5]] * 12},
}  # fmt: skip


def written(path, kind, **options):
    options = {"row_group_size": 4, "compression": "none", "use_dictionary": False} | options
    pq.write_table(pa.table(TABLES[kind]), path, **options)
    return path


def damage(path, group):
    """Wrong bytes where the pages of a row group begin."""
    told = pq.read_metadata(path).row_group(group)
    with open(path, "r+b") as file:
        for column in range(told.num_columns):
            file.seek(told.column(column).data_page_offset)
            file.write(b"\xff" * 24)


def code_of(path):
    with pytest.raises(SelfsupError) as raised:
        open_source(path)
    return raised.value.code


@pytest.mark.parametrize("fault", ["magic", "footer", "empty", "short"])
def test_what_is_no_parquet(tmp_path, fault):  # D18
    path = written(tmp_path / "t.parquet", "texts")
    content = path.read_bytes()
    path.write_bytes({
        "magic": content[:-4] + b"JUNK",
        "footer": content[: len(content) // 2],
        "empty": b"",
        "short": b"PAR1",
    }[fault])  # fmt: skip
    assert code_of(path) == "E106"


@pytest.mark.parametrize("kind", TABLES)
def test_too_many_columns_rows_or_facts(tmp_path, kind, monkeypatch):  # D18
    path = written(tmp_path / "t.parquet", kind)
    for name in ("MOST_COLUMNS", "MOST_ROWS", "DESCRIBED"):
        with monkeypatch.context() as patch:
            patch.setattr(parquet, name, 1)
            assert code_of(path) == "E104", name


@pytest.mark.parametrize("kind", ["texts", "pictures", "pairs"])
def test_a_damaged_page_costs_its_row_group(tmp_path, kind):  # D18
    path = written(tmp_path / "t.parquet", kind)
    damage(path, 0)
    source = open_source(path)
    codes = {}
    for i in range(len(source)):
        try:
            source.read(i)
        except BadSample as bad:
            codes[i] = bad.code
    assert len(source) == 12 and codes == dict.fromkeys(range(4), "table-damaged")
    if kind != "pairs":
        assert source.labels()[0].tolist() == [-1] * 4 + [0, 1] * 4
    for group in (1, 2):
        damage(path, group)
    assert code_of(path) == "E106"


def test_a_damaged_row_group_is_unpacked_once(tmp_path, monkeypatch):
    path = written(tmp_path / "t.parquet", "pictures")
    damage(path, 0)
    source, unpacked = open_source(path), []

    def counted(file, index, columns):
        unpacked.append(index)
        return parquet.row_group(file, index, columns)

    monkeypatch.setattr(shards, "row_group", counted)
    for i in (0, 1, 2, 3, 4, 0):
        with pytest.raises(BadSample) if i < 4 else nullcontext():
            source.read(i)
    assert unpacked == [0, 1]


def test_damaged_tables_of_names_and_numbers(tmp_path):  # D18
    for i in range(12):
        (tmp_path / f"{i}.png").write_bytes(encoded(i))
    damage(written(tmp_path / "names.parquet", "names"), 1)
    source = open_source(tmp_path / "names.parquet")
    assert len(source) == 8 and source.problems.counts() == {"broken-row": 4}
    for kind in ("series", "episodes"):  # nothing is sure about the rest of a recording
        damage(written(tmp_path / f"{kind}.parquet", kind), 1)
        assert code_of(tmp_path / f"{kind}.parquet") == "E106"


def test_a_small_file_that_unpacks_to_much(tmp_path, monkeypatch):  # D18: 42.parquet
    """One value in a dictionary, named by every row."""
    monkeypatch.setattr(parquet, "UNPACKED", 1 << 20)
    texts = [f"{PROSE[0]} {i}" for i in range(200)] + ["word " * 4000] * 300
    pq.write_table(pa.table({"text": texts}), tmp_path / "t.parquet")
    assert os.path.getsize(tmp_path / "t.parquet") < 1 << 16  # and 6 MB of text
    source = open_source(tmp_path / "t.parquet")
    with pytest.raises(BadSample, match=r"too-large.*1 MiB"):
        source.read(1)
    numbers = {"date": np.arange(100_000), "a": np.zeros(100_000)}
    pq.write_table(pa.table(numbers), tmp_path / "s.parquet")
    assert code_of(tmp_path / "s.parquet") == "E104"


def test_letters_that_are_not_utf8(tmp_path):  # D16, D22
    cells = [text.encode() for text in TEXTS]
    cells[5] = b"caf\xe9 au lait in the park"
    table = pa.table({"text": pa.array(cells, pa.binary()).view(pa.string())})
    pq.write_table(table, tmp_path / "t.parquet")
    source = open_source(tmp_path / "t.parquet")
    with pytest.raises(BadSample, match="not_utf8"):
        source.read(5)
    assert [source.read(i) for i in (4, 6)] == [TEXTS[4], TEXTS[6]]


def test_a_file_that_is_cut_while_it_is_in_use(tmp_path):  # D11, D18
    path = written(tmp_path / "t.parquet", "pictures")
    source = open_source(path)
    os.truncate(path, 100)
    with pytest.raises(BadSample, match="table-damaged"):
        source.read(11)
