"""`python -m recipes` writes docs/methods.md from the records in results.json."""

import json
from pathlib import Path

from selfsup import listing

from . import RESULTS

PAGE = Path(__file__).parent.parent / "docs" / "methods.md"
HEAD = """# Methods, and on which data they were shown to learn

Written by `python -m recipes` from `recipes/results.json`, where each recipe puts what it
measured. All figures are of the final step, in percent, with half the width of a 95 % interval; the
controls are the same encoder untrained (several initialisations) and pixels + PCA, judged by the
same probe on the same split.

"""


def page() -> str:
    """The whole page, as Markdown."""
    rows = json.loads(RESULTS.read_text())
    kinds = list(listing.modalities())
    lines = ["| method | " + " | ".join(kinds) + " |", "|---|" + "---|" * len(kinds)]
    for name, method in listing.methods().items():
        cells = []
        for kind in kinds:
            found = {r["recipe"] for r in rows if (r["method"], r["modality"]) == (name, kind)}
            cells.append(", ".join(sorted(found)) or "runs (contract test); no record yet")
        lines.append(f"| [{method.title.rstrip('.')}]({method.link}) | {' | '.join(cells)} |")
    lines += ["", "## Records", ""]
    head = ["recipe", "seed", "encoder", "samples seen", "minutes", "linear probe", "untrained",
            "pixels + PCA", "kNN", "untrained", "pixels + PCA"]  # fmt: skip
    lines += ["| " + " | ".join(head) + " |", "|---|---|---|" + "---:|" * (len(head) - 3)]
    for row in rows:
        own = ", ".join(f"{k} {v}" for k, v in row["encoder"].items() if k != "name")
        cells = [row["recipe"], row["seed"], f"{row['encoder']['name']} ({own})"]
        cells += [f"{row['samples']:,}", row["minutes"]]
        for protocol in ("linear", "knn"):
            for of in ("pretrained", "untrained", "pixels + PCA"):
                value, low, high = row[protocol][of]
                cells.append(f"{value} ± {(high - low) / 2:.1f}")
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    lines += ["", "Verdicts, word for word:", ""]
    lines += [f"- {row['recipe']}, seed {row['seed']}: {row['verdict']}" for row in rows]
    return HEAD + "\n".join(lines) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page())
    print(PAGE)
