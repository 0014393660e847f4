"""Noto emoji and their names, CLIP: 160 steps of 128 at 48 pixels.

    SELFSUP_DATA=... python -m recipes.noto_emoji_clip

1,296 drawings with a name and a line of keywords each teach, 313 test (the split of the data).
AMD EPYC with AVX512-BF16, one thread on a very busy machine, about 35 seconds of its time each:
20,480 samples seen. Recall@1, 5, 10 in percent, seeds 0 and 1:
drawing to words 3.5, 16.9, 24.6 and 6.4, 17.3, 25.2; untrained 0.6, 1.4, 2.4; chance 0.3, 1.6, 3.2;
canonical correlation of small pixels and TF-IDF 22.0, 38.0, 44.7.
Words to drawing 3.8, 17.7, 28.0 and 5.4, 17.6, 28.9; untrained 0.3, 1.3, 2.6; chance the same;
canonical correlation 21.9, 36.6, 44.2.
So the towers learn, and after 16 passes are far behind the classical maps, which the verdict says:
-18.5 (-21.2 to -15.8) and -17.5 (-20.1 to -14.9) points of mean recall.
(The runs were made by `selfsup pretrain` and judged by `selfsup evaluate` with these settings; this
file itself has not been run.)
"""

import sys
from pathlib import Path

import selfsup
from selfsup.evaluate.pairing import evaluate_task

from . import data, judged

if __name__ == "__main__":
    home = data("imagetext/noto_emoji72.tar.gz", "noto_emoji72")
    for seed in [int(argument) for argument in sys.argv[1:]] or [0, 1]:
        out = Path("runs") / f"noto-emoji-clip-{seed}"
        run = selfsup.pretrain(home / "emoji.csv", seed=seed, out=out)
        judged("noto-emoji-clip", seed, run, evaluate_task(run.path, home / "emoji.csv", seed=seed))
        run.report()
