"""Pictures with captions, sounds with words: samples of two parts or more, each a modality's own.

Nothing is read or drawn here: each part is, by its own modality, with draws of its own. A sample
may have several texts; one of them is drawn each time that it is seen.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor, nn
from torch.nn.functional import interpolate

from ..console import duration
from ..data import fields
from ..data.base import Pair, Source
from ..data.batch import Batch, stacked
from ..data.outcome import BadSample
from ..data.pairs import Part
from ..data.recordings import OVER, measured
from ..errors import SelfsupError
from ..method import Views
from ..randomness import Draws, mix
from ..towers import TOWERS, Parts
from .base import Modality

STORED = 1.5  # as in a run of one kind: parts are kept this much larger than their views
MOST = 8  # texts of a sample that are kept
SHOWN = 160  # pixels that a part is high in pictures
PICKED = 0x636170  # keeps the draw of a text apart from those of views
# Encoders of towers from small to large, by what they see; others take their modality's own
ENCODERS: dict[str, tuple[tuple[str, dict[str, Any]], ...]] = {
    "image": (("resnet18", {"width": 0.25, "stem": 2}), ("resnet18", {"width": 0.5, "stem": 2}),
              ("resnet18", {}), ("resnet50", {})),
    "text": (("bert_micro", {"depth": 2}), ("bert_micro", {}), ("bert_mini", {}),
             ("bert_base", {})),
    "audio": (("mel_tiny", {"depth": 4}), ("mel_tiny", {}), ("mel_small", {}), ("mel_small", {})),
    "video": (("vit_tiny", {"depth": 4}), ("vit_tiny", {}), ("vit_small", {}), ("vit_base", {})),
    "graph": (("gin", {}),) * 4,
    "protein": (("bert_micro", {}), ("bert_mini", {}), ("bert_small", {}), ("bert_base", {})),
}  # fmt: skip
# A text may say left, so pictures and clips stay as they are
OPTIONS: dict[str, dict[str, Any]] = {"image": {"mirror": False}, "video": {"mirror": False}}


@dataclass
class Side:
    """One part of the samples. `encoder` is that of the run it starts from, where it does."""

    modality: Modality
    size: int
    options: dict[str, Any]
    encoder: tuple[str, dict[str, Any]] | None = None


class Pairs(Modality):
    """A table of files and texts, shards with key.jpg and key.txt, parquet with both.

    `columns` name the parts of a table, which may be files, texts, SMILES and amino acids; without
    them they are found. `options` are settings of the parts, as image.mirror=true or text.size=32
    (tokens); the size of the first part is the resolution. `without` names what views of the parts
    leave out, such as "image.crop,text.mask".
    """

    name = "pairs"
    contents = ("pairs",)
    raw_unit = "texts"
    baseline_name = "features of the parts"
    default_method = "clip"
    encoders = tuple(TOWERS)
    mean = (0.0,)
    std = (1.0,)

    def __init__(
        self, *, columns: tuple[str, ...] = (), options: tuple[str, ...] = (), without: str = ""
    ):
        self.columns, self.options, self.asked = tuple(columns), tuple(options), without
        if len(self.columns) == 1 or len(set(self.columns)) < len(self.columns):
            told = f"modality.columns is {', '.join(self.columns)}"
            raise SelfsupError("E201", told, why="at least two different ones are compared")
        self.sides: dict[str, Side] = {}

    # ---- the parts -------------------------------------------------------------------------------

    def learn(self, source: Source) -> None:
        """Which parts there are, and what each must know of the data."""
        from . import of_content

        if source.content != "pairs":
            raise SelfsupError(
                "E104",
                f"{source.place} has samples of one part",
                why=f"not all of the columns {', '.join(self.columns)} are there"
                if self.columns
                else f"it holds {source.content}, and nothing beside it",
                do="give a table of files and texts, name its columns with --set "
                "'modality.columns=[...]', or leave --modality out",
            )
        contents: dict[str, str] = source.parts  # type: ignore[attr-defined]
        given = _settings(self.options, contents)
        device = "cuda" if torch.cuda.is_available() else "cpu"
        self.sides = {}
        for part, content in contents.items():
            kind, view = of_content(content), Part(source, part)
            wanted = given.get(part, {})
            options = OPTIONS.get(kind, {}) | {k: v for k, v in wanted.items() if k != "size"}
            modality = _build(kind, options)
            modality.learn(view)
            if modality.longest and (note := _left_out(view, modality)) not in ("", *source.notes):
                source.notes.append(note)
            size, _ = modality.usual_size(modality.extent(view), device)
            self.sides[part] = Side(modality, int(wanted.get("size", size)), options)
        self._settle()

    def adopt(self, part: str, card: Any, modality: Modality) -> None:
        """Take a part as another run has it: what it has learned, its encoder and its size.

        Raises SelfsupError E202 where the run is of another kind of data.
        """
        if part not in self.sides or self.sides[part].modality.name != modality.name:
            known = ", ".join(f"{p} ({s.modality.name})" for p, s in self.sides.items())
            raise SelfsupError(
                "E202",
                f"the tower {part} cannot start from a run on {modality.name}",
                why=f"the towers of these data are {known}",
                do=f"--from {next(iter(self.sides))}=RUN",
            )
        encoder = (card.name, dict(card.kwargs))
        self.sides[part] = Side(modality, card.size, dict(card.options), encoder)
        self._settle()

    @property
    def operations(self) -> tuple[str, ...]:  # type: ignore[override]
        """Those of the parts."""
        sides = self.sides.items()
        return tuple(f"{part}.{name}" for part, side in sides for name in side.modality.operations)

    def _settle(self) -> None:
        """The size of the first part is that of all, in its unit; views leave out what they do."""
        self.unit = next(iter(self.sides.values())).modality.unit  # type: ignore[misc]
        self.without = self.left_out(self.asked)
        for name in self.without:
            part, _, operation = name.partition(".")
            self.sides[part].modality.without += (operation,)

    def sized(self, size: int | None) -> dict[str, int]:
        """The size of each part where that of the first is `size`."""
        sizes = {part: side.size for part, side in self.sides.items()}
        if size is not None:
            sizes[next(iter(sizes))] = size
        return sizes

    @property
    def state(self) -> dict[str, Any]:
        made = {}
        for part, side in self.sides.items():
            made[part] = {"modality": side.modality.name, "size": side.size,
                          "options": side.options, "state": side.modality.state}  # fmt: skip
            if side.encoder is not None:
                made[part]["encoder"] = list(side.encoder)
        return {"parts": made} if made else {}

    def restore(self, state: dict[str, Any]) -> None:
        if not state:
            return
        told = state.get("parts")
        if not isinstance(told, dict) or len(told) < 2 or not all(map(str.isidentifier, told)):
            raise ValueError("no parts")
        sides = {}
        for part, entry in told.items():
            kind, size, options = entry["modality"], entry["size"], entry.get("options", {})
            if kind == self.name or type(size) is not int or not 1 <= size <= 1 << 20:
                raise ValueError(f"{part} is {str(kind)[:40]} of size {str(size)[:40]}")
            modality = _build(kind, options)
            modality.restore(dict(entry["state"]))
            encoder = entry.get("encoder")
            if encoder is not None:
                encoder = str(encoder[0]), dict(encoder[1])
            sides[part] = Side(modality, size, dict(options), encoder)
        self.sides = sides
        self._settle()

    @property
    def notes(self) -> Counter[str]:  # type: ignore[override]
        sides = self.sides.items()
        return Counter({f"{p}: {k}": n for p, s in sides for k, n in s.modality.notes.items()})

    @property
    def rules(self) -> str:
        each = (f"{p} {s.modality.name} {s.size} {s.modality.rules}" for p, s in self.sides.items())
        return "pairs 1 " + " | ".join(each)

    def meet(self, source: Source) -> None:
        for part in getattr(source, "parts", ()):
            if part in self.sides:  # else the store will say what is missing
                self.sides[part].modality.meet(Part(source, part))

    def of_content(self, content: str) -> str | None:
        """The part that sees such data by itself."""
        sides = self.sides.items()
        return next((part for part, side in sides if content in side.modality.contents), None)

    # ---- one sample ------------------------------------------------------------------------------

    def read(self, raw: Any, size: int | None = None) -> UInt8[np.ndarray, "n 1 1"]:
        """Each part as its own modality stores it; of several texts those that can be read.

        Raises BadSample: not_pairs, and the codes of the parts' own modalities.
        """
        if not isinstance(raw, Mapping) or not all(raw.get(part) for part in self.sides):
            raise BadSample("not_pairs", f"not all of {', '.join(self.sides)} are there")
        made: dict[str, np.ndarray] = {}
        for number, (part, side) in enumerate(self.sides.items()):
            least = size if number == 0 else size and round(STORED * side.size)
            bad: BadSample | None = None
            good = 0
            for one in raw[part][: 4 * MOST]:
                try:
                    array = side.modality.read(one, least)
                    array = side.modality.shrink(array, least) if least else array
                except BadSample as error:
                    bad = bad or error
                    continue
                made[f"{part}.{good}"] = array
                good += 1
                if good == MOST:
                    break
            if not good:
                assert bad is not None
                raise BadSample(bad.code, f"{part}: {bad.reason}")
        return fields.pack(made)

    def thumbnail(self, sample: UInt8[np.ndarray, "n 1 1"]) -> UInt8[np.ndarray, "h w 3"]:
        found = fields.unpack_one(sample[:, 0, 0])
        shown = []
        for part, side in self.sides.items():
            picture = side.modality.thumbnail(found[f"{part}.0"])[..., :3]
            picture = picture.repeat(3, 2) if picture.shape[2] == 1 else picture
            shown.append(torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None])
        return _beside(shown)[0].permute(1, 2, 0).numpy()

    def describe(self, raw: Any) -> tuple[str, str, tuple[int, int]]:
        texts = max(len(raw[part]) for part in self.sides)
        return " + ".join(self.sides), f"{texts} texts" if texts > 1 else "1 text", (texts, texts)

    def examples(self) -> list[Any]:
        raws = {part: side.modality.examples() or _pictures() for part, side in self.sides.items()}
        count = min(map(len, raws.values()))
        return [Pair({part: [raws[part][i]] for part in raws}) for i in range(count)]

    # ---- batches ---------------------------------------------------------------------------------

    def parts(
        self, batch: Batch, draws: Draws | None = None
    ) -> dict[str, tuple[Batch, Int64[Tensor, " m"]]]:
        """Each part as a batch of its own, and the row of the sample that each of it is of.

        With `draws` every sample gives one of what it has; without, all.
        """
        samples = fields.unpack(batch.to("cpu"))
        made = {}
        for part in self.sides:
            counts = [sum(key.rpartition(".")[0] == part for key in s) for s in samples]
            rows, numbers = np.arange(len(samples)), np.zeros(len(samples), np.int64)
            if draws is not None:
                drawn = Draws(mix(draws.seed, PICKED), batch.samples.cpu()).uniform().numpy()
                numbers = (drawn * np.array(counts)).astype(np.int64)
            else:
                rows = np.repeat(rows, counts)
                numbers = np.concatenate([np.arange(count) for count in counts])
            pairs = zip(rows.tolist(), numbers.tolist(), strict=True)
            arrays = [samples[row][f"{part}.{number}"] for row, number in pairs]
            owner = torch.from_numpy(rows)
            small = stacked(arrays, batch.samples.cpu()[owner]).to(batch.pixels.device)
            made[part] = small, owner
        return made

    def _firsts(self, batch: Batch) -> dict[str, Batch]:
        """Of each part what comes first."""
        samples = fields.unpack(batch.to("cpu"))
        numbers, device = batch.samples.cpu(), batch.pixels.device
        return {part: stacked([s[f"{part}.0"] for s in samples], numbers).to(device)
                for part in self.sides}  # fmt: skip

    def views(
        self, batch: Batch, spec: Views, draws: Draws, size: int, local_size: int | None = None
    ) -> list[Parts]:
        """Views of each part side by side; a draw of one part tells nothing of the others'."""
        found, sizes = self.parts(batch, draws), self.sized(size)
        made: dict[str, list[Any]] = {}
        for number, (part, side) in enumerate(self.sides.items()):
            own = Draws(mix(draws.seed, 1 + number), draws.samples)
            made[part] = side.modality.views(found[part][0], spec, own, sizes[part])
        return [Parts(dict(zip(made, each, strict=True))) for each in zip(*made.values())]

    def plain(self, batch: Batch, size: int) -> Parts:
        """Each part without chance; the first of several texts."""
        found, sizes = self._firsts(batch), self.sized(size)
        sides = self.sides.items()
        return Parts({p: side.modality.plain(found[p], sizes[p]) for p, side in sides})

    def picture(self, x: Parts) -> UInt8[Tensor, "b 3 h w"]:
        return _beside([self.sides[part].modality.picture(view) for part, view in x.of.items()])

    def baseline(self, batch: Batch) -> Float[Tensor, "b p"]:
        """The classical features of all parts."""
        found = self._firsts(batch)
        return torch.cat([s.modality.baseline(found[p]).float() for p, s in self.sides.items()], 1)

    def fitted(self, batches: Iterable[Batch]) -> Callable[[Batch], Float[Tensor, "b p"]]:
        seen = [self._firsts(batch) for batch in batches]
        each = {p: s.modality.fitted([one[p] for one in seen]) for p, s in self.sides.items()}

        def features(batch: Batch) -> Float[Tensor, "b p"]:
            found = self._firsts(batch)
            return torch.cat([features(found[part]).float() for part, features in each.items()], 1)

        return features

    # ---- sizes -----------------------------------------------------------------------------------

    def extent(self, source: Source) -> int:
        part, side = next(iter(self.sides.items()))
        return side.modality.extent(Part(source, part))

    def usual_size(self, extent: int, device: str) -> tuple[int, str]:
        part, side = next(iter(self.sides.items()))
        size, why = side.modality.usual_size(extent, device)
        if side.encoder is not None:
            size, why = side.size, f"that of the run that {part} starts from"
        others = [f"{p} {s.size} {s.modality.unit}" for p, s in list(self.sides.items())[1:]]
        return size, f"of {part}: {why}; {', '.join(others)}"

    def encoder(self, name: str, size: int, **keywords: Any) -> nn.Module:
        from ..towers import towers

        sizes, made = self.sized(size), {}
        for part, side in self.sides.items():
            own, settings = self.chosen(part, name, keywords)
            made[part] = side.modality.encoder(own, sizes[part], **settings)
        return towers(name, made, **keywords)

    def chosen(
        self, part: str, name: str, keywords: Mapping[str, Any]
    ) -> tuple[str, dict[str, Any]]:
        """The encoder of a part and its settings: of the run it starts from, or as asked for."""
        side = self.sides[part]
        given = _settings(keywords.get("parts", ()), self.sides).get(part, {})
        if side.encoder is not None:
            return side.encoder
        usual, settings = _level(side.modality, TOWERS[name]["level"])
        own = {key: value for key, value in given.items() if key}
        return given.get("", usual), own if "" in given else settings | own


# ---- small things --------------------------------------------------------------------------------


def _build(kind: Any, options: Mapping[str, Any]) -> Modality:
    from . import find

    return find(str(kind))(**options)


def _level(modality: Modality, level: int) -> tuple[str, dict[str, Any]]:
    if modality.name in ENCODERS and getattr(modality, "form", "mel") == "mel":
        name, keywords = ENCODERS[modality.name][level]
        return name, dict(keywords)
    return modality.encoders[min(level, len(modality.encoders) - 1)], {}


def _settings(texts: Iterable[str], parts: Iterable[str]) -> dict[str, dict[str, Any]]:
    """["image=vit_tiny", "image.depth=6"] as {"image": {"": "vit_tiny", "depth": 6}}."""
    from ..settings import literal

    known = list(parts)
    found: dict[str, dict[str, Any]] = {}
    for text in texts:
        name, equals, value = str(text).partition("=")
        part, _, key = name.strip().partition(".")
        if part not in known or not equals:
            raise SelfsupError(
                "E201",
                f"{text!r} is no setting of a part",
                why=f"the parts are {', '.join(known)}",
                do=f"write it like {known[0]}.size=64",
            )
        found.setdefault(part, {})[key] = literal(value.strip())
    return found


def _left_out(part: Part, modality: Modality) -> str:
    """How much of long recordings is not used, as no text is of a clip of theirs."""
    lengths, longest = measured(part, modality.seconds)[0].clip(0), modality.longest
    long = lengths > (1 + OVER) * longest
    if not long.any():
        return ""
    lost = (lengths[long] - longest).sum()
    return (
        f"{part.of}: {long.sum()} of {len(part)} are longer than {longest:g} s, of which the "
        f"middle is used: {duration(lost)} of {duration(lengths.sum())} are left out; "
        f"to use more: --set 'modality.options=[\"{part.of}.longest=SECONDS\"]'"
    )


def _beside(pictures: list[UInt8[Tensor, "b 3 h w"]]) -> UInt8[Tensor, "b 3 h w2"]:
    """Pictures of the parts of each sample, equally high, from left to right."""
    made = []
    for x in pictures:
        width = max(1, round(x.shape[3] * SHOWN / x.shape[2]))
        grown = interpolate(x.float(), (SHOWN, width), mode="bilinear", antialias=True)
        made.append(grown.round().clamp(0, 255).to(torch.uint8))
    return torch.cat(made, 3)


def _pictures() -> list[UInt8[np.ndarray, "h w 3"]]:
    generator = np.random.Generator(np.random.Philox(20260102))
    return [generator.integers(0, 256, (40 + 9 * i, 50, 3), np.uint8) for i in range(4)]
