"""What a method wants of its optimizer, and how that becomes a torch.optim object."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.optim import Optimizer

from . import distributed, schedules
from .errors import SelfsupError

MUON_MOMENTUM = 0.95
# Tensors of more than one dimension that are no matrices: learned tokens and positions.
UNDECAYED = {"positions", "blank", "prefix", "cls", "registers", "token", "tokens", "mask_token"}


@dataclass(frozen=True)
class Optim:
    """An optimizer recipe. `lr` belongs to a batch of `per` samples and scales linearly with it.

    `warmup` is a share of all steps; then a cosine leads from `lr` to `lr * final`.
    `weight_decay_end` gives decay a cosine of its own, from `weight_decay` to there.
    """

    name: str = "adamw"  # adamw, muon, sgd, lars
    lr: float = 5e-4
    per: int = 256
    weight_decay: float = 0.05
    weight_decay_end: float | None = None
    betas: tuple[float, float] = (0.9, 0.95)
    momentum: float = 0.9
    warmup: float = 0.1
    clip: float | None = None
    final: float = 0.0


def build(method: nn.Module, optim: Optim, batch: int, steady: tuple[str, ...] = ()) -> Optimizer:
    """The optimizer of a method's trainable parameters, for `batch` samples a step.

    Groups: what decays, and what does not (biases, norms, positions and other tokens); of each, the
    parts of the method called `steady` for themselves, whose learning rate stays at its peak.
    `set_progress` moves the others.
    """
    lr = optim.lr * batch / optim.per
    groups = [
        {"params": [], "weight_decay": optim.weight_decay if d else 0.0, "decays": d, "lr": lr,
         "steady": s}
        for s in (False, True) for d in (True, False)
    ]  # fmt: skip
    for name, parameter in method.named_parameters():
        if parameter.requires_grad:
            stays = name.partition(".")[0] in steady
            groups[2 * stays + (not decays(name, parameter))]["params"].append(parameter)
    groups = [group for group in groups if group["params"]]
    if optim.name == "adamw":
        return torch.optim.AdamW(groups, lr=lr, betas=optim.betas, fused=True)
    if optim.name == "muon":
        if any(distributed.spread(p) for p in method.parameters()):
            raise SelfsupError(
                "E201",
                "the optimizer is muon, with --shard",
                why="it needs whole matrices, of which each process then holds a part",
                do="--set optim.name=adamw, or leave --shard out",
            )
        return Muon(groups, lr=lr, betas=optim.betas, fused=True)
    if optim.name == "sgd":
        # PyTorch has no fused descent for tensors that are spread over ranks
        fused = not any(distributed.spread(p) for p in method.parameters())
        return torch.optim.SGD(groups, lr=lr, momentum=optim.momentum, fused=fused)
    if optim.name == "lars":
        return LARS(groups, lr=lr, momentum=optim.momentum)
    raise ValueError(f"the optimizer is {optim.name!r}; it can be adamw, muon, sgd or lars")


def decays(name: str, parameter: Tensor) -> bool:
    """Whether weight decay applies: to matrices and kernels, not to what has a scale of its own."""
    leaf = name.rpartition(".")[2]
    return parameter.ndim > 1 and leaf not in UNDECAYED


def set_progress(
    optimizer: Optimizer, optim: Optim, batch: int, progress: float, scale: float = 1.0
) -> float:
    """Learning rate and weight decay of this moment; returns the learning rate."""
    peak = scale * optim.lr * batch / optim.per
    lr = schedules.warmup_cosine(peak, optim.warmup, optim.final)(progress)
    decay = optim.weight_decay
    if optim.weight_decay_end is not None:
        decay = schedules.cosine(optim.weight_decay, optim.weight_decay_end)(progress)
    for group in optimizer.param_groups:
        group["lr"] = peak if group["steady"] else lr
        group["weight_decay"] = decay if group["decays"] else 0.0
    return lr


class LARS(Optimizer):
    """Layer-wise adaptive rates. You, Gitman, Ginsburg 2017, https://arxiv.org/abs/1708.03888

    Each layer's step is scaled by `trust * |w| / |g + decay * w|` (equation 6 with the decay in
    the gradient, as in SimCLR's code). As there, what does not decay is not scaled either.
    """

    def __init__(self, params, lr: float, momentum: float = 0.9, trust: float = 0.001):
        super().__init__(params, {"lr": lr, "momentum": momentum, "trust": trust})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        assert closure is None
        for group in self.param_groups:
            for w in group["params"]:
                if w.grad is None:
                    continue
                step = w.grad
                if group["decays"]:
                    step = step.add(w, alpha=group["weight_decay"])
                    size, slope = w.norm(), step.norm()
                    trusted = group["trust"] * size / slope
                    step = step * torch.where((size > 0) & (slope > 0), trusted, 1.0)
                state = self.state[w]
                if "momentum_buffer" not in state:
                    state["momentum_buffer"] = torch.zeros_like(w)
                velocity = state["momentum_buffer"]
                velocity.mul_(group["momentum"]).add_(step)
                w.add_(velocity, alpha=-group["lr"])


class Muon(torch.optim.AdamW):
    """Momentum made orthogonal, for what decays; AdamW for the rest. Jordan et al., 2024,
    https://kellerjordan.github.io/posts/muon/; its scale is that of arXiv 2502.16982, equation 4.

    All directions of a matrix move alike, so that few large ones do not drown the others. Kernels
    of convolutions count as matrices of (outputs, the rest).
    """

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        assert closure is None
        for group in self.param_groups:
            if not group["decays"]:
                continue
            alike: dict[torch.Size, list[tuple[Tensor, Tensor]]] = {}  # many small products in one
            for w in group["params"]:
                if w.grad is None:
                    continue
                state = self.state[w]
                if "momentum_buffer" not in state:
                    state["momentum_buffer"] = torch.zeros_like(w)
                velocity = state["momentum_buffer"]
                velocity.mul_(MUON_MOMENTUM).add_(w.grad)
                step = w.grad.add(velocity, alpha=MUON_MOMENTUM).flatten(1)  # Nesterov's
                alike.setdefault(step.shape, []).append((w, step))
                w.grad = None  # nothing is left for AdamW
            for shape, found in alike.items():
                scale = 0.2 * max(shape) ** 0.5  # entries as large as AdamW's
                turned = orthogonal(torch.stack([step for _, step in found]))
                for (w, _), direction in zip(found, turned, strict=True):
                    w.mul_(1 - group["lr"] * group["weight_decay"])
                    w.add_(direction.view(w.shape), alpha=-group["lr"] * scale)
        super().step()


def orthogonal(x: Float[Tensor, "k m n"], rounds: int = 5) -> Float[Tensor, "k m n"]:
    """U V' of each x = U S V', nearly: singular values come out between 0.7 and 1.2.

    Newton-Schulz with the coefficients of Jordan's post, in bfloat16 on the shorter side.
    """
    a, b, c = 3.4445, -4.7750, 2.0315
    tall = x.shape[1] > x.shape[2]
    wide = x.mT if tall else x
    z = (wide / wide.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)).bfloat16().contiguous()
    for _ in range(rounds):
        gram = z @ z.mT
        z = torch.baddbmm(z, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), z, beta=a)
    return (z.mT if tall else z).to(x)


def state_tensors(method: nn.Module, optimizer: Optimizer) -> dict[str, Tensor]:
    """The optimizer's state by parameter name, "exp_avg/encoder.stem.weight": (any shape)."""
    found = {}
    for name, parameter in method.named_parameters():
        for key, value in sorted(optimizer.state.get(parameter, {}).items()):
            if isinstance(value, Tensor):
                found[f"{key}/{name}"] = value
    return found


def load_state_tensors(
    method: nn.Module,
    optimizer: Optimizer,
    tensors: Iterable[tuple[str, Tensor]],
    like: Callable[[Tensor, Tensor], Tensor],
) -> None:
    """Put such tensors back; `like(tensor, parameter)` lays one out as the parameter is."""
    parameters = dict(method.named_parameters())
    optimizer.state.clear()
    for name, value in tensors:
        key, _, owner = name.partition("/")
        parameter = parameters[owner]
        value = like(value, parameter) if value.shape == parameter.shape else value.clone()
        optimizer.state[parameter][key] = value
