"""selfsup evaluate: did pretraining help?"""

from typing import Annotated

import typer

from ..console import Console
from .answer import Answer
from .options import (
    AsJson,
    Cache,
    Debug,
    DropLeaks,
    FollowLinks,
    Labels,
    Quiet,
    RunArgument,
    counts,
)


def evaluate(
    run: RunArgument,
    data: Annotated[str, typer.Argument(help="labelled folder or CSV", metavar="LABELLED")],
    labels: Labels = None,
    task: Annotated[
        str | None, typer.Option(help="what to judge by; default: what the data suggest")
    ] = None,
    shots: Annotated[
        str, typer.Option(help="labels per class in the few-label curve")
    ] = "1,10,100",
    seeds: Annotated[int, typer.Option(help="repetitions behind each interval", min=2)] = 5,
    finetune: Annotated[
        bool, typer.Option("--finetune/--no-finetune", help="also fine-tune (slower)")
    ] = True,
    attentive: Annotated[
        bool, typer.Option("--attentive", help="also a probe that learns where to look (slower)")
    ] = False,
    minutes: Annotated[
        float, typer.Option(help="for fine-tuning and training from scratch, in all", min=0.01)
    ] = 10.0,
    template: Annotated[
        list[str] | None,
        typer.Option(help="a sentence around the name of a class, {}: --task zeroshot"),
    ] = None,
    old: Annotated[
        str | None,
        typer.Option(help="data of before --from, labelled or text: what was forgotten"),
    ] = None,
    drop_leaks: DropLeaks = False,
    cache: Cache = None,
    follow_links: FollowLinks = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
    debug: Debug = False,
) -> Answer:
    """Did pretraining help? The verdict, with numbers.

    kNN, linear probe, fine-tuning and few labels, with several seeds and 95 % intervals, each
    score beside the same encoder untrained and plain pixels.
    """
    from ..evaluate import evaluate as judge

    found = judge(
        run,
        data,
        task=task,
        shots=counts(shots),
        seeds=seeds,
        finetune=finetune,
        attentive=attentive,
        minutes=minutes,
        labels=labels,
        templates=template or (),
        old=old,
        drop_leaks=drop_leaks,
        cache=cache,
        follow_links=bool(follow_links),
        console=Console(quiet=quiet),
    )
    return Answer.of(found)
