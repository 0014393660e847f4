"""What a self-supervised method is: a loss to descend, and whatever moves without gradients."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor, nn

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
    "embedding/NAME" of each tower where there are several, and "assignments" (b, k),
    probabilities, where there are prototypes. `chance` holds the value
    that a term keeps while nothing is learned; `constant` what a term costs, on the samples of the
    last loss, with the best answer that does not look at them (losses.unseen).
    """

    views: Views
    optim: ClassVar[Optim]
    across_batch: ClassVar[bool] = False  # a sample's loss depends on the others in its batch
    apart: ClassVar[bool] = False  # keeps samples apart, though it asks for one view of them
    steady: ClassVar[tuple[str, ...]] = ()  # parts whose learning rate stays at its peak

    encoder: Any  # an Encoder or a ResNet, or what has as many of their parts as the method uses

    def __init__(self, encoder: Any):
        super().__init__()
        self.encoder = encoder
        self.watch: dict[str, Tensor] = {}
        self.chance: dict[str, float] = {}
        self.constant: dict[str, Tensor] = {}

    @abstractmethod
    def loss(self, views: list[Tensor], progress: float) -> dict[str, Tensor]:
        """Named terms whose sum is minimised. `progress` runs from 0 to 1 over training."""

    def after_step(self, progress: float) -> None:
        """Move what gradients do not: teachers, queues, centres. Called once per optimizer step."""

    def show(self, views: list[Tensor]) -> dict[str, Any]:
        """What is worth a look in the report, by caption: sample-shaped, or a class of `shown`."""
        return {}

    @property
    def kept(self) -> nn.Module:
        """The encoder that is worth keeping once training is over."""
        return self.encoder

    def forward(self, views: list[Tensor], progress: float) -> dict[str, Tensor]:
        return self.loss(views, progress)  # so that DistributedDataParallel(method) works
