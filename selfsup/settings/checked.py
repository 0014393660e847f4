"""What was given in the types of the schema, or one error that names every fault."""

import os
import typing
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from .. import listing
from ..console import did_you_mean, nearest
from ..errors import SelfsupError
from .given import Given
from .schema import MODELS, NONE, SECTIONS, SHELVES, Section, Top, dotted, optional
from .shelves import keywords_model

SEE = "all settings with their values: selfsup pretrain DATA --print-config"
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


def check(given: Mapping[str, Given], *, partial: bool = False) -> dict[str, Any]:
    """The given values in the types of the schema. Raises one E201 that names every fault.

    The settings of modality, method and encoder are checked against the constructor of the one
    that is named; with `partial` they wait until one is.
    """
    given = {key: Given(_plain(item.value), item.source) for key, item in given.items()}
    faults: list[str] = []
    models = _models(given, partial, faults)
    grouped: dict[str, dict[str, Any]] = {name: {} for name in models}
    for key, item in given.items():
        section, dot, rest = key.rpartition(".")
        if section in models and rest:
            grouped[section][rest] = _none(models[section], rest, item.value)
        elif section not in SHELVES:
            known = _known_keys(given) if dot else [*SECTIONS, *Top.model_fields]
            faults.append(
                f"{key} ({item.source}): unknown key; {did_you_mean(key, known)}".rstrip("; ")
            )

    checked: dict[str, Any] = {}
    for section, values in grouped.items():
        try:
            found = models[section].model_validate(values)
        except ValidationError as error:
            for detail in error.errors(include_url=False):
                faults.append(_fault(section, detail, given, models[section]))
        else:
            checked |= {dotted(section, key): getattr(found, key) for key in found.model_fields_set}
    if faults:
        _refuse(faults)
    return checked


def _models(
    given: Mapping[str, Given], partial: bool, faults: list[str]
) -> dict[str, type[Section]]:
    """The schema, with the keys of what is named; a name that is on no shelf is a fault."""
    models = dict(MODELS)
    for shelf in SHELVES:
        named = given.get(f"{shelf}.name")
        if named is None and partial:
            models.pop(shelf)
        elif named is not None and isinstance(named.value, str):
            try:
                listing.find(SHELVES[shelf], named.value)
            except SelfsupError as error:
                hint = error.do if error.do.startswith("did") else error.why
                faults.append(f"{shelf}.name ({named.source}): {error.what}; {hint}")
                models.pop(shelf)
            else:
                models[shelf] = keywords_model(shelf, named.value)
    return models


def _known_keys(given: Mapping[str, Given]) -> list[str]:
    """Every key, with those of what is named in `given`."""
    keys: list[str] = []
    for section, model in MODELS.items():
        named = given.get(f"{section}.name")
        known = getattr(listing, SHELVES[section])() if section in SHELVES else {}
        if named and isinstance(named.value, str) and named.value in known:
            model = keywords_model(section, named.value)
        keys += [dotted(section, key) for key in model.model_fields]
    return keys


def _plain(value: Any) -> Any:
    """Paths as text, tuples and lists alike, numpy numbers as Python's."""
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if type(value).__module__ == "numpy" and getattr(value, "shape", None) == ():
        return value.item()
    return value


def _none(model: type[Section], key: str, value: Any) -> Any:
    field = model.model_fields.get(key)
    return None if value == NONE and field and optional(field) else value


def _fault(
    section: str, detail: Mapping[str, Any], given: Mapping[str, Given], model: type[Section]
) -> str:
    name = next(part for part in detail["loc"] if isinstance(part, str))
    key = dotted(section, name)
    source = f" ({given[key].source})" if key in given else ""
    if detail["type"] == "extra_forbidden":
        return f"{key}{source}: unknown key{_elsewhere(section, name, model)}"
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


def _elsewhere(section: str, key: str, model: type[Section]) -> str:
    """A hint for an unknown key: the nearest known one, or the method that has it."""
    if section == "method":
        owners = [name for name, entry in listing.methods().items() if key in entry.settings]
        if owners:
            return f"; it belongs to: --method {' or '.join(owners)}"
    close = nearest(key, model.model_fields)
    if close:
        return f"; did you mean {dotted(section, close)}?"
    for other, fields in MODELS.items():
        if key in fields.model_fields:
            return f"; did you mean {dotted(other, key)}?"
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
