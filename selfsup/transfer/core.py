"""Training a pretrained network further on labels: the loop, the rates, the low-rank adapters.

What pretrained weights ask for: lower layers move less (layer-wise decay, as in BEiT and MAE),
batch statistics stay, and where labels are few only adapters beside the weights move (LoRA).
Whether the network is a control of an evaluation or a model to keep makes no difference here.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from math import cos, pi
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils import parametrize

from .. import machine
from ..errors import SelfsupError
from ..randomness import mix, order
from ..stop import stop

LEAST_BATCH, BATCH = 16, 64
WEIGHT_DECAY, CLIP, WARMUP = 0.05, 1.0, 0.1
LAYER_DECAY = 0.75
RANK, STRENGTH = 8, 16.0  # of the adapters: r and alpha of the paper

MOST_SAMPLES, MOST_STEPS = 40_000, 400  # wanted; more steps where the labels need more passes
LEAST_STEPS, LEAST_EPOCHS = 100, 10  # a network trained for less is not worth comparing with
TOP = 10_000  # the depth of what comes after all layers


# ---- how long --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Effort:
    """How long a network is trained: `steps` batches of `batch` of its labels."""

    labels: int
    steps: int
    most: int = BATCH

    @property
    def batch(self) -> int:
        return batch_of(self.labels, self.most)

    @property
    def samples(self) -> int:
        return self.steps * self.batch

    @property
    def epochs(self) -> float:
        return self.samples / self.labels

    def of(self, labels: int) -> "Effort":
        """The same number of passes over other labels."""
        steps = max(1, round(self.epochs * labels / batch_of(labels, self.most)))
        return Effort(labels, steps, self.most)


def batch_of(labels: int, most: int = BATCH) -> int:
    """A quarter of the labels, within bounds: steps are what few labels have need of."""
    return min(labels, max(LEAST_BATCH, min(most, labels // 4)))


def least_steps(labels: int) -> int:
    return max(LEAST_STEPS, -(-LEAST_EPOCHS * labels // batch_of(labels)))


def effort(labels: int, affordable: float) -> Effort | None:
    """What is wanted for so many labels, halved until it takes no more samples than affordable.

    None where too little would be left of it. Halving, and not dividing by what fits, makes two
    evaluations on one machine train for the same number of steps although they measure the time.
    """
    batch, least = batch_of(labels), least_steps(labels)
    steps = max(least, min(MOST_STEPS, MOST_SAMPLES // batch), round(20 * labels / batch))
    while steps * batch > affordable and steps > least:
        steps = max(least, steps // 2)
    return Effort(labels, steps) if steps * batch <= affordable else None


# ---- which layers, how fast ------------------------------------------------------------------


def depth_of(name: str) -> int:
    """How far from the input a parameter of an encoder lies: stems 0, then blocks or stages."""
    found = re.match(r"(trunk\.(?:blocks\.)?|blocks\.|steps\.|norms\.)(\d+)|layer(\d+)", name)
    if found is None:
        return TOP if name.startswith(("trunk.norm", "norm.")) else 0
    return int(found[3]) if found[3] else int(found[2]) + 1


def groups(
    network: nn.Module, rate: float, decay: float = 1.0, weight_decay: float = WEIGHT_DECAY
) -> list[dict[str, Any]]:
    """Groups of what is trained of `network.encoder` and `network.head`.

    A layer learns at rate * decay ** (layers above it); no weight decay on vectors.
    """
    named = list(network.encoder.named_parameters())  # type: ignore[union-attr]
    top = max((d for d in (depth_of(n) for n, _ in named) if d < TOP), default=0) + 1
    made: dict[tuple[float, float], list[Tensor]] = {}

    def put(parameter: Tensor, rate: float, fades: bool) -> None:
        if parameter.requires_grad:
            made.setdefault((rate, weight_decay if fades else 0.0), []).append(parameter)

    for name, parameter in named:
        scale = decay ** (top - min(depth_of(name), top))
        put(parameter, rate * scale, parameter.ndim > 1 and name != "positions")
    for parameter in network.head.parameters():  # type: ignore[union-attr]
        put(parameter, rate, parameter.ndim > 1)
    return [{"params": p, "lr": r, "peak": r, "weight_decay": w} for (r, w), p in made.items()]


class LowRank(nn.Module):
    """weight + alpha / r * up @ down: a change of rank r (LoRA, arXiv 2106.09685, section 4.1).

    `up` starts at zero, so the network starts as it was.
    """

    def __init__(self, weight: Float[Tensor, "o i"], rank: int):
        super().__init__()
        outputs, inputs = weight.shape
        self.scale = STRENGTH / rank
        self.down = nn.Parameter(torch.randn(rank, inputs, device=weight.device) / rank)
        self.up = nn.Parameter(torch.zeros(outputs, rank, device=weight.device))

    def forward(self, weight: Float[Tensor, "o i"]) -> Float[Tensor, "o i"]:
        return weight + self.scale * self.up @ self.down


def adaptable(encoder: nn.Module) -> list[nn.Linear]:
    """The linear layers in the blocks of a transformer; none elsewhere."""
    return [
        module
        for name, module in encoder.named_modules()
        if isinstance(module, nn.Linear) and re.match(r"(trunk\.)?blocks\.\d+\.", name)
    ]


def adapt(encoder: nn.Module, rank: int = RANK) -> None:
    """Freeze the encoder and put adapters beside its linear layers. Raises SelfsupError E202."""
    layers = adaptable(encoder)
    if not layers:
        raise SelfsupError(
            "E202",
            "low-rank adapters need the linear layers of a transformer",
            why=f"{type(encoder).__name__} has none",
            do="--train full, or --train head",
        )
    encoder.requires_grad_(False)
    for layer in layers:
        adapter = LowRank(layer.weight, min(rank, *layer.weight.shape))
        parametrize.register_parametrization(layer, "weight", adapter)


def merge(encoder: nn.Module) -> None:
    """Add the adapters to the weights they stand beside: the network is again what it was built."""
    for module in encoder.modules():
        if isinstance(module, nn.Linear) and parametrize.is_parametrized(module, "weight"):
            parametrize.remove_parametrizations(module, "weight", leave_parametrized=True)


# ---- the loop --------------------------------------------------------------------------------


def warm_cosine(step: int, steps: int) -> float:
    warm = min(1.0, (step + 1) / max(1, round(WARMUP * steps)))
    return warm * (1 + cos(pi * step / steps)) / 2


def fit(
    network: nn.Module,
    parameters: list[dict[str, Any]],
    look: Callable[[int], tuple[Any, Any]],
    loss: Callable[[Tensor, Any], Tensor],
    *,
    steps: int,
    seed: int,
    pretrained: bool,
    precision: str = "auto",
    schedule: Callable[[int, int], float] = warm_cosine,
    betas: tuple[float, float] = (0.9, 0.999),
    tell: Callable[[str], None] = lambda text: None,
) -> None:
    """Train in place with AdamW. `look(step)` gives the batch and its targets.

    Statistics of a pretrained network stay: a few labels estimate them worse than all of
    pretraining did. An encoder of which nothing is trained works as it does for features.
    """
    device = next(network.parameters()).device
    precision = machine.choose_precision(precision, device.type)
    optimizer = torch.optim.AdamW(parameters, betas=betas, fused=True)
    network.train()
    encoder: Any = network.encoder
    if not any(p.requires_grad for p in encoder.parameters()):
        encoder.eval()
    for module in network.modules() if pretrained else ():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eval()
    with torch.random.fork_rng(devices=[]):  # dropout
        torch.manual_seed(mix(seed, 0x66697400))
        for step in range(steps):
            stop.check()
            for group in optimizer.param_groups:
                group["lr"] = group["peak"] * schedule(step, steps)
            x, y = look(step)
            with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
                out = network(x)
            value = loss(out, y)
            optimizer.zero_grad()
            value.backward()
            nn.utils.clip_grad_norm_(network.parameters(), CLIP)
            optimizer.step()
            tell(f"step {step + 1}/{steps}")
    network.eval()


_orders: dict[tuple[int, int, int], np.ndarray] = {}


def picks(seed: int, step: int, size: int, n: int) -> np.ndarray:
    """Which of n samples the step takes: endless shuffled passes, (size,) int64."""

    def nth(counter: int) -> int:
        key = (seed, counter // n, n)
        if key not in _orders:
            _orders.clear()
            _orders[key] = order(*key)
        return int(_orders[key][counter % n])

    return np.array([nth(c) for c in range(step * size, (step + 1) * size)])
