"""Every method on the same data under the same budget: `python -m benchmarks.methods`.

    SELFSUP_DATA=... python -m benchmarks.methods --minutes 2
    SELFSUP_DATA=... python -m benchmarks.methods --epochs 4 --methods simclr,byol --seeds 0,1

    ... --minutes 2 --methods simclr,vicreg,dino --encoder 1
    ... --minutes 1 --methods byol --try "" --try method.momentum=0.9 --try "optim.lr=0.01 ..."

Each run is `selfsup pretrain` in a process of its own, with the encoder that its kind of method has
here, or with `--encoder` the set's encoder of that number, and all else chosen; then kNN and a
linear probe of the last step, beside the same encoder untrained and the classical features. Rows go
into benchmarks/methods.json as they come, one for each data set, budget, method, encoder and seed;
a row that is there is not measured again. `python -m recipes` writes them into docs/methods.md.

Nothing is tuned on the test part: what `--try` tries is judged by a part of the training labels,
and its rows are the search that benchmarks/search.json keeps.
"""

import argparse
import csv
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from platformdirs import user_cache_path

import selfsup
from recipes import as_given, data, fsdd_simclr
from selfsup import listing
from selfsup.data import open_source, open_store
from selfsup.data.proteins import Fasta, marks
from selfsup.data.seen import seen_as
from selfsup.evaluate import controls, knn, linear
from selfsup.evaluate.controls import PRETRAINED, UNTRAINED
from selfsup.evaluate.features import extract, readable
from selfsup.evaluate.interval import over_samples, over_seeds
from selfsup.evaluate.judge import NETWORKS
from selfsup.evaluate.split import split
from selfsup.evaluate.structure import effective_rank
from selfsup.logs import replace
from selfsup.randomness import mix

ROWS = Path(__file__).parent / "methods.json"
SEARCH = ROWS.with_name("search.json")
UNFIT = "E202"  # the method cannot use the encoder
TEACHERS = {"distill": "simclr"}  # what teaches it: a run of the same seed under the same budget
PIECE, EVERY = 16, 20  # residues of a piece of a protein; so many-th proteins teach the probe


class Set(NamedTuple):
    """Data to learn from, labelled data to be judged by, labels to choose settings by (none of the
    test part); encoders, of which a method gets the first that it can use, and what else is set for
    all methods."""

    ready: Callable[[], tuple[Path | str, Path | str, Path | str]]
    modality: str
    encoders: tuple[dict[str, Any], ...]
    settings: dict[str, Any]


def pictures(archive: str, name: str, labels: int, step: int = 1) -> tuple[Path, Path, Path]:
    """Every `step`-th training picture; tables of every so many-th picture of both parts and of the
    training part, about `labels` of the latter."""
    folder = data(archive, name)
    found = [path.relative_to(folder) for path in sorted(folder.glob("*/*/*.*"))]
    train = [path for path in found if path.parts[0] == "train"]
    every = round(len(train) / labels) or 1
    rows = [(path, path.parts[1], path.parts[0]) for path in found[::every]]
    labelled = table(folder / f"every_{every}.csv", "path,label,split", rows)
    taught = [row[:2] for row in rows if row[2] == "train"]
    chosen = table(folder / f"every_{every}_train.csv", "path,label", taught)
    if step == 1:
        return folder / "train", labelled, chosen
    some = [(path,) for path in train[::step]]
    return table(folder / f"train_every_{step}.csv", "path", some), labelled, chosen


def table(path: Path, head: str, rows: Iterable[tuple]) -> Path:
    """A file that stays untouched where it says the same already: so does the store made of it."""
    content = "\n".join([head, *(",".join(map(str, row)) for row in rows), ""]).encode()
    if not path.is_file() or path.read_bytes() != content:
        replace(path, content)
    return path


def judging(folder: Path, sample: str, rows: list[tuple[str, str, str]]) -> tuple[Path, Path]:
    """Tables of samples, labels and parts, where all that does not teach tests; and of what
    teaches."""
    head = f"{sample},label,split"
    taught = [row for row in rows if row[2] == "train"]
    tested = [(*row[:2], "test") for row in rows if row[2] != "train"]
    labelled = table(folder / "labelled.csv", head, taught + tested)
    return labelled, table(folder / "taught.csv", head, taught)


def digits() -> tuple[Path, Path, Path]:
    heard, table = fsdd_simclr.tables(stranger="lucas")  # not the one whose figures chose the views
    return heard, table, heard


def series(name: str) -> tuple[Path, Path, Path]:
    folder = data("timeseries/ucr_uea_ts.tar.gz", "ucr_uea") / name
    return folder / f"{name}_TRAIN.ts", folder, folder / f"{name}_TRAIN.ts"


def news() -> tuple[Path, str, Path]:
    folder = as_given("text")
    train = folder / "ag_news_train.csv"
    return train, f"{folder}/ag_news_*.csv", train


def cora() -> tuple[Path, Path, Path]:
    folder = data("graphs/cora.tar.gz", "cora")
    return folder, folder, folder


def molecules() -> tuple[Path, Path, Path]:
    """Those that disturb mitochondria and as many that do not, and 41,127 others to learn from."""
    with as_given("molecules/tox21.csv").open(newline="") as file:
        rows = [(r["smiles"], r["SR-MMP"], r["split"]) for r in csv.DictReader(file)]
    active, idle = ([row for row in rows if row[1] == found] for found in "10")
    rows = active + idle[:: len(idle) // len(active)][: len(active)]
    folder = user_cache_path("selfsup") / "recipes" / "tox21"
    folder.mkdir(parents=True, exist_ok=True)
    return (as_given("molecules/hiv.csv.gz"), *judging(folder, "smiles", rows))


def structures() -> tuple[Path, Path, Path]:
    """Proteins to learn from; pieces of them, each with the structure that most of it has."""
    folder = data("proteins/flip_secondary_structure.tar.gz", "flip_secondary_structure")
    files = [str(folder / f"{name}.fasta") for name in ("sequences", "sampled", "mask")]
    letters, classes, known = map(marks, files)
    source = Fasta(files[1:2], files[1])
    codes, names = source.splits()
    parts = {source.name(i): names[code] for i, code in enumerate(codes)}
    train = [name for name, part in parts.items() if part == "train"]
    rows = []
    for name in [*train[::EVERY], *(name for name, part in parts.items() if part == "test")]:
        for start in range(0, len(letters[name]) - PIECE + 1, PIECE):
            own = slice(start, start + PIECE)
            if "0" not in known[name][own]:
                most = max("CEH", key=classes[name][own].count)
                rows.append((letters[name][own], most, parts[name]))
    learned = table(folder / "train.csv", "sequence", [(letters[name],) for name in train])
    return (learned, *judging(folder, "sequence", rows))


def lips() -> tuple[Path, Path, Path]:
    """The first word of a sentence; who says it is the same in all parts."""
    folder = data("video/grid_s1_lips.tar.gz", "grid_s1_lips")
    with (folder / "labels.csv").open(newline="") as file:
        rows = [(f"video/{r['file']}", r["command"], r["split"]) for r in csv.DictReader(file)]
    labelled, taught = judging(folder, "path", rows)
    return taught, labelled, taught


def emoji() -> tuple[Path, Path, Path]:
    """Drawings with their names and keywords, by category; those that test are not learned from."""
    made = data("imagetext/noto_emoji72.tar.gz", "noto_emoji72") / "emoji.csv"
    return made, made, made


CIFAR10 = Set(
    partial(pictures, "images/cifar10_jpg.tar.gz", "cifar10", 17_000),
    "image",
    (
        {"name": "resnet18", "width": 0.25, "stem": 2},
        {"name": "vit_tiny", "depth": 4, "patch": 4},
        {"name": "vit_tiny", "depth": 4, "patch": 4, "causal": True},
        {"name": "vit_tiny", "depth": 4, "patch": 8},
    ),
    {"data.resolution": 32},
)
BASICMOTIONS = Set(
    partial(series, "BasicMotions"),
    "series",
    (
        {"name": "dilated_small"},
        {"name": "vit_tiny", "depth": 3},
        {"name": "vit_tiny", "depth": 3, "causal": True},
    ),
    {},
)
GIN = {"name": "gin", "pool": "sum", "jump": True, "norm": True}
SETS = {
    "cifar10": CIFAR10,
    "cifar10_5k": CIFAR10._replace(
        ready=partial(CIFAR10.ready, step=10),
        settings={"data.resolution": 32, "train.batch": 32},
    ),
    "imagenette": Set(
        partial(pictures, "images/imagenette128.tar.gz", "imagenette128", 4_200),
        "image",
        (
            {"name": "resnet18", "width": 0.25, "stem": 4},
            {"name": "vit_tiny", "depth": 4, "patch": 16},
            {"name": "vit_tiny", "depth": 4, "patch": 16, "causal": True},
        ),
        {"data.resolution": 128},
    ),
    "fsdd": Set(
        digits,
        "audio",
        (
            {"name": "mel_tiny", "depth": 4},
            {"name": "mel_tiny", "depth": 4, "causal": True},
        ),
        {},
    ),
    "ag_news": Set(
        news,
        "text",
        (
            {"name": "bert_micro", "depth": 2},
            {"name": "bert_micro", "depth": 2, "dropout": 0.5},
            {"name": "gpt_micro", "depth": 2},
        ),
        {},
    ),
    "basicmotions": BASICMOTIONS,
    "acsf1": BASICMOTIONS._replace(ready=partial(series, "ACSF1")),
    "cora": Set(
        cora,
        "network",
        (
            {"name": "gcn", "hidden": 512, "dim": 256},
            {"name": "gcn", "hidden": 512, "dim": 256, "drop": 0.1},
        ),
        {},
    ),
    "tox21": Set(molecules, "graph", (GIN, GIN | {"drop": 0.1}), {}),
    "structures": Set(
        structures,
        "protein",
        (
            {"name": "carp_micro"},
            {"name": "carp_micro", "dropout": 0.5},
            {"name": "gpt_micro", "depth": 2},
        ),
        {"data.resolution": 64},
    ),
    "lips": Set(
        lips,
        "video",
        (
            {"name": "vit_tiny", "depth": 4, "patch": 16, "tubelet": 4},
            {"name": "vit_tiny", "depth": 4, "patch": 16, "tubelet": 4, "causal": True},
        ),
        {"data.resolution": 64},
    ),
    "emoji": Set(emoji, "pairs", ({"name": "towers_micro"},), {"data.resolution": 48}),
}


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.methods", description=__doc__)
    parser.add_argument("--set", choices=[*SETS], default="cifar10")
    length = parser.add_mutually_exclusive_group(required=True)
    length.add_argument("--minutes", type=float)
    length.add_argument("--epochs", type=float)
    parser.add_argument("--methods", default="", help="parted by commas; default: all that apply")
    parser.add_argument(
        "--encoder", type=int, help="which of the set's, from 0; default: the first fit"
    )
    parser.add_argument("--seeds", default="0,1")
    parser.add_argument("--try", dest="tried", action="append", metavar="KEY=VALUE ...")
    given = parser.parse_args(arguments)
    length = ("minutes", given.minutes) if given.minutes else ("epochs", given.epochs)
    budget = f"{length[1]:g} {length[0]}"
    names = given.methods.split(",") if given.methods else [*listing.methods()]
    file = ROWS if given.tried is None else SEARCH
    pool, asked = SETS[given.set], {}
    if given.encoder is not None:
        pool = pool._replace(encoders=(pool.encoders[given.encoder],))
        asked = {"encoder": pool.encoders[0], "asked": True}
    for seed, tried, name in product(map(int, given.seeds.split(",")), given.tried or [""], names):
        key = {"set": given.set, "budget": budget, "method": name, "tried": tried, "seed": seed}
        found = [row for row in rows(file) if key.items() <= row.items()]
        if any(
            row["encoder"] == asked["encoder"] if asked else "asked" not in row for row in found
        ):
            continue
        known = {json.dumps(r["encoder"]): r for r in rows(file) if r["set"] == given.set}
        row = measure(pool, name, seed, length, tried.split(), known, file == SEARCH)
        if isinstance(row, str):
            print(f"{name}, seed {seed}: left out of {given.set}: {row}", flush=True)
            continue
        put(key | row | asked, file)
        scores = row["linear"]["pretrained"][0], row["knn"]["pretrained"][0]
        print(f"{name} {tried}, seed {seed}: linear {scores[0]}, kNN {scores[1]}", flush=True)


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
    known: dict[str, dict[str, Any]],
    validation: bool = False,
) -> dict[str, Any] | str:
    """One run and its judgement; why not, where the method can use none of the encoders."""
    unlabelled, labelled, chosen_by = pool.ready()
    if validation and chosen_by == labelled:
        raise SystemExit("these data have no labels apart from the test part to choose by")
    labelled = chosen_by if validation else labelled
    with tempfile.TemporaryDirectory(prefix="selfsup-methods-") as temporary:
        train = partial(trained, pool, unlabelled, labelled, seed, length)
        taught = {}
        if name in TEACHERS:
            taught = {"teacher": TEACHERS[name]}
            teacher = Path(temporary) / "teacher"
            settings = [*settings, f"method.teacher={teacher}"]
            made = train(TEACHERS[name], [], teacher)
            if isinstance(made, str):
                return f"no {TEACHERS[name]} to teach it: {made}"
        out = Path(temporary) / "run"
        made = train(name, settings, out)
        if isinstance(made, str):
            return made
        encoder, told, status, memory = made
        run = selfsup.Run(out)
        curve = [
            [round(row["time"], 1), round(100 * row["eval/knn_top1"], 1)]
            for row in run.metrics.read()
            if "eval/knn_top1" in row
        ]
        return {
            "encoder": encoder,
            **taught,
            "health": told["verdict"],
            "verdicts": [
                [row["step"], row["verdict"], row["message"]]
                for row in run.events.read()
                if row["kind"] == "verdict"
            ],
            "exit_code": os.waitstatus_to_exitcode(status),
            "steps": told["step"],
            "epochs": round(told["epochs"], 2),
            "seconds": round(told["seconds"], 1),
            "samples_per_second": round(told["samples_per_second"], 1),
            "memory_gib": round(memory, 2),
            "cores": os.cpu_count(),
            **judged(out, labelled, seed, known.get(json.dumps(encoder))),
            "knn_over_seconds": curve,
        }


def trained(
    pool: Set,
    unlabelled: Path | str,
    labelled: Path | str,
    seed: int,
    length: tuple[str, float],
    name: str,
    settings: list[str],
    out: Path,
) -> tuple[dict[str, Any], dict[str, Any], int, float] | str:
    """The first encoder that the method can use, what the run told, its exit status and memory in
    GiB; why not, where it can use none."""
    why = ""
    for encoder in pool.encoders:
        command = [sys.executable, "-m", "selfsup", "pretrain", str(unlabelled), "--json"]
        command += ["--quiet", "--out", str(out), "--method", name, "--seed", str(seed)]
        command += ["--labels", str(labelled), f"--{length[0]}", str(length[1])]
        own = {f"encoder.{key}": value for key, value in encoder.items()} | pool.settings
        command += [f"--set={key}={str(value).lower()}" for key, value in own.items()]
        command += [f"--set={setting}" for setting in settings]
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        assert process.stdout is not None
        told = json.loads(process.stdout.read())
        _, status, usage = os.wait4(process.pid, 0)
        if "settings" in told:
            return encoder, told, status, usage.ru_maxrss / 2**20
        if told["error"]["code"] != UNFIT:
            raise SystemExit(f"{name}: {told}")
        why = f"{told['error']['what']}: {told['error']['why']}"
    return why


def judged(
    run: Path, labelled: Path | str, seed: int, known: dict[str, Any] | None
) -> dict[str, Any]:
    """kNN and linear probe in percent with 95 % intervals, and the effective rank. The controls,
    which no training changes, are those of a row `known` with the same encoder. Twins of test
    samples do not teach."""
    encoder = selfsup.load(run)
    source = seen_as(open_source(labelled), encoder.modality)
    encoder = encoder.seeing(source.content, shared=False)
    labels, classes = source.labels()
    with open_store(source, encoder.modality, encoder.size) as store:
        usable, prints = readable(store, quiet)
        parts = split(source, labels, usable, prints, drop_leaks=True, seed=seed)
        y, y_test = (torch.from_numpy(labels[rows]) for rows in (parts.train, parts.test))
        n, rows = len(y), np.concatenate([parts.train, parts.test])
        both = extract(encoder, store, rows, tell=quiet)
        subjects = {PRETRAINED: [(both[:n], both[n:])]}
        if known is None:
            subjects[UNTRAINED] = [
                controls.untrained(encoder, store, parts.train, parts.test, mix(seed, i), quiet)
                for i in range(NETWORKS)
            ]
            classical = controls.classical(encoder, store, parts.train, parts.test)
            subjects[encoder.modality.baseline_name] = [classical]
    found: dict[str, Any] = {"linear": {}, "knn": {}}
    if known is not None:
        found = {k: {of: v for of, v in known[k].items() if of != PRETRAINED} for k in found}
    for of, pairs in subjects.items():
        right: dict[str, list[np.ndarray]] = {"linear": [], "knn": []}
        for x, test in pairs:
            scale = linear.scale_of(x, common=of not in (PRETRAINED, UNTRAINED))
            plane, _ = linear.probe(x, y, len(classes), scale=scale, seed=seed, groups=parts.groups)
            by_plane = plane(scale(test)).argmax(1)
            by_neighbours = knn.predict(test, x, y, len(classes))
            right["linear"].append((by_plane == y_test).double().numpy())
            right["knn"].append((by_neighbours == y_test).double().numpy())
        for protocol, outcomes in right.items():
            several = len(outcomes) > 1
            interval = (
                over_seeds([o.mean() for o in outcomes])
                if several
                else over_samples(outcomes[0], seed)
            )
            numbers = interval.value, interval.low, interval.high
            found[protocol][of] = [round(100 * number, 1) for number in numbers]
    return {**found, "effective_rank": round(effective_rank(both[n:]), 1)}


def quiet(detail: str) -> None:
    """Progress that nobody follows."""


if __name__ == "__main__":
    main()
