"""What was given: a settings file, the environment, options and --set, later ones over earlier."""

import os
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import SelfsupError
from .schema import LENGTHS, NONE, SECTIONS

MAX_BYTES = 1 << 20  # of a settings file; a real one has a few kilobytes
PREFIX = "SELFSUP_"


class Given(NamedTuple):
    """A value that somebody gave, and where."""

    value: Any
    source: str


def gather(
    *,
    file: str | os.PathLike | None = None,
    environment: Mapping[str, str] | None = None,
    options: Mapping[str, Given] | None = None,
    sets: Sequence[str] = (),
) -> dict[str, Given]:
    """All that was given, later layers over earlier ones: file, environment, options, --set."""
    layers = [
        from_file(file) if file is not None else {},
        from_environment(os.environ if environment is None else environment),
        {**(options or {}), **from_sets(sets)},
    ]
    given: dict[str, Given] = {}
    for layer in layers:
        lengths = [key for key in LENGTHS if key in layer and layer[key].value != NONE]
        if len(lengths) > 1:
            sources = ", ".join(f"{key} by {layer[key].source}" for key in lengths)
            raise SelfsupError(
                "E201",
                "the length of training is given more than once",
                where=sources,
                do="give one of --steps, --epochs and --minutes",
            )
        if lengths:  # a length given here replaces a length of another kind given before
            given = {key: value for key, value in given.items() if key not in LENGTHS}
        given |= layer
    return given


def from_file(path: str | os.PathLike) -> dict[str, Given]:
    """A TOML file as dotted keys. Raises E201 (not TOML, too large), E203 (no such file)."""
    path = Path(path)
    try:
        with open(path, "rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise SelfsupError(
            "E203", "the settings file cannot be read", where=str(path), why=error.strerror or ""
        ) from error
    if len(raw) > MAX_BYTES:
        raise SelfsupError(
            "E201",
            "the settings file is too large",
            where=str(path),
            why=f"it has more than {MAX_BYTES:,} bytes; settings take a few thousand",
            do="check that --config names a settings file and not data",
        )
    try:
        tables = tomllib.loads(raw.decode("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        why = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise SelfsupError(
            "E201", "the settings file is not valid TOML", where=str(path), why=why
        ) from error
    return flatten(tables, str(path))


def flatten(tables: Mapping[str, Any], source: str) -> dict[str, Given]:
    """{"train": {"batch": 8}} as {"train.batch": Given(8, source)}."""
    given: dict[str, Given] = {}
    for name, value in tables.items():
        if isinstance(value, dict):
            given |= {f"{name}.{key}": Given(item, source) for key, item in value.items()}
        else:
            given[name] = Given(value, source)
    return given


def from_environment(environment: Mapping[str, str]) -> dict[str, Given]:
    """SELFSUP_TRAIN_BATCH=64 is train.batch = 64; SELFSUP_CACHE is data.cache."""
    given: dict[str, Given] = {}
    for variable in sorted(environment):
        text = environment[variable]
        section, _, key = variable.removeprefix(PREFIX).lower().partition("_")
        if variable == PREFIX + "CACHE" and text:
            given["data.cache"] = Given(text, variable)
        elif variable.startswith(PREFIX) and section in SECTIONS and key:
            given[f"{section}.{key}"] = Given(literal(text), variable)
    return given


def from_sets(sets: Iterable[str]) -> dict[str, Given]:
    """["optim.lr=1e-3"] as given values; the part after the first = is a TOML value or a word."""
    given: dict[str, Given] = {}
    for text in sets:
        key, equals, value = text.partition("=")
        key = key.strip()
        if not equals or not key:
            raise SelfsupError(
                "E201",
                f"--set {text!r} is not key=value",
                do="write it like --set optim.lr=1e-3",
            )
        if key in given:
            raise SelfsupError("E201", f"--set gives {key} twice", do="keep one of them")
        given[key] = Given(literal(value.strip()), f"--set {key}")
    return given


def literal(text: str) -> Any:
    """A TOML value where it reads as one, else the text itself, so that words need no quotes."""
    if len(text) > MAX_BYTES or "\n" in text:
        return text
    try:
        return tomllib.loads(f"x = {text}")["x"]
    except (tomllib.TOMLDecodeError, RecursionError):
        return text
