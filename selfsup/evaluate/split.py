"""Which labelled samples teach and which test, said in words; and that none does both."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..data.base import Source
from ..data.tables import GROUP_COLUMNS, TRAIN
from ..errors import SelfsupError
from ..randomness import mix, order

TEST = ("test", "testing", "val", "valid", "validation", "dev")  # the first that is there
TEST_SHARE = 0.2


@dataclass(frozen=True)
class Split:
    """Sample numbers of the two parts, and how they came about.

    `notes` are sentences about samples that are in neither.
    """

    train: np.ndarray  # (n,) int64
    test: np.ndarray
    groups: np.ndarray  # (n,) int64, equal for copies and for clips of one recording
    kind: str  # "given" by folders or a table, or "made" here
    statement: str
    duplicates: dict[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "train": len(self.train),
            "test": len(self.test),
            "statement": self.statement,
            "duplicates": self.duplicates,
            "notes": list(self.notes),
        }


def split(
    source: Source,
    labels: np.ndarray,
    usable: np.ndarray,
    prints: list[bytes],
    *,
    drop_leaks: bool = False,
    seed: int = 0,
    least: int = 2,
    given: tuple[np.ndarray, list[str]] | None = None,
) -> Split:
    """The two parts of a labelled source.

    train/ and test/ (else val/) folders, or a split column of the table, are taken as they are.
    Otherwise a fifth of each class tests, drawn by `seed`. `usable` are the numbers of samples
    that could be read, `prints` a fingerprint of the content of each of those. At least `least`
    classes must teach: 1 where labels are no classes. `given` are parts in place of the source's.

    Raises SelfsupError: E502 when a sample is in both given parts (unless `drop_leaks`, which
    takes it and others of its group out of the training part), E503 when a part or all classes but
    one are empty.
    """
    known = labels[usable] >= 0
    notes = []
    if not known.all():
        notes.append(f"{int((~known).sum())} samples without a label are not used")
    prints = [p for p, k in zip(prints, known, strict=True) if k]
    usable = usable[known]
    groups = groups_of(prints)
    own = source.groups()
    if own is not None:
        count = len(np.unique(own[usable]))
        told = f"{len(usable)} samples are of {count} recordings or groups"
        notes.append(f"{told}; intervals are over samples")
    given = given or source.splits()
    parts = None if given is None else by_name(usable, *given)
    if parts is not None:
        train, test, statement, extra = parts
        notes += extra
        kind = "given"
    else:
        train, test = _made(usable, labels[usable], together(groups, own, usable), seed)
        kind = "made"
        percent = round(100 * TEST_SHARE)
        of = "each class" if least > 1 else "the samples"
        statement = f"{percent} % of {of} test, drawn with seed {seed}; equal samples stay together"
        statement += "" if own is None else ", and those of one recording or group"
        missing = len(np.setdiff1d(labels[train], labels[test]))
        if least > 1 and missing:
            count, single = len(np.unique(labels[train])), "sample" if own is None else "group"
            notes.append(
                f"not tested: {missing} of {count} classes, which have a single {single} each"
            )
    teaching, testing = (np.searchsorted(usable, part) for part in (train, test))
    leaks = np.isin(groups[teaching], groups[testing])
    kin = np.zeros(len(train), bool) if own is None else np.isin(own[train], own[test]) & ~leaks
    duplicates = {
        "train": len(train) - len(np.unique(groups[teaching])),
        "test": len(test) - len(np.unique(groups[testing])),
        "in both": int(leaks.sum()),
    }
    if leaks.any():
        first, alike = int(train[leaks][0]), groups[testing] == groups[teaching][leaks][0]
        twin = int(test[alike][0])
        if not drop_leaks:
            raise SelfsupError(
                "E502",
                f"{int(leaks.sum())} of {len(train)} training samples are also in the test part",
                where=f"for example {source.name(first)!r} and {source.name(twin)!r}",
                why="a sample that was seen with its label says nothing when it is tested again",
                do="remove them from one part, or drop them from training: --drop-leaks",
            )
        notes.append(f"{int(leaks.sum())} training samples were dropped: they are also in test")
    if kin.any():
        told = "were dropped" if drop_leaks else "may flatter the scores (--drop-leaks)"
        notes.append(
            f"{int(kin.sum())} training samples {told}: others of their recording or group are in "
            "test"
        )
    once = train[~leaks]
    if drop_leaks:
        train, teaching = train[~(leaks | kin)], teaching[~(leaks | kin)]
    if _few(labels[train], labels[test], least):
        alone = (once, test) if parts else _made(usable, labels[usable], groups, seed)
        grouped = not _few(labels[alone[0]], labels[alone[1]], least)
        raise _too_few(labels[train], test, source, grouped)
    whole = together(groups[teaching], own, train)
    return Split(train, test, whole, kind, statement, duplicates, tuple(notes))


def groups_of(prints: list[bytes]) -> np.ndarray:
    """A number for each print, equal for equal ones, from 0 on without a gap."""
    number: dict[bytes, int] = {}
    return np.array([number.setdefault(p, len(number)) for p in prints], np.int64)


def together(groups: np.ndarray, own: np.ndarray | None, usable: np.ndarray) -> np.ndarray:
    """Groups of equal samples, joined where samples of them belong together by the source.

    `own` are groups of all samples of the source, `usable` the numbers of those in `groups`.
    """
    if own is None:
        return groups
    from scipy.sparse import coo_array  # scikit-learn brings scipy
    from scipy.sparse.csgraph import connected_components

    n = len(groups)
    equal, mine = (np.unique(g, return_inverse=True)[1] for g in (groups, own[usable]))
    links = coo_array((np.ones(n), (equal, n + mine)), (2 * n, 2 * n))
    _, found = connected_components(links, directed=False)
    return np.unique(found[equal], return_inverse=True)[1]


def shared(
    source: Source, usable: np.ndarray, prints: list[bytes], part: np.ndarray, other: np.ndarray
) -> np.ndarray:
    """Which samples of a part are in another too, or belong together with one that is."""
    groups, own = groups_of(prints), source.groups()
    equal = np.isin(groups[np.searchsorted(usable, part)], groups[np.searchsorted(usable, other)])
    return equal if own is None else equal | np.isin(own[part], own[other])


def fifth(groups: np.ndarray, classes: np.ndarray | None = None) -> np.ndarray:
    """(n,) bool: which samples are held out, whole groups from the first on until a fifth is there.

    The last group stays, and so does the last of each class. Where no group can go by that, samples
    go one by one.
    """
    n = len(groups)
    classes = np.zeros(n, np.int64) if classes is None else classes
    _, first, group, sizes = np.unique(
        groups, return_index=True, return_inverse=True, return_counts=True
    )
    turn = np.argsort(first)
    _, last = np.unique(classes[first][turn][::-1], return_index=True)
    spared = np.delete(turn, len(turn) - 1 - last)
    if not len(spared):
        return np.arange(n) < max(1, n // 5)
    before = np.cumsum(sizes[spared]) - sizes[spared]
    return np.isin(group, spared[before < max(1, n // 5)])


def by_name(
    usable: np.ndarray, parts: np.ndarray, names: list[str]
) -> tuple[np.ndarray, np.ndarray, str, list[str]] | None:
    """The parts that the data name, or None when they do not name both."""
    lower = [name.lower() for name in names]
    teaching = [i for i, name in enumerate(lower) if name in TRAIN]
    testing = next(([lower.index(name)] for name in TEST if name in lower), [])
    if not teaching or not testing:
        return None
    train = usable[np.isin(parts[usable], teaching)]
    test = usable[np.isin(parts[usable], testing)]
    rest = len(usable) - len(train) - len(test)
    others = [names[i] for i in range(len(names)) if i not in (*teaching, *testing)]
    notes = [f"{rest} samples of {', '.join(others) or 'no part'} are not used"] if rest else []
    statement = f"the parts {names[teaching[0]]!r} and {names[testing[0]]!r} of the data"
    return train, test, statement, notes


def _made(
    usable: np.ndarray, labels: np.ndarray, groups: np.ndarray, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """A share of each class, whole groups of equal samples at a time."""
    _, first = np.unique(groups, return_index=True)
    class_of = labels[first]  # of each group: that of its first sample
    testing = np.zeros(len(first), bool)
    for label in np.unique(class_of):
        members = np.flatnonzero(class_of == label)
        share = round(TEST_SHARE * len(members))
        if len(members) > 1:
            share = max(share, 1)
        testing[members[order(mix(seed, int(label)), 0, len(members))[:share]]] = True
    mask = testing[groups]
    return usable[~mask], usable[mask]


def _few(train: np.ndarray, test: np.ndarray, least: int) -> bool:
    """Whether labels of the two parts are too few."""
    return len(np.unique(train)) < least or not np.isin(test, train).any()


def _too_few(train: np.ndarray, test: np.ndarray, source: Source, grouped: bool) -> SelfsupError:
    """`grouped`: without groups there would be enough."""
    why = "a probe needs samples of at least two classes, and others to test on"
    do = "give a folder with one sub-folder per class, or --labels with a CSV (path,label)"
    if grouped:
        why = "samples of one recording or group do not both teach and test: else they would do"
        do = "give more groups, each in one part; or rename a column of groups that are none: it "
        do += f"is called {', '.join(GROUP_COLUMNS)}"
    return SelfsupError(
        "E503",
        f"{len(train)} training samples of {len(np.unique(train))} classes and {len(test)} test "
        "samples are too few",
        where=source.place,
        why=why,
        do=do,
    )
