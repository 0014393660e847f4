"""Clips: what is read and what is refused; frames by their times; one cut for all frames."""

import io
import sys
from fractions import Fraction

import numpy as np
import pytest
import torch

from selfsup.data import fields, open_source, open_store, videos
from selfsup.data.outcome import BadSample, Ledger
from selfsup.errors import SelfsupError
from selfsup.method import Views
from selfsup.modalities import find
from selfsup.randomness import Draws
from selfsup.views import image as looks
from selfsup.views import video as clips

av = pytest.importorskip("av")
Video = find("video")


def numbered(count, height=32, width=48):
    """Frames whose grey level tells their number: 40, 46, 52 ..."""
    levels = (40 + 6 * np.arange(count)).astype(np.uint8)
    return np.broadcast_to(levels[:, None, None, None], (count, height, width, 3))


def written(frames, times=None, fps=10, form="mp4", codec="libx264", start=0, path=None):
    """A file; with `times`, in milliseconds, frames come when these say.

    At a `path`, the table of its frames comes first.
    """
    file = io.BytesIO()
    options = {"movflags": "faststart"} if path else {}
    with av.open(str(path) if path else file, "w", format=form, options=options) as container:
        stream = container.add_stream(codec, rate=fps)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        stream.codec_context.time_base, stream.bit_rate = Fraction(1, 1000), 4_000_000
        stream.options = {"preset": "ultrafast", "crf": "10"} if codec == "libx264" else {}
        times = times or [1000 * i // fps for i in range(len(frames))]
        for pixels, time in zip(frames, times, strict=True):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
            frame.pts, frame.time_base = time + start, Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path.read_bytes() if path else file.getvalue()


def no_frames(form):
    file = io.BytesIO()
    with av.open(file, "w", format=form) as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.height, stream.width, stream.pix_fmt = 32, 48, "yuv420p"
        container.start_encoding()
    return file.getvalue()


def sound_only():
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("aac", rate=16000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 4096), np.float32), "fltp", "mono")
        frame.sample_rate = 16000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return file.getvalue()


def read(raw, size=32, stored=10.0, **settings):
    modality = Video(**settings)
    modality.stored = stored
    return fields.unpack_one(modality.read(raw, size)[:, 0, 0])["frames"]


def numbers(frames):
    """The frames' numbers, by their grey levels."""
    return ((frames.mean((1, 2, 3)) - 40) / 6).round().astype(int).tolist()


def refused(raw, **settings):
    with pytest.raises(BadSample) as caught:
        Video(**settings).read(raw)
    return caught.value.code


# ---- reading ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("form", "codec"),
    [("mp4", "libx264"), ("matroska", "libx264"), ("avi", "mpeg4"), ("mov", "mpeg4"),
     ("webm", "libvpx")],
)  # fmt: skip
def test_every_format_gives_the_same_frames(form, codec):
    found = read(written(numbered(12), form=form, codec=codec))
    assert found.shape == (12, 32, 48, 3) and numbers(found) == [*range(12)]


def test_frames_are_taken_by_their_times_and_not_by_their_numbers():
    slow_then_fast = [0, 400, 800, 900, 1000, 1100]  # milliseconds
    raw = written(numbered(6), slow_then_fast)
    assert numbers(read(raw))[:12] == [0, 0, 0, 0, 1, 1, 1, 1, 2, 3, 4, 5]
    assert numbers(read(raw, stored=2.5))[:3] == [0, 1, 2]
    # a clock that does not begin at zero
    assert numbers(read(written(numbered(6), slow_then_fast, start=7000)))[:9] == [0] * 4 + [
        1
    ] * 4 + [2]
    fast = written(numbered(24), fps=40)
    assert numbers(read(fast)) == [0, 4, 8, 12, 16, 20]


def test_long_files_give_their_middle():
    frames = numbered(32)
    assert numbers(read(written(frames), longest=0.8)) == [*range(12, 20)]
    assert numbers(read(frames, longest=0.8)) == [*range(12, 20)]  # an array


def turned(raw, matrix):
    """The same file with another display matrix in its track header."""
    at = raw.index(b"tkhd") + 4 + 40
    assert raw[at : at + 4] == (1 << 16).to_bytes(4, "big")
    a, b, c, d = ((v << 16).to_bytes(4, "big", signed=True) for v in matrix)
    rows = a + b + bytes(4) + c + d + bytes(4)
    return raw[:at] + rows + raw[at + len(rows) :]


def test_clips_are_turned_upright():
    pixels = np.zeros((4, 32, 48, 3), np.uint8)
    pixels[:, :16, :24] = (250, 0, 0)  # the corner at the top left is red
    raw = written(pixels)
    assert read(raw)[0, 4, 4, 0] > 150
    found = read(turned(raw, (0, 1, -1, 0)))[0]  # to be shown a quarter turn clockwise
    assert found.shape == (48, 32, 3) and found[4, -4, 0] > 150 and found[4, 4, 0] < 60
    found = read(turned(raw, (0, -1, 1, 0)))[0]  # and the other way
    assert found.shape == (48, 32, 3) and found[-4, 4, 0] > 150 and found[4, 4, 0] < 60
    found = read(turned(raw, (-1, 0, 0, -1)))[0]
    assert found.shape == (32, 48, 3) and found[-4, -4, 0] > 150


def test_faults_have_reasons(monkeypatch):
    random = np.random.default_rng(0)
    raw = written(random.integers(0, 256, (12, 32, 48, 3), np.uint8))
    assert refused(b"") == "empty"
    assert refused(random.bytes(4000)) == "not_a_video"
    assert refused(bytes(4000)) == "not_a_video"
    assert refused(b"<!doctype html><html></html>") == "not_a_video"
    assert refused(b"some words in a file") == "not_a_video"
    assert refused("a name") == "not_a_video"
    assert refused(raw[: len(raw) // 2]) == "truncated"  # its table comes at the end
    assert refused(sound_only()) == "no_video"
    assert refused(no_frames("avi")) == "no_values"
    assert refused(np.zeros((0, 8, 8, 3), np.uint8)) == "no_values"
    assert refused(np.zeros((4, 8, 8, 2), np.uint8)) == "channels"
    monkeypatch.setattr(videos, "MOST_PIXELS", 32 * 48 - 1)
    assert refused(raw) == refused(np.zeros((4, 32, 48, 3), np.uint8)) == "too_large"


def test_a_clip_that_changes_its_size_is_refused(monkeypatch):
    """What broadcasts do between two programmes; the header tells the first size alone."""
    parts = [
        written(numbered(8, *size), form="mpegts", start=800 * k)
        for k, size in enumerate([(32, 48), (96, 96)])
    ]
    raw = b"".join(parts)
    assert refused(raw) == "frame_sizes"
    monkeypatch.setattr(videos, "MOST_PIXELS", 96 * 96 - 1)
    assert refused(raw) == "too_large"
    assert len(read(parts[0])) > 1


def test_any_damage_leaves_a_clip_or_a_reason():
    random = np.random.default_rng(0)
    whole, codes = written(random.integers(0, 256, (12, 32, 48, 3), np.uint8)), set()
    for _ in range(60):
        raw = bytearray(whole)
        for at in random.integers(-900, 900, 10):  # in the header and in the table at the end
            raw[at] = random.integers(256)
        try:
            assert read(bytes(raw)).shape[3] == 3
        except BadSample as bad:
            codes.add(bad.code)
    assert codes <= {"truncated", "undecodable", "no_video", "no_values", "not_a_video"}


@pytest.mark.parametrize("share", [0.9, 0.5, 0.2])
def test_files_that_end_early_are_refused_or_kept_on_demand(share, tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (40, 32, 48, 3), np.uint8)
    raw = written(noise, path=tmp_path / "noise.mp4")
    cut = raw[: int(share * len(raw))]
    assert refused(cut) == "truncated"
    kept = read(cut, keep_truncated=True)
    assert 0.5 * share * 40 < len(kept) <= share * 40 + 1


def test_large_frames_become_small_ones_as_they_are_decoded():
    frames = np.zeros((2, 480, 1920, 3), np.uint8)
    found = read(written(frames), size=24)
    assert found.shape == (2, 24, 48, 3)  # of a strip the middle


def test_one_frame_is_a_clip_too():
    raw = written(numbered(1))
    modality = Video()
    store = fields.unpack_one(modality.read(raw, 32)[:, 0, 0])["frames"]
    assert len(store) >= 1 and numbers(store)[0] == 0


def test_without_pyav_one_sentence(monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(SelfsupError, match="PyAV") as caught:
        Video().read(b"1234")
    assert caught.value.code == "E204" and caught.value.do == "pip install 'selfsup[video]'"
    Video().read(numbered(3))  # arrays need none


def test_arrays_of_several_forms():
    frames = np.random.default_rng(0).integers(0, 256, (5, 16, 20, 3), np.uint8)
    assert np.array_equal(read(frames), frames)
    assert np.array_equal(read(frames.transpose(0, 3, 1, 2)), frames)
    assert np.array_equal(read(frames[..., 0]), np.repeat(frames[..., :1], 3, 3))
    assert np.array_equal(read(torch.from_numpy(frames)), frames)
    assert read(frames, size=8).shape == (5, 8, 10, 3)
    assert open_source(np.zeros((3, 5, 8, 8, 3), np.uint8)).content == "video"


def test_a_folder_with_faults_reconciles(tmp_path):
    for i in range(6):
        (tmp_path / f"{i}.mp4").write_bytes(written(numbered(20 + i), fps=20))
    (tmp_path / "empty.mp4").write_bytes(b"")
    (tmp_path / "words.avi").write_bytes(b"hello")
    (tmp_path / "wrong.avi").write_bytes(written(numbered(20), fps=20))  # by content it is fine
    source, ledger, modality = open_source(tmp_path), Ledger(), Video()
    assert source.content == "video"
    modality.learn(source)
    assert modality.rate == pytest.approx(16 / 1.2, abs=0.5) and modality.stored == 20
    assert modality.extent(source) == 32
    with open_store(source, modality, 16, cache=tmp_path.parent / "cache", ledger=ledger) as store:
        batch = store.batch(np.arange(len(source)))
        assert len(batch) == 7 and ledger.counts() == {"empty": 1, "not_a_video": 1}
        assert store.counts() == {"found": 9, "used": 7, "skipped": 2}
        assert modality.plain(batch, 16).shape == (7, 3, 16, 16, 16)


def test_state_is_restored_and_checked():
    modality, twin = Video(), Video()
    modality.rate, modality.stored = 5.5, 11.0
    twin.restore(modality.state)
    assert twin.state == modality.state and twin.rules == modality.rules
    for wrong in ({"rate": 0, "stored": 1.0}, {"rate": 8.0}, {"rate": "x", "stored": 1.0}):
        with pytest.raises(ValueError, match="state"):
            Video().restore(wrong)
    for wrong in ({"frames": 6}, {"rate": -1.0}, {"longest": 0}):
        with pytest.raises(SelfsupError, match="E201"):
            Video(**wrong)


# ---- views -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def batch():
    modality = Video()
    return batch_of([modality.read(raw, 48) for raw in modality.examples()] * 2)


def batch_of(samples):
    from selfsup.inference import assemble

    return assemble(samples)


SPEC = Views(light=1, strong=1, local=1)


def test_shapes_and_the_same_numbers_in_any_batch(batch):
    modality, draws = Video(), Draws(3, batch.samples)
    light, strong, local = modality.views(batch, SPEC, draws, 32)
    assert light.shape == strong.shape == (6, 3, 16, 32, 32) and local.shape == (6, 3, 8, 16, 16)
    assert all(x.isfinite().all() for x in (light, strong, local))
    from dataclasses import replace

    one = slice(4, 5)
    alone = replace(
        batch, pixels=batch.pixels[one], samples=batch.samples[one],
        extents=batch.extents[one], indices=batch.indices[one],
    )  # fmt: skip
    again = modality.views(alone, SPEC, Draws(3, alone.samples), 32)
    for x, y in zip((light, strong, local), again, strict=True):
        torch.testing.assert_close(x[one], y)
    other = modality.views(batch, SPEC, Draws(4, batch.samples), 32)
    assert all((x != y).any() for x, y in zip((light, strong, local), other, strict=True))


def test_all_frames_have_one_cut_and_one_look():
    """A clip that stands still stands still in every view."""
    picture = np.random.default_rng(0).integers(0, 256, (1, 24, 40, 3), np.uint8)
    still = batch_of([fields.pack({"frames": np.repeat(picture, 30, 0)}) for _ in range(4)])
    for x in Video().views(still, SPEC, Draws(0, still.samples), 16):
        torch.testing.assert_close(x, x[:, :, :1].expand_as(x))
        assert (x[0] - x[1]).abs().mean() > 0.1  # but clips are cut each in its own way


def test_a_cut_is_the_cut_of_pictures():
    modality = Video()
    frames = np.random.default_rng(0).integers(0, 256, (8, 24, 40, 3), np.uint8)
    batch = batch_of([fields.pack({"frames": frames})])
    draws = Draws(5, batch.samples)
    (found,) = modality.views(batch, Views(light=1), draws, 16)
    own = draws.of_view(0)
    boxes = looks.draw_boxes(own, torch.tensor([24]), torch.tensor([40]), (0.2, 1.0))
    pixels = torch.from_numpy(frames).permute(0, 3, 1, 2)
    every = looks.Boxes(*(values.expand(8) for values in boxes))
    expected = looks.light(pixels, every, 16, modality.mean, modality.std)  # (8, 3, 16, 16)
    for t in range(16):
        error = (found[0, :, t] - expected.transpose(0, 1)[:, :].transpose(0, 1)).abs()
        assert error.flatten(1).amax(1).min() < 1e-5  # one of the clip's frames, cut so


def test_moments_go_forward_and_stay_inside():
    frames = torch.tensor([1, 5, 40])
    at = clips.moments(frames, torch.tensor([0.0, 1.0, 20.0]), torch.tensor([1.0, 4.0, 20.0]), 16)
    assert (at.diff(dim=1) >= 0).all() and (at < frames[:, None]).all() and (at >= 0).all()
    assert at[2, 0] == 20 and at[2, -1] == 39 and at[0].max() == 0
    assert torch.equal(
        clips.moments(torch.tensor([16]), torch.zeros(1), torch.tensor([16.0]), 16)[0],
        torch.arange(16),
    )


def test_light_views_are_cut_in_time_and_plain_ones_are_not():
    modality = Video()  # 16 frames, 8 a second, of 16 a second that are stored
    frames = numbered(32, 8, 8)
    batch = batch_of([fields.pack({"frames": np.ascontiguousarray(frames)}) for _ in range(64)])

    def shown(x):
        level = x[:, 0].mean((2, 3)) * modality.std[0] + modality.mean[0]
        return (level * 255 - 40) / 6  # (b, t), the numbers of frames

    plain = shown(modality.plain(batch, 8))[0]
    torch.testing.assert_close(plain, torch.arange(16.0) * 2 + 1, atol=0.1, rtol=0)
    (light,) = modality.views(batch, Views(light=1), Draws(0, batch.samples), 8)
    light = shown(light)
    span = light[:, -1] - light[:, 0]
    assert 21 < span.min() < 24 and 28 < span.max() < 31.5
    assert light[:, 0].min() < 1.5 and light[:, 0].max() > 3
    local = shown(modality.views(batch, Views(local=1), Draws(0, batch.samples), 8, 8)[0])
    assert (local[:, -1] - local[:, 0]).median() < 14


def test_mirrors_can_be_left_out():
    picture = np.zeros((1, 16, 16, 3), np.uint8)
    picture[:, :, :8] = 255
    batch = batch_of([fields.pack({"frames": picture})] * 32)
    for mirror in (True, False):
        modality = Video(mirror=mirror)
        spec = Views(light=1, share=(1.0, 1.0))
        (x,) = modality.views(batch, spec, Draws(0, batch.samples), 8)
        bright = x[:, 0, 0, :, 0].mean(1) > 0
        assert bright.all() != mirror


def test_operations_of_views_can_be_left_out():
    generator = np.random.default_rng(0)
    frames = generator.integers(0, 256, (24, 40, 48, 3), dtype=np.uint8)
    batch = batch_of([fields.pack({"frames": frames})] * 24)

    def made(names):
        spec = Views(strong=2, alike=False)
        modality = Video(without=",".join(names))
        return modality.views(batch, spec, Draws(0, batch.samples), 40)[1]

    names, plain = set(Video.operations), Video().plain(batch, 40)
    torch.testing.assert_close(made(names), plain, atol=2e-2, rtol=0.0)
    for name in names:  # each of them alone changes some of the clips
        assert (made(names - {name}) - plain).abs().max() > 0.1, name


def test_baseline_sees_motion(batch):
    modality = Video()
    found = modality.baseline(batch)
    assert found.shape == (6, 8 * 256 + 8 * 64 + 6) and found.isfinite().all()
    moved = found[:, 8 * 256 : -6]
    still = batch_of([fields.pack({"frames": np.repeat(numbered(1), 9, 0)})])
    assert modality.baseline(still)[:, 8 * 256 : -6].abs().max() == 0 and moved.max() > 0.1


def test_pictures_for_people(batch):
    modality = Video()
    shown = modality.picture(modality.plain(batch, 16))
    assert shown.dtype == torch.uint8 and shown.shape == (6, 3, 32, 32)
    sample = modality.read(modality.examples()[1], 24)
    thumbnail = modality.thumbnail(sample)
    assert thumbnail.shape == (48, 64, 3) and thumbnail.dtype == np.uint8
    frames = fields.unpack_one(sample[:, 0, 0])["frames"]
    assert np.array_equal(thumbnail[:24, :32], frames[0])
    assert np.array_equal(thumbnail[24:, 32:], frames[-1])


@pytest.mark.parametrize("name", ["SimCLR", "DINO", "MAE", "JEPA"])
def test_every_method_runs_on_clips(batch, name):
    from selfsup import methods

    torch.manual_seed(0)
    modality = Video()
    encoder = modality.encoder("vit_tiny", 32, dim=24, depth=1, heads=2, patch=8)
    assert encoder.grid == (8, 4, 4)
    settings = {
        "SimCLR": {"hidden": 16, "dim": 8},
        "DINO": {"prototypes": 16, "hidden": 16, "dim": 8, "local_views": 1},
        "MAE": {"mask": "tube", "decoder_dim": 16, "decoder_depth": 1, "decoder_heads": 2},
        "JEPA": {"predictor_dim": 24, "predictor_depth": 1, "predictor_heads": 2},
    }[name]
    method = getattr(methods, name)(encoder, **settings)
    optimizer = torch.optim.AdamW((p for p in method.parameters() if p.requires_grad), 3e-3)
    views, seen = modality.views(batch, method.views, Draws(0, batch.samples), 32), []
    for _ in range(8):
        torch.manual_seed(0)
        loss = sum(method(views, 0.5).values())
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        seen.append(loss.item())
    assert all(np.isfinite(seen)) and min(seen[4:]) < seen[0]
    for caption, shown in method.show(views).items():
        assert shown.shape == views[0].shape, caption
        assert modality.picture(shown).shape == (6, 3, 64, 64)


def test_pretraining_needs_nothing_but_the_place(tmp_path, monkeypatch):
    import selfsup

    monkeypatch.setenv("SELFSUP_CACHE", str(tmp_path / "cache"))
    (tmp_path / "clips").mkdir()
    for i in range(8):
        noise = np.random.default_rng(i).integers(0, 256, (16, 32, 32, 3), np.uint8)
        (tmp_path / "clips" / f"{i}.mp4").write_bytes(written(noise))
    small = {"name": "vit_tiny", "dim": 24, "depth": 1, "heads": 2}
    for method, told in ((None, ['name = "simclr"']), ("mae", ['mask = "tube"', "ratio = 0.9"])):
        run = selfsup.pretrain(
            tmp_path / "clips", method=method, encoder=small, steps=2, quiet=True,
            out=tmp_path / f"run-{method}",
        )  # fmt: skip
        chosen = (run.path / "resolved.toml").read_text()
        assert all(words in chosen for words in told)
        encoder = selfsup.load(run.path)
        assert encoder.encoder.grid == (8, 8, 8)  # patches of 2 frames and 4 pixels
        assert encoder.embed(tmp_path / "clips").shape == (8, 24)
