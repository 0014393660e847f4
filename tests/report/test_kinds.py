"""What a report shows of sounds and of clips: pictures in which a person sees what was heard."""

import base64
import io
import json
import re

import numpy as np
import pytest
import soundfile
from PIL import Image

import selfsup
from selfsup.report import report

METHOD = {"name": "mae", "decoder_dim": 16, "decoder_depth": 1, "decoder_heads": 2}
TINY = {"dim": 16, "depth": 1, "heads": 2}


@pytest.fixture
def made(tmp_path, monkeypatch):
    """The page of a run of two steps."""
    monkeypatch.setenv("SELFSUP_CACHE", str(tmp_path / "cache"))

    def make(encoder, modality, size, method=METHOD):
        run = selfsup.pretrain(
            tmp_path / "data", method=method, encoder={"name": encoder, **TINY},
            modality=modality, steps=2, batch=8, resolution=size, out=tmp_path / "run", quiet=True,
        )  # fmt: skip
        return report(run).read_text()

    return make


def pictures(page, words):
    """Those whose name fits, as numbers (h, w, 3)."""
    found = re.findall(r'<img src="data:image/webp;base64,([^"]+)" alt="([^"]*)"', page)
    return [
        np.asarray(Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB"), float)
        for data, alt in found
        if re.search(words, alt)
    ]


SECTIONS = ("Map of the data", "Nearest neighbours", "What the network saw", "Reconstructions")


def test_sounds_are_seen_as_spectrograms(made, tmp_path):
    """A low tone is a line near the bottom, a high one near the top; what is hidden is gone."""
    t = np.arange(8000) / 16_000
    for i in range(12):
        name, hertz = ("low", 300 + 10 * i) if i % 2 else ("high", 4000 + 10 * i)
        (tmp_path / "data" / name).mkdir(parents=True, exist_ok=True)
        noise = 0.001 * np.random.default_rng(i).normal(size=len(t))
        sound = 0.3 * np.sin(2 * np.pi * hertz * t) + noise
        soundfile.write(tmp_path / "data" / name / f"{i}.wav", sound, 16_000)
    page = made("mel_tiny", {"name": "audio", "mels": 32}, 32)
    for said in (*SECTIONS, "Original", "What the encoder sees", "low/", "high/"):
        assert said in page, said

    def height(picture):
        return picture.sum(2).mean(1).argmax() / len(picture)

    low, high = (pictures(page, rf"{name}/\d+\.wav: whole") for name in ("low", "high"))
    assert low and high
    assert min(map(height, low)) > 0.6 and max(map(height, high)) < 0.4
    (seen, whole) = (
        pictures(page, rf"wav: {what}") for what in ("What the encoder sees", "Original")
    )
    assert len(seen) == len(whole) >= 4
    assert all(a.std() < b.std() for a, b in zip(seen, whole, strict=True))


def test_clips_are_seen_as_moments(made, tmp_path):
    """Four moments like lines of text: a clip that grows brighter does so on the page."""
    for i in range(10):
        folder = tmp_path / "data" / f"clip{i}"
        folder.mkdir(parents=True)
        for frame in range(8):
            level = 30 + 25 * frame + i
            pixels = np.full((16, 16, 3), level, np.uint8)
            Image.fromarray(pixels).save(folder / f"frame_{frame}.png")
    page = made("vit_tiny", {"name": "video", "frames": 8, "mirror": False}, 16)
    for said in (*SECTIONS, "Original", "What the encoder sees", "clip3"):
        assert said in page, said
    whole = pictures(page, r"clip\d+: whole")
    assert len(whole) >= 4
    for picture in whole:
        side = len(picture) // 2
        moments = [picture[a : a + side, b : b + side].mean() for a in (0, side) for b in (0, side)]
        assert moments == sorted(moments) and moments[3] - moments[0] > 60
    strips = re.findall(
        r'<ul class="strip" aria-label="Moments like one of (clip\d)">(.*?)</ul>', page
    )
    assert len(strips) == 4 and "A clip has 4 moments" in page
    for clip, strip in strips:
        names = re.findall(r'alt="(clip\d), moment (\d)(?:, cosine (-?[\d.]+))?"', strip)
        assert (
            names[0] == (clip, "3", "") and len({name for name, _, _ in names}) == len(names) == 7
        )
        near = [float(cosine) for _, _, cosine in names[1:]]
        assert near == sorted(near, reverse=True) and -1 <= near[-1] <= near[0] <= 1
    (seen,) = (pictures(page, r"clip\d+: What the encoder sees"),)
    assert seen and all(picture.std() > 1 for picture in seen)


def test_text_goes_on_from_what_was_not_trained_on(made, tmp_path):
    """Where perplexity was measured on other text, that is what is shown."""
    for name, word in (("data", "mountain"), ("new", "<ocean>")):
        (tmp_path / name).mkdir()
        for i in range(8):
            (tmp_path / name / f"{i}.txt").write_text(
                " ".join(f"{word} {i + j}" for j in range(40))
            )
    page = made("gpt_micro", {"name": "text", "tokens": "bytes"}, 64, {"name": "clm"})
    assert "samples of the training data" in page and "mountain 1" in page
    source = selfsup.data.open_source(tmp_path / "new")
    told = {"data": {"place": source.place, "fingerprint": source.fingerprint()}}
    (tmp_path / "run" / "evaluation-perplexity.json").write_text(json.dumps(told))
    page = report(tmp_path / "run").read_text()
    assert "samples of the text that was not trained on" in page
    after = page[page.index("From the middle on") :]
    assert "as the network goes on" in after and "&lt;ocean&gt;" in after
    assert "mountain 1" not in page and "<ocean>" not in page
    source = selfsup.data.open_source(tmp_path / "data")  # or on what was trained on after all
    told = {"data": {"place": source.place, "fingerprint": source.fingerprint()}}
    (tmp_path / "run" / "evaluation-perplexity.json").write_text(json.dumps(told))
    page = report(tmp_path / "run").read_text()
    assert "samples of the training data" in page and "not trained on" not in page
