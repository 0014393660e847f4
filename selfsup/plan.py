"""What to choose where the user chose nothing, each choice with its reason.

Rules of thumb on a handful of facts, kept in tables that experiments correct. Only the speed of a
step is measured, on the machine and the data at hand, because a table of speeds would be wrong on
every machine but one.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from .console import duration
from .errors import SelfsupError

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


@dataclass(frozen=True)
class Candidate:
    """An encoder worth trying; `keywords` are its settings."""

    encoder: str
    keywords: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        words = ", ".join(f"{key} {value}" for key, value in self.keywords.items())
        return self.encoder + (f" ({words})" if words else "")


# From large to small. Masked methods need the tokens of a transformer.
CONVOLUTIONAL = (
    Candidate("resnet18"),
    Candidate("resnet18", {"width": 0.5}),
    Candidate("resnet18", {"width": 0.5, "stem": 2}),
    Candidate("resnet18", {"width": 0.25, "stem": 2}),
)
TRANSFORMERS = (
    Candidate("vit_small"),
    Candidate("vit_tiny"),
    Candidate("vit_tiny", {"depth": 6}),
    Candidate("vit_tiny", {"depth": 4}),
)
BIDIRECTIONAL = (
    Candidate("bert_small"),
    Candidate("bert_mini"),
    Candidate("bert_micro"),
    Candidate("bert_micro", {"depth": 2}),
)
# ESM's token dropout: hidden tokens come in as zeros
RESCALED = tuple(Candidate(c.encoder, {**c.keywords, "rescale": True}) for c in BIDIRECTIONAL)
# What dropout leaves out makes the views: with less an untrained network tells all texts apart
DROPPING = tuple(Candidate(c.encoder, {**c.keywords, "dropout": 0.5}) for c in BIDIRECTIONAL)
CAUSAL = (
    Candidate("gpt_small"),
    Candidate("gpt_mini"),
    Candidate("gpt_micro"),
    Candidate("gpt_micro", {"depth": 2}),
)
DILATED = (
    Candidate("dilated"),
    Candidate("dilated_small"),
)
GRAPHS = (Candidate("gin", {"pool": "sum", "jump": True, "norm": True}),)
# Tokens of a few frames: from digits spoken by strangers these learn what a ResNet does not
FRAMES = (
    Candidate("mel_small"),
    Candidate("mel_tiny"),
    Candidate("mel_tiny", {"depth": 4}),
)
WAVES = (
    Candidate("wave_small"),
    Candidate("wave_tiny"),
    Candidate("wave_tiny", {"depth": 2, "channels": 64}),
)
TOWERS = (
    Candidate("towers_small"),
    Candidate("towers_mini"),
    Candidate("towers_micro"),
)
OBSERVERS = (
    Candidate("observer"),
    Candidate("observer_small"),
)
# By modality and form of its samples, "audio.wave"; by modality and method where the modality asks
# for others, "text.mlm"; by method
CANDIDATES = {
    "simclr": CONVOLUTIONAL,
    "dino": CONVOLUTIONAL,
    "mae": TRANSFORMERS,
    "jepa": TRANSFORMERS,
    "ts2vec": DILATED,
    "series.simclr": DILATED,
    "series.dino": DILATED,
    "network.graphmae": (Candidate("gat", {"dim": 256, "drop": 0.2, "attention_drop": 0.1}),),
    "network.grace": (Candidate("gcn", {"hidden": 256, "dim": 128, "act": "relu"}),),
    "network.dgi": (Candidate("gcn", {"dim": 512, "depth": 1}),),
    "network.bgrl": (Candidate("gcn", {"hidden": 512, "dim": 256, "norm": True}),),
    "network.simclr": (Candidate("gcn", {"hidden": 256, "dim": 128, "act": "relu"}),),
    "network.dino": (Candidate("gcn"),),
    "graph.graphmae": GRAPHS,
    "graph.grace": GRAPHS,
    "graph.dgi": GRAPHS,
    "graph.bgrl": GRAPHS,
    "graph.simclr": GRAPHS,
    "graph.dino": GRAPHS,
    "audio.simclr": FRAMES,
    "audio.dino": FRAMES,
    "audio.mae": FRAMES,
    "audio.jepa": FRAMES,
    "audio.wav2vec2": FRAMES,
    "audio.wave": WAVES,
    "video.simclr": TRANSFORMERS,
    "video.dino": TRANSFORMERS,
    "world_model": OBSERVERS[1:],
    "trajectory.simclr": OBSERVERS[1:],
    "trajectory.dino": OBSERVERS[1:],
    "mlm": BIDIRECTIONAL,
    "clm": CAUSAL,
    "text.simclr": BIDIRECTIONAL,
    "text.dino": BIDIRECTIONAL,
    "protein.mlm": RESCALED,
    "protein.simclr": BIDIRECTIONAL,
    "protein.dino": BIDIRECTIONAL,
    "clip": TOWERS,
    "pairs.simclr": TOWERS,
    "pairs.dino": TOWERS,
    "text.data2vec": BIDIRECTIONAL,
    "protein.data2vec": BIDIRECTIONAL,
    "text.simcse": DROPPING,
    "series.simcse": DILATED,
    "network.simcse": (Candidate("gcn", {"hidden": 256, "dim": 128, "drop": 0.1}),),
    "graph.simcse": (Candidate("gin", {**GRAPHS[0].keywords, "drop": 0.1}),),
}
GPU_CANDIDATES = {
    "clip": (Candidate("towers_base"), Candidate("towers_small")),
    "simclr": (Candidate("resnet50"), Candidate("resnet18")),
    "dino": (Candidate("vit_small"), Candidate("vit_tiny")),
    "mae": (Candidate("vit_base"), Candidate("vit_small"), Candidate("vit_tiny")),
    "jepa": (Candidate("vit_base"), Candidate("vit_small"), Candidate("vit_tiny")),
    "video.simclr": (Candidate("vit_small"), Candidate("vit_tiny")),
    "ts2vec": (Candidate("dilated"),),
    "series.simclr": DILATED,
    "series.dino": DILATED,
    "audio.simclr": FRAMES,
    "audio.dino": FRAMES,
    "audio.mae": FRAMES,
    "audio.jepa": FRAMES,
    "audio.wav2vec2": FRAMES,
    "audio.wave": (Candidate("wave_base"), *WAVES),
    "world_model": OBSERVERS,
    "trajectory.simclr": OBSERVERS,
    "trajectory.dino": OBSERVERS,
    "mlm": (Candidate("bert_base"), *BIDIRECTIONAL[:2]),
    "clm": (Candidate("gpt_base"), *CAUSAL[:2]),
    "text.simclr": BIDIRECTIONAL[:2],
    "text.dino": BIDIRECTIONAL[:2],
    "protein.mlm": RESCALED[:2],
    "protein.simclr": BIDIRECTIONAL[:2],
    "protein.dino": BIDIRECTIONAL[:2],
    "pairs.simclr": TOWERS[:2],
    "pairs.dino": TOWERS[:2],
    "text.data2vec": BIDIRECTIONAL[:2],
    "protein.data2vec": BIDIRECTIONAL[:2],
    "text.simcse": DROPPING[:2],
}
BATCHES = {
    "simclr": 256,
    "audio.simclr": 128,
    "dino": 128,
    "mae": 128,
    "jepa": 128,
    "video.simclr": 64,
    "video.dino": 32,
    "video.mae": 32,
    "video.jepa": 32,
    "wav2vec2": 64,
    "ts2vec": 8,
    "graphmae": 128,
    "grace": 128,
    "dgi": 128,
    "bgrl": 128,
    "igpt": 128,
    "video.igpt": 32,
    "mlm": 64,
    "protein.mlm": 32,
    "text.data2vec": 64,
    "protein.data2vec": 32,
    "clm": 32,
    "clip": 128,
    "world_model": 64,
    "simcse": 128,
}
# Methods that want of encoder and batch what another one wants
LIKE = {
    **dict.fromkeys(
        (
            "moco",
            "curl",
            "distill",
            "byol",
            "simsiam",
            "barlowtwins",
            "vicreg",
            "nnclr",
            "tico",
            "tfc",
            "relativeposition",
            "colorization",
            "inpainting",
        ),
        "simclr",
    ),
    **dict.fromkeys(("mocov3", "swav", "lejepa", "rotation"), "dino"),
    **dict.fromkeys(
        (
            "msn",
            "simmim",
            "data2vec",
            "ibot",
            "dinov2",
            "jigsaw",
            "cpc",
            "maskfeat",
            "beit",
            "igpt",
        ),
        "mae",
    ),
    **dict.fromkeys(("mdlm", "electra"), "mlm"),
    "hubert": "wav2vec2",
}
# Those that foretell what comes next want an encoder that cannot see it
AHEAD = ("igpt",)
# Samples that one forward pass gives all of, the nodes of one graph: this many at most in a batch
WHOLE = {"network": 8192}

# The papers' settings are for hundreds of passes over a million pictures. On processor cores a run
# has one or two thousand steps: small heads, quick teachers, and Muon, which on CIFAR-10 learns
# more from 130 steps than AdamW does from 200 (docs/LOG.md).
QUICK = {
    "optim.name": "muon",
    "optim.lr": 2e-2,
    "optim.weight_decay": 0.01,
    "optim.betas": (0.9, 0.99),
    "optim.warmup": 0.1,
}
# a prototype for samples and for places
NAMED_PLACES = {
    **QUICK,
    "method.prototypes": 512,
    "method.hidden": 512,
    "method.dim": 64,
    "method.head_norm": True,
    "method.local_views": 2,
    "method.momentum": 0.98,
    "method.teacher_temperature_end": 0.04,
    "optim.lr": 1e-2,
    "optim.weight_decay_end": 0.01,
}
SHORT: dict[str, dict[str, Any]] = {
    "simclr": {
        "method.hidden": 512,
        "optim.name": "muon",
        "optim.lr": 2e-2,
        "optim.weight_decay": 0.01,
        "optim.betas": (0.9, 0.99),
    },
    "moco": {
        **QUICK,
        "method.hidden": 512,
        "method.queue": 4096,
        "method.head_norm": True,
        "method.momentum": 0.98,
        "method.momentum_end": 0.98,
    },
    "curl": {**QUICK, "optim.final": 0.0},
    "distill": QUICK,
    "mocov3": {
        **QUICK,
        "method.hidden": 512,
        "method.dim": 128,
        "method.layers": 2,
        "method.momentum": 0.98,
    },
    "byol": {**QUICK, "method.hidden": 512, "method.dim": 128, "method.momentum": 0.97},
    "simsiam": {**QUICK, "method.hidden": 512, "method.bottleneck": 128},
    "barlowtwins": {**QUICK, "method.dim": 512},
    "vicreg": {**QUICK, "method.dim": 512},
    "swav": {
        **QUICK,
        "method.prototypes": 256,
        "method.hidden": 512,
        "method.dim": 64,
        "method.local_views": 2,
        "method.queue": 1024,
    },
    "nnclr": {
        **QUICK,
        "method.hidden": 512,
        "method.dim": 128,
        "method.predictor_hidden": 512,
        "method.queue": 4096,
    },
    "tico": {**QUICK, "method.hidden": 512, "method.dim": 128, "method.momentum": 0.97},
    "tfc": QUICK,
    "lejepa": {
        **QUICK,
        "method.hidden": 512,
        "method.dim": 64,
        "method.slices": 256,
        "method.local_views": 2,
    },
    "msn": {
        **QUICK,
        "method.prototypes": 256,
        "method.hidden": 512,
        "method.dim": 64,
        "method.local_views": 2,
        "method.momentum": 0.98,
    },
    "simmim": {"optim.lr": 4e-3},
    "beit": {"method.codes": 256, "method.hidden": 128, "optim.lr": 2e-2},
    "maskfeat": {"optim.lr": 4e-3, "optim.clip": 1.0},
    "igpt": {"method.clusters": 128, "method.upper": 2, "optim.lr": 4e-3},
    "jigsaw": {"optim.lr": 4e-3},
    "cpc": {"method.dim": 64, "optim.lr": 4e-3},
    "rotation": QUICK,
    "relativeposition": QUICK,
    "colorization": QUICK,
    "inpainting": QUICK,
    "data2vec": {
        "method.layers": 2,
        "method.momentum": 0.99,
        "optim.lr": 2e-2,
    },
    "ibot": NAMED_PLACES,
    "dinov2": NAMED_PLACES,
    "dino": {
        "method.prototypes": 1024,
        "method.hidden": 512,
        "method.dim": 64,
        "method.head_norm": True,
        "method.local_views": 2,
        "method.momentum": 0.98,
        "method.teacher_temperature_end": 0.04,
        "optim.name": "muon",
        "optim.lr": 1e-2,
        "optim.weight_decay": 0.01,
        "optim.weight_decay_end": 0.01,
    },
    "wav2vec2": {
        "method.span": 4,
        "method.codes": 64,
        "method.dim": 64,
        "optim.lr": 4e-3,
    },
    "hubert": {
        "method.span": 4,
        "method.clusters": 64,
        "method.dim": 64,
        "optim.lr": 4e-3,
    },
    "mae": {
        "method.decoder_dim": 96,
        "method.decoder_depth": 1,
        "method.decoder_heads": 3,
        "optim.lr": 4e-3,
    },
    "jepa": {
        "method.predictor_dim": 96,
        "method.predictor_depth": 2,
        "method.predictor_heads": 3,
        "method.momentum": 0.98,
        "optim.lr": 3.2e-2,
        "optim.weight_decay_end": 0.04,
        "optim.warmup": 0.1,
    },
    "text.simclr": {
        "method.hidden": 256,
        "optim.name": "adamw",
        "optim.lr": 2e-3,
        "optim.weight_decay": 0.01,
        "optim.betas": (0.9, 0.99),
    },
    "mlm": {"optim.lr": 3e-3},
    "protein.mlm": {"optim.name": "muon", "optim.lr": 1.6e-2, "optim.final": 0.0},
    "clip": {"optim.lr": 2e-3},
    "mdlm": {
        "optim.name": "muon",
        "optim.lr": 1.6e-2,
        "optim.per": 64,
        "optim.betas": (0.9, 0.99),
    },
    "simcse": {"optim.lr": 1e-3},
    "clm": {"optim.name": "muon", "optim.lr": 1.6e-2, "optim.final": 0.0},
}

# What a method needs for data whose samples hold nearly the same many times over, on any machine
SUITED: dict[str, dict[str, Any]] = {
    "video.mae": {"method.mask": "tube", "method.ratio": 0.9},
    "video.jepa": {"method.blocks": 8, "method.scale": (0.15, 0.15)},
}

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
    for key, value in SUITED.get(f"{facts.modality}.{method}", {}).items():
        choose(key, value, "neighbouring frames hold nearly the same")
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
    told = facts.modality == "image" and default == "simclr"
    reason = "first of 23 methods after two minutes each on CIFAR-10 (docs/methods.md)"
    return default, reason if told else "the modality's own choice"


def _batch(method: str, facts: Facts) -> tuple[int, str]:
    if facts.modality in WHOLE:
        most = WHOLE[facts.modality]
        words = "all of them at once" if facts.samples <= most else "as many as memory allows"
        return min(facts.samples, most), words
    usual = _for(method, facts.modality, BATCHES) or 256
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
    keys = [*(f"{modality}.{name}" for name in names), *names]
    return next((table[key] for key in keys if key in table), None)


def _candidates(known: Mapping[str, Any], facts: Facts) -> tuple[Candidate, ...]:
    method, side = known["method.name"], known["data.resolution"]
    if "encoder.name" in known:
        found: tuple[Candidate, ...] = (Candidate(known["encoder.name"]),)
    else:
        table = GPU_CANDIDATES if facts.device == "cuda" else CANDIDATES
        form = f"{facts.modality}.{known.get('modality.form')}"
        found = table.get(form) or _for(method, facts.modality, table) or TRANSFORMERS
        if method in AHEAD:
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
        in_patches = facts.modality == "image" and candidate.encoder.startswith("vit")
        if in_patches and "encoder.patch" not in known:
            keywords = {**candidate.keywords, "patch": patch_for(side)}
            candidate = Candidate(candidate.encoder, keywords)
        with_patch.append(candidate)
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
    """The largest encoder to which the budget shows the data often enough, and its speed."""
    fixed_length = known.get("train.steps") or known.get("train.epochs")
    if len(candidates) == 1 or fixed_length:
        candidate = candidates[0] if len(candidates) == 1 else candidates[len(candidates) // 2]
        asks = not fixed_length and not known.get("train.minutes")  # its speed sets the length
        speed = rate(_with(candidate, known)) if asks else 0.0
        return candidate, "fits this machine; the length was given in steps or epochs", speed
    tried = []
    for candidate in candidates:
        speed = rate(_with(candidate, known))
        epochs = speed * minutes * 60 / facts.samples
        seen = f"{duration(minutes * 60)} at {speed:.0f} samples/s show it the data "
        seen += f"{epochs:.1f} times" if epochs < 20 else f"{epochs:.0f} times"
        tried.append(f"{candidate.name}: {epochs:.1f}")
        if epochs * facts.samples >= _wanted(known, facts):
            break
    larger = f"; larger ones less often ({', '.join(tried[:-1])})" if tried[:-1] else ""
    return candidate, seen + larger, speed


def _wanted(known: Mapping[str, Any], facts: Facts) -> float:
    """How many samples a run should see."""
    samples = max(WANTED_EPOCHS * facts.samples, WANTED_SAMPLES)
    return samples * PATIENCE.get(known["method.name"], 1.0)


def _with(candidate: Candidate, known: Mapping[str, Any]) -> dict[str, Any]:
    own = {f"encoder.{key}": value for key, value in candidate.keywords.items()}
    return {**own, "encoder.name": candidate.encoder, **known}
