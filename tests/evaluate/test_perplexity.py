"""Perplexity: what is measured does not depend on whether it is kept, nor on the window."""

import subprocess
import sys

import numpy as np
import pytest

import selfsup
from selfsup.errors import SelfsupError
from selfsup.load import Card, LoadedEncoder, rebuild
from selfsup.modalities import find

WORDS = "red green blue cat dog bird sees likes hears one two three tall small old new".split()  # noqa: SIM905
SMALL = {"dim": 16, "heads": 2, "depth": 1}


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    folder = tmp_path_factory.mktemp("perplexity")
    draws = np.random.default_rng(0)
    for name, count in (("train", 400), ("new", 100)):
        lines = [" ".join(draws.choice(WORDS, 8)) for _ in range(count)]
        (folder / f"{name}.txt").write_text("\n".join(lines) + "\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SELFSUP_CACHE", str(folder / "cache"))
        yield folder


def pretrained(home, out, data, method, **settings):
    name = "gpt_micro" if method == "clm" else "bert_micro"
    if "from_run" not in settings:
        settings |= {"method": method, "encoder": {"name": name, **SMALL}}
    return selfsup.pretrain(
        home / f"{data}.txt", steps=2, batch=4, out=home / out, quiet=True, **settings
    )


def test_what_is_not_kept_is_measured_all_the_same(home):
    run = pretrained(home, "mlm", "train", "mlm", resolution=16)
    told = selfsup.evaluate(run, home / "new.txt", seeds=1, write=False).to_json()
    assert told["task"] == "perplexity"  # a loaded encoder has no head for hidden tokens
    assert not list(run.path.glob("evaluation*.json"))
    with pytest.raises(SelfsupError, match="E202"):
        selfsup.evaluate(selfsup.load(run), home / "new.txt", task="perplexity")


def test_residues_are_no_text(home):
    modality = find("protein")()
    card = Card("protein", "gpt_micro", 16, SMALL, modality.mean, modality.std, "clm")
    with pytest.raises(SelfsupError, match=r"E202.*\n.*gpt_micro for protein"):
        selfsup.evaluate(
            LoadedEncoder(rebuild(card, modality, 0), card, modality),
            home / "new.txt",
            task="perplexity",
        )


def test_runs_of_another_window_are_compared_where_the_window_hides_nothing(home):
    run = pretrained(home, "clm", "train", "clm", resolution=32)
    further = pretrained(home, "further", "new", "clm", from_run=run, resolution=16)
    assert (selfsup.load(run).size, selfsup.load(further).size) == (32, 16)
    found = selfsup.evaluate(further, home / "new.txt", seeds=1, write=False).to_json()
    assert len(found["scores"]) == 4  # two of n-grams, which need the run's text
    assert [row["text"] for row in found["adapted"]["texts"]] == ["new", "old"]
    assert not list(further.path.glob("evaluation*.json"))
    kept = selfsup.evaluate(further, home / "new.txt", seeds=1).to_json()
    assert (further.path / "evaluation-perplexity.json").exists()
    assert kept["scores"] == found["scores"] and kept["adapted"] == found["adapted"]


MANY_WINDOWS = """
from types import SimpleNamespace

import numpy as np
import psutil
import torch

from selfsup import machine
from selfsup.evaluate.perplexity import losses

machine.keep_freed_memory()  # as training does
draws = np.random.default_rng(0)
streams = [draws.integers(0, 4096, n) for n in draws.integers(4, 60, 6400)]
network = SimpleNamespace(
    features=lambda x: x.values[..., None].float(), logits=lambda s: s.expand(-1, 4096).clone()
)
before = psutil.Process().memory_info().rss
losses(SimpleNamespace(encoder=network, device=torch.device("cpu")), streams, 64)
print((psutil.Process().memory_info().rss - before) >> 20)
"""


def test_memory_does_not_fall_to_pieces_after_training():
    """It grows by 130 to 180 MiB, and by 700 where each batch's results stay between its blocks."""
    done = subprocess.run([sys.executable, "-c", MANY_WINDOWS], capture_output=True, check=True)
    assert int(done.stdout) < 400
