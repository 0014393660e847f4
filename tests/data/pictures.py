"""Pictures made by rule, so that a test knows what must come back."""

import io
import os

import numpy as np
from PIL import Image as Pillow


def pixels(number: int, height: int = 24, width: int = 24) -> np.ndarray:
    """A smooth picture, different for each number: (h, w, 3) uint8."""
    y, x = np.mgrid[0:height, 0:width] / max(height, width)
    waves = [np.sin(number * (c + 1) * 0.7 + 5 * (x * (c + 1) + y * (3 - c))) for c in range(3)]
    return ((np.stack(waves, -1) + 1) * 127).astype(np.uint8)


def encoded(number: int, height: int = 24, width: int = 24, form: str = "PNG", **options) -> bytes:
    file = io.BytesIO()
    Pillow.fromarray(pixels(number, height, width)).save(file, form, **options)
    return file.getvalue()


def write(folder, files: dict):
    """Files from {relative name: bytes}, names being str or bytes."""
    for name, content in files.items():
        path = os.path.join(os.fsencode(folder), os.fsencode(name))
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            file.write(content)
    return folder
