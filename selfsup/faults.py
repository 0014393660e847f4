"""Places where tests can make a run fail: inert unless the environment names one.

`SELFSUP_FAULT=checkpoint.after_manifest:kill` kills the process there, `...:kill:3` the third time
it comes by. Actions: kill (SIGKILL), full (the disk is full), memory (the allocator gives up),
terminate (SIGTERM), interrupt (SIGINT). The tests are generated from `POINTS`.
"""

import errno
import os
import signal

POINTS = {
    "checkpoint.begin": "before anything is written",
    "checkpoint.tensor": "before each tensor of each file",
    "checkpoint.before_fsync": "a file is written, the disk may not have it yet",
    "checkpoint.after_fsync": "a file is on the disk",
    "checkpoint.before_manifest": "all files are on the disk, nothing says that they are whole",
    "checkpoint.after_manifest": "the manifest is on the disk, the folder has its temporary name",
    "checkpoint.after_rename": "the folder has its name, its parent is not synced",
    "checkpoint.after_latest": "`latest` names the new checkpoint",
    "checkpoint.prune": "before each old checkpoint is removed",
    "metrics.line": "half of a line is written",
    "plan.measure": "a candidate's speed is about to be measured",
    "train.step": "before a step",
    "train.memory": "after each part's backward pass",
    "train.backward": "between the gradients and the update",
    "train.update": "between the update and `after_step`",
    "train.rollback": "before an older checkpoint is loaded back",
    "run.finish": "training is over, DONE is not written",
    "scan.sample": "a sample was looked at",
    "embed.block": "a block of vectors is computed, not kept",
    "embed.finish": "all blocks are kept, the file is not written",
    "evaluate.features": "a batch of vectors for the evaluation is computed",
    "evaluate.keep": "the vectors of an evaluation are written, its numbers are not",
    "export.prove": "an export is written, not compared",
    "export.place": "an export is proved, not in its place",
    "report.write": "half of a report is written",
}
ACTIONS = ("kill", "full", "memory", "terminate", "interrupt")

_seen: dict[str, int] = {}


def at(point: str) -> None:
    """Fail here if the environment says so.

    Raises OSError (full) or RuntimeError with the words of PyTorch's CPU allocator (memory).
    """
    assert point in POINTS, point
    wanted = os.environ.get("SELFSUP_FAULT")
    if not wanted:
        return
    name, action, *times = wanted.split(":")
    assert name in POINTS and action in ACTIONS, wanted
    if name != point:
        return
    _seen[point] = _seen.get(point, 0) + 1
    if _seen[point] != int(times[0] if times else 1):
        return
    if action == "full":
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    if action == "memory":
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate")
    signals = {"kill": signal.SIGKILL, "terminate": signal.SIGTERM, "interrupt": signal.SIGINT}
    os.kill(os.getpid(), signals[action])
