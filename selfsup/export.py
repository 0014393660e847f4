"""An encoder to take away: weights and preprocessing in one folder, proved in a clean process.

The folder holds encoder.safetensors, encoder.json (what to build and how to prepare a sample) and
MANIFEST.json (sizes and hashes). `selfsup.load` opens it wherever it is copied to. The same encoder
gives the same bytes whenever it is exported.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from jaxtyping import Float, UInt8

from . import faults
from .checkpoint import write_tensors
from .errors import SelfsupError
from .load import CARD, WEIGHTS, LoadedEncoder, load
from .logs import disk_error, replace
from .stop import stop

T = TypeVar("T")

FORMATS = ("safetensors", "timm")
MANIFEST = "MANIFEST.json"
MODEL = "model.json"  # beside it, where the folder is a model of `finetune`
TOLERANCE = 1e-5  # largest difference allowed, beside the largest value
SAMPLES = (
    (96, 128),
    (64, 64),
    (33, 200),
    (400, 301),
    (17, 19),
)  # height and width of test pictures
PATIENCE = 600  # seconds for the clean process


@dataclass(frozen=True)
class Exported:
    """What was written; `max_abs_error` is that of the reloaded encoder in another process."""

    path: str
    format: str
    files: dict[str, dict[str, Any]]
    max_abs_error: float | None
    compared: int

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def __str__(self) -> str:
        lines = [f"exported to {self.path}"]
        for name, entry in self.files.items():
            lines.append(f"  {name}  {entry['bytes']} bytes  sha256 {entry['sha256']}")
        if self.max_abs_error is None:
            lines.append("not compared: timm is not installed here (pip install selfsup[timm])")
        else:
            lines.append(
                f"reloaded in a clean process: largest difference {self.max_abs_error:.3g} over "
                f"{self.compared} numbers"
            )
        return "\n".join(lines)


def export(
    run: Any,
    to: str = "safetensors",
    out: str | Path | None = None,
    *,
    tower: str | None = None,
) -> Exported:
    """Write the encoder of a run to a folder, by default RUN/exports/FORMAT.

    With `tower` one of several towers alone, into RUN/exports/FORMAT-TOWER. `to` is "safetensors",
    which `selfsup.load` opens, or "timm", which `timm.create_model("local-dir:FOLDER",
    pretrained=True)` does.

    The folder appears whole or not at all, after a fresh process has loaded it and computed the
    same vectors from the same pictures. An earlier export there is replaced.
    Raises SelfsupError: E604 when the vectors differ, E605 when `out` is something else than an
    export, E607 for an unknown format, and what `load` raises.
    """
    if to not in FORMATS:
        raise SelfsupError("E607", f"there is no format {to!r}", why=f"known: {', '.join(FORMATS)}")
    encoder = run if isinstance(run, LoadedEncoder) else load(run)
    encoder = encoder if tower is None else encoder.tower(tower)
    if out is None:
        if isinstance(run, LoadedEncoder):
            raise SelfsupError("E605", "no folder to export to", do="give out=FOLDER")
        out = (
            Path(getattr(run, "path", run)) / "exports" / (to if tower is None else f"{to}-{tower}")
        )
    out = Path(out)
    refuse(out)

    def make(folder: Path) -> tuple[float | None, int, dict[str, dict[str, Any]]]:
        if to == "timm":
            return *_as_timm(encoder, folder), manifest(
                folder, ("model.safetensors", "config.json")
            )
        _write(encoder, folder)
        faults.at("export.prove")
        error, compared = compare(vectors(encoder), "selfsup.export", folder)
        return error, compared, manifest(folder, (WEIGHTS, CARD))

    error, compared, files = place(out, make, _size(encoder))
    return Exported(str(out), to, files, error, compared)


def refuse(out: Path, *, model: bool = False) -> None:
    """Raises SelfsupError E605 where something lies that is no export, or no `model`."""
    known = (out / MANIFEST).is_file() and (out / MODEL).exists() == model
    if out.exists() and not known:
        raise SelfsupError(
            "E605",
            f"{out} exists and is no {'model' if model else 'export'}",
            where=str(out),
            do="give another --out, or remove it",
        )


def place(out: Path, make: Callable[[Path], T], needed: int) -> T:
    """Let `make` fill a folder, then give it its name: it appears whole or not at all."""
    out.parent.mkdir(parents=True, exist_ok=True)
    with stop.installed():
        temporary = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
        try:
            made = make(temporary)
            temporary.chmod(0o755)  # mkdtemp's 0700 would keep colleagues out
            with stop.polled():  # the old one is gone for a moment
                if out.exists():
                    shutil.rmtree(out)
                faults.at("export.place")
                temporary.rename(out)
        except OSError as problem:
            raise disk_error(problem, out, needed) from problem
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    return made


def _write(encoder: LoadedEncoder, folder: Path) -> None:
    write_tensors(folder / WEIGHTS, encoder.encoder.state_dict())
    card = json.dumps(encoder.card.to_json(), indent=1)
    replace(folder / CARD, card.encode() + b"\n")


def _as_timm(encoder: LoadedEncoder, folder: Path) -> tuple[float | None, int]:
    """The largest difference to timm's network, over how many numbers; None where it is missing."""
    import torch

    from . import layouts

    weights, config = layouts.timm(encoder)
    write_tensors(folder / layouts.WEIGHTS, weights)
    replace(folder / layouts.CONFIG, json.dumps(config, indent=1).encode() + b"\n")
    if find_spec("timm") is None:
        return None, 0
    with torch.inference_mode():
        here = encoder.encoder.eval()(layouts.inputs(config).to(encoder.device)).cpu().numpy()
    return compare(here, "selfsup.layouts", folder)


def compare(here: Float[np.ndarray, "..."], module: str, folder: Path) -> tuple[float, int]:
    """The same numbers from a fresh process that knows the folder alone: largest difference, count.

    `module` is run with the folder and the file to write them to.
    """
    stop.check()
    with tempfile.TemporaryDirectory() as elsewhere:
        answer = Path(elsewhere) / "vectors.npy"
        environment = {
            key: value
            for key, value in os.environ.items()
            if not key.startswith("SELFSUP_") and key != "PYTHONSTARTUP"
        }
        environment["PYTHONPATH"] = str(Path(__file__).resolve().parent.parent)
        try:
            done = subprocess.run(
                [sys.executable, "-m", module, str(folder.resolve()), str(answer)],
                cwd=elsewhere,
                env=environment,
                capture_output=True,
                text=True,
                timeout=PATIENCE,
            )
        except subprocess.TimeoutExpired:
            raise SelfsupError(
                "E604",
                f"a clean process did not load the export within {PATIENCE} s",
                where=str(folder),
                do="try again when the machine has less to do; nothing was written",
            ) from None
        if done.returncode != 0:
            lines = done.stderr.strip().splitlines() or ["no message"]
            raise SelfsupError(
                "E604",
                "a clean process could not load the export",
                where=str(folder),
                why=lines[-1],
            )
        there = np.load(answer, allow_pickle=False)
    if there.shape != here.shape:
        raise SelfsupError(
            "E604", f"the copy gives numbers of shape {there.shape} instead of {here.shape}"
        )
    error = float(np.abs(here - there).max())
    if not error <= TOLERANCE * max(1.0, float(np.abs(here).max())):
        raise SelfsupError(
            "E604",
            f"what the copy computes differs by {error:.3g}",
            where=str(folder),
            why="the largest value is " + f"{np.abs(here).max():.3g}",
            do="report this; nothing was written",
        )
    return error, here.size


def vectors(encoder: LoadedEncoder) -> Float[np.ndarray, "n d"]:
    """Vectors of some made-up samples in float32: all of preprocessing takes part."""
    import torch

    samples = encoder.modality.examples()
    data: list[Any] = [[sample] for sample in samples] or [p[None] for p in pictures()]
    rows = [encoder.embed(sample, precision="fp32") for sample in data]
    together = [encoder.preprocess(sample)[None] for sample in samples or pictures()]
    with torch.inference_mode():
        rows.append(encoder(torch.cat(together).to(encoder.device)).cpu().numpy())
    return np.concatenate(rows)


def pictures() -> list[UInt8[np.ndarray, "h w 3"]]:
    """Noise on slopes, of several sizes and shapes; the same in every process."""
    generator = np.random.Generator(np.random.Philox(20260101))
    made = []
    for height, width in SAMPLES:
        rows, columns = np.mgrid[0:height, 0:width]
        slope = (rows[..., None] * [1, 2, 0] + columns[..., None] * [2, 0, 1]) % 256
        noise = generator.integers(0, 64, (height, width, 3))
        made.append(((slope * 3 + noise * 4) // 4).clip(0, 255).astype(np.uint8))
    return made


def manifest(folder: Path, names: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Write MANIFEST.json: sizes and hashes of these files."""
    files = {}
    for name in names:
        content = (folder / name).read_bytes()
        files[name] = {
            "bytes": len(content),
            "sha256": hashlib.sha256(content).hexdigest(),
            "blake2b": hashlib.blake2b(content, digest_size=32).hexdigest(),
        }
    replace(
        folder / MANIFEST, (json.dumps({"format": 1, "files": files}, indent=1) + "\n").encode()
    )
    return files


def _size(encoder: LoadedEncoder) -> int:
    return sum(x.numel() * x.element_size() for x in encoder.encoder.state_dict().values())


if __name__ == "__main__":  # the clean process: FOLDER ANSWER
    np.save(sys.argv[2], vectors(load(sys.argv[1])), allow_pickle=False)
