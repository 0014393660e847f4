"""Every setting of a run with its value, where that came from and why."""

import os
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from .checked import check
from .given import Given, from_file
from .schema import LENGTHS, MODELS, SHELVES, OptimSettings, dotted, optional
from .shelves import keyword_defaults, method_class
from .written import comment, toml_value


class Value(NamedTuple):
    """A resolved value, its source (default, plan, a file, a variable, an option) and why."""

    value: Any
    source: str
    reason: str


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
            why = comment(f"{source}: {reason}" if reason else source)
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
    for section, model in MODELS.items():
        for name, field in model.model_fields.items():
            if dotted(section, name) not in LENGTHS:
                defaults[dotted(section, name)] = (field.default, "")
        if section in SHELVES:
            named = checked[f"{section}.name"]
            for name, default in keyword_defaults(section, named).items():
                defaults[f"{section}.{name}"] = (default, f"{named}'s own")
        if section == "optim":
            recipe = optim(method) if optim else method_class(method).optim
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


def _may_be_none(key: str) -> bool:
    """Also what is no key of the schema: a keyword argument's default is its own."""
    section, _, name = key.rpartition(".")
    field = MODELS[section].model_fields.get(name)
    return field is None or optional(field)


def load(path: str | os.PathLike) -> Settings:
    """The settings of a run from its resolved.toml, with the reasons left out."""
    return resolve(from_file(path), ())
