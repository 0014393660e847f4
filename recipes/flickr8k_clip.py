"""Flickr8k (1,000 photographs with five captions each), CLIP: 150 steps of 128 at 48 pixels.

    SELFSUP_DATA=... python -m recipes.flickr8k_clip

836 photographs teach, 164 test with their 820 captions (the split of the data).
AMD EPYC with AVX512-BF16, one thread on a very busy machine, about 35 seconds of its time: 19,200
samples seen. Recall@1, 5, 10 in percent, seed 0 (one seed: the machine allowed no more):
photograph to caption 2.4, 7.9, 14.0; untrained 0.6, 2.0, 4.5; chance 0.6, 3.0, 6.0; canonical
correlation of small pixels and TF-IDF 3.0, 9.1, 17.7. Caption to photograph 3.3, 11.7, 18.5;
untrained 0.7, 2.9, 5.8; chance 0.6, 3.0, 6.1; canonical correlation 2.7, 9.8, 16.1.
Mean recall +1.1 points against canonical correlation (-0.9 to +3.0): no clear gain over it.
(The run was made by `selfsup pretrain` and judged by `selfsup evaluate` with these settings; this
file itself has not been run.)
"""

import sys
from pathlib import Path

import selfsup
from selfsup.evaluate.pairing import evaluate_task

from . import data, judged

if __name__ == "__main__":
    home = data("imagetext/flickr8k_1k.tar.gz", "flickr8k_1k")
    for seed in [int(argument) for argument in sys.argv[1:]] or [0, 1]:
        out = Path("runs") / f"flickr8k-clip-{seed}"
        run = selfsup.pretrain(home / "captions.csv", seed=seed, out=out)
        judged(
            "flickr8k-clip", seed, run, evaluate_task(run.path, home / "captions.csv", seed=seed)
        )
        run.report()
