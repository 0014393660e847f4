"""Every method on the same data under the same budget: `python -m benchmarks.methods`.

    SELFSUP_DATA=... python -m benchmarks.methods --minutes 2
    SELFSUP_DATA=... python -m benchmarks.methods --epochs 4 --methods simclr,byol --seeds 0,1

Each run is `selfsup pretrain` in a process of its own, with the encoder that its kind of method has
here and all else chosen; then kNN and a linear probe of the last step, beside the same encoder
untrained and pixels + PCA. Rows go into benchmarks/methods.json as they come, one for each data
set, budget, method and seed; a row that is there is not measured again. `python -m recipes` writes
them into docs/methods.md. Nothing is tuned on the test part.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import selfsup
from recipes import data
from selfsup import listing, modalities
from selfsup.errors import SelfsupError
from selfsup.logs import replace

ROWS = Path(__file__).parent / "methods.json"


class Set(NamedTuple):
    """Labelled pictures, of which train/ is learned from. Encoders: for all methods, for those that
    need tokens."""

    archive: str
    folder: str
    resolution: int
    encoders: tuple[dict[str, Any], dict[str, Any]]


SETS = {
    "cifar10": Set(
        "images/cifar10_jpg.tar.gz",
        "cifar10",
        32,
        (
            {"name": "resnet18", "width": 0.5, "stem": 2},
            {"name": "vit_tiny", "depth": 4, "patch": 4},
        ),
    ),
    "imagenette": Set(
        "images/imagenette128.tar.gz",
        "imagenette128",
        128,
        (
            {"name": "resnet18", "width": 0.25, "stem": 4},
            {"name": "vit_tiny", "depth": 4, "patch": 16},
        ),
    ),
}


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.methods", description=__doc__)
    parser.add_argument("--set", choices=[*SETS], default="cifar10")
    length = parser.add_mutually_exclusive_group(required=True)
    length.add_argument("--minutes", type=float)
    length.add_argument("--epochs", type=float)
    parser.add_argument("--methods", default="", help="parted by commas; default: all that apply")
    parser.add_argument("--seeds", default="0,1")
    given = parser.parse_args(arguments)
    budget = f"{given.minutes:g} minutes" if given.minutes else f"{given.epochs:g} epochs"
    names = given.methods.split(",") if given.methods else [*listing.methods()]
    for seed in map(int, given.seeds.split(",")):
        for name in names:
            key = {"set": given.set, "budget": budget, "method": name, "seed": seed}
            if any(key.items() <= row.items() for row in rows()):
                continue
            encoder = fitting(name, SETS[given.set])
            if encoder is None:
                print(f"{name}: does not apply to {given.set}", flush=True)
                continue
            row = key | measure(SETS[given.set], name, seed, encoder, given)
            put(row)
            print(f"{name}, seed {seed}: linear {row['linear']['pretrained'][0]}", flush=True)


def rows() -> list[dict[str, Any]]:
    return json.loads(ROWS.read_text()) if ROWS.exists() else []


def put(row: dict[str, Any]) -> None:
    order = ("set", "budget", "method", "seed")
    found = sorted([*rows(), row], key=lambda r: [r[key] for key in order])
    lines = ",\n".join(json.dumps(r) for r in found)
    replace(ROWS, f"[\n{lines}\n]\n".encode())


def fitting(name: str, pictures: Set) -> dict[str, Any] | None:
    """The first of the encoders that the method can use."""
    from selfsup.plan import SHORT
    from selfsup.settings import method_class

    small = {k.removeprefix("method."): v for k, v in SHORT.get(name, {}).items() if "method." in k}
    for settings in pictures.encoders:
        keywords = dict(settings)
        made = modalities.find("image")().encoder(
            keywords.pop("name"), pictures.resolution, **keywords
        )
        try:
            method_class(name)(made, **small)
        except SelfsupError:
            continue
        return settings
    return None


def measure(
    pictures: Set, name: str, seed: int, encoder: dict[str, Any], given: argparse.Namespace
) -> dict[str, Any]:
    """One run and its judgement."""
    folder = data(pictures.archive, pictures.folder)
    with tempfile.TemporaryDirectory(prefix="selfsup-methods-") as temporary:
        out = Path(temporary) / "run"
        command = [sys.executable, "-m", "selfsup", "pretrain", str(folder / "train"), "--json"]
        command += ["--quiet", "--out", str(out), "--method", name, "--seed", str(seed)]
        command += ["--resolution", str(pictures.resolution), "--labels", str(folder)]
        length = ("minutes", given.minutes) if given.minutes else ("epochs", given.epochs)
        command += [f"--{length[0]}", str(length[1])]
        command += [f"--set=encoder.{key}={value}" for key, value in encoder.items()]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        told = json.loads(process.stdout.read())
        _, status, usage = os.wait4(process.pid, 0)
        if "settings" not in told:
            raise SystemExit(f"{name}: {told}")
        found = selfsup.evaluate(out, folder, shots=(), finetune=False, seed=seed, write=False)
        scores = found.to_json()["scores"]
        curve = [
            [round(row["time"], 1), round(100 * row["eval/knn_top1"], 1)]
            for row in selfsup.Run(out).metrics.read()
            if "eval/knn_top1" in row
        ]

    def of(protocol: str) -> dict[str, list[float]]:
        mine = [row for row in scores if row["protocol"] == protocol]
        return {r["of"]: [round(100 * r[k], 1) for k in ("value", "low", "high")] for r in mine}

    rank = [
        r["value"] for r in scores if (r["protocol"], r["of"]) == ("effective_rank", "pretrained")
    ]
    return {
        "encoder": encoder,
        "health": told["verdict"],
        "exit_code": os.waitstatus_to_exitcode(status),
        "steps": told["step"],
        "epochs": round(told["epochs"], 2),
        "seconds": round(told["seconds"], 1),
        "samples_per_second": round(told["samples_per_second"], 1),
        "memory_gib": round(usage.ru_maxrss / 2**20, 2),
        "cores": os.cpu_count(),
        "linear": of("linear"),
        "knn": of("knn"),
        "effective_rank": round(rank[0], 1),
        "knn_over_seconds": curve,
    }


if __name__ == "__main__":
    main()
