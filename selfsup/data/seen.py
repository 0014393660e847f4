"""The same data as one kind or another: what a modality reads of them."""

from typing import Any

from .base import Source
from .frames import as_clips, as_pictures
from .pairs import Part
from .recordings import cut


def seen_as(source: Source, modality: Any, longest: float | None = None) -> Source:
    """The source as this modality (or class of them) reads it: of pairs, the part that it knows.

    A folder of pictures is one of clips where clips are asked for, and the other way round. Of
    recordings `longest` seconds, else as many as the modality says, are a sample.
    """
    contents = modality.contents
    if source.content == "pairs" and "pairs" not in contents:
        for name, content in source.parts.items():  # type: ignore[attr-defined]
            if content in contents:
                return Part(source, name)
    if "video" in contents and source.content == "image":
        return as_clips(source)
    if "image" in contents and source.content == "video":
        return as_pictures(source)
    longest = modality.longest if longest is None else longest
    if longest and source.content in contents:
        return cut(source, longest, modality.seconds)
    return source
