"""What a run would take, from a few real steps of it: time, memory, disk and energy.

Predictions from tables are wrong on every machine but one; twenty steps are right to some percent.
"""

import gc
import math
import os
import shutil
import statistics
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from . import machine
from .console import duration, size
from .energy import estimate
from .run import environment
from .stop import Stop, stop

if TYPE_CHECKING:
    from .pretrain.job import Job

STEPS, WARM_UP = 20, 3  # of a dry run; the first steps load kernels and fill the allocator
LONGEST = 60.0  # seconds of a dry run's steps: twenty slow ones would be a run of their own
BAND = 0.15  # machines drift by this much over minutes, whatever twenty steps say


def step_times(
    job: "Job", steps: int, *, warm_up: int = WARM_UP, seconds: float = math.inf
) -> list[float]:
    """Seconds of each of `steps` real training steps on decoded data, at least one.

    Fewer than asked for where `seconds` are over. The job's weights are trained by them.
    """
    from .train import train

    entered: list[float] = []
    began: list[float] = []
    until = Stop()
    deadline = time.monotonic() + seconds

    def batches(step: int, part: int = 0, parts: int = 1) -> list[torch.Tensor]:
        if part == 0:
            entered.append(time.monotonic())
            job.loader.batch(step)  # decodes what is new, which only the first epoch does
            began.append(time.monotonic())
            enough = len(began) >= 3 and time.monotonic() > deadline
            if enough or stop.requested:
                until.request()
        return job.batches(step, part, parts)

    train(
        job.method,
        batches,
        steps=warm_up + steps + 1,
        batch=job.batch,
        optim=job.optim,
        seed=job.settings["train.seed"],
        precision=job.settings["train.precision"],
        accumulate=job.settings["train.accumulate"],
        chunk=job.settings["train.chunk"],
        shard=job.settings["train.shard"],
        every=sys.maxsize,
        stop=until,
    )
    stop.check()
    times = [after - before for before, after in zip(began, entered[1:], strict=False)]
    return times[min(warm_up, len(times) - 1) :]


@dataclass(frozen=True)
class Forecast:
    """What a run would take. `seconds_low` to `seconds_high` is the error band."""

    steps: int
    epochs: float
    batch: int
    samples_per_second: float
    seconds: float
    seconds_low: float
    seconds_high: float
    decode_seconds: float
    memory_bytes: int
    memory_available: int
    device_bytes: int
    device_available: int
    run_bytes: int
    run_free: int
    cache_bytes: int
    cache_free: int
    joules: float

    @property
    def refusals(self) -> list[str]:
        """Why the run must not start."""
        told = []
        if self.memory_bytes > self.memory_available:
            told.append(
                f"memory: it needs {size(self.memory_bytes)}, "
                f"there are {size(self.memory_available)}"
            )
        if self.device_bytes > self.device_available:
            told.append(
                f"device memory: it needs {size(self.device_bytes)}, "
                f"there are {size(self.device_available)}"
            )
        if self.run_bytes > self.run_free:
            told.append(
                f"disk: the run needs {size(self.run_bytes)}, there are {size(self.run_free)}"
            )
        return told

    @property
    def go(self) -> bool:
        return not self.refusals

    def to_json(self) -> dict[str, Any]:
        return vars(self) | {"go": self.go, "refusals": self.refusals}

    def text(self) -> str:
        from .console import columns

        half = (self.seconds_high - self.seconds_low) / 2
        band = f" +- {100 * half / self.seconds:.0f} %" if half else "; the steps are fitted to it"
        rows = [
            ("time", f"{duration(self.seconds)}{band}"),
            ("steps", f"{self.steps} of {self.batch} samples, {self.epochs:.3g} epochs"),
            ("speed", f"{self.samples_per_second:.0f} samples/s, measured over real steps"),
        ]
        if self.decode_seconds > 1:
            rows.append(("decoding", f"{duration(self.decode_seconds)} once, in the background"))
        rows.append(
            ("memory", f"{size(self.memory_bytes)} of {size(self.memory_available)} available")
        )
        if self.device_available:
            rows.append(
                ("device", f"{size(self.device_bytes)} of {size(self.device_available)} available")
            )
        rows.append(("disk", f"{size(self.run_bytes)} of {size(self.run_free)} for the run"))
        if self.cache_bytes > self.cache_free:
            rows.append(
                ("cache", f"{size(self.cache_bytes)} do not fit in {size(self.cache_free)}: ")
            )
            rows.append(("", "a part is decoded again in every epoch, which is slower"))
        elif self.cache_bytes:
            rows.append(
                ("cache", f"{size(self.cache_bytes)} of {size(self.cache_free)} for decoded data")
            )
        kilowatt_hours = f"{self.joules / 3.6e6:.2g} kWh"
        rows.append(("energy", f"about {kilowatt_hours}, as the whole machine at full load takes"))
        verdict = "GO" if self.go else "NO-GO: " + "; ".join(self.refusals)
        return columns(rows) + f"\n{verdict}"


def forecast(job: "Job", out: Path) -> Forecast:
    """Twenty real steps of `job`, or what a minute holds, extrapolated to the run in `out`."""
    import psutil

    decode, stored = _decode(job)
    times = step_times(job, STEPS, seconds=LONGEST)
    usual = statistics.mean(times)
    error = statistics.stdev(times) / math.sqrt(len(times)) / usual if len(times) > 1 else 1.0
    band = max(BAND, 2 * error)

    if job.steps is None:  # the run is fitted to its minutes while it goes on
        seconds, band = 60 * job.settings["train.minutes"], 0.0
        steps = max(1, round(seconds / usual))
    else:
        steps = job.steps
        seconds = steps * usual + decode / 2  # decoding overlaps with computing
    device_bytes = device_free = 0
    if job.device.type == "cuda":
        device_bytes = torch.cuda.max_memory_reserved(job.device)
        device_free = torch.cuda.mem_get_info(job.device)[0] + device_bytes
    here = psutil.Process().memory_info().rss
    env = environment()
    return Forecast(
        steps=steps,
        epochs=steps * job.batch / len(job.store),
        batch=job.batch,
        samples_per_second=job.batch / usual,
        seconds=seconds,
        seconds_low=seconds * (1 - band),
        seconds_high=seconds * (1 + band),
        decode_seconds=decode,
        memory_bytes=machine.peak_memory(),
        memory_available=machine.free_memory() + here,
        device_bytes=device_bytes,
        device_available=device_free,
        run_bytes=_run_bytes(job),
        run_free=_free(out),
        cache_bytes=stored,
        cache_free=_free(_cache_folder(job)),
        joules=estimate(seconds, env["cores"], env["memory_gb"], env["gpus"]).joules,
    )


def _decode(job: "Job") -> tuple[float, int]:
    """Seconds to decode what is left of the data, and bytes that all of it takes in the store."""
    start, seen, volume = time.monotonic(), 0, 0
    for step in range(STEPS + WARM_UP + 1):
        stop.check()
        batch = job.loader.batch(step)
        seen += len(batch)
        area = batch.pixels[0].numel()
        volume += len(batch) * area
        if seen >= len(job.store):
            break
    took = time.monotonic() - start
    share = max(0.0, 1 - seen / len(job.store))
    if job.store.mode == "array":
        return 0.0, 0
    return took / seen * len(job.store) * share, round(volume / seen * len(job.store))


def _run_bytes(job: "Job") -> int:
    """Checkpoints (one more than are kept, while the next is written), logs and the report."""
    tensors = [*job.method.parameters(), *job.method.buffers()]
    weights = sum(x.numel() * x.element_size() for x in tensors)
    trained = sum(x.numel() * x.element_size() for x in job.method.parameters() if x.requires_grad)
    encoder = sum(x.numel() * x.element_size() for x in job.method.kept.state_dict().values())
    state = trained * (2 if job.optim.name == "adamw" else 1)
    return (weights + state + encoder) * (job.settings["checkpoint.keep"] + 1) + 20_000_000


def _cache_folder(job: "Job") -> Path:
    from .data.cache import cache_folder

    return Path(cache_folder(job.settings["data.cache"]))


def _free(folder: Path) -> int:
    folder = Path(os.path.abspath(folder))
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free


def samples_per_second(job: "Job") -> float:
    """The speed of a candidate, from the fastest of up to six steps or eight seconds.

    The fastest, because candidates must be told apart also while something else uses the machine.
    """
    job.loader.batch(0)
    times = step_times(job, 4, warm_up=2, seconds=8.0)
    rate = job.batch / min(times)
    gc.collect()
    return rate
