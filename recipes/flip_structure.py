"""Secondary structure of proteins (FLIP, NetSurfP-2.0's set), MLM, 7 minutes of one core.

    SELFSUP_DATA=... python -m recipes.flip_structure

A linear probe on the vector of each residue, 50,000 residues of 1,000 training proteins, all 75,402
resolved ones of NEW364. AMD EPYC with AVX512-BF16, one thread, bfloat16, 7 minutes on a machine so
busy that seed 0 came to 148 steps of 32 and seed 1 to 654 (20,928 crops).
Q3: 50.8 (seed 0), 55.5 (seed 1); the same network untrained 50.9, one-hot letters of 15 residues
62.2 (classes equal: 47.6, 52.7; 47.5; 59.2). The loss ended at about 2.67, where the
frequencies of residues have 2.90.
So pretraining helps once it has some hundred steps, and is not worth a window of letters within
minutes: published encoders (about 81 to 85) saw tens of millions of proteins, not ten thousand.
"""

import sys
from pathlib import Path

import selfsup
from selfsup.evaluate import tokens

from . import data, judged


def pretrained(seed: int) -> selfsup.Run:
    """On the sequences alone, those of the test part among them; also for recipes.flip_gb1."""
    flip = data("proteins/flip_secondary_structure.tar.gz", "flip_secondary_structure")
    out = Path("runs") / f"flip-mlm-{seed}"
    return selfsup.pretrain(flip / "sequences.fasta", seed=seed, out=out)


if __name__ == "__main__":
    flip = data("proteins/flip_secondary_structure.tar.gz", "flip_secondary_structure")
    for seed in [int(argument) for argument in sys.argv[1:]] or [0, 1]:
        run = pretrained(seed)
        told = tokens.evaluate_task(
            run.path, flip / "sequences.fasta", labels=flip / "sampled.fasta"
        )
        judged("flip-structure-mlm", seed, run, told)
