"""What to choose where the user chose nothing, each choice with its reason.

Rules of thumb on a handful of facts and the tables of `suited`. Only the speed of a step is
measured, on the machine and the data at hand, because a table of speeds would be wrong on every
machine but one.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from . import listing
from .console import duration
from .errors import SelfsupError
from .suited import (
    BATCHES,
    CANDIDATES,
    GPU_CANDIDATES,
    HELPED,
    LIKE,
    SHORT,
    SUITED,
    TRANSFORMERS,
    WHOLE,
    Candidate,
)

# Without a length: a run and its evaluation fit in half an hour for pictures, else in a quarter
MINUTES = {"image": 15.0}
MINUTES_ELSE = 10.0
# More passes than this over a small set bring nothing within the patience of a first try
MOST_EPOCHS = 400
FEWEST_STEPS = 600  # fewer are too few, however often the data were seen by then
# An encoder is small enough when the budget shows it the data this often, and this many samples
WANTED_EPOCHS = 4.0
WANTED_SAMPLES = 200_000
# A masked method sees a quarter of a sample, and learns from more passes; one that names every next
# token learns a hundred things from each sample
PATIENCE = {"mae": 2.0, "clm": 0.05}
# Where the largest encoder sees the data this many times as often as wanted, views may be larger
AMPLE = 3.0
# A contrastive batch of fewer has too few negatives to learn from
FEWEST_SAMPLES = 2


class Choice(NamedTuple):
    key: str
    value: Any
    reason: str


@dataclass(frozen=True)
class Facts:
    """What the choices rest on. `size` is that of a view, as the modality has it, and why."""

    samples: int
    size: int
    size_reason: str = ""
    modality: str = "image"
    unit: str = "px"
    device: str = "cpu"
    cores: int = 1
    processes: int = 1
    encoders: tuple[str, ...] = ()  # those of the modality; none: unknown
    larger: tuple[int, ...] = ()  # sizes of views that long runs can afford


Rate = Callable[[Mapping[str, Any]], float]  # settings so far -> samples per second


def plan(given: Mapping[str, Any], facts: Facts, rate: Rate, default_method: str) -> list[Choice]:
    """Values for what `given` (dotted key -> value) leaves open. Raises E102 for too few samples.

    `rate` measures the samples per second of real steps with the settings it is handed.
    """
    if facts.samples < FEWEST_SAMPLES:
        raise SelfsupError(
            "E102",
            f"{facts.samples} usable sample{'s' if facts.samples != 1 else ''}: nothing to compare",
            why="self-supervision learns from what tells samples apart",
            do="give it more data; a few hundred samples are a start",
        )
    choices: list[Choice] = []
    known = dict(given)

    def choose(key: str, value: Any, reason: str) -> None:
        if key not in known:
            known[key] = value
            choices.append(Choice(key, value, reason))

    choose("method.name", *_method(default_method, facts))
    method = known["method.name"]
    why, suited = SUITED.get(f"{facts.modality}.{method}", ("", {}))
    for key, value in suited.items():
        choose(key, value, why)
    resolution = len(choices)
    choose("data.resolution", facts.size, facts.size_reason)
    choose("train.batch", *_batch(method, facts))
    known["train.batch"] = min(known["train.batch"], facts.samples)
    if facts.modality in WHOLE:
        choose("optim.per", known["train.batch"], "the rate does not grow with the graph")

    minutes, length_reason = _minutes(known, facts)
    candidates = _candidates(known, facts)
    candidate, reason, speed = _largest(candidates, known, facts, minutes, rate)
    for size in () if "data.resolution" in given else facts.larger:
        if candidate != candidates[0] or minutes * 60 * speed < AMPLE * _wanted(known, facts):
            break
        why = f"{duration(minutes * 60)} are enough for more than {known['data.resolution']}"
        choices[resolution] = Choice("data.resolution", size, why)
        known["data.resolution"] = size
        candidates = _candidates(known, facts)
        candidate, reason, speed = _largest(candidates, known, facts, minutes, rate)
    if "encoder.name" not in known:
        choose("encoder.name", candidate.encoder, reason)
    for key, value in candidate.keywords.items():
        why = f"goes with {candidate.encoder} here"
        if key == "patch":
            why = (
                f"{known['data.resolution'] // value} x {known['data.resolution'] // value} tokens"
            )
        choose(f"encoder.{key}", value, why)
    if facts.device == "cpu":
        short = SHORT.get(f"{facts.modality}.{method}") or SHORT.get(method, {})
        name = short.get("optim.name", known.get("optim.name"))
        shards = known.get("train.shard") and name == "muon"  # which needs whole matrices
        if shards or known.get("optim.name", name) != name:  # its rates are for no other
            short = {key: value for key, value in short.items() if not key.startswith("optim.")}
        for key, value in short.items():
            choose(key, value, "suits the few thousand steps that processor cores can do")

    if not any(known.get(f"train.{unit}") for unit in ("steps", "epochs", "minutes")):
        epochs = speed * minutes * 60 / facts.samples if speed else 0
        most = max(MOST_EPOCHS, FEWEST_STEPS * known["train.batch"] // facts.samples)
        if epochs > most:
            reason = f"{most} passes over {facts.samples} samples take about "
            reason += duration(most * facts.samples / speed)
            choose("train.epochs", float(most), reason)
        else:
            choose("train.minutes", minutes, length_reason)
    return choices


def _method(default: str, facts: Facts) -> tuple[str, str]:
    if (facts.modality, default) == ("image", "simclr"):
        reason = "first of 29 methods after two minutes each on CIFAR-10"
    elif names := HELPED.get(f"{facts.modality}.{default}"):
        reason = f"pretraining by it helped: {', '.join(names)}"
    else:
        reason = "usual for such data; no gain for certain yet"
    return default, f"{reason} (docs/methods.md)"


def _batch(method: str, facts: Facts) -> tuple[int, str]:
    if facts.modality in WHOLE:
        most = WHOLE[facts.modality]
        words = "all of them at once" if facts.samples <= most else "as many as memory allows"
        return min(facts.samples, most), words
    usual = _for(method, facts.modality, BATCHES)
    # an even share for each process, and whole batches seen many times where the data is small
    if facts.samples < 4 * usual:
        batch = max(FEWEST_SAMPLES, 1 << max(1, (facts.samples // 4).bit_length() - 1))
        batch = min(batch, facts.samples)
        return batch, f"only {facts.samples} samples, so that a pass over them has several steps"
    return usual, f"usual for {method}"


def _minutes(known: Mapping[str, Any], facts: Facts) -> tuple[float, str]:
    if known.get("train.minutes"):
        return float(known["train.minutes"]), ""
    minutes = MINUTES.get(facts.modality, MINUTES_ELSE)
    fit = "half an hour" if minutes > MINUTES_ELSE else "a quarter of an hour"
    return minutes, f"no length was given; training and its evaluation then fit in {fit}"


def _for(method: str, modality: str, table: Mapping[str, Any]) -> Any:
    """The entry of a method, or of the one it is like, where the modality has none of its own."""
    names = [method, *([LIKE[method]] if method in LIKE else [])]
    default = "mae" if {"tokens", "local", "causal"} & _asks(method) else "simclr"
    keys = [*(f"{modality}.{name}" for name in names), *names, f"{modality}.{default}", default]
    return next(table[key] for key in keys if key in table)


def _asks(method: str) -> set[str]:
    return set(listing.methods()[method].asks) if method in listing.methods() else set()


def _candidates(known: Mapping[str, Any], facts: Facts) -> tuple[Candidate, ...]:
    method, side = known["method.name"], known["data.resolution"]
    if "encoder.name" in known:
        found: tuple[Candidate, ...] = (Candidate(known["encoder.name"]),)
    else:
        table = GPU_CANDIDATES if facts.device == "cuda" else CANDIDATES
        form = f"{facts.modality}.{known.get('modality.form')}"
        found = table.get(form) or _for(method, facts.modality, table)
        if "causal" in _asks(method):  # it foretells what the encoder must not see
            found = tuple(Candidate(c.encoder, {**c.keywords, "causal": True}) for c in found)
        if facts.modality == "image" and any(
            key in known for key in ("encoder.patch", "encoder.registers", "encoder.cls")
        ):
            found = TRANSFORMERS
        if facts.encoders and found[0].encoder not in facts.encoders:
            raise SelfsupError(
                "E202",
                f"{method} does not learn from {facts.modality} data",
                why=f"it needs an encoder such as {found[0].encoder}, which is for other data",
                do="leave --method out for the usual one, or see: selfsup list methods",
            )
    with_patch = []
    for candidate in found:
        own = candidate.keywords
        in_patches = facts.modality == "image" and candidate.encoder.startswith("vit")
        if in_patches and "encoder.patch" not in known:
            own = {**own, "patch": patch_for(side)}
        elif side % own.get("patch", 1):  # then the encoder's own choice
            own = {key: value for key, value in own.items() if key != "patch"}
        with_patch.append(Candidate(candidate.encoder, own))
    return tuple(with_patch)


def patch_for(side: int) -> int:
    """A divisor of `side` that gives about 8 x 8 tokens for small pictures, 14 x 14 for large."""
    wanted = side / 14 if side >= 160 else side / 8
    divisors = [d for d in range(1, side + 1) if side % d == 0 and side // d >= 2] or [1]
    return min(divisors, key=lambda d: (abs(d - wanted), d))


def _largest(
    candidates: tuple[Candidate, ...],
    known: Mapping[str, Any],
    facts: Facts,
    minutes: float,
    rate: Rate,
) -> tuple[Candidate, str, float]:
    """The largest encoder to which the budget shows the data often enough, and its speed; else the
    smallest."""
    fixed_length = known.get("train.steps") or known.get("train.epochs")
    if len(candidates) == 1 or fixed_length:
        candidate = candidates[0] if len(candidates) == 1 else candidates[len(candidates) // 2]
        asks = not fixed_length and not known.get("train.minutes")  # its speed sets the length
        speed = rate(_with(candidate, known)) if asks else 0.0
        return candidate, "fits this machine; the length was given in steps or epochs", speed
    # from the smallest on, so that none is measured that is far too slow
    found, found_speed, seen, larger = candidates[-1], 0.0, "", ""
    for candidate in reversed(candidates):
        speed = rate(_with(candidate, known))
        epochs = speed * minutes * 60 / facts.samples
        times = f"{epochs:.1f} times" if epochs < 20 else f"{epochs:.0f} times"
        fits = epochs * facts.samples >= _wanted(known, facts)
        if not seen or fits:
            found, found_speed = candidate, speed
            seen = f"{duration(minutes * 60)} at {speed:.0f} samples/s show it the data {times}"
        else:
            larger = f"; {candidate.name}, the next larger one, {times}"
        if not fits:
            break
    return found, seen + larger, found_speed


def _wanted(known: Mapping[str, Any], facts: Facts) -> float:
    """How many samples a run should see."""
    samples = max(WANTED_EPOCHS * facts.samples, WANTED_SAMPLES)
    return samples * PATIENCE.get(known["method.name"], 1.0)


def _with(candidate: Candidate, known: Mapping[str, Any]) -> dict[str, Any]:
    own = {f"encoder.{key}": value for key, value in candidate.keywords.items()}
    return {**own, "encoder.name": candidate.encoder, **known}
