"""iBOT. Zhou et al., 2021, https://arxiv.org/abs/2111.07832

A student that sees parts of a sample, some of their tokens hidden, foretells how a slow teacher
that sees all tokens sorts the whole sample, as in DINO, and each hidden token, among prototypes.
Any modality whose encoder is a transformer on patches.

Departure: `clip` is of the gradient as a whole; the authors clip each parameter's by itself. The
centre of tokens is of hidden ones, which alone go through the head (DINOv2); the authors' of all.
"""

import math
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from .. import distributed, masks, needs, schedules
from ..heads import Sorter
from ..losses import across_views
from ..method import Method, Views
from ..optim import Optim
from ..teacher import Centre, Teacher


class IBOT(Method):
    views = Views(strong=2, local=10, share=(0.25, 1.0), local_share=(0.05, 0.25), alike=False)
    optim = Optim("adamw", lr=5e-4, weight_decay=0.04, weight_decay_end=0.4, betas=(0.9, 0.999),
                  warmup=0.1, clip=3.0, final=0.002)  # fmt: skip

    def __init__(
        self,
        encoder: Any,
        *,
        prototypes: int = 8192,
        hidden: int = 2048,
        dim: int = 256,
        head_norm: bool = False,
        local_views: int = 10,
        ratio: tuple[float, float] = (0.1, 0.5),
        temperature: float = 0.1,
        teacher_temperature: float = 0.04,
        teacher_temperature_end: float = 0.07,
        momentum: float = 0.996,
        centre_momentum: float = 0.9,
        freeze: float = 0.01,
    ):
        super().__init__(encoder)
        needs.tokens("iBOT", encoder)
        self.views = replace(self.views, local=local_views)
        self.head = Sorter(encoder.dim, hidden, dim, prototypes, head_norm)
        self.blank = nn.Parameter(0.02 * torch.randn(encoder.dim))  # the mask token
        self.teacher, self.teacher_head = Teacher(encoder), Teacher(self.head)
        # of samples and of tokens: C and C' in the paper
        self.centres = nn.ModuleList(Centre(prototypes) for _ in range(2))
        self.ratio, self.temperature, self.freeze = ratio, temperature, freeze
        self.centre_momentum = centre_momentum
        self.teacher_temperature = schedules.linear(
            teacher_temperature, teacher_temperature_end, until=0.3
        )
        self.momentum = schedules.cosine(momentum, 1.0)

    @property
    def kept(self):
        return self.teacher.slow

    def loss(self, views, progress):
        wide, small = torch.cat(views[:2]), views[2:]
        hidden = torch.cat([self.hide(len(x), x.device) for x in views[:2]])  # (2b, n)
        tokens = self.encoder.tokens(wide, hidden) + self.blank * hidden[:, :, None]
        h, places = self.encoder.both(tokens)
        samples = torch.cat([h, self.encoder(torch.cat(small))]) if small else h
        frozen = progress < self.freeze
        z = self.head(torch.cat([samples, places[hidden]]), frozen)  # one head for both
        z = z.float() / self.temperature
        with torch.no_grad():
            slow = self.teacher.slow
            whole, parts = slow.both(slow.tokens(wide))
            split = [len(whole), int(hidden.sum())]
            t = self.sort(torch.cat([whole, parts[hidden]]), split, progress)
        student = z[: len(samples)].unflatten(0, (len(views), -1))
        self.watch = {"embedding": h.detach(), "assignments": t[0]}
        self.chance = {"samples": math.log(z.shape[-1])}
        return {
            "samples": across_views(student, t[0].unflatten(0, (2, -1))),
            "tokens": at_hidden(z[len(samples) :], t[1], hidden),
        }

    def hide(self, rows: int, device: torch.device) -> Bool[Tensor, "b n"]:
        """Blocks, in every other view on average. Departure: of one ratio a step."""
        low, high = self.ratio
        ratio = low + (high - low) * torch.rand(()).item()  # the same on all ranks
        return masks.blocks(ratio)(rows, self.encoder.grid, device) & (
            distributed.rand(rows, 1, device) < 0.5
        )

    @torch.no_grad()
    def sort(self, h: Float[Tensor, "m d"], split: list[int], progress: float) -> list[Tensor]:
        """The teacher's probabilities for samples and for tokens, each centred by itself."""
        t = self.teacher_head(h).float().split(split)
        temperature = self.teacher_temperature(progress)
        centred = [centre(part) for centre, part in zip(self.centres, t, strict=True)]
        return [(part / temperature).softmax(-1) for part in centred]

    def after_step(self, progress):
        momentum = self.momentum(progress)
        self.teacher.follow(self.encoder, momentum)
        self.teacher_head.follow(self.head, momentum)
        for centre in self.centres:
            centre.move(self.centre_momentum)


def at_hidden(
    student: Float[Tensor, "m k"], teacher: Float[Tensor, "m k"], hidden: Bool[Tensor, "b n"]
) -> Tensor:
    """Equation 2: cross-entropy at a view's hidden tokens, their mean; then over all views, of
    which those with nothing hidden count as zero."""
    weight = (hidden / hidden.sum(1, keepdim=True).clamp(min=1))[hidden]  # (m)
    each = -(teacher * student.log_softmax(-1)).sum(-1)
    return (each * weight).sum() / len(hidden)
