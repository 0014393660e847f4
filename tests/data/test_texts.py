"""Texts from files, lines and tables: nothing lost, nothing twice, faults by name and line."""

import json
import tracemalloc

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow import csv

from selfsup.data import open_source, pairs, tables, texts
from selfsup.data.outcome import BadSample
from selfsup.data.texts import Cut, TextFiles, TextTable, text_columns
from selfsup.errors import SelfsupError
from selfsup.modalities.text import Text

LINES = "".join(f"line {i} of a long text, with ümlauts and more words\n" for i in range(3000))
PROSE = ["the cat sat on a mat", "dogs run in the park today", "it rains all day long here"]


def test_a_long_file_is_cut_at_line_ends_and_comes_back_whole(tmp_path):
    (tmp_path / "book.txt").write_text(LINES)
    source = open_source(tmp_path / "book.txt")
    assert isinstance(source, TextFiles) and source.content == "text" and len(source) > 50
    pieces = [source.read(i) for i in range(len(source))]
    assert b"".join(pieces).decode() == LINES
    assert all(isinstance(p, Cut) and p.endswith(b"\n") for p in pieces)
    assert len({source.name(i) for i in range(len(source))}) == len(source)
    assert max(map(len, pieces)) < 2 * source.piece


@pytest.mark.parametrize("text", ["word " * 20_000, "ü" * 20_000, "x" * 50_000])
def test_a_single_line_is_cut_between_words_or_characters(text, tmp_path):
    (tmp_path / "line.txt").write_text(text)
    source = open_source(tmp_path / "line.txt")
    pieces = [source.read(i).decode() for i in range(len(source))]
    assert len(pieces) > 10 and "".join(pieces) == text


def test_a_folder_has_a_text_a_file_and_pieces_of_long_ones(tmp_path):
    for name, text in (("a/1.txt", "short"), ("a/2.txt", LINES), ("b/3.py", "def f(): pass")):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    source = open_source(tmp_path)
    assert source.content == "text"
    whole = [i for i in range(len(source)) if not isinstance(source.read(i), Cut)]
    assert [source.name(i) for i in whole] == ["a/1.txt", "b/3.py"]
    labels, names = source.labels()
    assert names == ["a", "b"] and (labels >= 0).sum() == 3  # of the long one its first piece


def test_a_changed_file_is_no_sample(tmp_path):
    (tmp_path / "book.txt").write_text(LINES)
    source = open_source(tmp_path / "book.txt")
    (tmp_path / "book.txt").write_text(LINES + "more")
    with pytest.raises(BadSample, match="changed"):
        source.read(3)


def test_json_lines_with_a_broken_one(tmp_path):
    rows = [json.dumps({"text": t, "label": i % 2, "split": "train"}) for i, t in enumerate(PROSE)]
    (tmp_path / "a.jsonl").write_text("\n".join([rows[0], '{"text": "half', rows[1], "", rows[2]]))
    source = open_source(tmp_path / "a.jsonl")
    assert len(source) == 4 and source.columns == ["text"]
    assert [source.read(i) for i in (0, 2, 3)] == PROSE
    assert source.name(3) == "a.jsonl#5"
    with pytest.raises(BadSample, match="row 2"):
        source.read(1)
    assert source.labels()[0].tolist() == [0, -1, 1, 0] and source.splits()[1] == ["train"]


def test_json_lines_without_text_say_so(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"x": 1}\n{"x": 2}\n')
    with pytest.raises(SelfsupError, match="E105"):
        open_source(tmp_path / "a.jsonl")


def test_labels_parts_and_groups_are_read_in_one_pass(tmp_path, monkeypatch):
    rows = [f"some words that tell of {i},{i % 2},{'test' if i > 8 else 'train'},{i // 2}"
            for i in range(12)]  # fmt: skip
    (tmp_path / "t.csv").write_text("\n".join(["text,label,split,groups", *rows]))
    source, parse = open_source(tmp_path / "t.csv"), TextTable._parse
    parsed = []
    monkeypatch.setattr(TextTable, "_parse", lambda *a: (parsed.append(a), parse(*a))[1])
    assert source.labels()[0].tolist() == [0, 1] * 6
    assert source.groups().tolist() == np.repeat(np.arange(6), 2).tolist()
    assert np.bincount(source.splits()[0]).tolist() == [3, 9] and len(parsed) == 12


def test_a_table_with_quotes_and_line_ends_in_cells(tmp_path):
    cells = ['he said "no, never" to them', "two lines\nin one cell of it", "a third, with a comma"]
    quoted = "\n".join(f'{i % 2},"{c.replace(chr(34), chr(34) * 2)}"' for i, c in enumerate(cells))
    (tmp_path / "t.csv").write_bytes(b"\xef\xbb\xbf" + f"label,text\n{quoted}\n".encode())
    source = open_source(tmp_path / "t.csv")
    assert source.content == "text" and [source.read(i) for i in range(3)] == cells
    assert source.labels()[0].tolist() == [0, 1, 0]


def test_a_tsv_with_lonely_quotes(tmp_path):
    (tmp_path / "t.tsv").write_text(
        'sentence\tlabel\nhe said " and left us\t0\n"a whole cell of it"\t1\n'
    )
    source = open_source(tmp_path / "t.tsv")
    assert [source.read(i) for i in range(2)] == ['he said " and left us', "a whole cell of it"]


def test_title_and_description_are_joined_and_names_of_files_are_files(tmp_path):
    rows = [
        f"{i},World,Title number {i} is here,A longer description of event {i}" for i in range(9)
    ]
    (tmp_path / "news.csv").write_text("\n".join(["label,label_name,title,description", *rows]))
    source = open_source(tmp_path / "news.csv")
    assert source.columns == ["title", "description"]
    assert source.read(0) == "Title number 0 is here\nA longer description of event 0"
    (tmp_path / "one.txt").write_text("x")
    (tmp_path / "files.csv").write_text("path,text\none.txt,some words that describe it\n")
    assert open_source(tmp_path / "files.csv").name(0) == "one.txt"


def test_several_tables_are_the_split_that_their_names_say(tmp_path):
    for part in ("train", "test"):
        rows = [f"{i},this is text {i} of {part}" for i in range(5)]
        (tmp_path / f"ag_{part}.csv").write_text("\n".join(["label,text", *rows]))
    source = open_source(str(tmp_path / "ag_*.csv"))
    assert len(source) == 10 and source.splits()[1] == ["test", "train"]
    (tmp_path / "ag_val.csv").write_text("other,text\n1,two\n")
    with pytest.raises(SelfsupError, match="E105"):
        open_source(str(tmp_path / "ag_*.csv"))


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_numbers_with_names_beside_them_are_classes(form, tmp_path):
    rows = [(f"these are some words {i}", i % 30, f"kind {i % 30}") for i in range(90)]
    table = pa.table(
        dict(zip(("text", "label", "label_name"), zip(*rows, strict=True), strict=True))
    )
    write = pq.write_table if form == "parquet" else csv.write_csv
    for names, given in (("with", table), ("without", table.drop_columns(["label_name"]))):
        write(given, tmp_path / f"{names}.{form}")
    assert open_source(tmp_path / f"with.{form}").targets() is None
    assert len(open_source(tmp_path / f"with.{form}").labels()[1]) == 30
    assert open_source(tmp_path / f"without.{form}").targets()[1] == "label"


def test_a_parquet_column_of_text(tmp_path):
    table = {"doc_id": ["a", "b", "c"], "text": PROSE, "label": [0, 1, 0], "split": ["train"] * 3}
    pq.write_table(pa.table(table), tmp_path / "t.parquet", row_group_size=2)
    source = open_source(tmp_path / "t.parquet")
    assert source.content == "text" and [source.read(i) for i in range(3)] == PROSE
    assert source.labels()[0].tolist() == [0, 1, 0] and source.splits()[1] == ["train"]


def test_which_columns_are_prose():
    rows = [
        {"a": "x1", "b": f"some words of prose {i}", "c": 3.5, "d": "same words again"}
        for i in range(20)
    ]
    assert text_columns(rows) == ["b"]


def test_pictures_with_captions_are_pictures(tmp_path):
    from PIL import Image

    for i in range(2):
        Image.fromarray(np.full((8, 8, 3), i, np.uint8)).save(tmp_path / f"{i}.png")
        (tmp_path / f"{i}.txt").write_text("a caption")
    assert open_source(tmp_path).content == "image"


def test_bad_texts_have_reasons():
    text = Text()
    cases = {
        b"": "empty",
        b" \n\t ": "empty",
        b"a\0b": "not_text",
        b"\xff\xff\xfa": "not_utf8",
        3: "not_text",
    }
    for raw, code in cases.items():
        with pytest.raises(BadSample) as raised:
            text.read(raw)
        assert raised.value.code == code, raw
    assert text.text(b"\xef\xbb\xbfa\r\nb\rc") == "a\nb\nc"
    assert text.text("hé".encode("utf-16")) == "hé"
    assert Text(errors="replace").text(b"a\xffb") == "a\ufffdb"


def test_copies_of_texts_are_found(tmp_path):
    from selfsup.data.copies import without_copies

    (tmp_path / "t.csv").write_text(
        "label,text\n1,the same text\n22,the same text\n1,another text\n"
    )
    assert [without_copies(open_source(tmp_path / "t.csv")).name(i) for i in range(2)] == [
        "t.csv#1",
        "t.csv#3",
    ]


@pytest.mark.parametrize("ending", ["csv", "tsv", "jsonl"])
def test_wrong_bytes_in_rows_are_skipped_or_replaced(ending, tmp_path):  # D16
    """A byte of latin-1 in one text, half a surrogate pair in another, a zero in a third."""
    texts = [*PROSE, "caf\udce9 au lait in the park", "a zero\0 in the middle of it", *PROSE]
    head, rows = "label\ttext", [f"l\udce9\t{text}" for text in texts]
    if ending == "csv":
        head, rows = head.replace("\t", ","), [row.replace("\t", ",") for row in rows]
    elif ending == "jsonl":
        rows = [json.dumps({"label": "l\udce9", "text": t}, ensure_ascii=False) for t in texts]
        rows = [*rows, '{"label": "x", "text": "half \\ud83d a sign and more words"}', "[" * 10**5]
    path = tmp_path / f"t.{ending}"
    lines = rows if ending == "jsonl" else [head, *rows]
    path.write_bytes("\n".join(lines).encode("utf-8", "surrogateescape"))
    source = open_source(path)
    strict, replace = Text(), Text(errors="replace")
    strict.learn(source)  # does not end in a UnicodeEncodeError
    found = {}
    for i in range(len(source)):
        try:
            strict.read(source.read(i))
        except BadSample as bad:
            found[i] = bad.code
    wrong = {3: "not_utf8", 4: "not_text"}
    assert found == wrong | ({8: "not_utf8", 9: "broken-row"} if ending == "jsonl" else {})
    assert replace.text(source.read(3)) == "caf\ufffd au lait in the park"
    if ending == "jsonl":
        assert replace.text(source.read(8)) == "half \ufffd a sign and more words"
    "".join(source.labels()[1]).encode()  # can be printed
    assert source.labels()[1][0] == "l\\udce9"


def test_a_lonely_surrogate_among_names_and_texts(tmp_path):  # D16, D22
    rows = ['{"text": "a \\ud800 that is no sign, in the first row"}',
            '{"text": "and other words in the second row"}']  # fmt: skip
    (tmp_path / "t.jsonl").write_text("\n".join(rows))
    source = open_source(tmp_path / "t.jsonl")
    with pytest.raises(BadSample, match="not_utf8"):
        Text().read(source.read(0))


def peak(call):
    tracemalloc.start()
    try:
        call()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("ending", ["csv", "jsonl"])
def test_rows_are_not_held_in_memory(ending, tmp_path):  # D16
    path, words = tmp_path / f"t.{ending}", "some words of prose, and more of it. " * 540
    with path.open("w") as file:
        file.write("label,split,text\n" * (ending == "csv"))
        for i in range(1000):
            row = {"label": "ab"[i % 2], "split": "train", "text": f"{i} {words}"}
            told = f'{row["label"]},train,"{row["text"]}"'
            file.write((told if ending == "csv" else json.dumps(row)) + "\n")
    assert path.stat().st_size > 19 << 20

    def use():
        source = open_source(path)
        assert len(source) == 1000 and source.labels()[1] == ["a", "b"]
        assert source.splits()[1] == ["train"] and source.targets() is None

    assert peak(use) < 13 << 20


@pytest.mark.parametrize("ending", ["csv", "tsv", "jsonl"])
def test_a_line_without_end_is_never_read_whole(ending, tmp_path, monkeypatch):  # D16
    """Beside other rows of JSON it is one bad row; a table with such a line is none."""
    for module in (pairs.rows, tables, texts):
        monkeypatch.setattr(module, "LONGEST_LINE", 1 << 20)
    path = tmp_path / f"t.{ending}"
    path.write_text("text\n" * (ending != "jsonl") + "words " * (20 << 20 >> 2))

    def refused():
        with pytest.raises(SelfsupError, match="E105"):
            open_source(path)

    assert peak(refused) < 13 << 20
    if ending == "jsonl":
        with path.open("a") as file:
            file.write("".join("\n" + json.dumps({"text": text}) for text in PROSE))
        source = open_source(path)
        assert [source.read(i) for i in (1, 2, 3)] == PROSE and source.name(3) == "t.jsonl#4"
        with pytest.raises(BadSample, match="too-large"):
            source.read(0)
