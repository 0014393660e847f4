"""The verbs: nothing but argument handling. `selfsup VERB --help` documents each.

The result goes to stdout (one JSON object with --json), everything else to stderr. What a verb
needs is imported inside it, so that help is instant.
"""

import json
import os
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer

from .errors import SelfsupError
from .stop import PATIENCE, Stopped, stop

app = typer.Typer(
    name="selfsup",
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    add_completion=False,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    help="Learn an encoder from unlabelled data, and find out honestly whether it helped.",
    epilog="Start with: selfsup demo, or selfsup scan photos/ and selfsup pretrain photos/",
)


class Answer(NamedTuple):
    """What a verb found: for a program, for a person, and the exit code of the command."""

    result: dict[str, Any]
    text: str
    exit_code: int = 0


# ---- options that several verbs share --------------------------------------------------------

AsJson = Annotated[
    bool, typer.Option("--json", help="print one JSON object on stdout, nothing else")
]
Debug = Annotated[bool, typer.Option("--debug", help="show the traceback of an error")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="no progress, only the result")]
Cache = Annotated[
    str | None, typer.Option("--cache", help="folder for decoded samples (also SELFSUP_CACHE)")
]
FollowLinks = Annotated[
    bool | None, typer.Option("--follow-links", help="follow links that lead out of the folder")
]
DataArgument = Annotated[
    str,
    typer.Argument(
        help="folder, text file, tar shards, .parquet, .csv, .jsonl, .npy", metavar="DATA"
    ),
]
RunArgument = Annotated[str, typer.Argument(help="folder of a run", metavar="RUN")]
Labels = Annotated[
    str | None, typer.Option("--labels", help="CSV with the columns path,label", metavar="CSV")
]


@app.callback(invoke_without_command=True)
def front(
    version: Annotated[bool, typer.Option("--version", help="print the version and stop")] = False,
) -> None:
    if version:
        from . import __version__

        print(f"selfsup {__version__}")
        raise typer.Exit


# ---- verbs -----------------------------------------------------------------------------------


@app.command()
def pretrain(
    data: Annotated[
        str | None,
        typer.Argument(
            help="folder, text file, tar shards, .parquet, .csv, .jsonl, .npy", metavar="DATA"
        ),
    ] = None,
    method: Annotated[
        str | None, typer.Option(help="self-supervised method: selfsup list methods")
    ] = None,
    encoder: Annotated[
        str | None, typer.Option(help="network to train: selfsup list encoders")
    ] = None,
    minutes: Annotated[
        float | None, typer.Option(help="length in minutes; all else is chosen to fit")
    ] = None,
    epochs: Annotated[float | None, typer.Option(help="length in passes over the data")] = None,
    steps: Annotated[int | None, typer.Option(help="length in optimizer steps")] = None,
    batch: Annotated[int | None, typer.Option(help="samples per step, over all processes")] = None,
    resolution: Annotated[
        int | None, typer.Option(help="size of a view: pixels a side, tokens, time steps")
    ] = None,
    modality: Annotated[
        str | None, typer.Option(help="what the samples are: selfsup list modalities")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="all random numbers follow from it")] = None,
    out: Annotated[
        Path | None, typer.Option(help="folder of the run; an existing run is continued")
    ] = None,
    start_from: Annotated[
        list[str] | None,
        typer.Option(
            "--from", help="start from this run's weights; TOWER=RUN: that tower", metavar="RUN"
        ),
    ] = None,
    labels: Annotated[
        str | None,
        typer.Option(help="labelled folder or CSV to watch progress by; never in the loss"),
    ] = None,
    config: Annotated[Path | None, typer.Option(help="TOML file with settings")] = None,
    sets: Annotated[
        list[str] | None,
        typer.Option("--set", help="any setting, e.g. --set optim.lr=1e-3", metavar="KEY=VALUE"),
    ] = None,
    shard: Annotated[
        bool | None, typer.Option("--shard", help="spread the weights over processes (FSDP2)")
    ] = None,
    workers: Annotated[int | None, typer.Option(help="threads that prepare batches")] = None,
    cache: Cache = None,
    follow_links: FollowLinks = None,
    drop_copies: Annotated[
        bool | None,
        typer.Option("--drop-copies", help="leave out files that are copies, byte for byte"),
    ] = None,
    keep_truncated: Annotated[
        bool | None,
        typer.Option("--keep-truncated", help="use what can be read of files cut short"),
    ] = None,
    allow_change: Annotated[
        bool,
        typer.Option("--allow-change", help="continue a run although its settings or data changed"),
    ] = False,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="20 real steps, then time, memory, disk, GO or NO-GO"),
    ] = False,
    print_config: Annotated[
        bool,
        typer.Option("--print-config", help="print each setting, its source and reason; stop"),
    ] = False,
    quiet: Quiet = False,
    as_json: AsJson = False,
    debug: Debug = False,
) -> Answer:
    """Train an encoder on unlabelled data.

    Whatever is not given is chosen, and each choice is printed with its reason.
    The same command with the same --out continues an interrupted run; a finished run says so.
    Ctrl-C saves and stops.
    """
    from .console import Console
    from .pretrain import start
    from .settings import Given, gather

    whole, towers = _starts(start_from or ())
    options = {
        "data.path": (data, "DATA"),
        "modality.name": (modality, "--modality"),
        "method.name": (method, "--method"),
        "encoder.name": (encoder, "--encoder"),
        "train.minutes": (minutes, "--minutes"),
        "train.epochs": (epochs, "--epochs"),
        "train.steps": (steps, "--steps"),
        "train.batch": (batch, "--batch"),
        "data.resolution": (resolution, "--resolution"),
        "train.seed": (seed, "--seed"),
        "start_from": (whole, "--from"),
        "start_towers": (towers, "--from"),
        "data.labels": (labels, "--labels"),
        "train.shard": (shard, "--shard"),
        "data.workers": (workers, "--workers"),
        "data.cache": (cache, "--cache"),
        "data.follow_links": (follow_links, "--follow-links"),
        "data.drop_copies": (drop_copies, "--drop-copies"),
        "modality.keep_truncated": (keep_truncated, "--keep-truncated"),
    }
    given = gather(
        file=config,
        options={k: Given(v, flag) for k, (v, flag) in options.items() if v is not None},
        sets=sets or (),
    )
    done = start(
        given,
        out=out,
        dry_run=dry_run,
        print_config=print_config,
        allow_change=allow_change,
        console=Console(quiet=quiet),
    )
    return Answer(done.result, done.text, done.exit_code)


@app.command()
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
        typer.Option(help="text of before --from, for what was forgotten: --task perplexity"),
    ] = None,
    drop_leaks: Annotated[
        bool, typer.Option("--drop-leaks", help="take test samples out of the training part")
    ] = False,
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
    from .console import Console
    from .evaluate import evaluate as judge
    from .evaluate import tasks
    from .load import load

    wanted = _numbers(shots, "--shots")
    task = task or tasks.suggested(load(run).modality.name, data, labels)
    if task != tasks.CLASSIFY:
        told = tasks.find(task).evaluate_task(
            run,
            data,
            seeds=seeds,
            minutes=minutes,
            console=Console(quiet=quiet),
            **_set(
                labels=labels, cache=cache, follow_links=follow_links, templates=template, old=old
            ),
        )
        return Answer(told.to_json(), str(told))
    found = judge(
        run,
        data,
        shots=wanted,
        seeds=seeds,
        finetune=finetune,
        attentive=attentive,
        minutes=minutes,
        drop_leaks=drop_leaks,
        console=Console(quiet=quiet),
        **_set(labels=labels, cache=cache, follow_links=follow_links),
    )
    return Answer(found.to_json(), str(found))


@app.command()
def compare(
    data: DataArgument,
    methods: Annotated[
        str, typer.Option(help="methods to compare, parted by commas: selfsup list methods")
    ] = "",
    vary: Annotated[
        str | None,
        typer.Option(help="views: one method, each operation of its views left out in turn"),
    ] = None,
    minutes: Annotated[
        float | None, typer.Option(help="for all training together; 30 where no length is given")
    ] = None,
    steps: Annotated[int | None, typer.Option(help="length of one full run instead")] = None,
    labels: Annotated[
        str | None, typer.Option(help="labelled folder or CSV to rank by; never in a loss")
    ] = None,
    out: Annotated[Path, typer.Option(help="folder of the comparison")] = Path("runs/compare"),
    seed: Annotated[int, typer.Option(help="all random numbers follow from it")] = 0,
    sets: Annotated[
        list[str] | None,
        typer.Option("--set", help="a setting of all runs, as of pretrain", metavar="KEY=VALUE"),
    ] = None,
    cache: Cache = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
    debug: Debug = False,
) -> Answer:
    """Which method suits these data: the same budget for all, one leaderboard.

    The worse half stops at a quarter of a full run, and of the others at a half. The same command
    goes on where it was.
    """
    from .compare import compare as run_all
    from .console import Console
    from .settings import gather

    given = {key: item.value for key, item in gather(sets=sets or ()).items()}
    found = run_all(
        data,
        methods=[name.strip() for name in methods.split(",") if name.strip()],
        vary=vary,
        minutes=minutes,
        steps=steps,
        labels=labels,
        out=out,
        seed=seed,
        settings=given | ({"data.cache": cache} if cache else {}),
        console=Console(quiet=quiet),
    )
    return Answer(found.to_json(), f"{found}\n\nreport: {out / 'report.html'}")


@app.command()
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
    from .generate import generate as write

    written = write(run, prompt, tokens=tokens, temperature=temperature, top_p=top_p, seed=seed)
    return Answer(written.to_json(), str(written))


@app.command()
def variants(
    run: RunArgument,
    data: Annotated[str, typer.Argument(help="table of exchanges or sequences", metavar="TABLE")],
    wild_type: Annotated[
        str | None, typer.Option("--wild-type", help="its letters, or a FASTA file")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="table to write, with the scores (.csv)")] = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
    debug: Debug = False,
) -> Answer:
    """What exchanges of residues do to a protein, by an encoder that mlm has trained."""
    from .console import Console
    from .variants import variants as score

    found = score(run, data, wild_type=wild_type, out=out, console=Console(quiet=quiet))
    return Answer(found.to_json(), str(found))


@app.command()
def search(
    run: RunArgument,
    query: Annotated[str, typer.Argument(help="a text, or a file that is there", metavar="QUERY")],
    data: DataArgument,
    top: Annotated[int, typer.Option(help="samples to show", min=1)] = 10,
    follow_links: FollowLinks = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
    debug: Debug = False,
) -> Answer:
    """The samples nearest to a text or a file, with their cosines.

    A text as the query needs a run on pairs; a file works with any run.
    """
    from .console import Console
    from .search import search as look

    found = look(
        run, query, data, top=top, console=Console(quiet=quiet), **_set(follow_links=follow_links)
    )
    return Answer(found.to_json(), str(found))


@app.command()
def simulate(
    environment: Annotated[str, typer.Argument(help="rooms", metavar="ENVIRONMENT")],
    out: Annotated[Path, typer.Option(help="new folder for the episodes")],
    episodes: Annotated[int, typer.Option(help="how many", min=1)] = 500,
    steps: Annotated[int, typer.Option(help="steps of each", min=2)] = 64,
    seed: Annotated[int, typer.Option(help="the same seed makes the same episodes")] = 0,
    quiet: Quiet = False,
    as_json: AsJson = False,
    debug: Debug = False,
) -> Answer:
    """Make data: episodes of a policy without aim in a simulated world."""
    from .console import Console
    from .simulate import simulate as make

    made = make(
        environment, out, episodes=episodes, steps=steps, seed=seed, console=Console(quiet=quiet)
    )
    return Answer(made.to_json(), str(made))


@app.command("plan")
def plan_episodes(
    run: RunArgument,
    environment: Annotated[str, typer.Option(help="world to act in: rooms")] = "rooms",
    episodes: Annotated[int, typer.Option(help="goals to try", min=1)] = 100,
    planner: Annotated[str, typer.Option(help="mppi or cem")] = "mppi",
    seed: Annotated[int, typer.Option(help="of starts, goals and draws")] = 0,
    quiet: Quiet = False,
    as_json: AsJson = False,
    debug: Debug = False,
) -> Answer:
    """Act by a world model: how many goals are reached, beside controls.

    The goal is a picture; plans are made in the space of the encoder's vectors. Beside it: random
    actions, walking straight with the true places known, and behaviour cloning of the run's data.
    """
    from .console import Console
    from .evaluate.control import control

    told = control(
        run,
        environment=environment,
        episodes=episodes,
        planner=planner,
        seed=seed,
        console=Console(quiet=quiet),
    )
    return Answer(told.to_json(), str(told))


@app.command()
def finetune(
    run: RunArgument,
    data: Annotated[str, typer.Argument(help="labelled folder, table or array", metavar="DATA")],
    out: Annotated[Path, typer.Option(help="folder of the model")] = Path("models/finetuned"),
    labels: Annotated[
        str | None,
        typer.Option(
            help="table with the columns path,label (a class, a number or a text), or a folder of "
            "masks",
            metavar="LABELS",
        ),
    ] = None,
    test: Annotated[
        str | None, typer.Option(help="labelled data for the final number", metavar="DATA")
    ] = None,
    task: Annotated[
        str | None,
        typer.Option(help="classify, regress, transcribe, forecast, segment; default: by labels"),
    ] = None,
    train: Annotated[
        str | None, typer.Option(help="what moves: head, lora, full; default: by their number")
    ] = None,
    horizon: Annotated[int, typer.Option(help="steps that a forecast tells", min=1)] = 24,
    minutes: Annotated[float, typer.Option(help="for all trainings", min=0.01)] = 10.0,
    controls: Annotated[
        bool, typer.Option("--controls/--no-controls", help="also train from scratch (slower)")
    ] = True,
    drop_leaks: Annotated[
        bool, typer.Option("--drop-leaks", help="take test samples out of the training part")
    ] = False,
    seed: Annotated[int, typer.Option(help="of the split and the trainings")] = 0,
    cache: Cache = None,
    follow_links: FollowLinks = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
    debug: Debug = False,
) -> Answer:
    """Teach an encoder what labels say, and keep the model.

    What is asked for is seen from the labels, how much is trained from their number, and both are
    printed. The final number stands beside a frozen probe and the same network from scratch.
    """
    from .console import Console
    from .finetune import finetune as teach

    found = teach(
        run,
        data,
        out,
        horizon=horizon,
        minutes=minutes,
        controls=controls,
        drop_leaks=drop_leaks,
        seed=seed,
        console=Console(quiet=quiet),
        **_set(labels=labels, test=test, task=task, train=train),
        **_set(cache=cache, follow_links=follow_links),
    )
    return Answer(found.to_json(), str(found))


@app.command()
def predict(
    model: Annotated[str, typer.Argument(help="folder of a model", metavar="MODEL")],
    data: DataArgument,
    out: Annotated[Path, typer.Option(help="file to write: .parquet or .csv")] = Path(
        "predictions.parquet"
    ),
    batch: Annotated[int, typer.Option(help="samples at a time", min=1)] = 128,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="replace a file made from other data")
    ] = False,
    follow_links: FollowLinks = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
    debug: Debug = False,
) -> Answer:
    """What a fine-tuned model says of each sample."""
    from .console import Console
    from .predict import predict as write

    result = write(
        model,
        data,
        out,
        batch=batch,
        overwrite=overwrite,
        console=Console(quiet=quiet),
        **_set(follow_links=follow_links),
    )
    found = as_dict(result)
    return Answer(found, sentence(result, found))


@app.command()
def embed(
    run: RunArgument,
    data: DataArgument,
    out: Annotated[Path, typer.Option(help="file to write: .parquet, .npy or .csv")] = Path(
        "vectors.parquet"
    ),
    batch: Annotated[int, typer.Option(help="samples at a time", min=1)] = 128,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="replace a file made from other data")
    ] = False,
    follow_links: FollowLinks = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
    debug: Debug = False,
) -> Answer:
    """One vector per sample, with its id and path."""
    from .console import Console
    from .embed import embed as write

    result = write(
        run,
        data,
        out,
        batch=batch,
        overwrite=overwrite,
        console=Console(quiet=quiet),
        **_set(follow_links=follow_links),
    )
    found = as_dict(result)
    return Answer(found, sentence(result, found))


@app.command()
def report(
    run: RunArgument,
    quiet: Quiet = False,
    as_json: AsJson = False,
    debug: Debug = False,
) -> Answer:
    """Write RUN/report.html: one file, no network."""
    from .report import report as write

    path = write(run)
    return Answer({"report": str(path), "bytes": path.stat().st_size}, f"report: {path}")


@app.command()
def export(
    run: RunArgument,
    to: Annotated[str, typer.Option(help="format: safetensors")] = "safetensors",
    tower: Annotated[
        str | None, typer.Option(help="one of several towers alone: image, text ...")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="folder to write; default RUN/exports")] = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
    debug: Debug = False,
) -> Answer:
    """Write the encoder for use elsewhere, and prove it.

    It is written with its preprocessing, reloaded in a clean process and compared.
    """
    from .export import export as write

    result = write(run, to=to, **_set(out=out, tower=tower))
    found = as_dict(result)
    return Answer(found, sentence(result, found))


@app.command()
def scan(
    data: DataArgument,
    out: Annotated[
        Path | None, typer.Option(help="where to put the sample pictures (.png)")
    ] = None,
    labels: Labels = None,
    skipped: Annotated[
        Path | None, typer.Option(help="where to list the bad files (.jsonl)")
    ] = None,
    hashes: Annotated[
        Path | None, typer.Option(help="remember the files here; the next scan finds changed ones")
    ] = None,
    workers: Annotated[int, typer.Option(help="threads that decode", min=1)] = 2,
    follow_links: FollowLinks = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
    debug: Debug = False,
) -> Answer:
    """What is in the data: counts, bad files, duplicates.

    Counts, sizes, modes, bad files with reasons, exact duplicates and sample pictures.
    """
    from .console import Console
    from .scan import scan as look

    console = Console(quiet=quiet)
    options = _set(
        out=out, labels=labels, skipped=skipped, hashes=hashes, follow_links=follow_links
    )
    result = look(
        data,
        workers=workers,
        progress=lambda seen, total: console.progress(f"{seen} of {total} read"),
        **options,
    )
    found = as_dict(result)
    return Answer(found, sentence(result, found))


@app.command()
def doctor(
    quiet: Quiet = False,
    as_json: AsJson = False,
    debug: Debug = False,
) -> Answer:
    """Is this machine fine? Ends with a self-test.

    The self-test trains for a few seconds, is killed, resumes, and compares the weights with a
    run that was left alone. Exit code 1 where something must be mended.
    """
    from .console import Console
    from .doctor import examine

    checks = examine(Console(quiet=quiet))
    return Answer(checks.to_json(), checks.text(), checks.exit_code)


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="folder of the run")] = Path("runs/demo"),
    seconds: Annotated[float, typer.Option(help="time for pretraining", min=1)] = 17.0,
    quiet: Quiet = False,
    as_json: AsJson = False,
    debug: Debug = False,
) -> Answer:
    """The main job on real digits in under a minute."""
    from .console import Console
    from .demo import demo as show

    shown = show(out=out, seconds=seconds, console=Console(quiet=quiet))
    return Answer(shown.result, shown.text, shown.exit_code)


@app.command("list")
def list_shelf(
    shelf: Annotated[
        str, typer.Argument(help="methods, encoders or modalities", metavar="SHELF")
    ] = "methods",
    quiet: Quiet = False,
    as_json: AsJson = False,
    debug: Debug = False,
) -> Answer:
    """What there is: methods, encoders or modalities."""
    from . import listing
    from .console import columns, did_you_mean

    shelves = {
        "methods": listing.methods,
        "encoders": listing.encoders,
        "modalities": listing.modalities,
    }
    if shelf not in shelves:
        raise SelfsupError(
            "E201",
            f"there is no shelf {shelf!r}",
            why=f"known: {', '.join(shelves)}",
            do=did_you_mean(shelf, shelves),
        )
    entries = list(shelves[shelf]().values())
    rows = []
    for entry in entries:
        rows.append((entry.name, entry.title + (f"  {entry.link}" if entry.link else "")))
        if entry.idea:
            rows.append(("", entry.idea))
        if entry.settings:
            pairs = ", ".join(f"{key}={value}" for key, value in entry.settings.items())
            rows.append(("", f"settings: {pairs}"))
    result = {shelf: [entry.to_json() for entry in entries]}
    return Answer(result, columns(rows, width=100))


# ---- the way in and out ----------------------------------------------------------------------


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
            import traceback

            traceback.print_exc()
        answer = _failed(error)
    finally:
        sys.stdout = out
    if isinstance(answer, Answer):
        _print(json.dumps(_finite(answer.result)) if as_json else answer.text)
    if kept_back and not debug:
        count = sum(kept_back.values())
        plural = "s" if count > 1 else ""
        print(f"({count} warning{plural} from libraries; --debug shows them)", file=sys.stderr)
    return answer.exit_code if isinstance(answer, Answer) else int(answer or 0)


def _failed(error: BaseException) -> Answer | int:
    """Tell an error on stderr; with --json its parts are the result."""
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else 1
    if isinstance(error, KeyboardInterrupt | Stopped) or type(error).__name__ == "Abort":
        print("\nstopped; nothing is half written, the same command begins again", file=sys.stderr)
        code = stop.exit_code or 130
        return Answer({"interrupted": True, "exit_code": code}, "", code)
    told = translate(error)
    from .console import Console

    head, _, rest = str(told).partition("\n")
    console = Console()
    console.tell(head, "red")
    if rest:
        console.tell(rest)
    return Answer({"error": told.to_json(), "exit_code": told.exit_code}, "", told.exit_code)


def translate(error: BaseException) -> SelfsupError:
    """Any exception as one that a person can act on."""
    import errno

    from .console import nearest

    if isinstance(error, SelfsupError):
        return error
    usage: Any = typer.BadParameter.__mro__[1]  # the base of all mistakes on the command line
    if isinstance(error, usage):
        command = error.ctx.command_path if error.ctx else "selfsup"
        what = " ".join(error.format_message().split())
        what, found, hint = what.partition(" Did you mean ")
        hint = hint.replace("'", "")
        option = getattr(error, "option_name", None)
        if option and error.ctx:
            options = [name for param in error.ctx.command.params for name in param.opts]
            close = nearest(option, options)
            what, found, hint = f"there is no option {option}", close, f"{close}?"
        do = f"did you mean {hint}" if found else f"see: {command} --help"
        return SelfsupError("E201", what[:1].lower() + what[1:].rstrip("."), do=do)
    if isinstance(error, ModuleNotFoundError) and not (error.name or "").startswith("selfsup"):
        return SelfsupError(
            "E204",
            f"the package {error.name} is not installed",
            do=f"pip install {error.name}, or see what is there: selfsup doctor",
        )
    if isinstance(error, OSError):
        where = os.fsdecode(error.filename) if error.filename is not None else ""
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        what = "the disk is full" if full else (error.strerror or str(error)).lower()
        do = "free some space and give the same command again" if full else ""
        return SelfsupError("E205", what, where=where, do=do)
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return SelfsupError(
            "E206", "out of memory", why=str(error), do="give a smaller --batch or --encoder"
        )
    return SelfsupError(
        "E299",
        f"{type(error).__name__}: {error}",
        why="this is a fault of selfsup, not of your data or settings",
        do="give the same command with --debug and report what it prints",
    )


def _hold_warnings(debug: bool) -> Counter:
    """Libraries' warnings are counted, and shown only where somebody looks for a fault."""
    import warnings

    held: Counter = Counter()
    if not debug:

        def hold(message: Any, category: type, *rest: Any) -> None:
            held[f"{category.__name__}: {message}"] += 1

        warnings.showwarning = hold  # type: ignore[assignment]
    return held


def _print(text: str) -> None:
    from .console import printable

    others = int(os.environ.get("WORLD_SIZE", "1")) > 1 and os.environ.get("RANK", "0") != "0"
    if not text or others:  # under torchrun the first process speaks for all
        return
    try:
        sys.stdout.write(printable(text, sys.stdout) + "\n")
        sys.stdout.flush()
    except BrokenPipeError:  # the reader has seen enough: `selfsup list methods | head -1`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _finite(value: Any) -> Any:
    """JSON knows no nan and no inf: they are written as text."""
    if isinstance(value, dict):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    if isinstance(value, float) and value - value != 0:
        return "NaN" if value != value else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, Path):
        return str(value)
    return value


def as_dict(result: Any) -> dict[str, Any]:
    """What a verb's function returned, for --json."""
    if hasattr(result, "to_json"):
        return result.to_json()
    return dict(result) if isinstance(result, dict) else {"path": str(result)}


def sentence(result: Any, found: dict[str, Any]) -> str:
    """The same for a person: its own words where it has some."""
    if type(result).__str__ is not object.__str__ and not isinstance(result, dict):
        return str(result)
    from .console import columns

    return columns([(key, str(value)) for key, value in found.items()], width=100)


def _numbers(text: str, flag: str) -> tuple[int, ...]:
    try:
        numbers = tuple(int(part) for part in text.split(",") if part.strip())
    except ValueError:
        numbers = ()
    if not numbers or min(numbers) < 1:
        raise SelfsupError(
            "E201", f"{flag} {text!r} is not a list of counts", do=f"like: {flag} 1,10,100"
        )
    return numbers


def _starts(places: Sequence[str]) -> tuple[str | None, list[str] | None]:
    """The run to start from as a whole, and those of towers, TOWER=RUN."""
    towers = [p for p in places if p.partition("=")[1] and p.partition("=")[0].isidentifier()]
    whole = [p for p in places if p not in towers]
    if len(whole) > 1 or (whole and towers):
        raise SelfsupError(
            "E201",
            f"--from is given {len(places)} times",
            why="a whole run is one start; several are of towers",
            do="--from image=RUN --from text=RUN",
        )
    return next(iter(whole), None), towers or None


def _set(**options: Any) -> dict[str, Any]:
    """The options that were given, so that the functions' own defaults stand for the rest."""
    return {key: value for key, value in options.items() if value is not None}
