"""The verbs: nothing but argument handling, a file for each. `selfsup VERB --help` documents them.

The result goes to stdout (one JSON object with --json), everything else to stderr. What a verb
needs is imported inside it, so that help is instant.
"""

import sys
import traceback
import warnings
from collections import Counter
from typing import Annotated, Any

import typer

from .. import __version__
from ..stop import PATIENCE, stop
from .answer import Answer
from .compare import compare
from .demo import demo
from .doctor import doctor
from .embed import embed
from .evaluate import evaluate
from .export import export
from .finetune import finetune
from .generate import generate
from .mistakes import told, translate
from .plan import plan
from .predict import predict
from .pretrain import pretrain
from .report import report
from .scan import scan
from .search import search
from .shelves import list_shelf
from .simulate import simulate
from .variants import variants

__all__ = ["app", "main", "translate"]

app = typer.Typer(
    name="selfsup",
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    help="Learn an encoder from unlabelled data, and find out honestly whether it helped.",
    epilog="Start with: selfsup demo, or selfsup scan photos/ and selfsup pretrain photos/",
)

for verb in (  # as the help lists them
    pretrain,
    evaluate,
    compare,
    generate,
    variants,
    search,
    simulate,
    plan,
    finetune,
    predict,
    embed,
    report,
    export,
    scan,
    doctor,
    demo,
):
    app.command()(verb)
app.command("list")(list_shelf)


@app.callback(invoke_without_command=True)
def front(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="print the version and stop")] = False,
) -> None:
    if version:
        print(f"selfsup {__version__}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        print(context.get_help())


def main(arguments: list[str] | None = None) -> int:
    """Run one command line and return its exit code."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    as_json, debug = "--json" in arguments, "--debug" in arguments
    out, sys.stdout = sys.stdout, sys.stderr if as_json else sys.stdout
    kept_back = _hold_warnings(debug)
    stop.signal = None
    try:
        with stop.installed(PATIENCE):
            answer = typer.main.get_command(app).main(arguments, "selfsup", standalone_mode=False)
    except BaseException as error:  # noqa: BLE001 (the last stop: told, never swallowed)
        if debug and not isinstance(error, SystemExit):
            traceback.print_exc()
        answer = told(error)
    finally:
        sys.stdout = out
    if isinstance(answer, Answer):
        answer.show(as_json)
    if kept_back and not debug:
        count = sum(kept_back.values())
        plural = "s" if count > 1 else ""
        print(f"({count} warning{plural} from libraries; --debug shows them)", file=sys.stderr)
    return answer.exit_code if isinstance(answer, Answer) else int(answer or 0)


def _hold_warnings(debug: bool) -> Counter:
    """Libraries' warnings are counted, and shown only where somebody looks for a fault."""
    held: Counter = Counter()
    if not debug:

        def hold(message: Any, category: type, *rest: Any) -> None:
            held[f"{category.__name__}: {message}"] += 1

        warnings.showwarning = hold  # type: ignore[assignment]
    return held
