"""What is measured: four jobs that between them exercise every part of the library."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from torch import nn


@dataclass(frozen=True)
class Case:
    """`side` is that of the pictures, in files and in views; `steps` are measured in each block."""

    name: str
    title: str
    side: int
    batch: int
    steps: int
    build: Callable[[], nn.Module]


def simclr() -> nn.Module:
    from selfsup.encoder import build
    from selfsup.methods import SimCLR

    return SimCLR(build("resnet18", 32))


def dino() -> nn.Module:
    from selfsup.encoder import build
    from selfsup.methods import DINO

    return DINO(build("vit_tiny", 224, patch=16, cls=True, pool="cls"), prototypes=65536)


def mae() -> nn.Module:
    from selfsup.encoder import build
    from selfsup.methods import MAE

    return MAE(build("vit_small", 224, patch=16, cls=True))


def embed() -> nn.Module:
    from selfsup.encoder import build

    return build("vit_small", 224, patch=16, cls=True, pool="cls")


CASES = {
    case.name: case
    for case in (
        Case("simclr", "SimCLR ResNet-18 32 px", 32, 256, 3, simclr),
        Case("dino", "DINO ViT-Tiny/16 2x224 + 6x96 px, 65,536 prototypes", 224, 32, 3, dino),
        Case("mae", "MAE ViT-Small/16 224 px", 224, 64, 3, mae),
        Case("embed", "embedding ViT-Small/16 224 px", 224, 64, 4, embed),
    )
}


def draw(folder: Path, side: int, count: int) -> Path:
    """A folder of `count` JPEG files, `side` pixels square, about as hard to decode as photographs.

    Noise of all sizes, the coarse ones strongest, as in natural pictures (a spectrum of 1/f).
    """
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        path = folder / f"{number:05d}.jpg"
        if path.exists():
            continue
        random = np.random.Generator(np.random.Philox(number))
        picture = np.zeros((side, side, 3), np.float32)
        for level in range(int(math.log2(side)) - 1):
            coarse = random.normal(0, 40 / (level + 1), (2 << level, 2 << level, 3)) + 128
            grown = Image.fromarray(coarse.clip(0, 255).astype(np.uint8)).resize((side, side))
            picture += np.asarray(grown, np.float32) - 128
        Image.fromarray((picture + 128).clip(0, 255).astype(np.uint8)).save(path, quality=90)
    return folder
