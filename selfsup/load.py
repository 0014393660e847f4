"""An encoder from a run or an export, ready to be used.

Two files are all it takes: encoder.json says what to build, encoder.safetensors fills it. Both are
taken for what a stranger may have written: sizes are bounded before anything is built, nothing in
them names code, and no file outside the folder is opened.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from .data import Source, open_source
from .data.outcome import BadSample
from .data.seen import seen_as
from .errors import SelfsupError
from .inference import Fast, assemble, decoded
from .modalities import Modality, find
from .randomness import mix

CARD, WEIGHTS = "encoder.json", "encoder.safetensors"
LARGEST_CARD = 1 << 25  # bytes; vocabularies are large
LARGEST_SIZE = 1 << 20  # pixels, or whatever a modality counts
LARGEST_NUMBER = 1 << 16  # no width, depth or patch is larger
LARGEST_DEPTH = 1024
LARGEST_LIST = 32


@dataclass(frozen=True)
class Card:
    """What encoder.json says: how to rebuild the encoder and how to look at a sample."""

    modality: str
    name: str
    size: int
    kwargs: Mapping[str, Any]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    method: str = ""
    state: Mapping[str, Any] = field(default_factory=dict)  # what the modality learned
    options: Mapping[str, Any] = field(default_factory=dict)  # its settings
    project: int = 0  # the width of the space that it shares with other towers, if any

    def to_json(self) -> dict[str, Any]:
        shared = {"project": self.project} if self.project else {}
        return shared | {
            "format": 1,
            "modality": self.modality,
            "name": self.name,
            "size": self.size,
            "kwargs": dict(self.kwargs),
            "mean": list(self.mean),
            "std": list(self.std),
            "state": dict(self.state),
            "options": dict(self.options),
            "method": self.method,
        }

    @classmethod
    def read(cls, path: Path) -> "Card":
        """Raises SelfsupError E601 when there is none, E602 when it is not valid."""
        if not path.is_file():
            raise SelfsupError(
                "E601",
                f"no {CARD} in {path.parent}",
                where=str(path),
                do="give the folder of a run (under runs/ by default) or of an export",
            )
        with path.open("rb") as file:
            content = file.read(LARGEST_CARD + 1)
        if len(content) > LARGEST_CARD:
            raise _invalid(path, f"larger than {LARGEST_CARD} bytes")
        try:
            told = json.loads(content)
        except (ValueError, RecursionError) as error:
            raise _invalid(path, f"not JSON: {error}") from None
        return cls.parse(told, path)

    @classmethod
    def parse(cls, told: Any, path: Path = Path(CARD)) -> "Card":
        """Raises SelfsupError E602 naming the entry that is not valid."""
        if not isinstance(told, dict) or told.get("format") != 1:
            raise _invalid(path, 'not an object with "format": 1')

        def entry(key: str, kind: type, good: Any = lambda value: True) -> Any:
            value = told.get(key)
            if type(value) is not kind or not good(value):
                raise _invalid(path, f"{key} is {str(value)[:80]!r}")
            return value

        def numbers(key: str, least: float) -> tuple[float, ...]:
            values = entry(key, list, lambda v: 1 <= len(v) <= 64)
            if not all(
                type(v) in (int, float) and math.isfinite(v) and least < v < 1e6 for v in values
            ):
                raise _invalid(path, f"{key} is {str(values)[:80]}")
            return tuple(float(v) for v in values)

        kwargs = entry("kwargs", dict, lambda v: len(v) <= 64)
        for key, value in kwargs.items():
            if not _plain(key, value):
                raise _invalid(path, f"kwargs.{key[:40]} is {str(value)[:80]!r}")
        options = told.get("options", {})
        if not isinstance(options, dict) or not all(_plain(k, v) for k, v in options.items()):
            raise _invalid(path, f"options is {str(options)[:80]!r}")
        return cls(
            modality=entry("modality", str, lambda v: v.isidentifier()),
            name=entry("name", str, lambda v: v.isidentifier()),
            size=entry("size", int, lambda v: 1 <= v <= LARGEST_SIZE),
            kwargs=kwargs,
            mean=numbers("mean", -1e6),
            std=numbers("std", 0.0),
            method=str(told.get("method", ""))[:100],
            state=told.get("state", {}) if isinstance(told.get("state", {}), dict) else {},
            options=options,
            project=entry("project", int, lambda v: 1 <= v <= LARGEST_NUMBER)
            if "project" in told
            else 0,
        )


class LoadedEncoder(nn.Module):
    """A trained encoder with its preprocessing.

    encoder(x) -> (b, d) for batches that `preprocess` or a modality made; `features(x) ->
    (b, n, d)` is one vector for each place; `embed(data) -> (n, d)` does everything.
    """

    def __init__(self, encoder: nn.Module, card: Card, modality: Modality, source: str = ""):
        super().__init__()
        self.encoder, self.card, self.modality, self.source = encoder, card, modality, source
        self.dim = int(encoder.dim)  # type: ignore[arg-type]
        self.size = card.size
        self.eval()

    def forward(self, x: Float[Tensor, "b ..."]) -> Float[Tensor, "b d"]:
        return self.encoder(x)

    def features(self, x: Float[Tensor, "b ..."]) -> Float[Tensor, "b n d"]:
        return self.encoder.features(x)  # type: ignore[operator]

    def preprocess(self, sample: Any) -> Float[Tensor, "..."]:
        """One sample as the encoder wants it, without the batch axis.

        A path, bytes, a PIL image or an array. Raises SelfsupError E103 when it cannot be read.
        """
        try:
            if isinstance(sample, str | Path):
                source = open_source([sample])
                sample = source.read(0)
            array = self.modality.shrink(self.modality.read(sample, self.size), self.size)
        except BadSample as bad:
            raise SelfsupError("E103", "the sample cannot be read", why=bad.reason) from None
        batch = assemble([array])
        assert batch is not None
        return self.modality.plain(batch.to(self.device), self.size)[0]

    def embed(
        self, data: Any, *, batch: int = 128, workers: int = 2, precision: str = "auto"
    ) -> Float[np.ndarray, "n d"]:
        """One vector for each sample, in order, as float32.

        `data` is what `open_source` takes: a folder, one path or a list of them, shards, arrays.
        A file that is named is one row, by its middle if it is too long; those of a folder are cut.
        Raises SelfsupError E103 at the first sample that cannot be read, because a row would be
        missing; `selfsup.embed` lists such samples and goes on.
        """
        data = [data] if _is_file(data) else data
        whole = isinstance(data, list | tuple)
        source = seen_as(open_source(data), self.modality, whole=whole)
        seer = self.seeing(source.content)
        source = seen_as(source, seer.modality, whole=whole)
        return seer._rows(source, batch, workers, precision)

    def _rows(
        self, source: Source, batch: int, workers: int, precision: str
    ) -> Float[np.ndarray, "n d"]:
        if len(source.problems):
            first = next(iter(source.problems))
            raise _unreadable(first["name"], first["reason"])
        fast = Fast(self.encoder, precision)
        out = np.empty((len(source), self.dim), np.float32)
        done = 0
        for part, bad in decoded(source, self.modality, self.size, batch=batch, workers=workers):
            if bad:
                raise _unreadable(source.name(bad[0].number), bad[0].reason)
            assert part is not None
            vectors = fast(self.modality.plain(part.to(fast.device), self.size))
            out[done : done + len(vectors)] = vectors.cpu().numpy()
            done += len(vectors)
        return out

    def untrained(self, seed: int = 0) -> "LoadedEncoder":
        """The same network as it is before training, weights drawn from `seed`."""
        return LoadedEncoder(rebuild(self.card, self.modality, seed), self.card, self.modality)

    def tower(self, part: str, *, shared: bool = True) -> "LoadedEncoder":
        """One tower of several as an encoder of its own; with `shared`, into their common space.

        Raises SelfsupError E601 where there is no such tower.
        """
        sides = getattr(self.modality, "sides", {})
        if part not in sides:
            raise SelfsupError(
                "E601",
                f"there is no tower {part!r} in {self.source or 'this encoder'}",
                do=f"its towers are {', '.join(sides)}" if sides else "it has none: leave it out",
            )
        modality = sides[part].modality
        name, kwargs = self.modality.chosen(part, self.card.name, self.card.kwargs)  # type: ignore[attr-defined]
        card = Card(
            modality.name,
            name,
            self.modality.sized(self.size)[part],  # type: ignore[attr-defined]
            kwargs,
            modality.mean,
            modality.std,
            self.card.method,
            modality.state,
            sides[part].options,
            self.dim if shared else 0,
        )
        tower: Any = self.encoder.towers[part]  # type: ignore[index]
        return LoadedEncoder(tower if shared else tower.encoder, card, modality, self.source)

    def seeing(self, content: str, *, shared: bool = True) -> "LoadedEncoder":
        """What sees data of this kind: this encoder, or the one of its towers that does."""
        part = None
        if content not in self.modality.contents and hasattr(self.modality, "of_content"):
            part = self.modality.of_content(content)
        return self if part is None else self.tower(part, shared=shared)

    @property
    def device(self) -> torch.device:
        return next(self.encoder.parameters()).device

    def fingerprint(self) -> str:
        """Changes with any weight and with anything on the card."""
        digest = blake2b(json.dumps(self.card.to_json(), sort_keys=True).encode(), digest_size=16)
        for name, tensor in sorted(self.encoder.state_dict().items()):
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
        return digest.hexdigest()

    def extra_repr(self) -> str:
        return f"{self.card.name}, size={self.size}, dim={self.dim}, from {self.source or 'memory'}"


def load(run: Any, *, device: str | torch.device = "cpu") -> LoadedEncoder:
    """The encoder of a run (its newest whole checkpoint), of one checkpoint, or of an export.

    Raises SelfsupError: E601 nothing to load, E602 an invalid description, E603 damaged weights
    or weights of another encoder.
    """
    folder = Path(getattr(run, "path", run))
    if not folder.is_dir():
        raise SelfsupError(
            "E601",
            f"there is no folder {folder}",
            where=str(folder.absolute()),
            do="give the folder of a run (under runs/ by default) or of an export",
        )
    card_path, weights_path = locate(folder)
    card = Card.read(card_path)
    modality = modality_of(card, card_path)
    encoder = fill(card, card_path, weights_path, modality)
    return LoadedEncoder(encoder.to(device), card, modality, str(folder))


def locate(folder: Path) -> tuple[Path, Path]:
    """encoder.json and encoder.safetensors of a run, a checkpoint or an export."""
    from .checkpoint import newest_whole

    home = folder.resolve()
    if (folder / WEIGHTS).exists():
        card = folder / CARD
        if not card.exists() and folder.parent.name == "checkpoints":
            card = folder.parent.parent / CARD  # one checkpoint of a run
            home = folder.parent.parent.resolve()
        weights = folder / WEIGHTS
    else:
        newest = newest_whole(folder / "checkpoints")
        if newest is None:
            raise SelfsupError(
                "E601",
                f"no encoder in {folder}",
                where=str(folder),
                why=f"neither {WEIGHTS} nor a whole checkpoint is there",
                do="wait for the first checkpoint, or give another folder",
            )
        card, weights = folder / CARD, newest / WEIGHTS
    for path in (card, weights):
        # A link would let a folder from a stranger read any file of ours
        if path.exists() and not (path.is_file() and path.resolve().is_relative_to(home)):
            raise SelfsupError(
                "E603",
                f"{path.name} is not a file of {folder}",
                where=str(path),
                why="it is a link that leads out of the folder, or not a regular file",
                do="copy the file itself into the folder",
            )
    return card, weights


def modality_of(card: Card, path: Path) -> Modality:
    """The modality with the card's own scaling. Raises SelfsupError E602 for an unknown one."""
    try:
        modality = find(card.modality)(**card.options)
        modality.restore(dict(card.state))
    except SelfsupError as error:
        raise _invalid(path, error.what) from None
    except (TypeError, ValueError, KeyError) as error:
        raise _invalid(path, f"state or options: {error}") from None
    if len(card.mean) != len(card.std) or len(card.mean) != len(modality.mean):
        raise _invalid(path, f"{len(card.mean)} means and {len(card.std)} deviations")
    # in place of the class's usual ones
    modality.mean, modality.std = card.mean, card.std  # type: ignore[misc]
    return modality


def rebuild(card: Card, modality: Modality, seed: int) -> nn.Module:
    """The card's network with weights drawn from `seed`; global random state is left alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(mix(seed, 0x756E7472))
        return build(card, modality)


def build(card: Card, modality: Modality) -> nn.Module:
    """The card's network, with weights drawn anew."""
    from .towers import Tower

    encoder = modality.encoder(card.name, card.size, **card.kwargs)
    return Tower(encoder, card.project) if card.project else encoder


def fill(card: Card, card_path: Path, weights_path: Path, modality: Modality) -> nn.Module:
    """Build the card's network and put the weights into it.

    The network is first laid out without memory; only when every tensor of the file has the right
    name, shape and type is any allocated, so that its size is bounded by the file's.
    """
    try:
        with torch.device("meta"):
            encoder = build(card, modality)
    except (SelfsupError, TypeError, ValueError, RuntimeError, ArithmeticError) as error:
        why = error.what if isinstance(error, SelfsupError) else str(error).splitlines()[0]
        raise _invalid(card_path, f"no encoder can be built from it: {why}") from None
    wanted = encoder.state_dict()
    try:
        with safe_open(weights_path, framework="pt") as file:
            names = set(file.keys())
            if names != set(wanted):
                raise _damaged(weights_path, _difference(names, set(wanted)))
            for name, meta in wanted.items():
                shape = tuple(file.get_slice(name).get_shape())
                if shape != tuple(meta.shape):
                    raise _damaged(weights_path, f"{name} is {shape}, not {tuple(meta.shape)}")
            tensors = {name: file.get_tensor(name) for name in wanted}
    except (SafetensorError, OSError, ValueError, OverflowError) as error:
        raise _damaged(weights_path, str(error).splitlines()[0]) from None
    for name, tensor in tensors.items():
        if tensor.dtype != wanted[name].dtype and not (
            tensor.is_floating_point() and wanted[name].is_floating_point()
        ):
            raise _damaged(weights_path, f"{name} has the type {tensor.dtype}")
        if not torch.isfinite(tensor).all():
            raise _damaged(weights_path, f"{name} has values that are not finite")
    encoder = rebuild(card, modality, seed=0)
    encoder.load_state_dict(tensors)
    return encoder


def load_method(folder: Path, card: Card, modality: Modality, seed: int = 0) -> tuple[Any, bool]:
    """The method of a run, and whether it has its trained weights.

    Without a checkpoint it has those drawn from `seed`. Raises SelfsupError E603.
    """
    from .checkpoint import newest_whole

    method = untrained_method(folder, card, modality, seed)
    newest = newest_whole(folder / "checkpoints")
    if newest is None:
        return method, False
    try:
        method.load_state_dict(load_file(newest / "method.safetensors"))
    except (RuntimeError, OSError, SafetensorError) as error:
        why = str(error).splitlines()[0]
        raise SelfsupError("E603", "the weights of the method cannot be used", why=why) from None
    return method, True


def untrained_method(folder: Path, card: Card, modality: Modality, seed: int) -> Any:
    """The method of a run as it was before training, with weights drawn from `seed`."""
    from . import released, settings

    keywords = settings.load(folder / "resolved.toml").section("method")
    # a folder from a stranger makes nobody fetch anything
    keywords = released.taught(keywords, modality, card.size, fetch=False)
    name = keywords.pop("name")
    encoder = rebuild(card, modality, seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(mix(seed, 0x68656164))
        return settings.method_class(name)(encoder, **keywords).eval()


def _plain(key: Any, value: Any) -> bool:
    """Whether a keyword of an encoder is a word, a switch or a number of sensible size."""
    if not (isinstance(key, str) and key.isidentifier()):
        return False
    if value is None or isinstance(value, bool):
        return True
    if isinstance(value, str):
        return len(value) <= 64
    if isinstance(value, int | float):
        most = LARGEST_DEPTH if key == "depth" else LARGEST_NUMBER
        return math.isfinite(value) and 0 <= value <= most
    return (
        isinstance(value, list)
        and len(value) <= LARGEST_LIST
        and all(_plain(key, v) for v in value)
    )


def _difference(names: set[str], wanted: set[str]) -> str:
    missing, extra = sorted(wanted - names), sorted(names - wanted)
    told = []
    if missing:
        told.append(f"{len(missing)} tensors are missing, first {missing[0]}")
    if extra:
        told.append(f"{len(extra)} belong to something else, first {extra[0][:80]!r}")
    return "; ".join(told)


def _is_file(data: Any) -> bool:
    from .data.kinds import CODES, KINDS, extension

    if not isinstance(data, str | Path):
        return False
    code = CODES.get(extension(str(data).encode("utf-8", "surrogateescape")))
    return code is not None and KINDS[code] in ("image", "audio", "video")


def _invalid(path: Path, why: str) -> SelfsupError:
    return SelfsupError(
        "E602",
        f"{path.name} does not describe an encoder",
        where=str(path),
        why=why,
        do="take the file that selfsup wrote beside the weights",
    )


def _damaged(path: Path, why: str) -> SelfsupError:
    return SelfsupError(
        "E603",
        f"{path.name} cannot be used",
        where=str(path),
        why=why,
        do="take another checkpoint or copy the file again",
    )


def _unreadable(name: str, reason: str) -> SelfsupError:
    return SelfsupError(
        "E103",
        f"{name!r} cannot be read",
        why=reason,
        do="take it out, or use `selfsup embed`, which lists such files and goes on",
    )
