"""Noto emoji and their names, CLIP: 400 steps of 128 at 48 pixels.

    SELFSUP_DATA=... python -m recipes.noto_emoji_clip

1,296 drawings with a name and a line of keywords each teach, 313 test (the split of the data).
"""

import sys
from pathlib import Path

import selfsup
from selfsup.evaluate.pairing import evaluate_task

from . import data

if __name__ == "__main__":
    home = data("imagetext/noto_emoji72.tar.gz", "noto_emoji72")
    for seed in [int(argument) for argument in sys.argv[1:]] or [0, 1]:
        run = selfsup.pretrain(
            home / "emoji.csv",
            method="clip",
            encoder="towers_micro",
            resolution=48,
            steps=400,
            optim={"lr": 2e-3},
            seed=seed,
            out=Path("runs") / f"noto-emoji-clip-{seed}",
        )
        print(evaluate_task(run.path, home / "emoji.csv", seed=seed))
        run.report()
