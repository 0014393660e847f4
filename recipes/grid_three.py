"""Sound, lips and words of the same sentences (GRID, one speaker), CLIP around the sound.

    SELFSUP_DATA=... python -m recipes.grid_three
    SELFSUP_DATA=... python -m recipes.grid_three audio=runs/grid-hubert-0 0

900 sentences of 51 words teach, 100 test. Sound is compared with lips and with words; lips and
words never are, and find each other through it, if at all. The second line starts the tower for
sound from a run of recipes/grid_hubert.py, which has heard all 1,000 without their words.

AMD EPYC with AVX512-BF16, 2 cores, next to nothing beside it, ten minutes, 799 steps, 114
passes, seed 0, mean recall at 1, 5 and 10: sound and words 72.2 % (untrained 4.8, chance 5.3),
sound and lips 48.8 (5.6), lips and words 4.5 (5.3): what was compared finds each other among
sentences that were not heard, what was not does not. Both are below canonical correlation of the
classical features. The loss of sound and words is 0.01 at the end, of 900 sentences known by heart:
more sentences are believed to be missing. A trial of 37 steps from a HuBERT run, all three
compared, had 58.2 between sound and words.
Canonical correlation of the classical features is hard to beat here: mean recall 87.3 % between
MFCC statistics and TF-IDF, 67.7 between MFCC statistics and pixels with motion, 12.2 between pixels
and TF-IDF; chance 5.3.
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
    lines = ["sound,lips,text,split"]
    with (lips / "labels.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            name = row["file"].removesuffix(".mp4")
            split = "test" if row["split"] == "test" else "train"
            files = f"{sound.name}/audio/{name}.ogg,{lips.name}/video/{name}.mp4"
            lines.append(f"{files},{row['text']},{split}")
    table = lips.parent / "grid_three.csv"
    table.write_text("\n".join(lines) + "\n")
    start = dict(a.split("=", 1) for a in sys.argv[1:] if "=" in a)
    name = "-from-".join(["grid-three", *start])
    for seed in [int(a) for a in sys.argv[1:] if "=" not in a] or [0, 1]:
        run = selfsup.pretrain(
            table,
            modality={"name": "pairs", "options": ["video.size=48"]},
            method={"name": "clip", "anchor": "audio"},
            # nine places of eight moments; two layers, for twice as many passes
            encoder={
                "name": "towers_micro",
                "parts": ["audio.depth=2", "video.depth=2", "video.patch=16"],
            },
            from_run=start or None,
            minutes=10,
            seed=seed,
            out=Path("runs") / f"{name}-{seed}",
        )
        judged(name, seed, run, evaluate_task(run.path, table, seed=seed))
        run.report()
