"""ETTh1, TS2Vec: forecasts from frozen features, 200 steps of 8 stretches of 200 hours.

    SELFSUP_DATA=... python -m recipes.etth1_ts2vec

Intel Xeon with AMX, one core of a busy machine, two minutes a run and one for its forecasts.
MSE, seeds 0 and 1; the same network untrained (mean of two); linear on values (DLinear);
last value:

     24  0.489, 0.554; 0.591; 0.326; 1.256
     48  0.531, 0.577; 0.637; 0.348; 1.287
    168  0.697, 0.724; 0.802; 0.416; 1.328
    336  0.893, 0.930; 0.987; 0.460; 1.302
    720  1.071, 1.069; 1.146; 0.480; 1.298

Measured by `selfsup pretrain` and `evaluate` with these settings, on 495 stretches drawn from the
test part; this file itself has not been run. Better than untrained at every horizon and seed, worse
than linear at every horizon and seed.
"""

import sys
from pathlib import Path

import selfsup
from selfsup.evaluate import forecast

from . import as_given, judged

if __name__ == "__main__":
    etth1 = as_given("timeseries/ETTh1.csv")
    for seed in [int(argument) for argument in sys.argv[1:]] or [0, 1]:
        run = selfsup.pretrain(
            etth1,
            method="ts2vec",
            encoder="dilated",
            resolution=200,
            steps=200,
            seed=seed,
            out=Path("runs") / f"etth1-ts2vec-{seed}",
        )
        judged("etth1-ts2vec", seed, run, forecast.evaluate_task(run, etth1))
