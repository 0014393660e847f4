"""The encoder at work: samples read and decoded by threads while the network runs.

One pass over data that are seen once needs no store on disk. Batches are always the same samples in
the same order, so that a pass that was interrupted gives the same vectors when it goes on.
"""

import copy
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from . import machine
from .data.base import Source
from .data.batch import Batch, stacked
from .data.outcome import BadSample
from .modalities import Modality
from .stop import stop

AHEAD = 2  # batches that are decoded before they are needed


class Bad(NamedTuple):
    """A sample that cannot be used: its number and why."""

    number: int
    code: str
    reason: str


class Fast:
    """An encoder as fast as this machine runs it, for inference alone: `fast(x) -> (b, d)` float32.

    With bf16 the weights of matrix products and convolutions are rounded once, in a copy, which
    saves casting them for every batch; normalisations keep theirs in float32.
    """

    def __init__(self, encoder: nn.Module, precision: str = "auto"):
        device = next(encoder.parameters()).device
        self.device = device
        self.precision = machine.choose_precision(precision, device.type)
        training = encoder.training
        self.encoder = copy.deepcopy(encoder).eval().requires_grad_(False)
        encoder.train(training)
        machine.keep_freed_memory()
        self.dtype = torch.float32
        if self.precision == "bf16":
            self.dtype = torch.bfloat16
            self.encoder.to(torch.bfloat16)
            for module in self.encoder.modules():
                if isinstance(module, NORMS):
                    module.float()

    def __call__(self, x: Float[Tensor, "b ..."]) -> Float[Tensor, "b d"]:
        with torch.inference_mode():
            x = x.to(self.device, self.dtype) if x.is_floating_point() else x.to(self.device)
            out = self.encoder(x).float()
        return out.clone()


NORMS = (nn.LayerNorm, nn.GroupNorm, nn.modules.batchnorm._BatchNorm)


def decoded(
    source: Source,
    modality: Modality,
    size: int,
    *,
    start: int = 0,
    end: int | None = None,
    batch: int = 128,
    workers: int = 2,
) -> Iterator[tuple[Batch | None, list[Bad]]]:
    """Samples `start` to `end` in order, `batch` at a time, with those that cannot be read.

    A batch has the samples of its range that could be read; None where none could.
    """
    end = len(source) if end is None else end
    modality.meet(source)

    def one(i: int) -> np.ndarray | Bad:
        try:
            return modality.shrink(modality.read(source.read(i), size), size)
        except BadSample as bad:
            return Bad(i, bad.code, bad.reason)

    with ThreadPoolExecutor(max(workers, 1), "decode") as threads:
        waiting: deque[tuple[int, list[Future]]] = deque()
        position = start
        try:
            while position < end or waiting:
                while position < end and len(waiting) < AHEAD + 1:
                    stop.check()
                    until = min(position + batch, end)
                    waiting.append(
                        (position, [threads.submit(one, i) for i in range(position, until)])
                    )
                    position = until
                first, tasks = waiting.popleft()
                found = [task.result() for task in tasks]
                stop.check()
                yield assemble(found, first), [bad for bad in found if isinstance(bad, Bad)]
        finally:
            threads.shutdown(cancel_futures=True)


def assemble(found: list[np.ndarray | Bad], first: int = 0) -> Batch | None:
    """One batch of those that were decoded; None where none was."""
    rows = [(first + i, x) for i, x in enumerate(found) if not isinstance(x, Bad)]
    if not rows:
        return None
    return stacked([x for _, x in rows], torch.tensor([i for i, _ in rows]))
