"""Words read from lips (GRID, one speaker), MAE with tubes: no gain yet.

    SELFSUP_DATA=... python -m recipes.grid_lips_mae

Wanted: the command word (bin, lay, place, set; chance 25 %) from 900 labelled clips, 100 test;
pretraining sees all 1,000, without labels. Measured: one seed, 7 minutes on one thread of a busy
machine (AMD EPYC with AVX512-BF16, two cores shared by several jobs), 258 steps of 32, 8 passes.
Linear probe 22.0 %; untrained 34.0 and 26.0 (two networks); pixels, motion + PCA 73.0. Colour 23.0,
untrained 22.0 and 25.0, pixels 48.0; digit (chance 10 %) 4.0, untrained 8.0 and 6.0, pixels 35.0.
The attentive probe on every second clip (47 test): command 19.1 %.
(The figures are of the library's probe and features on the same split, not of `evaluate` itself;
this file has not been run.)

Believed to be missing: passes over the data (VideoMAE makes 800 to 3,200), and a vector that keeps
the order of time: the mean over all places loses it, and the word is said at its own moment.
"""

import csv

import selfsup

from . import data, reproduce

WORD = "command"

if __name__ == "__main__":
    home = data("video/grid_s1_lips.tar.gz", "grid_s1_lips")
    with (home / "labels.csv").open(newline="") as file:
        lines = [
            f"video/{row['file']},{row[WORD]},{'test' if row['split'] == 'test' else 'train'}"
            for row in csv.DictReader(file)
        ]
    (home / f"{WORD}.csv").write_text("\n".join(["file,label,split", *lines]) + "\n")
    reproduce(
        "grid-lips-mae",
        lambda seed, out: selfsup.pretrain(home / "video", seed=seed, out=out),
        home / f"{WORD}.csv",
        shots=(10, 100),
        attentive=True,
        finetune=False,
    )
