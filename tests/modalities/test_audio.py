"""Recordings: what is read and what is refused; log-mel against its formula; views."""

import io
import math

import numpy as np
import pytest
import soundfile
import torch

from selfsup.data import fields, open_source, open_store, sounds
from selfsup.data.outcome import BadSample, Ledger
from selfsup.errors import SelfsupError
from selfsup.method import Views
from selfsup.modalities import find
from selfsup.randomness import Draws
from selfsup.views import audio as looks

Audio = find("audio")
RATE = 16_000


def tone(seconds=0.5, rate=RATE, hertz=440.0, level=0.3):
    t = np.arange(round(seconds * rate)) / rate
    return level * np.sin(2 * np.pi * hertz * t)


def written(sound, rate=RATE, form="WAV", subtype=None):
    file = io.BytesIO()
    soundfile.write(file, sound, rate, format=form, subtype=subtype)
    return file.getvalue()


def read(raw, **settings):
    sample = fields.unpack_one(Audio(**settings).read(raw)[:, 0, 0])
    return sample["wave"].astype(np.float64) * sample["peak"][0] / 32767


def refused(raw, **settings):
    with pytest.raises(BadSample) as caught:
        Audio(**settings).read(raw)
    return caught.value.code


# ---- reading ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("form", "subtype", "error"),
    [
        ("WAV", "PCM_16", 1e-3),
        ("WAV", "PCM_24", 1e-3),
        ("WAV", "FLOAT", 1e-3),
        ("WAV", "PCM_U8", 1e-2),
        ("FLAC", "PCM_16", 1e-3),
        ("AIFF", "PCM_24", 1e-3),
        ("OGG", "VORBIS", 5e-2),
        ("MP3", "MPEG_LAYER_III", 5e-2),
    ],
)
def test_every_format_gives_the_same_sound(form, subtype, error):
    found = read(written(tone(), form=form, subtype=subtype))
    assert abs(len(found) - RATE // 2) <= 1
    assert np.abs(found[:8000] - tone()[: len(found)])[400:-400].max() < error


@pytest.mark.parametrize("rate", [8_000, 11_025, 22_050, 44_100, 48_000, 96_000, 12_345])
def test_other_rates_become_the_same_tone(rate):
    found = read(written(tone(rate=rate, hertz=1000), rate))
    assert abs(len(found) - RATE // 2) <= 2
    inner = found[800:-800]
    peak = np.abs(np.fft.rfft(inner * np.hanning(len(inner)))).argmax() * RATE / len(inner)
    assert abs(peak - 1000) < 5
    assert abs(inner.std() - 0.3 / 2**0.5) < 0.01


def test_resampling_lets_nothing_alias():
    high = tone(rate=16_000, hertz=6_000, seconds=1)
    assert np.abs(sounds.resample(high, 16_000, 8_000))[200:-200].max() < 0.01


def test_channels_are_averaged_and_cancelling_ones_are_not():
    a, b = tone(hertz=440), tone(hertz=880)
    np.testing.assert_allclose(read(written(np.stack([a, b], 1))), (a + b) / 2, atol=1e-4)
    six = np.stack([a] * 6, 1)
    np.testing.assert_allclose(read(written(six)), a, atol=1e-4)
    audio = Audio()
    opposite = fields.unpack_one(audio.read(written(np.stack([a, -a], 1)))[:, 0, 0])
    assert opposite["peak"][0] > 0.25 and sum(audio.notes.values()) == 1


def test_loud_and_quiet_keep_their_level_and_their_digits():
    for level in (1e-4, 3.0):
        sound = tone(level=level)
        found = read(written(sound, subtype="FLOAT"))
        np.testing.assert_allclose(found, sound, atol=level * 1e-4)


def test_faults_have_reasons():
    random = np.random.default_rng(0)
    whole = written(tone(), form="WAV")
    assert refused(b"") == "empty"
    assert refused(random.bytes(4000)) == "not_audio"
    assert refused(bytes(4000)) == "not_audio"
    assert refused(b"<!doctype html><html></html>") == "not_audio"
    assert refused(whole[:20]) == "truncated"
    assert refused(written(np.zeros(0))) == "no_values"
    assert refused(written(np.array([0.5]))) == "too_short"
    assert refused(written(np.full(8000, 0.2))) == "silent"
    assert refused(written(np.zeros(8000))) == "silent"
    assert len(read(written(np.zeros(8000)), keep_silent=True)) == 8000
    assert refused(written(np.full(8000, np.nan), subtype="FLOAT")) == "no_values"
    assert refused(written(tone(), 500)) == "rate"
    assert refused("a name") == "not_audio"


@pytest.mark.parametrize("form", ["WAV", "FLAC", "OGG", "MP3", "AIFF"])
@pytest.mark.parametrize("share", [0.9, 0.5, 0.1])
def test_files_that_end_early_are_refused_or_kept_on_demand(form, share):
    noise = tone(2) + 0.05 * np.random.default_rng(0).standard_normal(2 * RATE)
    raw = written(noise, form=form)
    cut = raw[: int(share * len(raw))]
    assert refused(cut) in ("truncated", "undecodable", "no_values", "too_short")
    if form in ("WAV", "FLAC") and share > 0.4:
        kept = read(cut, keep_truncated=True)
        assert 0.3 * share < len(kept) / len(noise) <= share + 0.01


def test_a_pipe_that_did_not_know_its_length_and_trailing_chunks_are_fine():
    raw = bytearray(written(tone()))
    at = raw.index(b"data") + 4
    raw[at : at + 4] = b"\xff\xff\xff\xff"
    assert len(read(bytes(raw))) == RATE // 2
    assert len(read(written(tone()) + b"_PMX" + (500).to_bytes(4, "little") + b"<" * 500)) == 8000


def test_some_bad_values_are_silence_and_noted():
    sound = tone()
    sound[100], sound[200] = np.nan, np.inf
    audio = Audio()
    sample = fields.unpack_one(audio.read(written(sound, subtype="FLOAT"))[:, 0, 0])
    assert abs(sample["peak"][0] - 0.3) < 0.01 and audio.notes.total() == 1
    clipped = Audio()
    clipped.read(written(np.clip(tone(level=3), -1, 1)))
    assert clipped.notes["clipped recordings"] == 1


def test_long_recordings_give_their_middle():
    t = np.arange(3 * RATE) / RATE
    found = read(written(0.2 * np.sign(np.sin(2 * np.pi * 50 * t)) * t), longest=1.0)
    assert len(found) == RATE
    assert abs(np.abs(found).mean() - 0.2 * 1.5) < 0.02


def test_arrays_are_taken_as_they_are():
    sound = tone()
    np.testing.assert_allclose(read(sound), sound, atol=1e-4)
    np.testing.assert_allclose(read(np.stack([sound, sound])), sound, atol=1e-4)
    np.testing.assert_allclose(read((sound * 32767).astype(np.int16)), sound, atol=1e-3)
    assert refused(np.zeros((3, 4, 5))) == "not_audio"


def test_a_folder_with_faults_reconciles(tmp_path):
    for i in range(8):
        (tmp_path / f"{i}.wav").write_bytes(written(tone(hertz=200 + 50 * i), 8000))
    (tmp_path / "wrong.wav").write_bytes(written(tone(), form="OGG"))  # a wrong extension is fine
    (tmp_path / "empty.wav").write_bytes(b"")
    (tmp_path / "text.mp3").write_bytes(b"hello")
    source, ledger, audio = open_source(tmp_path), Ledger(), Audio()
    assert source.content == "audio"
    audio.learn(source)
    assert audio.rate == RATE  # the highest that is there, up to 16 kHz
    with open_store(source, audio, 32, cache=tmp_path.parent / "cache", ledger=ledger) as store:
        batch = store.batch(np.arange(len(source)))
        assert len(batch) == 9 and ledger.counts() == {"empty": 1, "not_audio": 1}
        assert store.counts() == {"found": 11, "used": 9, "skipped": 2}
        assert audio.plain(batch, 32).isfinite().all()


def test_state_is_restored_and_checked(tmp_path):
    (tmp_path / "a.wav").write_bytes(written(tone(), 8000))
    audio, twin = Audio(), Audio()
    audio.learn(open_source(tmp_path))
    assert audio.state["rate"] == 8000
    twin.restore(audio.state)
    assert twin.state == audio.state and twin.rules == audio.rules
    for wrong in ({"rate": 0, "mean": 0.0, "std": 1.0}, {"rate": 8000}, {"rate": "x"}):
        with pytest.raises(ValueError, match="state"):
            Audio().restore(wrong)


# ---- log-mel -----------------------------------------------------------------------------------


def test_mel_bank_against_its_formula():
    bank = looks.mel_bank(20, RATE)
    size = looks.transform_size(RATE)
    top = 2595 * math.log10(1 + RATE / 2 / 700)
    corners = [700 * (10 ** (top * i / 21 / 2595) - 1) for i in range(22)]
    for m in range(20):
        low, centre, high = corners[m : m + 3]
        for k in range(size // 2 + 1):
            f = k * RATE / size
            expected = 0.0
            if low < f <= centre:
                expected = (f - low) / (centre - low)
            elif centre < f < high:
                expected = (high - f) / (high - centre)
            assert abs(bank[m, k].item() - expected) < 1e-5
    for rate in (8_000, 16_000, 44_100):
        assert (looks.mel_bank(64, rate).sum(1) > 0).all(), "a band without a bin is always silent"


def test_log_mel_against_a_slow_transform():
    torch.manual_seed(0)
    rate, hop, mels, frames = 8_000, 80, 16, 5
    margin = looks.margin(rate, hop)
    wave = torch.randn(1, frames * hop + 2 * margin, dtype=torch.float64)
    size, length = looks.transform_size(rate), looks.window_samples(rate)
    found = looks.mel_power(wave.float(), rate, hop, mels)
    n = torch.arange(length, dtype=torch.float64)
    window = 0.5 - 0.5 * torch.cos(2 * math.pi * n / length)
    left = (size - length) // 2
    for t in range(frames):
        part = wave[0, t * hop + left : t * hop + left + length] * window
        for m in range(mels):
            expected = 0.0
            for k in range(size // 2 + 1):
                angle = 2 * math.pi * k * n / size
                re, im = (part * angle.cos()).sum(), (part * angle.sin()).sum()
                expected += looks.mel_bank(mels, rate)[m, k] * (re**2 + im**2)
            expected = expected / window.sum() ** 2
            assert abs(found[0, m, t].item() / expected.item() - 1) < 1e-4


def test_a_tone_lies_in_its_band_at_its_level():
    audio = Audio()
    wave = torch.from_numpy(tone(1.0, hertz=1000, level=1.0)).float()
    power = looks.mel_power(wave[None], RATE, audio.step, 64)[0, :, 20]
    mel = 2595 * math.log10(1 + 1000 / 700)
    expected = mel / (2595 * math.log10(1 + 8000 / 700)) * 65 - 1
    assert abs(power.argmax().item() - expected) <= 1
    assert 0.1 < power.max() < 0.5  # a quarter in the middle bin, and its neighbours' part


# ---- views -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def batch(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sounds")
    random = np.random.default_rng(0)
    for i in range(8):
        sound = tone(0.2 + 0.1 * i, hertz=200 + 100 * i) + 0.01 * random.standard_normal(
            round((0.2 + 0.1 * i) * RATE)
        )
        (folder / f"{i}.wav").write_bytes(written(sound))
    with open_store(open_source(folder), Audio(), 48, cache=folder.parent / "cache") as store:
        yield store.batch(np.arange(8))


@pytest.mark.parametrize("form", ["mel", "wave"])
def test_views_are_finite_differ_and_depend_on_the_sample_alone(batch, form):
    from dataclasses import replace

    audio = Audio(form=form)
    spec = Views(light=1, strong=2, local=1)
    views = audio.views(batch, spec, Draws(0, batch.samples), 48)
    shapes = {"mel": [(64, 48)] * 3 + [(64, 24)], "wave": [(7680,)] * 3 + [(3840,)]}[form]
    assert [tuple(v.shape) for v in views] == [(8, 1, *shape) for shape in shapes]
    assert all(v.isfinite().all() for v in views)
    assert (views[1] - views[2]).abs().mean() > 0.05
    rows = torch.tensor([5, 2])
    part = replace(
        batch, pixels=batch.pixels[rows], samples=batch.samples[rows],
        extents=batch.extents[rows], indices=batch.indices[rows],
    )  # fmt: skip
    again = audio.views(part, spec, Draws(0, part.samples), 48)
    for a, b in zip(views, again, strict=True):
        torch.testing.assert_close(a[rows], b, atol=1e-5, rtol=1e-5)
    other = audio.views(batch, spec, Draws(1, batch.samples), 48)
    assert not torch.equal(other[0], views[0])


@pytest.mark.parametrize("form", ["mel", "wave"])
def test_operations_of_views_can_be_left_out(batch, form):
    def made(names):
        audio = Audio(form=form, without=",".join(names))
        return audio.views(batch, Views(strong=1), Draws(0, batch.samples), 24)[0]

    names = set(Audio.operations)
    plain = Audio(form=form).plain(batch, 24)
    torch.testing.assert_close(made(names), plain, atol=1e-3, rtol=1e-3)
    for name in names - ({"pitch"} if form == "wave" else set()):  # each alone changes a view
        assert (made(names - {name}) - plain).abs().mean() > 0.01, name
    with pytest.raises(SelfsupError, match="colour"):
        Audio(without="colour")


def test_light_views_show_a_part_of_the_recording_as_it_is(batch):
    audio = Audio(form="wave")
    (view,) = audio.views(batch, Views(light=1), Draws(0, batch.samples), 10)
    wave = fields.unpack(batch)[7]["wave"].astype(np.float32)
    x = view[7, 0].numpy()
    best = max(np.corrcoef(x, wave[s : s + len(x)])[0, 1] for s in range(0, len(wave) - len(x), 1))
    assert best > 0.999


def test_plain_is_the_middle_and_short_recordings_lie_in_the_middle(batch):
    audio = Audio(form="wave")
    x = audio.plain(batch, 60)[0, 0]  # 0.2 s of 0.6 s
    assert (x[:3000].abs().max() < 0.05) and (x[-3000:].abs().max() < 0.05)
    assert x[4000:5600].std() > 1
    torch.testing.assert_close(x.mean(), torch.tensor(0.0), atol=1e-5, rtol=0)
    mel = Audio().plain(batch, 60)
    assert mel.shape == (8, 1, 64, 60) and mel[0, 0, :, 30].mean() > mel[0, 0, :, 2].mean() + 1


def test_masks_cover_what_they_say_and_nothing_else():
    look = looks.draw_look(Draws(0, torch.arange(4)))
    picture = torch.ones(4, 20, 30)
    hidden = looks.masked(picture, look) == 0
    for b in range(4):
        low, high, begin, end = look.holes[b].tolist()
        for m in range(20):
            for t in range(30):
                inside = low <= (m + 0.5) / 20 < high or begin <= (t + 0.5) / 30 < end
                assert hidden[b, m, t] == inside


def test_resizing_everything_without_a_look_changes_nothing():
    torch.manual_seed(0)
    x = torch.randn(3, 8, 12)
    found = looks.resized(x, torch.zeros(3), torch.full((3,), 12.0), 12)
    torch.testing.assert_close(found, x, atol=1e-5, rtol=1e-5)


def test_mixed_against_a_slow_reading():
    x = torch.randn(5, 3, 4) * 3 - 9
    share = torch.tensor([0.0, 0.1, 0.2, 0.4, 0.3])
    found = looks.mixed(x, share, 3.5)
    for i, j in ((0, 1), (1, 0), (2, 3), (3, 2)):
        a = share[i]
        expected = ((1 - a) * (x[i] / 3.5).exp() + a * (x[j] / 3.5).exp()).log() * 3.5
        torch.testing.assert_close(found[i], expected, atol=1e-5, rtol=1e-5)
    assert torch.equal(found[4], x[4])
    halves = torch.cat([looks.mixed(x[:2], share[:2], 3.5), looks.mixed(x[2:], share[2:], 3.5)])
    torch.testing.assert_close(found, halves)  # two ranks see what one does


def test_strong_views_hold_a_share_of_the_neighbour(batch):
    spec = Views(light=1, strong=1)
    alone = Audio().views(batch, spec, Draws(0, batch.samples), 48)
    heard = Audio(mix=0.4).views(batch, spec, Draws(0, batch.samples), 48)
    assert torch.equal(alone[0], heard[0])  # light views stay as they are
    assert ((alone[1] - heard[1]).abs().flatten(1).mean(1) > 1e-3).all()
    for settings in ({"mix": 1.0}, {"mix": -0.1}, {"mix": 0.4, "form": "wave"}):
        with pytest.raises(SelfsupError, match="E201"):
            Audio(**settings)


def test_noise_has_the_level_that_was_drawn():
    n = 64
    look = looks.draw_look(Draws(0, torch.arange(n)))
    flat = look._replace(
        gain=torch.zeros(n), tilt=torch.zeros(n), ripple=torch.zeros(n, looks.WAVES),
        noise=torch.full((n,), 10.0), colour=torch.zeros(n),
    )  # fmt: skip
    power = looks.disturbed(torch.ones(n, 16, 50), flat, Draws(0, torch.arange(n)))
    assert abs((power - 1).mean().item() - 0.1) < 0.005
    waves = torch.sin(torch.arange(4000) * 0.1).expand(n, -1)
    flat = flat._replace(holes=torch.zeros(n, 4), tilt=torch.full((n,), 1e-6))
    noisy = looks.disturbed_wave(waves, flat, Draws(0, torch.arange(n)))
    ratio = (noisy - waves).square().mean() / waves.square().mean()
    assert abs(ratio.item() - 0.1) < 0.01


def test_baseline_does_not_depend_on_padding_or_level_offsets(batch):
    audio = Audio()
    whole = audio.baseline(batch)
    assert whole.shape == (8, 81) and whole.isfinite().all()
    from dataclasses import replace

    longest = int(batch.extents[2, 0])
    alone = replace(
        batch, pixels=batch.pixels[2:3, :, :longest], samples=batch.samples[2:3],
        extents=None, indices=batch.indices[2:3],
    )  # fmt: skip
    torch.testing.assert_close(audio.baseline(alone)[0], whole[2])


def test_pictures_for_people(batch):
    for form in ("mel", "wave"):
        audio = Audio(form=form)
        shown = audio.picture(audio.plain(batch, 32))
        assert shown.dtype == torch.uint8 and shown.shape[:2] == (8, 3)
        assert shown.float().std() > 10


@pytest.mark.parametrize("name", ["SimCLR", "DINO", "MAE", "JEPA", "Wav2Vec2", "Data2Vec"])
@pytest.mark.parametrize("form", ["mel", "wave"])
def test_every_method_runs_on_sound(batch, form, name):
    from selfsup import methods

    torch.manual_seed(0)
    audio = Audio(form=form)
    small = {"dim": 24, "depth": 1, "heads": 2}
    encoder = audio.encoder("mel_tiny" if form == "mel" else "wave_tiny", 48, **small)
    settings = {
        "SimCLR": {"hidden": 16, "dim": 8},
        "DINO": {"prototypes": 16, "hidden": 16, "dim": 8, "local_views": 1},
        "MAE": {"decoder_dim": 16, "decoder_depth": 1, "decoder_heads": 2},
        "JEPA": {"predictor_dim": 16, "predictor_depth": 1, "predictor_heads": 2},
        "Wav2Vec2": {"codes": 8, "dim": 16, "span": 2},
        "Data2Vec": {"layers": 1},
    }[name]
    method = getattr(methods, name)(encoder, **settings)
    optimizer = torch.optim.AdamW((p for p in method.parameters() if p.requires_grad), 1e-3)
    seen = []
    for _ in range(8):
        views = audio.views(batch, method.views, Draws(0, batch.samples), 48)
        torch.manual_seed(0)
        loss = sum(method(views, 0.5).values())
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        seen.append(loss.item())
    # DINO's centre is zero at the first step, and its loss there is another one
    assert all(np.isfinite(seen)) and min(seen[4:]) < seen[1 if name == "DINO" else 0]
    for caption, shown in method.show(views).items():
        if hasattr(shown, "shape"):  # groups of places have a grid
            assert shown.shape == views[0].shape, caption
            assert audio.picture(shown).shape[1] == 3


def test_the_documented_example_runs():
    from pathlib import Path

    page = Path(__file__).parents[2] / "docs" / "modalities" / "audio.md"
    code = page.read_text().split("```python\n")[1].split("```")[0]
    exec(compile(code, str(page), "exec"), {})  # noqa: S102
