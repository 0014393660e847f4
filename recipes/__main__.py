"""`python -m recipes` writes docs/methods.md from the records in results.json."""

import json
from pathlib import Path

from selfsup import listing

from . import RESULTS

PAGE = Path(__file__).parent.parent / "docs" / "methods.md"
HEAD = """# Methods, and on which data they were shown to learn

Written by `python -m recipes` from `recipes/results.json`, where each recipe puts what it
measured. All figures are of the final step, in percent, with half the width of a 95 % interval; the
controls are the same encoder untrained (several initialisations) and the classical features of the
kind of data, judged by the same probe on the same split.

"""
OWN = ("pretrained", "untrained")  # what every record has; the third is the modality's baseline
GRIDS = ("audio", "image", "series")
# Methods that ask for more than views: where they run, and what others lack
NEEDS = {
    "mae": (GRIDS, "has no patches of numbers"),
    "wav2vec2": (GRIDS, "has no patches of numbers"),
    "ts2vec": (GRIDS, "has no axis of time"),
    "mlm": (("text",), "has no vocabulary"),
    "clm": (("text",), "has no vocabulary"),
    "graphmae": (("graph", "network"), "has no nodes"),
    "grace": (("graph", "network"), "has no nodes"),
    "world_model": (("trajectory",), "has no actions"),
}


def page() -> str:
    """The whole page, as Markdown."""
    rows = json.loads(RESULTS.read_text())
    kinds = list(listing.modalities())
    lines = ["| method | " + " | ".join(kinds) + " |", "|---|" + "---|" * len(kinds)]
    for name, method in listing.methods().items():
        cells = []
        for kind in kinds:
            found = {r["recipe"] for r in rows if (r["method"], r["modality"]) == (name, kind)}
            where, lack = NEEDS.get(name, (kinds, ""))
            none = "runs (contract test); no record yet" if kind in where else lack
            cells.append(", ".join(sorted(found)) or none)
        lines.append(f"| [{method.title.rstrip('.')}]({method.link}) | {' | '.join(cells)} |")
    lines += ["", "## Records", ""]
    head = ["recipe", "seed", "encoder", "samples seen", "minutes", "linear probe", "untrained",
            "classical", "kNN", "untrained", "classical"]  # fmt: skip
    lines += ["| " + " | ".join(head) + " |", "|---|---|---|" + "---:|" * (len(head) - 3)]
    for row in rows:
        own = ", ".join(f"{k} {v}" for k, v in row["encoder"].items() if k != "name")
        cells = [row["recipe"], row["seed"], f"{row['encoder']['name']} ({own})"]
        cells += [f"{row['samples']:,}", row["minutes"]]
        for protocol in ("linear", "knn"):
            for of in sorted(row[protocol], key=lambda of: (*OWN, of).index(of)):
                value, low, high = row[protocol][of]
                name = "" if of in OWN else f" ({of})"
                cells.append(f"{value} ± {(high - low) / 2:.1f}{name}")
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    lines += ["", "Verdicts, word for word:", ""]
    lines += [f"- {row['recipe']}, seed {row['seed']}: {row['verdict']}" for row in rows]
    return HEAD + "\n".join(lines) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page())
    print(PAGE)
