"""The same data as one kind or another: what a modality reads of them."""

from typing import Any

from .base import Source
from .frames import as_clips, as_pictures
from .pairs import Part, as_pairs
from .recordings import cut


def seen_as(source: Source, modality: Any, *, whole: bool = False) -> Source:
    """The source as this modality reads it: of pairs, the part that it knows, or of a table the
    columns that are its parts.

    A folder of pictures is one of clips where clips are asked for, and the other way round. Files
    that are longer than the modality's samples are cut into clips, unless they are to be `whole`.
    """
    if columns := getattr(modality, "columns", ()):
        return as_pairs(source, columns)
    contents = modality.contents
    if source.content == "pairs" and "pairs" not in contents:
        for name, content in source.parts.items():  # type: ignore[attr-defined]
            if content in contents:
                source = Part(source, name)
                break
    if "video" in contents and source.content == "image":
        return as_clips(source)
    if "image" in contents and source.content == "video":
        return as_pictures(source)
    if modality.longest and source.content in contents and not whole:
        return cut(source, modality.longest, modality.seconds)
    return source
