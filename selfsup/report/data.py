"""What was found in the data, what was used and what was not."""

from ..data.base import REASONS
from .page import Markup, clean, facts, join, missing, section, table, tag
from .reading import Folder

# told elsewhere
TOLD = ("samples", "format", "found", "used", "skipped", "unseen", "judged_by")


def data(folder: Folder) -> Markup:
    skipped = sum(folder.skipped.counts.values())
    listed = folder.manifest.get("samples")
    parts: list[object] = []
    counts = [folder.manifest.get(name) for name in ("found", "used", "skipped")]
    if all(isinstance(count, int) for count in counts):  # written when a run ends or stops
        found, used, gone = counts
        equation = f"{found:,} found = {used:,} used + {gone:,} skipped"
        unseen = folder.manifest.get("unseen")
        rest = f" ({unseen:,} of the used were not reached)" if _positive(unseen) else ""
        parts.append(tag("p", tag("strong", equation), f"{rest}."))
    elif isinstance(listed, int):
        # what listing the data set aside never became a sample; all else was one that failed
        found = listed + sum(folder.skipped.counts[code] for code in REASONS)
        equation = f"{found:,} found = {found - skipped:,} used + {skipped:,} skipped"
        parts.append(tag("p", tag("strong", equation), "."))
    else:
        what = "what was found; data/manifest.json is written when training starts."
        parts.append(missing(what))
    if folder.skipped.counts:
        rows = []
        for code, count in folder.skipped.counts.most_common(30):
            examples = folder.skipped.examples[code]
            names = join([[tag("code", n), tag("br")] for n, _ in examples[:3]])
            rows.append([clean(code, 40), examples[0][1], names, f"{count:,}"])
        parts.append(
            table(
                ["reason", "what it means", "for example", "files"],
                rows,
                caption="Skipped files; all of them are in data/skipped.jsonl",
                numbers=1,
            )
        )
    else:
        parts.append(tag("p", "No file was skipped."))
    shown = [
        (
            clean(k.replace("_", " "), 40),
            f"{v:,}" if isinstance(v, int) and not isinstance(v, bool) else clean(v, 160),
        )
        for k, v in folder.manifest.items()
        if isinstance(v, str | int | float) and k not in TOLD
    ]
    return section(
        "data",
        "Data",
        parts,
        facts(shown[:20]) if shown else None,
        tag(
            "p",
            "Damage that still decodes, such as changed bytes inside a picture, is not found by "
            "reading files and is not counted here.",
            class_="note",
        ),
    )


def _positive(value: object) -> bool:
    return isinstance(value, int) and value > 0
