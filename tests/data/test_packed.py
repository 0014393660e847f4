"""Tables packed with gzip: the same samples, and no more memory than the bound allows."""

import gzip
import json

import numpy as np
import pytest

from selfsup.data import open_source, packed
from selfsup.data.outcome import BadSample
from selfsup.errors import SelfsupError
from tests.data.pictures import encoded, write

WORDS = ("some words of one row", "and other words of another", "the last words of them all")
TABLES = {
    "molecules.csv": "smiles,label,split\n" + "CCO,1,train\nc1ccccc1,0,test\n" * 3,
    "molecules.tsv": "smiles\tlabel\n" + "CCO\t1\nc1ccccc1\t0\n" * 3,
    "texts.csv": "text,label\n" + "".join(f"{w},{i % 2}\n" for i, w in enumerate(WORDS)),
    "texts.tsv": "text\tlabel\n" + "".join(f"{w}\t{i % 2}\n" for i, w in enumerate(WORDS)),
    "texts.jsonl": "".join(json.dumps({"text": w}) + "\n" for w in WORDS),
    "steps.csv": "time,a,b\n" + "".join(f"{i},{i / 7},{i * 3}\n" for i in range(300)),
    "rows.tsv": "".join(f"{i % 2}\t" + "\t".join("123456789") + "\n" for i in range(20)),
    "files.csv": "path,label\n0.png,cat\n1.png,dog\n",
}


@pytest.mark.parametrize("name", TABLES)
def test_a_packed_table_holds_the_same(name, tmp_path):
    write(tmp_path, {f"{i}.png": encoded(i) for i in range(2)})
    (tmp_path / name).write_text(TABLES[name])
    (tmp_path / f"{name}.gz").write_bytes(gzip.compress(TABLES[name].encode()))
    plain, source = open_source(tmp_path / name), open_source(tmp_path / f"{name}.gz")
    assert type(plain) is type(source) and plain.content == source.content
    assert len(plain) == len(source) > 1 and plain.kind == source.kind
    for i in reversed(range(len(plain))):  # backwards: a stream is read again from a place before
        np.testing.assert_array_equal(plain.read(i), source.read(i))
    for ours, theirs in ((plain.labels(), source.labels()), (plain.splits(), source.splits())):
        assert (ours is None) == (theirs is None)
        if ours is not None:
            assert ours[0].tolist() == theirs[0].tolist() and ours[1] == theirs[1]


@pytest.mark.parametrize("name", TABLES)
def test_what_unpacks_to_far_too_much_is_refused(name, tmp_path, monkeypatch):
    monkeypatch.setattr(packed, "SMALL", 1 << 16)
    bomb = TABLES[name].encode() + b"\n" * (1 << 19)
    (tmp_path / f"{name}.gz").write_bytes(gzip.compress(bomb))
    with pytest.raises(SelfsupError, match="gunzip") as caught:
        list(map(open_source(tmp_path / f"{name}.gz").read, range(2)))
    assert caught.value.code == "E106"


@pytest.mark.parametrize("name", ["molecules.csv", "texts.csv", "texts.jsonl", "steps.csv"])
@pytest.mark.parametrize("fault", ["cut", "flipped", "no gzip"])
def test_a_damaged_one_is_told(name, fault, tmp_path):
    content = bytearray(gzip.compress(TABLES[name].encode() * 50))
    if fault == "cut":
        content = content[:-20]
    elif fault == "flipped":
        content[-6] ^= 255  # in the checksum
    else:
        content = bytearray(TABLES[name].encode())
    (tmp_path / f"{name}.gz").write_bytes(content)
    with pytest.raises(SelfsupError, match="cannot be unpacked"):
        open_source(tmp_path / f"{name}.gz")


def test_a_packed_text_that_changes_is_no_sample(tmp_path):
    path = tmp_path / "texts.csv.gz"
    path.write_bytes(gzip.compress(TABLES["texts.csv"].encode()))
    source = open_source(path)
    path.write_bytes(gzip.compress(TABLES["texts.csv"].encode() + b"one more row of it,1\n"))
    with pytest.raises(BadSample, match="since"):
        source.read(0)


def test_other_packed_files_say_what_to_do(tmp_path):
    (tmp_path / "a.dat.gz").write_bytes(gzip.compress(b"x"))
    with pytest.raises(SelfsupError, match=r"gunzip a\.dat\.gz"):
        open_source(tmp_path / "a.dat.gz")


@pytest.mark.parametrize("points", [4, 1000])
def test_a_gzip_file_can_be_read_from_anywhere(tmp_path, points):
    """Against Python's own reader, with several gzip members and few remembered places."""
    random = np.random.default_rng(0)
    parts = [random.integers(0, 60, 300_000, dtype=np.uint8).tobytes() for _ in range(4)]
    whole = b"".join(parts)
    (tmp_path / "x.gz").write_bytes(b"".join(gzip.compress(part) for part in parts) + b"\0" * 100)
    with open(tmp_path / "x.gz", "rb") as file:
        stream = packed.GzipStream(file, spacing=50_000, points=points)
        for place in [*random.integers(0, len(whole), 40).tolist(), 0, len(whole) - 10]:
            stream.seek(place)
            assert stream.read(1000) == whole[place : place + 1000]
        assert len(stream._saved) <= points
