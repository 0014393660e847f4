"""CIFAR-10, MAE, ten minutes on two processor cores.

    SELFSUP_DATA=... python -m recipes.cifar10_mae

Seed 0, AMD EPYC (Zen 5), 2 cores, bfloat16, other programs beside it: 640,640 samples seen.
Linear probe on 50,000 labels 58.3 (57.3 to 59.3); untrained 47.7 (47.2 to 48.1), pixels + PCA 41.1.
kNN 48.5 (47.5 to 49.5); untrained 33.8, pixels + PCA 46.6.
Seed 1, AMD EPYC (AVX512-BF16), light programs beside it: 451,968 samples seen, 58.4 (57.5 to
59.3); untrained 48.0, pixels + PCA 41.1. kNN 48.5; untrained 34.0, pixels + PCA 46.6.
"""

import selfsup

from . import data, reproduce

if __name__ == "__main__":
    cifar = data("images/cifar10_jpg.tar.gz", "cifar10")
    reproduce(
        "cifar10-mae",
        lambda seed, out: selfsup.pretrain(
            cifar / "train", method="mae", minutes=10, seed=seed, out=out
        ),
        cifar,
        shots=(1, 10, 100),
        finetune=False,
    )
