"""What a self-supervised method is: a loss to descend, and whatever moves without gradients."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor, nn

from .errors import SelfsupError
from .optim import Optim


@dataclass(frozen=True)
class Views:
    """The looks at a sample that a method needs; each modality knows what they are for its data.

    `light` changes what is seen but not how it looks (crops, mirrors); `strong` also disturbs the
    looks; `local` is strong, shows a small part, and is smaller. `share` and `local_share` are the
    range of the part of a sample that is shown. With `alike` false, strong views differ in kind.
    """

    light: int = 0
    strong: int = 0
    local: int = 0
    share: tuple[float, float] = (0.2, 1.0)
    local_share: tuple[float, float] = (0.05, 0.25)
    alike: bool = True

    @property
    def count(self) -> int:
        return self.light + self.strong + self.local


class Method(nn.Module, ABC):
    """Subclasses are final: never subclass SimCLR, write the next file instead.

    `watch` holds what the last loss saw, detached, for the health monitor: "embedding" (b, d),
    and "assignments" (b, k), probabilities, where there are prototypes. `chance` holds the value
    that a term keeps while nothing is learned.
    """

    views: Views
    optim: ClassVar[Optim]
    across_batch: ClassVar[bool] = False  # a sample's loss depends on the others in its batch
    steady: ClassVar[tuple[str, ...]] = ()  # parts whose learning rate stays at its peak

    encoder: Any  # an Encoder or a ResNet, or what has as many of their parts as the method uses

    def __init__(self, encoder: Any):
        super().__init__()
        self.encoder = encoder
        self.watch: dict[str, Tensor] = {}
        self.chance: dict[str, float] = {}

    @abstractmethod
    def loss(self, views: list[Tensor], progress: float) -> dict[str, Tensor]:
        """Named terms whose sum is minimised. `progress` runs from 0 to 1 over training."""

    def after_step(self, progress: float) -> None:
        """Move what gradients do not: teachers, centres. Called once per optimizer step.

        Not after a step that was skipped; then buffers are also what they were before its loss.
        """

    def show(self, views: list[Tensor]) -> dict[str, Tensor]:
        """Sample-shaped tensors worth a look in the report, by caption."""
        return {}

    @property
    def kept(self) -> nn.Module:
        """The encoder that is worth keeping once training is over."""
        return self.encoder

    def forward(self, views: list[Tensor], progress: float) -> dict[str, Tensor]:
        return self.loss(views, progress)  # so that DistributedDataParallel(method) works


def needs_tokens(method: str, encoder: nn.Module, part: str = "embed") -> None:
    """Masked methods drop tokens before the trunk, which a convolutional encoder cannot.

    One that only hides them, and drops none, needs `tokens(x, hidden)`.
    """
    if not hasattr(encoder, part):
        raise SelfsupError(
            "E202",
            f"{method} cannot use the encoder {type(encoder).__name__}",
            why="it hides tokens that hold numbers before the trunk: this encoder has none there",
            do="choose a transformer on patches (--encoder vit_tiny), or another method",
        )


def needs_vocabulary(method: str, encoder: nn.Module, *, causal: bool) -> None:
    """Language models name tokens, from both sides or from those before alone."""
    if not hasattr(encoder, "logits"):
        raise SelfsupError(
            "E202",
            f"{method} cannot use the encoder {type(encoder).__name__}",
            why="it names tokens of a vocabulary, which this encoder does not have",
            do="choose a language encoder (bert_small, gpt_small) and data that are text",
        )
    if encoder.causal != causal:
        sees = "what came before alone" if encoder.causal else "both sides of a token"
        raise SelfsupError(
            "E202",
            f"{method} cannot use this encoder",
            why=f"it sees {sees}",
            do=f"choose {'gpt' if causal else 'bert'}_small, or leave --encoder out",
        )


def needs_nodes(method: str, encoder: nn.Module) -> None:
    """Methods for the nodes of graphs need an encoder that keeps them apart."""
    if not hasattr(encoder, "nodes"):
        raise SelfsupError(
            "E202",
            f"{method} cannot use the encoder {type(encoder).__name__}",
            why="it looks at the nodes of graphs, and this encoder knows of none",
            do="use it on graphs, with --encoder gcn, gat or gin",
        )


def needs_local(method: str, encoder: nn.Module) -> None:
    """Methods that predict what tokens are made of: real values, before the trunk mixes them."""
    needs_tokens(method, encoder)
    if not hasattr(encoder.stem, "local"):
        raise SelfsupError(
            "E202",
            f"{method} cannot use the encoder {type(encoder).__name__}",
            why="it predicts the real values that tokens are made of, and these are symbols",
            do="choose a method for symbols: selfsup list methods",
        )
