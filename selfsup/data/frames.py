"""Folders of numbered pictures, each a clip: frames that were taken out of videos."""

import re
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from .base import Problems, Source
from .files import FolderSource
from .kinds import KINDS
from .listed import Labelled
from .names import Names, text
from .tables import folder_labels, folder_splits

NUMBER = re.compile(rb"(.*?)(\d+)(\D*)")  # of a file name without its folder: the last one counts
OBVIOUS = re.compile(rb"frames?[ _.-]?", re.IGNORECASE)  # what stands before a frame's number
FEWEST = 4  # frames of each clip, for a folder to be taken for clips unasked


class Frames(dict[int, Callable[[], bytes]]):
    """A clip: the number of each frame that is there, in rising order -> what reads its file."""


class FrameFolders(Source):
    """The pictures of a folder as clips: one for each sub-folder.

    Where names in one sub-folder differ in more than their numbers (left_001, right_001), there is
    a clip for each such name. `pictures` is the same folder as single pictures.
    """

    content = "video"

    def __init__(self, pictures: FolderSource):
        super().__init__(pictures.place)
        self.pictures, self.ignored = pictures, pictures.ignored
        self.problems = Problems()
        for problem in pictures.problems:
            self.problems.add(problem["name"].encode("utf-8", "surrogateescape"), problem["code"])
        clips: dict[tuple[bytes, bytes], dict[int, int]] = {}
        for i, name in enumerate(pictures.names):
            folder, _, file = name.rpartition(b"/")
            found = NUMBER.fullmatch(file.rpartition(b".")[0] or file)
            if found is None:
                self.problems.add(name, "no-number")
                continue
            before, number, behind = found.groups()
            own = clips.setdefault((folder, before + b"*" + behind), {})
            if own.setdefault(int(number), i) != i:
                self.problems.add(name, "frame-again")
        patterns = Counter(folder for folder, _ in clips)
        self.names, self.clips = Names(), []
        for folder, pattern in sorted(clips):
            name = folder if patterns[folder] == 1 else (folder + b"/" + pattern).lstrip(b"/")
            self.names.append(name or b".")
            self.clips.append(dict(sorted(clips[folder, pattern].items())))
        self.patterns = [pattern for _, pattern in sorted(clips)]
        self.notes = [f"{len(self.clips)} clips of {len(pictures)} numbered pictures"]

    def __len__(self) -> int:
        return len(self.clips)

    def name(self, i: int) -> str:
        return text(self.names[i])

    def read(self, i: int) -> Frames:
        clip = self.clips[i]
        return Frames({number: partial(self.pictures.read, at) for number, at in clip.items()})

    def size(self, i: int) -> int:
        return sum(self.pictures.size(at) for at in self.clips[i].values())

    def fingerprint(self) -> str:
        return f"{self.pictures.fingerprint()}-frames"

    def stamps(self) -> np.ndarray:
        """Of a clip: of its files and their numbers."""
        each = self.pictures.stamps()
        found = np.zeros(len(self), np.uint64)
        for i, clip in enumerate(self.clips):
            numbers = np.fromiter((n % (1 << 32) for n in clip), np.uint64, len(clip))
            places = np.fromiter(clip.values(), np.int64, len(clip))
            found[i] = (each[places] * (2 * numbers + np.uint64(1))).sum(dtype=np.uint64)
        return found

    def labels(self) -> tuple[np.ndarray, list[str]] | None:
        return folder_labels(self.names)

    def splits(self) -> tuple[np.ndarray, list[str]] | None:
        return folder_splits(self.names)


def as_clips(source: Any) -> Any:
    """A folder of pictures as clips, also below a table of labels; any other source as it is."""
    if isinstance(source, Labelled):
        return source.around(as_clips(source.source))
    if not isinstance(source, FolderSource) or source.content != KINDS[0]:
        return source
    clips = FrameFolders(source)
    return clips if len(clips) else source


def as_pictures(source: Any) -> Any:
    """Clips of numbered pictures as those pictures."""
    if isinstance(source, Labelled):
        return source.around(as_pictures(source.source))
    return source.pictures if isinstance(source, FrameFolders) else source


def obvious(pictures: FolderSource) -> bool:
    """Whether all of the pictures are called frames and numbered, several in each folder.

    Numbers alone tell nothing: single pictures have them too.
    """
    names = (name.rpartition(b"/")[2] for name in pictures.names)
    if not len(pictures) or not all(OBVIOUS.match(name) for name in names):
        return False
    clips = FrameFolders(pictures)
    named = all(OBVIOUS.fullmatch(pattern[:-1]) for pattern in clips.patterns)
    return named and len(clips) > 0 and min(map(len, clips.clips)) >= FEWEST
