"""A run is a folder. Everything about it is in there, in files that any program can read.

resolved.toml        every setting; `selfsup pretrain` repeats the run from it
env.json             versions, machine, command line
encoder.json         what is needed, with encoder.safetensors, to rebuild the encoder
data/manifest.json   what the data were; data/names.npy: hashes of each name and of its state
data/skipped.jsonl   samples that could not be read, with the reason
checkpoints/step-000123/   method, optimizer, encoder (safetensors), state.json, MANIFEST.json
metrics.jsonl  events.jsonl  log.txt
evaluation.json  report.html
DONE or FAILED       how it ended, in JSON
lock  owner.json     who works on it now
"""

import hashlib
import json
import os
import platform
import socket
import sys
import threading
import time
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .errors import SelfsupError
from .logs import Lines, Row, replace

HEARTBEAT = 10.0  # seconds
LABELLED = "LABELLED_DATA"  # what an encoder is judged by, where its own data cannot
SILENT = 90.0  # seconds without a heartbeat after which an owner on another host counts as dead


class Run:
    """A run's folder, made if need be. `Run.open` is for one that must exist already."""

    def __init__(self, path: str | Path):
        self.path = Path(path)
        for part in ("data", "checkpoints"):
            (self.path / part).mkdir(parents=True, exist_ok=True)
        self._depth = 0

    @classmethod
    def open(cls, path: "str | Path | Run") -> "Run":
        """An existing run. Raises SelfsupError E301 when the folder is not one."""
        if isinstance(path, Run):
            return path
        path = Path(path)
        if not (path / "checkpoints").is_dir():
            raise SelfsupError(
                "E301",
                f"{path} is not a run",
                why="no folder with checkpoints there",
                do="give the folder that `selfsup pretrain` printed, by default under runs/",
            )
        return cls(path)

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r}, {self.status})"

    def _repr_html_(self) -> str:
        from html import escape

        return f"<code>{escape(str(self.path))}</code>: {escape(self.status)}"

    # -- what is in it --------------------------------------------------------------------------

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def checkpoint(self) -> Path:
        """The newest checkpoint that verifies. Raises SelfsupError E305 when there is none."""
        from .checkpoint import newest_whole

        found = newest_whole(self.checkpoints)
        if found is None:
            raise SelfsupError(
                "E305",
                f"{self.path} has no usable checkpoint",
                where=str(self.checkpoints),
                do="repeat the `selfsup pretrain` command: it starts again",
            )
        return found

    @property
    def metrics(self) -> Lines:
        return Lines(self.path / "metrics.jsonl")

    @property
    def events(self) -> Lines:
        return Lines(self.path / "events.jsonl")

    @property
    def done(self) -> Row | None:
        """What DONE says, or None while the run is not finished."""
        return _read_json(self.path / "DONE")

    @property
    def failed(self) -> Row | None:
        return _read_json(self.path / "FAILED")

    @property
    def status(self) -> str:
        """One phrase: finished, failed, running or stopped, and where."""
        if done := self.done:
            return f"finished at step {done['step']}, {done['verdict']}"
        if failed := self.failed:
            return f"failed at step {failed['step']}: {failed['message']}"
        last = max((row["step"] for row in self.metrics.read()), default=0)
        owner = self.owner()
        return f"{'running' if owner and _alive(owner) else 'stopped'} at step {last}"

    # -- how it ends ----------------------------------------------------------------------------

    def finish(self, **facts: Any) -> None:
        (self.path / "FAILED").unlink(missing_ok=True)
        self.write_json("DONE", facts)

    def fail(self, **facts: Any) -> None:
        self.write_json("FAILED", facts)

    def reopen(self) -> None:
        """It goes on: neither DONE nor FAILED any more."""
        for name in ("DONE", "FAILED"):
            (self.path / name).unlink(missing_ok=True)

    def write_json(self, name: str, value: Any) -> None:
        """Put a JSON file into the run, all of it or nothing."""
        from .logs import spell

        text = json.dumps(spell(value), indent=1, ensure_ascii=True)
        replace(self.path / name, f"{text}\n".encode())

    def read_json(self, name: str) -> Any:
        """A JSON file of the run, or None."""
        return _read_json(self.path / name)

    def write_environment(self) -> None:
        """env.json: enough to know why another machine gives other numbers."""
        self.write_json("env.json", environment())

    # -- what it is judged by -------------------------------------------------------------------

    def evaluate(self, data: Any, **settings: Any) -> Any:
        """Judge the encoder by what the data are made for; see `selfsup.evaluate`."""
        import selfsup

        return selfsup.evaluate(self, data, **settings)

    def finetune(self, data: Any, out: str | Path, **settings: Any) -> Any:
        """Teach the encoder what labels say, and keep the model; see `selfsup.finetune`."""
        import selfsup

        return selfsup.finetune(self, data, out, **settings)

    def report(self, **settings: Any) -> Path:
        """Write report.html; see `selfsup.report`."""
        import selfsup

        return selfsup.report(self, **settings)

    # -- settings and data stay the same, or somebody says so -----------------------------------

    @property
    def begun(self) -> bool:
        """Whether anything was trained or is to be: before, nothing binds it to its settings."""
        from .checkpoint import Checkpoints

        # half-written and damaged ones, which have longer names, are not listed
        return bool(Checkpoints(self.checkpoints).list())

    def settle(self, settings: str, *, allow_change: bool = False) -> list[str]:
        """Write resolved.toml (its text is `settings`), or compare with the one that is there.

        Returns the differences, one line each: "train.batch: 128 -> 256". Raises SelfsupError E304
        with them unless `allow_change`.
        """
        path = self.path / "resolved.toml"
        changes: list[str] = []
        if path.exists():
            changes = differences(tomllib.loads(path.read_text("utf-8")), tomllib.loads(settings))
            if changes and not allow_change:
                raise changed("the run was made with other settings", changes, path)
        replace(path, settings.encode())
        return changes

    def settle_data(self, source: Any, *, allow_change: bool = False) -> str:
        """Write what the data are, or compare with what they were.

        Returns "" or "3 added, 1 removed, 2 changed". Raises SelfsupError E308 when they differ,
        unless `allow_change`.
        """
        import io

        import numpy as np

        names = np.fromiter(
            (_hash(source.name(i)) for i in range(len(source))), np.uint64, len(source)
        )
        stamps = source.stamps()
        facts = {"kind": source.kind, "samples": len(source), "fingerprint": source.fingerprint()}
        before, path = self.read_json("data/manifest.json"), self.path / "data" / "names.npy"
        change = ""
        if before is not None and before["fingerprint"] != facts["fingerprint"] and path.exists():
            change = _change(np.load(path, allow_pickle=False), names, stamps)
            if not allow_change:
                raise SelfsupError(
                    "E308",
                    f"the data have changed since the run began: {change}",
                    where=str(self.path / "data" / "manifest.json"),
                    why="samples are drawn by their number, so the run cannot continue as it was",
                    do="--allow-change to go on with the new data, or --out for a new run",
                )
        if change:  # names what was there before; the new data are looked at anew
            (self.path / "data" / "skipped.jsonl").unlink(missing_ok=True)
        buffer = io.BytesIO()
        columns = [names] if stamps is None else [names, stamps]
        np.save(buffer, np.stack(columns, 1), allow_pickle=False)  # (n, 1 or 2)
        replace(path, buffer.getvalue())
        self.write_json("data/manifest.json", facts)
        return change

    def write_counts(self, counts: Row) -> None:
        """Add to data/manifest.json what became of the data: found = used + skipped."""
        before = self.read_json("data/manifest.json") or {}
        self.write_json("data/manifest.json", {**before, **counts})

    # -- one process at a time ------------------------------------------------------------------

    @contextmanager
    def lock(self) -> Iterator["Run"]:
        """Hold the run. Raises SelfsupError E302 naming the process that has it already.

        The kernel releases the lock of a process that died, so a stale one is taken over. Where
        the disk is shared between hosts, an owner's heartbeat decides.
        """
        if self._depth:  # this process holds it already
            self._depth += 1
            try:
                yield self
            finally:
                self._depth -= 1
            return
        from filelock import FileLock, Timeout

        lock, owner = FileLock(self.path / "lock"), self.owner()
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise self._taken(self.owner()) from None
        if owner and owner["host"] != socket.gethostname() and owner["age"] < SILENT:
            lock.release()
            raise self._taken(owner)
        over = threading.Event()
        beat = threading.Thread(target=self._beat, args=(over,), name="heartbeat", daemon=True)
        try:
            self.write_json("owner.json", {"pid": os.getpid(), "host": socket.gethostname()})
            beat.start()
            self._depth = 1
            yield self
        finally:
            self._depth = 0
            over.set()
            if beat.ident is not None:
                beat.join()
            (self.path / "owner.json").unlink(missing_ok=True)
            lock.release()

    def owner(self) -> Row | None:
        """Who works on the run: pid, host and age of the last heartbeat in seconds; or None."""
        path = self.path / "owner.json"
        try:
            facts = json.loads(path.read_bytes())
            return {
                "pid": int(facts["pid"]),
                "host": str(facts["host"]),
                "age": max(0.0, time.time() - path.stat().st_mtime),
            }
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def _beat(self, over: threading.Event) -> None:
        while not over.wait(HEARTBEAT):
            if (self.path / "owner.json").exists():
                os.utime(self.path / "owner.json")

    def _taken(self, owner: Row | None) -> SelfsupError:
        who = (
            f"process {owner['pid']} on {owner['host']}, last heard of {owner['age']:.0f} s ago"
            if owner
            else "a process that has just started"
        )
        return SelfsupError(
            "E302",
            f"another process works on this run: {who}",
            where=str(self.path),
            do="wait for it, stop it, or give another folder with --out",
        )


def environment() -> Row:
    """Versions, machine and command, without anything private."""
    from importlib.metadata import version

    import psutil
    import torch

    packages = ("torch", "numpy", "pillow", "safetensors", "selfsup")
    found = {}
    for package in packages:
        try:
            found[package] = version(package)
        except ModuleNotFoundError:
            found[package] = "not installed as a package"
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
        "gpus": torch.cuda.device_count(),
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "versions": found,
        "command": sys.argv,
    }


def differences(old: Row, new: Row, under: str = "") -> list[str]:
    """What changed between two nested settings, one line a key."""
    lines: list[str] = []
    for key in sorted({*old, *new}):
        name, a, b = under + key, old.get(key), new.get(key)
        if isinstance(a, dict) and isinstance(b, dict):
            lines += differences(a, b, name + ".")
        elif a != b or type(a) is not type(b):
            lines.append(f"{name}: {_show(old, key)} -> {_show(new, key)}")
    return lines


def changed(what: str, changes: list[str], where: Path) -> SelfsupError:
    return SelfsupError(
        "E304",
        what + ":\n    " + "\n    ".join(changes),
        where=str(where),
        why="a run that changes halfway is no longer what its settings say",
        do="--allow-change to go on with the new ones, or --out for a new run",
    )


def _show(settings: Row, key: str) -> str:
    return repr(settings[key]) if key in settings else "(not set)"


def _alive(owner: Row) -> bool:
    """Whether the owner is there: asked of the kernel on this host, judged by age elsewhere."""
    if owner["host"] != socket.gethostname():
        return owner["age"] < SILENT
    import psutil

    return psutil.pid_exists(owner["pid"])


def _change(old: Any, names: Any, stamps: Any) -> str:
    """How data differ from those of which `old` are the hashes and stamps, (n, 1 or 2) uint64."""
    import numpy as np

    old = old.reshape(len(old), -1)  # (runs of the first days have names alone)
    added, removed = len(np.setdiff1d(names, old[:, 0])), len(np.setdiff1d(old[:, 0], names))
    if stamps is None or old.shape[1] < 2:
        told = f"{added} added, {removed} removed"
        return told if added or removed else "the same names, other content or order"
    _, now, then = np.intersect1d(names, old[:, 0], return_indices=True)
    changed = int((stamps[now] != old[then, 1]).sum())
    if not added and not removed and not changed:
        return "the same samples in another order"
    return f"{added} added, {removed} removed, {changed} changed"


def _hash(name: str) -> int:
    encoded = name.encode("utf-8", "surrogateescape")
    return int.from_bytes(hashlib.blake2b(encoded, digest_size=8).digest(), "little")


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except (FileNotFoundError, ValueError):
        return None
