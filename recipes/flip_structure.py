"""Secondary structure of proteins (FLIP, NetSurfP-2.0's set), nothing chosen: MLM, ten minutes.

    SELFSUP_DATA=... python -m recipes.flip_structure

A linear probe on the vector of each residue, 50,000 residues of 1,000 training proteins, all 75,402
resolved ones of NEW364. AMD EPYC with AVX512-BF16, 2 cores, bfloat16, next to nothing beside it;
CARP's convolutions, six blocks of 256, 15 % hidden; eleven minutes with judging.
Q3 67.2 and 66.8 % (seeds 0, 1; 5.5 and 5.1 passes), the same network untrained 54.1, one-hot
letters of 15 residues 62.2 (classes equal: 64.9, 64.5, 50.2, 59.2). With the labels of 10 proteins
64.1 and 63.6, untrained 49.2, letters 56.4; of 100 proteins 66.7 and 66.3, 53.6, 61.9: pretraining
helps (+5.0 +-0.7, +4.6 +-0.6), and the labels of 10 proteins teach it more than all teach letters.
Before, a transformer of 2 layers of 128 (ESM's kind) had 59.9 and 60.2 in ten minutes, less than
the window of letters: docs/LOG.md. Published encoders (about 81 to 85) saw tens of millions of
proteins, not ten thousand.
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
