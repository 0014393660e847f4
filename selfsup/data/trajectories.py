"""Trajectories: what was seen and what was done, step by step. A file or a part of one an episode.

.npz files of one episode each, with `observation` and `action`; .parquet files with a column that
names the episode; folders of frames with an actions.csv. Samples are stretches of an episode.
"""

import functools
import hashlib
import os
import re
import zipfile
from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
from PIL import Image

from ..errors import SelfsupError
from .base import UNREADABLE, Source, first_line
from .files import read_file
from .names import Names, text
from .outcome import BadSample
from .parquet import read_all, schema_of
from .tables import TRAIN, folder_labels, folder_splits

STRETCH = 32  # steps of a sample
FEW = 16  # episodes; of fewer the last part is not for training
KEPT = 8  # episodes in memory: the stretches of one are often asked for together
OBSERVATIONS = ("observation", "observations", "obs", "image", "images", "pixels", "state")
ACTIONS = ("action", "actions", "act")
EPISODES = ("episode", "episode_id", "episode_index", "trajectory", "trajectory_id", "rollout")
ORDERS = ("step", "frame_index", "frame", "t", "time", "timestamp")
PICTURES = (".png", ".jpg", ".jpeg", ".bmp", ".webp")

Fields = dict[str, np.ndarray]


class Episode(NamedTuple):
    """`read` gives its arrays, `steps` is how many there are as far as its head says."""

    name: str
    steps: int
    read: Callable[[], Fields]


class Trajectories(Source):
    """Stretches of up to STRETCH steps, of equal length but for the last of an episode."""

    content = "trajectories"

    def __init__(self, place: str, kind: str, episodes: list[Episode], fingerprint: str):
        super().__init__(place)
        self.kind, self.episodes, self._fingerprint = kind, episodes, fingerprint
        starts = [range(0, max(1, e.steps - STRETCH // 2), STRETCH) for e in episodes]
        self.owner = np.repeat(np.arange(len(episodes)), [len(s) for s in starts])
        self.first = np.concatenate([np.asarray(s) for s in starts] or [np.empty(0, np.int64)])
        self._whole = functools.lru_cache(KEPT)(self._read_whole)

    def __len__(self) -> int:
        return len(self.owner)

    def name(self, i: int) -> str:
        return f"{self.episodes[self.owner[i]].name}@{self.first[i]}"

    def _read_whole(self, number: int) -> Fields | BadSample:
        try:
            return whole(self.episodes[number].read())
        except BadSample as bad:
            return bad

    def episode(self, number: int) -> Fields:
        """All steps of an episode: "observation" and "action", as many of one as of the other."""
        found = self._whole(number)
        if isinstance(found, BadSample):
            raise BadSample(found.code, found.reason)
        return found

    def read(self, i: int) -> Fields:
        number, first = int(self.owner[i]), int(self.first[i])
        last = i + 1 == len(self) or self.owner[i + 1] != number
        cut = slice(first, None if last else first + STRETCH)
        return {name: values[cut] for name, values in self.episode(number).items()}

    def fingerprint(self) -> str:
        return self._fingerprint

    def labels(self) -> tuple[np.ndarray, list[str]] | None:
        """The sub-folders that episodes lie in."""
        found = folder_labels(self._names())
        return None if found is None or len(found[1]) < 2 else (found[0][self.owner], found[1])

    def splits(self) -> tuple[np.ndarray, list[str]] | None:
        found = folder_splits(self._names())
        return None if found is None else (found[0][self.owner], found[1])

    def ends(self) -> list[int]:
        """Up to which step each episode is to learn from; what follows is there to be foretold.

        Where folders are train and others, nothing of the others. Else all but the last fifth of
        few episodes, and all of many.
        """
        steps = [episode.steps for episode in self.episodes]
        found = folder_splits(self._names())
        taught = [name.lower() in TRAIN for name in found[1]] if found else []
        if found and len(set(taught)) == 2:
            return [n * taught[code] for n, code in zip(steps, found[0].tolist(), strict=True)]
        return [n - n // 5 for n in steps] if len(steps) < FEW else steps

    def for_training(self) -> "Trajectories":
        kept = [
            Episode(episode.name, end, functools.partial(_beginning, episode.read, end))
            for episode, end in zip(self.episodes, self.ends(), strict=True)
            if end or not episode.steps  # broken ones are told
        ]
        if [episode.steps for episode in kept] == [episode.steps for episode in self.episodes]:
            return self
        return Trajectories(self.place, self.kind, kept, f"{self._fingerprint}-train")

    def _names(self) -> Names:
        return Names(os.fsencode(episode.name) for episode in self.episodes)


def whole(arrays: Fields) -> Fields:
    """The observations and actions of an episode, however they are called.

    One observation more than there are actions is what the last action led to: nothing was done
    there. Raises BadSample: no_observations, no_actions, lengths.
    """
    seen, done = pick(arrays, OBSERVATIONS), pick(arrays, ACTIONS)
    if seen is None:
        raise BadSample("no_observations", f"none of {', '.join(arrays) or 'nothing'} is called so")
    if done is None:
        raise BadSample("no_actions", f"none of {', '.join(arrays)} is called so")
    x, u = arrays[seen], arrays[done]
    u = u[:, None] if u.ndim == 1 else u
    for name, values in ((seen, x), (done, u)):
        if values.dtype.kind not in "buif" or values.ndim < 2:
            raise BadSample("not_a_trajectory", f"{name} is {values.dtype} {values.shape}")
    if u.ndim != 2:
        raise BadSample("not_a_trajectory", f"{done} is {u.dtype} {u.shape}")
    if len(x) - len(u) not in (0, 1):
        raise BadSample("lengths", f"{len(x)} of {seen}, but {len(u)} of {done}")
    if len(x) == len(u) + 1:
        u = np.concatenate([u, np.zeros_like(u[:1])])
    return {"observation": x, "action": u}


def _beginning(read: Callable[[], Fields], end: int) -> Fields:
    return {name: values[:end] for name, values in whole(read()).items()}


def pick(arrays: Iterable[str], names: tuple[str, ...]) -> str | None:
    return next((name for name in names if name in arrays), None)


def is_episode(arrays: Iterable[str]) -> bool:
    """Whether arrays of these names are one episode, complete or not."""
    arrays = set(arrays)
    other = {"reward", "rewards", "terminal", "done", "next_observation"}
    found = pick(arrays, OBSERVATIONS), pick(arrays, ACTIONS)
    return all(found) or (any(found) and bool(arrays & other))


# ------------------------------------------------------------------------------ opening


def in_memory(episodes: list[Fields]) -> Source:
    """A list of episodes, of arrays under the names that files would have."""
    digest, made = hashlib.blake2b(digest_size=16), []
    for i, arrays in enumerate(episodes):
        arrays = {name: np.asarray(values) for name, values in arrays.items()}
        for name, values in sorted(arrays.items()):
            digest.update(f"{i} {name} {values.dtype} {values.shape}".encode())
            digest.update(np.ascontiguousarray(values))
        acted = pick(arrays, ACTIONS)
        steps = len(arrays[acted]) if acted else 0
        made.append(Episode(str(i), steps, functools.partial(dict, arrays)))
    return Trajectories("list", "dataset", made, digest.hexdigest())


def open_npz(path: str) -> Source | None:
    """One file of one episode; None where it is something else."""
    return _from_npz(os.path.dirname(path), [os.path.basename(path)], path)


def in_folder(path: str, names: Iterable[str]) -> Source | None:
    """The episodes of a folder, by the relative names of its files; None where it has none."""
    names = sorted(names)
    lists = [name for name in names if os.path.basename(name) == "actions.csv"]
    if lists:
        return _from_frames(path, names, lists)
    found = _from_npz(path, [name for name in names if name.lower().endswith(".npz")], path)
    if found is not None:
        return found
    tables = [name for name in names if name.lower().endswith(".parquet")]
    if tables and is_table(os.path.join(path, tables[0])):
        return open_tables([os.path.join(path, name) for name in tables], path)
    return None


def _from_npz(root: str, names: list[str], place: str) -> Source | None:
    """Taken for episodes where the first that can be opened is one."""
    episodes, digest, known = [], hashlib.blake2b(b"episodes", digest_size=16), False
    sizes = defaultdict(list)  # of the episodes of each folder
    for name in names:
        path = os.path.join(root, name)
        heads = _heads(path)
        if heads is not None and not known:
            if not is_episode(heads):
                return None
            known = True
        status = os.stat(path)
        seen, done = pick(heads or {}, OBSERVATIONS), pick(heads or {}, ACTIONS)
        if heads and seen and done:
            sizes[os.path.dirname(name)].append((heads[seen][1:], heads[done][1:]))
        steps = heads[seen][0] if heads and seen and heads[seen] else 0
        read = functools.partial(_read_npz, path, status.st_size, status.st_mtime_ns)
        episodes.append(Episode(name, steps, read))
        digest.update(
            f"{name}\0{status.st_size}\0{status.st_mtime_ns}\0".encode("utf-8", "replace")
        )
    if not known:
        return None
    _one_size(place, sizes)
    return Trajectories(place, "folder", episodes, digest.hexdigest())


def _one_size(place: str, sizes: dict[str, list[tuple]]) -> None:
    """Raises SelfsupError E104 where each folder has episodes of its own size.

    A single episode of another size is a fault of that episode, and skipped when it is read.
    """
    each = {folder: found[0] for folder, found in sizes.items() if len(found) > 1}
    if len(set(each.values())) > 1 and all(len(set(sizes[folder])) == 1 for folder in each):
        told = [f"{folder} ({_size(x)} seen, {_size(u)} done)" for folder, (x, u) in each.items()]
        raise SelfsupError(
            "E104",
            f"{place} holds episodes of several sizes",
            where=place,
            why=f"found {', '.join(told[:8])}",
            do=f"give one of the folders: {os.path.join(place, min(each))}",
        )


def _size(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape)) or "1"


def _heads(path: str) -> dict[str, tuple[int, ...]] | None:
    """The shapes of the arrays of an .npz file, from their heads alone; None for a broken one."""
    found = {}
    try:
        with zipfile.ZipFile(path) as archive:
            for member in archive.namelist():
                with archive.open(member) as file:
                    version = np.lib.format.read_magic(file)
                    read = getattr(np.lib.format, f"read_array_header_{version[0]}_0")
                    found[member.removesuffix(".npy")] = read(file)[0]
    except UNREADABLE:
        return None
    return found


def _read_npz(path: str, size: int, time: int) -> Fields:
    read_file(os.fsencode(path), size, time, 0, 0)  # still the file that was listed
    try:
        with np.load(path, allow_pickle=False) as archive:
            names = {pick(archive.files, OBSERVATIONS), pick(archive.files, ACTIONS)}
            return {name: archive[name] for name in archive.files if name in names}
    except UNREADABLE as error:
        raise BadSample("unreadable_array", first_line(error)) from None


# ------------------------------------------------------------------------------ tables


def is_table(path: str) -> bool:
    """Whether a parquet file has a column that names episodes and one of actions."""
    schema = schema_of(path)
    return (
        schema is not None
        and pick(schema.names, EPISODES) is not None
        and bool(_columns(schema.names, ACTIONS))
    )


def open_tables(paths: list[str], place: str) -> Source:
    """The rows of each episode, of all tables, in the order of their steps."""
    episodes, digest = [], hashlib.blake2b(b"tables", digest_size=16)
    for path in paths:
        status = os.stat(path)
        digest.update(
            f"{path}\0{status.st_size}\0{status.st_mtime_ns}\0".encode("utf-8", "replace")
        )
        table = read_all(path)
        order = pick(table.column_names, ORDERS)
        key = pick(table.column_names, EPISODES)
        keys = [(key, "ascending"), *([(order, "ascending")] if order else [])]
        table = table.sort_by(keys)
        values = np.asarray(table.column(key).to_pylist(), dtype=object).astype(str)
        cuts = np.flatnonzero(np.append(True, values[1:] != values[:-1])).tolist()
        for low, high in zip(cuts, [*cuts[1:], len(values)], strict=True):
            part = table.slice(low, high - low)
            read = functools.partial(_read_rows, part)
            episodes.append(Episode(f"{os.path.basename(path)}#{values[low]}", high - low, read))
    return Trajectories(place, "parquet", episodes, digest.hexdigest())


def _columns(names: Iterable[str], wanted: tuple[str, ...]) -> list[str]:
    """A column of that name, or several that are numbered or named parts of it: action_0, obs.x."""
    names = list(names)
    one = pick(names, wanted)
    if one is not None:
        return [one]
    pattern = re.compile(rf"({'|'.join(wanted)})[._\[]")
    return [name for name in names if pattern.match(name)]


def _read_rows(table: pa.Table) -> Fields:
    found = {}
    for field, wanted in (("observation", OBSERVATIONS), ("action", ACTIONS)):
        columns = _columns(table.column_names, wanted)
        try:
            parts = [np.asarray(table.column(c).to_pylist(), np.float32) for c in columns]
        except (ValueError, TypeError):
            raise BadSample("not_a_trajectory", f"{', '.join(columns)} are no numbers") from None
        if parts:
            found[field] = np.concatenate([p.reshape(len(p), -1) for p in parts], 1)
    return found


# ------------------------------------------------------------------------------ frames


def _from_frames(path: str, names: list[str], lists: list[str]) -> Source:
    """A folder with an actions.csv: its pictures in the order of their names, a row for each."""
    episodes, digest = [], hashlib.blake2b(b"frames", digest_size=16)
    for listed in lists:
        folder = os.path.dirname(listed)
        frames = [n for n in names if os.path.dirname(n) == folder and n.lower().endswith(PICTURES)]
        for name in (listed, *frames):
            status = os.stat(os.path.join(path, name))
            digest.update(f"{name}\0{status.st_size}\0{status.st_mtime_ns}\0".encode())
        read = functools.partial(_read_frames, path, listed, frames)
        episodes.append(Episode(folder or os.path.basename(path), len(frames), read))
    return Trajectories(path, "folder", episodes, digest.hexdigest())


def _read_frames(path: str, listed: str, frames: list[str]) -> Fields:
    try:
        table = pacsv.read_csv(Path(path, listed))
        columns = _columns(table.column_names, ACTIONS) or [
            n for n in table.column_names if n not in (*ORDERS, *EPISODES)
        ]
        actions = np.stack([table.column(c).to_numpy() for c in columns], 1).astype(np.float32)
        pictures = []
        for name in frames:
            with Image.open(Path(path, name)) as image:
                pictures.append(np.asarray(image.convert("RGB")))
        return {"observation": np.stack(pictures), "action": actions}
    except (pa.ArrowException, OSError, ValueError, TypeError) as error:
        raise BadSample("unreadable_frames", f"{text(os.fsencode(listed))}: {error}") from None
