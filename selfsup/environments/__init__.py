"""Simulated worlds, one file each: data of any size, and a place to try plans in."""

from importlib import import_module
from typing import Any

from ..console import did_you_mean
from ..errors import SelfsupError

ENVIRONMENTS = {"rooms": "Rooms"}  # file -> class in it


def find(name: str) -> Any:
    """The class of an environment. Raises E201 for a name that is not there."""
    if name not in ENVIRONMENTS:
        raise SelfsupError(
            "E201",
            f"there is no environment {name!r}",
            why=f"known: {', '.join(ENVIRONMENTS)}",
            do=did_you_mean(name, ENVIRONMENTS),
        )
    return getattr(import_module(f"{__name__}.{name}"), ENVIRONMENTS[name])
