"""The linear probe: multinomial logistic regression on frozen features.

It answers whether the classes can be told apart by a plane. Features are standardised, the
strength of the L2 penalty is chosen on a part of the *training* labels, and the fit is exact
(convex), so that two encoders are compared and not two training runs.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn.functional import cross_entropy, linear

from ..randomness import order
from ..stop import stop

# On the mean cross-entropy; scikit-learn's C is 1 / (strength * samples)
STRENGTHS = tuple(10.0**power for power in (1, 0.5, 0, -0.5, -1, -1.5, -2, -2.5, -3, -4, -5, -6))
ONE_LABEL = 0.1  # with a single label per class there is nothing to choose a strength with
PATIENCE = 3  # weaker penalties are not tried after so many that did worse
HISTORY, ITERATIONS = 8, 200
SMALL = 1 << 22  # numbers; below this the fit is done in double precision


class Scale(NamedTuple):
    """Mean and deviation of each feature; a feature that never changes has the deviation 1."""

    mean: Float[Tensor, " d"]
    deviation: Float[Tensor, " d"]

    def __call__(self, x: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
        return (x - self.mean) / self.deviation


def scale_of(x: Float[Tensor, "n d"], *, common: bool = False) -> Scale:
    """Mean and deviation of each feature, or with `common` one deviation for all.

    Principal components want the latter: to standardise them is to whiten, and the last of 256
    components is noise.
    """
    deviation, mean = torch.std_mean(x.double(), 0, correction=0)
    if common:
        deviation = deviation.square().mean().sqrt().expand_as(deviation)
    floor = 1e-6 * deviation.max().clamp(min=1e-30)
    return Scale(mean.to(x), torch.where(deviation > floor, deviation, 1.0).to(x))


class Plane(NamedTuple):
    """Class scores `x @ weight + bias`."""

    weight: Float[Tensor, "d classes"]
    bias: Float[Tensor, " classes"]
    strength: float

    def __call__(self, x: Float[Tensor, "n d"]) -> Float[Tensor, "n classes"]:
        return x @ self.weight.to(x) + self.bias.to(x)


@contextmanager
def one_thread(small: bool) -> Iterator[None]:
    """Small problems on one thread: waiting for a second one takes longer than the work.

    On a busy machine, where that thread is not running, a hundred times longer.
    """
    before = torch.get_num_threads()
    if small:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class Path:
    """Fits along falling L2 strengths, each begun where the last one ended.

    Minimised is mean cross-entropy + strength / 2 * |weight|^2, the bias free. In the basis of
    the features' principal axes the curvature is nearly diagonal, s / classes + strength for an
    axis of variance s; scaled by it, L-BFGS (Liu and Nocedal 1989) needs tens of steps, not
    hundreds.
    """

    def __init__(self, x: Float[Tensor, "n d"], y: Int64[Tensor, " n"], classes: int):
        self.small = x.numel() <= SMALL
        with one_thread(self.small):
            self._prepare(x, y, classes)

    def _prepare(self, x: Float[Tensor, "n d"], y: Int64[Tensor, " n"], classes: int) -> None:
        kind = torch.float64 if self.small else torch.float32
        x = x.to(kind)
        self.center = x.mean(0)
        x = x - self.center
        # Axes from the smaller of the two Gram matrices; in double, as squares lose half the digits
        if len(x) > x.shape[1]:
            variance, axes = torch.linalg.eigh(_gram(x.T) / len(x))
        else:
            variance, left = torch.linalg.eigh(_gram(x) / len(x))
            lengths = (variance * len(x)).clamp(min=1e-300).sqrt()
            axes = x.T.double() @ left / lengths
        keep = variance > 1e-10 * variance.max().clamp(min=1e-30)
        self.axes, self.variance = axes[:, keep].to(kind), variance[keep].to(kind)
        self.x = x @ self.axes  # (n, r)
        self.y = torch.zeros(len(y), classes, dtype=kind, device=x.device)
        self.y.scatter_(1, y[:, None], 1.0)
        self.classes = classes
        self.weight = self.x.new_zeros(classes, self.x.shape[1])  # classes first: 7 times faster
        self.bias = (self.y.mean(0) + 1e-3).log()

    def fit(self, strength: float, tolerance: float = 1e-6) -> Plane:
        """The plane at which no entry of the scaled gradient exceeds `tolerance`.

        In single precision the gradient of so many samples is not known better than to 2e-5.
        """
        with one_thread(self.small):
            return self._fit(strength, tolerance)

    def _fit(self, strength: float, tolerance: float) -> Plane:
        if self.x.dtype == torch.float32:
            tolerance = max(tolerance, 2e-5)
        stretch = (self.variance / self.classes + strength).rsqrt()  # (r,)
        penalty = strength * stretch.square()
        root = self.classes**0.5  # the bias's own stretch
        point = torch.cat([self.weight / stretch, self.bias[:, None] / root], 1)  # (c, r + 1)

        def logits(p):
            return linear(self.x, p[:, :-1] * stretch, p[:, -1] * root)

        def value(p, scores):
            cross = scores.logsumexp(1) - (scores * self.y).sum(1)
            return (cross.mean() + 0.5 * (penalty * p[:, :-1].square()).sum()).item()

        def slope(p, scores):
            wrong = (scores.softmax(1) - self.y) / len(scores)  # (n, c)
            inner = stretch * (wrong.T @ self.x) + penalty * p[:, :-1]
            return torch.cat([inner, root * wrong.sum(0)[:, None]], 1)

        scores = logits(point)
        loss, gradient = value(point, scores), slope(point, scores)
        steps: list[tuple[Tensor, Tensor, Tensor]] = []
        for _ in range(ITERATIONS):
            if gradient.abs().max() < tolerance:
                break
            direction = _two_loops(gradient, steps)
            down = (gradient * direction).sum().item()
            change = logits(direction)  # scores are linear: a shorter step costs no product
            share = 1.0
            while share > 1e-6:
                new = point + share * direction
                new_scores = scores + share * change
                new_loss = value(new, new_scores)
                if new_loss <= loss + 1e-4 * share * down:  # Armijo's condition
                    break
                share /= 2
            else:
                break  # no progress is left within the precision of the numbers
            if loss - new_loss <= 1e-7 * abs(loss) and self.x.dtype == torch.float32:
                break
            new_gradient = slope(new, new_scores)
            moved, turned = new - point, new_gradient - gradient
            curvature = (moved * turned).sum()
            if curvature > 1e-12 * turned.square().sum():
                steps = [*steps[1 - HISTORY :], (moved, turned, 1 / curvature)]
            point, scores, loss, gradient = new, new_scores, new_loss, new_gradient
        self.weight, self.bias = point[:, :-1] * stretch, point[:, -1] * root
        weight = self.axes @ self.weight.T
        return Plane(weight, self.bias - self.center @ weight, strength)


def _gram(x: Tensor) -> Float[Tensor, "n n"]:
    """x @ x.T in double, summed over blocks so that no double copy of x is made."""
    total = torch.zeros(len(x), len(x), dtype=torch.float64, device=x.device)
    for part in x.split(8192, dim=1):
        total += (part @ part.T).double()
    return total


def _two_loops(gradient: Tensor, steps: list[tuple[Tensor, Tensor, Tensor]]) -> Tensor:
    """L-BFGS's downhill direction: algorithm 7.4 of Nocedal and Wright."""
    q, shares = gradient.clone(), []
    for moved, turned, rho in reversed(steps):
        shares.append(rho * (moved * q).sum())
        q -= shares[-1] * turned
    if steps:
        moved, turned, rho = steps[-1]
        q /= rho * turned.square().sum()
    for (moved, turned, rho), share in zip(steps, reversed(shares), strict=True):
        q += (share - rho * (turned * q).sum()) * moved
    return -q


def fit(x: Float[Tensor, "n d"], y: Int64[Tensor, " n"], classes: int, strength: float) -> Plane:
    """One fit on features that are already scaled."""
    return Path(x, y, classes).fit(strength)


def choose(
    x: Float[Tensor, "n d"],
    y: Int64[Tensor, " n"],
    classes: int,
    parts: list[tuple[Int64[Tensor, " a"], Int64[Tensor, " b"]]],
) -> tuple[float, float]:
    """The strength with the best accuracy over held-out parts of the labels, and that accuracy.

    `parts` are (rows to fit, rows to score). Ties go to the smaller cross-entropy.
    """
    paths = [(Path(x[fit_rows], y[fit_rows], classes), held) for fit_rows, held in parts]
    best, since = (-1.0, 0.0, 0.0), 0
    for strength in STRENGTHS:
        stop.check()
        right = cross = count = 0.0
        for path, held in paths:
            # A path that only ranks strengths need not end in the last digit
            scores = path.fit(strength, 1e-4)(x[held])
            right += (scores.argmax(1) == y[held]).sum().item()
            cross += cross_entropy(scores, y[held], reduction="sum").item()
            count += len(held)
        found = (right / count, -cross / count, strength)
        best, since = (found, 0) if found > best else (best, since + 1)
        if since == PATIENCE:
            break
    return best[2], best[0]


def held_out(
    y: Int64[Tensor, " n"], seed: int = 0, groups: Int64[np.ndarray, " n"] | None = None
) -> list[tuple[Int64[Tensor, " a"], Int64[Tensor, " b"]]]:
    """How to choose with these labels alone: none to spare, three folds, or one part in ten.

    Stratified and deterministic. Few labels are used several times because one part of them would
    say little. Of `groups` each stays whole, in the class of its first sample, and is counted once.
    """
    if groups is not None:
        _, first, group = np.unique(groups, return_index=True, return_inverse=True)
        own = torch.from_numpy(group).to(y.device)
        inside = [torch.isin(own, chosen) for _, chosen in held_out(y[first], seed)]
        return [((~m).nonzero()[:, 0], m.nonzero()[:, 0]) for m in inside]
    counts = torch.bincount(y)
    present = counts[counts > 0]
    fewest = int(present.min())
    if int(present.max()) < 2:
        return []
    turn = torch.empty_like(y)  # how many of its own class come before each sample
    shuffled = torch.from_numpy(order(seed, 0, len(y))).to(y.device)
    for label in counts.nonzero()[:, 0]:
        rows = shuffled[y[shuffled] == label]
        turn[rows] = torch.arange(len(rows), device=y.device)
    if len(y) >= max(2000, 10 * len(present)):
        held = turn % 10 == 0
        return [((~held).nonzero()[:, 0], held.nonzero()[:, 0])]
    folds = min(3, int(counts.max()) if fewest < 2 else fewest)
    if folds < 2:
        return []
    masks = (turn % folds == fold for fold in range(folds))
    return [((~m).nonzero()[:, 0], m.nonzero()[:, 0]) for m in masks]


def probe(
    x: Float[Tensor, "n d"],
    y: Int64[Tensor, " n"],
    classes: int,
    *,
    scale: Scale | None = None,
    parts: list[tuple[Int64[Tensor, " a"], Int64[Tensor, " b"]]] | None = None,
    seed: int = 0,
    groups: Int64[np.ndarray, " n"] | None = None,
) -> tuple[Plane, Scale]:
    """Choose the strength on held-out training labels, then fit on all of them.

    `scale` is taken from `x` unless given (unlabelled training samples may know it better);
    `parts` from `held_out`, which keeps `groups` whole.
    """
    scale = scale or scale_of(x)
    x = scale(x)
    parts = held_out(y, seed, groups) if parts is None else parts
    strength = choose(x, y, classes, parts)[0] if parts else ONE_LABEL
    return fit(x, y, classes, strength), scale
