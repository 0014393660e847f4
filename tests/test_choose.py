"""What a run takes over from the one that it starts from, and that its data are opened so."""

from importlib import import_module

import numpy as np
import pytest
import soundfile

import selfsup
from selfsup import settings
from selfsup.pretrain import start
from selfsup.pretrain.choose import source_of
from selfsup.settings import Given

TINY = {
    "method": {"name": "mae", "decoder_dim": 16, "decoder_depth": 1, "decoder_heads": 2},
    "encoder": {"name": "mel_tiny", "dim": 16, "depth": 1, "heads": 2},
    "batch": 4,
    "quiet": True,
}


def given(**values):
    return {key.replace("__", "."): Given(value, "argument") for key, value in values.items()}


@pytest.fixture
def sounds(tmp_path, monkeypatch):
    monkeypatch.setenv("SELFSUP_CACHE", str(tmp_path / "cache"))
    (tmp_path / "data").mkdir()
    for i in range(4):
        tone = 0.3 * np.sin(np.arange(4000) * (0.1 + 0.1 * i))
        soundfile.write(tmp_path / "data" / f"{i}.wav", tone, 1000)
    return tmp_path / "data"


def test_long_files_are_cut_as_in_the_run_that_is_the_start(sounds, tmp_path, monkeypatch):
    a = selfsup.pretrain(
        sounds, modality={"name": "audio", "mels": 16, "longest": 1.0}, resolution=32, steps=1,
        out=tmp_path / "a", **TINY,
    )  # fmt: skip
    begun = given(data__path=str(sounds), start_from=str(a.path))
    source = source_of(begun, None, None)
    assert len(source) == 16 and source.name(1) == "0.wav@1.0s"
    small = {"method": TINY["method"], "batch": 4, "quiet": True}
    b = selfsup.pretrain(sounds, from_run=a, out=tmp_path / "b", steps=1, **small)
    assert settings.load(b.path / "resolved.toml")["modality.longest"] == 1.0
    for name in ("a", "b"):  # what the run has stored goes on
        kept = settings.load(tmp_path / name / "resolved.toml")
        assert len(source_of({}, kept, None)) == 16

    choose, heard = import_module("selfsup.pretrain.choose"), []
    learned = choose.learned
    monkeypatch.setattr(choose, "learned", lambda *of: heard.append(learned(*of)) or heard[0])
    other = begun | given(modality__longest=2.0, train__steps=1, train__batch=4)
    assert len(source_of(other, None, None)) == 8
    told = start(other, print_config=True).result
    assert told["modality.longest"]["value"] == heard[0].longest == 2.0 and heard[0].mels == 16


def test_columns_are_parts_as_in_the_run_that_is_the_start(tmp_path):
    lines = [f"sentence {i} of some\tits other words {i}" for i in range(8)]
    (tmp_path / "t.tsv").write_text("\n".join(["said\trewrite", *lines]))
    (tmp_path / "a" / "checkpoints").mkdir(parents=True)
    known = given(
        data__path=str(tmp_path / "t.tsv"), data__resolution=16, modality__name="pairs",
        modality__columns=["said", "rewrite"], method__name="clip", train__batch=4, train__steps=1,
        encoder__name="towers_micro", optim__lr=1e-3,
    )  # fmt: skip
    (tmp_path / "a" / "resolved.toml").write_text(settings.resolve(known, ()).to_toml())
    begun = given(data__path=str(tmp_path / "t.tsv"), start_from=str(tmp_path / "a"))
    assert source_of(begun, None, None).parts == {"said": "text", "rewrite": "text"}
    assert source_of(begun | given(modality__name="text"), None, None).content == "text"
