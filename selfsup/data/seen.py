"""The same data as one kind or another: what a modality reads of them."""

from collections.abc import Sequence

from .base import Source
from .frames import as_clips, as_pictures
from .pairs import Part


def seen_as(source: Source, contents: Sequence[str]) -> Source:
    """The source as a modality for these contents reads it: of pairs, the part that it knows.

    A folder of pictures is one of clips where clips are asked for, and the other way round.
    """
    if source.content == "pairs" and "pairs" not in contents:
        for name, content in source.parts.items():  # type: ignore[attr-defined]
            if content in contents:
                return Part(source, name)
    if "video" in contents and source.content == "image":
        return as_clips(source)
    if "image" in contents and source.content == "video":
        return as_pictures(source)
    return source
