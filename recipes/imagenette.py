"""Imagenette at 128 px, nothing chosen.

    SELFSUP_DATA=... python -m recipes.imagenette

Not measured yet.
"""

import selfsup

from . import data, reproduce

if __name__ == "__main__":
    photos = data("images/imagenette128.tar.gz", "imagenette128")
    reproduce(
        "imagenette",
        lambda seed, out: selfsup.pretrain(photos / "train", seed=seed, out=out),
        photos,
        shots=(1, 10, 100),
    )
