"""Feature distillation (FD). Wei et al., 2022, https://arxiv.org/abs/2205.14141

At every place, a linear map of the encoder's features foretells the whitened features of a frozen
teacher, which sees the same view. Data with a grid, and a teacher: a run, or a released model.
"""

from functools import partial
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import layer_norm, smooth_l1_loss

from .. import needs
from ..errors import SelfsupError
from ..losses import unseen
from ..method import Method, Views
from ..optim import Optim


class Distill(Method):
    views = Views(light=1, share=(0.08, 1.0))
    optim = Optim("adamw", lr=3e-4, per=512, weight_decay=0.05, betas=(0.9, 0.999), warmup=0.03,
                  clip=3.0)  # fmt: skip

    def __init__(self, encoder: Any, *, teacher: Any = "", beta: float = 2.0):
        super().__init__(encoder)
        needs.grid("Distillation", encoder)
        needs.places("Distillation", encoder)
        if not teacher:
            raise SelfsupError(
                "E202",
                "distillation needs a teacher",
                do="--set method.teacher=FOLDER of a run or a saved model, timm:NAME or hf:NAME",
            )
        self.teacher = teacher  # selfsup.released.Released: no module, so no part of the state
        self.head = nn.Linear(encoder.dim, teacher.dim)  # g(.) in the paper
        self.beta = beta

    def loss(self, views, progress):
        (x,) = views
        z = self.encoder.features(x)  # (b, n, d)
        target = whitened(self.teacher(x, self.encoder.grid))
        self.watch = {"embedding": z.detach().mean(1)}
        error = partial(smooth_l1_loss, beta=self.beta)
        self.constant = {"distillation": unseen(target, error)}
        return {"distillation": error(self.head(z).float(), target)}


def whitened(features: Float[Tensor, "b n e"]) -> Float[Tensor, "b n e"]:
    """Each vector with the mean 0 and the deviation 1: layer norm without weights."""
    return layer_norm(features.float(), features.shape[-1:])
