"""Long files as clips: names, what is read of each, labels, groups, and what is not believed."""

import os

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile
import torch

from selfsup.data import fields, files, open_source, open_store, recordings, shards
from selfsup.data.copies import without_copies
from selfsup.data.joined import Joined
from selfsup.data.outcome import BadSample
from selfsup.data.seen import seen_as
from selfsup.embed import embed
from selfsup.evaluate import tasks
from selfsup.evaluate.split import split
from selfsup.load import Card, LoadedEncoder, rebuild
from selfsup.modalities import find
from selfsup.predict import predict
from selfsup.run import LABELLED
from selfsup.search import search
from selfsup.stop import Stopped, stop
from selfsup.transfer.model import Model
from selfsup.transfer.tasks import Network
from selfsup.transfer.transcribe import Transcribe
from tests.data.test_shards import make_tar
from tests.modalities.test_video import numbered, numbers, written

RATE = 1000
Audio, Video = find("audio"), find("video")
audio = Audio(rate=RATE, longest=2.0)


def steps(seconds, first=0):
    """A tone that is one louder in each second."""
    t = np.arange(round(seconds * RATE)) / RATE
    return 0.05 * (1 + first + np.floor(t)) * np.sin(2 * np.pi * 100 * t)


def wave(raw, modality=audio):
    found = fields.unpack_one(modality.read(raw)[:, 0, 0])
    return found["wave"].astype(float) * found["peak"][0] / 32767


FILES = {"a/long.wav": 7, "a/short.wav": 2, "b/some.flac": 4}


@pytest.fixture
def folder(tmp_path):
    for i, (name, seconds) in enumerate(FILES.items()):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        soundfile.write(tmp_path / name, steps(seconds, i), RATE)
    return tmp_path


def test_clips_follow_one_another_and_make_the_whole(folder):
    whole = open_source(folder)
    source = seen_as(whole, audio)
    named = [source.name(i) for i in range(len(source))]
    assert named == ["a/long.wav@0.0s", "a/long.wav@1.75s", "a/long.wav@3.5s", "a/long.wav@5.25s",
                     "a/short.wav", "b/some.flac@0.0s", "b/some.flac@2.0s"]  # fmt: skip
    said = np.concatenate([wave(source.read(i)) for i in range(4)])
    assert np.abs(said - steps(7)).max() < 1e-3
    assert np.abs(wave(source.read(6)) - steps(4, 2)[2 * RATE :]).max() < 1e-3
    assert source.read(4) == whole.read(1)
    assert source.notes == ["2 of 3 files longer than 2 s: cut into 6 clips"]
    assert len(set(source.stamps().tolist())) == 7
    assert audio.describe(source.read(0))[2] == (1750, 1750)
    with open_store(source, audio, 16) as store:
        assert len(store.fill().batch(range(7))) == 7


def test_files_that_are_not_longer_stay_as_they_were(folder):
    whole = open_source(folder)
    assert seen_as(whole, Audio(longest=7.0)) is whole
    assert len(seen_as(whole, Audio(longest=6.8))) == 3  # a clip of 0.2 s is none
    assert seen_as(whole, audio, whole=True) is whole


def test_the_class_of_a_file_is_that_of_its_clips_and_they_stay_together(folder, tmp_path):
    table = tmp_path / "labels.csv"
    table.write_text("path,label\na/long.wav,x\nb/some.flac,y\n")
    for labels, expected in ((None, "aaaaabb"), (table, "xxxx?yy")):
        codes, names = (source := seen_as(open_source(folder, labels=labels), audio)).labels()
        assert "".join(names[c] if c >= 0 else "?" for c in codes) == expected
    groups = np.repeat(np.arange(10), 4)
    labels = groups % 2
    prints = [str(i).encode() for i in range(40)]
    prints[3] = prints[4]  # two recordings share a clip: then all of both
    source.groups = lambda: groups
    source.splits = lambda: None
    found = split(source, labels, np.arange(40), prints)
    tested = set(groups[found.test].tolist())
    assert not tested & set(groups[found.train].tolist()) and (0 in tested) == (1 in tested)
    assert found.duplicates["in both"] == 0
    assert (
        found.notes[-1] == "40 samples are of 10 recordings or groups; intervals are over samples"
    )
    found = split(source, np.minimum(groups, 1), np.arange(40), prints[:1] + prints[:39])
    assert found.notes[-1] == "not tested: 1 of 2 classes, which have a single group each"


def test_a_table_tells_which_files_belong_together(folder, tmp_path):
    table = tmp_path / "labels.csv"
    table.write_text("path,label,source_group\na/long.wav,x,g\nb/some.flac,y,g\n")
    files = open_source(folder, labels=table)
    first, alone, last = files.groups()
    assert first == last != alone
    clips = seen_as(files, audio)
    assert clips.groups().tolist() == [*[first] * 4, alone, *[last] * 2]
    assert open_source(folder, labels=f"{table}:source_group").groups() is None
    listed = folder / "all.csv"
    listed.write_text("path,label,groups\na/long.wav,x,1\nb/some.flac,y,2\na/short.wav,x,1\n")
    classes = tmp_path / "classes.csv"
    classes.write_text("path,label\na/long.wav,x\nb/some.flac,y\na/short.wav,x\n")
    for labels in (None, classes):  # which may say nothing of groups
        groups = open_source(listed, labels=labels).groups()
        assert groups[0] == groups[2] != groups[1]


def test_copies_of_clips_are_found_by_their_files(folder):
    (folder / "b/again.wav").write_bytes((folder / "a/long.wav").read_bytes())
    source = seen_as(open_source(folder), audio)
    kept = without_copies(source)
    assert len(kept) == 7 and len(source) == 11 and kept.notes == source.notes


def test_clips_of_one_file_are_not_read_in_search_of_copies(folder, monkeypatch):
    source = seen_as(open_source(folder), audio)
    monkeypatch.setattr(recordings, "_print", None)
    assert without_copies(source) is source


def test_headers_are_read_once_and_again_where_a_file_is_another_one(folder):
    asked = []

    def seconds(file):
        asked.append(file)
        return audio.seconds(file)

    first, again = (recordings.cut(open_source(folder), 2.0, seconds) for _ in range(2))
    assert len(first) == len(again) == 7 and len(asked) == 3
    soundfile.write(folder / "a/short.wav", steps(6), RATE)
    assert len(recordings.cut(open_source(folder), 2.0, seconds)) == 9 and len(asked) == 6


def test_headers_of_files_that_could_not_be_opened_are_asked_for_again(folder, monkeypatch):
    def refused(*_):
        raise BadSample("unreadable", "no permission to read it")

    source = open_source(folder)
    with monkeypatch.context() as patch:
        patch.setattr(files, "open_file", refused)
        assert seen_as(source, audio) is source
    assert len(seen_as(source, audio)) == 7


def test_a_stop_is_heard_while_headers_are_read(tmp_path, monkeypatch):
    for i in range(20):
        (tmp_path / f"{i}.wav").write_bytes(bytes(2000 + i))
    monkeypatch.setattr(recordings, "WINDOW", 4)
    monkeypatch.setattr(stop, "signal", None)
    asked = []

    def seconds(file):
        asked.append(file)
        stop.request()
        return 1.0

    with pytest.raises(Stopped):
        recordings.cut(open_source(tmp_path), 20.0, seconds)
    assert len(asked) == 4


def test_of_broken_files_is_read_what_is_there(folder):
    path = folder / "a/long.wav"
    path.write_bytes(path.read_bytes()[: 44 + 2 * 5 * RATE])  # two of seven seconds are gone
    kept = Audio(rate=RATE, longest=2.0)
    source = seen_as(open_source(folder), kept)
    assert source.name(2) == f"a/long.wav@{round(10 / 3, 3)}s"
    assert np.abs(wave(source.read(1), kept) - steps(7)[1667:3334]).max() < 1e-3
    assert kept.notes["clips of files that end early"] == 1
    source = seen_as(open_source(folder), audio)
    os.utime(path, (1, 1))
    with pytest.raises(BadSample, match="rewritten"):
        audio.read(source.read(0))


def test_a_header_that_promises_hours_in_a_few_bytes_is_not_believed(folder):
    path = folder / "b/some.flac"
    raw = bytearray(path.read_bytes())
    raw[21] |= 0x0F  # the upper bits of how many samples there are: 2 ** 35
    path.write_bytes(bytes(raw[:4096]))
    assert len(seen_as(open_source(folder), audio)) == 6


def test_clips_of_a_film(tmp_path):
    pytest.importorskip("av")
    written(numbered(35), path=tmp_path / "long.mp4")
    written(numbered(10), path=tmp_path / "short.mp4")
    modality = Video(longest=1.2)
    modality.stored = 10.0
    source = seen_as(open_source(tmp_path), modality)
    assert [source.name(i) for i in range(4)] == [
        "long.mp4@0.0s", "long.mp4@1.167s", "long.mp4@2.333s", "short.mp4"]  # fmt: skip
    shown = [
        fields.unpack_one(modality.read(source.read(i), 32)[:, 0, 0])["frames"] for i in (1, 2)
    ]
    assert [numbers(frames)[::11] for frames in shown] == [[11, 22], [23, 34]]
    assert modality.describe(source.read(1))[2] == (32, 48)
    modality.learn(source)
    assert modality.rate == 10.0
    path = tmp_path / "long.mp4"
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 4 // 5])
    source = seen_as(open_source(tmp_path), modality)
    modality.read(source.read(0), 32)
    with pytest.raises(BadSample) as caught:
        modality.read(source.read(2), 32)
    assert caught.value.code == "truncated"


def test_clips_find_none_of_their_own_recording_while_training(folder):
    from types import SimpleNamespace

    from selfsup.pretrain.online import online

    class Recording(torch.nn.Module):
        def forward(self, x):
            return torch.eye(3)[[0, 0, 0, 0, 1, 2, 2]][: len(x)]  # all clips of one are the same

    job = SimpleNamespace(modality=audio, size=16, beside=[], device="cpu")
    table = folder / "t.csv"
    table.write_text("path,label\na/long.wav,a\n")
    of = [online({"data.labels": str(d), "data.cache": None}, job) for d in (folder, table)]
    assert of[0](Recording())["knn_top1"] == pytest.approx(1 / 7)  # the short one finds the long
    assert of[1](Recording()) == {}  # there is no other recording
    for store in job.beside:
        store.close()


def test_groups_of_two_sources_stay_apart(folder, tmp_path):
    clips, whole = seen_as(open_source(folder), audio), open_source(folder)
    assert Joined(clips, whole).groups().tolist() == [0, 0, 0, 0, 1, 2, 2, 7, 8, 9]
    assert Joined(whole, whole).groups() is None


# ---- inside other files ------------------------------------------------------------------------


def packed(folder, kind):
    """The files of a folder as members or cells, with texts beside them where they are pairs."""
    found = sorted(path for path in folder.rglob("*") if path.is_file())
    names = [str(path.relative_to(folder)) for path in found]
    raws, texts = [path.read_bytes() for path in found], [f"what {n} sounds like" for n in names]
    place, pairs = folder.parent / f"{folder.name}-{kind}", kind.startswith("pairs")
    if kind.endswith("csv"):
        lines = [f"{n},{n[0]},{text}" for n, text in zip(names, texts, strict=True)]
        place = folder / kind
        place.write_text("\n".join(["path,label,text", *lines]))
    elif kind.endswith("parquet"):
        cells = [{"bytes": raw, "path": n} for raw, n in zip(raws, names, strict=True)]
        columns = {"recording": cells, "label": [n[0] for n in names], "text": texts}
        pq.write_table(pa.table(columns).select([0, 1, 2] if pairs else [0, 1]), place)
    else:
        members = list(zip(names, raws, strict=True))
        if pairs:
            members += [(f"{n.partition('.')[0]}.txt", t.encode()) for n, t in zip(names, texts)]
        make_tar(place, members, "w:gz" if kind.endswith("gz") else "w")
    return place


@pytest.mark.parametrize("kind", ["x.tar", "x.tar.gz", "x.parquet", "pairs.csv", "pairs.tar",
                                  "pairs.tar.gz", "pairs.parquet"])  # fmt: skip
def test_recordings_inside_other_files_are_cut_alike(folder, kind, monkeypatch):
    for name in ("BLOCK", "PACKED_BLOCK"):
        monkeypatch.setattr(shards, name, 1000)
    alike = seen_as(open_source(folder), audio)
    source = seen_as(open_source(packed(folder, kind)), audio)
    named = [source.name(i).partition("@")[2] for i in range(len(source))]
    assert named == ["0.0s", "1.75s", "3.5s", "5.25s", "", "0.0s", "2.0s"]
    for i in range(7):
        np.testing.assert_array_equal(wave(source.read(i)), wave(alike.read(i)))
    assert source.groups().tolist() == [0, 0, 0, 0, 1, 2, 2]
    assert source.notes[-1] == "2 of 3 files longer than 2 s: cut into 6 clips"
    assert without_copies(source) is source
    assert source.sequential == kind.endswith(("gz", "parquet"))  # then filled in order
    source.stamps()
    if not kind.startswith("pairs.tar"):  # which have no classes without .cls
        assert source.labels()[0].tolist() == [0, 0, 0, 0, 0, 1, 1]


@pytest.mark.parametrize("kind", ["x.tar", "x.tar.gz"])
def test_a_long_member_is_never_read_as_a_whole(folder, kind, monkeypatch):
    for name, size in (("LARGEST", 5000), ("BLOCK", 1000), ("PACKED_BLOCK", 1000)):
        monkeypatch.setattr(shards, name, size)
    path = packed(folder, kind)
    source = seen_as(open_source(path), audio)
    assert len(source) == 7 and np.abs(wave(source.read(1)) - steps(7)[1750:3500]).max() < 1e-3
    with pytest.raises(BadSample, match="too-large"):
        open_source(path).read(0)
    os.utime(path, (1, 1))
    with pytest.raises(BadSample, match="rewritten"):
        audio.read(source.read(0))


@pytest.mark.parametrize("kind", ["x.tar", "x.parquet", "pairs.csv"])
def test_copies_of_recordings_inside_other_files(folder, kind):
    (folder / "b/again.wav").write_bytes((folder / "a/long.wav").read_bytes())
    source = seen_as(open_source(packed(folder, kind)), audio)
    assert len(source) == 11 and len(without_copies(source)) == 7


@pytest.mark.parametrize("kind", ["x.tar", "x.tar.gz", "x.parquet", "pairs.tar"])
def test_clips_of_a_film_inside_other_files(tmp_path, kind):
    pytest.importorskip("av")
    (tmp_path / "in").mkdir()
    written(numbered(35), path=tmp_path / "in/long.mp4")
    modality = Video(longest=1.2)
    modality.stored = 10.0
    source = seen_as(open_source(packed(tmp_path / "in", kind)), modality)
    read = [modality.read(source.read(i), 32)[:, 0, 0] for i in (1, 2)]
    shown = [numbers(fields.unpack_one(clip)["frames"])[::11] for clip in read]
    assert len(source) == 3 and shown == [[11, 22], [23, 34]]


def test_a_column_of_recordings_is_known_by_its_bytes_or_its_name(folder):
    assert open_source(packed(folder, "x.parquet")).content == "audio"
    path = folder / "x.parquet"
    pq.write_table(pa.table({"audio": [b"\xff\xfb\x90\x00"] * 3}), path)  # MP3 without a head
    assert open_source(path).content == "audio"


# ---- where a file is one row, however long ---------------------------------------------------


@pytest.fixture
def encoder():
    """Untrained, of sounds of up to two seconds."""
    options = {"rate": RATE, "mels": 16, "longest": 2.0}
    card = Card("audio", "mel_tiny", 40, {"dim": 16, "depth": 1, "heads": 2}, audio.mean, audio.std,
                options=options)  # fmt: skip
    modality = Audio(**options)
    return LoadedEncoder(rebuild(card, modality, 0), card, modality)


def test_one_recording_of_each_class_can_judge_nothing(encoder, tmp_path):
    """Its clips may not both teach and test."""
    for several in (False, True):
        for name in "ab":
            (tmp_path / name).mkdir(exist_ok=True)
            soundfile.write(tmp_path / name / f"{several}.wav", steps(7), RATE)
        source = seen_as(open_source(tmp_path), audio)
        judged_by = tasks.wanted(None, encoder, source, str(tmp_path))
        assert judged_by == (str(tmp_path) if several else LABELLED)


def test_files_that_are_named_are_a_row_each_and_a_query_is_one(folder, encoder):
    t = np.arange(7 * RATE) / RATE
    rising = 0.5 * np.sin(2 * np.pi * (50 + 25 * t) * t)
    path, middle = folder / "a/long.wav", folder / "b/middle.wav"
    soundfile.write(path, rising, RATE)
    soundfile.write(middle, rising[2500:4500], RATE)
    found = encoder.embed([path, folder / "a/short.wav", middle], precision="fp32")
    assert found.shape == (3, 16)
    np.testing.assert_allclose(found[0], found[2], atol=1e-4)
    np.testing.assert_allclose(encoder.embed(path, precision="fp32")[0], found[0], atol=1e-4)
    assert len(encoder.embed(folder / "a")) == 5
    hits = search(encoder, path, folder, top=9).hits
    assert hits[0].name == "b/middle.wav" and hits[0].score > 0.999


def test_what_transcribes_hears_whole_files(folder, encoder, tmp_path, capsys):
    network = Network(encoder.encoder, Transcribe(["a", "b"], 80))
    model = Model(network, encoder.card, encoder.modality, {"task": "transcribe"})
    assert len(model.predict(folder)["text"]) == 3
    assert predict(model, folder, tmp_path.parent / "said.parquet").used == 3
    assert "note: 2 samples longer than 2 s: the middle is used" in capsys.readouterr().err


def test_towers_see_long_files_as_clips(folder, tmp_path):
    rows = [f"{name},words of {i}" for i, name in enumerate(FILES)]
    (folder / "said.csv").write_text("\n".join(["file,caption", *rows]) + "\n")
    small = ["audio.dim=16", "audio.depth=1", "audio.heads=2", "text.dim=16", "text.depth=1"]
    options = (f"audio.rate={RATE}", "audio.longest=2.0", "audio.mels=16", "audio.size=80")
    modality = find("pairs")(options=options)
    modality.learn(open_source(folder / "said.csv"))
    card = Card("pairs", "towers_micro", 80, {"dim": 8, "parts": small}, (0.0,), (1.0,),
                state=modality.state, options={"options": list(options)})  # fmt: skip
    towers = LoadedEncoder(rebuild(card, modality, 0), card, modality)
    clips = towers.embed(folder, precision="fp32")
    assert len(clips) == 7
    written = embed(towers, folder, tmp_path.parent / "clips.npy", precision="fp32")
    assert written.used == 7
    np.testing.assert_allclose(np.load(written.path), clips, atol=1e-5)
    assert search(towers, "words", folder).found == 7
