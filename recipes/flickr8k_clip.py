"""Flickr8k (1,000 photographs with five captions each), CLIP: 300 steps of 128 at 48 pixels.

    SELFSUP_DATA=... python -m recipes.flickr8k_clip

836 photographs teach, 164 test with their 820 captions (the split of the data).
"""

import sys
from pathlib import Path

import selfsup
from selfsup.evaluate.pairing import evaluate_task

from . import data

if __name__ == "__main__":
    home = data("imagetext/flickr8k_1k.tar.gz", "flickr8k_1k")
    for seed in [int(argument) for argument in sys.argv[1:]] or [0, 1]:
        run = selfsup.pretrain(
            home / "captions.csv",
            method="clip",
            encoder="towers_micro",
            resolution=48,
            steps=300,
            optim={"lr": 2e-3},
            seed=seed,
            out=Path("runs") / f"flickr8k-clip-{seed}",
        )
        print(evaluate_task(run.path, home / "captions.csv", seed=seed))
        run.report()
