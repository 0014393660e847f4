"""What a modality is: how to read one kind of data, and how to look at it more than once."""

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable
from functools import cached_property
from typing import Any, BinaryIO, ClassVar

import numpy as np
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from ..data.base import Source
from ..data.batch import Batch
from ..errors import SelfsupError
from ..method import Views
from ..randomness import Draws


class Modality(ABC):
    """Subclasses are final. Their settings are keyword arguments, which `pretrain` takes as
    modality.KEY; what they learn from the data is `state`.

    `read` gives pictures as they are; any other sample goes through `data.fields.pack`, and `views`
    gets it back with `unpack`.

    `rules` tells all that changes what `read` and `shrink` give, and so names a store of samples.
    `mean` and `std` are those of the numbers, in [0, 1], that views are scaled by, one per channel.
    """

    name: ClassVar[str]
    contents: ClassVar[tuple[str, ...]]  # what `Source.content` calls such samples
    unit: ClassVar[str] = "px"  # that the size of a sample or of a view is counted in
    raw_unit: ClassVar[str] = "pixels"  # of `describe`
    baseline_name: ClassVar[str]  # of the classical features, for tables and sentences
    baseline_components: ClassVar[int] = 256  # of them that the control keeps, at most
    default_method: ClassVar[str]
    encoders: ClassVar[tuple[str, ...]]  # names for `encoder`, smallest first
    mean: ClassVar[tuple[float, ...]]
    std: ClassVar[tuple[float, ...]]

    divisible: ClassVar[bool] = True  # processes can share a batch, each with views of its part
    upward: ClassVar[bool] = False  # the first row of a grid is the lowest of a picture
    operations: ClassVar[tuple[str, ...]] = ()  # of views, that the setting `without` leaves out
    without: tuple[str, ...] = ()

    longest: float = 0.0  # seconds of a recording that are one sample; 0 where nothing is played
    rules: str = ""

    @cached_property
    def notes(self) -> Counter[str]:
        """What was odd about samples that were used all the same, and how often."""
        return Counter()

    @abstractmethod
    def read(self, raw: Any, size: int | None = None) -> UInt8[np.ndarray, "h w c"]:
        """One sample from a file's bytes or an array. Raises BadSample and nothing else.

        With `size`, the sample may come smaller, but with its shorter side no shorter than that.
        """

    def shrink(self, array: UInt8[np.ndarray, "h w c"], size: int) -> UInt8[np.ndarray, "h2 w2 c"]:
        """The form in which a sample is stored: its shorter side `size`, or less if it has less."""
        return array

    @staticmethod
    def seconds(file: BinaryIO) -> float:
        """The length of a recording as its header says; 0 where that cannot be told."""
        return 0.0

    def left_out(self, without: str) -> tuple[str, ...]:
        """The `operations` that a setting names, parted by commas. Raises E201 for others."""
        names = tuple(name.strip() for name in without.split(",") if name.strip())
        for name in names:
            if name not in self.operations:
                raise SelfsupError(
                    "E201",
                    f"views of this modality have no operation {name!r}",
                    where="modality.without",
                    do=f"leave out some of: {', '.join(self.operations)}",
                )
        return names

    def learn(self, source: Source) -> None:  # noqa: B027  most have nothing to learn
        """Find out what must be known of all data before one sample is read: a vocabulary, a scale.

        It goes into `state`; labels are not looked at.
        """

    def meet(self, source: Source) -> None:  # noqa: B027
        """Take up what samples of a source share and each of them lacks: the graph of its nodes.

        Called before samples of that source are read. Raises SelfsupError where they do not fit.
        """

    def method_for(self, encoder: str | None) -> str:
        """The method where none was asked for; `encoder` is the one that was, if any."""
        return self.default_method

    @property
    def state(self) -> dict[str, Any]:
        """What was learned, as JSON: kept beside the weights."""
        return {}

    def restore(self, state: dict[str, Any]) -> None:
        """Raises ValueError where this is no `state` of this modality."""
        if state:
            raise ValueError(f"{self.name} has no state, but {sorted(state)} is given")

    def words(self, numbers: Iterable[int]) -> str:
        """Tokens of the vocabulary as text, or the names of columns of what is known of a node."""
        return ", ".join(map(str, numbers))

    @abstractmethod
    def extent(self, source: Source) -> int:
        """The usual size of a sample, in `unit`; 0 where none of a few can be read."""

    @abstractmethod
    def usual_size(self, extent: int, device: str) -> tuple[int, str]:
        """The size of a view for samples of that extent on a "cpu" or "cuda", and why."""

    def larger_sizes(self, extent: int, size: int) -> tuple[int, ...]:
        """Sizes beyond the usual one, ascending, for runs with time to spare."""
        return ()

    @abstractmethod
    def views(
        self, batch: Batch, spec: Views, draws: Draws, size: int, local_size: int | None = None
    ) -> list[Float[Tensor, "b ..."]]:
        """The looks that a method asks for: light, then strong, then local ones."""

    @abstractmethod
    def plain(self, batch: Batch, size: int) -> Float[Tensor, "b ..."]:
        """The one view without chance, for evaluation."""

    @abstractmethod
    def picture(self, x: Float[Tensor, "b ..."]) -> UInt8[Tensor, "b 3 h w"]:
        """Views as a person can look at them."""

    def thumbnail(self, sample: UInt8[np.ndarray, "h w c"]) -> UInt8[np.ndarray, "h w c"]:
        """A sample as `read` gives it, as a person can look at it: 1, 3 or 4 channels."""
        return sample

    def describe(self, raw: Any) -> tuple[str, str, tuple[int, int]] | None:
        """Format, mode and extent (of two sides) of a raw sample; None where `scan` knows them."""
        return None

    def examples(self) -> list[Any]:
        """Made-up samples, for all of preprocessing to take part; none where pictures will do."""
        return []

    @abstractmethod
    def baseline(self, batch: Batch) -> Float[Tensor, "b p"]:
        """What was used before there were encoders: the control of every evaluation."""

    def fitted(self, batches: Iterable[Batch]) -> Callable[[Batch], Float[Tensor, "b p"]]:
        """`baseline`, with what it must know of the training part: a vocabulary, how rare it is."""
        return self.baseline

    @abstractmethod
    def encoder(self, name: str, size: int, **keywords: Any) -> nn.Module:
        """An untrained encoder for samples of `size`."""
