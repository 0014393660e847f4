"""CIFAR-10, SimCLR, ten minutes on two processor cores.

    SELFSUP_DATA=... python -m recipes.cifar10_simclr

Intel Xeon with AMX, 2 cores, bfloat16, other programs beside it: 206,336 samples seen (seed 0) and
304,128 (seed 1, whose first minutes were undisturbed, at 830 a second).
Linear probe on 50,000 labels 63.7 (62.7 to 64.7) and 67.1 (66.2 to 68.0); untrained 36.9 and 36.3,
pixels + PCA 41.1. kNN 59.4 and 63.6; untrained 32.8 and 31.6, pixels + PCA 46.6.
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
