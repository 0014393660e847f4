"""FASTA in all its forms, broken and whole; columns of amino acids told from text."""

import gzip
import random

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from selfsup.data import open_source
from selfsup.data import proteins as reader
from selfsup.data.outcome import BadSample
from selfsup.data.proteins import RESIDUES, Fasta, marks, sequence_columns
from selfsup.errors import SelfsupError


def chain(n: int, seed: int) -> str:
    return "".join(random.Random(seed).choices(RESIDUES, k=n))


CHAINS = [chain(30 + 7 * i, i) for i in range(12)]


def wrapped(name: str, letters: str) -> str:
    return f">{name}\n" + "".join(f"{letters[i : i + 60]}\n" for i in range(0, len(letters), 60))


@pytest.fixture
def fasta(tmp_path):
    path = tmp_path / "a.fasta"
    path.write_text("".join(wrapped(f"p{i} some words", c) for i, c in enumerate(CHAINS)))
    return path


@pytest.mark.parametrize("chunk", [1 << 22, 17])
@pytest.mark.parametrize("ends", ["\n", "\r\n"])
@pytest.mark.parametrize("packed", [False, True])
def test_records(tmp_path, monkeypatch, chunk, ends, packed):
    monkeypatch.setattr(reader, "CHUNK", chunk)
    content = "".join(wrapped(f"p{i} some words", c) for i, c in enumerate(CHAINS)).rstrip()
    content = content.replace("\n", ends).encode()
    path = tmp_path / ("a.fasta.gz" if packed else "a.fasta")
    path.write_bytes(gzip.compress(content) if packed else content)
    source = open_source(path)
    assert isinstance(source, Fasta) and source.content == "proteins" and len(source) == 12
    assert source.name(3) == "p3"
    assert [source.read(i) for i in (5, 0, 11, 3)] == [CHAINS[i] for i in (5, 0, 11, 3)]
    assert source.fingerprint() == open_source(path).fingerprint()
    assert marks(str(path)) == {f"p{i}": c for i, c in enumerate(CHAINS)}


def test_a_folder_with_tables_of_proteins(tmp_path, fasta):
    table = "sequence,target\n" + "".join(f"{c},{i}\n" for i, c in enumerate(CHAINS))
    for folder, names in {"one": ["a.csv"], "parts": ["a_train.csv", "a_test.csv"]}.items():
        (tmp_path / folder).mkdir()
        for name in names:
            (tmp_path / folder / name).write_text(table)
        source = open_source(tmp_path / folder)
        assert source.content == "proteins" and len(source) == 12 * len(names)
    (tmp_path / "one" / "wild.fasta").write_text(fasta.read_text())
    with pytest.raises(SelfsupError, match=r"a.csv, wild.fasta"):
        open_source(tmp_path / "one")
    (tmp_path / "one" / "a.csv").write_text("name,kind\np1,enzyme\n")
    assert isinstance(open_source(tmp_path / "one"), Fasta)


def test_recognised_by_content(tmp_path, fasta):
    for name in ("a.txt", "a", "a.dat"):
        (tmp_path / name).write_text(fasta.read_text())
        assert open_source(tmp_path / name).content == "proteins"
    (tmp_path / "quotes.md").write_text("> a quotation\nof two lines\n" * 3)
    assert open_source(tmp_path / "quotes.md").content == "text"
    assert len(open_source(str(tmp_path / "a.*a*"))) == 24  # a.dat, a.fasta


def test_empty_repeated_and_nameless_records(tmp_path):
    path = tmp_path / "a.fasta"
    path.write_text(f"junk\n>x\n{CHAINS[0]}\n>x\n{CHAINS[1]}\n>\n{CHAINS[2]}\n>last\n")
    source = open_source(path)
    assert [source.name(i) for i in range(4)] == ["x", "x#2", "record 3", "last"]
    assert source.read(3) == "" and source.read(2) == CHAINS[2]
    assert "1 records have the name of an earlier one" in source.notes


def test_a_packed_file_that_is_cut_loses_its_last_record(tmp_path, fasta):
    path = tmp_path / "b.fa.gz"
    whole = gzip.compress(fasta.read_bytes())
    path.write_bytes(whole[: len(whole) // 2])
    source = open_source(path)
    assert 0 < len(source) < 12 and source.problems.counts() == {"archive-cut": 1}
    assert all(source.read(i) == CHAINS[i] for i in range(len(source)))
    path.write_bytes(whole[:5])
    with pytest.raises(SelfsupError, match="E102"):
        open_source(path)


def test_a_packed_file_changed_in_place_is_noticed(tmp_path, fasta):
    path = tmp_path / "b.fa.gz"
    path.write_bytes(gzip.compress(fasta.read_bytes()))
    source = open_source(path)
    path.write_bytes(gzip.compress(fasta.read_bytes()[::-1]))
    with pytest.raises(BadSample) as raised:
        source.read(0)
    assert raised.value.code == "changed"


def test_what_is_no_protein(tmp_path, fasta):
    (tmp_path / "dna.fasta").write_text(">a\n" + "ACGTTGCA" * 20 + "\n")
    with pytest.raises(SelfsupError, match="nucleotides"):
        open_source(tmp_path / "dna.fasta")
    (tmp_path / "none.fasta").write_text(CHAINS[0] + "\n")
    with pytest.raises(SelfsupError, match="E105"):
        open_source(tmp_path / "none.fasta")
    (tmp_path / "empty.fasta").touch()
    with pytest.raises(SelfsupError, match="E102"):
        open_source(tmp_path / "empty.fasta")
    source = open_source(fasta)
    fasta.write_text(fasta.read_text() + ">new\nAAAA\n")
    with pytest.raises(BadSample, match="changed"):
        source.read(0)


def test_a_folder_leaves_other_letters_alone(tmp_path, fasta):
    (tmp_path / "classes.fasta").write_text(">p0 SET=train\n" + "HEC" * 10 + "\n")
    (tmp_path / "mask.fasta").write_text(">p0\n" + "011" * 10 + "\n")
    (tmp_path / "README.txt").write_text("words\n")
    source = open_source(tmp_path)
    assert isinstance(source, Fasta) and len(source) == 12
    assert "classes.fasta, mask.fasta" in source.notes[0]


def test_parts_in_headings(tmp_path):
    path = tmp_path / "a.fasta"
    parts = ["train VALIDATION=False", "train VALIDATION=True", "test VALIDATION=False"]
    path.write_text("".join(f">p{i} SET={p}\n{CHAINS[i]}\n" for i, p in enumerate(parts)))
    codes, names = open_source(path).splits()
    assert [names[c] for c in codes] == ["train", "validation", "test"]


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_tables(tmp_path, ending):
    columns = {
        "name": [f"p{i}" for i in range(12)],
        "chain": CHAINS,
        "target": [i / 7 for i in range(12)],
        "set": ["train"] * 9 + ["test"] * 3,
        "validation": [True] + [None] * 11,
    }
    path = tmp_path / f"a.{ending}"
    if ending == "csv":
        rows = zip(*columns.values(), strict=True)
        lines = [",".join("" if v is None else str(v) for v in row) for row in rows]
        path.write_text("\n".join([",".join(columns), *lines]) + "\n")
    else:
        pq.write_table(pa.table(columns), path)
    source = open_source(path)
    assert source.content == "proteins" and source.read(4) == CHAINS[4]
    codes, names = source.splits()
    assert [names[c] for c in codes[[0, 1, 11]]] == ["validation", "train", "test"]
    assert source.targets() is None  # twelve different numbers may be classes


def test_numbers_of_tables(tmp_path):
    path = tmp_path / "a.csv"
    lines = [f"{chain(40, i)},{i / 8},{i}" for i in range(40)]
    path.write_text("\n".join(["sequence,fitness,id", *lines]) + "\n")
    values, name = open_source(path).targets()
    assert name == "fitness" and values[8] == 1.0
    path.write_text("\n".join(["sequence,fitness,id,label", *(f"{x},cat" for x in lines)]) + "\n")
    assert open_source(path).targets() is None  # there are labels, which are no numbers


def test_text_is_no_protein():
    def rows(cells):
        return [{"a": cell} for cell in cells]

    assert sequence_columns(rows(CHAINS)) == ["a"]
    assert sequence_columns(rows(["ACGTACGTACGTACGTACGTACGT"] * 5)) == []
    assert sequence_columns(rows(["SOME WORDS IN CAPITALS"] * 5)) == []
    assert sequence_columns(rows([c[:10] for c in CHAINS])) == []  # short, and of no known name
    assert sequence_columns([{"seq": c[:10]} for c in CHAINS]) == ["seq"]
    assert sequence_columns(rows([*CHAINS, "a note"])) == ["a"]  # one broken row in thirteen
