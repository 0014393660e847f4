"""Speech recognition from few transcribed minutes (GRID, one speaker), HuBERT: it spares them.

    SELFSUP_DATA=... python -m recipes.grid_hubert

Eight minutes of pretraining on all 49.6 minutes of speech without their text, also that of the 100
sentences that test; then CTC on 1 and 5 transcribed minutes, beside the same network from scratch
with as many steps and its own choice of the learning rate: about 20 minutes a seed in all.
Two cores of an AMD EPYC with AVX512-BF16, characters wrong (words), seeds 0 and 1:
    5 minutes: 28.0 and 27.4 % (58.8, 61.5), from scratch 33.3 and 35.0 (75.5, 75.5):
    5.3 and 7.6 points fewer (2.9 to 7.5, 5.6 to 9.6);
    1 minute: 56.1 and 59.3 % (92.8, 93.0), from scratch 60.0 and 59.1 (98.5, 95.3).
Three minutes of wav2vec 2.0 had gained nothing (docs/LOG.md). Neither network has converged.
"""

import sys
from pathlib import Path

import selfsup
from selfsup.evaluate.transcribe import evaluate_task

from . import data, judged

if __name__ == "__main__":
    home = data("audio/grid_s1_speech16k.tar.gz", "grid_s1")
    for seed in [int(argument) for argument in sys.argv[1:]] or [0, 1]:
        run = selfsup.pretrain(
            home / "audio",
            method="hubert",
            encoder={"name": "mel_tiny", "depth": 4},
            resolution=304,  # the whole of a sentence
            minutes=8,
            seed=seed,
            out=Path("runs") / f"grid-hubert-{seed}",
        )
        text = home / "transcripts.tsv"
        told = evaluate_task(
            run, home / "audio", labels=text, amounts=(1, 5), seeds=1, minutes=12, seed=seed
        )
        judged("grid-hubert", seed, run, told)
