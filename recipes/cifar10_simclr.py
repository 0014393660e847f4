"""CIFAR-10, SimCLR, ten minutes on two processor cores.

    SELFSUP_DATA=... python -m recipes.cifar10_simclr

Seed 0, Intel Xeon with AMX, 2 cores, bfloat16, other programs beside it: 206,336 samples seen.
Linear probe on 50,000 labels 63.7 (62.7 to 64.7); untrained 36.9 (32.7 to 41.2), pixels + PCA 41.1.
kNN 59.4 (58.4 to 60.4); untrained 32.8, pixels + PCA 46.6.
One seed so far; a figure is reproduced when it has two.
"""

import selfsup

from . import data, reproduce

if __name__ == "__main__":
    cifar = data("images/cifar10_jpg.tar.gz", "cifar10")
    reproduce(
        "cifar10-simclr",
        lambda seed, out: selfsup.pretrain(
            cifar / "train", method="simclr", minutes=10, seed=seed, out=out
        ),
        cifar,
        shots=(1, 10, 100),
        finetune=False,
    )
