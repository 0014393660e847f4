"""Secondary structure of proteins (FLIP, NetSurfP-2.0's set), MLM, 7 minutes of one core.

    SELFSUP_DATA=... python -m recipes.flip_structure

TODO
"""

import sys
from pathlib import Path

import selfsup
from selfsup.evaluate import tokens

from . import data


def pretrained(seed: int) -> selfsup.Run:
    """On the sequences alone, those of the test part among them; also for recipes.flip_gb1."""
    return selfsup.pretrain(
        data("proteins/flip_secondary_structure.tar.gz", "flip_secondary_structure")
        / "sequences.fasta",
        method="mlm",
        encoder={"name": "bert_micro", "depth": 2, "rescale": True},
        resolution=256,
        batch=32,
        steps=650,
        optim={"name": "muon", "lr": 1.6e-2, "final": 0.0},
        seed=seed,
        out=Path("runs") / f"flip-mlm-{seed}",
    )


if __name__ == "__main__":
    flip = data("proteins/flip_secondary_structure.tar.gz", "flip_secondary_structure")
    for seed in [int(argument) for argument in sys.argv[1:]] or [0, 1]:
        run = pretrained(seed)
        print(
            tokens.evaluate_task(run.path, flip / "sequences.fasta", labels=flip / "sampled.fasta")
        )
