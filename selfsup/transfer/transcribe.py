"""Transcription: texts from recordings, by CTC.

The encoder gets a linear layer for letters and is trained with CTC (Graves et al., 2006,
https://doi.org/10.1145/1143844.1143891), as wav2vec 2.0 is; decoding is greedy, without a language
model.
"""

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any, Self

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import ctc_loss, log_softmax

from .. import sound
from ..data import fields
from ..data.batch import Batch
from ..data.store import Store
from ..errors import SelfsupError
from ..load import LoadedEncoder
from ..stop import stop
from . import core
from .core import Effort
from .tasks import FULL, HEAD, LOW_RANK, Choice, Network, Part, Task, number, words

BLANK = 0
RECORDINGS = 16  # in a batch
LEAST_STEPS, MOST_STEPS = 30, 3000
WARMUP, WEIGHT_DECAY = 0.1, 0.01
RATES = (3e-4, 1e-3)
LONGEST = 1 << 20  # frames or samples that a card may ask for


class Transcribe(Task):
    """What is said. `size` is how much of a recording is heard."""

    name, metric, better, light = "transcribe", "character error rate", -1, False
    rates = {HEAD: (1e-3, 1e-2), LOW_RANK: (1e-3, 5e-3), FULL: RATES}
    scratch_rates, most_batch, evaluated = RATES, RECORDINGS, 64
    layer_decay = 1.0  # letters are as far from what all layers learned
    whole = True
    needs_all = "letters need other features than pretraining made"

    def __init__(self, letters: list[str], size: int):
        self.letters, self.size, self.outputs = letters, size, len(letters) + 1
        self.number = {c: n + 1 for n, c in enumerate(letters)}

    def to_json(self) -> dict[str, Any]:
        return {"letters": self.letters, "size": self.size}

    @classmethod
    def parse(cls, told: Mapping[str, Any]) -> Self:
        size = int(number(told["size"]))
        if not 0 < size <= LONGEST:
            raise ValueError(f"size is {size}")
        return cls(words(told["letters"]), size)

    def width(self, encoder: Any) -> int:
        return sound.width(encoder)

    def read(self, encoder: Any, x: Tensor) -> Float[Tensor, "b t e"]:
        return sound.over_time(encoder, x)

    def answer(self, network: Network, x: Tensor) -> Float[Tensor, "b t letters"]:
        return log_softmax(super().answer(network, x).float(), -1)

    def plain(self, encoder: LoadedEncoder, batch: Batch) -> Tensor:
        return encoder.modality.plain(batch, self.size)

    def targets(self, part: Part, places: np.ndarray, device: torch.device) -> list[str]:
        return [part.targets[i] for i in places.tolist()]

    def loss(self, out: Float[Tensor, "b t letters"], y: list[str]) -> Tensor:
        targets = [self.number[c] for text in y for c in text]
        return ctc_loss(
            out.transpose(0, 1),
            torch.tensor(targets, device=out.device),
            torch.full((len(y),), out.shape[1]),
            torch.tensor([len(text) for text in y]),
            blank=BLANK,
            zero_infinity=True,
        )

    def heard(self, out: Float[Tensor, "b t letters"]) -> list[str]:
        return [collapse(path, self.letters) for path in out.argmax(-1).tolist()]

    def outcome(self, out: Tensor, y: list[str]) -> np.ndarray:
        """Errors and letters, errors and words: (b, 4)."""
        return np.array([errors(a, b) for a, b in zip(y, self.heard(out), strict=True)], float)

    def summary(self, outcomes: np.ndarray) -> float:
        return float(outcomes[:, 0].sum() / max(outcomes[:, 1].sum(), 1))

    def tell(self, out: Tensor, batch: Batch) -> dict[str, list | np.ndarray]:
        return {"text": self.heard(out)}

    def effort(self, labels: int, affordable: float) -> Effort | None:
        steps = int(np.clip(affordable / RECORDINGS, LEAST_STEPS, MOST_STEPS))
        return Effort(labels, steps, RECORDINGS)

    def groups(self, network: Network, choice: Choice, decay: float) -> list[dict[str, Any]]:
        return core.groups(network, choice.rate, decay, WEIGHT_DECAY)

    def settings(self) -> dict[str, Any]:
        return {"schedule": up_level_down, "betas": (0.9, 0.98)}


def up_level_down(step: int, steps: int) -> float:
    """Up, level, and down in the last half."""
    return min(1.0, (step + 1) / max(1, WARMUP * steps), 2 * (1 - step / steps))


def lengths(encoder: LoadedEncoder, store: Store, rows: np.ndarray) -> dict[int, float]:
    """Seconds of each of these recordings that can be read."""
    found: dict[int, float] = {}
    rate = encoder.modality.rate  # type: ignore[attr-defined]
    for low in range(0, len(rows), 256):
        stop.check()
        batch = store.batch(rows[low : low + 256])
        for i, sample in zip(batch.indices.tolist(), fields.unpack(batch), strict=True):
            found[i] = len(sample["wave"]) / rate
    return found


def size_for(encoder: LoadedEncoder, seconds: float) -> int:
    """How much is to be heard for recordings of so many seconds to be heard whole."""
    frames = 1000 * seconds / encoder.modality.hop  # type: ignore[attr-defined]
    return max(encoder.size, int(-(-frames // 16) * 16))


def fitting(task: Transcribe, encoder: LoadedEncoder, store: Store, part: Part) -> None:
    """Raises SelfsupError E202 where an encoder has fewer moments than there are letters."""
    with torch.no_grad():
        x, _ = task.look(encoder, part, np.arange(1))
        t = task.read(encoder.encoder, x).shape[1]
    most = max(len(text) for text in part.targets)
    if t < most:
        raise SelfsupError(
            "E202",
            f"{encoder.card.name} hears {t} moments where up to {most} letters are said",
            why="CTC gives at most one letter a moment",
            do="pretrain an encoder of tokens: --method mae, or --encoder mel_tiny",
        )


# ---- equations -------------------------------------------------------------------------------


def collapse(path: Sequence[int], letters: Sequence[str]) -> str:
    """Greedy decoding: one of each run of equals, and no blanks."""
    text = "".join(letters[n - 1] for n, _ in groupby(path) if n != BLANK)
    return " ".join(text.split())


def distance(a: Sequence, b: Sequence) -> int:
    """Fewest insertions, deletions and changes from a to b (Levenshtein)."""
    row = np.arange(len(b) + 1)
    for i, x in enumerate(a, 1):
        differs = np.array([x != y for y in b], int)
        new = np.minimum(row[1:] + 1, row[:-1] + differs)
        new = np.concatenate([[i], new])
        # an insertion leads from any place to the left
        row = np.minimum.accumulate(new - np.arange(len(new))) + np.arange(len(new))
    return int(row[-1])


def errors(said: str, heard: str) -> tuple[int, int, int, int]:
    words, others = said.split(), heard.split()
    return distance(said, heard), len(said), distance(words, others), len(words)
