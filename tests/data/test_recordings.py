"""Long files as clips: names, what is read of each, labels, groups, and what is not believed."""

import os

import numpy as np
import pytest
import soundfile
import torch

from selfsup.data import fields, open_source, open_store
from selfsup.data.copies import without_copies
from selfsup.data.joined import Joined
from selfsup.data.outcome import BadSample
from selfsup.data.seen import seen_as
from selfsup.evaluate.split import split
from selfsup.modalities import find
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


@pytest.fixture
def folder(tmp_path):
    for i, (name, seconds) in enumerate(
        [("a/long.wav", 7), ("a/short.wav", 2), ("b/some.flac", 4)]
    ):
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
    assert source.notes == ["2 longer than 2 s: cut into 6 clips"]
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
    assert found.notes[-1] == "40 clips are of 10 recordings; intervals are over clips"


def test_copies_of_clips_are_found_by_their_files(folder):
    (folder / "b/again.wav").write_bytes((folder / "a/long.wav").read_bytes())
    source = seen_as(open_source(folder), audio)
    assert len(without_copies(source)) == 7 and len(source) == 11


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

    class Mean(torch.nn.Module):
        def forward(self, x):
            seen.append(len(x))
            return torch.ones(len(x), 2)

    seen: list[int] = []
    job = SimpleNamespace(modality=audio, size=16, beside=[], device="cpu")
    online({"data.labels": str(folder), "data.cache": None}, job)(Mean())
    assert seen == [3]  # files, of seven clips
    job.beside[0].close()


def test_groups_of_two_sources_stay_apart(folder, tmp_path):
    clips, whole = seen_as(open_source(folder), audio), open_source(folder)
    assert Joined(clips, whole).groups().tolist() == [0, 0, 0, 0, 1, 2, 2, 7, 8, 9]
    assert Joined(whole, whole).groups() is None
