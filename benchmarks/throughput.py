"""How fast training and embedding are, beside what the machine could do.

    python -m benchmarks.throughput [--case NAME] [--json] [--peer lightly --peer-python PYTHON]
    python -m benchmarks.throughput --case dino --profile    # where the time of a step goes

For each case: samples a second end to end (store, loader, views, step), of the same step on one
batch that is already there (compute), their ratio, the compute rate against this machine's matrix
products, peak memory, and how much of ragged batches is padding. A graph's samples are its nodes.
The two kinds of steps take turns inside one run of the training loop, so that whatever else the
machine does slows both alike. Every measurement is a process of its own.
"""

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from .cases import CASES, Case

BLOCKS = 3  # turns of each kind
EPOCH = 8  # batches
WARM_UP = 2
PEERS = Path(__file__).parent / "peers"
PEER_CASES = {
    "lightly": ("simclr", "dino", "mae"),
    "timm": ("embed",),
    "transformers": ("mae", "mlm", "clm", "proteins", "wav2vec2", "videomae"),
    "ts2vec": ("ts2vec",),
    "torch_geometric": ("dgi", "grace"),
    "open_clip": ("clip",),
}


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.throughput", description=__doc__)
    parser.add_argument("--case", choices=[*CASES], action="append", help="default: all")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    parser.add_argument("--peer", choices=[*PEER_CASES], action="append", default=[])
    parser.add_argument("--peer-python", default=sys.executable, help="where peers are installed")
    parser.add_argument("--precision", default="auto", choices=["auto", "bf16", "fp32"])
    parser.add_argument("--folder", type=Path, help="where data and stores go; default: temporary")
    parser.add_argument("--profile", action="store_true", help="where the time of a step goes")
    parser.add_argument("--worker", choices=[*WORKERS], help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if given.worker:
        case = CASES[given.case[0]]
        print(json.dumps(WORKERS[given.worker](case, given.folder, given.precision)))
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = given.folder or Path(temporary)
        results = {}
        for name in given.case or CASES:
            if given.profile:
                results[name] = profile(CASES[name], folder, given.precision)
                shares = ", ".join(f"{op} {share:.0%}" for op, share in results[name].items())
                print(f"{CASES[name].title}: {shares}", file=sys.stderr if given.json else None)
                continue
            results[name] = measure(CASES[name], folder, given)
            if not given.json:
                print(text(CASES[name], results[name]), flush=True)
    if given.json:
        print(json.dumps(results))


def measure(case: Case, folder: Path, given: argparse.Namespace) -> dict[str, Any]:
    """All figures of a case, and those of peers that have it."""
    data = case.data(folder, samples(case))
    own = [sys.executable, "-m", "benchmarks.throughput", "--case", case.name]
    own += ["--folder", str(folder), "--precision", given.precision, "--worker"]
    found = {**run([*own, "compute"]), **run([*own, "speed"])}
    if case.trains:
        found |= run([*own, "first_epoch"])
        found["first_epoch_ratio"] = found["first_epoch"] / found["compute"]
    found["ratio"] = found["end_to_end"] / found["compute"]
    found["share_of_peak"] = found["flops"] * found["compute"] / case.batch / found["matmul"]
    found["peers"] = {}
    for peer in given.peer:
        if case.name not in PEER_CASES[peer]:
            continue
        for kind in ("default", "tuned"):
            command = [given.peer_python, str(PEERS / f"{peer}_steps.py"), case.name, kind]
            theirs = run([*command, str(data)])
            theirs["faster"] = found["end_to_end"] / theirs["end_to_end"]
            found["peers"][f"{peer} {kind}"] = theirs
    return found


def samples(case: Case) -> int:
    """A graph has no more nodes than a batch."""
    return case.batch if case.settings["modality.name"] == "network" else EPOCH * case.batch


def run(command: list[str]) -> dict[str, Any]:
    """The JSON object on the last line that a process prints."""
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def text(case: Case, found: dict[str, Any]) -> str:
    lines = [
        f"{case.title}, batch {case.batch}, {found['precision']}, {found['threads']} threads",
        f"  end to end  {found['end_to_end']:8.1f} samples/s  {found['end_to_end_peak']:.2f} GiB",
        f"  compute     {found['compute']:8.1f} samples/s  {found['compute_peak']:.2f} GiB",
        f"  ratio       {found['ratio']:8.2f}",
    ]
    if "first_epoch" in found:
        lines.append(f"  decoding    {found['first_epoch']:8.1f} samples/s in the first epoch")
        lines[-1] += f", {found['first_epoch_ratio']:.2f} of compute"
    if "padding" in found:
        lines.append(f"  padding     {found['padding']:8.1%} of the tokens that are computed")
    rate, peak = found["flops"] * found["compute"] / case.batch / 1e12, found["matmul"] / 1e12
    lines.append(f"  arithmetic  {rate:8.2f} TFLOP/s, {found['share_of_peak']:.0%} of {peak:.2f}")
    for name, theirs in found["peers"].items():
        lines.append(f"  {name}: {theirs['end_to_end']:.1f} samples/s end to end")
        lines[-1] += f", compute {theirs['compute']:.1f}, {theirs['peak']:.2f} GiB"
        lines[-1] += f": {theirs['faster']:.1f} times slower than here"
    return "\n".join(lines)


# -- workers ------------------------------------------------------------------------------------


def speed(case: Case, folder: Path, precision: str) -> dict[str, Any]:
    """Blocks of end-to-end and of compute-only steps in turns; medians over all steps of a kind."""
    from selfsup import machine

    with _job(case, folder, warm=True) as job:
        if case.trains:
            # what was prepared in the background during the block before must not count
            kinds = ["compute"] * case.steps + ["filled"] * 2 + ["end_to_end"] * case.steps
            times = _train(job, job.batches(0), precision, kinds * BLOCKS)
        else:
            times = _embed(case, job, precision)
    rate = {kind: case.batch / statistics.median(seconds) for kind, seconds in times.items()}
    return {
        "end_to_end": rate["end_to_end"],
        "compute": rate["compute"],
        "end_to_end_peak": machine.peak_memory() / 2**30,
    }


def compute(case: Case, folder: Path, precision: str) -> dict[str, Any]:
    """Peak memory of the step alone, its floating point operations, and the machine's limit."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    def linear(x, weight, *_, out_shape=None, **__) -> int:
        return 2 * math.prod(x) * weight[0]

    # the counter knows every product but this one
    counter = FlopCounterMode(
        display=False, custom_mapping={torch.ops.mkldnn._linear_pointwise: linear}
    )
    from selfsup import machine

    bf16 = machine.choose_precision(precision, "cpu") == "bf16"
    padding = None
    with _job(case, folder, warm=True) as job:
        if case.trains:
            views = job.batches(0)
            _train(job, views, precision, ["compute"])
            peak = machine.peak_memory() / 2**30
            with counter:
                with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
                    loss = sum(job.method(views, 0.5).values())
                loss.backward()
            padding = _padding([job.batches(step) for step in range(EPOCH)])
        else:
            from selfsup.inference import Fast

            fast, x = Fast(job.method.encoder, precision), _held(case, job)
            fast(x), fast(x)
            peak = machine.peak_memory() / 2**30
            with counter:
                fast(x)
    matmul = max(
        machine.matmul_rate(torch.bfloat16 if bf16 else torch.float32, "cpu", n)
        for n in (1024, 2048)
    )
    return {
        "compute_peak": peak,
        "flops": counter.get_total_flops(),
        "matmul": matmul,
        "precision": "bf16" if bf16 else "fp32",
        "threads": torch.get_num_threads(),
        **({"padding": padding} if padding is not None else {}),
    }


def profile(case: Case, folder: Path, precision: str) -> dict[str, float]:
    """Operators by their share of a warm step's time, the largest ten. Without the optimizer."""
    import torch
    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as watched

    from selfsup import machine

    case.data(folder, samples(case))
    bf16 = machine.choose_precision(precision, "cpu") == "bf16"
    with _job(case, folder, warm=True) as job:
        if case.trains:
            views = job.batches(0)
            _train(job, views, precision, ["compute"])

            def step():
                with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
                    loss = sum(job.method(views, 0.5).values())
                loss.backward()
        else:
            from selfsup.inference import Fast

            step = partial(Fast(job.method.encoder, precision), _held(case, job))
            step()
        with watched(activities=[ProfilerActivity.CPU]) as seen:
            step()
    times = {row.key: row.self_cpu_time_total for row in seen.key_averages()}
    whole = sum(times.values())
    largest = sorted(times, key=lambda key: -times[key])[:10]
    return {key.removeprefix("aten::"): times[key] / whole for key in largest}


def first_epoch(case: Case, folder: Path, precision: str) -> dict[str, Any]:
    """Samples a second while every sample is decoded for the first time."""
    with _job(case, folder, warm=True) as job:
        held = job.batches(0)
    with _job(case, folder, warm=False) as job:
        seconds = _train(job, held, precision, ["end_to_end"] * EPOCH)["end_to_end"]
    # the whole epoch counts, with its first batch, for which nothing was done ahead
    return {"first_epoch": case.batch * len(seconds) / sum(seconds)}


WORKERS = {"speed": speed, "compute": compute, "first_epoch": first_epoch}


@contextmanager
def _job(case: Case, folder: Path, warm: bool) -> Iterator[Any]:
    """The parts of a run with the case's settings; all samples are decoded where it is `warm`."""
    from selfsup import settings as schema
    from selfsup.data import open_source
    from selfsup.pretrain import Job

    cache = folder / "cache" if warm else tempfile.mkdtemp(dir=folder)
    given = {**case.settings, "train.batch": case.batch, "train.steps": 1, "data.cache": cache}
    settings = schema.resolve({k: schema.Given(v, "case") for k, v in given.items()}, ())
    job = Job(settings, open_source(case.data(folder, samples(case))))
    try:
        if warm:
            job.store.fill()
        yield job
    finally:
        job.close()


def _train(job: Any, held: list, precision: str, kinds: list[str]) -> dict[str, list[float]]:
    """Seconds of each kind of step in the real loop: from one call for views to the next.

    "compute" steps get the views that are `held`, others fresh ones.
    """
    import torch

    from selfsup.train import train

    torch.manual_seed(0)
    kinds = ["warm"] * WARM_UP + kinds
    entered: list[float] = []
    steps = iter(range(len(kinds)))  # of the loader: without gaps, so that what it prepares is used

    def batches(step: int, part: int = 0, parts: int = 1):
        entered.append(time.perf_counter())
        fetched = kinds[step] if step < len(kinds) else "warm"
        return job.batches(next(steps)) if fetched in ("end_to_end", "filled") else held

    train(
        job.method,
        batches,
        steps=len(kinds) + 1,
        batch=job.batch,
        optim=job.optim,
        precision=precision,
        every=sys.maxsize,
    )
    times: dict[str, list[float]] = {}
    for kind, start, end in zip(kinds, entered, entered[1:], strict=False):
        times.setdefault(kind, []).append(end - start)
    return times


def _padding(batches: list[list]) -> float | None:
    """The share of the places that are computed but hold nothing; None where nothing is ragged."""
    from selfsup.language import Layout
    from selfsup.ragged import Ragged
    from selfsup.steps import Steps
    from selfsup.towers import Parts

    views = [x for batch in batches for x in batch]
    parts = [p for x in views for p in (x.of.values() if isinstance(x, Parts) else [x])]
    ragged = [part for part in parts if isinstance(part, Ragged | Steps)]
    if not ragged:
        return None
    laid = [Layout.of(part) if isinstance(part, Ragged) else None for part in ragged]
    places = sum(r.valid.numel() if at is None else at.document.numel()
                 for r, at in zip(ragged, laid, strict=True))  # fmt: skip
    return 1 - sum(int(part.valid.sum()) for part in ragged) / places


def _held(case: Case, job: Any) -> Any:
    import torch

    return torch.randn(case.batch, 3, job.size, job.size)


def _embed(case: Case, job: Any, precision: str) -> dict[str, list[float]]:
    """Batches from JPEG files to vectors; and the same batch again and again, in turns."""
    import torch

    from selfsup.inference import Fast, decoded

    torch.manual_seed(0)
    times: dict[str, list[float]] = {"end_to_end": [], "compute": []}
    fast, held = Fast(job.method.encoder, precision), _held(case, job)
    fast(held)
    for _ in range(BLOCKS):
        for _ in range(case.steps):
            start = time.perf_counter()
            fast(held)
            times["compute"].append(time.perf_counter() - start)
        start = time.perf_counter()
        count = 0
        for batch, _ in decoded(job.store.source, job.modality, job.size, batch=case.batch):
            fast(job.modality.plain(batch, job.size))
            count += 1
        times["end_to_end"].append((time.perf_counter() - start) / count)
    return times


if __name__ == "__main__":
    os.environ.setdefault("PYTHONWARNINGS", "ignore")
    main()
