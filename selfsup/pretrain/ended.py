"""How a run ended: every sample accounted for, the prediction beside the time, what to do next."""

import shlex
from collections import Counter
from typing import Any, NamedTuple

from .. import distributed
from ..console import duration
from ..errors import SelfsupError
from ..load import CARD, Card, LoadedEncoder
from ..run import LABELLED, Run
from ..settings import Settings
from ..train import Outcome
from .job import Job
from .progress import Progress


class Done(NamedTuple):
    """How `start` ended: for a program, for a person, the exit code, and the run, if any."""

    result: dict[str, Any]
    text: str
    exit_code: int
    run: Run | None = None


def already(run: Run) -> Done:
    facts = run.done or {}
    path = run.path
    text = f"{path} is finished: {facts.get('step')} steps, {facts.get('verdict')}. Nothing to do."
    result = {"run": str(path), "status": "finished", "already_finished": True, **facts}
    return Done(result | {"exit_code": 0}, text, 0, run)


def account(
    run: Run,
    settings: Settings,
    job: Job,
    outcome: Outcome,
    told: Progress,
    seconds: float,
) -> Done:
    """found = used + skipped, predicted against taken, and what to do next."""
    ledger = job.store.ledger
    ledger.take(distributed.collect(ledger.rows))
    counts, reasons = job.store.counts(), ledger.counts()
    assert counts["found"] == counts["used"] + counts["skipped"], counts
    asked = max(job.asked, outcome.step * job.batch)
    counts["unseen"] = max(0, len(job.store) - asked)
    epochs = outcome.step * job.batch / len(job.store)
    status = "finished" if outcome.finished else "stopped"
    if outcome.exit_code in (3, 4):
        status = outcome.verdict
    judged_by = _judged_by(run, settings, job) if status == "finished" else ""
    if distributed.rank() == 0:
        run.write_counts({**counts, "reasons": reasons, "judged_by": judged_by})
    lines = [f"found {counts['found']} = used {counts['used']} + skipped {counts['skipped']}"]
    if reasons:
        listed = ", ".join(f"{count} {code}" for code, count in reasons.items())
        lines[0] += f" ({listed}; see {run.path / 'data' / 'skipped.jsonl'})"
    if counts["unseen"]:
        lines[0] += f"; {counts['unseen']} of the used were not reached yet"
    rows = distributed.collect([dict(job.modality.notes)])
    odd = sum(map(Counter, rows), Counter())
    lines += [f"used, but odd: {what} ({count} times)" for what, count in odd.most_common()]
    if told.predicted and outcome.finished:
        took = duration(outcome.seconds)
        lines.append(f"predicted {duration(told.predicted)}, took {took}")
    said = outcome.message not in ("", outcome.verdict)
    lines.append(f"{outcome.verdict}: {outcome.message}" if said else outcome.verdict)
    lines.append(f"{status} at step {outcome.step} of {outcome.steps} ({epochs:.3g} epochs)")
    folder = shlex.quote(str(run.path))
    if status == "finished":
        links = " --follow-links" * settings["data.follow_links"]
        lines += ["", "next:", f"  selfsup evaluate {folder} {shlex.quote(judged_by)}{links}"]
        lines += [f"  selfsup report {folder}"]
    elif status == "stopped":
        lines += ["", f"saved; to continue: selfsup pretrain --out {folder}"]
    result = {
        "run": str(run.path),
        "status": status,
        "exit_code": outcome.exit_code,
        "step": outcome.step,
        "steps": outcome.steps,
        "epochs": epochs,
        "seconds": seconds,
        "predicted_seconds": told.predicted or None,
        "verdict": outcome.verdict,
        "message": outcome.message,
        "loss": told.last.get("train/loss"),
        "samples_per_second": told.last.get("speed/samples_per_second"),
        "data": counts,
        "skipped": reasons,
        "knn_top1": told.last.get("eval/knn_top1"),
        "settings": settings.plain(),
    }
    return Done(result, "\n".join(lines), outcome.exit_code, run)


def _judged_by(run: Run, settings: Settings, job: Job) -> str:
    """What `selfsup evaluate` is to be given next."""
    from ..evaluate.tasks import wanted

    place = settings["data.path"]
    if settings["data.labels"] or place is None:  # or an object in memory
        return settings["data.labels"] or LABELLED
    encoder = LoadedEncoder(job.method.kept, Card.read(run.path / CARD), job.modality)
    try:
        return wanted(run, encoder, job.store.source, place)
    except (SelfsupError, OSError):  # the data are not there any more
        return LABELLED
