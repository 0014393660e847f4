"""Forecasts for many short series: how the last 60 % of each follow from the steps before them.

As for recordings, but whole series teach and test, each at one step. Futures are foretold relative
to the last value that is known; a control more goes on with the last difference.
"""

from typing import Any

import numpy as np
from jaxtyping import Float

from ..data.outcome import BadSample
from ..data.series import SeriesSource
from ..errors import SelfsupError
from ..randomness import order
from ..transfer.forecast import last_known
from .controls import seen_before
from .forecast import CHOOSE, LAST, LINEAR, SEED, TEACH, TEST, Judge, linear, scale_of, scaled
from .interval import FEWEST
from .regress import VALIDATION
from .split import by_name

VELOCITY = "constant velocity"
DRAWN = "drawn at random"
SEEN = "The network has learned from those that test, too."
LEAST = 20  # series that teach
SHARE = 0.6  # of the steps, that are to be foretold


class Short(Judge):
    """`numbers` are the series that teach, choose and test; `ahead` the steps that are foretold."""

    samples, units = "series", "test series"
    last = True

    def prepare(self, horizons: tuple[int, ...]) -> None:
        source: SeriesSource = self.source
        lengths = np.array([len(values) for values in source.series])
        # all but the shortest tenth of the series
        reach = int(np.quantile(lengths, 0.1, method="lower")) if len(lengths) else 0
        self.ahead = max(horizons, default=int(SHARE * reach))
        self.context = max(0, min(self.encoder.size, reach - self.ahead))
        self.horizons = horizons or tuple(sorted({max(1, self.ahead // 3), self.ahead}))
        self.inputs, usable = [], np.zeros(len(lengths), bool)
        modality: Any = self.encoder.modality
        modality.meet(source)
        for i, (values, time) in enumerate(zip(source.series, source.times, strict=True)):
            try:
                self.inputs += modality.inputs([values], [time])
                usable[i] = lengths[i] >= self.context + self.ahead
            except BadSample:
                self.inputs.append(values)
        self.numbers, self.statement = divided(source, np.flatnonzero(usable))
        counts = [len(numbers) for numbers in self.numbers]
        if self.context < 2 or counts[0] < LEAST or not counts[1] or not counts[2]:
            raise SelfsupError(
                "E503", f"the series of {source.place} are too few or too short for a forecast",
                where=source.place, why=f"{counts[0]} of {self.context} known steps and "
                f"{self.ahead} more teach, {counts[1]} choose, {counts[2]} test",
                do="give more series, or longer ones" + ", or a smaller horizon" * bool(horizons),
            )  # fmt: skip
        self.left_out = len(lengths) - sum(counts)
        self.series = scaled(source.series, *scale_of(self.teaching()))

    def teaching(self) -> list[np.ndarray]:
        return [self.source.series[i] for i in self.numbers[0]]

    def origins(self, part: int, horizon: int) -> list[tuple[int, int]]:
        """The same step of a series at all horizons."""
        numbers = self.numbers[part]
        some = np.sort(order(SEED, part, len(numbers))[: (TEACH, CHOOSE, TEST)[part]])
        return [(i, len(self.series[i]) - self.ahead) for i in numbers[some].tolist()]

    def blocks(self, horizon: int) -> int:
        """Each series is one, of which something is known."""
        known = np.isfinite(self.future(self.origins(2, horizon), horizon)).any((1, 2)).sum()
        return int(known) if known >= FEWEST else 0

    def simple(
        self, parts: list[list[tuple[int, int]]], futures: list[np.ndarray]
    ) -> dict[str, Float[np.ndarray, "n h c"]]:
        pasts = [self.values(origins, self.context) for origins in parts]
        last = [last_known(past) for past in pasts]
        off = [[x - level for x, level in zip(of, last, strict=True)] for of in (pasts, futures)]
        steps = np.arange(1, futures[2].shape[1] + 1)[:, None]
        speed = np.nan_to_num(pasts[2][:, -1:] - pasts[2][:, -2:-1])
        return {
            LINEAR: linear(*off) + last[2],
            LAST: np.repeat(last[2], len(steps), 1),
            VELOCITY: last[2] + steps * speed,
        }

    def parts(self) -> dict[str, Any]:
        return {"parts": self.statement != DRAWN, "ahead": self.ahead}

    def seen(self, run: Any) -> bool:
        return self.statement == DRAWN and seen_before(run, self.source)

    def notes(self, counts: list[int], gains: list[dict[str, Any]]) -> list[str]:
        left = f" {self.left_out} series are left out." if self.left_out else ""
        return [
            f"{self.context} steps of each series are known, and the {self.ahead} after them are "
            f"foretold, relative to the last. {counts[0]} series teach, {counts[1]} choose the "
            f"strength, {counts[2]} test: {self.statement}.{left}",
            "Errors are on scaled values. ± is half of a 95 % interval over untrained networks and "
            f"test series, as if these were independent; fewer than {FEWEST} say nothing for "
            "certain.",
        ]


def divided(source: SeriesSource, usable: np.ndarray) -> tuple[list[np.ndarray], str]:
    """The series that teach, choose and test: by their parts where these are named, else drawn."""
    found = source.splits()
    parts = None if found is None else by_name(usable, *found)
    if found is None or parts is None:
        places = usable[order(SEED, 3, len(usable))]
        cuts = [int(0.7 * len(places)), len(places) - int(0.2 * len(places))]
        return [np.sort(part) for part in np.split(places, cuts)], DRAWN
    train, test, statement, _ = parts
    choosing = [i for i, name in enumerate(found[1]) if name.lower() in VALIDATION]
    held = np.setdiff1d(usable[np.isin(found[0][usable], choosing)], test)
    if not len(held):
        held = np.sort(train[order(SEED, 3, len(train))[: len(train) // 8]])
        train = np.setdiff1d(train, held)
    return [train, held, test], statement
