"""Imagenette at 128 px, nothing chosen.

    SELFSUP_DATA=... python -m recipes.imagenette

Seed 0, AMD EPYC (AVX512-BF16), 2 cores, 15 minutes of training and 8 of judging, bfloat16: SimCLR
on a quarter-width ResNet-18 at 64 px, 361,472 samples seen. Linear probe on 4,200 labels 67.5 (65.1
to 69.9); untrained 32.0, pixels + PCA 40.5. kNN 64.5; untrained 27.7, pixels + PCA 36.4.
With 1, 10, 100 labels a class 26.8, 51.6, 64.8; the same network from scratch 15.9, 27.8, 47.3.
Fine-tuned on 2,100 labels 67.8, from scratch 48.5. Light programs ran beside it.
Seed 1, as much beside it, 329,216 samples seen: 64.1 (61.7 to 66.5); untrained 32.0, pixels + PCA
39.6. kNN 62.8; untrained 29.3, pixels + PCA 36.4. With 1, 10, 100 labels a class 27.8, 50.6, 63.0;
from scratch 12.6, 24.8, 47.9. Fine-tuned 66.6, from scratch 50.2.
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
