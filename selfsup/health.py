"""A run that goes wrong says so: what is seen, the likely cause, and what to change.

Every few steps, from what the last loss left in `method.watch`: the spread and effective rank of
the embeddings, the use of prototypes, terms that stay at chance, weights that do not move. A sign
must be seen several times in a row before it becomes a verdict, and verdicts are worded for
somebody who has never seen a collapse. Masked methods have embeddings of low rank by nature, and
untrained networks give all samples nearly the same one: neither is an alarm by itself.
"""

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import normalize

from . import distributed
from .logs import Events
from .method import Method
from .run import Run

WINDOW = 3  # looks in a row that must agree before a verdict changes
CONSTANT = 0.02  # spread (1 is even) below which embeddings are one point, also in bfloat16
AT_CHANCE = 0.005  # share of its chance value within which a term counts as stuck there
SETTLED = 0.2  # progress before which a term may still be at chance
LATE = 0.5  # progress after which it is no longer a warning
FLAT_RANK = 3.0  # effective rank of an encoder that uses a line or a plane
STILL = 1e-9  # relative change of the weights between two looks that counts as none
SPIKE = 20.0  # times the running median of the loss
MEDIAN_OF = 51


@dataclass(frozen=True)
class Verdict:
    """`kind` is healthy, warning, collapsed or diverged."""

    kind: str
    message: str
    cause: str = ""
    do: str = ""


HEALTHY = Verdict("healthy", "healthy")
DIVERGED = Verdict(
    "diverged",
    "training diverged: its numbers stopped being finite",
    "again and again after going back and halving the learning rate",
    "lower optim.lr, set optim.clip to 1, or use --set train.precision=fp32",
)
SAME_DATA = Verdict(
    "collapsed",
    "all samples of a batch look the same",
    "the data: empty or identical samples leave nothing to learn",
    "look at the pictures of `selfsup scan`; it also lists duplicates",
)
COPIES = Verdict(
    "collapsed",
    "all samples of a batch are copies of one",
    "the data: the same sample again and again; its views differ by nothing but chance",
    "`selfsup scan` lists copies, and --drop-copies leaves out those that are so byte for byte",
)
EMPTY_DATA = Verdict(
    "collapsed",
    "the samples have no content: each is one constant value",
    "the data: blank samples, or a range of values that was scaled to nothing",
    "look at the pictures of `selfsup scan`",
)
FROZEN = Verdict(
    "collapsed",
    "the weights do not move",
    "the learning rate is zero or too small to change them, or nothing has a gradient",
    "raise optim.lr",
)
ONE_POINT = Verdict(
    "collapsed",
    "all samples get the same embedding",
    "complete collapse: the loss can be made small without looking at the samples",
    "lower the learning rate, lengthen the warm-up, or take a larger batch; with your own method "
    "check that no gradient flows into the targets",
)
ONE_PROTOTYPE = Verdict(
    "collapsed",
    "all samples fall into the same prototype",
    "cluster collapse: the teacher's centre does not follow, or its temperature is too low",
    "raise method.teacher_temperature, or let the centre move faster (a smaller centre_momentum)",
)
UNIFORM = Verdict(
    "collapsed",
    "every sample belongs to all prototypes alike",
    "uniform collapse: the teacher's output says nothing, so the loss stays at ln(prototypes)",
    "lower method.teacher_temperature or the learning rate, lengthen the warm-up, and see with "
    "`selfsup scan` whether the samples differ",
)
FLAT = Verdict(
    "warning",
    "the embeddings use very few dimensions, fewer than when training began",
    "dimensional collapse: views too easy to tell apart by one feature, or too few negatives",
    "take stronger views or a larger batch; judge with `selfsup evaluate`",
)
NOT_YET = Verdict(
    "warning",
    "a term of the loss is where guessing would put it",
    "nothing is learned yet: learning rate too low or too high, or samples that do not differ",
    "if it stays: change optim.lr by a factor of 3; see `selfsup scan` for duplicates",
)
NOTHING = Verdict(
    "collapsed",
    "half of training is over and a term of the loss is still where guessing would put it",
    NOT_YET.cause,
    "change optim.lr by a factor of 3; see `selfsup scan` for duplicates",
)
STRANGERS = Verdict(
    "warning",
    "some parts of samples do not find each other: their term of the loss is where guessing "
    "would put it",
    "they share nothing, or their towers see or learn too little of it yet",
    "if it stays: train longer, or let these towers see more (modality.options, encoder.parts)",
)
SEVERITY = {"healthy": 0, "warning": 1, "collapsed": 2, "diverged": 3}


class Monitor:
    """Looks at a method from time to time. Its memory is JSON and goes into the checkpoint."""

    def __init__(self, method: Method, memory: dict[str, Any] | None = None):
        self.method = method
        self.load(memory or {})

    def load(self, memory: dict[str, Any]) -> None:
        self.verdict = Verdict(**memory["verdict"]) if memory else HEALTHY
        self.pending: list[str] = list(memory.get("pending", []))  # the last signs, by message
        self.weight: float | None = memory.get("weight")
        self.best_std: float = memory.get("best_std", 0.0)
        self.first_rank: float | None = memory.get("first_rank")
        self.losses: list[float] = list(memory.get("losses", []))
        self.guessing: dict[str, float] = dict(memory.get("guessing", {}))

    def save(self) -> dict[str, Any]:
        return {
            "verdict": asdict(self.verdict),
            "pending": self.pending,
            "weight": self.weight,
            "best_std": self.best_std,
            "first_rank": self.first_rank,
            "losses": self.losses,
            "guessing": self.guessing,  # what terms cost by it, for the report
        }

    def spike(self, step: int, loss: float, events: Events) -> None:
        """A finite loss far above the usual one is an event; training goes on."""
        usual = median(self.losses) if len(self.losses) >= 10 else math.inf
        if abs(loss) > SPIKE * max(usual, 1e-3):
            message = f"the loss jumped to {loss:.4g}, usually {usual:.4g}"
            events.write("spike", step, message, cause="an unusual batch, or too high a rate")
        self.losses = [*self.losses, abs(loss)][-MEDIAN_OF:]

    def look(
        self,
        step: int,
        progress: float,
        views: list[Tensor],
        terms: dict[str, float],
        events: Events,
        alike: bool = False,
    ) -> dict[str, float]:
        """Numbers for the metrics; sets `verdict`, and writes an event when it changes.

        `alike`: the samples that the views were made of are all the same.
        """
        constant = {name: float(cost) for name, cost in self.method.constant.items()}
        self.guessing = self.method.chance | constant
        embedding = self.method.watch["embedding"].float()
        numbers = {"monitor/std": spread(embedding), "monitor/rank": effective_rank(embedding)}
        for tower in self._towers():  # the worst of them is what the verdict is about
            x = self.method.watch[f"embedding/{tower}"].float()
            numbers[f"monitor/rank_{tower}"] = rank = effective_rank(x)
            numbers["monitor/rank"] = min(numbers["monitor/rank"], rank)
            numbers["monitor/std"] = min(numbers["monitor/std"], spread(x))
        assignments = self.method.watch.get("assignments")
        if assignments is not None:
            perplexity, vagueness = prototype_use(assignments.float())
            numbers |= {"monitor/perplexity": perplexity, "monitor/vagueness": vagueness}
        sign = self._sign(progress, views, terms, numbers)
        if alike and sign not in (SAME_DATA, EMPTY_DATA):
            sign = COPIES
        self.best_std = max(self.best_std, numbers["monitor/std"])
        if self.first_rank is None:
            self.first_rank = numbers["monitor/rank"]
        self.pending = [*self.pending, sign.message][-WINDOW:]
        # (two samples of a batch may be the only copies there are)
        certain = sign in (SAME_DATA, EMPTY_DATA) or (alike and len(embedding) >= 8)
        agreed = len(self.pending) == WINDOW and len(set(self.pending)) == 1
        if sign != self.verdict and (certain or agreed):
            self.verdict = sign
            words = {"verdict": sign.kind, "cause": sign.cause, "do": sign.do}
            events.write("verdict", step, sign.message, **words)
        return numbers

    def _towers(self) -> list[str]:
        return [k.partition("/")[2] for k in self.method.watch if k.startswith("embedding/")]

    def _sign(
        self,
        progress: float,
        views: list[Tensor],
        terms: dict[str, float],
        numbers: dict[str, float],
    ) -> Verdict:
        """The worst thing that can be seen at this moment."""
        signs = [same_data(views)]
        now, before = weight(self.method), self.weight
        if before is not None and abs(now - before) <= STILL * now and progress < 0.9:
            signs.append(FROZEN)  # (schedules end at zero: nothing moves there)
        self.weight = now

        guessed = [
            abs(terms[name] - chance) <= AT_CHANCE * abs(chance)
            for name, chance in self.method.chance.items()
            if name in terms
        ]
        at_chance = any(guessed)
        # a regression may also be worse than one answer for all, and is for a while as it starts
        blind = progress > LATE and any(
            terms[name] >= (1 - AT_CHANCE) * float(constant)
            for name, constant in self.method.constant.items()
            if name in terms
        )
        std, rank = numbers["monitor/std"], numbers["monitor/rank"]
        # an untrained encoder may give nearly the same embedding to all: it must have been better,
        # or be at chance, or have had its time
        fell = std < 0.5 * self.best_std
        if std < CONSTANT and (fell or at_chance or progress > SETTLED):
            signs.append(ONE_POINT)
        if "monitor/perplexity" in numbers:
            # (a teacher may be undecided for a while at the start)
            if numbers["monitor/vagueness"] > 0.999 and progress > SETTLED:
                signs.append(UNIFORM)
            k = self.method.watch["assignments"].shape[-1]
            if k >= 8 and numbers["monitor/perplexity"] < 1.5:
                signs.append(ONE_PROTOTYPE)
        # masked methods are of low rank by nature
        joint = self.method.views.count > 1 or self.method.apart or bool(self._towers())
        began = self.first_rank or 0.0
        if joint and progress > SETTLED and rank < min(FLAT_RANK, 0.5 * began):
            signs.append(FLAT)
        if at_chance and not all(guessed) and self._towers() and progress > SETTLED:
            signs.append(STRANGERS)
        elif (at_chance or blind) and progress > SETTLED:
            signs.append(NOTHING if progress > LATE else NOT_YET)
        return max(signs, key=lambda sign: SEVERITY[sign.kind])  # the first of the worst


# -- what can be measured -----------------------------------------------------------------------


def spread(x: Float[Tensor, "b d"]) -> float:
    """Deviation of l2-normalised embeddings per dimension over 1 / sqrt(d): 1 even, 0 one point.

    Chen, He 2021, https://arxiv.org/abs/2011.10566, figure 2.
    """
    if len(x) < 2:
        return 1.0
    return float(normalize(x, dim=-1).std(0).mean() * math.sqrt(x.shape[-1]))


def effective_rank(x: Float[Tensor, "b d"]) -> float:
    """RankMe: exp of the entropy of the singular values. 1 to min(b, d).

    Garrido et al. 2023, https://arxiv.org/abs/2210.02885, equation 1.
    """
    values = torch.linalg.svdvals(x)
    p = values / values.sum().clamp_min(1e-30) + 1e-7
    return float((-(p * p.log()).sum()).exp())


def prototype_use(p: Float[Tensor, "b k"]) -> tuple[float, float]:
    """Perplexity of the mean assignment (1 to k), and how vague one is: its entropy over ln k."""
    average = p.mean(0)
    perplexity = (-torch.xlogy(average, average).sum()).exp()
    vagueness = -torch.xlogy(p, p).sum(-1).mean() / math.log(p.shape[-1])
    return float(perplexity), float(vagueness)


def same_data(views: list[Tensor]) -> Verdict:
    """Whether the samples of a batch differ from each other, and within themselves."""
    for x in views:
        if not isinstance(x, Tensor):  # samples of different lengths differ
            return HEALTHY
        if not x.is_floating_point() or x.ndim < 2 or len(x) < 2:
            return HEALTHY
    if all(bool((x == x[:1]).all()) for x in views):
        return SAME_DATA
    # over all places of a sample, separately for its channels
    if all(x.ndim > 2 and bool((x.flatten(2) == x.flatten(2)[..., :1]).all()) for x in views):
        return EMPTY_DATA
    return HEALTHY


@torch.no_grad()
def weight(method: nn.Module) -> float:
    """The sum of the lengths of all trainable tensors: moves when they do."""
    weights = [distributed.local(p.detach()) for p in method.parameters() if p.requires_grad]
    return float(torch.stack(torch._foreach_norm(weights)).double().sum())


@torch.no_grad()
def finite_tensors(method: nn.Module) -> bool:
    """Whether all weights and buffers are finite, as far as this rank holds them."""
    tensors = [distributed.local(x) for x in method.state_dict().values()]
    tensors = [x for x in tensors if x.is_floating_point() and x.numel()]
    norms = [x.double() for x in torch._foreach_norm(tensors, torch.inf)]
    return bool(torch.stack(norms).isfinite().all())


# -- numbers that are not finite ----------------------------------------------------------------


def tell_bad(
    events: Events, state: Any, numbers: dict[str, float], capture: Callable[[int], Any] | None
) -> None:
    """A step was skipped: which number it was, and which samples."""
    wrong = [name for name, x in numbers.items() if not math.isfinite(x)] or ["the weights"]
    words = f"not finite: {', '.join(wrong)}; the step was skipped and its buffers restored"
    if capture is not None:
        words += f"; samples {capture(state.batch - 1)}"
    do = f"nothing unless it repeats ({state.bad} in a row, {state.skipped} in all)"
    cause = "an unusual batch, too high a learning rate, or too few digits in bfloat16"
    events.write("skipped", state.step, words, cause=cause, do=do)


def tell_rollback(events: Events, state: Any) -> None:
    message = (
        f"went back to the checkpoint of step {state.step}, past the batches that failed, "
        f"with {state.lr_scale:g} times the learning rate"
    )
    events.write("rollback", state.step, message, verdict="warning", cause="too high a rate")


def tell_diverged(
    events: Events, state: Any, capture: Callable[[int], Any] | None, run: Run | None
) -> None:
    """The last word of a run that failed: FAILED holds what is needed to replay the batch."""
    words = {"verdict": "diverged", "cause": DIVERGED.cause, "do": DIVERGED.do}
    events.write("diverged", state.step, DIVERGED.message, **words)
    if run is not None:
        batch = state.batch - 1
        samples = capture(batch) if capture is not None else None
        facts = {"step": state.step, "batch": batch, "samples": samples}
        facts |= {"seed": state.settings["seed"], "precision": state.precision}
        run.fail(**facts, verdict="diverged", message=DIVERGED.message, lr_scale=state.lr_scale)


def small_view(batch: int, parts: int) -> dict[str, str]:
    """The event for a loss that compares samples but sees only a part of them at once."""
    return {
        "message": f"the loss compares {batch // parts} samples at a time, not {batch}",
        "cause": "train.accumulate cuts a batch, and this method looks across it",
        "do": "nothing if that was meant; otherwise accumulate = 1, or train.chunk in its place",
    }
