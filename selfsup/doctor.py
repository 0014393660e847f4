"""Is this machine fine: what is there, what is missing with the line that mends it; a self-test.

The self-test is the promise that matters most, tried here and now: a run that is killed and started
again ends with the same weights, bit for bit, as one that was left alone.
"""

import importlib.util
import multiprocessing
import os
import platform
import shutil
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from importlib import metadata
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

from .console import Console, columns, duration, size
from .errors import SelfsupError

OK, WARN, FIX = "ok", "warn", "fix"
STEPS = 12  # of the self-test
PATIENCE = 120.0  # seconds that one process of the self-test may take

# extra of this package -> modules that it brings
EXTRAS = {"video": ("av",), "track": ("tensorboard", "wandb"), "umap": ("umap",)}
EXTRAS |= {"timm": ("timm",), "hf": ("transformers",)}


@dataclass(frozen=True)
class Check:
    """One line of the page. `fix` is what to do where `state` is not ok."""

    name: str
    state: str  # ok, warn or fix
    found: str
    fix: str = ""


@dataclass(frozen=True)
class Checks:
    """The page. Its exit code is 1 where something must be fixed."""

    checks: tuple[Check, ...]

    @property
    def exit_code(self) -> int:
        return int(any(check.state == FIX for check in self.checks))

    def text(self) -> str:
        from .console import wants_colour

        colour = wants_colour(sys.stdout)
        rows = []
        for check in self.checks:
            rows.append((check.state, check.name, check.found))
            if check.fix:
                rows.append(("", "", f"do: {check.fix}"))
        lines = columns(rows, width=100).splitlines()
        if colour:
            codes = {OK: "32", WARN: "33", FIX: "31"}
            for i, line in enumerate(lines):
                state = line.split(" ", 1)[0]
                if state in codes:
                    lines[i] = f"\x1b[{codes[state]}m{state}\x1b[0m" + line[len(state) :]
        verdict = "everything needed is there"
        if self.exit_code:
            broken = [check.name for check in self.checks if check.state == FIX]
            verdict = f"must be fixed: {', '.join(broken)}"
        return "\n".join([*lines, "", verdict])

    def to_json(self) -> dict[str, Any]:
        return {
            "checks": [vars(check) for check in self.checks],
            "exit_code": self.exit_code,
        }


def examine(console: Console | None = None, *, self_test: bool = True) -> Checks:
    """Look at everything; about five seconds, most of them the self-test."""
    console = console or Console()
    if self_test:
        _processes()  # they load while we look around
    checks = [_python(), _torch(), _device(), _bfloat16(), _memory()]
    checks += [_disk("disk here", Path.cwd()), _disk("disk for the cache", _cache())]
    checks += [_shared_memory(), *_decoders(), *_extras(), _privacy()]
    if self_test:
        console.say("self-test: training, killing, resuming ...")
        checks.append(self_tested())
    return Checks(tuple(checks))


# ---- what is there ---------------------------------------------------------------------------


def _python() -> Check:
    found = f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    good = sys.version_info >= (3, 11)
    return Check("python", OK if good else FIX, found, "" if good else "install Python 3.11")


def _torch() -> Check:
    import torch

    found = f"{torch.__version__}, {torch.get_num_threads()} threads"
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    if torch.get_num_threads() > (cores or 1):
        fix = f"export OMP_NUM_THREADS={cores}"
        return Check("torch", WARN, f"{found}, but only {cores} cores are ours", fix)
    return Check("torch", OK, found)


def _device() -> Check:
    import torch

    if torch.cuda.is_available():
        names = [
            f"{torch.cuda.get_device_name(i)}, "
            f"{size(torch.cuda.get_device_properties(i).total_memory)}"
            for i in range(torch.cuda.device_count())
        ]
        return Check("device", OK, "; ".join(names))
    if shutil.which("nvidia-smi"):
        fix = "install the torch build for your CUDA version: https://pytorch.org/get-started"
        return Check("device", WARN, "a graphics card that this torch cannot use", fix)
    return Check("device", OK, f"processor: {_processor()}")


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            for line in file:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    except OSError:
        pass  # not Linux: the next best name
    return platform.processor() or platform.machine()


def _bfloat16() -> Check:
    """Measured, because libraries claim bfloat16 on processors that only emulate it."""
    import torch

    from .machine import WORTH

    device = "cuda" if torch.cuda.is_available() else "cpu"
    side = 4096 if device == "cuda" else 768
    speeds = {}
    for kind in (torch.float32, torch.bfloat16):
        a, b = (torch.randn(side, side, device=device).to(kind) for _ in range(2))
        times = []
        for i in range(9):
            start = time.perf_counter()
            a @ b
            if device == "cuda":
                torch.cuda.synchronize()
            if i >= 2:
                times.append(time.perf_counter() - start)
        speeds[kind] = 2 * side**3 / statistics.median(times)
    single, half = speeds[torch.float32], speeds[torch.bfloat16]
    found = f"{size(half, 'FLOP/s')}, float32 {size(single, 'FLOP/s')}: "
    found += f"{half / single:.1f} times as fast"
    found += "" if half > WORTH * single else ", so float32 is used"
    return Check("bfloat16", OK, found)


def _memory() -> Check:
    import psutil

    from .machine import container_limit

    memory = psutil.virtual_memory()
    found = f"{size(memory.available)} free of {size(memory.total)}"
    limit = container_limit()
    if limit and limit < memory.total:
        found += f", of which this container may use {size(limit)}"
    scarce = min(memory.available, limit or memory.available) < 2e9
    fix = "close other programs, or give a smaller --batch" if scarce else ""
    return Check("memory", WARN if scarce else OK, found, fix)


def _cache() -> Path:
    from .data.cache import cache_folder

    return Path(cache_folder(None))


def _disk(name: str, folder: Path) -> Check:
    present = folder
    while not present.exists():
        present = present.parent
    free = shutil.disk_usage(present).free
    found = f"{size(free)} free in {folder}"
    try:
        with tempfile.TemporaryFile(dir=present):
            pass
    except OSError as error:
        why = f"{folder} cannot be written ({error.strerror})"
        if name == "disk here":
            return Check(name, WARN, why, "give --out a folder that can be written")
        fix = "set SELFSUP_CACHE to a folder that can be written; until then files are decoded "
        return Check(name, WARN, why, fix + "again in every epoch")
    fix = "free some space, or choose another folder" if free < 2e9 else ""
    return Check(name, WARN if fix else OK, found, fix)


def _shared_memory() -> Check:
    try:
        free = shutil.disk_usage("/dev/shm").free
    except OSError:
        return Check("shared memory", OK, "no /dev/shm, and none is needed on one device")
    small = free < 64e6
    fix = "in a container: start it with --shm-size=1g (needed for several processes)"
    return Check("shared memory", WARN if small else OK, f"{size(free)} free", fix * small)


def _decoders() -> list[Check]:
    from PIL import __version__, features

    wanted = {"jpg": "jpeg", "zlib": "png", "webp": "webp", "libtiff": "compressed tiff"}
    there = [name for key, name in wanted.items() if features.check(key)]
    missing = [name for key, name in wanted.items() if not features.check(key)]
    found = f"Pillow {__version__}: {', '.join([*there, 'gif', 'bmp'])}"
    fix = f"pip install --force-reinstall pillow  (no {', '.join(missing)})" if missing else ""
    checks = [Check("image decoders", WARN if missing else OK, found, fix)]
    try:
        import soundfile
    except (ImportError, OSError) as error:
        checks.append(
            Check("sound decoders", WARN, str(error), "pip install --force-reinstall soundfile")
        )
    else:
        found = f"soundfile {soundfile.__version__}, {soundfile.__libsndfile_version__}"
        checks.append(Check("sound decoders", OK, found))
    return checks


def _extras() -> list[Check]:
    """Optional packages. None is needed for pretraining, so a missing one is no fault."""
    there: list[str] = []
    missing: list[str] = []
    for extra, modules in EXTRAS.items():
        found = any(importlib.util.find_spec(module) for module in modules)
        (there if found else missing).append(extra)
    line = ", ".join(there) or "none"
    hint = f"; others with: pip install 'selfsup[{missing[0]}]' ({', '.join(missing)})"
    return [Check("extras", OK, line + (hint if missing else ""))]


def _privacy() -> Check:
    return Check("network", OK, "not used: no telemetry, no hidden downloads")


def versions() -> dict[str, str]:
    """The versions that a run depends on, for env.json."""
    names = ("torch", "numpy", "pillow", "safetensors", "pydantic", "scikit-learn")
    return {name: metadata.version(name) for name in names}


# ---- the self-test ---------------------------------------------------------------------------


def self_tested() -> Check:
    """Train, kill, resume; then compare with a run that was never killed."""
    start = time.monotonic()
    try:
        with tempfile.TemporaryDirectory(prefix="selfsup-doctor-") as folder:
            lost, step = _kill_and_compare(Path(folder))
    except SelfsupError as error:
        return Check("self-test", FIX, error.what, error.do or "selfsup doctor --debug")
    took = duration(time.monotonic() - start)
    if lost:
        fix = "report this: a resumed run is not what it would have been"
        return Check("self-test", FIX, f"after kill and resume these differ: {lost}", fix)
    found = f"trained, killed at step {step}, resumed: weights equal bit for bit ({took})"
    return Check("self-test", OK, found)


def _kill_and_compare(folder: Path) -> tuple[str, int]:
    """What differs, or nothing; and the step that was saved when the process was killed."""
    import numpy as np

    from .machine import choose_precision

    pictures = np.random.default_rng(0).integers(0, 256, (64, 16, 16, 3), np.uint8)
    data = folder / "pictures.npy"
    np.save(data, pictures)
    alone, killed = folder / "alone", folder / "killed"
    precision = choose_precision("auto", "cpu")  # once: two runs that measure it may differ
    processes = [_start(data, run, precision) for run in (alone, killed)]
    try:
        step = _kill_half_way(processes[1], killed)
        _finish(processes[0], alone)
        processes.append(_start(data, killed, precision))
        _finish(processes[2], killed)
    finally:
        for process in processes:
            process.kill()
            process.join()
    return _differences(alone, killed), step


def _processes() -> Any:
    """Where processes come from that have PyTorch loaded, and nothing of this one."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["selfsup.pretrain", "selfsup.methods", "torch._dynamo"])
    forkserver.ensure_running()
    return context


def _start(data: Path, out: Path, precision: str) -> Any:
    process = _processes().Process(target=_train, args=(data, out, precision))
    process.start()
    return process


def _train(data: Path, out: Path, precision: str) -> None:
    """What users call, in a process of its own, which a kill signal can end."""
    import torch

    from .pretrain import pretrain

    with open(_log(out), "w", encoding="utf-8") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    for key in [key for key in os.environ if key.startswith("SELFSUP_")]:
        del os.environ[key]
    os.environ["SELFSUP_CACHE"] = str(out.parent / "cache")
    torch.set_num_threads(1)
    pretrain(
        data,
        out=out,
        steps=STEPS,
        batch=16,
        resolution=16,
        train={"precision": precision},
        method="simclr",
        encoder={"name": "resnet18", "width": 0.125},
        checkpoint={"every_minutes": 1e-5},  # at every step
    )


def _log(out: Path) -> Path:
    return out.with_suffix(".log")


def _kill_half_way(process: Any, run: Path) -> int:
    """SIGKILL as soon as something trained is saved: nothing in the process can soften that."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        names = [path.name for path in (run / "checkpoints").glob("step-*[0-9]")]
        saved = max((int(name.removeprefix("step-")) for name in names), default=0)
        if saved > 0:  # step 0 is what every run starts from
            process.kill()
            process.join()
            return saved
        if not process.is_alive():
            _finish(process, run)
            break
        time.sleep(0.005)
    raise SelfsupError("E208", "the self-test saved no checkpoint")


def _finish(process: Any, run: Path) -> None:
    process.join(PATIENCE)
    if process.exitcode is None:
        raise SelfsupError("E208", f"the self-test took more than {PATIENCE:.0f} s")
    if process.exitcode:
        last = " / ".join(_log(run).read_text(encoding="utf-8").strip().splitlines()[-4:])
        raise SelfsupError("E208", f"the self-test ended with exit code {process.exitcode}: {last}")


def _differences(one: Path, other: Path) -> str:
    """Names of the tensors that differ in the last checkpoints of two runs."""
    from safetensors.numpy import load_file

    lost = []
    for file in ("method.safetensors", "optimizer.safetensors", "encoder.safetensors"):
        tensors = []
        for run in (one, other):
            last = sorted((run / "checkpoints").glob("step-*[0-9]"))[-1]
            tensors.append(load_file(last / file))
        names = sorted(tensors[0].keys() | tensors[1].keys())
        for name in names:
            a, b = (t.get(name) for t in tensors)
            if a is None or b is None or a.tobytes() != b.tobytes():
                lost.append(f"{file}:{name}")
    return ", ".join(lost[:3]) + (f" and {len(lost) - 3} more" if len(lost) > 3 else "")
