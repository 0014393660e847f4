"""CIFAR-10, SimCLR, ten minutes on two processor cores.

    SELFSUP_DATA=... python -m recipes.cifar10_simclr

Seed 0, AMD EPYC (Zen 5), 2 cores, bfloat16, other programs beside it: 453,120 samples seen.
Linear probe on 50,000 labels 59.1 (58.1 to 60.1); untrained 37.0 (32.3 to 41.7), pixels + PCA 41.1.
kNN 56.2 (55.2 to 57.2); untrained 32.8, pixels + PCA 46.6.
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
