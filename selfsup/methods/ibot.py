"""iBOT. Zhou et al., 2021, https://arxiv.org/abs/2111.07832

DINO, and the same for tokens: the student sees a view with blocks of tokens hidden, and must sort
each hidden token among prototypes as the teacher does, which sees all of them.
Any modality whose encoder is a transformer on patches.
"""

import math
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from .. import distributed, masks, schedules
from ..heads import Prototypes, mlp
from ..losses import across_views
from ..method import Method, Views, needs_tokens
from ..optim import Optim
from ..teacher import Teacher


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
        masked: float = 0.5,  # share of views of which something is hidden
        ratio: tuple[float, float] = (0.1, 0.5),
        temperature: float = 0.1,
        teacher_temperature: float = 0.04,
        teacher_temperature_end: float = 0.07,
        momentum: float = 0.996,
        centre_momentum: float = 0.9,
        freeze: float = 0.01,
    ):
        super().__init__(encoder)
        needs_tokens("iBOT", encoder)
        self.views = replace(self.views, local=local_views)
        # one for samples and tokens: "shared projection head"
        project = mlp(encoder.dim, hidden, hidden, dim, norm=head_norm, act=nn.GELU)
        self.head = nn.ModuleDict({"project": project, "prototypes": Prototypes(dim, prototypes)})
        self.mask_token = nn.Parameter(0.02 * torch.randn(encoder.dim))
        self.teacher, self.teacher_head = Teacher(encoder), Teacher(self.head)
        # of samples (0) and of tokens (1): centres, and teacher logits since the last step
        self.register_buffer("centre", torch.zeros(2, prototypes))
        self.register_buffer("seen", torch.zeros(2, prototypes))
        self.register_buffer("rows", torch.zeros(2))
        self.mask, self.masked = masks.blocks(*ratio), masked
        self.temperature, self.centre_momentum, self.freeze = temperature, centre_momentum, freeze
        self.sharp = schedules.linear(teacher_temperature, teacher_temperature_end, 0.3)
        self.momentum = schedules.cosine(momentum, 1.0)

    @property
    def kept(self):
        return self.teacher.slow

    def loss(self, views, progress):
        wide, small = views[: self.views.strong], views[self.views.strong :]
        x = torch.cat(wide)
        hidden = torch.cat([self.hide(view) for view in wide])  # (w * b, n)
        frozen = progress < self.freeze
        blank = hidden[:, :, None] * self.mask_token
        h, places = self.encoder.both(self.encoder.tokens(x, hidden) + blank)
        h = torch.cat([h] + ([self.encoder(torch.cat(small))] if small else []))
        student = self.sort(self.head, h, frozen).unflatten(0, (len(views), -1))
        guessed = self.sort(self.head, places[hidden], frozen)  # (m, k)
        with torch.no_grad():
            t, t_places = self.teacher.slow.both(self.teacher.slow.tokens(x))
            teacher = self.targets(0, t, progress)
            target = self.targets(1, t_places.flatten(0, 1), progress)[hidden.flatten()]
        self.watch = {"embedding": h[: len(x)].detach(), "assignments": teacher}
        self.chance = {"samples": math.log(self.centre.shape[1])}
        teacher = teacher.unflatten(0, (len(wide), -1))
        return {
            "samples": across_views(student / self.temperature, teacher),
            "tokens": hidden_tokens(guessed / self.temperature, target, hidden),
        }

    def hide(self, x) -> Bool[Tensor, "b n"]:
        some = distributed.rand(len(x), 1, x.device) < self.masked
        return self.mask(len(x), self.encoder.grid, x.device) & some

    @staticmethod
    def sort(head, x, frozen=False):
        return head["prototypes"](head["project"](x), frozen).float()

    def targets(self, kind, x, progress):  # (m, d) -> (m, k)
        logits = self.sort(self.teacher_head.slow, x)
        self.seen[kind] += logits.sum(0)
        self.rows[kind] += len(logits)
        return ((logits - self.centre[kind]) / self.sharp(progress)).softmax(-1)

    @torch.no_grad()
    def after_step(self, progress):
        for slow, fast in ((self.teacher, self.encoder), (self.teacher_head, self.head)):
            slow.follow(fast, self.momentum(progress))
        new = distributed.mean(self.seen) / distributed.mean(self.rows)[:, None].clamp(min=1)
        self.centre.lerp_(new, 1 - self.centre_momentum)
        self.seen.zero_()
        self.rows.zero_()


def hidden_tokens(
    logits: Float[Tensor, "m k"], targets: Float[Tensor, "m k"], hidden: Bool[Tensor, "b n"]
) -> Tensor:
    """Equation 2: cross-entropy over the hidden tokens of a view, averaged; then over all views."""
    each = -(targets * logits.log_softmax(-1)).sum(-1)
    weight = hidden / hidden.sum(1, keepdim=True).clamp(min=1)  # (b, n)
    return (each * weight[hidden]).sum() / len(hidden)
