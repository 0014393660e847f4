"""What a method can show of what it makes of samples, where that is no sample itself."""

from dataclasses import dataclass

from jaxtyping import Float, Int64
from torch import Tensor


@dataclass(frozen=True)
class Groups:
    """Which of `count` groups each place of a sample is of, by rows of the grid; -1 for none."""

    numbers: Int64[Tensor, "b n"]
    count: int
    grid: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.numbers)


@dataclass(frozen=True)
class Guess:
    """What was hidden at a place, and what it was taken for: tokens of a vocabulary, or columns of
    what is known of a node. `note` says how sure, or how near."""

    place: int
    true: list[int]
    guessed: list[int]
    note: str


@dataclass(frozen=True)
class Guesses:
    """Some guesses of each sample, and how many of all hidden places were guessed right."""

    rows: list[list[Guess]]
    right: int
    of: int

    def __len__(self) -> int:
        return len(self.rows)


@dataclass(frozen=True)
class Continued:
    """Of each sample the tokens of its beginning, those that follow, and others in their place."""

    rows: list[tuple[list[int], list[int], list[int]]]

    def __len__(self) -> int:
        return len(self.rows)


@dataclass(frozen=True)
class Alike:
    """Cosines of one part of each sample (rows) and another part of each (columns)."""

    parts: tuple[str, str]
    cosines: Float[Tensor, "b b"]

    def __len__(self) -> int:
        return len(self.cosines)
