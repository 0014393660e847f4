"""One file = one reproduced number: command, hardware, minutes, metric over seeds, controls.

The data sets are archives under the folder that SELFSUP_DATA names; they are unpacked once, into
the user's cache directory. Every number is of the final step, never of the best one.
"""

import json
import os
import sys
import tarfile
import tomllib
from collections.abc import Callable
from pathlib import Path

from platformdirs import user_cache_path

import selfsup
from selfsup.evaluate import Evaluation
from selfsup.evaluate.result import Told
from selfsup.finetune import Finetuned

JUDGING = 2  # 1, or none: few labels' gains without the chance of the test samples
RESULTS = Path(__file__).parent / "results.json"


def as_given(path: str) -> Path:
    """A file or folder under SELFSUP_DATA, such as text/ag_news_train.csv."""
    if "SELFSUP_DATA" not in os.environ:
        raise SystemExit("set SELFSUP_DATA to the folder that holds images/, text/ ...")
    return Path(os.environ["SELFSUP_DATA"]) / path


def data(archive: str, folder: str) -> Path:
    """The unpacked `folder` of an archive under SELFSUP_DATA, such as images/cifar10_jpg.tar.gz."""
    home = user_cache_path("selfsup") / "recipes"
    if not (home / folder).exists():
        unpacking = home / f".{folder}.{os.getpid()}"
        with tarfile.open(as_given(archive)) as tar:
            tar.extractall(unpacking, filter="data")
        os.replace(unpacking / folder, home / folder)
    return home / folder


def reproduce(
    name: str,
    pretrain: Callable[[int, Path], selfsup.Run],
    labelled: Path | str,
    **evaluate: object,
) -> None:
    """Pretrain and evaluate once a seed; prints each verdict and keeps its figures in RESULTS.

    The seeds are the arguments of the command, 0 and 1 without any.
    """
    for seed in [int(argument) for argument in sys.argv[1:]] or [0, 1]:
        run = pretrain(seed, Path("runs") / f"{name}-{seed}")
        result = run.evaluate(labelled, seed=seed, **evaluate)
        run.report()
        print(result)
        keep({"recipe": name, "seed": seed, **figures(run, result)})


def judged(name: str, seed: int, run: selfsup.Run, told: Told) -> None:
    """Keep what another task than classification found."""
    scores: dict[str, dict] = {}
    answer = told.to_json()
    for row in answer["scores"] if "scores" in answer else answer["curve"]:
        where = [row.get("direction", "")]
        where += [f"{row['horizon']} steps:"] if "horizon" in row else []
        where += [f"{row['minutes']:g} min:"] if "minutes" in row else []
        measures = {row["protocol"]: row} if "value" in row else row
        for measure, found in measures.items():
            if isinstance(found, float) and measure not in ("minutes", "learning_rate"):
                found = {"value": found}
            if not isinstance(found, dict):
                continue
            numbers = [found[key] for key in ("value", "low", "high") if key in found]
            measure = " ".join(filter(None, (*where, measure)))
            scores.setdefault(measure, {})[row["of"]] = [round(number, 3) for number in numbers]
    each = (f"{' and '.join(p['parts'])}: {p['sentence']}" for p in answer.get("pairs", ()))
    verdict = " ".join([told.verdict, *each])
    print(told)
    keep({"recipe": name, "seed": seed, **made(run), "verdict": verdict, "scores": scores})


def taught(name: str, seed: int, run: selfsup.Run, found: Finetuned) -> None:
    """Keep what fine-tuning found: its model is the pretrained network."""
    scores: dict[str, dict] = {}
    answer = found.to_json()
    main = answer["scores"][0]["of"]
    for row in [*answer["scores"], *found.curve]:
        labels = row.get("labels", answer["settings"]["labels"])
        of = "pretrained" if row["of"] == main else row["of"]
        numbers = [round(row[key], 3) for key in ("value", "low", "high")]
        scores.setdefault(f"{answer['metric']}, {labels} labels", {})[of] = numbers
    print(found)
    keep({"recipe": name, "seed": seed, **made(run), "verdict": found.verdict, "scores": scores})


def made(run: selfsup.Run) -> dict:
    """Of a record: settings, steps, time, health."""
    with open(run.path / "resolved.toml", "rb") as file:
        settings = tomllib.load(file)
    done = run.done or {}
    return {
        "method": settings["method"]["name"],
        "modality": settings["modality"]["name"],
        "encoder": {k: v for k, v in settings["encoder"].items() if v != "none"},
        "steps": done["step"],
        "samples": done["samples"],
        "minutes": round(done["seconds"] / 60, 1),
        "health": done["verdict"],
        "cores": os.cpu_count(),
        "judging": JUDGING,
    }


def figures(run: selfsup.Run, result: Evaluation) -> dict:
    """What a record is: how it was made, and each score beside its controls, in percent."""
    rows = result.to_json()["scores"]
    scores = {
        protocol: {
            row["of"]: [round(100 * row[key], 1) for key in ("value", "low", "high")]
            for row in rows
            if row["protocol"] == protocol
        }
        for protocol in ("linear", "knn")
    }
    curve = {
        f"{row['shots']} {row['of']}": round(100 * row["value"], 1)
        for row in result.to_json()["curve"]
    }
    rank = {r["of"]: round(r["value"], 1) for r in rows if r["protocol"] == "effective_rank"}
    return {
        **made(run),
        "verdict": result.verdict,
        "effective_rank": rank,
        "curve": curve,
        **scores,
    }


def keep(row: dict) -> None:
    """Put a record in RESULTS, in the place of the one that it repeats."""
    rows = json.loads(RESULTS.read_text()) if RESULTS.exists() else []
    same = [(r["recipe"], r["seed"]) for r in rows]
    rows = [r for r, key in zip(rows, same, strict=True) if key != (row["recipe"], row["seed"])]
    rows = sorted([*rows, row], key=lambda r: (r["recipe"], r["seed"]))
    lines = ",\n".join(json.dumps(row) for row in rows)
    RESULTS.write_text(f"[\n{lines}\n]\n")
