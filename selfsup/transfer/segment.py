"""Segmentation: a class for each pixel, by a linear layer on the features of each place.

The scores of the places are enlarged to the size of the picture (bilinearly), as for the linear
segmentation probes of DINOv2 (arXiv 2304.07193, section 7.4).
"""

import colorsys
import io
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt8
from PIL import Image as Pillow
from torch import Tensor
from torch.nn.functional import cross_entropy, interpolate

from ..data.base import Source
from ..data.batch import Batch
from ..data.files import FileSource
from ..errors import SelfsupError
from ..load import LoadedEncoder
from .tasks import Network, Part, Task, number

VOID = 255  # pixels of no class, where there are other classes than it and 0
IGNORED = -1
SHOWN = 8  # pictures
GRAYS = ("L", "P", "1", "I", "I;16")


class Segment(Task):
    """A class for each pixel of the middle square, at the size that the encoder sees.

    `values` are those of the masks, one a class; `grid` is that of the encoder.
    """

    name, metric, table, light = "segment", "mean IoU", False, False

    def __init__(self, values: list[int], grid: tuple[int, int], size: int):
        self.values, self.grid, self.size, self.outputs = values, grid, size, len(values)

    def to_json(self) -> dict[str, Any]:
        return {"values": self.values, "grid": list(self.grid), "size": self.size}

    @classmethod
    def parse(cls, told: Mapping[str, Any]) -> Self:
        values = [int(number(v)) for v in told["values"]]
        high, wide = (int(number(v)) for v in told["grid"])
        size = int(number(told["size"]))
        good = 0 < len(values) <= 256 and all(0 <= v <= 255 for v in values)
        if not good or not 0 < high * wide <= 1 << 20 or not 0 < size <= 1 << 13:
            raise ValueError(f"{len(values)} values, a grid of {high} x {wide}, size {size}")
        return cls(values, (high, wide), size)

    def read(self, encoder: Any, x: Tensor) -> Float[Tensor, "b n d"]:
        return encoder.features(x)

    def answer(self, network: Network, x: Tensor) -> Float[Tensor, "b k s s"]:
        scores = super().answer(network, x).transpose(1, 2).unflatten(2, self.grid)
        size = (self.size, self.size)
        return interpolate(scores.float(), size=size, mode="bilinear", align_corners=False)

    def targets(
        self, part: Part, places: np.ndarray, device: torch.device
    ) -> Int64[Tensor, "b s s"]:
        return torch.from_numpy(self.classes(part.targets[places])).to(device)

    def classes(self, masks: UInt8[np.ndarray, "b s s"]) -> Int64[np.ndarray, "b s s"]:
        """The number of each pixel's class; pixels of another are ignored."""
        place = np.full(256, IGNORED)
        place[self.values] = np.arange(len(self.values))
        return place[masks]

    def loss(self, out: Float[Tensor, "b k s s"], y: Int64[Tensor, "b s s"]) -> Tensor:
        return cross_entropy(out, y, ignore_index=IGNORED)

    def outcome(self, out: Tensor, y: Tensor) -> np.ndarray:
        """Of each class, how many pixels are it and were said to be, are it, were said to be it:
        (b, 3, k)."""
        return self.counts(out.argmax(1).cpu().numpy(), y.cpu().numpy())

    def counts(
        self, said: Int64[np.ndarray, "b s s"], truth: Int64[np.ndarray, "b s s"]
    ) -> Float[np.ndarray, "b 3 k"]:
        found = np.zeros((len(said), 3, len(self.values)))
        for row, (one, other) in zip(found, zip(truth, said, strict=True), strict=True):
            known = one != IGNORED
            for place, some in enumerate((one[known & (one == other)], one[known], other[known])):
                row[place] = np.bincount(some, minlength=len(self.values))
        return found

    def summary(self, outcomes: np.ndarray) -> float:
        return float(np.mean([*self.classwise(outcomes).values()]))

    def classwise(self, outcomes: np.ndarray) -> dict[str, float]:
        """Intersection over union over all pictures, of classes that are there or were said to
        be."""
        both, true, said = outcomes.sum(0)
        union = true + said - both
        return {str(self.values[i]): float(both[i] / union[i]) for i in np.flatnonzero(union)}

    @torch.no_grad()
    def shown(self, network: Network, encoder: LoadedEncoder, part: Part) -> dict[str, bytes]:
        """A few pictures, below each its mask, and below that what the network says."""
        x, y = self.look(encoder, part, np.arange(len(part))[:: -(-len(part) // SHOWN)])
        network.eval()
        said = network(x).argmax(1)
        hues = np.linspace(0, 1, len(self.values) + 1)[:-1]
        colours = [colorsys.hsv_to_rgb(hue, 0.7, i and 0.9) for i, hue in enumerate(hues)]
        palette = np.array([*colours, (0.5,) * 3]) * 255  # the last, -1, is of no class
        drawn = encoder.modality.picture(x).permute(0, 2, 3, 1)
        rows = [drawn.cpu().numpy(), *(palette[one.cpu().numpy()] for one in (y, said))]
        return {"masks.png": _png(np.concatenate([np.hstack(row) for row in rows]))}

    def tell(self, out: Tensor, batch: Batch) -> dict[str, list | np.ndarray]:
        said = out.argmax(1).cpu().numpy()
        masks = np.array(self.values, np.uint8)[said]
        told: dict[str, list | np.ndarray] = {"mask": [_png(mask) for mask in masks]}
        for place, value in enumerate(self.values):
            told[f"share_{value}"] = (said == place).mean((1, 2)).astype(np.float32)
        return told


def grid_of(encoder: Any) -> tuple[int, int]:
    """Raises SelfsupError E202 where an encoder's places are not those of a picture."""
    grid = tuple(getattr(encoder, "grid", ()))
    if len(grid) != 2:
        raise SelfsupError(
            "E202", "masks need an encoder of pictures", why=f"its places are {grid or 'unordered'}"
        )
    return grid


def masks(
    source: Source, folder: Path, size: int
) -> tuple[UInt8[np.ndarray, "n s s"], np.ndarray, list[str]]:
    """The mask of each picture, whether it has one, and notes on masks that cannot be read.

    The numbers of their pixels are classes. Raises SelfsupError E105 for masks in colour, and what
    `files_of` raises.
    """
    found = np.zeros((len(source), size, size), np.uint8)
    known, broken = np.zeros(len(source), bool), 0
    for i, path in enumerate(files_of(source, folder)):
        if path is None:
            continue
        try:
            with Pillow.open(path) as picture:
                mode = picture.mode
                mask = np.asarray(picture) if mode in GRAYS else None
        except (OSError, ValueError, SyntaxError):
            broken += 1
            continue
        if mask is None:
            raise SelfsupError(
                "E105", f"{path} is no mask", where=str(path), why=f"its mode is {mode}",
                do="save the numbers of the classes as grey values or in a palette",
            )  # fmt: skip
        if mask.max(initial=0) > 255 or mask.min(initial=0) < 0:
            raise SelfsupError("E105", f"{path} has a class above 255", where=str(path))
        found[i], known[i] = middle(mask.astype(np.uint8), size), True
    return found, known, [f"{broken} masks cannot be read: not used"] if broken else []


def files_of(source: Source, folder: Path) -> list[Path | None]:
    """The mask of each picture: a PNG in `folder` with the picture's path there before the ending,
    or else its name; of several that which shares the most leading folders with it.

    Raises SelfsupError E105 where that does not say which mask is of which picture.
    """
    stems = [os.path.splitext(source.name(i))[0] for i in range(len(source))]
    inside = [source.path(i) for i in range(len(source))] if isinstance(source, FileSource) else []
    places = [os.path.abspath(os.fsdecode(path)) for path in inside] or stems
    folder = Path(os.path.abspath(folder))
    files = sorted(folder.rglob("*.png"))
    paths = {path.relative_to(folder).with_suffix("").as_posix(): path for path in files}
    named: dict[str, list[Path]] = {}  # masks that are no picture's by their path
    for name in sorted(paths.keys() - set(stems)):
        named.setdefault(paths[name].stem, []).append(paths[name])
    found: list[Path | None] = []
    of: dict[str, str] = {}  # mask -> stem of its picture
    for stem, place in zip(stems, places, strict=True):
        fit = [paths[stem]] if stem in paths else []
        if not fit or os.fspath(fit[0]) == place:  # no picture is its own mask
            fit = [p for p in named.get(stem.rpartition("/")[2], []) if os.fspath(p) != place]
        if len(fit) > 1:
            near = [_shared(place, path) for path in fit]
            fit = [path for path, shares in zip(fit, near, strict=True) if shares == max(near)]
        if len(fit) > 1:
            raise _unclear(folder, [stem], fit)
        found += fit or [None]
        if fit and (other := of.setdefault(os.fspath(fit[0]), stem)) != stem:
            raise _unclear(folder, [other, stem], fit)
    for place, path in zip(places, found, strict=True):
        if path is not None and place in of:
            raise _unclear(folder, [of[place]], [Path(place)])
    return found


def keep_masks_apart(teaching: Source, testing: Source, folder: Path) -> None:
    """Raises SelfsupError E105 where a picture that tests has the mask of one that teaches."""
    names = {path: teaching.name(i) for i, path in enumerate(files_of(teaching, folder)) if path}
    for i, path in enumerate(files_of(testing, folder)):
        if path in names:
            both = [f"train/{names[path]}", f"test/{testing.name(i)}"]
            raise _unclear(folder, [os.path.splitext(name)[0] for name in both], [path])


def _shared(place: str, path: Path) -> int:
    """How many leading folders."""
    return [a == b for a, b in zip(Path(place).parts, path.parts, strict=False)].index(False)


def _unclear(folder: Path, stems: list[str], fit: list[Path]) -> SelfsupError:
    return SelfsupError(
        "E105",
        "it is not clear which mask is of which picture",
        where=str(folder),
        why=f"{', '.join(stems)} may have {', '.join(map(str, fit[:3]))}",
        do="keep pictures in one folder, masks in another by the same paths, and give these: "
        f"root/images --labels root/masks, with root/masks/{stems[0]}.png for "
        f"root/images/{stems[0]}",
    )


def middle(mask: UInt8[np.ndarray, "h w"], size: int) -> UInt8[np.ndarray, "size size"]:
    """The middle square, each pixel the nearest one of the mask."""
    height, width = mask.shape
    side = min(height, width)
    at = ((np.arange(size) + 0.5) * side / size).astype(int)
    top, left = (height - side) // 2, (width - side) // 2
    return mask[top + at][:, left + at]


def values_of(found: UInt8[np.ndarray, "n s s"]) -> list[int]:
    """The classes of masks. 255 is one only beside 0 alone: else it marks what is of no class."""
    values = np.unique(found).tolist()
    return values if set(values) <= {0, VOID} else [v for v in values if v != VOID]


def _png(mask: np.ndarray) -> bytes:
    file = io.BytesIO()
    Pillow.fromarray(mask.astype(np.uint8)).save(file, format="PNG")
    return file.getvalue()
