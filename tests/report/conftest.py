"""Run folders in the states in which a report is asked for."""

import json
import math
from pathlib import Path

import numpy as np
import pytest

HOSTILE = '"><script>alert(1)</script><img src=x onerror=alert(2)>'


def write_lines(path: Path, rows: list[dict]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def metric_rows(steps: int = 1200, every: int = 10) -> list[dict]:
    rng = np.random.default_rng(0)
    rows = []
    for step in range(every, steps + 1, every):
        p = step / steps
        loss = 5.5 - 1.6 * (1 - math.exp(-6 * p)) + 0.08 * rng.normal()
        row = {
            "step": step,
            "epoch": step * 256 / 50_000,
            "time": 0.93 * step,
            "samples": step * 256,
            "train/loss": loss,
            "train/nt_xent": loss,
            "train/lr": 1.2e-3
            * min(1, p / 0.1)
            * (1 + math.cos(math.pi * max(0, (p - 0.1) / 0.9)))
            / 2,
            "train/grad_norm": 2.2 * math.exp(-1.5 * p) + 0.9 + 0.15 * abs(rng.normal()),
            "speed/samples_per_second": 275 + 6 * rng.normal() - (140 if step < 40 else 0),
            "speed/data_wait": 0.02 + 0.01 * rng.random(),
            "monitor/rank": 18 + 70 * (1 - math.exp(-4 * p)) + rng.normal(),
            "monitor/std": 0.085 + 0.002 * rng.normal(),
        }
        if step % 120 == 0:
            row["eval/knn_top1"] = 0.30 + 0.22 * (1 - math.exp(-3 * p))
        rows.append(row)
    return rows


SETTINGS = """\
# Settings of a run, resolved. To run the same again:
#   selfsup pretrain --config resolved.toml --out runs/again

format = 1  # default

[data]
path = "photos # 1/"  # command line
resolution = 32  # plan: the pictures are 32 px
workers = 2  # default

[method]
name = "simclr"  # plan: needs the fewest steps of the methods here to learn something useful
temperature = 0.1  # default

[encoder]
name = "resnet18"  # plan: 10 min at 277 samples/s show it the data 3.3 times
width = 0.5  # plan: goes with resnet18 here

[train]
minutes = 10.0  # command line
batch = 256  # plan: usual for simclr
seed = 0  # default
"""

ENVIRONMENT = {
    "selfsup": "0.1.0",
    "python": "3.12.4",
    "torch": "2.13.0+cpu",
    "device": "cpu",
    "cores": 2,
    "memory_gb": 24,
    "command": "selfsup pretrain photos/ --minutes 10",
}


def score(protocol: str, of: str, value: float, half: float, labels: int, **more) -> dict:
    return {"protocol": protocol, "of": of, "labels": labels, "value": value,
            "low": value - half, "high": value + half, "interval": "bootstrap"} | more  # fmt: skip


def gain(value: float, half: float, control: str) -> dict:
    return {"value": value, "low": value - half, "high": value + half, "control": control}


WHOLE = {
    "knn": {"pretrained": 0.526, "untrained": 0.350, "pixels + PCA": 0.379},
    "linear": {"pretrained": 0.624, "untrained": 0.434, "pixels + PCA": 0.401},
    "retrieval_recall_1": {"pretrained": 0.481, "untrained": 0.322, "pixels + PCA": 0.343},
    "finetune": {"pretrained": 0.712, "from scratch": 0.630},
    "effective_rank": {"pretrained": 84.2, "untrained": 12.1, "pixels + PCA": 55.0},
}
FEW = {
    "pretrained": (0.240, 0.405, 0.531),
    "untrained": (0.152, 0.250, 0.348),
    "pixels + PCA": (0.148, 0.241, 0.330),
    "from scratch": (0.139, 0.253, 0.410),
}


def evaluation() -> dict:
    """As `selfsup evaluate` writes it."""
    scores = [
        score(protocol, of, value, 0.02 * value, 50_000)
        for protocol, found in WHOLE.items()
        for of, value in found.items()
    ]
    next(s for s in scores if s["protocol"] == "linear")["gain"] = gain(0.190, 0.012, "untrained")
    curve = []
    for of, values in FEW.items():
        for shots, value in zip((1, 10, 100), values, strict=True):
            half = 0.032 / math.sqrt(shots)
            curve.append(score("linear", of, value, half, 10 * shots, shots=shots, values=[value]))
            if of == "pretrained":
                curve[-1]["gain"] = gain(value - 0.15, half, "untrained")
    return {
        "format": 1,
        "verdict": {
            "gain": True,
            "sentence": "+19.0 points over untrained (95 % interval 17.8 to 20.2) with a linear "
            "probe, worth about 8 times the labels.",
            "points": 19.0, "low": 17.8, "high": 20.2, "control": "untrained",
            "labels_worth": 8.1, "at_least": False, "cause": "", "advice": "",
        },
        "labels_worth": [{"labels": 100, "factor": 9.5, "at_least": True}],
        "scores": scores,
        "curve": curve,
        "split": {"train": 50_000, "test": 10_000, "statement": "the folders train and test"},
        "data": {"place": "labelled/", "classes": [f"class {i}" for i in range(10)], "skipped": 2},
        "encoder": {"fingerprint": "00"},
        "notes": ["fine-tuning and its control use 5000 of 50000 labels, what the time allows"],
    }  # fmt: skip


@pytest.fixture
def finished(tmp_path) -> Path:
    """A run that went well: trained to the end, evaluated, some files skipped."""
    run = tmp_path / "runs" / "a"
    write_lines(run / "metrics.jsonl", metric_rows())
    write_lines(
        run / "events.jsonl",
        [
            {
                "time": 1795000000.0,
                "step": 0,
                "kind": "note",
                "message": "bfloat16 measures 4.1 times faster than float32 here, so it is used.",
            },
            {
                "time": 1795000200.0,
                "step": 400,
                "kind": "health",
                "verdict": "healthy",
                "message": "Effective rank 71 of 256.",
            },
            {
                "time": 1795000300.0,
                "step": 610,
                "kind": "non-finite",
                "verdict": "warning",
                "message": "The loss was not finite; the step was skipped.",
                "cause": "a number too large for bfloat16",
                "do": "nothing, unless it happens again",
            },
        ],
    )
    (run / "resolved.toml").write_text(SETTINGS)
    (run / "env.json").write_text(json.dumps(ENVIRONMENT))
    (run / "encoder.json").write_text(
        json.dumps(
            {
                "format": 1,
                "modality": "image",
                "name": "resnet18",
                "size": 32,
                "kwargs": {"width": 0.5},
                "method": "simclr",
            }
        )
    )
    (run / "data").mkdir()
    (run / "data" / "manifest.json").write_text(
        json.dumps({"kind": "folder", "samples": 50_007, "fingerprint": "5f2c"})
    )
    write_lines(
        run / "data" / "skipped.jsonl",
        [
            {
                "name": f"cut/{i}.jpg",
                "code": "truncated",
                "reason": "the file ends before its last rows",
            }
            for i in range(5)
        ]
        + [
            {"name": "notes.txt.png", "code": "not_an_image", "reason": "the content is text"},
            {"name": HOSTILE + ".jpg", "code": "empty", "reason": "zero bytes"},
        ],
    )
    (run / "evaluation.json").write_text(json.dumps(evaluation()))
    (run / "log.txt").write_text("")
    (run / "DONE").write_text(
        json.dumps(
            {
                "step": 1200,
                "seconds": 1116.0,
                "samples": 307_200,
                "verdict": "healthy",
                "message": "healthy",
            }
        )
    )
    return run


@pytest.fixture
def hostile() -> str:
    """Text that would run if it ever became markup."""
    return HOSTILE
