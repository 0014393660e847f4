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
from . import attentive, controls, finetune, knn, linear, retrieval, shots, structure, verdict
from .controls import PRETRAINED, SCRATCH, UNTRAINED
from .features import extract, readable
from .interval import Interval, difference, over_samples, over_seeds
from .result import FORMAT, score
from .split import Split, split

NETWORKS = 3  # untrained ones, and trainings from scratch: a network each, so fewer than `seeds`
CLUSTERINGS = 3
KEPT = 5000  # test vectors kept for the report's map

Pair = tuple[Tensor, Tensor]


class Judge:
    """The steps of one evaluation, in order; each adds to `scores`, `curve` and `notes`."""

    def __init__(
        self,
        encoder: LoadedEncoder,
        store: Store,
        labels: np.ndarray,
        classes: list[str],
        seeds: int,
        seed: int,
        console: Console,
    ):
        self.encoder, self.store, self.console = encoder, store, console
        self.all_labels, self.class_names = labels, classes
        self.seeds, self.seed = max(2, seeds), seed
        self.networks = min(self.seeds, NETWORKS)
        self.baseline = encoder.modality.baseline_name
        self.scores: list[dict[str, Any]] = []
        self.curve: list[dict[str, Any]] = []
        self.notes: list[str] = []
        self.seconds: dict[str, float] = {}
        self.outcomes: dict[tuple[str, str], np.ndarray] = {}
        self.few_gains: dict[int, tuple[Interval, str]] = {}
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
        # Classes are those that teach; a test sample of another class can only be wrong
        known = np.unique(self.all_labels[self.split.train])
        place = np.full(len(self.class_names) + 1, -1)
        place[known] = np.arange(len(known))
        self.classes = len(known)
        self.names = [self.class_names[i] for i in known]
        self.y = torch.from_numpy(place[self.all_labels[self.split.train]])
        self.y_test = torch.from_numpy(place[self.all_labels[self.split.test]])
        unknown = int((self.y_test < 0).sum())
        if unknown:
            self.notes.append(
                f"{unknown} test samples are of classes without training samples: counted as wrong"
            )
        self._took("reading")

    # ---- frozen features ----------------------------------------------------------------------

    def frozen(self, neighbours: int, temperature: float) -> None:
        encoder, store, split = self.encoder, self.store, self.split
        rows = np.concatenate([split.train, split.test])
        n = len(split.train)
        both = extract(encoder, store, rows, tell=self._tell("features"))
        self.vectors: dict[str, list[Pair]] = {PRETRAINED: [(both[:n], both[n:])]}
        self.vectors[UNTRAINED] = [
            controls.untrained(
                encoder, store, split.train, split.test, mix(self.seed, i),
                self._tell(f"untrained network {i + 1} of {self.networks}, features"),
            )
            for i in range(self.networks)
        ]  # fmt: skip
        self.vectors[self.baseline] = [controls.classical(encoder, store, split.train, split.test)]
        self._took("features")
        self.planes: dict[str, list[tuple[linear.Plane, linear.Scale]]] = {}
        for of, pairs in self.vectors.items():
            self._neighbours(of, pairs, neighbours, temperature)
            self._linear(of, pairs)
            self._retrieval(of, pairs)
            self._structure(of, pairs)
        for protocol in ("knn", "linear", "retrieval_recall_1"):
            self._compare(protocol)

    def _neighbours(self, of: str, pairs: list[Pair], k: int, temperature: float) -> None:
        outcomes = []
        for train, test in pairs:
            self._tell("nearest neighbours")(of)
            found = knn.predict(test, train, self.y, self.classes, k=k, temperature=temperature)
            outcomes.append((found == self.y_test).double().numpy())
        settings = {"k": min(k, len(self.y)), "temperature": temperature, "similarity": "cosine"}
        self._add("knn", of, np.stack(outcomes), settings=settings)
        self._took("knn")

    def _linear(self, of: str, pairs: list[Pair]) -> None:
        outcomes, strengths, balanced = [], [], []
        self.planes[of] = []
        for train, test in pairs:
            self._tell("linear probe")(of)
            scale = linear.scale_of(train, common=of == self.baseline)
            plane, _ = linear.probe(train, self.y, self.classes, scale=scale, seed=self.seed)
            self.planes[of].append((plane, scale))
            right = (plane(scale(test)).argmax(1) == self.y_test).double()
            outcomes.append(right.numpy())
            strengths.append(plane.strength)
            balanced.append(self._balanced(right))
        settings = {
            "l2": strengths,
            "chosen_on": "held-out training labels",
            "standardised": True,
        }
        self._add("linear", of, np.stack(outcomes), settings=settings)
        counts = torch.bincount(self.y_test.clamp(min=0), minlength=self.classes)
        if counts.max() > 1.5 * counts.min().clamp(min=1):
            interval = over_seeds(balanced) if len(balanced) > 1 else None
            value = float(np.mean(balanced))
            self.scores.append(score("linear_balanced", of, interval, value, len(self.y)))
        self._took("linear")

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
                one = encoder
                if of == UNTRAINED:
                    fresh = encoder.untrained(mix(self.seed, i)).to(encoder.device)
                    one = controls.awake(fresh)
                tell = self._tell(f"attentive probe, {of} {i + 1} of {count},")
                x = attentive.places(one, self.store, rows, tell)
                heads = attentive.probe(x[:n], self.y, self.classes, self.seed)
                found = attentive.predict(heads, x[n:])[0]
                outcomes.append((found == self.y_test).double().numpy())
            self._add("attentive", of, np.stack(outcomes))
        self.outcomes["attentive", self.baseline] = self.outcomes["linear", self.baseline]
        self._compare("attentive")
        self._took("attentive probe")

    def _balanced(self, right: Tensor) -> float:
        """Accuracy with every class that is tested counted the same."""
        present = self.y_test.unique()
        return float(np.mean([right[self.y_test == label].mean().item() for label in present]))

    def _retrieval(self, of: str, pairs: list[Pair]) -> None:
        found = []
        for train, test in pairs:
            self._tell("retrieval")(of)
            found.append(retrieval.retrieval(test, self.y_test, train, self.y))
        for depth in retrieval.DEPTHS:
            hits = np.stack([f.hits[:, :depth].any(1).double().numpy() for f in found])
            self._add(f"retrieval_recall_{depth}", of, hits)
        precision = np.stack([f.average_precision.double().numpy() for f in found])
        self._add("retrieval_map", of, precision, settings={"queries": precision.shape[1]})
        if of == PRETRAINED:
            self.cases = {
                "best": [self._case(c) for c in found[0].best],
                "worst": [self._case(c) for c in found[0].worst],
            }
        self._took("retrieval")

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
        interval = over_seeds(ranks) if len(ranks) > 1 else None
        most = min(pairs[0][1].shape)
        self.scores.append(
            score("effective_rank", of, interval, float(np.mean(ranks)), 0, at_most=most)
        )
        runs = pairs if len(pairs) > 1 else pairs * CLUSTERINGS
        known = self.y_test >= 0
        found = [
            structure.clustering(test[known], self.y_test[known], mix(self.seed, i))
            for i, (_, test) in enumerate(runs)
        ]
        for name, values in (("nmi", [f.nmi for f in found]), ("ari", [f.ari for f in found])):
            self.scores.append(
                score(f"clustering_{name}", of, over_seeds(values), float(np.mean(values)), 0)
            )
        self._took("structure")

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
                values = []
                for i in range(self.seeds):
                    train, test = pairs[i % len(pairs)]
                    _, scale = self.planes[of][i % len(pairs)]
                    values.append(
                        shots.few_labels(
                            train, self.y, test, self.y_test, self.classes, count,
                            mix(self.seed, i), scale,
                        )
                    )  # fmt: skip
                self._point(count, labels, of, "linear", values)
            self._compare_point(count)
        self._took("few labels")

    def _point(self, count: int, labels: int, of: str, protocol: str, values: list[float]) -> None:
        interval = over_seeds(values)
        self.curve.append(
            score(protocol, of, interval, interval.value, labels, shots=count, values=values)
        )

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
        self._took("from scratch")
        left = 60 * minutes - (time.monotonic() - began)
        self._finetune(max(0.0, left) / each)
        self._took("fine-tuning")

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
        choice, values = None, []
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
                    pretrained=False, seed=own,
                )  # fmt: skip
            network = finetune.fresh(encoder, self.classes, pretrained=False, seed=own)
            finetune.train(
                network, encoder, store, train[picks], y[picks], steps=effort.steps, choice=choice,
                pretrained=False, seed=own, tell=tell,
            )  # fmt: skip
            values.append(float(self._outcome(network).mean()))
        assert choice is not None
        self._point(count, labels, SCRATCH, "scratch", values)
        self.curve[-1]["settings"] = {
            "learning_rate": choice.rate,
            "light_views": choice.light,
            "epochs": effort.epochs,
            "steps": effort.steps,
        }
        self._compare_point(count)
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

        def head(part: np.ndarray) -> tuple[linear.Plane, linear.Scale]:
            x, scale = self.vectors[PRETRAINED][0][0], self.planes[PRETRAINED][0][1]
            keep = torch.from_numpy(picks[part])
            return linear.probe(x[keep], self.y[keep], self.classes, scale=scale, seed=self.seed)

        for of, pretrained in ((PRETRAINED, True), (SCRATCH, False)):
            tell = self._tell(f"fine-tuning, {of},")
            tell("choosing learning rate and views")
            choice = finetune.choose(
                encoder, store, rows, labels, self.classes, effort=effort, pretrained=pretrained,
                seed=self.seed, head=head if pretrained else None,
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
            settings = {
                "learning_rate": choice.rate,
                "light_views": choice.light,
                "epochs": effort.epochs,
                "steps": effort.steps,
                "layer_decay": finetune.LAYER_DECAY if pretrained else 1.0,
            }
            self._add("finetune", of, self._outcome(network)[None], settings=settings, labels=n)
        # A network from scratch that is behind plain pixels is no control to boast of: the frozen
        # controls stand beside it, with the same labels
        keep = torch.from_numpy(picks)
        for of in (UNTRAINED, self.baseline):
            outcomes = []
            for (x, test), (_, scale) in zip(self.vectors[of], self.planes[of], strict=True):
                plane, _ = linear.probe(
                    x[keep], self.y[keep], self.classes, scale=scale, seed=self.seed
                )
                right = plane(scale(test)).argmax(1) == self.y_test
                outcomes.append(right.double().numpy())
            self._add("finetune_frozen", of, np.stack(outcomes), labels=n)
            self.outcomes["finetune", of] = self.outcomes["finetune_frozen", of]
        gain, control = self._compare("finetune")
        self.finetuned = gain, control, n

    def _outcome(self, network: finetune.Network) -> np.ndarray:
        return finetune.outcome(
            network, self.encoder, self.store, self.split.test, self.y_test.numpy()
        )

    # ---- numbers beside their controls --------------------------------------------------------

    def _add(
        self, protocol: str, of: str, outcomes: np.ndarray, labels: int | None = None, **more: Any
    ) -> None:
        """`outcomes` (networks, test samples): of one network by bootstrap, of several by t."""
        self.outcomes[protocol, of] = outcomes
        values = [float(v) for v in outcomes.mean(1)]
        several = len(values) > 1
        interval = over_seeds(values) if several else over_samples(outcomes[0], self.seed)
        if several:
            more["values"] = values
        labels = len(self.y) if labels is None else labels
        self.scores.append(score(protocol, of, interval, interval.value, labels, **more))

    def _compare(self, protocol: str) -> tuple[Interval, str]:
        """Put the gain over the better control beside the score of the pretrained encoder."""
        others = {of: o for (p, of), o in self.outcomes.items() if p == protocol}
        ours = others.pop(PRETRAINED)
        control = max(others, key=lambda of: others[of].mean())
        gain = difference(ours[0], others[control], self.seed)
        for row in self.scores:
            if row["protocol"] == protocol and row["of"] == PRETRAINED:
                row["gain"] = _gain(gain, control)
        return gain, control

    def _compare_point(self, count: int) -> None:
        rows = {row["of"]: row for row in self.curve if row["shots"] == count}
        ours = rows.pop(PRETRAINED)
        control = max(rows, key=lambda of: rows[of]["value"])
        theirs = rows[control]["values"]
        both = min(len(ours["values"]), len(theirs))
        # The same seeds drew the same labels, so they are compared in pairs
        gain = over_seeds(
            [a - b for a, b in zip(ours["values"][:both], theirs[:both], strict=True)]
        )
        ours["gain"] = _gain(gain, control)
        self.few_gains[count] = gain, control

    # ---- the verdict --------------------------------------------------------------------------

    def conclude(self, home: Path | None) -> dict[str, Any]:
        linear_scores = {r["of"]: r["value"] for r in self.scores if r["protocol"] == "linear"}
        ours = linear_scores.pop(PRETRAINED)
        gain, control = self._compare("linear")
        curves: dict[str, verdict.Curve] = {}
        for row in self.curve:
            curves.setdefault(row["of"], {})[row["labels"]] = row["value"]
        for of, value in {**linear_scores, PRETRAINED: ours}.items():
            curves.setdefault(of, {})[len(self.y)] = value
        for row in self.scores:
            if row["protocol"] == "finetune" and row["of"] == SCRATCH:
                curves.setdefault(SCRATCH, {})[row["labels"]] = row["value"]
        worths = verdict.worth(
            curves[PRETRAINED], [c for of, c in curves.items() if of != PRETRAINED]
        )
        ranks = {r["of"]: r["value"] for r in self.scores if r["protocol"] == "effective_rank"}
        facts = verdict.Facts(
            ours=ours,
            rank=ranks[PRETRAINED],
            untrained_rank=ranks[UNTRAINED],
            dim=self.encoder.dim,
            size=self.encoder.size,
            **_training(home),
        )
        few = [(row["shots"], *self.few_gains[row["shots"]]) for row in self.curve if "gain" in row]
        found = verdict.judge(gain, control, linear_scores, worths, facts, few, self.finetuned)
        self.seconds["total"] = round(time.monotonic() - self.started, 2)
        return {
            "format": FORMAT,
            "time": time.time(),
            "verdict": found.to_json(),
            "labels_worth": [w.to_json() for w in worths],
            "scores": self.scores,
            "curve": self.curve,
            "retrieval": self.cases,
            "split": self.split.to_json(),
            "data": {
                "place": self.store.source.place,
                "fingerprint": self.store.source.fingerprint(),
                "classes": self.names,
            },
            "encoder": self.encoder.card.to_json()
            | {"dim": self.encoder.dim, "fingerprint": self.encoder.fingerprint()},
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

    def _took(self, what: str) -> None:
        now = time.monotonic()
        self.seconds[what] = round(self.seconds.get(what, 0.0) + now - self.clock, 2)
        self.clock = now


def _gain(gain: Interval, control: str) -> dict[str, Any]:
    return {
        "value": gain.value,
        "low": gain.low,
        "high": gain.high,
        "interval": gain.kind,
        "control": control,
    }


def _labels(count: int) -> str:
    return "1 label" if count == 1 else f"{count} labels"


def _training(home: Path | None) -> dict[str, Any]:
    """How long a run trained, as far as its folder says."""
    from ..run import Run

    if home is None:
        return {}
    last: dict[str, Any] = {}
    for row in Run.open(home).metrics.read():
        last = row
    manifest = Run.open(home).read_json("data/manifest.json") or {}
    return {
        "steps": last.get("step"),
        "epochs": last.get("epoch"),
        "samples": manifest.get("samples", 0),
    }
