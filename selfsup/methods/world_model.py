"""Joint-embedding world model (PLDM). Sobal et al., 2025, https://arxiv.org/abs/2502.14819

From the vector of the first step and the actions alone, foretell the vectors of all steps that
follow; vectors are kept apart by their variance and covariance (or SIGReg, arXiv 2511.08544), and
two that follow each other must tell the action between them. Data with actions.

Departure: variance and covariance are of the vectors of all steps together, as rows differ in
length; in the authors' code of first steps, over samples, and of later ones, over each row.
"""

from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from .. import distributed, needs
from ..heads import mlp
from ..losses import covariance, directions, sigreg, variance
from ..method import Method, Views
from ..optim import Optim


class WorldModel(Method):
    views = Views(light=1, share=(1.0, 1.0))
    optim = Optim("adamw", lr=1e-3, per=64, weight_decay=1e-5, warmup=0.05)
    across_batch = True

    def __init__(
        self,
        encoder: Any,
        *,
        hidden: int = 256,
        predict: float = 4.0,  # paper: weights for each world; see docs/LOG.md for these
        variance: float = 16.0,
        covariance: float = 1.0,
        similar: float = 1.0,
        inverse: float = 1.0,
        sigreg: float = 0.0,
        slices: int = 256,
    ):
        super().__init__(encoder)
        needs.actions("A world model", encoder)
        self.predictor = Predictor(encoder.dim, encoder.actions, hidden)
        self.inverter = mlp(2 * encoder.dim, hidden, encoder.actions, norm=False, act=nn.GELU)
        self.weights = {"predict": predict, "variance": variance, "covariance": covariance,
                        "similar": similar, "inverse": inverse, "sigreg": sigreg}  # fmt: skip
        self.slices = slices

    def loss(self, views, progress):
        (x,) = views
        z = self.encoder.features(x).float()  # (b, t, d)
        both = x.valid[:, 1:]
        foretold = self.predictor.rollout(z[:, 0], x.actions[:, :-1])
        done = self.inverter(torch.cat([z[:, :-1], z[:, 1:]], -1))
        terms = {
            "predict": mean((foretold - z[:, 1:]).square().mean(-1), both),
            "similar": mean((z[:, 1:] - z[:, :-1]).square().mean(-1), both),
            "inverse": mean((done - x.actions[:, :-1]).square().mean(-1), both),
        }
        there = distributed.gather(x.valid.float()) > 0
        everyone = distributed.gather(z)[there]  # (n, d)
        with torch.autocast(x.device.type, enabled=False):  # statistics in float32
            if self.weights["variance"] or self.weights["covariance"]:
                terms |= {"variance": variance(everyone), "covariance": covariance(everyone)}
            if self.weights["sigreg"]:
                drawn = directions(z.shape[-1], self.slices, z.device)
                terms["sigreg"] = sigreg(everyone[None], drawn)
        self.watch = {"embedding": z[:, 0].detach()}
        return {name: self.weights[name] * term for name, term in terms.items()}

    @torch.no_grad()
    def show(self, views):
        (x,) = views
        z = self.encoder.features(x).float()
        foretold = self.predictor.rollout(z[:, 0], x.actions[:, :-1])
        near = torch.cdist(foretold.flatten(0, 1), z[x.valid]).argmin(-1)  # of all that was seen
        found = x.observations.clone()
        found[:, 1:] = x.observations[x.valid][near].view_as(found[:, 1:])
        caption = "seen nearest to what the actions foretell"
        return {"original": x, caption: replace(x, observations=found)}


class Predictor(nn.Module):
    """The vector of the next step: this one, and a change that follows from it and the action."""

    def __init__(self, dim: int, actions: int, hidden: int):
        super().__init__()
        self.change = mlp(dim + actions, hidden, dim, norm=False, act=nn.GELU)

    def forward(self, z: Float[Tensor, "*b d"], action: Float[Tensor, "*b a"]) -> Tensor:
        return z + self.change(torch.cat([z, action], -1))

    def rollout(self, z: Float[Tensor, "*b d"], actions: Float[Tensor, "*b t a"]) -> Tensor:
        """(..., t, d): what each action leads to, one after another."""
        found = []
        for action in actions.unbind(-2):
            z = self(z, action)
            found.append(z)
        return torch.stack(found, -2)


def mean(x: Float[Tensor, "b t"], valid: Bool[Tensor, "b t"]) -> Tensor:
    """Over the steps that are there, of all ranks."""
    return (x * valid).sum() / distributed.mean(valid.sum().float()).clamp(min=1)
