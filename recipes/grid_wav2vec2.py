"""Speech recognition from few transcribed minutes (GRID, one speaker): not reached yet.

    SELFSUP_DATA=... python -m recipes.grid_wav2vec2

Wanted: fewer transcribed minutes than from scratch. Pretraining hears all 49.6 minutes without
their text, those that test too; 100 sentences test. Measured on one busy core (Intel Xeon, AMX),
one seed, 300 steps of CTC at 0.001, characters wrong:
    5 minutes: wav2vec 2.0 36.8 % (34.7 to 38.7), MAE 44.2 % (42.3 to 46.0), scratch 35.5 % (33.4 to
    37.7); 1 minute: wav2vec 2.0 59.8 % (57.7 to 61.9), scratch 59.5 % (57.6 to 61.3).
Believed to be missing: steps. Pretraining had 300 of 48 sentences (MAE 150 of 64), about 3 minutes,
and CTC had not converged in either network. This file's own run, three amounts and two seeds with
the learning rate chosen, takes an hour and has not been made.
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
            method="wav2vec2",
            encoder={"name": "mel_tiny", "depth": 4},
            resolution=304,  # the whole of a sentence
            minutes=15,
            seed=seed,
            out=Path("runs") / f"grid-wav2vec2-{seed}",
        )
        text = home / "transcripts.tsv"
        told = evaluate_task(run.path, home / "audio", labels=text, minutes=45, seed=seed)
        judged("grid-wav2vec2", seed, run, told)
