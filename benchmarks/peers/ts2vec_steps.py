"""TS2Vec by the authors' own training loop, as the package `ts2vec` has it.

    python ts2vec_steps.py ts2vec default|tuned DATA

All data lie in memory there, so that one figure stands for both. "tuned" adds bfloat16 autocast and
the fused AdamW.
"""

import sys
import time
from functools import partial
from importlib.metadata import version
from pathlib import Path

import common
import numpy as np
import torch
from ts2vec.ts2vec import TS2Vec

WARM, STEPS = 5, 60


def main(case: str, kind: str, data: str) -> None:
    assert case == "ts2vec"
    torch.manual_seed(0)
    np.random.seed(0)
    tuned = kind == "tuned"
    lines = Path(data).read_text("utf-8").split("@data\n")[1].splitlines()
    cases = [[cells.split(",") for cells in line.split(":")] for line in lines]
    series = np.array(cases, np.float32).transpose(0, 2, 1)  # (n, t, c)
    series = (series - series.mean((0, 1))) / series.std((0, 1))
    if tuned:
        torch.optim.AdamW = partial(torch.optim.AdamW, fused=True)
    ends: list[float] = []
    model = TS2Vec(
        input_dims=series.shape[2],
        device="cpu",
        batch_size=16,
        after_iter_callback=lambda model, loss: ends.append(time.perf_counter()),
    )
    with common.half(tuned):
        model.fit(series, n_iters=WARM + STEPS)
    seconds = np.diff(ends)[WARM - 1 :].tolist()
    common.tell(seconds, seconds, 16, version=version("ts2vec"))


if __name__ == "__main__":
    main(*sys.argv[1:])
