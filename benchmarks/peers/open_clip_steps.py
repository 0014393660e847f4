"""CLIP with open_clip's model, transforms and loss, and the step of its training script.

    python open_clip_steps.py clip default|tuned DATA

Captions are padded to 77 tokens, as there; "tuned" pads them to 32, which is enough for these, and
adds bfloat16 autocast and the fused AdamW.
"""

import math
import sys
from pathlib import Path

import common
import open_clip
import torch
from PIL import Image

SYMBOL, KINDS = 0x20000, 4096  # as in ../drawn.py and ../cases.py
START, END = KINDS + 1, KINDS + 2  # the text's vector is that of its highest token


def main(case: str, kind: str, data: str) -> None:
    assert case == "clip"
    torch.manual_seed(0)
    tuned = kind == "tuned"
    length = 32 if tuned else 77
    model = open_clip.CLIP(
        256,
        {"layers": 12, "width": 192, "head_width": 64, "patch_size": 16, "image_size": 224},
        {"context_length": length, "vocab_size": KINDS + 3, "width": 256, "heads": 4, "layers": 4},
    ).train()
    criterion = open_clip.ClipLoss()
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=5e-4, betas=(0.9, 0.98), eps=1e-6, weight_decay=0.2,
        fused=True if tuned else None,
    )  # fmt: skip
    transform = open_clip.image_transform(
        224, is_train=True, mean=open_clip.OPENAI_DATASET_MEAN, std=open_clip.OPENAI_DATASET_STD
    )
    place = Path(data).parent

    def make(line: str):
        name, caption = line.split(",")
        with Image.open(place / name) as picture:
            image = transform(picture)
        tokens = [START, *(ord(letter) - SYMBOL + 1 for letter in caption), END]
        return image, torch.tensor(tokens + [0] * (length - len(tokens)))

    def step(batch):
        with common.half(tuned):
            loss = criterion(*model(*batch))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        with torch.no_grad():
            model.logit_scale.clamp_(0, math.log(100))

    samples = common.Samples(Path(data).read_text("utf-8").splitlines()[1:], make)
    common.report(step, common.loader(samples, 64), 64, version=open_clip.__version__)


if __name__ == "__main__":
    main(*sys.argv[1:])
