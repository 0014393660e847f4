"""The kinds of data, one file each; the folder is the registry."""

from importlib import import_module

from .base import Modality

__all__ = ["Modality", "find", "of_content"]


def find(name: str) -> type[Modality]:
    """The class in `modalities/NAME.py`. Raises E201 for a name that is not there."""
    from .. import listing

    known = listing.find("modalities", name)
    found = getattr(import_module(f"{__name__}.{name}"), known.class_name)
    assert issubclass(found, Modality)
    return found


def of_content(content: str) -> str:
    """The name of the modality for what a source holds. Raises E104 where there is none."""
    from .. import listing
    from ..errors import SelfsupError

    for name in listing.modalities():
        if content in find(name).contents:
            return name
    raise SelfsupError(
        "E104",
        f"there is no modality for {content}",
        why=f"known: {', '.join(listing.modalities())}",
        do="name one with --modality if the data are of that kind all the same",
    )
