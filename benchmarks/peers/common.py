"""What the peers' scripts share: data from files, clocks, and torchvision without its build.

These run in an environment of their own (see ../README.md) and import nothing of selfsup.
"""

import contextlib
import json
import resource
import statistics
import sys
import time
from pathlib import Path

import torch

# torchvision has no build for torch's CPU wheels of this version. Its Python part is enough here,
# once the two operators that it looks for at import are defined.
library = torch.library.Library("torchvision", "DEF")
library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")

from PIL import Image  # noqa: E402

WORKERS = 2  # of the DataLoader: one for each core
STEPS = 3


class Samples(torch.utils.data.Dataset):
    """`make(item)` of each item of a list."""

    def __init__(self, items, make):
        self.items, self.make = items, make

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, i: int):
        return self.make(self.items[i])


def pictures(folder: str, transform) -> Samples:
    """(transformed picture, label, name), as the peers' own dataset of a folder gives it."""

    def make(path: Path):
        with Image.open(path) as picture:
            return transform(picture.convert("RGB")), 0, path.name

    return Samples(sorted(Path(folder).glob("*.jpg")), make)


def loader(samples: Samples, batch: int, *, workers: int = WORKERS, collate=None):
    return torch.utils.data.DataLoader(
        samples,
        batch_size=batch,
        shuffle=True,
        drop_last=True,
        num_workers=workers,
        persistent_workers=workers > 0,
        collate_fn=collate,
    )


def half(tuned: bool):
    return torch.autocast("cpu", torch.bfloat16) if tuned else contextlib.nullcontext()


def forever(batches):
    while True:
        yield from batches


def report(step, batches, batch: int, *, steps: int = STEPS, **more) -> None:
    """Time `step(views)` end to end and on a batch that is there, and print one JSON object."""
    coming = forever(batches)
    held = next(coming)
    step(held)
    step(held)
    compute = []
    for _ in range(steps):
        start = time.perf_counter()
        step(held)
        compute.append(time.perf_counter() - start)
    # the workers are full by now: enough steps that this does not count
    for _ in range(WORKERS + 2):
        step(next(coming))
    end_to_end = []
    for _ in range(steps):
        start = time.perf_counter()
        step(next(coming))
        end_to_end.append(time.perf_counter() - start)
    tell(end_to_end, compute, batch, **more)


def tell(end_to_end: list[float], compute: list[float], batch: int, **more) -> None:
    found = {
        "end_to_end": batch / statistics.median(end_to_end),
        "compute": batch / statistics.median(compute),
        "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
        "torch": torch.__version__,
    }
    print(json.dumps(found | more), flush=True)
    sys.stdout.flush()
