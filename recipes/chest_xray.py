"""Chest X-rays (normal, pneumonia) at 128 px, nothing chosen.

    SELFSUP_DATA=... python -m recipes.chest_xray

Not measured yet.
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
