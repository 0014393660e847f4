"""What an exchange of residues does to a protein, without labels: masked marginals.

log p(new) - log p(old) at the site, which is hidden (Meier et al., 2021,
https://doi.org/10.1101/2021.07.09.450648); of several exchanges the sum. Any method that names
hidden tokens can tell it.
"""

import csv
import io
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from .console import Console
from .data.outcome import BadSample
from .data.proteins import COLUMNS, RESIDUES, marks, sequence_columns
from .data.tables import as_numbers, number_column
from .embed import cell
from .errors import SelfsupError
from .evaluate.controls import PRETRAINED, UNTRAINED
from .evaluate.regress import gained, ranks
from .evaluate.result import Told
from .evaluate.scored import best_control, conclude
from .load import load, load_method, untrained_method
from .ragged import Ragged
from .randomness import mix
from .stems import END, MASK
from .stop import stop

NETWORKS, BATCH = 2, 32
MUTANTS = ("mutant", "mutation", "mutations", "variant")
WILD = ("wild_type", "wildtype", "wt", "wt_sequence", "target_seq")
NUMBERS = ("dms_score", "score", "fitness", "value", "y", "activity", "stability")
EXCHANGE = re.compile(r"([A-Z])(\d+)([A-Z])")
BLOSUM = "BLOSUM62"
# Henikoff and Henikoff, 1992, https://doi.org/10.1073/pnas.89.22.10915; the lower triangle
ORDER = "ARNDCQEGHILKMFPSTWYV"
TRIANGLE = """4
-1 5
-2 0 6
-2 -2 1 6
0 -3 -3 -3 9
-1 1 0 0 -3 5
-1 0 0 2 -4 2 5
0 -2 0 -1 -3 -2 -2 6
-2 0 1 -1 -3 0 0 -2 8
-1 -3 -3 -3 -1 -3 -3 -4 -3 4
-1 -2 -3 -4 -1 -2 -3 -4 -3 2 4
-1 2 0 -1 -3 1 1 -2 -1 -3 -2 5
-1 -1 -2 -3 -1 0 -2 -3 -2 1 2 -1 5
-2 -3 -3 -3 -2 -3 -3 -3 -1 0 0 -3 0 6
-1 -2 -2 -1 -3 -1 -1 -2 -2 -3 -3 -1 -2 -4 7
1 -1 1 0 -1 0 0 0 -1 -2 -2 0 -1 -2 -1 4
0 -1 0 -1 -1 -1 -1 -2 -2 -1 -1 -1 -1 -2 -1 1 5
-3 -3 -4 -4 -2 -2 -3 -2 -2 -3 -2 -3 -1 1 -4 -3 -2 11
-2 -2 -2 -3 -2 -1 -2 -3 2 -1 -1 -2 -1 3 -3 -2 -2 2 7
0 -3 -3 -3 -1 -2 -2 -3 -3 3 1 -2 1 -1 -2 -2 0 -3 -1 4"""


class Exchange(NamedTuple):
    site: int  # from 0
    old: str
    new: str


class Variants(Told):
    """`scores` (n,) in the order of the table, NaN where a row could not be scored."""

    def __init__(self, told: dict[str, Any], scores: Float[np.ndarray, " n"], text: str):
        super().__init__(told)
        self.scores, self._text = scores, text

    def __str__(self) -> str:
        return self._text


def variants(
    run: Any,
    data: str | Path,
    *,
    wild_type: str | None = None,
    out: str | Path | None = None,
    seed: int = 0,
    console: Console | None = None,
) -> Variants:
    """A score for each row of a table; above 0 where the model likes the variant better.

    Rows are exchanges (`mutant`: A24G, or A24G:L30F; sites count from 1) or whole sequences of the
    wild type's length. `wild_type` is its letters or a FASTA file, whose first record is taken;
    columns of the table may say it too. Where the table has a column of measured values, Spearman's
    correlation is told beside the same network untrained and BLOSUM62. `out` is a CSV to write.

    Raises SelfsupError: E202 a method that names no hidden tokens, E105 a table that says neither.
    """
    console, began = console or Console(), time.monotonic()
    if out is not None and os.path.realpath(out) == os.path.realpath(data):
        raise SelfsupError("E201", f"--out {out} is the table itself", do="give another --out")
    with stop.installed():
        encoder = load(run)
        folder = Path(getattr(run, "path", run))
        modality: Any = encoder.modality
        if not (folder / "resolved.toml").is_file():
            raise SelfsupError(
                "E601", f"{folder} is no run", why="an export has no head that names tokens"
            )
        method, _ = load_method(folder, encoder.card, modality)
        if not hasattr(method, "name") or not hasattr(modality, "letters"):
            raise SelfsupError(
                "E202", f"{encoder.card.method} on {encoder.card.modality} names no residues",
                do="pretrain on sequences with --method mlm",
            )  # fmt: skip
        rows = _rows(Path(data))
        wanted, skipped = _wanted(rows, modality, wild_type, Path(data))
        if not any(wanted):
            first = next(iter(skipped.items()), ("no rows", 0))
            raise SelfsupError("E503", f"no row of {data} can be scored", why=first[0])
        console.progress(f"variants: {len(wanted)} rows")
        scores = {PRETRAINED: [_scores(method, encoder, wanted)]}
        values = number_column(
            {name: [(row.get(name) or "").strip() for row in rows] for name in rows[0]}, NUMBERS
        )
        ours = scores[PRETRAINED][0]
        notes = [f"{count} rows: {why}." for why, count in skipped.items()]
        told: dict[str, Any] = {"format": 1, "task": "variants", "notes": notes}
        told |= {"rows": len(rows), "scored": int(np.isfinite(ours).sum())}
        sentence = f"{told['scored']} of {len(rows)} variants have a score"
        told["verdict"] = {"sentence": sentence, "gain": False}
        text = "\n".join([sentence, *notes])
        if values is not None:
            for i in range(NETWORKS):
                console.progress(f"variants: untrained network {i + 1}")
                fresh = untrained_method(folder, encoder.card, modality, mix(seed, i))
                scores.setdefault(UNTRAINED, []).append(_scores(fresh, encoder, wanted))
            scores[BLOSUM] = [np.array([_blosum(w) if w else np.nan for w in wanted])]
            both = np.isfinite(ours) & np.isfinite(values[0])
            y = ranks(values[0][both])
            places = {of: np.stack([ranks(s[both]) for s in o]) for of, o in scores.items()}
            found = {
                of: [{"spearman": float((s * y).mean())} for s in o] for of, o in places.items()
            }
            control = best_control(found, "spearman")
            gain = gained(places[PRETRAINED][0], places[control], y, seed)
            different = {e for row in wanted if row is not None for e in row[1]}
            told_notes = [
                f"{int(both.sum())} rows have a number {values[1]!r}; {len(different)} different "
                f"exchanges at {len({e.site for e in different})} sites.",
                *notes,
            ]
            result = conclude(
                "variants", "Spearman", {"spearman": 3}, found, control, gain, told_notes,
                encoder, str(data), began,
            )  # fmt: skip
            told |= result.to_json()
            text = str(result)
        if out is not None:
            _write(Path(out), rows, ours)
            told["out"] = str(out)
        return Variants(told, ours, text)


# ---- the table -------------------------------------------------------------------------------


def _rows(path: Path) -> list[dict[str, str]]:
    if not path.is_file():
        raise SelfsupError("E101", f"there is no table at {path}")
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
            rows = [
                {k.strip(): v or "" for k, v in row.items() if isinstance(k, str)}
                for row in csv.DictReader(file, delimiter=delimiter)
            ]
    except (csv.Error, UnicodeDecodeError) as error:
        raise SelfsupError("E105", f"{path} is not a readable table: {error}") from None
    if not rows:
        raise SelfsupError("E102", f"{path} has no rows")
    return rows


def _wanted(
    rows: list[dict[str, str]], modality: Any, given: str | None, path: Path
) -> tuple[list[tuple[str, list[Exchange]] | None], dict[str, int]]:
    """The wild type and the exchanges of each row, None where it has none; why not, counted."""
    known = {name.lower(): name for name in rows[0]}
    mutants = next((known[name] for name in MUTANTS if name in known), None)
    sequence = next(iter(sequence_columns(rows[:200])), None)
    sequence = sequence or next((known[name] for name in COLUMNS if name in known), None)
    wild = next((known[name] for name in WILD if name in known), None)
    if mutants is None and sequence is None:
        raise SelfsupError(
            "E105", f"{path} names no variants", where=str(path),
            why=f"its columns are {', '.join(rows[0])}", do="name one of them mutant or sequence",
        )  # fmt: skip
    if given is None and wild is None and (mutants is None or sequence is None):
        raise SelfsupError(
            "E105", f"{path} does not tell what was exchanged", where=str(path),
            do="give the letters or a FASTA file: --wild-type wt.fasta; or a column wild_type",
        )  # fmt: skip
    if given is not None and os.path.isfile(given):  # letters may be too many for a Path to ask
        given = next(iter(marks(given, 1).values()), "")
    found: list[tuple[str, list[Exchange]] | None] = []
    skipped: dict[str, int] = {}
    for row in rows:
        try:
            changed = modality.letters(row[sequence]) if sequence else ""
            exchanges = _exchanges(row[mutants]) if mutants else None
            origin = given if given is not None else row[wild] if wild else ""
            origin = modality.letters(origin) if origin else _undone(changed, exchanges or [])
            if exchanges is None:
                if len(changed) != len(origin):
                    raise BadSample("length", "another length than the wild type")
                pairs = enumerate(zip(origin, changed, strict=True))
                exchanges = [Exchange(i, a, b) for i, (a, b) in pairs if a != b]
            for site, old, new in exchanges:
                if site >= len(origin) or origin[site] != old:
                    raise BadSample("site", "another residue at the site than the mutant says")
                if not {old, new} <= set(RESIDUES):
                    raise BadSample("residue", "an exchange of no plain residue")
            found.append((origin, exchanges))
        except BadSample as bad:
            skipped[bad.reason] = skipped.get(bad.reason, 0) + 1
            found.append(None)
    return found, skipped


def _exchanges(text: str) -> list[Exchange]:
    """A24G:L30F, also with other signs between; nothing, WT and _wt are the wild type.

    >>> _exchanges("A24G:L30F")[1]
    Exchange(site=29, old='L', new='F')
    """
    if text.strip().strip("_").lower() in ("", "wt", "wildtype", "wild_type"):
        return []
    made = []
    for word in re.split(r"[:;,/+\s]+", text.strip().upper()):
        found = EXCHANGE.fullmatch(word.removeprefix("P."))
        if found is None or int(found.group(2)) < 1:
            raise BadSample("mutant", "a mutant that is not written as A24G")
        made.append(Exchange(int(found.group(2)) - 1, found.group(1), found.group(3)))
    return made


def _undone(changed: str, exchanges: list[Exchange]) -> str:
    letters = list(changed)
    for site, old, new in exchanges:
        if site >= len(letters) or letters[site] != new:
            raise BadSample("site", "another residue at the site than the mutant says")
        letters[site] = old
    return "".join(letters)


def _write(path: Path, rows: list[dict[str, str]], scores: Float[np.ndarray, " n"]) -> None:
    from . import logs

    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow([*map(_spelled, rows[0]), "variant_score"])
    for row, score in zip(rows, scores, strict=True):
        said = "" if np.isnan(score) else f"{score:.6g}"
        writer.writerow([*map(_spelled, row.values()), said])
    logs.replace(path, file.getvalue().encode())


def _spelled(text: str) -> str:
    """A cell that no spreadsheet takes for a formula; numbers stay numbers."""
    return cell(text, "'") if as_numbers([text]) is None else text


# ---- scores ----------------------------------------------------------------------------------


def _scores(
    method: Any, encoder: Any, wanted: list[tuple[str, list[Exchange]] | None]
) -> Float[np.ndarray, " n"]:
    """Each site of each wild type is hidden once, whatever the number of its exchanges."""
    sites: dict[str, set[int]] = {}
    for row in wanted:
        if row is not None:
            sites.setdefault(row[0], set()).update(e.site for e in row[1])
    codec = encoder.modality.codec
    number = {letter: int(codec.encode(letter)[0]) for letter in RESIDUES}
    likely = {
        (origin, site): row
        for origin, where in sites.items()
        for site, row in _marginals(method, encoder, origin, sorted(where))
    }
    made = []
    for row in wanted:
        if row is None:
            made.append(np.nan)
            continue
        origin, exchanges = row
        made.append(
            sum(
                float(likely[origin, e.site][number[e.new]] - likely[origin, e.site][number[e.old]])
                for e in exchanges
            )
        )
    return np.array(made, np.float64)


@torch.inference_mode()
def _marginals(
    method: Any, encoder: Any, origin: str, sites: list[int]
) -> Iterator[tuple[int, Float[Tensor, " v"]]]:
    """Log-probabilities of all tokens at each site, seen from what training showed around it."""
    tokens = np.concatenate([[END], encoder.modality.codec.encode(origin), [END]])
    for low in range(0, len(sites), BATCH):
        stop.check()
        some, rows, hidden = sites[low : low + BATCH], [], []
        for site in some:
            place = site + 1
            first = min(max(0, place - encoder.size // 2), max(0, len(tokens) - encoder.size))
            row = torch.from_numpy(tokens[first : first + encoder.size].copy())
            row[place - first] = MASK
            rows.append(row)
            hidden.append(place - first)
        x = Ragged.of(rows)
        states = method.encoder.features(x)
        scores = method.name(states[torch.arange(len(some)), torch.tensor(hidden)])
        yield from zip(some, scores.float().log_softmax(-1), strict=True)


def blosum() -> dict[tuple[str, str], int]:
    """How usual each exchange is among related proteins."""
    found = {}
    for a, line in zip(ORDER, TRIANGLE.split("\n"), strict=True):
        for b, value in zip(ORDER, line.split(), strict=False):
            found[a, b] = found[b, a] = int(value)
    return found


TABLE = blosum()


def _blosum(row: tuple[str, list[Exchange]]) -> float:
    return float(sum(TABLE[e.old, e.new] - TABLE[e.old, e.old] for e in row[1]))
