"""The tasks by name."""

from importlib import import_module

from ..console import did_you_mean
from ..errors import SelfsupError
from .tasks import Task

# name -> file and class
TASKS = {
    "classify": ("tasks", "Classify"),
    "regress": ("tasks", "Regress"),
    "transcribe": ("transcribe", "Transcribe"),
    "forecast": ("forecast", "Forecast"),
    "segment": ("segment", "Segment"),
}


def task_class(name: str) -> type[Task]:
    """Raises SelfsupError E201 for a name that is not there."""
    if name not in TASKS:
        raise SelfsupError(
            "E201", f"there is no task {name!r}", why=f"known: {', '.join(TASKS)}",
            do=did_you_mean(name, TASKS),
        )  # fmt: skip
    file, found = TASKS[name]
    return getattr(import_module(f"{__package__}.{file}"), found)
