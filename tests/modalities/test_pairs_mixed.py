"""Pairs of any parts: sentences, molecules, proteins, files without texts, and lists in memory."""

import io
import tarfile
from html import unescape

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile
import torch

import selfsup
from selfsup.data import open_source
from selfsup.data.base import Pair
from selfsup.data.copies import raw_print
from selfsup.data.outcome import BadSample
from selfsup.data.pairs import PairList, Part, as_pairs
from selfsup.errors import SelfsupError
from selfsup.evaluate import pairing, tasks, zeroshot
from selfsup.modalities import find
from selfsup.modalities.pairs import Pairs, _level
from selfsup.towers import TOWERS

from .test_pairs import picture, things

torch.set_num_threads(1)
SMALL = ["dim=24", "heads=2", "depth=1"]
MOLECULES = ["CCO", "CC(=O)O", "c1ccccc1", "CCN", "CC(C)O", "C1CCCCC1"]


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SELFSUP_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


def rows(count=40):
    """A sentence, the same in other words, a molecule, a protein and a part."""
    for i in range(count):
        colour, animal = ("red", "green", "blue")[i % 3], ("cat", "dog", "bird", "cow")[i % 4]
        said = f"the {colour} {animal} sees a word{i}"
        rewrite = f"word{i} is seen by one {animal} , {colour} of fur"
        protein = "MKTAYIAKQRQISFVKSHFSRQ"[i % 9 :] + "ACDEFGHIKLMNPQRSTVWY"[: i % 13]
        part = "test" if i % 4 == 0 else "train"
        yield said, rewrite, MOLECULES[i % 6] + "C" * (i // 6), protein, part


NAMES = ("said", "rewrite", "smiles", "sequence", "split")


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tables")
    lines = ["\t".join(NAMES), *("\t".join(row) for row in rows())]
    (folder / "t.tsv").write_text("\n".join(lines))
    columns = dict(zip(NAMES, zip(*rows(), strict=True), strict=True))
    pq.write_table(pa.table({k: list(v) for k, v in columns.items()}), folder / "t.parquet")
    return folder


def sound(i):
    file = io.BytesIO()
    soundfile.write(file, np.sin(np.arange(1600) * (0.1 + 0.05 * i)), 8000, format="WAV")
    return file.getvalue()


def pretrain(data, out, columns, parts, **more):
    return selfsup.pretrain(
        data, modality={"name": "pairs", "columns": columns},
        encoder={"name": "towers_micro", "dim": 16, "parts": parts},
        batch=8, steps=2, out=out, quiet=True, **more,
    )  # fmt: skip


@pytest.mark.parametrize("name", ["t.tsv", "t.parquet"])
def test_columns_that_are_named_are_parts(home, name):
    whole = open_source(home / name)
    assert whole.content != "pairs"
    source = as_pairs(whole, ("rewrite", "smiles", "sequence", "said"))
    kinds = {"rewrite": "text", "graphs": "graphs", "proteins": "proteins", "said": "text"}
    assert source.parts == kinds
    found, expected = source.read(3), list(rows())[3][:4]
    assert [found[part][0] for part in ("said", "rewrite", "graphs", "proteins")] == [*expected]
    assert source.name(3) == f"{name}#4" and len(source) == 40
    some = source.for_training()
    assert len(some) == 30
    assert as_pairs(some, ("rewrite", "smiles", "sequence", "said")) is some
    assert len(set(source.stamps().tolist())) == 40
    assert as_pairs(whole, ("said", "other")) is whole
    with pytest.raises(SelfsupError, match="no column other"):
        as_pairs(source, ("said", "other"))


def test_two_columns_do_not_become_one_part_and_a_table_of_labels_keeps_its_column(home, tmp_path):
    table = tmp_path / "t.tsv"
    lines = [f"a sentence {i}\tanother one {i}\tthird of {i}" for i in range(8)]
    table.write_text("\n".join(["text-en\ttext en\ttext_de", *lines]))
    with pytest.raises(SelfsupError, match="'text-en', 'text en'") as caught:
        as_pairs(open_source(table), ("text-en", "text en", "text_de"))
    assert caught.value.code == "E105"
    assert list(as_pairs(open_source(table), ("text en", "text_de")).parts) == [
        "text_en",
        "text_de",
    ]
    rows = [f"t.tsv#{i + 1},x,{'ab'[i % 2]}" for i in range(40)]
    (tmp_path / "labels.csv").write_text("\n".join(["path,label,mood", *rows]))
    labelled = open_source(home / "t.tsv", labels=tmp_path / "labels.csv:mood")
    assert as_pairs(labelled, ("said", "rewrite")).labels()[1] == ["a", "b"]


def test_columns_are_at_least_two_and_there(home, tmp_path):
    with pytest.raises(SelfsupError, match="all of the columns said, rewritten") as caught:
        selfsup.pretrain(home / "t.tsv", modality={"columns": ("said", "rewritten")},
                         out=tmp_path / "run", quiet=True)  # fmt: skip
    assert caught.value.code == "E105" and not (tmp_path / "run").exists()
    with pytest.raises(SelfsupError, match="columns"):
        Pairs(columns=("one",))
    pictures = open_source(np.zeros((4, 8, 8, 3), np.uint8))
    with pytest.raises(SelfsupError, match="one part"):
        Pairs(columns=("a", "b")).learn(pictures)


def test_a_note_tells_of_texts_that_are_not_read(home, tmp_path):
    lines = (home / "t.tsv").read_text().replace("said\t", "sentence\t", 1)
    (tmp_path / "t.tsv").write_text(lines)
    lines = [line.split("\t") for line in lines.splitlines()]
    (tmp_path / "t.tsv").write_text("\n".join("\t".join(cells[:2]) for cells in lines))
    source = open_source(tmp_path / "t.tsv")
    assert source.content == "text" and source.notes[0].startswith("text in rewrite is not read")
    assert 'modality.columns=["sentence", "rewrite"]' in source.notes[0]


def test_sentences_that_say_the_same_find_each_other(home, tmp_path):
    parts = [f"{part}.{one}" for part in ("said", "rewrite") for one in SMALL]
    parts += ["said=bert_micro", "rewrite=bert_micro"]
    run = pretrain(home / "t.parquet", tmp_path / "run", ["said", "rewrite"], parts, resolution=16)
    assert tasks.suggested("pairs", home / "t.parquet", None) == "retrieve"
    told = pairing.evaluate_task(run, home / "t.parquet", seeds=2)
    assert told.to_json()["data"]["test"] == 10
    assert told.recall("said to rewrite", 1, "canonical correlation") >= 0
    assert selfsup.load(run).embed(home / "t.parquet").shape == (40, 16)


def test_molecules_and_proteins_with_texts(home, tmp_path):
    parts = [f"{part}.{one}" for part in ("text", "proteins") for one in SMALL]
    parts += ["text=bert_micro", "proteins=bert_micro", "graphs=gin", "graphs.dim=16"]
    columns = ["smiles", "sequence", "said"]
    run = pretrain(home / "t.tsv", tmp_path / "run", columns, parts)
    found = selfsup.load(run)
    assert list(found.modality.sides) == ["graphs", "proteins", "text"]
    assert torch.isfinite(torch.from_numpy(found.embed(home / "t.tsv"))).all()
    assert found.tower("graphs").embed(home / "t.tsv").shape == (40, 16)
    assert zeroshot._classical(run, found, ("graphs", "text"), 0, None) is not None
    told = pairing.evaluate_task(run, home / "t.tsv", seeds=2)
    page, scores = selfsup.report(run).read_text(), told.to_json()["scores"]
    pairs = {" and ".join(pair["parts"]): pair for pair in told.to_json()["pairs"]}
    assert list(pairs) == ["graphs and proteins", "graphs and text", "proteins and text"]
    for both, pair in pairs.items():
        first, then = pair["parts"]
        searches = (f"{first} to {then}", f"{then} to {first}")
        assert f"{both}: {pair['sentence']}" in str(told) and pair["sentence"] in unescape(page)
        assert all(f"<h3>{search}</h3>" in page for search in searches)
        means = {}
        for of in ("pretrained", pair["control"]):
            rows = [r for r in scores if r["of"] == of and r["direction"] in searches]
            recalls = [np.mean([r[f"recall_{k}"]["value"] for k in (1, 5, 10)]) for r in rows]
            means[of] = np.average(recalls, weights=[r["queries"] for r in rows])
        assert pair["value"] == pytest.approx(means["pretrained"] - means[pair["control"]])


def test_files_of_two_kinds_need_no_text(tmp_path):
    for i, (_, _, png) in enumerate(things(12)):
        (tmp_path / f"{i}.png").write_bytes(png)
        (tmp_path / f"{i}.wav").write_bytes(sound(i))
    table = tmp_path / "t.csv"
    table.write_text("\n".join(["photo,sound", *(f"{i}.png,{i}.wav" for i in range(12))]))
    source = open_source(table)
    assert source.parts == {"image": "image", "audio": "audio"} and len(source) == 12
    with tarfile.open(tmp_path / "t.tar", "w") as archive:
        for i in range(12):
            for name in (f"{i}.png", f"{i}.wav"):
                archive.add(tmp_path / name, name)
    again = open_source(tmp_path / "t.tar")
    assert again.parts == source.parts and len(again) == 12
    assert raw_print(again.read(3)) == raw_print(source.read(3)) != raw_print(source.read(4))
    frame = {"photo": [(tmp_path / f"{i}.png").read_bytes() for i in range(12)],
             "sound": [sound(i) for i in range(12)]}  # fmt: skip
    pq.write_table(pa.table(frame), tmp_path / "t.parquet")
    assert open_source(tmp_path / "t.parquet").parts == source.parts
    with tarfile.open(tmp_path / "other.tar", "w") as archive:
        for i in range(12):
            archive.add(tmp_path / f"{i}.png", f"{i}.png")
            archive.add(tmp_path / f"{i}.wav", f"sound{i}.wav")
    assert open_source(tmp_path / "other.tar").content in ("image", "audio")


def test_each_column_of_files_may_have_a_folder_of_its_own(tmp_path):
    for folder in ("photos", "sounds"):
        (tmp_path / folder).mkdir()
    for i, (_, _, png) in enumerate(things(6)):
        (tmp_path / "photos" / f"{i}.png").write_bytes(png)
        (tmp_path / "sounds" / f"{i}.wav").write_bytes(sound(i))
    (tmp_path / "photos" / "more.png").write_bytes(png)
    rows = [f"{i}.wav,{i}.png,something to see and hear {i}" for i in range(6)]
    (tmp_path / "t.csv").write_text("\n".join(["sound,photo,caption", *rows]))
    source = open_source(tmp_path / "t.csv")
    assert source.parts == {"audio": "audio", "image": "image", "text": "text"}
    with Part(source, "audio").open(2) as file:
        assert file.read() == sound(2) and source.read(5)["image"] == [png]
    assert source.ignored == {"files without a text": 1}


def test_lists_in_memory(tmp_path):
    samples = [
        Pair(image=np.full((20, 20, 3), 9 * i, np.uint8), words=[f"level {i} of grey", "a level"])
        for i in range(12)
    ]
    source = open_source(samples)
    assert isinstance(source, PairList) and source.parts == {"image": "image", "words": "text"}
    assert source.read(2)["image"][0] is samples[2]["image"]
    other = [Pair(a=picture("red", "bar", i), b=sound(i)) for i in range(3)]
    assert open_source(other).parts == {"a": "image", "b": "audio"}
    assert open_source(other).fingerprint() != open_source(other[:2]).fingerprint()
    parts = ["image=vit_tiny", "image.dim=24", "image.heads=2", "image.depth=1", "image.patch=4",
             "words=bert_micro", *(f"words.{one}" for one in SMALL)]  # fmt: skip
    run = selfsup.pretrain(
        samples, encoder={"name": "towers_micro", "dim": 16, "parts": parts}, resolution=16,
        batch=8, steps=2, out=tmp_path / "run", quiet=True,
    )  # fmt: skip
    assert run.done


def test_clips_with_words_have_small_towers_and_are_not_mirrored():
    samples = [Pair(video=np.zeros((8, 24, 24, 3), np.uint8), text=f"left {i}") for i in range(3)]
    modality = Pairs()
    modality.learn(open_source(samples))
    assert not modality.sides["video"].modality.mirror
    shapes = [modality.chosen("video", name, {}) for name in modality.encoders]
    assert shapes[0] == ("vit_tiny", {"depth": 4})
    assert [name for name, _ in shapes[1:]] == ["vit_tiny", "vit_small", "vit_base"]


def test_what_a_part_holds_is_told_by_the_first_sample_that_has_it(tmp_path):
    samples = [Pair(a=[], words=["of what is not there"])]
    samples += [Pair(a=picture("red", "bar", i), words=f"number {i}") for i in range(8)]
    source = open_source(samples)
    assert source.parts == {"words": "text", "a": "image"}
    modality = Pairs()
    modality.learn(source)
    with pytest.raises(BadSample, match="not all of"):
        modality.read(source.read(0))
    with pytest.raises(BadSample, match="there is no a"):
        Part(source, "a").read(0)


def test_towers_of_proteins_are_those_of_earlier_runs():
    levels = [_level(find("protein")(), tower["level"]) for tower in TOWERS.values()]
    assert levels == [(f"bert_{size}", {}) for size in ("micro", "mini", "small", "base")]
