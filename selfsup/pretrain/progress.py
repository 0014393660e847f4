"""What a person hears of a run while it trains."""

import json

from ..console import Console, duration
from ..logs import Row
from ..run import Run
from .job import Job


class Progress:
    """The line that a person watches, and the events that a person should hear of."""

    def __init__(self, console: Console, job: Job, run: Run, fresh: bool):
        self.console, self.job, self.run = console, job, run
        self.first: Row | None = None
        minutes = job.settings.plain().get("train.minutes")
        self.minutes = minutes
        self.predicted = 60 * minutes if minutes and fresh else 0.0
        self._events = run.path / "events.jsonl"
        self._read = self._events.stat().st_size if self._events.exists() else 0
        self.last: dict[str, float] = {}

    def __call__(self, row: Row) -> None:
        self.events()
        self.last |= {k: v for k, v in row.items() if isinstance(v, int | float)}
        left = self._left(row)
        parts = [f"step {row['step']}/{row['steps']}"]
        if row.get("epoch") is not None:
            parts.append(f"epoch {row['epoch']:.2f}")
        parts.append(f"{row['speed/samples_per_second']:.0f} samples/s")
        if left is not None:
            parts.append(f"{duration(left)} left")
        parts.append(f"data {100 * row['speed/data_wait']:.0f} %")
        terms = [key for key in row if key.startswith("train/")]
        for key in terms:
            if key not in ("train/loss", "train/lr", "train/grad_norm"):
                parts.append(f"{key.removeprefix('train/')} {row[key]:.3f}")
        if "monitor/rank" in self.last:
            parts.append(f"rank {self.last['monitor/rank']:.1f}")
        if "eval/knn_top1" in self.last:
            parts.append(f"kNN {100 * self.last['eval/knn_top1']:.1f} %")
        self.console.progress("  ".join(parts))

    def _left(self, row: Row) -> float | None:
        """Seconds to go, once five steps were seen."""
        if self.first is None:
            self.first = row
        steps = row["step"] - self.first["step"]
        if self.minutes:
            return max(0.0, 60 * self.minutes - row["time"])
        if steps < 5:
            return None
        pace = (row["time"] - self.first["time"]) / steps
        left = pace * (row["steps"] - row["step"])
        if not self.predicted:
            self.predicted = row["time"] + left
            self.console.say(f"this will take about {duration(self.predicted)}")
        return left

    def events(self) -> None:
        """Say what has been added to events.jsonl since the last look."""
        if not self._events.exists() or self.console.quiet:
            return
        with self._events.open("rb") as file:
            file.seek(self._read)
            for line in file:
                if not line.endswith(b"\n"):
                    break
                self._read += len(line)
                event = json.loads(line)
                style = "yellow" if event.get("verdict") not in ("", "healthy") else "dim"
                parts = [event["message"], event.get("cause"), event.get("do")]
                self.console.say("  ".join(p for p in parts if p), style)
