"""One HTML file that says what a run did and whether it helped: no network, no script, under 10 MB.

    path = report("runs/a")

It renders for a run in any state and says what is missing and which command adds it.
"""

import os
import tempfile
from pathlib import Path
from typing import Any

from .. import faults
from ..errors import SelfsupError

__all__ = ["report", "write"]

LIMIT = 10_000_000  # bytes of the file, as mail servers count


def report(run: Any) -> Path:
    """Write RUN/report.html and return its path. `run` is a run folder or a `Run`.

    Raises SelfsupError: E301 there is no such folder, E701 it cannot be written.
    """
    from .. import __version__
    from .curves import curves
    from .data import data
    from .gallery import gallery
    from .health import events
    from .helped import evaluation, tasks
    from .machine import machine
    from .page import clean, document, tag
    from .planning import planning
    from .reading import read
    from .settings import settings
    from .verdict import verdict

    path = Path(getattr(run, "path", run))
    if not path.is_dir():
        raise SelfsupError(
            "E301",
            f"no run folder at {clean(path)}",
            why="a report is made from the folder that pretrain writes",
            do="selfsup pretrain DATA --out " + clean(path),
        )
    folder = read(path)
    parts = [
        ("evaluation", "Did it help?", evaluation(folder)),
        *planning(folder),
        *tasks(folder),
        ("curves", "Training", curves(folder)),
        ("health", "Health", events(folder)),
    ]
    parts += gallery(folder)
    parts += [
        ("data", "Data", data(folder)),
        ("settings", "Settings", settings(folder)),
        ("machine", "Time, energy, versions", machine(folder, __version__)),
    ]
    name = path.resolve().name
    method, encoder = folder.setting("method.name"), folder.setting("encoder.name")
    about = [f"{method} on {encoder}" if method and encoder else None, folder.setting("data.path")]
    links = [("verdict", "Verdict"), *((anchor, title) for anchor, title, _ in parts)]
    body = [
        tag("a", "Skip to the verdict", href="#verdict", class_="skip"),
        tag(
            "header",
            tag("h1", f"selfsup report: {clean(name, 120)}"),
            tag("p", " · ".join(clean(a, 200) for a in about if a), class_="subtitle"),
            tag(
                "nav",
                tag("ul", [tag("li", tag("a", t, href=f"#{a}")) for a, t in links]),
                aria_label="Contents",
            ),
        ),
        tag(
            "main",
            verdict(folder),
            [markup for _, _, markup in parts],
            tag(
                "section",
                tag("h2", "What could not be read"),
                tag("ul", [tag("li", p) for p in folder.problems]),
            )
            if folder.problems
            else None,
        ),
        tag("footer", "One file, no network, no scripts: it can be mailed, archived and printed."),
    ]
    html = document(f"selfsup report: {clean(name, 120)}", body, generator=f"selfsup {__version__}")
    return write(path / "report.html", html.encode())


def write(path: Path, content: bytes) -> Path:
    """Replace the file as a whole, so that whoever has it open never sees half of it."""
    temporary = None
    try:
        handle, temporary = tempfile.mkstemp(prefix=".report-", suffix=".html", dir=path.parent)
        with os.fdopen(handle, "wb") as file:
            file.write(content[: len(content) // 2])
            faults.at("report.write")
            file.write(content[len(content) // 2 :])
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except OSError as error:
        raise SelfsupError(
            "E701",
            f"the report cannot be written: {error.strerror or error}",
            where=str(path),
            why=f"it needs {len(content):,} bytes",
            do="free some space or give the folder write permission, then try again",
        ) from error
    finally:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)
    return path
