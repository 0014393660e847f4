"""DINOv2. Oquab et al., 2023, https://arxiv.org/abs/2304.07193

DINO between samples and iBOT between hidden tokens, each with prototypes of its own that are used
alike over the batch (Sinkhorn-Knopp), and samples pushed away from their nearest (KoLeo).
Any modality whose encoder is a transformer on patches.

Departure: the learning rate grows with the batch; the authors' with its square root, which for
batches smaller than 1,024 is more: twice as much for 256.
"""

import math
from dataclasses import replace
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn.functional import normalize, pairwise_distance

from .. import distributed, masks, needs, schedules
from ..heads import Sorter
from ..losses import across_views, sinkhorn
from ..method import Method, Views
from ..optim import Optim
from ..teacher import Centre, Teacher


class DINOv2(Method):
    views = Views(strong=2, local=8, share=(0.32, 1.0), local_share=(0.05, 0.32), alike=False)
    optim = Optim("adamw", lr=4e-3, per=1024, weight_decay=0.04, weight_decay_end=0.4,
                  betas=(0.9, 0.999), warmup=0.1, clip=3.0, final=0.00025)  # fmt: skip
    across_batch = True

    def __init__(
        self,
        encoder: Any,
        *,
        prototypes: int = 65536,
        hidden: int = 2048,
        dim: int = 256,
        head_norm: bool = False,
        local_views: int = 8,
        ratio: tuple[float, float] = (0.1, 0.5),
        spread: float = 0.1,  # weight of KoLeo
        centring: Literal["sinkhorn", "mean"] = "sinkhorn",
        temperature: float = 0.1,
        teacher_temperature: float = 0.04,
        teacher_temperature_end: float = 0.07,
        momentum: float = 0.992,
        centre_momentum: float = 0.9,
        freeze: float = 0.01,
    ):
        super().__init__(encoder)
        needs.tokens("DINOv2", encoder)
        self.views = replace(self.views, local=local_views)
        self.heads = nn.ModuleList(
            Sorter(encoder.dim, hidden, dim, prototypes, head_norm) for _ in range(2)
        )  # for samples, for tokens
        self.blank = nn.Parameter(0.02 * torch.randn(encoder.dim))  # the mask token
        self.teacher = Teacher(encoder)
        self.teacher_heads = nn.ModuleList(Teacher(head) for head in self.heads)
        self.centres = nn.ModuleList(Centre(prototypes) for _ in range(2))
        self.ratio, self.spread, self.centring = ratio, spread, centring
        self.temperature, self.freeze, self.centre_momentum = temperature, freeze, centre_momentum
        self.teacher_temperature = schedules.linear(
            teacher_temperature, teacher_temperature_end, until=0.3
        )
        self.momentum = schedules.cosine(momentum, 1.0)

    @property
    def kept(self):
        return self.teacher.slow

    def loss(self, views, progress):
        wide, small = torch.cat(views[:2]), views[2:]
        hidden = self.hide(len(views[0]), wide.device)  # (2b, n)
        tokens = self.encoder.tokens(wide, hidden) + self.blank * hidden[:, :, None]
        h, places = self.encoder.both(tokens)
        samples = torch.cat([h, self.encoder(torch.cat(small))]) if small else h
        frozen = progress < self.freeze
        student = self.heads[0](samples, frozen).float() / self.temperature
        parts = self.heads[1](places[hidden], frozen).float() / self.temperature
        with torch.no_grad():
            slow = self.teacher.slow
            whole, all_parts = slow.both(slow.tokens(wide))
            sorted_ = self.sort(0, whole, progress)
            sorted_parts = self.sort(1, all_parts[hidden], progress)
        self.watch = {"embedding": h.detach(), "assignments": sorted_}
        self.chance = {"samples": math.log(student.shape[-1])}
        student = student.unflatten(0, (len(views), -1))
        return {
            "samples": across_views(student, sorted_.unflatten(0, (2, -1))),
            # the mean over all views, of which every other hides nothing and counts as zero
            "tokens": -0.5 * (sorted_parts * parts.log_softmax(-1)).sum(-1).mean(),
            # never between the two views of a sample
            "spread": self.spread * sum(koleo(distributed.gather(x.float())) for x in h.chunk(2)),
        }

    def hide(self, rows: int, device: torch.device) -> Bool[Tensor, "b2 n"]:
        """Blocks in one of a sample's two views. Departure: of one ratio a step, so that all ranks
        have equally many tokens for Sinkhorn-Knopp. Paper: in half of all views, each its own."""
        low, high = self.ratio
        ratio = low + (high - low) * torch.rand(()).item()  # the same on all ranks
        first = distributed.rand(rows, 1, device) < 0.5
        hidden = [masks.blocks(ratio)(rows, self.encoder.grid, device) for _ in range(2)]
        return torch.cat([hidden[0] & first, hidden[1] & ~first])

    @torch.no_grad()
    def sort(self, head: int, h: Float[Tensor, "m d"], progress: float) -> Float[Tensor, "m k"]:
        """The teacher's probabilities, of which none is preferred over the batch."""
        t = self.teacher_heads[head](h).float()
        temperature = self.teacher_temperature(progress)
        if self.centring == "sinkhorn":
            return distributed.own(sinkhorn(distributed.gather(t) / temperature), len(t))
        return (self.centres[head](t) / temperature).softmax(-1)

    def after_step(self, progress):
        momentum = self.momentum(progress)
        self.teacher.follow(self.encoder, momentum)
        for teacher, head in zip(self.teacher_heads, self.heads, strict=True):
            teacher.follow(head, momentum)
        for centre in self.centres:
            centre.move(self.centre_momentum)


def koleo(x: Float[Tensor, "b d"], least: float = 1e-4) -> Tensor:
    """Minus the mean log distance of each direction to the nearest other one (arXiv 1806.03198).

    Departure: authors' `least` is 1e-8, by which one duplicated sample gives a gradient of 1e8.
    """
    with torch.autocast(x.device.type, enabled=False):  # distances of near points need float32
        x = normalize(x.float(), dim=-1)
        with torch.no_grad():
            nearest = (x @ x.T).fill_diagonal_(-1.0).argmax(1)
        return -(pairwise_distance(x, x[nearest], eps=least) + least).log().mean()
