"""A batch of samples as they lie in the store, and the memory that it lies in."""

import weakref
from collections import deque
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Int64, UInt8
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Batch:
    """Decoded samples, before any view is made of them.

    pixels: uint8 (b, c, H, W), stored channels-last; smaller samples are padded with zeros at the
      bottom and the right.
    extents: int64 (b, 2), the valid height and width of each sample; None where all fill H x W.
    samples: int64 (b,), the global counter of each sample, from which its views are drawn.
    indices: int64 (b,), its place in the source.
    """

    pixels: UInt8[Tensor, "b c H W"]
    extents: Int64[Tensor, "b 2"] | None
    samples: Int64[Tensor, " b"]
    indices: Int64[Tensor, " b"]

    def __len__(self) -> int:
        return len(self.pixels)

    def alike(self) -> bool:
        """Whether there are several samples and all of them are the same."""
        x = self.pixels
        same = len(x) > 1 and bool((x == x[:1]).all())
        return same and (self.extents is None or bool((self.extents == self.extents[:1]).all()))

    def to(self, device: torch.device | str) -> "Batch":
        """The same batch on a device; pinned memory is copied without waiting."""
        wait = not self.pixels.is_pinned()
        extents = None if self.extents is None else self.extents.to(device)
        return replace(
            self,
            pixels=self.pixels.to(device, non_blocking=not wait),
            extents=extents,
            samples=self.samples.to(device),
            indices=self.indices.to(device),
        )


def stacked(arrays: list[np.ndarray], numbers: Int64[Tensor, " b"]) -> Batch:
    """One batch of decoded samples; smaller ones are padded at the bottom and the right."""
    sides = np.array([x.shape[:2] for x in arrays], np.int64)
    height, width = sides.max(0)
    pixels = np.zeros((len(arrays), height, width, arrays[0].shape[2]), np.uint8)
    for row, x in zip(pixels, arrays, strict=True):
        row[: x.shape[0], : x.shape[1]] = x
    same = bool((sides == sides[0]).all())
    return Batch(
        torch.from_numpy(pixels).permute(0, 3, 1, 2),
        None if same else torch.from_numpy(sides),
        numbers,
        numbers.clone(),
    )


class Pool:
    """Buffers that come back by themselves once nothing looks at them any more.

    Fresh memory costs a page fault for every 4 kB: filling it runs at a quarter of the speed of
    memory that was used before. A batch that somebody still holds is never written over.
    """

    def __init__(self, keep: int = 8):
        # A deque needs no lock, and a lock would be a trap: buffers come back in the middle of
        # anything, whenever Python drops the last reference.
        self._free: deque[np.ndarray] = deque(maxlen=keep)

    def take(self, shape: tuple[int, ...]) -> np.ndarray:
        """Uninitialised uint8 memory of this shape."""
        need = int(np.prod(shape))
        buffer = None
        for _ in range(len(self._free)):
            try:
                candidate = self._free.popleft()
            except IndexError:
                break
            if need <= candidate.size <= 2 * need + 65536:
                buffer = candidate
                break
            self._free.append(candidate)
        if buffer is None:
            buffer = np.empty(max(need, 1), np.uint8)
        view = buffer[:need].reshape(shape)
        # numpy lets views refer to the owner of the memory, not to `view`: so whoever gets it must
        # wrap it in a tensor at once, whose storage holds on to `view` itself.
        weakref.finalize(view, self._free.append, buffer).atexit = False
        return view
