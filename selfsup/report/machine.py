"""What the run took, and where it ran: time, energy, versions."""

from typing import Any

import numpy as np

from ..console import duration, size
from ..energy import Energy, estimate
from . import scores
from .page import Markup, clean, facts, missing, section, table, tag
from .plots import number
from .reading import Folder


def machine(folder: Folder, version: str) -> Markup:
    env = flat(folder.env)
    parts: list[object] = []
    used: list[tuple[object, object]] = []
    if (seconds := trained_seconds(folder)) is not None:
        used.append(("training time", duration(seconds)))
    if (spent := energy(folder)) is not None:
        word = "measured" if spent.measured else "estimated"
        amount = (
            f"{spent.kilowatt_hours:.2g} kWh"
            if spent.joules >= 3600
            else f"{number(spent.joules)} J"
        )
        used.append((f"energy, {word}", amount))
    samples = folder.metrics.last.get("samples")
    if samples is not None and np.isfinite(samples):
        used.append(("samples seen", f"{samples:,.0f}"))
    if (weights := _weights(folder)) is not None:
        used.append(("encoder on disk", size(weights)))
    if folder.checkpoints:
        used.append(
            (
                "checkpoints",
                f"{len(folder.checkpoints)}, newest {clean(folder.checkpoints[-1], 40)}",
            )
        )
    if used:
        parts.append(facts(used))
    if spent is not None:
        parts.append(
            tag(
                "p",
                f"Energy: {'' if spent.measured else 'an estimate that '}{spent.how}.",
                class_="note",
            )
        )
    if not folder.checkpoints:
        parts.append(missing("a checkpoint; one is written every few minutes and at the end."))
    if env:
        rows = [[clean(k, 80), clean(v, 300)] for k, v in list(env.items())[:60]]
        parts.append(
            table(["what", "value"], rows, caption="Machine and versions at the time of training")
        )
    else:
        parts.append(
            missing("the machine and the versions; env.json is written when training starts.")
        )
    parts.append(tag("p", f"Report written by selfsup {version}.", class_="note"))
    return section("machine", "Time, energy, versions", parts)


def trained_seconds(folder: Folder) -> float | None:
    """Seconds of training, from the last row's own clock."""
    value = folder.metrics.last.get("time")
    return None if value is None or not np.isfinite(value) else float(value)


def energy(folder: Folder) -> Energy | None:
    """Measured where the rows count joules to the end, estimated from the time elsewhere."""
    joules = folder.metrics.last.get("energy/joules")
    counted = folder.metrics.curves.get("energy/joules")
    # a run that went on where nothing counts has rows without: those before are not the whole
    whole = counted is not None and counted.x[-1:] == folder.metrics.last.get("step")
    if joules is not None and np.isfinite(joules) and whole:
        return Energy(
            float(joules),
            True,
            "read from the processor's own counters (RAPL), which count all programs on the "
            "machine, but neither graphics processors nor, mostly, memory",
        )
    seconds = trained_seconds(folder)
    if seconds is None:
        return None
    cores, gpus = (_count(folder.env.get(name)) for name in ("cores", "gpus"))
    return estimate(seconds, cores or 1, scores.number(folder.env.get("memory_gb")) or 0.0, gpus)


def _count(value: Any) -> int:
    return value if isinstance(value, int) and 0 < value < 10_000 else 0


def flat(tree: dict[str, Any], prefix: str = "", depth: int = 0) -> dict[str, Any]:
    """Nested objects as dotted names."""
    found: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, dict) and depth < 4:
            found |= flat(value, f"{prefix}{key}.", depth + 1)
        else:
            found[prefix + str(key)] = value
    return found


def _weights(folder: Folder) -> int | None:
    if not folder.checkpoints:
        return None
    path = folder.path / "checkpoints" / folder.checkpoints[-1] / "encoder.safetensors"
    return path.stat().st_size if path.is_file() else None
