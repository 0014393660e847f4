"""selfsup doctor: is this machine fine?"""

from ..console import Console
from .answer import Answer
from .options import AsJson, Debug, Quiet


def doctor(
    quiet: Quiet = False,
    as_json: AsJson = False,
    debug: Debug = False,
) -> Answer:
    """Is this machine fine? Ends with a self-test.

    The self-test trains for a few seconds, is killed, resumes, and compares the weights with a
    run that was left alone. Exit code 1 where something must be mended.
    """
    from ..doctor import examine

    checks = examine(Console(quiet=quiet))
    return Answer(checks.to_json(), checks.text(), checks.exit_code)
