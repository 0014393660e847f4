"""Sound, lips and words of the same sentences (GRID, one speaker), CLIP over three towers.

SELFSUP_DATA=... python -m recipes.grid_three
"""

import csv
import sys
from pathlib import Path

import selfsup
from selfsup.evaluate.pairing import evaluate_task

from . import data, judged

if __name__ == "__main__":
    sound = data("audio/grid_s1_speech16k.tar.gz", "grid_s1")
    lips = data("video/grid_s1_lips.tar.gz", "grid_s1_lips")
    table = lips.parent / "grid_three.csv"
    lines = ["sound,lips,text,split"]
    with (lips / "labels.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            name = row["file"].removesuffix(".mp4")
            split = "test" if row["split"] == "test" else "train"
            files = f"{sound.name}/audio/{name}.ogg,{lips.name}/video/{name}.mp4"
            lines.append(f"{files},{row['text']},{split}")
    table.write_text("\n".join(lines) + "\n")
    start = {key: run for key, _, run in (a.partition("=") for a in sys.argv[1:] if "=" in a)}
    for seed in [int(argument) for argument in sys.argv[1:] if "=" not in argument] or [0, 1]:
        name = "grid-three" + "".join(f"-from-{part}" for part in start)
        run = selfsup.pretrain(
            table,
            modality={"name": "pairs", "options": ["video.size=48"]},
            encoder={"name": "towers_micro", "parts": ["video.patch=16"]},
            method={"name": "clip", "anchor": "audio"},
            from_run=start or None,
            minutes=10,
            seed=seed,
            out=Path("runs") / f"{name}-{seed}",
        )
        judged(name, seed, run, evaluate_task(run.path, table, seed=seed))
        run.report()
