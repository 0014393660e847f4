"""Medical abstracts after novels: what going on with a run (`--from`) gains, and what it forgets.

SELFSUP_DATA=... python -m recipes.medical_after_books
"""

import sys
from pathlib import Path

import pyarrow.parquet
from platformdirs import user_cache_path

import selfsup
from selfsup.evaluate.perplexity import evaluate_task

from . import as_given, data, judged

MINUTES = 2.0  # of each of the three runs


def abstracts() -> tuple[Path, Path]:
    """Those that teach and those that test, as files with one a line."""
    rows = pyarrow.parquet.read_table(as_given("text/ohsumed23.parquet")).to_pylist()
    home = user_cache_path("selfsup") / "recipes" / "ohsumed23"
    home.mkdir(parents=True, exist_ok=True)
    made = []
    for part in ("train", "test"):
        texts = [" ".join(row["text"].split()) for row in rows if row["split"] == part]
        made.append(home / f"{part}.txt")
        made[-1].write_text("\n".join(texts) + "\n")
    return made[0], made[1]


if __name__ == "__main__":
    books = data("text/gutenberg_classics.tar.gz", "gutenberg_classics")
    teach, test = abstracts()
    for seed in [int(argument) for argument in sys.argv[1:]] or [0, 1]:

        def pretrained(name: str, text: Path, start: Path | None = None, seed: int = seed):
            out = Path("runs") / f"{name}-{seed}"
            return selfsup.pretrain(text, method="clm", minutes=MINUTES, from_run=start, seed=seed,
                                    out=out)  # fmt: skip

        novels = pretrained("books", books / "train")
        adapted = pretrained("medical-after-books", teach, novels.path)
        alone = pretrained("medical-alone", teach)
        for run, old in ((adapted, books / "test"), (alone, None)):
            told = evaluate_task(run.path, test, old=old, seed=seed)
            judged(run.path.name.rsplit("-", 1)[0], seed, run, told)
            run.report()
