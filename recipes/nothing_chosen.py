"""Data sets of several kinds with nothing but their paths, as a newcomer gives them.

    SELFSUP_DATA=... python -m recipes.nothing_chosen            # all of them, seeds 0 and 1
    SELFSUP_DATA=... python -m recipes.nothing_chosen esc50 0

What is done is `selfsup pretrain DATA`, then `selfsup evaluate RUN DATA [--labels TABLE]
--no-finetune`, all else chosen; of fights `--task folds`, as but 66 clips are given to test.
Pictures, news, captioned pictures and proteins have recipes of their own.

AMD EPYC with AVX512-BF16, 2 cores, next to nothing beside seed 0; training and judging together in
brackets:
Cora and Citeseer, GraphMAE, 600 passes (66 and 82 s): 83.5 and 81.4 % (two seeds), untrained 73.3
and 74.8, raw features 60.3 and 60.7; Citeseer 72.0 and 71.1, untrained 56.8 and 56.5, raw 62.6 and
61.5: pretraining helps.
Spoken digits of a speaker who was not heard, SimCLR (11 minutes): 88.0 and 87.2 % (two seeds),
untrained 32.8 and 36.6, MFCC statistics 57.4 and 53.2: it helps. This speaker was not looked at
when the views were chosen.
BasicMotions, TS2Vec (2 minutes): with one label a class +15.5 (2.7 to 28.3) and +15.5 (1.2 to 29.8)
over the same network untrained, with all labels all are right.
Medical abstracts (OHSUMED, 23 classes), SimCLR, ten minutes, 25 passes, two seeds: with one label a
class 19.4 and 17.9 %, TF-IDF 14.1 and 11.1, untrained 5.2 and 5.5 (gain 1.4 to 9.3, 0.7 to 12.9);
with ten 34.2 and 38.1, 36.9 and 36.5, 7.1 and 6.8; with all linear probe 53.6 and 53.1 %, TF-IDF
59.6 and 59.9, untrained 26.0 and 25.2: it helps where labels are very few.
HIV, GraphMAE, ten minutes: area under the ROC curve 79.1, untrained 74.3, kinds and degrees 72.2:
no gain that is certain, as three untrained networks differ by more (+-16.8). The loss ends at 0.02,
which is not little: it is a cube, one answer for all atoms costs 0.034, and knowing how many
neighbours an atom has 0.009 (docs/LOG.md).
ESC-50, SimCLR, ten minutes, 54,144 and 65,792 sounds seen (two seeds), the five published folds:
46.0 and 48.7 %, untrained 31.5 and 32.2, MFCC statistics 47.9 and 47.5; with five labels a class
the second has 33.0, 21.2 and 30.3 (gain 0.6 to 4.6): it helps where labels are few with one seed of
two. The loss was still falling; judging took ten minutes beside other programs.
Fights, SimCLR on 64 tokens, ten minutes (11 in all), 129 and 113 passes over 300 clips (two seeds):
with ten labels a class 64.8 and 61.5 %, untrained 55.4 and 54.1, pixels, motion + PCA 53.0 and 53.5
(gain 0.9 to 17.8, 0.9 to 13.9); with five 62.9 and 59.8, 55.7 and 53.8, 54.2 and 52.5; with all
66.0 and 69.4, 57.7 and 57.9, 62.8 and 61.8. It helps where labels are few. MAE with tubes, the
default before, brought nothing (docs/LOG.md).
"""

import sys
from pathlib import Path
from typing import NamedTuple

import selfsup
from selfsup.evaluate import tasks

from . import as_given, data, figures, fsdd_simclr, judged, keep


class Given(NamedTuple):
    """Paths as they are handed over, and the kind of data."""

    modality: str
    learn: Path
    judge: Path
    labels: Path | None = None
    drop_leaks: bool = False
    task: str | None = None  # `--task`, where the data name none


def esc50() -> Given:
    home = data("audio/esc50_16k.tar.gz", "esc50")
    return Given("audio", home, home, home / "meta/esc50.csv")


def spoken_digits() -> Given:
    heard, digits = fsdd_simclr.tables("lucas")  # who was not heard in choosing anything
    return Given("audio", heard, digits)


def fights() -> Given:
    """All clips test, by folds that keep what was cut from one film together."""
    home = data("video/surveillance_fight.tar", "surveillance_fight")
    return Given("video", home, home, home / "labels.csv", task="folds")


def basicmotions() -> Given:
    home = data("timeseries/ucr_uea_ts.tar.gz", "ucr_uea") / "BasicMotions"
    return Given("series", home / "BasicMotions_TRAIN.ts", home)


def cora() -> Given:
    home = data("graphs/cora.tar.gz", "cora")
    return Given("network", home, home)


def citeseer() -> Given:
    home = data("graphs/citeseer.tar.gz", "citeseer")
    return Given("network", home, home)


def hiv() -> Given:
    """Of 30 molecules that teach, twins test: without --drop-leaks that is the error E502."""
    table = as_given("molecules/hiv.csv.gz")
    return Given("graph", table, table, drop_leaks=True)


def ohsumed() -> Given:
    table = as_given("text/ohsumed23.parquet")
    return Given("text", table, table)


SETS = {
    f.__name__: f
    for f in (esc50, spoken_digits, fights, basicmotions, cora, citeseer, hiv, ohsumed)
}


def main() -> None:
    words = sys.argv[1:]
    seeds = [int(word) for word in words if word.isdigit()] or [0, 1]
    for name in [word for word in words if not word.isdigit()] or list(SETS):
        given = SETS[name]()
        task = given.task or tasks.suggested(given.modality, given.judge, given.labels)
        for seed in seeds:
            run = selfsup.pretrain(given.learn, seed=seed, out=Path("runs") / f"{name}-{seed}")
            if task == tasks.CLASSIFY:
                told = run.evaluate(given.judge, labels=given.labels, finetune=False, seed=seed,
                                    drop_leaks=given.drop_leaks)  # fmt: skip
                keep({"recipe": name, "seed": seed, **figures(run, told)})
                print(told)
            else:
                judge = tasks.find(task).evaluate_task
                judged(name, seed, run, judge(run, given.judge, labels=given.labels, seed=seed))
            run.report()


if __name__ == "__main__":
    main()
