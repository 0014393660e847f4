"""Folders of numbered pictures as clips: what is recognised, what is asked for, what is odd."""

import io

import numpy as np
import pytest
from PIL import Image

import selfsup
from selfsup.data import fields, open_source, open_store
from selfsup.data.copies import without_copies
from selfsup.data.frames import FrameFolders
from selfsup.data.outcome import BadSample, Ledger
from selfsup.data.seen import seen_as
from selfsup.modalities import find
from selfsup.scan import scan

Video = find("video")


def png(level, size=(24, 16)):
    file = io.BytesIO()
    Image.new("RGB", size, (level, level, level)).save(file, "PNG")
    return file.getvalue()


def clip(folder, numbers, form="frame_{:04d}.png", level=lambda n: 3 * n, **picture):
    folder.mkdir(parents=True, exist_ok=True)
    for n in numbers:
        (folder / form.format(n)).write_bytes(png(level(n), **picture))


def frames_of(modality, raw, size=16):
    return fields.unpack_one(modality.read(raw, size)[:, 0, 0])["frames"]


def levels(frames):
    return frames[:, 0, 0, 0].tolist()


def as_video(path):
    return seen_as(open_source(path), find("video")())


# ---- what is a clip --------------------------------------------------------------------------


def test_folders_whose_pictures_are_called_frames_are_clips_unasked(tmp_path):
    for name in ("train/wave/a", "train/bow/b", "test/wave/c"):
        clip(tmp_path / name, range(9, 14))
    source = open_source(tmp_path)
    assert source.content == "video" and len(source) == 3
    assert [source.name(i) for i in range(3)] == ["test/wave/c", "train/bow/b", "train/wave/a"]
    assert list(source.read(0)) == [9, 10, 11, 12, 13]  # by number: 9 before 10
    assert source.labels()[1] == ["bow", "wave"] and source.splits()[1] == ["test", "train"]
    assert seen_as(source, find("image")()).content == "image"
    assert "15 numbered pictures" in source.notes[0]


@pytest.mark.parametrize("form", ["{:05d}.png", "frames/{:05d}.png", "frame_a{:03d}.png"])
def test_numbered_pictures_are_pictures_until_clips_are_asked_for(form, tmp_path):
    for digit in "01":
        (tmp_path / digit / "frames").mkdir(parents=True)
        clip(tmp_path / digit, range(6), form)
    source = open_source(tmp_path)
    assert source.content == "image" and len(source) == 12
    assert isinstance(as_video(tmp_path), FrameFolders) and len(as_video(tmp_path)) == 2


def test_a_short_folder_or_other_names_make_it_no_obvious_clip(tmp_path):
    clip(tmp_path / "a", range(6))
    clip(tmp_path / "b", range(3))
    assert open_source(tmp_path).content == "image"
    clip(tmp_path / "b", range(6))
    assert open_source(tmp_path).content == "video"
    (tmp_path / "cover.png").write_bytes(png(0))
    assert open_source(tmp_path).content == "image"


def test_two_rows_of_names_are_two_clips_and_odd_files_are_told(tmp_path):
    clip(tmp_path / "a", range(5), "left_{:02d}.png")
    clip(tmp_path / "a", range(5), "right_{:02d}.png")
    clip(tmp_path, range(4), "{}.png")
    clip(tmp_path, [3], "{:04d}.png")  # 0003.png beside 3.png
    (tmp_path / "cover.png").write_bytes(png(0))
    source = as_video(tmp_path)
    assert [source.name(i) for i in range(3)] == [".", "a/left_*", "a/right_*"]
    assert source.problems.counts() == {"frame-again": 1, "no-number": 1}
    assert [len(source.read(i)) for i in range(3)] == [4, 5, 5]


def test_labels_of_a_table_and_changes_are_seen(tmp_path):
    for name in ("a", "b"):
        clip(tmp_path / "clips" / name, range(4), "{}.png")
    (tmp_path / "labels.csv").write_text("path,label\na,wave\nb,bow\n")
    labelled = open_source(tmp_path / "clips", labels=tmp_path / "labels.csv")
    source = seen_as(labelled, find("video")())
    codes, names = source.labels()
    assert [names[c] for c in codes] == ["wave", "bow"] and len(source) == 2
    (tmp_path / "two.csv").write_text("path,label,mood\na,wave,sad\nb,bow,glad\n")
    moods = open_source(tmp_path / "clips", labels=tmp_path / "two.csv:mood")
    assert seen_as(moods, find("video")()).labels()[1] == ["glad", "sad"]
    before, stamps = source.fingerprint(), source.stamps()
    (tmp_path / "clips" / "b" / "3.png").rename(tmp_path / "clips" / "b" / "4.png")
    after = as_video(tmp_path / "clips")
    assert after.fingerprint() != before
    assert after.stamps()[0] == stamps[0] and after.stamps()[1] != stamps[1]
    assert len(without_copies(after)) == 1  # the same pictures
    clip(tmp_path / "clips" / "c", range(4), "{}.png", lambda n: 9)
    assert len(without_copies(as_video(tmp_path / "clips"))) == 2


# ---- what becomes of it ----------------------------------------------------------------------


def test_frames_are_shown_at_the_rate_at_which_they_were_taken(tmp_path):
    clip(tmp_path, range(40), "{:03d}.png")
    raw = as_video(tmp_path).read(0)
    modality = Video(frame_rate=20.0)
    modality.stored = 10.0
    assert levels(frames_of(modality, raw)) == [6 * n for n in range(20)]
    modality = Video(frame_rate=20.0, longest=1.0)
    modality.stored = 10.0
    assert levels(frames_of(modality, raw)) == [30 + 6 * n for n in range(10)]  # the middle
    assert sum(modality.notes.values()) == 1
    modality = Video(frame_rate=20.0)
    modality.learn(as_video(tmp_path))
    assert modality.rate == 8.0 and modality.stored == 16.0  # two seconds in 16 frames
    assert modality.extent(as_video(tmp_path)) == 16
    assert modality.describe(raw) == ("frames", "40 pictures", (16, 24))
    assert Video(frame_rate=10.0).rules != Video().rules


def test_numbers_may_go_in_steps_and_gaps_show_the_frame_before(tmp_path):
    clip(tmp_path, [100, 105, 110, 125, 130, 135], "{}.png", lambda n: n - 100)
    modality = Video(frame_rate=10.0)
    modality.stored = 10.0
    found = levels(frames_of(modality, as_video(tmp_path).read(0)))
    assert found == [0, 5, 10, 10, 10, 25, 30, 35]
    assert list(modality.notes) == ["frames are missing: the one before is shown"]


def test_faults_are_skipped_with_a_reason_and_reconcile(tmp_path):
    for i in range(5):
        clip(tmp_path / f"good{i}", range(8), level=lambda n, i=i: 9 * i + n)
    clip(tmp_path / "gone", [0, 1, 2, 30, 31])
    clip(tmp_path / "sizes", range(8))
    clip(tmp_path / "sizes", [5], size=(16, 24))
    clip(tmp_path / "broken", range(8))
    (tmp_path / "broken" / "frame_0003.png").write_bytes(b"no picture")
    clip(tmp_path / "cut", range(8))
    (tmp_path / "cut" / "frame_0003.png").write_bytes(png(9, (600, 400))[:80])
    source, modality, ledger = open_source(tmp_path), Video(), Ledger()
    assert len(source) == 9
    modality.learn(source)
    with open_store(source, modality, 16, cache=tmp_path.parent / "cache", ledger=ledger) as store:
        assert len(store.batch(np.arange(9))) == 5
    assert ledger.counts() == {
        "missing_frames": 1, "frame_sizes": 1, "not_an_image": 1, "truncated": 1,
    }  # fmt: skip
    with pytest.raises(BadSample, match="frame 3") as caught:
        modality.read(source.read(0), 16)
    assert caught.value.code == "not_an_image"
    result = scan(tmp_path)
    assert (result.found, result.used, result.skipped) == (9, 5, 4) and result.content == "video"


def test_numbered_pictures_through_the_verbs_when_told_that_they_are_clips(tmp_path, monkeypatch):
    monkeypatch.setenv("SELFSUP_CACHE", str(tmp_path / "cache"))
    for i in range(8):
        clip(
            tmp_path / "clips" / f"{i % 2}" / f"{i}", range(16), "{:03d}.png", lambda n, i=i: n + i
        )
    run = selfsup.pretrain(
        tmp_path / "clips",
        modality={"name": "video", "frame_rate": 10.0},
        method={"name": "mae", "decoder_dim": 16, "decoder_depth": 1, "decoder_heads": 2},
        encoder={"name": "vit_tiny", "dim": 24, "depth": 1, "heads": 2},
        steps=2, batch=4, out=tmp_path / "run", quiet=True,
    )  # fmt: skip
    assert "frame_rate = 10.0" in (run.path / "resolved.toml").read_text()
    encoder = selfsup.load(run.path)
    assert encoder.embed(tmp_path / "clips").shape == (8, 24)
    assert encoder.modality.frame_rate == 10.0
    selfsup.embed(run.path, tmp_path / "clips", tmp_path / "v.csv")
    assert ",0/2," in (tmp_path / "v.csv").read_text()
