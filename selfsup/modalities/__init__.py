"""The kinds of data, one file each; the folder is the registry."""

from importlib import import_module

from .base import Modality

__all__ = ["Modality", "find"]


def find(name: str) -> type[Modality]:
    """The class in `modalities/NAME.py`. Raises E201 for a name that is not there."""
    from .. import listing

    known = listing.find("modalities", name)
    found = getattr(import_module(f"{__name__}.{name}"), known.class_name)
    assert issubclass(found, Modality)
    return found
