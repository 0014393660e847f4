"""Settings: what each may be, where its value came from, and how it is written down again.

A value comes from the first of: the command line (or Python's keyword arguments), an environment
variable SELFSUP_<SECTION>_<KEY>, the file given by --config, the plan, the default. Files are TOML.
Everything is strict: unknown keys, duplicates, true for a number, nan and inf are refused, all of
them at once, each with its key, the value found, what was expected and the nearest known key.
No setting names a Python object; names of methods and encoders are looked up among the files here.
"""

import inspect
import json
import math
import os
import re
import tomllib
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model

from . import listing
from .console import did_you_mean, nearest
from .errors import SelfsupError

FORMAT = 1
MAX_BYTES = 1 << 20  # of a settings file; a real one has a few kilobytes
PREFIX = "SELFSUP_"
NONE = "none"  # TOML has no null
LENGTHS = ("train.steps", "train.epochs", "train.minutes")


CHOSEN: Any = None  # by the plan, or by the method
# Sections whose keys are the keyword arguments of what their `name` names -> its shelf
SHELVES = {"modality": "modalities", "method": "methods", "encoder": "encoders"}

# ---- the schema ------------------------------------------------------------------------------


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


class Data(Section):
    path: str | None = Field(None, description="folder, tar shards, parquet, CSV or array file")
    labels: str | None = Field(None, description="labelled folder or CSV for the online kNN alone")
    resolution: int = Field(
        CHOSEN, ge=4, le=1 << 20, description="size of a view: pixels a side, tokens, time steps"
    )
    cache: str | None = Field(None, description="folder of the decoded samples; none: the user's")
    follow_links: bool = Field(False, description="follow links that lead out of the data folder")
    drop_copies: bool = Field(False, description="leave out files that are copies of others")
    workers: int = Field(2, ge=0, le=256, description="threads that prepare batches")


class ModalityName(Section):
    name: str = Field(
        CHOSEN, description="selfsup list modalities; its settings are the other keys"
    )


class MethodName(Section):
    name: str = Field(CHOSEN, description="selfsup list methods; its settings are the other keys")


class EncoderName(Section):
    name: str = Field(CHOSEN, description="selfsup list encoders; its settings are the other keys")


class OptimSettings(Section):
    name: Literal["adamw", "muon", "sgd", "lars"] = Field(CHOSEN, description="the optimizer")
    lr: float = Field(
        CHOSEN, gt=0, description="learning rate for a batch of `per`; scales linearly"
    )
    per: int = Field(CHOSEN, ge=1, description="the batch size that lr belongs to")
    weight_decay: float = Field(CHOSEN, ge=0, description="not on biases, norms and positions")
    weight_decay_end: float | None = Field(None, ge=0, description="cosine from weight_decay here")
    betas: tuple[float, float] = Field(CHOSEN, strict=False, description="of AdamW and Muon")
    momentum: float = Field(CHOSEN, ge=0, lt=1, description="of SGD and LARS")
    warmup: float = Field(CHOSEN, ge=0, lt=1, description="share of all steps")
    clip: float | None = Field(None, gt=0, description="largest gradient norm; none: no clipping")
    final: float = Field(CHOSEN, ge=0, le=1, description="learning rate at the end, a share of lr")


class Train(Section):
    steps: int | None = Field(None, ge=1, description="length in optimizer steps")
    epochs: float | None = Field(None, gt=0, description="length in passes over the data")
    minutes: float | None = Field(None, gt=0, description="length in minutes of training")
    batch: int = Field(CHOSEN, ge=1, description="samples per step, over all processes")
    accumulate: int = Field(1, ge=1, description="parts in which a batch is computed")
    chunk: int | None = Field(
        None, ge=1, description="views that the encoder takes at a time; the loss sees all"
    )
    seed: int = Field(0, ge=0, lt=2**62, description="all random numbers follow from it")
    precision: Literal["auto", "bf16", "fp32"] = Field(
        "auto", description="auto: bf16 where it measures faster"
    )
    shard: bool = Field(False, description="spread the weights over processes (FSDP2)")
    compile: bool = Field(False, description="torch.compile the method")


class Checkpoint(Section):
    every_minutes: float = Field(5.0, gt=0, description="time between two saves")
    keep: int = Field(2, ge=2, description="how many are kept")


class Log(Section):
    tensorboard: bool = Field(False, description="write TensorBoard files too")
    wandb: bool = Field(False, description="send metrics to Weights & Biases too")


SECTIONS: dict[str, type[Section]] = {
    "data": Data,
    "modality": ModalityName,
    "method": MethodName,
    "encoder": EncoderName,
    "optim": OptimSettings,
    "train": Train,
    "checkpoint": Checkpoint,
    "log": Log,
}


class Top(Section):
    format: Literal[1] = Field(1, description="version of this file's layout")
    start_from: str | None = Field(None, description="run whose weights are the start")
    start_towers: tuple[str, ...] = Field(
        (), strict=False, description="runs that towers start from, each as tower=RUN"
    )


# ---- layers: where a value comes from --------------------------------------------------------


class Given(NamedTuple):
    """A value that somebody gave, and where."""

    value: Any
    source: str


class Value(NamedTuple):
    """A resolved value, its source (default, plan, a file, a variable, an option) and why."""

    value: Any
    source: str
    reason: str


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


# ---- checking --------------------------------------------------------------------------------


def check(given: Mapping[str, Given], *, partial: bool = False) -> dict[str, Any]:
    """The given values in the types of the schema. Raises one E201 that names every fault.

    The settings of modality, method and encoder are checked against the constructor of the one
    that is named; with `partial` they wait until one is.
    """
    given = {key: Given(_plain(item.value), item.source) for key, item in given.items()}
    faults: list[str] = []
    models: dict[str, type[Section]] = {"": Top, **SECTIONS}
    names = {shelf: given.get(f"{shelf}.name") for shelf in SHELVES}
    for shelf, named in names.items():
        if named is None and partial:
            models.pop(shelf)
        elif named is not None and isinstance(named.value, str):
            try:
                listing.find(SHELVES[shelf], named.value)
            except SelfsupError as error:
                hint = f"; {error.do}" if error.do.startswith("did") else f"; {error.why}"
                faults.append(f"{shelf}.name ({named.source}): {error.what}{hint}")
                models.pop(shelf)
            else:
                models[shelf] = keywords_model(shelf, named.value)

    grouped: dict[str, dict[str, Any]] = {name: {} for name in models}
    for key, item in given.items():
        section, dot, rest = key.rpartition(".") if "." in key else ("", "", key)
        if section in models and rest:
            grouped[section][rest] = _none(models[section], rest, item.value)
        elif section not in SHELVES:
            known = [*SECTIONS, *Top.model_fields] if not dot else known_keys(given)
            hint = did_you_mean(key if dot else section or key, known)
            faults.append(f"{key} ({item.source}): unknown key; {hint}".rstrip("; "))

    checked: dict[str, Any] = {}
    for section, values in grouped.items():
        prefix = f"{section}." if section else ""
        try:
            model = models[section].model_validate(values)
        except ValidationError as error:
            for detail in error.errors(include_url=False):
                faults.append(_fault(prefix, detail, given, models[section]))
        else:
            checked |= {prefix + key: getattr(model, key) for key in model.model_fields_set}
    if faults:
        _refuse(faults)
    return checked


def known_keys(given: Mapping[str, Given] = types.MappingProxyType({})) -> list[str]:
    """Every dotted key, with those of the shelves' pieces that are named in `given`."""
    keys = list(Top.model_fields)
    for section, model in SECTIONS.items():
        named = given.get(f"{section}.name")
        known = getattr(listing, SHELVES[section])() if section in SHELVES else {}
        if named and isinstance(named.value, str) and named.value in known:
            model = keywords_model(section, named.value)
        keys += [f"{section}.{key}" for key in model.model_fields]
    return keys


@cache
def keywords_model(shelf: str, name: str) -> type[Section]:
    """A section model from the keyword-only arguments of the constructor of what is named."""
    if shelf == "method":
        entry = listing.find("methods", name)
        constructor = method_class(entry.name).__init__
        base: type[Section] = MethodName
    elif shelf == "modality":
        from . import modalities

        constructor = modalities.find(name).__init__
        base = ModalityName
    else:
        constructor = encoder_builder(name)
        base = EncoderName
    fields: dict[str, Any] = {}
    hints = typing.get_type_hints(constructor)
    for key, parameter in inspect.signature(constructor).parameters.items():
        if parameter.kind is not inspect.Parameter.KEYWORD_ONLY:
            continue
        assert key in hints, f"{name}: the keyword {key} has no annotation"
        annotation, default = hints[key], parameter.default
        if _has_tuple(annotation):
            annotation = Annotated[annotation, Field(strict=False)]
        fields[key] = (annotation, ... if default is inspect.Parameter.empty else default)
    return create_model(f"{shelf}_{name}", __base__=base, **fields)


def method_class(name: str) -> Any:
    """The class in `methods/<name>.py`. Only names found in the folder are imported."""
    import importlib

    entry = listing.find("methods", name)
    module = importlib.import_module(f"{__package__}.methods.{entry.name}")
    return getattr(module, entry.class_name)


def encoder_builder(name: str) -> Any:
    """The function that builds the encoder called `name`. Only names in the tables are imported."""
    import importlib

    entry = listing.find("encoders", name)
    return getattr(importlib.import_module(f"{__package__}.{entry.module}"), entry.class_name)


def keyword_defaults(shelf: str, name: str) -> dict[str, Any]:
    """The paper's values: keyword -> default of the constructor."""
    model = keywords_model(shelf, name)
    return {
        key: field.default
        for key, field in model.model_fields.items()
        if key != "name" and not field.is_required()
    }


def _has_tuple(annotation: Any) -> bool:
    parts = typing.get_args(annotation) or (annotation,)
    return typing.get_origin(annotation) is tuple or any(
        typing.get_origin(part) is tuple for part in parts
    )


def _plain(value: Any) -> Any:
    """Paths as text, tuples and lists alike, numpy numbers as Python's."""
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if type(value).__module__ == "numpy" and getattr(value, "shape", None) == ():
        return value.item()
    return value


def _none(model: type[Section], key: str, value: Any) -> Any:
    field = model.model_fields.get(key)
    if value == NONE and field and types.NoneType in typing.get_args(field.annotation):
        return None
    return value


EXPECTED = {
    "int_type": "an integer",
    "int_parsing": "an integer",
    "float_type": "a number",
    "bool_type": "true or false",
    "string_type": "text",
    "finite_number": "a finite number",
    "tuple_type": "a list",
    "missing": "a value",
}


def _fault(
    prefix: str, detail: Mapping[str, Any], given: Mapping[str, Given], model: type[Section]
) -> str:
    names = [part for part in detail["loc"] if isinstance(part, str)]
    key = prefix + names[0]
    source = f" ({given[key].source})" if key in given else ""
    if detail["type"] == "extra_forbidden":
        return f"{key}{source}: unknown key{_elsewhere(prefix, names[0], model)}"
    found = _show(detail["input"])
    expected = EXPECTED.get(detail["type"])
    if detail["type"] == "literal_error":
        expected = detail["ctx"]["expected"].replace("'", "").replace(" or ", ", ")
        expected = f"one of {expected}"
        close = nearest(str(detail["input"]), expected.removeprefix("one of ").split(", "))
        expected += f"; did you mean {close}?" if close else ""
    if expected is None:
        expected = detail["msg"].removeprefix("Input should be ").removeprefix("Value error, ")
    where = "".join(f"[{part}]" for part in detail["loc"] if isinstance(part, int))
    return f"{key}{where}{source}: found {found}, expected {expected}"


def _elsewhere(prefix: str, key: str, model: type[Section]) -> str:
    """A hint for an unknown key: the nearest known one, or the method that has it."""
    if prefix == "method.":
        owners = [name for name, entry in listing.methods().items() if key in entry.settings]
        if owners:
            return f"; it belongs to: --method {' or '.join(owners)}"
    close = nearest(key, model.model_fields)
    if close:
        return f"; did you mean {prefix}{close}?"
    sections: dict[str, type[Section]] = {"": Top, **SECTIONS}
    for section, other in sections.items():
        if key in other.model_fields:
            return f"; did you mean {section + '.' if section else ''}{key}?"
    return f"; known: {', '.join(model.model_fields)}"


def _show(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _refuse(faults: Sequence[str]) -> typing.NoReturn:
    shown = list(faults[:20])
    if len(faults) > 20:
        shown.append(f"... and {len(faults) - 20} more")
    if len(faults) == 1:
        raise SelfsupError("E201", f"a setting is not valid: {faults[0]}", do=SEE)
    raise SelfsupError(
        "E201", f"{len(faults)} settings are not valid", where="\n         ".join(shown), do=SEE
    )


SEE = "all settings with their values: selfsup pretrain DATA --print-config"


# ---- resolving -------------------------------------------------------------------------------


class Settings:
    """Every setting with its value, source and reason, in the order of the file."""

    def __init__(self, values: Mapping[str, Value]):
        self.values = dict(values)

    def __getitem__(self, key: str) -> Any:
        return self.values[key].value

    def section(self, name: str) -> dict[str, Any]:
        """The values of one section, without its name."""
        return {
            key.removeprefix(f"{name}."): value.value
            for key, value in self.values.items()
            if key.startswith(f"{name}.")
        }

    def plain(self) -> dict[str, Any]:
        """Dotted key -> value."""
        return {key: value.value for key, value in self.values.items()}

    def differences(self, other: "Settings") -> list[tuple[str, Any, Any]]:
        """(key, value here, value there) wherever two runs would not be the same."""
        here, there = self.plain(), other.plain()
        return [
            (key, here.get(key), there.get(key))
            for key in dict.fromkeys([*here, *there])
            if here.get(key) != there.get(key)
        ]

    def rows(self) -> list[tuple[str, str, str, str]]:
        """(key, value as in the file, source, reason) for --print-config."""
        return [(k, toml_value(v.value), v.source, v.reason) for k, v in self.values.items()]

    def to_json(self) -> dict[str, dict[str, Any]]:
        return {key: value._asdict() for key, value in self.values.items()}

    def to_toml(self) -> str:
        """A file that makes the same run: `selfsup pretrain --config resolved.toml`."""
        lines = ["# Settings of a run, resolved. To run the same again:"]
        lines += ["#   selfsup pretrain --config resolved.toml --out runs/again", ""]
        section = ""
        for key, (value, source, reason) in self.values.items():
            head, _, name = key.rpartition(".")
            if head != section:
                lines += ["", f"[{head}]"]
                section = head
            why = _comment(f"{source}: {reason}" if reason else source)
            lines.append(f"{name} = {toml_value(value)}  # {why}")
        return "\n".join(lines) + "\n"


def resolve(
    given: Mapping[str, Given],
    chosen: Iterable[tuple[str, Any, str]],
    optim: Callable[[str], Any] | None = None,
) -> Settings:
    """Defaults, under the plan's choices, under what was given; all checked once more together.

    `chosen` is the plan: (key, value, reason). `optim(method name)` gives the method's own recipe.
    """
    layers = dict(given)
    reasons: dict[str, str] = {}
    length_given = any(key in given for key in LENGTHS)
    for key, value, reason in chosen:
        if key in given or (length_given and key in LENGTHS):
            continue
        layers[key] = Given(value, "plan")
        reasons[key] = reason
    checked = check(layers)
    method = checked["method.name"]

    defaults: dict[str, tuple[Any, str]] = {}
    for name, field in Top.model_fields.items():
        defaults[name] = (field.default, "")
    for section, model in SECTIONS.items():
        defaults |= {
            f"{section}.{name}": (field.default, "")
            for name, field in model.model_fields.items()
            if f"{section}.{name}" not in LENGTHS
        }
        if section in SHELVES:
            named = checked[f"{section}.name"]
            for name, default in keyword_defaults(section, named).items():
                defaults[f"{section}.{name}"] = (default, f"{named}'s own")
        if section == "optim":
            recipe = (optim or _recipe)(method)
            for name in OptimSettings.model_fields:
                defaults[f"optim.{name}"] = (getattr(recipe, name), f"{method}'s own")
        if section == "train":
            length = next((key for key in LENGTHS if checked.get(key) is not None), None)
            assert length, "the plan chooses a length where none is given"
            defaults[length] = (checked[length], "")

    values = {}
    for key, (default, reason) in defaults.items():
        if key in checked:
            values[key] = Value(checked[key], layers[key].source, reasons.get(key, ""))
        else:
            assert default is not None or _may_be_none(key), f"nothing chose {key}"
            values[key] = Value(default, "default", reason)
    return Settings(values)


def _recipe(method: str) -> Any:
    return method_class(method).optim


def _may_be_none(key: str) -> bool:
    section, _, name = key.rpartition(".")
    model = SECTIONS[section] if section else Top
    field = model.model_fields.get(name)
    return field is None or types.NoneType in typing.get_args(field.annotation)


def load(path: str | os.PathLike) -> Settings:
    """The settings of a run from its resolved.toml, with the reasons left out."""
    return resolve(from_file(path), ())


# ---- TOML ------------------------------------------------------------------------------------


def toml_value(value: Any) -> str:
    """One value in TOML, which has no null: None is the word "none"."""
    match value:
        case None:
            return json.dumps(NONE)
        case bool():
            return "true" if value else "false"
        case int():
            return str(value)
        case float():
            assert math.isfinite(value), "nan and inf are refused on the way in"
            return repr(value)
        case str():
            return _toml_text(value)
        case list() | tuple():
            return "[" + ", ".join(toml_value(item) for item in value) + "]"
    raise TypeError(f"{value!r} has no place in a settings file")


def _toml_text(text: str) -> str:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise SelfsupError(
            "E201",
            "a name that is not Unicode cannot be written to a settings file",
            where=text.encode("utf-8", "backslashreplace").decode(),
            do="rename the folder, or make a link to it",
        ) from error
    # JSON's escapes are TOML's, except that TOML also wants DEL escaped
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _comment(text: str) -> str:
    text = text.encode("utf-8", "backslashreplace").decode()
    return re.sub(r"[\x00-\x1f\x7f]+", " ", text).strip()


# ---- documentation ---------------------------------------------------------------------------


def reference() -> str:
    """The tables of docs/settings.md: every key, what it may be, its default, what it means."""
    models: dict[str, type[Section]] = {"": Top, **SECTIONS}
    parts = []
    for section, model in models.items():
        lines = [f"### [{section}]" if section else "### At the top", ""]
        lines += ["| key | value | default | meaning |", "|---|---|---|---|"]
        for name, item in model.model_fields.items():
            kind = str(getattr(item.annotation, "__name__", item.annotation))
            if typing.get_args(item.annotation):
                kind = str(item.annotation).replace("typing.", "").replace(" | None", ' or "none"')
            kind = kind.replace("|", "or")
            limits = [
                f"{sign} {getattr(rule, word)}"
                for rule in item.metadata
                for word, sign in (("ge", "at least"), ("gt", "above"), ("le", "at most"))
                if getattr(rule, word, None) is not None
            ]
            default = "chosen" if item.default is None else f"`{toml_value(item.default)}`"
            if item.default is None and types.NoneType in typing.get_args(item.annotation):
                default = "none"
            value = ", ".join([kind, *limits])
            lines.append(f"| `{name}` | {value} | {default} | {item.description} |")
        parts.append("\n".join(lines))
    return "\n\n".join(parts) + "\n"
