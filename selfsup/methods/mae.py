"""MAE. He et al., 2021, https://arxiv.org/abs/2111.06377

Hide most of the tokens, encode only the rest, rebuild the hidden patches with a small decoder.
Any modality whose stem gives patches of real values. With mask="tube" the same places are hidden
all along the first axis (VideoMAE, https://arxiv.org/abs/2203.12602): where neighbours on it hold
nearly the same, there is nothing to copy.

Departure: the decoder gets no class token; the authors' does.
"""

from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from .. import masks, needs
from ..encoder import sincos
from ..losses import unseen
from ..method import Method, Views
from ..optim import Optim
from ..trunks import Transformer


class MAE(Method):
    views = Views(light=1, share=(0.2, 1.0))
    optim = Optim("adamw", lr=1.5e-4, weight_decay=0.05, betas=(0.9, 0.95), warmup=0.05)

    def __init__(
        self,
        encoder: Any,
        *,
        ratio: float = 0.75,
        mask: Literal["random", "tube"] = "random",
        decoder_dim: int = 512,
        decoder_depth: int = 8,
        decoder_heads: int = 16,
    ):
        super().__init__(encoder)
        needs.tokens("MAE", encoder)
        self.mask = {"random": masks.random, "tube": masks.tube}[mask](ratio)
        self.narrow = nn.Linear(encoder.dim, decoder_dim)
        self.blank = nn.Parameter(0.02 * torch.randn(decoder_dim))  # the mask token
        self.register_buffer("positions", sincos(encoder.grid, decoder_dim))  # fixed
        self.decoder = Transformer(decoder_dim, decoder_depth, decoder_heads)
        self.values = nn.Linear(decoder_dim, encoder.stem.patch_dim)

    def loss(self, views, progress):
        (x,) = views
        hidden = self.mask(len(x), self.encoder.grid, x.device)  # (b, n), True = hidden
        latent, predicted = self.rebuild(x, hidden)
        target = normalise(masks.take(self.encoder.stem.patches(x), hidden))
        self.watch = {"embedding": latent.mean(1).detach()}
        self.chance = {"reconstruction": 1.0}  # what predicting each patch's mean gives
        self.constant = {"reconstruction": unseen(target)}
        return {"reconstruction": (predicted.float() - target).square().mean()}

    def rebuild(self, x, hidden):
        """Latents of the visible tokens (b, visible, d), values of the hidden ones (b, h, p)."""
        tokens = masks.take(self.encoder.tokens(x), ~hidden)
        latent = self.encoder.trunk(tokens)
        full = masks.put(self.narrow(latent), ~hidden, self.blank) + self.positions
        return latent, self.values(masks.take(self.decoder(full), hidden))

    @torch.no_grad()
    def show(self, views):
        (x,) = views
        stem, hidden = self.encoder.stem, self.mask(len(x), self.encoder.grid, x.device)
        patches = stem.patches(x)
        std, mean = torch.std_mean(patches[hidden], -1, keepdim=True)
        seen, rebuilt = patches.clone(), patches.clone()
        seen[hidden] = 0.0
        _, predicted = self.rebuild(x, hidden)
        rebuilt[hidden] = predicted.flatten(0, 1).to(rebuilt) * std + mean
        return {
            "original": x,
            "what the encoder sees": stem.unpatch(seen),
            "rebuilt (brightness and contrast of each patch are given)": stem.unpatch(rebuilt),
        }


def normalise(patches: Float[Tensor, "b n p"]) -> Float[Tensor, "b n p"]:
    """Each patch by its own mean and deviation ("normalized pixel values", section 3)."""
    variance, mean = torch.var_mean(patches, -1, keepdim=True)  # unbiased, as in the authors' code
    return (patches - mean) / (variance + 1e-6).sqrt()
