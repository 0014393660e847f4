"""Molecules written as SMILES (http://opensmiles.org), turned into graphs of their heavy atoms.

A parser of our own for what such tables hold: the organic subset, brackets (isotope, chirality,
hydrogens, charge, class), bonds, branches, rings, aromatic atoms, and parts divided by dots.
Directions of double bonds and chirality are read and left out: the graph has no place for them.
"""

import hashlib
import io
import os
import re
from collections.abc import Sequence
from itertools import accumulate
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
from jaxtyping import Int64

from ..errors import SelfsupError
from .base import LARGEST, Source
from .outcome import BadSample
from .packed import opened, suffix
from .tables import GROUP_COLUMNS, LABEL_COLUMNS, SPLIT_COLUMNS, encode, grouped, number_column

SMILES_COLUMNS = ("smiles", "canonical_smiles", "smile")
MOST_LETTERS, MOST_ATOMS = 10_000, 2_000

# Valences that free atoms are filled up to with hydrogens (OpenSMILES, section 3.1.5)
VALENCES = {
    "B": (3,), "C": (4,), "N": (3, 5), "O": (2,), "P": (3, 5), "S": (2, 4, 6),
    "F": (1,), "Cl": (1,), "Br": (1,), "I": (1,),
}  # fmt: skip
BONDS = {"-": 1.0, "/": 1.0, "\\": 1.0, "=": 2.0, "#": 3.0, "$": 4.0, ":": 1.5}
SYMBOLS = (
    "H He Li Be B C N O F Ne Na Mg Al Si P S Cl Ar K Ca Sc Ti V Cr Mn Fe Co Ni Cu Zn Ga Ge As Se "
    "Br Kr Rb Sr Y Zr Nb Mo Tc Ru Rh Pd Ag Cd In Sn Sb Te I Xe Cs Ba La Ce Pr Nd Pm Sm Eu Gd Tb Dy "
    "Ho Er Tm Yb Lu Hf Ta W Re Os Ir Pt Au Hg Tl Pb Bi Po At Rn Fr Ra Ac Th Pa U Np Pu Am Cm Bk Cf "
    "Es Fm Md No Lr *"
)
ELEMENTS = set(SYMBOLS.split())
TOKEN = re.compile(
    r"(?P<bracket>\[[^\]\[]*\])|(?P<free>Br|Cl|[BCNOPSFI]|[bcnops]|\*)|(?P<bond>[-=#$:/\\])"
    r"|(?P<ring>%\d\d|\d)|(?P<open>\()|(?P<close>\))|(?P<dot>\.)"
)
BRACKET = re.compile(
    r"\[(?P<isotope>\d+)?(?P<symbol>[A-Z][a-z]?|[a-z][a-z]?|\*)(?P<chiral>@{1,2}(?:[A-Z]{2}\d+)?)?"
    r"(?P<hydrogens>H\d*)?(?P<charge>\+\d+|-\d+|\++|-+)?(?::\d+)?\]"
)


class Molecule(NamedTuple):
    """Heavy atoms and their bonds. `order` is 1, 1.5 (aromatic), 2, 3 or 4."""

    elements: list[str]
    aromatic: list[bool]
    charges: list[int]
    hydrogens: list[int]
    bonds: list[tuple[int, int, float]]


def parse(smiles: str) -> Molecule:
    """The graph that SMILES write. Raises BadSample: empty, too_large, not_smiles."""
    text = smiles.strip().split()[0] if smiles.strip() else ""
    if not text:
        raise BadSample("empty", "no SMILES in this row")
    if len(text) > MOST_LETTERS:
        raise BadSample("too_large", f"{len(text)} letters; {MOST_LETTERS} are read")
    elements: list[str] = []
    aromatic: list[bool] = []
    charges: list[int] = []
    hydrogens: list[int | None] = []  # None: to be filled up
    bonds: dict[tuple[int, int], float] = {}
    rings: dict[str, tuple[int, float | None]] = {}
    branches: list[int] = []
    last: int | None = None
    bond: float | None = None
    at = 0

    def bad(why: str) -> BadSample:
        return BadSample("not_smiles", f"{why} at letter {at + 1} of {text[:60]!r}")

    def join(a: int, b: int, order: float | None) -> None:
        if a == b or (min(a, b), max(a, b)) in bonds:
            raise bad("a second bond of the same two atoms")
        both = aromatic[a] and aromatic[b]
        bonds[min(a, b), max(a, b)] = order if order is not None else 1.5 if both else 1.0

    while at < len(text):
        found = TOKEN.match(text, at)
        if found is None:
            raise bad(f"{text[at]!r} is not understood")
        kind, word = found.lastgroup, found.group()
        if kind in ("bracket", "free"):
            atom = _bracket(word) if kind == "bracket" else _free(word)
            if atom is None:
                raise bad(f"{word} is no atom")
            if len(elements) == MOST_ATOMS:
                raise BadSample("too_large", f"more than {MOST_ATOMS} atoms")
            for part, value in zip((elements, aromatic, charges, hydrogens), atom, strict=True):
                part.append(value)  # type: ignore[attr-defined]
            if last is not None:
                join(last, len(elements) - 1, bond)
            elif bond is not None:
                raise bad("a bond to nothing")
            last, bond = len(elements) - 1, None
        elif kind == "bond":
            if bond is not None:
                raise bad("two bonds in a row")
            bond = BONDS[word]
        elif kind == "ring":
            if last is None:
                raise bad("a ring of no atom")
            number = word.lstrip("%").lstrip("0") or "0"
            if number in rings:
                other, order = rings.pop(number)
                if order is not None and bond is not None and order != bond:
                    raise bad("a ring whose two ends disagree")
                join(other, last, order if bond is None else bond)
            else:
                rings[number] = last, bond
            bond = None
        elif kind == "open":
            if last is None:
                raise bad("a branch of no atom")
            branches.append(last)
        elif kind == "close":
            if not branches or bond is not None:
                raise bad("a branch that ends before it began")
            last = branches.pop()
        else:
            if bond is not None:
                raise bad("a bond to nothing")
            last = None
        at = found.end()
    if rings or branches or bond is not None:
        raise bad("a ring or branch that does not end")
    if not elements:
        raise BadSample("empty", "no atom in this row")
    pairs = [(a, b, order) for (a, b), order in bonds.items()]
    filled = _filled(elements, aromatic, hydrogens, pairs)
    return _heavy(Molecule(elements, aromatic, charges, filled, pairs))


def _free(word: str) -> tuple[str, bool, int, int | None]:
    return word.capitalize(), word.islower(), 0, 0 if word == "*" else None


def _bracket(word: str) -> tuple[str, bool, int, int] | None:
    found = BRACKET.fullmatch(word)
    if found is None:
        return None
    symbol = found["symbol"]
    if symbol.capitalize() not in ELEMENTS:
        return None
    count, charge = found["hydrogens"] or "", found["charge"] or ""
    signs = len(charge) if charge in ("+" * len(charge), "-" * len(charge)) else int(charge[1:])
    return (
        symbol.capitalize(),
        symbol.islower(),
        -signs if charge.startswith("-") else signs,
        int(count[1:] or 1) if count else 0,
    )


def _filled(
    elements: list[str],
    aromatic: list[bool],
    hydrogens: list[int | None],
    bonds: list[tuple[int, int, float]],
) -> list[int]:
    """Hydrogens of free atoms: what is missing up to the next valence. Aromatic bonds count 1,
    and an aromatic atom gives one of its valences to the ring."""
    used = [0.0] * len(elements)
    for a, b, order in bonds:
        for atom in (a, b):
            used[atom] += 1 if order == 1.5 else order
    found = []
    for atom, count in enumerate(hydrogens):
        if count is None:
            need = used[atom] + aromatic[atom]
            enough = [v for v in VALENCES[elements[atom]] if v >= need]
            count = int(enough[0] - need) if enough else 0
        found.append(count)
    return found


def _heavy(molecule: Molecule) -> Molecule:
    """Explicit hydrogens are counted with the atom that they are on, where there is just one."""
    elements, aromatic, charges, hydrogens, bonds = molecule
    ends: dict[int, list[int]] = {}
    for a, b, _ in bonds:
        ends.setdefault(a, []).append(b)
        ends.setdefault(b, []).append(a)
    gone = {
        atom
        for atom, element in enumerate(elements)
        if element == "H" and charges[atom] == 0 and len(ends.get(atom, [])) == 1
        and elements[ends[atom][0]] != "H"
    }  # fmt: skip
    if not gone:
        return molecule
    hydrogens = list(hydrogens)
    for atom in gone:
        hydrogens[ends[atom][0]] += 1
    kept = [atom for atom in range(len(elements)) if atom not in gone]
    number = {atom: i for i, atom in enumerate(kept)}
    return Molecule(
        [elements[a] for a in kept],
        [aromatic[a] for a in kept],
        [charges[a] for a in kept],
        [hydrogens[a] for a in kept],
        [(number[a], number[b], o) for a, b, o in bonds if a not in gone and b not in gone],
    )


# ------------------------------------------------------------------------------ what is known

KNOWN = ("C", "N", "O", "S", "F", "Cl", "Br", "I", "P", "B", "Si", "Se", "Na", "K", "H")
GROUPS = {
    "element": len(KNOWN) + 1,
    "neighbours": 6,
    "hydrogens": 5,
    "charge": 5,
    "aromatic": 1,
    "in a ring": 1,
    "bonds": 6,  # BONDED
}
BONDED = ("a double bond", "two double bonds", "a triple bond",
          "an aromatic bond", "two aromatic bonds", "three aromatic bonds")  # fmt: skip
WIDTH = sum(GROUPS.values())


def said(column: int) -> str:
    """What a column of an atom means."""
    starts = zip(GROUPS, accumulate(GROUPS.values(), initial=0), strict=False)
    kind, place = [(kind, column - start) for kind, start in starts if column >= start][-1]
    if kind == "element":
        return (*KNOWN, "another element")[place]
    if kind == "charge":
        return f"charge {place - 2:+d}" if place != 2 else "no charge"
    if kind == "bonds":
        return BONDED[place]
    return kind if GROUPS[kind] == 1 else f"{place} {kind}"


def described(molecule: Molecule) -> tuple[Int64[np.ndarray, "2 e"], list[list[int]]]:
    """Bonds in both directions, and for each atom the columns that are 1, of WIDTH."""
    n = len(molecule.elements)
    ends = [[] for _ in range(n)]  # type: list[list[tuple[int, float]]]
    for a, b, order in molecule.bonds:
        ends[a].append((b, order))
        ends[b].append((a, order))
    ring = _in_ring(n, ends)
    rows = []
    for atom in range(n):
        orders = [order for _, order in ends[atom]]
        element = molecule.elements[atom]
        doubles, aromatic = orders.count(2.0), orders.count(1.5)
        places = [
            KNOWN.index(element) if element in KNOWN else len(KNOWN),
            min(len(orders), 5),
            min(molecule.hydrogens[atom], 4),
            min(max(molecule.charges[atom], -2), 2) + 2,
            0 if molecule.aromatic[atom] else None,
            0 if ring[atom] else None,
        ]
        row, start = [], 0
        for place, width in zip(places, GROUPS.values(), strict=False):
            row += [] if place is None else [start + place]
            start += width
        flags = (doubles > 0, doubles > 1, 3.0 in orders, aromatic > 0, aromatic > 1, aromatic > 2)
        rows.append(row + [start + i for i, flag in enumerate(flags) if flag])
    pairs = [(a, b) for a, b, _ in molecule.bonds]
    edges = np.array(pairs, np.int64).reshape(-1, 2).T
    return edges, rows


def _in_ring(n: int, ends: list[list[tuple[int, float]]]) -> list[bool]:
    """An atom is in a ring when one of its bonds is no bridge (Tarjan's low links)."""
    seen, low, found = [-1] * n, [0] * n, [False] * n
    time = 0
    for root in range(n):
        if seen[root] >= 0:
            continue
        seen[root] = low[root] = time
        time += 1
        stack = [(root, -1, iter(ends[root]))]
        while stack:
            atom, parent, rest = stack[-1]
            for other, _ in rest:
                if other == parent:
                    continue
                if seen[other] >= 0:
                    low[atom] = min(low[atom], seen[other])
                    found[atom] = found[other] = True
                    continue
                seen[other] = low[other] = time
                time += 1
                stack.append((other, atom, iter(ends[other])))
                break
            else:
                stack.pop()
                if parent >= 0:
                    low[parent] = min(low[parent], low[atom])
                    if low[atom] <= seen[parent]:
                        found[atom] = found[parent] = True
    return found


# ------------------------------------------------------------------------------ a table of them


class SmilesSource(Source):
    """A table with a column of SMILES, one molecule a row; `read` gives the text."""

    kind, content = "csv", "graphs"
    molecules = True

    def __init__(self, path: str):
        super().__init__(path)
        with opened(path) as file:
            raw = file.read()
        self._digest = hashlib.blake2b(raw, digest_size=16).hexdigest()
        parsing = pacsv.ParseOptions(delimiter="\t" if suffix(path) == ".tsv" else ",")
        try:
            head = pacsv.open_csv(pa.BufferReader(raw), parse_options=parsing).schema.names
            kinds = pacsv.ConvertOptions(column_types=dict.fromkeys(head, pa.string()))
            table = pacsv.read_csv(
                pa.BufferReader(raw), parse_options=parsing, convert_options=kinds
            )
        except (pa.ArrowInvalid, UnicodeDecodeError) as error:
            why = str(error).splitlines()[0]
            raise SelfsupError("E105", f"{path} is not a readable CSV: {why}", where=path) from None
        self.columns = {
            name.strip(): ["" if v is None else v.strip() for v in column.to_pylist()]
            for name, column in zip(table.column_names, table.columns, strict=True)
        }
        self.smiles = self.columns.pop(self._called(SMILES_COLUMNS)[0])

    def __len__(self) -> int:
        return len(self.smiles)

    def name(self, i: int) -> str:
        return f"{i} {self.smiles[i]}"

    def read(self, i: int) -> str:
        return self.smiles[i]

    def fingerprint(self) -> str:
        return self._digest

    def labels(self) -> tuple[np.ndarray, list[str]] | None:
        """The usual column, else the first one that holds few different values."""
        usual = self._called(LABEL_COLUMNS)
        for name in usual or self._others():
            values = [v or None for v in self.columns[name]]
            if usual or 1 < len({v for v in values if v}) <= 20:
                return encode(values)
        return None

    def splits(self) -> tuple[np.ndarray, list[str]] | None:
        return self._named(SPLIT_COLUMNS)

    def groups(self) -> np.ndarray | None:
        return grouped(self._named(GROUP_COLUMNS))

    def targets(self) -> tuple[np.ndarray, str] | None:
        """The first column of numbers, (n,) float64 with NaN for none, and its name."""
        return number_column(self.columns, [name.lower() for name in self._others()])

    def _called(self, names: Sequence[str]) -> list[str]:
        return [column for name in names for column in self.columns if column.lower() == name]

    def _others(self) -> list[str]:
        known = (*SPLIT_COLUMNS, *GROUP_COLUMNS)
        return [name for name in self.columns if name.lower() not in known]

    def _named(self, names: Sequence[str]) -> tuple[np.ndarray, list[str]] | None:
        found = self._called(names)
        return encode(v or None for v in self.columns[found[0]]) if found else None


def is_table(path: str) -> bool:
    """Whether the head of a CSV names a column of SMILES."""
    if os.path.getsize(path) > LARGEST:
        return False
    with io.TextIOWrapper(opened(path), encoding="utf-8-sig", errors="replace") as file:
        head = file.readline(1 << 16).strip().lower()
    return any(word.strip().strip('"') in SMILES_COLUMNS for word in re.split("[,\t]", head))
