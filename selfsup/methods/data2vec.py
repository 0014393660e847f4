"""data2vec. Baevski et al., 2022, https://arxiv.org/abs/2202.03555

Behind hidden tokens, foretell what a slow teacher that sees everything makes of them in its upper
layers. With `copies` above 1, that many masks share a teacher's pass
(data2vec 2.0, https://arxiv.org/abs/2212.07525).
Any modality whose encoder is a transformer on tokens: of real values, which are hidden in blocks,
or of a vocabulary, which are hidden one by one.

Departure: one recipe for all, that of images: layer norm (speech: instance norm), and a stem of the
teacher's own (speech, text: the student's). Authors' code for images takes the ends of blocks
instead of what their feed-forward parts add, and normalises the mean over layers once more.
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import layer_norm, smooth_l1_loss

from .. import distributed, masks, needs, ragged
from ..errors import SelfsupError
from ..method import Method, Views
from ..optim import Optim
from ..ragged import Ragged
from ..teacher import Teacher


class Data2Vec(Method):
    views = Views(light=1, share=(0.2, 1.0))  # paper: strong views from 0.08 on
    optim = Optim("adamw", lr=2e-3, per=2048, weight_decay=0.05, betas=(0.9, 0.999), warmup=0.05,
                  clip=3.0)  # fmt: skip

    def __init__(
        self,
        encoder: Any,
        *,
        ratio: float = 0.6,
        named_ratio: float = 0.15,  # of the tokens of a vocabulary
        layers: int = 6,  # K in the paper
        ends: bool = False,  # of blocks, of tokens of real values
        beta: float = 2.0,
        copies: int = 1,
        momentum: float = 0.9998,
    ):
        super().__init__(encoder)
        self.named = hasattr(encoder, "logits")
        if self.named:
            needs.vocabulary("data2vec", encoder, causal=False)
            if ends:
                raise SelfsupError("E201", "method.ends is for tokens of real values")
        else:
            needs.tokens("data2vec", encoder)
            self.blank = nn.Parameter(0.02 * torch.randn(encoder.dim))  # the mask token
        self.mask, self.named_ratio = masks.blocks(ratio), named_ratio
        self.predict = nn.Linear(encoder.dim, encoder.dim)
        self.teacher = Teacher(encoder)
        self.layers, self.ends = layers, ends
        self.beta, self.copies, self.momentum = beta, copies, momentum

    def loss(self, views, progress):
        (x,) = views
        predicted, wanted = (self.of_names if self.named else self.of_values)(x)
        error = smooth_l1_loss(predicted.float(), wanted, beta=self.beta, reduction="sum")
        # by the mean over ranks, whose samples have other lengths: every token counts the same
        count = distributed.mean(torch.tensor(float(wanted.numel()), device=wanted.device))
        return {"latents": error / count.clamp(min=1)}

    def of_values(self, x: Float[Tensor, "b c *size"]) -> tuple[Tensor, Tensor]:
        """What is foretold of hidden tokens, and what the teacher makes of them."""
        with torch.no_grad():
            slow: Any = self.teacher.slow
            target = averaged(slow.trunk.added(slow.tokens(x), self.layers, self.ends))  # (b, n, d)
            if self.ends:
                target = layer_norm(target, target.shape[-1:])
        rows = self.copies * len(x)
        hidden = self.mask(rows, self.encoder.grid, x.device)  # a sample's copies lie side by side
        tokens = self.encoder.tokens(x.repeat_interleave(self.copies, 0), hidden)
        final = self.encoder.trunk(tokens + self.blank * hidden[:, :, None])
        # of all that is there: what the encoder makes of a part differs by which part it is
        self.watch = {"embedding": target.mean(1)}
        wanted = target.repeat_interleave(self.copies, 0)
        return self.predict(final[hidden]), wanted[hidden]

    def of_names(self, x: Ragged) -> tuple[Tensor, Tensor]:
        """The same of tokens of a vocabulary."""
        with torch.no_grad():
            slow: Any = self.teacher.slow
            target = averaged(slow.added(x, self.layers))  # (b, n, d)
        rows = torch.arange(len(x), device=x.device).repeat_interleave(self.copies)
        x, width = x[rows], max(self.encoder.size, x.shape[1])  # so ranks draw alike
        draws = distributed.rand(len(x), 3 * width, x.device).view(len(x), 3, width)
        rank, fate, other = draws[:, :, : x.shape[1]].unbind(1)
        chosen = masks.choose(x, self.named_ratio, rank)
        seen = masks.corrupt(x.values, chosen, fate, other, self.encoder.stem.count)
        final = self.encoder.features(Ragged(seen, x.valid))
        self.watch = {"embedding": ragged.mean(target[rows], x.valid)}
        return self.predict(final[chosen]), target[rows][chosen]

    def after_step(self, progress):
        self.teacher.follow(self.encoder, self.momentum)


def averaged(layers: list[Float[Tensor, "b n d"]]) -> Float[Tensor, "b n d"]:
    """Section 3.3: the mean over layers, of each token normalised by itself in each layer."""
    return torch.stack([layer_norm(x.float(), x.shape[-1:]) for x in layers]).mean(0)
