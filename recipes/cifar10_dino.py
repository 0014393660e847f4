"""CIFAR-10, DINO, ten minutes on two processor cores.

    SELFSUP_DATA=... python -m recipes.cifar10_dino

Not measured yet.
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
