"""selfsup generate: go on with a text."""

from typing import Annotated

import typer

from .answer import Answer
from .options import AsJson, Debug, Quiet, RunArgument


def generate(
    run: RunArgument,
    prompt: Annotated[str, typer.Option(help="the text to go on with")] = "",
    tokens: Annotated[int, typer.Option(help="tokens to add, at most", min=1)] = 200,
    temperature: Annotated[
        float, typer.Option(help="0 takes the likeliest token each time", min=0)
    ] = 0.8,
    top_p: Annotated[
        float, typer.Option("--top-p", help="share of the probability that is drawn from")
    ] = 0.95,
    seed: Annotated[int, typer.Option(help="the same seed writes the same text")] = 0,
    quiet: Quiet = False,
    as_json: AsJson = False,
    debug: Debug = False,
) -> Answer:
    """Go on with a text, by an encoder that clm or mdlm has trained."""
    from ..generate import generate as write

    written = write(run, prompt, tokens=tokens, temperature=temperature, top_p=top_p, seed=seed)
    return Answer.of(written)
