"""CIFAR-10, DINO, ten minutes on two processor cores.

    SELFSUP_DATA=... python -m recipes.cifar10_dino

Seed 0, Intel Xeon with AMX, 2 cores, bfloat16, other programs beside it: 228,480 samples seen by a
quarter-width ResNet-18. Linear probe on 50,000 labels 49.2 (48.1 to 50.1); untrained 31.5 (28.9 to
34.1), pixels + PCA 41.1. kNN 44.9 (43.9 to 45.9); untrained 28.2, pixels + PCA 46.6.
One seed so far; a figure is reproduced when it has two.
"""

import selfsup

from . import data, reproduce

if __name__ == "__main__":
    cifar = data("images/cifar10_jpg.tar.gz", "cifar10")
    reproduce(
        "cifar10-dino",
        lambda seed, out: selfsup.pretrain(
            cifar / "train", method="dino", minutes=10, seed=seed, out=out
        ),
        cifar,
        shots=(1, 10, 100),
        finetune=False,
    )
