"""Emoji on photographs, MAE: minutes on pictures alone, then what each pixel is: some gain.

    SELFSUP_DATA=... python -m recipes.emoji_masks

On each Imagenette photograph, at 64 pixels, two Noto emoji (faces, animals, food) of any size at
any place; a pixel is of the emoji whose alpha is above a half there, else background. 4,200
pictures are pretrained on, 1,000 of them have masks; 400 test, made of other photographs and of the
drawings that the data set holds back. A linear layer on frozen patches of 8 pixels.
Two cores of an AMD EPYC with AVX512-BF16, seed 0, 8 minutes in all, mean IoU: 39.9 % (38.6 to
41.1), untrained 38.1, colour of the pixel 38.0; from scratch, all weights trained on the 1,000
masks, 46.0. Measured before the curve: 10 and 100 masks, five minutes more, wait for their figures.
"""

import csv
import os
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np
from PIL import Image
from platformdirs import user_cache_path

import selfsup

from . import data, taught

CLASSES = ("background", "Smileys & Emotion", "Animals & Nature", "Food & Drink")
SIDE, EMOJI = 64, 2  # pixels of a picture, emoji on it
LARGEST, LEAST = 44, 20  # pixels of an emoji
PARTS = {"train": ("train", 4200, 1000), "test": ("val", 400, 400)}  # photographs, pictures, masks


def composites(home: Path, parts: dict[str, tuple[str, int, int]]) -> Path:
    """HOME/pictures/PART/0123.png and, of the first ones, HOME/masks/PART/0123.png."""
    photos = data("images/imagenette128.tar.gz", "imagenette128")
    emoji = data("imagetext/noto_emoji72.tar.gz", "noto_emoji72")
    drawings = defaultdict(list)
    with (emoji / "emoji.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            drawings[row["split"], row["category"]].append(emoji / "images" / row["file"])
    for part, (folder, pictures, masks) in parts.items():
        for kind in ("pictures", "masks"):
            (home / kind / part).mkdir(parents=True)
        random = np.random.default_rng(len(part))
        every = sorted((photos / folder).rglob("*.jpg"))
        for i, place in enumerate(random.permutation(len(every))[:pictures].tolist()):
            picture = Image.open(every[place]).convert("RGB").resize((SIDE, SIDE))
            mask = np.zeros((SIDE, SIDE), np.uint8)
            for kind in random.integers(1, len(CLASSES), EMOJI).tolist():
                known = drawings[part, CLASSES[kind]]
                side = int(random.integers(LEAST, LARGEST + 1))
                left, top = random.integers(0, SIDE - side + 1, 2).tolist()
                drawing = Image.open(known[random.integers(len(known))]).convert("RGBA")
                drawing = drawing.resize((side, side))
                picture.paste(drawing, (left, top), drawing)
                opaque = np.asarray(drawing)[:, :, 3] > 127
                mask[top : top + side, left : left + side][opaque] = kind
            picture.save(home / "pictures" / part / f"{i:04d}.png")
            if i < masks:
                Image.fromarray(mask).save(home / "masks" / part / f"{i:04d}.png")
    return home


def made() -> Path:
    home = user_cache_path("selfsup") / "recipes" / "emoji_masks"
    if not home.exists():
        os.replace(composites(home.with_name(f".emoji_masks.{os.getpid()}"), PARTS), home)
    return home


if __name__ == "__main__":
    home = made()
    for seed in [int(argument) for argument in sys.argv[1:]] or [0, 1]:
        out = Path("runs") / f"emoji-masks-{seed}"
        run = selfsup.pretrain(
            home / "pictures" / "train",
            method="mae",
            encoder={"name": "vit_tiny", "depth": 4, "patch": 8},
            resolution=SIDE,
            minutes=4.5,
            seed=seed,
            out=out,
        )
        found = run.finetune(
            home / "pictures",
            out.with_name(f"{out.name}-model"),
            labels=home / "masks",
            train="head",
            minutes=8,
            shots=(10, 100),
            seed=seed,
        )
        taught("emoji-masks", seed, run, found)
        run.report()
