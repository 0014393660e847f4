"""selfsup report: one page about a run."""

from .answer import Answer
from .options import AsJson, Debug, Quiet, RunArgument


def report(
    run: RunArgument,
    quiet: Quiet = False,
    as_json: AsJson = False,
    debug: Debug = False,
) -> Answer:
    """Write RUN/report.html: one file, no network."""
    from ..report import report as write

    path = write(run)
    return Answer({"report": str(path), "bytes": path.stat().st_size}, f"report: {path}")
