"""Chest X-rays (normal, pneumonia) at 128 px, nothing chosen.

    SELFSUP_DATA=... python -m recipes.chest_xray

Seed 0, AMD EPYC (AVX512-BF16), 2 cores, 15 minutes of training and 7 of judging, bfloat16: SimCLR
on a ResNet-18 (width 0.25, stem 2) at 64 px, 346,112 samples seen. Two classes: with all 2,117
labels linear probe 94.4 (92.4 to 96.1), pixels + PCA 93.8, untrained 89.7: nothing left to gain.
With 1, 10, 100 labels a class 73.7, 90.1, 93.0; pixels + PCA 59.0, 81.9, 91.3; the same network
from scratch 63.6, 76.6, 91.7. Seed 1, more beside it, 337,152 samples: 95.2 (+-1.8); pixels
+ PCA 93.7, untrained 90.1; few labels 74.2, 88.7, 92.8; pixels + PCA 57.3, 82.4, 91.5; from scratch
64.8, 77.3, 90.8. Tests ran beside the judging of both.
"""

import selfsup

from . import data, reproduce

if __name__ == "__main__":
    scans = data("images/chest_xray128.tar.gz", "chest_xray128")
    reproduce(
        "chest-xray",
        lambda seed, out: selfsup.pretrain(scans / "train", seed=seed, out=out),
        scans,
        shots=(1, 10, 100),
    )
