"""Pairs: what is read of tables, shards and parquet, with their faults; views; a whole run."""

import csv
import io
import json
import tarfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile
import torch
from PIL import Image

import selfsup
from selfsup.data import BadSample, Loader, open_source, open_store
from selfsup.data.copies import without_copies
from selfsup.data.pairs import as_pairs
from selfsup.data.seen import seen_as
from selfsup.errors import SelfsupError
from selfsup.evaluate import pairing, tasks, zeroshot
from selfsup.export import _write, vectors
from selfsup.inference import assemble
from selfsup.method import Views
from selfsup.modalities import find
from selfsup.modalities.pairs import Pairs
from selfsup.randomness import Draws
from selfsup.scan import scan
from selfsup.search import search

torch.set_num_threads(1)
COLOURS = {"red": (220, 30, 30), "green": (30, 200, 40), "blue": (40, 60, 220),
           "white": (240, 240, 240)}  # fmt: skip
SHAPES = ("square", "bar", "corner")


def picture(colour: str, shape: str, seed: int) -> bytes:
    draws = np.random.default_rng(seed)
    x = draws.integers(0, 40, (20, 20, 3)).astype(np.uint8)
    rows = {"square": slice(5, 15), "bar": slice(2, 18), "corner": slice(0, 8)}[shape]
    columns = {"square": slice(5, 15), "bar": slice(8, 12), "corner": slice(0, 8)}[shape]
    x[rows, columns] = COLOURS[colour]
    file = io.BytesIO()
    Image.fromarray(x).save(file, "PNG")
    return file.getvalue()


def things(count: int) -> list[tuple[str, str, bytes]]:
    names = [(c, s) for c in COLOURS for s in SHAPES]
    return [(*names[i % len(names)], picture(*names[i % len(names)], i)) for i in range(count)]


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SELFSUP_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """captions.csv beside images/: 72 pictures, two captions each; and labelled/ by colour."""
    home = tmp_path_factory.mktemp("pairs")
    (home / "images").mkdir()
    with open(home / "captions.csv", "w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["file", "number", "caption", "split"])
        for i, (colour, shape, content) in enumerate(things(72)):
            (home / "images" / f"{i}.png").write_bytes(content)
            split = "test" if i // 12 % 3 == 2 else "train"
            rows.writerow([f"{i}.png", 0, f"a {colour} {shape} number {i}", split])
            rows.writerow([f"{i}.png", 1, f"there is one {shape} and it is {colour}", split])
    for i, (colour, _, content) in enumerate(things(24)):
        (home / "labelled" / colour).mkdir(parents=True, exist_ok=True)
        (home / "labelled" / colour / f"{i}.png").write_bytes(content)
    return home


# ---- reading ---------------------------------------------------------------------------------


def test_a_table_of_files_and_sentences_is_pairs(home):
    source = open_source(home / "captions.csv")
    assert source.content == "pairs" and source.parts == {"image": "image", "text": "text"}
    assert len(source) == 72 and source.name(4) == "4.png"
    raw = source.read(4)
    assert raw["image"] == [(home / "images" / "4.png").read_bytes()]
    assert raw["text"] == ["a green bar number 4", "there is one bar and it is green"]
    numbers, names = source.splits()
    assert [names[n] for n in numbers[23:25]] == ["train", "test"]
    taught = source.for_training()  # what tests is never trained on
    assert len(taught) == 48 and "24.png" not in [taught.name(i) for i in range(48)]
    assert taught.read(24) == source.read(36)
    assert seen_as(source, find("image")()).read(4) == raw["image"][0]
    assert len(np.unique(source.stamps())) == 72


def test_without_a_split_a_group_of_pairs_tests_as_a_whole(tmp_path):
    rows = [{"text": f"words that tell of {i}", "caption": f"other words for the number {i}"}
            | {"groups": i // 10} for i in range(400)]  # fmt: skip
    (tmp_path / "pairs.jsonl").write_text("\n".join(map(json.dumps, rows)))
    source = as_pairs(open_source(tmp_path / "pairs.jsonl"), ("text", "caption"))
    numbers, names = source.splits()
    tests = numbers.reshape(40, 10) == names.index("test")
    assert (tests.all(1) | ~tests.any(1)).all() and 1 <= tests.all(1).sum() <= 10


def test_without_a_split_one_in_ten_is_held_out(home, tmp_path):
    lines = [line.rpartition(",")[0] for line in (home / "captions.csv").read_text().splitlines()]
    table = home / "unsplit.csv"
    table.write_text("\n".join(lines))
    source = open_source(table)
    numbers, names = source.splits()
    held = [source.name(i) for i in np.flatnonzero(numbers == names.index("test"))]
    assert 1 <= len(held) <= 18 and len(source.for_training()) == 72 - len(held)
    table.write_text("\n".join([lines[0], *reversed(lines[1:])]))  # by name, not by place
    again = open_source(table)
    numbers = again.splits()[0]
    assert sorted(held) == sorted(again.name(i) for i in np.flatnonzero(numbers == 0))
    table.unlink()


def test_faults_of_a_table(home, tmp_path):
    (tmp_path / "images").mkdir()
    for i in range(8):
        content = (home / "images" / f"{i}.png").read_bytes()
        (tmp_path / "images" / f"{i}.png").write_bytes(b"no picture" if i == 6 else content)
    rows = [f"{i}.png,a caption of some words {i}" for i in range(8)]
    rows[2] = "2.png,   "  # no text at all
    rows[3:4] = ["3.png,", "3.png,one caption that is there", "3.png,one caption that is there"]
    rows += ["missing.png,a picture that is not there", ",words without a picture", ""]
    (tmp_path / "t.csv").write_text("\n".join(["image,caption", *rows]))
    source = open_source(tmp_path / "t.csv")
    assert len(source) == 8 and source.problems.counts() == {"missing": 1}
    assert source.read(3)["text"] == ["one caption that is there"]
    modality = Pairs()
    modality.learn(source)
    codes = {}
    for i in range(8):
        try:
            modality.read(source.read(i), 24)
        except BadSample as bad:
            codes[i] = bad.code, bad.reason.partition(":")[0]
    assert codes == {2: ("empty", "text"), 6: ("not_an_image", "image")}
    with pytest.raises(BadSample, match="not_pairs"):
        modality.read({"image": source.read(0)["image"]})
    with pytest.raises(BadSample, match="not_pairs"):
        modality.read(b"bytes")


def test_captions_that_are_not_utf8(home, tmp_path):  # D16, D22
    """In latin-1, half a surrogate pair, a name that no file can have: skipped and counted."""
    for i in range(6):
        (tmp_path / f"{i}.png").write_bytes((home / "images" / f"{i}.png").read_bytes())
    rows = [f"{i}.png,a caption of some words {i}" for i in range(6)]
    rows[2] = "2.png,caf\udce9 au lait"
    table = tmp_path / "t.csv"
    table.write_bytes("\n".join(["image,caption", *rows]).encode("utf-8", "surrogateescape"))
    result = selfsup.scan(table)  # learns a vocabulary, too
    assert result.reasons == {"not_utf8": 1} and result.used == 5
    assert result.bad[0]["name"] == "2.png" and result.bad[0]["reason"].startswith("text: ")
    lines = [json.dumps({"image": f"{i}.png", "caption": f"some words {i}"}) for i in range(6)]
    lines[3] = '{"image": "3.png", "caption": "half \\ud800 of a sign"}'
    lines += ['{"image": "\\ud800.png", "caption": "no such file"}', '{"image": "a\\u0000.png"}']
    (tmp_path / "t.jsonl").write_text("\n".join([*lines, "[" * 10**5]))
    result = selfsup.scan(tmp_path / "t.jsonl")
    assert result.reasons == {"missing": 2, "broken-row": 1, "not_utf8": 1}
    assert result.used == 5 and result.found == 9


def test_many_orphans_are_told_of(home, tmp_path):  # D22
    for i in range(20):
        (tmp_path / f"{i}.png").write_bytes((home / "images" / f"{i}.png").read_bytes())

    def notes(here, absent, mute):
        rows = [f"{i}.png,{'' if i < mute else f'caption number {i}'}" for i in range(here)]
        rows += [f"absent{i}.png,a caption of nothing {i}" for i in range(absent)]
        (tmp_path / "t.csv").write_text("\n".join(["image,caption", *rows]))
        source = open_source(tmp_path / "t.csv")
        assert source.ignored.get("files without a text", 0) == 20 - here
        return source.notes

    assert notes(20, 5, 4) == []  # a fifth is not more than a fifth
    assert notes(20, 6, 0) == ["6 of 26 rows are without a file that is there: is that meant?"]
    assert notes(20, 0, 5) == ["5 of 20 files have no text in the table"]
    assert notes(14, 0, 0) == ["6 of 20 files beside the table are not in it: is that meant?"]
    assert "6 of 20 files" in str(selfsup.scan(tmp_path / "t.csv"))
    members = [(f"{i}.{end}", content) for i, (_, _, content) in enumerate(things(8))
               for end, content in (("png", content), ("txt", b"a text"))]  # fmt: skip
    shard(tmp_path / "s.tar", [m for m in members if m[0] not in ("1.txt", "2.txt", "3.txt")])
    told = open_source(tmp_path / "s.tar").notes
    assert told == ["3 of 8 keys have one part without the other: is that meant?"]


def test_other_tables_are_what_they_were(home, tmp_path):
    (tmp_path / "0.png").write_bytes((home / "images" / "0.png").read_bytes())
    (tmp_path / "1.png").write_bytes((home / "images" / "1.png").read_bytes())
    table = tmp_path / "t.csv"
    for text, content in (
        ("path,label\n0.png,cat\n1.png,dog\n", "image"),
        ("path,label,split\n0.png,a very big cat,train\n1.png,a big dog,test\n", "image"),
        ("text,label\nsome words of prose here,a\nother words of prose there,b\n", "text"),
    ):
        table.write_text(text)
        assert open_source(table).content == content, text
    table.write_text("image,caption\nno.png,some words\nneither.png,other words\n")
    with pytest.raises(SelfsupError, match="E102"):
        open_source(table)


def test_sounds_with_words_and_three_parts(home, tmp_path):
    for i in range(4):
        soundfile.write(tmp_path / f"{i}.wav", np.sin(np.arange(4000) * (0.1 + 0.1 * i)), 8000)
        (tmp_path / f"{i}.png").write_bytes((home / "images" / f"{i}.png").read_bytes())
    table = tmp_path / "t.tsv"
    table.write_text("file\ttext\n" + "".join(f"{i}.wav\ttone {i}\n" for i in range(4)))
    assert open_source(table).parts == {"audio": "audio", "text": "text"}
    lines = [f"{i}.png\ttone number {i}\t{i}.wav" for i in range(4)]
    table.write_text("\n".join(["picture\tcaption\tsound", *lines]))
    source = open_source(table)
    assert source.parts == {"image": "image", "audio": "audio", "text": "text"}
    modality = Pairs()
    modality.learn(source)
    batch = assemble([modality.read(source.read(i), 24) for i in range(4)])
    (view,) = modality.views(batch, Views(light=1), Draws(0, batch.samples), 16)
    assert view.of["image"].shape == (4, 3, 16, 16) and view.of["audio"].shape[:2] == (4, 1)
    encoder = modality.encoder("towers_micro", 16, dim=8)
    assert encoder.features(view).shape == (4, 3, 8)
    table.write_text("\n".join(["left\tright\tcaption", "0.png\t1.png\ttwo of them, side by side",
                                "2.png\t3.png\tand two others, side by side"]))  # fmt: skip
    assert list(open_source(table).parts) == ["left", "right", "text"]


def test_what_is_left_out_of_long_parts_is_told_once(tmp_path):
    for i, seconds in enumerate((30, 5, 30)):
        soundfile.write(tmp_path / f"{i}.wav", np.sin(np.arange(1000 * seconds) * 0.1), 1000)
    table = tmp_path / "t.csv"
    table.write_text("file,text\n" + "".join(f"{i}.wav,what sounds here {i}\n" for i in range(3)))
    source, modality = open_source(table), Pairs()
    for _ in range(2):
        modality.learn(source)
    assert source.notes == [
        "audio: 2 of 3 are longer than 20 s, of which the middle is used: 20 s of 65 s are left "
        "out; to use more: --set 'modality.options=[\"audio.longest=SECONDS\"]'"
    ]
    assert source.notes[0] in scan(table).notes
    modality.read(source.read(0))
    assert modality.notes == {"audio: longer than 20 s: the middle is used": 1}
    source = open_source(table)
    Pairs(options=("audio.longest=30",)).learn(source)
    assert source.notes == []
    path = tmp_path / "0.wav"
    path.write_bytes(path.read_bytes()[:40_000])
    (tmp_path / "1.wav").write_bytes(b"")
    source = open_source(table)
    for i, code in enumerate(("truncated", "empty")):
        with pytest.raises(BadSample, match=code):
            modality.read(source.read(i))


def shard(path, members, mode="w"):
    with tarfile.open(path, mode) as tar:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))


@pytest.mark.parametrize("written", ["txt", "json"])
def test_shards_with_texts(home, tmp_path, written):
    members = []
    for i, (colour, shape, content) in enumerate(things(6)):
        text = f"a {colour} {shape}"
        told = text if written == "txt" else json.dumps({"caption": text, "width": 20})
        members += [(f"{i:04}.png", content), (f"{i:04}.{written}", told.encode())]
    members.insert(2, ("0000.png", things(1)[0][2]))  # a duplicate key
    members.append(("0009.png", things(1)[0][2]))  # a picture without a text
    members.append((f"0010.{written}", b"a text without a picture"))
    shard(tmp_path / "s.tar", members)
    source = open_source(tmp_path / "s.tar")
    assert source.content == "pairs" and len(source) == 6
    assert source.problems.counts() == {"no-partner": 2, "key-again": 1}
    modality = Pairs()
    modality.learn(source)
    batch = assemble([modality.read(source.read(i), 24) for i in range(6)])
    texts = modality.sides["text"].modality.texts(modality.parts(batch)["text"][0])
    texts = [text.strip("‖") for text in texts]
    assert texts[:2] == ["a red square", "a red bar"]
    assert source.name(1) == "0001.png" and source.size(1) > len(things(2)[1][2])


@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_keys_of_a_shard_in_any_order(tmp_path, mode):  # D19
    made = things(6)
    pictures = [(f"{i:04}.png", content) for i, (_, _, content) in enumerate(made)]
    texts = [(f"{i:04}.txt", f"a {c} {s}".encode()) for i, (c, s, _) in enumerate(made)]
    for order in (pictures + texts, texts[::-1] + pictures, [*zip(pictures, texts[::-1])]):
        members = [m for pair in order for m in pair] if len(order) == 6 else order
        shard(tmp_path / "s.tar", members, mode)
        source = open_source(tmp_path / "s.tar")
        found = {source.name(i)[:4]: source.read(i) for i in range(6)}
        for i, (colour, shape, content) in enumerate(made):
            raw = found[f"{i:04}"]
            assert raw == {"image": [content], "text": [f"a {colour} {shape}".encode()]}


def test_shards_of_pictures_with_facts_are_pictures(tmp_path):
    members = []
    for i, (_, _, content) in enumerate(things(4)):
        members += [(f"{i}.png", content), (f"{i}.json", b'{"width": 20}')]
    shard(tmp_path / "s.tar", members)
    assert open_source(tmp_path / "s.tar").content == "image"


def test_parquet_with_bytes_and_with_paths(home, tmp_path):
    made = things(5)
    images = [{"bytes": content, "path": None} for _, _, content in made]
    captions = [[f"a {c} {s}", f"one {s}"] for c, s, _ in made]
    captions[3] = []
    pq.write_table(pa.table({"image": images, "captions": captions}), tmp_path / "b.parquet")
    source = open_source(tmp_path / "b.parquet")
    assert source.content == "pairs" and source.read(1)["text"] == ["a red bar", "one bar"]
    assert source.read(1)["image"] == [made[1][2]] and source.read(3)["text"] == [""]
    paths = [f"images/{i}.png" for i in range(5)]
    texts = [f"a {c} {s} on black" for c, s, _ in made]
    pq.write_table(pa.table({"file": paths, "caption": texts}), home / "p.parquet")
    source = open_source(home / "p.parquet")
    assert source.content == "pairs" and source.read(2)["text"] == ["a red corner on black"]
    lines = [json.dumps({"file": p, "text": t}) for p, t in zip(paths, texts, strict=True)]
    (home / "p.jsonl").write_text("\n".join([*lines, '{"file": "images/9.png", "te']))
    source = open_source(home / "p.jsonl")
    assert source.content == "pairs" and len(source) == 5
    assert source.problems.counts() == {"broken-row": 1}
    pq.write_table(pa.table({"image": images, "label": [0, 1, 0, 1, 0]}), tmp_path / "l.parquet")
    assert open_source(tmp_path / "l.parquet").content == "image"


# ---- views -----------------------------------------------------------------------------------


def test_one_text_is_drawn_each_time_for_sample_and_epoch(home, tmp_path):
    source = open_source(home / "captions.csv")
    modality = Pairs()
    modality.learn(source)
    words = modality.sides["text"].modality

    def texts(loader, steps):
        found = {}
        for step in steps:
            batch = loader.batch(step)
            draws = Draws(0, batch.samples)
            (view,) = modality.views(batch, Views(light=1), draws, 16)
            rows = zip(view.of["text"].values, view.of["text"].valid, strict=True)
            for counter, (values, valid) in zip(batch.samples.tolist(), rows, strict=True):
                found[counter] = words.decode(values[valid].tolist())
        return found

    with open_store(source, modality, 24, cache=tmp_path) as store:
        with Loader(store, 24, 0, workers=0) as loader:
            seen = texts(loader, range(12))  # four epochs
            assert texts(loader, range(5, 7)).items() <= seen.items()
        with Loader(store, 12, 0, workers=0) as loader:  # whatever the batch is
            assert texts(loader, range(10)).items() <= seen.items()
        batch = store.batch(np.arange(4))
        parts = modality.parts(batch)
    first = sum("number" in text for text in seen.values()) / len(seen)
    assert 0.4 < first < 0.6
    assert parts["text"][1].tolist() == [0, 0, 1, 1, 2, 2, 3, 3]  # all of them, where all count
    assert parts["image"][1].tolist() == [0, 1, 2, 3]
    shown = modality.picture(modality.plain(batch, 16))
    assert shown.shape[:3] == (4, 3, 160) and shown.dtype == torch.uint8


def test_a_draw_of_one_part_tells_nothing_of_the_other(home, tmp_path):
    (tmp_path / "0.png").write_bytes((home / "images" / "0.png").read_bytes())
    table = tmp_path / "t.csv"
    table.write_text("left,right,caption\n" + "0.png,0.png,the same picture twice\n" * 2)
    source = open_source(table)
    modality = Pairs()
    modality.learn(source)
    batch = assemble([modality.read(source.read(0), 24)] * 4)
    (view,) = modality.views(batch, Views(light=1, share=(0.3, 0.6)), Draws(0, batch.samples), 16)
    for left, right in zip(view.of["left"], view.of["right"], strict=True):
        assert not torch.equal(left, right)
    whole = modality.plain(batch, 16)
    assert torch.equal(whole.of["left"], whole.of["right"])


def test_options_and_sizes_of_parts(home):
    source = open_source(home / "captions.csv")
    modality = Pairs(options=("image.mirror=true", "text.size=12", "text.tokens=bytes"))
    modality.learn(source)
    assert modality.sides["image"].modality.mirror and modality.sized(24) == {
        "image": 24,
        "text": 12,
    }
    again = Pairs()
    again.restore(json.loads(json.dumps(modality.state)))
    assert again.rules == modality.rules and again.state == modality.state
    encoder = again.encoder("towers_mini", 16, parts=("image=vit_tiny", "image.depth=1"))
    assert type(encoder.towers["image"].encoder).__name__ == "Encoder"
    for wrong in ({"parts": {}}, {"parts": {"a": {"modality": "pairs"}, "b": {}}}, {"x": 1}):
        with pytest.raises((ValueError, KeyError, AttributeError)):
            Pairs().restore(wrong)
    with pytest.raises(SelfsupError, match="E201"):
        Pairs(options=("sound.size=3",)).learn(source)
    with pytest.raises(SelfsupError, match="E104"):
        Pairs().learn(open_source(home / "labelled"))


# ---- counting what is found ------------------------------------------------------------------


def some_items(vectors, owner):
    place = [(i, 0) for i in range(len(vectors))]
    return pairing.Items(torch.tensor(vectors), torch.tensor(owner), place)


def test_recall_counts_several_texts_and_equal_ones():
    """Two pictures; text 1 belongs to both of them, texts 0 and 2 to one each."""
    images = some_items([[1.0, 0.0], [0.0, 1.0]], [[0, 7], [1, 9]])
    texts = some_items([[1.0, 0.1], [0.9, 0.9], [1.0, 0.0]], [[0, 7], [1, 7], [1, 9], [2, 9]])
    wanted = pairing.partners(images, texts)
    assert wanted.tolist() == [[True, True, False], [False, True, True]]
    hits, chance, ranks = pairing.recall(images, texts)
    assert ranks.tolist() == [1, 0]  # picture 0 is nearest to text 2, which is not its own
    assert hits[0].tolist() == [0.0, 1.0] and hits[1].tolist() == [1.0, 1.0]
    assert chance[0].tolist() == pytest.approx([2 / 3, 2 / 3])
    assert pairing.recall(texts, images)[2].tolist() == [0, 0, 1]


def test_ties_count_against_the_encoder():
    same = some_items([[1.0, 0.0]] * 12, [[i, i] for i in range(12)])
    hits, chance, _ = pairing.recall(same, same)
    assert hits.sum() == 0
    assert chance.mean(1).tolist() == pytest.approx([1 / 12, 5 / 12, 10 / 12])


def test_queries_of_one_sample_are_one_draw():
    """Both ways and five texts: no more samples than there are, and the same mean."""
    draws = np.random.default_rng(0)
    right = (draws.random((2, 40)) < 0.5).astype(float)
    every = np.concatenate([right, np.repeat(right, 5, axis=1)], 1)
    owners = [*range(40), *np.repeat(range(40), 5)]
    found = pairing.by_sample(every, owners)
    np.testing.assert_allclose(found, right, atol=1e-12)
    uneven = pairing.by_sample(np.array([[1.0, 0.0, 0.0, 1.0]]), [7, 7, 7, 9])
    assert uneven.shape == (1, 2) and uneven.mean() == pytest.approx(0.5)
    sure = pairing.by_sample(np.ones((1, 4)), [7, 7, 7, 9])  # unequal counts alone move nothing
    assert sure.tolist() == [[1.0, 1.0]]


def test_canonical_correlation_finds_what_is_shared():
    torch.manual_seed(0)
    shared = torch.randn(400, 3)
    x = torch.cat([shared @ torch.randn(3, 6), 5 * torch.randn(400, 4)], 1)
    y = torch.cat([3 * torch.randn(400, 5), shared @ torch.randn(3, 4)], 1)
    first, then = pairing.correlate(x[:300], y[:300], 1e-3)
    u, v = first(x[300:])[:, :3], then(y[300:])[:, :3]
    for i in range(3):
        assert abs(np.corrcoef(u[:, i], v[:, i])[0, 1]) > 0.95


# ---- a whole run -----------------------------------------------------------------------------

SMALL = ["image=vit_tiny", "image.dim=24", "image.heads=2", "image.depth=1", "image.patch=4",
         "text=bert_micro", "text.dim=24", "text.heads=2", "text.depth=1"]  # fmt: skip


@pytest.fixture(scope="module")
def run(home, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    return selfsup.pretrain(
        home / "captions.csv",
        encoder={"name": "towers_micro", "dim": 16, "parts": SMALL},
        resolution=16,
        batch=24,
        steps=60,
        optim={"lr": 2e-2},
        out=folder / "a",
        quiet=True,
    )


def test_evaluate_finds_partners_beside_the_controls(run, home, monkeypatch):
    table = home / "captions.csv"
    assert tasks.suggested("pairs", table, None) == "retrieve"
    resampled, true = [], pairing.difference
    monkeypatch.setattr(
        pairing, "difference", lambda ours, *a: resampled.append(len(ours)) or true(ours, *a)
    )
    told = pairing.evaluate_task(run, table)
    assert resampled == [24]  # samples, of 24 + 36 queries
    found = told.to_json()
    assert found["data"]["train"] == 48 and found["data"]["test"] == 24
    assert {r["of"] for r in found["scores"]} == {
        "pretrained", "untrained", "canonical correlation", "chance"
    }  # fmt: skip
    assert {r["direction"] for r in found["scores"]} == {"image to text", "text to image"}
    # 24 texts are of one picture alone and 12 of two each: 36 different ones
    assert {r["queries"] for r in found["scores"] if r["direction"] == "text to image"} == {36}
    assert told.recall("image to text", 10) > told.recall("image to text", 10, "chance")
    assert (run.path / "evaluation-retrieve.json").exists() and "recall@5" in str(told)
    page = selfsup.report(run).read_text()
    assert "Partners" in page and "recall@10" in page and page.count("rank 1") >= 4
    assert "could not be made" not in page.partition("Partners")[2].partition("Views")[0]
    case = found["cases"]["text to image"]["best"][0]
    assert case["rank"] == 1 and case["found"][0]["right"] and case["query"]["text"]


def test_zero_shot_and_its_prompts(run, home, tmp_path):
    assert tasks.suggested("pairs", home / "labelled", None) == "zeroshot"
    told = zeroshot.evaluate_task(
        run, home / "labelled", templates=["there is one square and it is {}"]
    ).to_json()
    of = {row["of"]: row["value"] for row in told["scores"]}
    assert of["pretrained"] > of["chance"] == 0.25
    assert "canonical correlation" in of and told["data"]["samples"] == 24


def test_each_tower_alone_sees_its_own_kind(run, home, tmp_path):
    encoder = selfsup.load(run)
    images = encoder.embed(home / "labelled" / "red")
    assert images.shape == (6, 16)
    assert encoder.seeing("text").card.name == "bert_micro"
    assert encoder.embed(home / "captions.csv").shape == (72, 16)
    alone = encoder.seeing("image", shared=False)  # for a probe: before the map
    assert alone.dim == 24 and alone.untrained().encoder(torch.zeros(1, 3, 16, 16)).shape[1] == 24


def test_search_by_text_and_by_file(run, home):
    found = search(run, "there is one bar and it is blue", home / "labelled", top=6)
    assert len(found.hits) == 6 and found.used == 24
    assert found.hits[0].score >= found.hits[-1].score
    query = home / "labelled" / "red" / "0.png"
    assert search(run, query, home / "labelled", top=1).hits[0].name == "red/0.png"
    (home / "words.csv").write_text(
        "text\nthere is one bar and it is blue\nthere is one square and it is red\n"
    )
    assert len(search(run, query, home / "words.csv").hits) == 2


def test_embed_and_export_of_one_tower(run, home, tmp_path):
    result = selfsup.embed(run.path, home / "labelled", tmp_path / "v.npy")
    assert result.used == 24 and result.dim == 16
    (tmp_path / "image").mkdir()
    _write(selfsup.load(run).tower("image"), tmp_path / "image")  # what an export writes
    loaded = selfsup.load(tmp_path / "image")
    assert loaded.card.modality == "image"
    np.testing.assert_allclose(
        loaded.embed(home / "labelled", precision="fp32"),
        selfsup.load(run).seeing("image").embed(home / "labelled", precision="fp32"),
        rtol=1e-4, atol=1e-5,
    )  # fmt: skip
    whole = vectors(selfsup.load(run))  # of made-up samples, as an export is proved
    assert whole.shape[1] == 16 and np.isfinite(whole).all()
    with pytest.raises(SelfsupError, match="E601"):
        selfsup.load(run).tower("sound")


def test_towers_start_from_other_runs_and_may_be_frozen(home, tmp_path):
    first = selfsup.pretrain(
        home / "images",
        method="mae",
        encoder={"name": "vit_tiny", "dim": 24, "heads": 2, "depth": 1, "patch": 4},
        resolution=20,
        batch=8,
        steps=2,
        out=tmp_path / "image",
        quiet=True,
    )
    settings = {
        "batch": 8, "steps": 2, "quiet": True,
        "encoder": {"name": "towers_micro", "dim": 16, "parts": SMALL[5:], "frozen": ["image"]},
    }  # fmt: skip
    run = selfsup.pretrain(
        home / "captions.csv", from_run={"image": first}, out=tmp_path / "pairs", **settings
    )
    before = selfsup.load(first)
    after = selfsup.load(run).tower("image", shared=False)
    assert after.size == 20 and after.card.name == "vit_tiny"
    for name, weight in before.encoder.state_dict().items():
        torch.testing.assert_close(after.encoder.state_dict()[name], weight)
    with pytest.raises(SelfsupError, match="E202"):
        selfsup.pretrain(
            home / "captions.csv", from_run={"text": first}, out=tmp_path / "no", **settings
        )


def test_a_table_of_pairs_is_pictures_where_pictures_are_asked_for(home, tmp_path):
    run = selfsup.pretrain(
        home / "captions.csv",
        modality="image",
        method="mae",
        encoder={"name": "vit_tiny", "dim": 24, "heads": 2, "depth": 1, "patch": 4},
        resolution=16, batch=8, steps=1,
        out=tmp_path / "run", quiet=True,
    )  # fmt: skip
    assert selfsup.load(run).embed(home / "captions.csv").shape[0] == 72


def test_copies_are_left_out_and_scan_reads_pairs(home, tmp_path):
    rows = [f"{i}.png,a thing with the number {i % 3}" for i in range(6)]
    for i in range(6):
        (tmp_path / f"{i}.png").write_bytes((home / "images" / f"{i % 3}.png").read_bytes())
    (tmp_path / "t.csv").write_text("\n".join(["image,caption", *rows]))
    source = without_copies(open_source(tmp_path / "t.csv"))
    assert len(source) == 3 and source.problems.counts() == {"copy": 3}
    modality = Pairs()
    modality.learn(source)
    assert list(modality.sides) == ["image", "text"]
    found = selfsup.scan(tmp_path / "t.csv", out=tmp_path / "sheet.png")
    assert found.used == 6 and found.content == "pairs" and found.duplicates == 3
    assert found.formats == {"image + text": 6}
