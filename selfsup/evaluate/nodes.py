"""Classes of the nodes of one graph, as GraphMAE, GRACE and DGI are compared on citation graphs.

The published parts: a few nodes teach, others choose when to stop, others test. A linear layer on
frozen features is trained by Adam from several seeds; the test accuracy of the epoch that does best
on the validation part counts (authors' code of GraphMAE). Vectors have length one (that of GRACE).
"""

import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize

from ..console import Console
from ..data import Source, open_source, open_store
from ..errors import SelfsupError
from ..load import LoadedEncoder, load
from ..randomness import mix
from ..stop import stop
from . import controls
from .controls import PRETRAINED, UNTRAINED
from .features import extract
from .interval import Interval, difference, over_samples, over_seeds
from .result import keep
from .rounds import Rounds, conclude

PROBES, NETWORKS = 20, 3
EPOCHS, RATE, DECAY = 300, 1e-2, 1e-4


def suits(modality: str, source: Source, labels: Any) -> bool:
    """Only on request: classification looks at the nodes of a graph too, on the same split."""
    return False


def evaluate_task(
    run: Any,
    data: Any,
    *,
    labels: str | Path | None = None,
    seeds: int = NETWORKS,
    seed: int = 0,
    probes: int = PROBES,
    cache: str | Path | None = None,
    follow_links: bool = False,
    write: bool = True,
    console: Console | None = None,
    **_: Any,
) -> Rounds:
    """Test accuracy over `probes` seeds, beside untrained networks and the raw features.

    Raises SelfsupError: E501 no labels, E503 no parts called train, val and test.
    """
    console = console or Console()
    began = time.monotonic()
    with stop.installed():
        encoder = run if isinstance(run, LoadedEncoder) else load(run)
        source = open_source(data, follow_links=follow_links, labels=labels)
        classes, parts = source.labels(), source.splits()
        if classes is None:
            raise SelfsupError("E501", f"no labels in {source.place}", where=source.place)
        y = torch.from_numpy(classes[0])
        rows = _parts(parts, y, source.place)
        every = np.arange(len(source))
        with open_store(source, encoder.modality, encoder.size, cache=cache) as store:
            features: dict[str, list[Tensor]] = {
                PRETRAINED: [extract(encoder, store, every)],
                UNTRAINED: [],
            }
            for i in range(max(2, min(seeds, NETWORKS))):
                console.progress(f"evaluate: untrained network {i + 1}")
                fresh = controls.fresh(encoder, mix(seed, i))
                features[UNTRAINED].append(extract(fresh, store, every))
            raw = encoder.modality.baseline(store.batch(every)).float()
            features[encoder.modality.baseline_name] = [raw]
        values: dict[str, list[float]] = {}
        outcomes: dict[str, np.ndarray] = {}  # (networks, n) each
        for of, several in features.items():
            console.progress(f"evaluate: probes of {of}")
            right = [
                probed(several[k % len(several)], y, rows, mix(seed, k)) for k in range(probes)
            ]
            values[of] = [float(one.mean()) for one in right]
            # probes of one network are no independent samples: each network counts once
            networks = min(len(several), probes)
            each = [np.mean(right[i :: len(several)], 0) for i in range(networks)]
            outcomes[of] = np.stack(each)
    sizes = ", ".join(f"{len(r)} {name}" for name, r in zip(("teach", "choose", "test"), rows))
    result = conclude(
        "nodes",
        values,
        {of: shown(outcome, seed) for of, outcome in outcomes.items()},
        lambda control: difference(outcomes[PRETRAINED][0], outcomes[control], seed),
        f"{len(y)} nodes: {sizes}; {probes} probes each. ± is half of a 95 % interval over test "
        "nodes and untrained networks, not over probes.",
        [],
        encoder,
        source.place,
        began,
    )
    keep(run if write else None, "nodes", result)
    return result


def _parts(
    parts: tuple[np.ndarray, list[str]] | None, y: Tensor, place: str
) -> list[Int64[Tensor, " n"]]:
    """Labelled nodes that teach, choose and test."""
    rows = []
    for names in ({"train", "training"}, {"val", "valid", "validation", "dev"}, {"test"}):
        known = [i for i, name in enumerate(parts[1] if parts else []) if name.lower() in names]
        keep = np.isin(parts[0], known) if parts else np.zeros(len(y), bool)
        rows.append((torch.from_numpy(keep) & (y >= 0)).nonzero()[:, 0])
        if not len(rows[-1]):
            raise SelfsupError(
                "E503", f"no labelled nodes of the part {sorted(names)[0]!r}", where=place,
                why="the protocol needs nodes that teach, that choose and that test",
                do="name parts in the column `split`, or leave --task out: a part is drawn then",
            )  # fmt: skip
    return rows


def shown(outcome: Float[np.ndarray, "networks n"], seed: int) -> Interval:
    """The accuracy, with an interval over test nodes and, where there are several, networks."""
    found = over_samples(outcome.mean(0), seed)
    half, kind = found.half, found.kind
    if len(outcome) > 1:
        half = float(np.hypot(half, over_seeds(outcome.mean(1).tolist()).half))
        kind += f" and t over {len(outcome)} networks"
    return Interval(found.value, found.value - half, found.value + half, kind)


def probed(
    x: Float[Tensor, "n d"], y: Int64[Tensor, " n"], rows: list[Int64[Tensor, " m"]], seed: int
) -> Float[np.ndarray, " m"]:
    """Whether each test node is right, 0 or 1, at the epoch with the best validation accuracy."""
    stop.check()
    x = normalize(x)
    generator = torch.Generator().manual_seed(seed)
    layer = nn.Linear(x.shape[1], int(y.max()) + 1)
    bound = x.shape[1] ** -0.5
    with torch.no_grad():
        for part in layer.parameters():
            part.uniform_(-bound, bound, generator=generator)
    optimizer = torch.optim.Adam(layer.parameters(), lr=RATE, weight_decay=DECAY, fused=True)
    (x1, x2, x3), (y1, y2, y3) = zip(*((x[r], y[r]) for r in rows), strict=True)
    best, right = -1.0, np.zeros(len(y3))
    for _ in range(EPOCHS):
        cross_entropy(layer(x1), y1).backward()
        optimizer.step()
        optimizer.zero_grad()
        with torch.no_grad():
            chosen = float((layer(x2).argmax(1) == y2).double().mean())
            if chosen > best:
                best, right = chosen, (layer(x3).argmax(1) == y3).double().numpy()
    return right
