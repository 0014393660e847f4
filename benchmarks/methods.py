"""Every method on the same data under the same budget: `python -m benchmarks.methods`.

    SELFSUP_DATA=... python -m benchmarks.methods --minutes 2
    SELFSUP_DATA=... python -m benchmarks.methods --epochs 4 --methods simclr,byol --seeds 0,1

    ... --minutes 1 --methods byol --try "" --try method.momentum=0.9 --try "optim.lr=0.01 ..."

Each run is `selfsup pretrain` in a process of its own, with the encoder that its kind of method has
here and all else chosen; then kNN and a linear probe of the last step, beside the same encoder
untrained and the classical features. Rows go into benchmarks/methods.json as they come, one for
each data set, budget, method and seed; a row that is there is not measured again. `python -m
recipes` writes them into docs/methods.md.

Nothing is tuned on the test part: what `--try` tries is judged by a part of the training labels,
and its rows are the search that benchmarks/search.json keeps.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import selfsup
from recipes import data, fsdd_simclr
from selfsup import listing
from selfsup.logs import replace

ROWS = Path(__file__).parent / "methods.json"
SEARCH = ROWS.with_name("search.json")
UNFIT = "E202"  # the method cannot use the encoder


class Set(NamedTuple):
    """Data to learn from and the labelled data to be judged by; encoders, of which a method gets
    the first that it can use, and what else is set for all methods."""

    ready: Callable[[], tuple[Path | str, Path | str]]
    encoders: tuple[dict[str, Any], ...]
    settings: dict[str, Any]


def pictures(archive: str, name: str) -> tuple[Path, Path]:
    folder = data(archive, name)
    return folder / "train", folder


def digits() -> tuple[Path, Path]:
    return fsdd_simclr.tables(stranger="lucas")  # not the one whose figures chose the views


def series(name: str) -> tuple[Path, Path]:
    folder = data("timeseries/ucr_uea_ts.tar.gz", "ucr_uea") / name
    return folder / f"{name}_TRAIN.ts", folder


def news() -> tuple[Path, str]:
    folder = Path(os.environ["SELFSUP_DATA"]) / "text"
    return folder / "ag_news_train.csv", f"{folder}/ag_news_*.csv"


def cora() -> tuple[Path, Path]:
    folder = data("graphs/cora.tar.gz", "cora")
    return folder, folder


SETS = {
    "cifar10": Set(
        partial(pictures, "images/cifar10_jpg.tar.gz", "cifar10"),
        (
            {"name": "resnet18", "width": 0.5, "stem": 2},
            {"name": "vit_tiny", "depth": 4, "patch": 4},
            {"name": "vit_tiny", "depth": 4, "patch": 4, "causal": True},
        ),
        {"data.resolution": 32},
    ),
    "imagenette": Set(
        partial(pictures, "images/imagenette128.tar.gz", "imagenette128"),
        (
            {"name": "resnet18", "width": 0.25, "stem": 4},
            {"name": "vit_tiny", "depth": 4, "patch": 16},
            {"name": "vit_tiny", "depth": 4, "patch": 16, "causal": True},
        ),
        {"data.resolution": 128},
    ),
    "fsdd": Set(
        digits,
        (
            {"name": "mel_tiny", "depth": 4},
            {"name": "mel_tiny", "depth": 4, "causal": True},
        ),
        {},
    ),
    "ag_news": Set(
        news,
        (
            {"name": "bert_micro", "depth": 2},
            {"name": "bert_micro", "depth": 2, "dropout": 0.5},
            {"name": "gpt_micro", "depth": 2},
        ),
        {},
    ),
    "basicmotions": Set(
        partial(series, "BasicMotions"),
        ({"name": "dilated_small"}, {"name": "vit_tiny", "depth": 3}),
        {},
    ),
    "cora": Set(cora, ({"name": "gcn", "hidden": 512, "dim": 256}, {"name": "gat"}), {}),
}


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.methods", description=__doc__)
    parser.add_argument("--set", choices=[*SETS], default="cifar10")
    length = parser.add_mutually_exclusive_group(required=True)
    length.add_argument("--minutes", type=float)
    length.add_argument("--epochs", type=float)
    parser.add_argument("--methods", default="", help="parted by commas; default: all that apply")
    parser.add_argument("--seeds", default="0,1")
    parser.add_argument("--try", dest="tried", action="append", metavar="KEY=VALUE ...")
    given = parser.parse_args(arguments)
    length = ("minutes", given.minutes) if given.minutes else ("epochs", given.epochs)
    budget = f"{length[1]:g} {length[0]}"
    names = given.methods.split(",") if given.methods else [*listing.methods()]
    file = ROWS if given.tried is None else SEARCH
    for seed, tried, name in product(map(int, given.seeds.split(",")), given.tried or [""], names):
        key = {"set": given.set, "budget": budget, "method": name, "tried": tried, "seed": seed}
        if any(key.items() <= row.items() for row in rows(file)):
            continue
        row = measure(SETS[given.set], name, seed, length, tried.split(), file == SEARCH)
        if row is None:
            print(f"{name}: does not apply to {given.set}", flush=True)
            continue
        put(key | row, file)
        found = row["linear"]["pretrained"][0], row["knn"]["pretrained"][0]
        print(f"{name} {tried}, seed {seed}: linear {found[0]}, kNN {found[1]}", flush=True)


def rows(file: Path = ROWS) -> list[dict[str, Any]]:
    return json.loads(file.read_text()) if file.exists() else []


def put(row: dict[str, Any], file: Path = ROWS) -> None:
    order = ("set", "budget", "method", "tried", "seed")
    found = sorted([*rows(file), row], key=lambda r: [r[key] for key in order])
    lines = ",\n".join(json.dumps(r) for r in found)
    replace(file, f"[\n{lines}\n]\n".encode())


def measure(
    pool: Set,
    name: str,
    seed: int,
    length: tuple[str, float],
    settings: list[str],
    validation: bool = False,
) -> dict[str, Any] | None:
    """One run and its judgement; none where the method can use none of the encoders."""
    unlabelled, labelled = pool.ready()
    labelled = unlabelled if validation else labelled  # its own split into parts
    with tempfile.TemporaryDirectory(prefix="selfsup-methods-") as temporary:
        out = Path(temporary) / "run"
        for encoder in pool.encoders:
            command = [sys.executable, "-m", "selfsup", "pretrain", str(unlabelled), "--json"]
            command += ["--quiet", "--out", str(out), "--method", name, "--seed", str(seed)]
            command += ["--labels", str(labelled), f"--{length[0]}", str(length[1])]
            own = {f"encoder.{key}": value for key, value in encoder.items()} | pool.settings
            command += [f"--set={key}={value}" for key, value in own.items()]
            command += [f"--set={setting}" for setting in settings]
            process = subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
            )
            assert process.stdout is not None
            told = json.loads(process.stdout.read())
            _, status, usage = os.wait4(process.pid, 0)
            if "settings" in told:
                break
            if told["error"]["code"] != UNFIT:
                raise SystemExit(f"{name}: {told}")
        else:
            return None
        found = selfsup.evaluate(out, labelled, shots=(), finetune=False, seed=seed, write=False)
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
