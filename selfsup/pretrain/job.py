"""Everything that a step of a run needs, built from its settings."""

import math
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

from .. import distributed, modalities, released
from ..data import Batch, Ledger, Loader, Source, Store, open_store
from ..data.copies import LOOKED_AT, count_copies
from ..errors import SelfsupError
from ..optim import Optim
from ..randomness import Draws, mix, order
from ..settings import Settings, method_class
from .starts import adopt

# Pictures are stored this much larger than a view is, so that crops of them are still sharp
STORED = 1.5


class Job:
    """The parts of a run, built from its settings.

    `batches(step)` is a pure function; `method` is on `device`; `optim` is its recipe.
    """

    def __init__(
        self,
        settings: Settings,
        source: Source,
        modality: Any = None,
        *,
        ledger: Ledger | None = None,
        ahead: bool = True,
    ):
        self.settings, self.size = settings, settings["data.resolution"]
        self.device = device()
        self.modality = modality or modality_of(settings, source)
        with ExitStack() as opened:
            self._open(opened, source, ledger, ahead)
            opened.pop_all()  # all is built: they stay open until `close`
        self.batch = self.loader.batch_size
        self.held: Batch | None = None  # the last one that was asked for
        self.beside: list[Store] = []  # of other data, closed with this one's
        self.asked = 0  # samples that were ever asked for, bad ones among them
        self.seed = settings["train.seed"]
        self.optim = Optim(**settings.section("optim"))
        self.local_size = local_size(self.modality, self.method.encoder, self.size)

    def _open(self, opened: ExitStack, source: Source, ledger: Ledger | None, ahead: bool) -> None:
        """What can fail once the store is open."""
        settings = self.settings
        self.store = opened.enter_context(
            open_store(
                source,
                self.modality,
                round(STORED * self.size),
                cache=settings["data.cache"],
                ledger=ledger,
                workers=max(1, settings["data.workers"]) if ahead else 2,
            )
        )
        parts = distributed.world() * settings["train.accumulate"]
        batch = min(settings["train.batch"], len(self.store))
        self.loader = opened.enter_context(
            Loader(
                self.store,
                max(parts, batch // parts * parts),
                settings["train.seed"],
                rank=distributed.rank(),
                world=distributed.world(),
                workers=settings["data.workers"] if ahead else 0,
            )
        )
        self.method = build_method(settings, self.modality).to(self.device)

    @property
    def steps(self) -> int | None:
        """The length in steps; None where it is given in minutes."""
        values = self.settings.values
        if "train.steps" in values:
            return values["train.steps"].value
        if "train.epochs" in values:
            epochs = values["train.epochs"].value
            return max(1, math.ceil(epochs * len(self.store) / self.batch))
        return None

    def batches(self, step: int, part: int = 0, parts: int = 1) -> list[Tensor]:
        """The views of a step, or of one part of it."""
        self.asked = max(self.asked, (step + 1) * self.batch)
        batch = self.held = self.loader.batch(step, part, parts).to(self.device)
        draws = Draws(self.seed, batch.samples)
        return self.modality.views(batch, self.method.views, draws, self.size, self.local_size)

    def alike(self) -> bool:
        """Whether the samples of the last batch, as they are stored, are all the same."""
        return self.held is not None and self.held.alike()

    def copies(self) -> tuple[int, int]:
        """How many copies of others there are among the first samples to be used, and of how many.

        They are decoded here because they are needed next; where nothing is stored, fewer are.
        """
        some = order(self.seed, 0, len(self.store))
        some = some[: LOOKED_AT if self.store.mode != "stream" else LOOKED_AT // 8]
        return count_copies(self.store, some), len(some)

    def names(self, step: int) -> list[str]:
        """Which samples a step holds."""
        source = self.store.source
        return [source.name(i) for i in self.loader.batch(step).indices.tolist()]

    def close(self) -> None:
        self.loader.close()
        for store in (self.store, *self.beside):
            store.close()


def device() -> torch.device:
    """Where a run computes: this process's graphics card, or the processor."""
    if torch.cuda.is_available():
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device("cpu")


def local_size(modality: Any, encoder: nn.Module, size: int) -> int | None:
    """The size of local views: the modality's own, or the nearest that the encoder's patches tile.

    None leaves it to the modality.
    """
    usual = getattr(modality, "local_size", None)
    patch: tuple[int, ...] = getattr(getattr(encoder, "stem", None), "patch", ())
    if usual is None or len(set(patch)) != 1:
        return None
    side, wanted = patch[0], usual(size)
    return wanted if wanted % side == 0 else max(side, round(wanted / side) * side)


def modality_of(settings: Settings, source: Source, state: Mapping[str, Any] | None = None) -> Any:
    """The modality, with what it knows of the data: `state`, or learned from them now."""
    keywords = settings.section("modality")
    if state is None:
        return learned(keywords, source, settings["start_towers"])
    modality = modalities.find(keywords.pop("name"))(**keywords)
    modality.restore(dict(state))
    return modality


def learned(keywords: dict[str, Any], source: Source, towers: Sequence[str]) -> Any:
    """The modality of that name, with what it learns from the data and takes from other runs."""
    modality = modalities.find(keywords.pop("name"))(**keywords)
    modality.learn(source)
    adopt(modality, towers)
    return modality


def build_method(settings: Settings, modality: Any) -> Any:
    """The untrained method; its weights follow from the seed. Raises E201 for odd settings."""
    torch.manual_seed(mix(settings["train.seed"], 0x77656967687473))
    names = settings.section("encoder")
    keywords = settings.section("method")
    try:
        keywords = released.taught(keywords, modality, settings["data.resolution"])
        encoder = modality.encoder(names.pop("name"), settings["data.resolution"], **names)
        return method_class(keywords.pop("name"))(encoder, **keywords)
    except (ValueError, TypeError, AssertionError, ZeroDivisionError, RuntimeError) as error:
        shown = {**settings.section("encoder"), **settings.section("method")}
        raise SelfsupError(
            "E201",
            f"the encoder and the method cannot be built: {error or type(error).__name__}",
            where=", ".join(f"{key}={value}" for key, value in shown.items()),
            do="check the settings of [encoder] and [method]: selfsup list methods",
        ) from error
