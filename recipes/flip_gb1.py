"""Fitness of variants of GB1 (FLIP), by the encoder of recipes.flip_structure.

    SELFSUP_DATA=... python -m recipes.flip_gb1

TODO
"""

import csv
import sys
from pathlib import Path

from selfsup import variants
from selfsup.evaluate import regress

from . import data
from .flip_structure import pretrained

DOMAIN = 56  # residues of GB1; what follows in the tables is the same in all rows
SPLITS = ("two_vs_rest", "low_vs_high", "sampled")


def domain(table: Path, out: Path) -> Path:
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    with out.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(row | {"sequence": row["sequence"][:DOMAIN]} for row in rows)
    return out


if __name__ == "__main__":
    gb1 = data("proteins/flip_gb1.tar.gz", "flip_gb1")
    for seed in [int(argument) for argument in sys.argv[1:]] or [0, 1]:
        run = pretrained(seed)
        for split in SPLITS:
            print(split)
            table = domain(gb1 / f"{split}.csv", run.path / f"{split}.csv")
            print(regress.evaluate_task(run.path, table, seeds=2))
        print(variants(run.path, gb1 / "sampled.csv", wild_type=str(gb1 / "5LDE_1.fasta")))
