"""CIFAR-10, DINO, ten minutes on two processor cores.

    SELFSUP_DATA=... python -m recipes.cifar10_dino

Seed 0, Intel Xeon with AMX, 2 cores, bfloat16, other programs beside it: 228,480 samples seen by a
quarter-width ResNet-18. Linear probe on 50,000 labels 49.2 (48.1 to 50.1); untrained 31.5 (28.9 to
34.1), pixels + PCA 41.1. kNN 44.9 (43.9 to 45.9); untrained 28.2, pixels + PCA 46.6.
Seed 1, AMD EPYC with AVX512-BF16, 2 cores, light programs beside it: 289,792 samples by
resnet18 (width 0.25, stem 2). 49.5 (48.6 to 50.4); untrained 30.7,
pixels + PCA 41.1. kNN 45.7; untrained 28.4, pixels + PCA 46.6.
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
