"""The steps of one evaluation on labelled data, from the split to the verdict.

Every score is measured for the encoder and its controls alike, and put beside the better control.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .. import faults
from ..console import Console, duration
from ..data.store import Store
from ..load import LoadedEncoder
from ..randomness import mix
from ..stop import stop
from ..transfer.tasks import Part
from . import (
    adapted,
    attentive,
    controls,
    finetune,
    knn,
    linear,
    retrieval,
    shots,
    structure,
    verdict,
)
from .board import Board
from .controls import BEFORE, PRETRAINED, SCRATCH, UNTRAINED, Pair
from .features import extract, readable
from .interval import Interval
from .measure import measure_for
from .result import FORMAT
from .split import Split, split

NETWORKS = 3  # untrained ones, and trainings from scratch: a network each, so fewer than `seeds`
CLUSTERINGS = 3
KEPT = 5000  # test vectors kept for the report's map
FEW_TESTED = 100

Probe = tuple[linear.Plane, linear.Scale]


class Judge:
    """The steps of one evaluation, in order; each adds to the `board` and to `notes`."""

    def __init__(
        self,
        encoder: LoadedEncoder,
        store: Store,
        labels: np.ndarray,
        classes: list[str],
        seeds: int,
        seed: int,
        console: Console,
        before: LoadedEncoder | None = None,
    ):
        self.encoder, self.store, self.console = encoder, store, console
        self.before = before  # what it started from
        self.forgot: dict[str, Any] | None = None  # the gain over that on the old data
        self.all_labels, self.class_names = labels, classes
        self.seeds, self.seed = max(2, seeds), seed
        self.networks = min(self.seeds, NETWORKS)
        self.baseline = encoder.modality.baseline_name
        self.notes: list[str] = []
        self.seconds: dict[str, float] = {}
        self.finetuned: tuple[Interval, str, int] | None = None
        self.started = self.clock = time.monotonic()

    # ---- what teaches and what tests ----------------------------------------------------------

    def prepare(self, drop_leaks: bool) -> None:
        usable, prints = readable(self.store, self._tell("samples:"))
        self.split: Split = split(
            self.store.source,
            self.all_labels,
            usable,
            prints,
            drop_leaks=drop_leaks,
            seed=self.seed,
        )
        self.notes += self.split.notes
        self.groups = Part(self.store, self.split.train, None).groups()
        # Classes are those that teach; a test sample of another class can only be wrong
        known = np.unique(self.all_labels[self.split.train])
        place = np.full(len(self.class_names) + 1, -1)
        place[known] = np.arange(len(known))
        self.classes = len(known)
        self.names = [self.class_names[i] for i in known]
        self.y = torch.from_numpy(place[self.all_labels[self.split.train]])
        self.y_test = torch.from_numpy(place[self.all_labels[self.split.test]])
        self.measure = measure_for(self.y_test, self.classes)
        self.linear = f"linear{self.measure.suffix}"  # the score that the verdict is about
        if self.measure.rare:
            self.notes.append(
                "one class is rare: verdict and curve are about the area under the ROC curve"
            )
        self.board = Board(len(self.y), self.seed)
        unknown = int((self.y_test < 0).sum())
        if unknown:
            self.notes.append(
                f"{unknown} test samples are of classes without training samples: counted as wrong"
            )
        tested, labelled = len(self.y_test), len(self.y) + len(self.y_test)
        if tested < FEW_TESTED:
            self.notes.append(
                f"{tested} samples test, which tells little: --task folds tests all {labelled}"
            )
        self.took("reading")

    # ---- frozen features ----------------------------------------------------------------------

    def frozen(self, neighbours: int, temperature: float) -> None:
        encoder, store, split = self.encoder, self.store, self.split
        self.vectors: dict[str, list[Pair]] = {PRETRAINED: [self._pair(encoder)]}
        if self.before is not None:
            self.vectors[BEFORE] = [self._pair(self.before)]
        self.vectors[UNTRAINED] = [
            controls.untrained(
                encoder, store, split.train, split.test, mix(self.seed, i),
                self._tell(f"untrained network {i + 1} of {self.networks}, features"),
            )
            for i in range(self.networks)
        ]  # fmt: skip
        self.vectors[self.baseline] = [controls.classical(encoder, store, split.train, split.test)]
        self.took("features")
        self.planes: dict[str, list[Probe]] = {}
        for of, pairs in self.vectors.items():
            self._neighbours(of, pairs, neighbours, temperature)
            self._linear(of, pairs)
            self._retrieval(of, pairs)
            self._structure(of, pairs)
        for protocol in dict.fromkeys(("knn", "linear", self.linear, "retrieval_recall_1")):
            self.board.compare(protocol)

    def forgotten(self) -> dict[str, Any]:
        """The gain of linear probes over those of the encoder that it started from, no more."""
        assert self.before is not None
        self.planes = {}
        for of, one in ((PRETRAINED, self.encoder), (BEFORE, self.before)):
            self._linear(of, [self._pair(one)])
        return self.board.since(self.linear)

    def _pair(self, one: LoadedEncoder) -> Pair:
        split, n = self.split, len(self.split.train)
        rows = np.concatenate([split.train, split.test])
        both = extract(one, self.store, rows, tell=self._tell("features"))
        return both[:n], both[n:]

    def _neighbours(self, of: str, pairs: list[Pair], k: int, temperature: float) -> None:
        outcomes = []
        for train, test in pairs:
            self._tell("nearest neighbours")(of)
            found = knn.predict(test, train, self.y, self.classes, k=k, temperature=temperature)
            outcomes.append(self._right(found))
        settings = {"k": min(k, len(self.y)), "temperature": temperature, "similarity": "cosine"}
        self.board.add("knn", of, np.stack(outcomes), settings=settings)
        self.took("knn")

    def _linear(self, of: str, pairs: list[Pair]) -> None:
        outcomes, ranked, strengths, balanced = [], [], [], []
        self.planes[of] = []
        for train, test in pairs:
            self._tell("linear probe")(of)
            scale = linear.scale_of(train, common=of == self.baseline)
            plane, _ = self._probe(train, scale)
            self.planes[of].append((plane, scale))
            logits = plane(scale(test))
            outcomes.append(self._right(logits.argmax(1)))
            ranked.append(self.measure(logits, self.y_test))
            strengths.append(plane.strength)
            balanced.append(self._balanced(outcomes[-1]))
        settings = {
            "l2": strengths,
            "chosen_on": "held-out training labels",
            "standardised": True,
        }
        self.board.add("linear", of, np.stack(outcomes), settings=settings)
        if self.measure.rare:
            self.board.add(self.linear, of, np.stack(ranked), settings=settings)
        counts = torch.bincount(self.y_test[self.y_test >= 0], minlength=self.classes)
        if counts.max() > 1.5 * counts.min().clamp(min=1):
            self.board.add_values("linear_balanced", of, balanced, len(self.y))
        self.took("linear")

    def attentive(self) -> None:
        """The attentive probe; plain features have no places, so their linear probe stands in."""
        encoder, split, n = self.encoder, self.split, len(self.split.train)
        rows = np.concatenate([split.train, split.test])
        if not attentive.fits(encoder, len(rows)):
            self.notes.append("the attentive probe is left out: no places, or more than memory has")
            return
        for of, count in ((PRETRAINED, 1), (UNTRAINED, self.networks)):
            outcomes = []
            for i in range(count):
                one = encoder if of == PRETRAINED else controls.fresh(encoder, mix(self.seed, i))
                tell = self._tell(f"attentive probe, {of} {i + 1} of {count},")
                x = attentive.places(one, self.store, rows, tell)
                heads = attentive.probe(x[:n], self.y, self.classes, self.seed, self.groups)
                outcomes.append(self._right(attentive.predict(heads, x[n:])[0]))
            self.board.add("attentive", of, np.stack(outcomes))
        self.board.stand_in("attentive", self.baseline, "linear")
        self.board.compare("attentive")
        self.took("attentive probe")

    def _probe(self, x: Tensor, scale: linear.Scale, rows: Any = slice(None)) -> Probe:
        """Taught by some rows of the training part, or by all."""
        return linear.probe(
            x[rows], self.y[rows], self.classes, scale=scale, seed=self.seed,
            groups=self.groups[rows],
        )  # fmt: skip

    def _right(self, found: Tensor) -> np.ndarray:
        """1 for each test sample of which the class was found, else 0."""
        return (found == self.y_test).double().numpy()

    def _commonest(self) -> float:
        known = self.y_test[self.y_test >= 0]
        return float(torch.bincount(known).max() / len(self.y_test)) if len(known) else 0.0

    def _balanced(self, right: np.ndarray) -> float:
        """Accuracy with every class that is tested counted the same."""
        y = self.y_test.numpy()
        return float(np.mean([right[y == label].mean() for label in np.unique(y)]))

    def _retrieval(self, of: str, pairs: list[Pair]) -> None:
        found = []
        for train, test in pairs:
            self._tell("retrieval")(of)
            found.append(retrieval.retrieval(test, self.y_test, train, self.y))
        for depth in retrieval.DEPTHS:
            hits = np.stack([f.hits[:, :depth].any(1).double().numpy() for f in found])
            self.board.add(f"retrieval_recall_{depth}", of, hits)
        precision = np.stack([f.average_precision.double().numpy() for f in found])
        self.board.add("retrieval_map", of, precision, settings={"queries": precision.shape[1]})
        if of == PRETRAINED:
            self.cases = {
                "best": [self._case(c) for c in found[0].best],
                "worst": [self._case(c) for c in found[0].worst],
            }
        self.took("retrieval")

    def _case(self, case: retrieval.Case) -> dict[str, Any]:
        def sample(rows: np.ndarray, y: Tensor, row: int) -> dict[str, Any]:
            index, label = int(rows[row]), int(y[row])
            name = self.names[label] if label >= 0 else "another class"
            return {"index": index, "name": self.store.source.name(index), "label": name}

        neighbours = [
            sample(self.split.train, self.y, row) | {"similarity": s, "same_class": same}
            for row, s, same in zip(case.neighbours, case.similarity, case.same_class, strict=True)
        ]
        query = sample(self.split.test, self.y_test, case.query)
        return {"query": query, "neighbours": neighbours}

    def _structure(self, of: str, pairs: list[Pair]) -> None:
        self._tell("structure")(of)
        ranks = [structure.effective_rank(test) for _, test in pairs]
        most = min(pairs[0][1].shape)
        self.board.add_values("effective_rank", of, ranks, 0, at_most=most)
        runs = pairs if len(pairs) > 1 else pairs * CLUSTERINGS
        known = self.y_test >= 0
        found = [
            structure.clustering(test[known], self.y_test[known], mix(self.seed, i))
            for i, (_, test) in enumerate(runs)
        ]
        self.board.add_values("clustering_nmi", of, [f.nmi for f in found], 0)
        self.board.add_values("clustering_ari", of, [f.ari for f in found], 0)
        self.took("structure")

    # ---- few labels ---------------------------------------------------------------------------

    def few(self, wanted: tuple[int, ...]) -> None:
        self.shots, left_out = shots.possible(self.y.numpy(), wanted)
        if left_out:
            counts = ", ".join(map(str, left_out))
            self.notes.append(f"the curve leaves out {counts} labels per class: too few are there")
        for count in self.shots:
            labels = len(shots.draw(self.y.numpy(), count, 0))
            for of, pairs in self.vectors.items():
                self._tell(f"{_labels(count)} per class,")(of)
                outcomes = []
                for i in range(self.seeds):
                    train, test = pairs[i % len(pairs)]
                    _, scale = self.planes[of][i % len(pairs)]
                    outcomes.append(
                        shots.few_labels(
                            train, self.y, test, self.y_test, self.classes, count,
                            mix(self.seed, i), scale, self.measure, self.groups,
                        )
                    )  # fmt: skip
                self.board.add_point(count, labels, of, self.linear, np.stack(outcomes))
            self.board.compare_point(count)
        self.took("few labels")

    # ---- networks trained on labels -----------------------------------------------------------

    def trained(self, minutes: float) -> None:
        """The same network from scratch at every count of labels, and fine-tuning beside it.

        The time that is left is shared out before each training, by what training took so far.
        """
        train = self.split.train
        self._tell("networks trained on labels:")("timing a few steps")
        some = train[:: max(1, len(train) // 512)]
        began, done = time.monotonic(), 0
        each = finetune.seconds_per_sample(self.encoder, self.store, some, self.classes)
        for i, count in enumerate(self.shots):
            left = 60 * minutes - (time.monotonic() - began)
            # 0.4 of the time is for fine-tuning
            share = 0.6 * left / (len(self.shots) - i)
            started = time.monotonic()
            used = self._scratch(count, share / each)
            if used > done:  # of all trainings the largest tells best
                each, done = (time.monotonic() - started) / used, used
        self.took("from scratch")
        left = 60 * minutes - (time.monotonic() - began)
        self._finetune(max(0.0, left) / each)
        self.took("fine-tuning")

    def _scratch(self, count: int, affordable: float) -> int:
        """A point of the curve for the network trained from scratch; how many samples that took."""
        encoder, store, train, y = self.encoder, self.store, self.split.train, self.y.numpy()
        labels = len(shots.draw(y, count, 0))
        many = self.networks + finetune.TRIALS
        effort = finetune.effort(labels, affordable / many)
        if effort is None:
            self.notes.append(
                f"training from scratch with {_labels(count)} per class is left out: it would "
                "take longer than the time given (minutes)"
            )
            return 0
        choice, outcomes = None, []
        for i in range(self.networks):
            own = mix(self.seed, i)
            picks = shots.draw(y, count, own)
            tell = self._tell(
                f"from scratch, {_labels(count)} per class, {i + 1} of {self.networks},"
            )
            if choice is None:
                tell("choosing learning rate and views")
                choice = finetune.choose(
                    encoder, store, train[picks], y[picks], self.classes, effort=effort,
                    pretrained=False, seed=own, rare=self.measure.rare,
                    whole=self.split.groups[picks],
                )  # fmt: skip
            network = finetune.fresh(encoder, self.classes, pretrained=False, seed=own)
            finetune.train(
                network, encoder, store, train[picks], y[picks], steps=effort.steps, choice=choice,
                pretrained=False, seed=own, tell=tell,
            )  # fmt: skip
            outcomes.append(self._outcome(network))
        assert choice is not None
        self.board.add_point(
            count, labels, SCRATCH, "scratch", np.stack(outcomes),
            settings=_trained(choice, effort),
        )  # fmt: skip
        self.board.compare_point(count)
        return many * effort.samples

    def _finetune(self, affordable: float) -> None:
        """Fine-tuning against training from scratch; on fewer labels where time is short."""
        encoder, store, y = self.encoder, self.store, self.y.numpy()
        one = affordable / 2 / (1 + finetune.TRIALS)
        per_class, n = int(np.unique(y, return_counts=True)[1].max()), len(y)
        while (effort := finetune.effort(n, one)) is None and per_class > 1:
            per_class //= 2
            n = len(shots.draw(y, per_class, self.seed))
        if effort is None:
            self.notes.append("fine-tuning is left out: it would take longer than the time given")
            return
        picks = shots.draw(y, per_class, self.seed)
        rows, labels = self.split.train[picks], y[picks]
        if n < len(y):
            self.notes.append(
                f"fine-tuning and training from scratch beside it use {n} of {len(y)} labels, "
                "which is what the time given allows (minutes)"
            )

        def head(part: np.ndarray) -> Probe:
            x, scale = self.vectors[PRETRAINED][0][0], self.planes[PRETRAINED][0][1]
            return self._probe(x, scale, picks[part])

        self.notes.append(
            "fine-tuning, and from scratch beside it, is one training: its luck is in no interval"
        )
        tuned = f"finetune{self.measure.suffix}"
        for of, pretrained in ((PRETRAINED, True), (SCRATCH, False)):
            tell = self._tell(f"fine-tuning, {of},")
            tell("choosing learning rate and views")
            choice = finetune.choose(
                encoder, store, rows, labels, self.classes, effort=effort, pretrained=pretrained,
                seed=self.seed, head=head if pretrained else None, rare=self.measure.rare,
                whole=self.split.groups[picks],
            )  # fmt: skip
            network = finetune.fresh(
                encoder, self.classes, pretrained=pretrained, seed=mix(self.seed, 0)
            )
            if pretrained:
                network.start_head(*finetune.plain_head(*head(np.ones(n, bool))))
            finetune.train(
                network, encoder, store, rows, labels, steps=effort.steps, choice=choice,
                pretrained=pretrained, seed=self.seed, tell=tell,
            )  # fmt: skip
            settings = _trained(choice, effort)
            settings["layer_decay"] = finetune.LAYER_DECAY if pretrained else 1.0
            outcome = self._outcome(network)[None]
            self.board.add(tuned, of, outcome, settings=settings, labels=n)
        # A network from scratch that is behind plain pixels is no control to boast of: the frozen
        # controls stand beside it, with the same labels
        for of in (UNTRAINED, self.baseline):
            outcomes = []
            for (x, test), (_, scale) in zip(self.vectors[of], self.planes[of], strict=True):
                plane, _ = self._probe(x, scale, picks)
                outcomes.append(self.measure(plane(scale(test)), self.y_test))
            frozen = f"finetune_frozen{self.measure.suffix}"
            self.board.add(frozen, of, np.stack(outcomes), labels=n)
            self.board.stand_in(tuned, of, frozen)
        gain, control = self.board.compare(tuned)
        self.finetuned = gain, control, n

    def _outcome(self, network: finetune.Network) -> np.ndarray:
        rows = self.split.test
        logits = finetune.logits(network, self.encoder, self.store, rows, self.y_test.numpy())
        return self.measure(logits, self.y_test)

    # ---- the verdict --------------------------------------------------------------------------

    def conclude(self, home: Path | None) -> dict[str, Any]:
        scores, curve = self.board.scores, self.board.curve
        linear_scores = {r["of"]: r["value"] for r in scores if r["protocol"] == self.linear}
        ours = linear_scores.pop(PRETRAINED)
        linear_scores.pop(BEFORE, None)
        if self.before is not None:
            self.notes.append(adapted.sentence(self.before, self.board.since(self.linear)))
        if self.before is not None and self.forgot is not None:
            self.notes.append(adapted.sentence(self.before, self.forgot, " on the old data"))
        gain, control = self.board.compare(self.linear)
        curves: dict[str, verdict.Curve] = {}
        for row in curve:
            if row["of"] != BEFORE:
                curves.setdefault(row["of"], {})[row["labels"]] = row["value"]
        for of, value in {**linear_scores, PRETRAINED: ours}.items():
            curves.setdefault(of, {})[len(self.y)] = value
        for row in scores:
            if row["protocol"].startswith("finetune") and row["of"] == SCRATCH:
                curves.setdefault(SCRATCH, {})[row["labels"]] = row["value"]
        worths = verdict.worth(
            curves[PRETRAINED], [c for of, c in curves.items() if of != PRETRAINED]
        )
        ranks = {r["of"]: r["value"] for r in scores if r["protocol"] == "effective_rank"}
        facts = verdict.Facts(
            ours=ours,
            score=self.measure.title,
            common=0.0 if self.measure.rare else self._commonest(),
            rank=ranks[PRETRAINED],
            untrained_rank=ranks[UNTRAINED],
            dim=self.encoder.dim,
            size=self.encoder.size,
            **_training(home),
        )
        few = [(shots, *gained) for shots, gained in self.board.few_gains.items()]
        found = verdict.judge(gain, control, linear_scores, worths, facts, few, self.finetuned)
        self.seconds["total"] = round(time.monotonic() - self.started, 2)
        return {
            "format": FORMAT,
            "time": time.time(),
            "verdict": found.to_json(),
            "labels_worth": [w.to_json() for w in worths],
            "scores": scores,
            "curve": curve,
            "retrieval": self.cases,
            "split": self.split.to_json(),
            "data": {
                "place": self.store.source.place,
                "fingerprint": self.store.source.fingerprint(),
                "classes": self.names,
            },
            "encoder": self.encoder.card.to_json()
            | {"dim": self.encoder.dim, "fingerprint": self.encoder.fingerprint()},
            "forgot": self.forgot,
            "notes": self.notes,
            "seconds": self.seconds,
        }

    def keep(self, home: Path, told: dict[str, Any]) -> None:
        """evaluation.json, and the test vectors for a map, in the run's folder."""
        from ..checkpoint import write_tensors
        from ..run import Run

        rows = np.arange(len(self.split.test))
        if len(rows) > KEPT:  # every so many-th, because folders are sorted by class
            rows = np.arange(KEPT) * len(rows) // KEPT
        part = torch.from_numpy(rows)
        temporary = home / "evaluation.safetensors.tmp"
        try:
            write_tensors(
                temporary,
                {
                    "vectors": self.vectors[PRETRAINED][0][1][part].half(),
                    "labels": self.y_test[part],
                    "samples": torch.from_numpy(self.split.test[rows]),
                },
            )
            faults.at("evaluate.keep")
            with stop.polled():  # vectors and numbers belong together
                temporary.replace(home / "evaluation.safetensors")
                Run.open(home).write_json("evaluation.json", told)
        finally:
            temporary.unlink(missing_ok=True)

    # ---- progress -----------------------------------------------------------------------------

    def _tell(self, what: str) -> Callable[[str], None]:
        def tell(detail: str) -> None:
            stop.check()
            spent = duration(time.monotonic() - self.started)
            self.console.progress(f"evaluate: {what} {detail}  {spent}")

        return tell

    def took(self, what: str) -> None:
        now = time.monotonic()
        self.seconds[what] = round(self.seconds.get(what, 0.0) + now - self.clock, 2)
        self.clock = now


def _labels(count: int) -> str:
    return "1 label" if count == 1 else f"{count} labels"


def _trained(choice: finetune.Choice, effort: finetune.Effort) -> dict[str, Any]:
    return {
        "learning_rate": choice.rate,
        "light_views": choice.light,
        "epochs": effort.epochs,
        "steps": effort.steps,
    }


def _training(home: Path | None) -> dict[str, Any]:
    """How long a run trained, as far as its folder says."""
    from ..run import Run

    if home is None:
        return {}
    last: dict[str, Any] = {}
    run = Run.open(home)
    for row in run.metrics.read():
        last = row
    manifest = run.read_json("data/manifest.json") or {}
    return {
        "steps": last.get("step"),
        "epochs": last.get("epoch"),
        "samples": manifest.get("samples", 0),
    }
