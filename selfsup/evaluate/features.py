"""Frozen features of every labelled sample, by any encoder, from one decode-once store."""

from collections.abc import Callable, Iterator

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from .. import faults
from ..data.batch import Batch
from ..data.copies import content_print
from ..data.store import Store
from ..inference import Fast
from ..load import LoadedEncoder
from ..modalities import Modality
from ..stop import stop

BATCH = 256
ROUNDED, MOST_ROUNDING = 64, 0.02  # samples, and error beside their deviation, that are tolerated


def batch_size(encoder: LoadedEncoder) -> int:
    """Fewer samples at once where each has many places, so that memory stays bounded."""
    places = int(np.prod(getattr(encoder.encoder, "grid", 1)))
    return max(8, BATCH // max(1, places // 128))


def readable(store: Store, tell: Callable[[str], None]) -> tuple[np.ndarray, list[bytes]]:
    """The numbers of the samples that can be read, and a fingerprint of each one's content."""
    usable, prints = [], []
    for low in range(0, len(store), BATCH):
        stop.check()
        batch = store.batch(np.arange(low, min(low + BATCH, len(store))))
        pixels = batch.pixels.permute(0, 2, 3, 1).numpy()  # (b, h, w, c), as they are stored
        for row in range(len(batch)):
            sample = pixels[row]
            if batch.extents is not None:
                height, width = batch.extents[row].tolist()
                sample = sample[:height, :width]
            prints.append(content_print(sample))
        usable.append(batch.indices.numpy())
        tell(f"reading {low + len(batch)}/{len(store)}")
    return np.concatenate(usable) if usable else np.empty(0, np.int64), prints


def extract(
    encoder: LoadedEncoder,
    store: Store,
    rows: np.ndarray,
    *,
    tell: Callable[[str], None] = lambda text: None,
) -> Float[Tensor, "n d"]:
    """One vector for each of these samples, float32 on the CPU, of the view without chance."""
    fast = faithful(encoder, store, rows)
    out, size = torch.empty(len(rows), encoder.dim), batch_size(encoder)
    for low in range(0, len(rows), size):
        stop.check()
        batch = store.batch(rows[low : low + size])
        x = encoder.modality.plain(batch.to(fast.device), encoder.size)
        out[low : low + len(x)] = fast(x).cpu()
        faults.at("evaluate.features")
        tell(f"{low + len(x)}/{len(rows)}")
    return out


def baseline(
    modality: Modality, store: Store, train: np.ndarray, test: np.ndarray
) -> tuple[Float[Tensor, "n p"], Float[Tensor, "m p"]]:
    """The modality's classical features, reduced to their principal components.

    The components are those of the training part, as many as carry weight and at most
    `modality.baseline_components`.
    """

    def batches(rows: np.ndarray) -> Iterator[Batch]:
        for low in range(0, len(rows), BATCH):
            stop.check()
            yield store.batch(rows[low : low + BATCH])

    features = modality.fitted(batches(train))

    def plain(rows: np.ndarray) -> Tensor:
        return torch.cat([features(batch).float().cpu() for batch in batches(rows)])

    x = plain(train)
    mean = x.mean(0)
    x -= mean
    axes = principal(x, modality.baseline_components)
    return x @ axes, (plain(test) - mean) @ axes


def principal(x: Float[Tensor, "n p"], most: int) -> Float[Tensor, "p k"]:
    """The axes along which centred samples vary most: those that carry weight, `most` at most."""
    if len(x) > x.shape[1]:
        variance, axes = torch.linalg.eigh(_gram(x.T))
    else:
        variance, left = torch.linalg.eigh(_gram(x))
        axes = x.T.double() @ left / variance.clamp(min=1e-300).sqrt()
    keep = (variance > 1e-9 * variance.max().clamp(min=1e-30)).nonzero()[:, 0]
    return axes[:, keep[-most:].flip(0)].float()  # eigh sorts upwards


def _gram(x: Tensor) -> Float[Tensor, "n n"]:
    total = torch.zeros(len(x), len(x), dtype=torch.float64)
    for part in x.split(8192, dim=1):
        total += (part @ part.T).double()
    return total


def faithful(encoder: LoadedEncoder, store: Store, rows: np.ndarray) -> Fast:
    """The fast encoder, in float32 where the rounding of bfloat16 would blur what it has to tell.

    An untrained transformer gives nearly the same vector for every sample: rounding that is small
    beside the vectors is then large beside their differences, and would cost a control points.
    """
    fast = Fast(encoder.encoder)
    if fast.precision == "fp32":
        return fast
    some = rows[:: max(1, len(rows) // ROUNDED)][:ROUNDED]
    exact = Fast(encoder.encoder, "fp32")
    x = encoder.modality.plain(store.batch(some).to(fast.device), encoder.size)
    reference = exact(x)
    error = (fast(x) - reference).std(0).mean()
    return fast if error < MOST_ROUNDING * reference.std(0).mean() else exact
