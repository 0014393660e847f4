"""Tiny Shakespeare by characters, CLM: nanoGPT's documented case for processors, by another recipe.

    SELFSUP_DATA=... python -m recipes.tinyshakespeare

4 layers, 128 wide, context 64, as there (0.79 M weights against 0.80 M); validation loss on the
last 10 % of the plays, of which nanoGPT documents 1.88 after 2,000 steps of 12 x 64 characters.
Here 300 steps of 32 x 64: rotary positions, gated units, Muon, a cosine to zero, bfloat16.

One core of a busy Intel Xeon with AMX. Validation loss: 1.834 (seed 0) and 1.830 (seed 1).
35 s of processor time for everything, from the file to the evaluation; a network of nanoGPT's form
and recipe in float32 made 14,200 characters a second of processor time in the same minutes, so that
its 2,000 steps take 108 s. 5-grams of bytes are ahead of both: 2.41 bits a byte against 2.65.
"""

import sys
from pathlib import Path

from platformdirs import user_cache_path

import selfsup
from selfsup.evaluate.perplexity import evaluate_task

from . import as_given, judged

CONTEXT, STEPS = 64, 300
SETTINGS = {
    "method": "clm",
    "modality": {"name": "text", "tokens": "characters"},
    "encoder": "gpt_micro",
    "resolution": CONTEXT + 1,  # the last of them is only named
    "batch": 32,
    "optim": {"name": "muon", "lr": 8e-3, "per": 32, "final": 0.0},
}


def parts() -> tuple[Path, Path]:
    """The first 90 % of the plays, and the rest, as files."""
    plays = as_given("text/tinyshakespeare.txt").read_text("utf-8")
    home = user_cache_path("selfsup") / "recipes" / "tinyshakespeare"
    home.mkdir(parents=True, exist_ok=True)
    cut = int(0.9 * len(plays))
    (home / "train.txt").write_text(plays[:cut], "utf-8")
    (home / "new.txt").write_text(plays[cut:], "utf-8")
    return home / "train.txt", home / "new.txt"


def main() -> None:
    train, new = parts()
    for seed in [int(argument) for argument in sys.argv[1:]] or [0, 1]:
        out = Path("runs") / f"tinyshakespeare-{seed}"
        run = selfsup.pretrain(train, **SETTINGS, steps=STEPS, seed=seed, out=out)
        judged("tinyshakespeare-clm", seed, run, evaluate_task(run.path, new, seed=seed))


if __name__ == "__main__":
    main()
