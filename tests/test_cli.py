"""The command line: every option on record, hints, exit codes, JSON, plain errors."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import typer

import selfsup
from selfsup import cli, console
from selfsup.errors import CATALOGUE, SelfsupError

GOLDEN = Path(__file__).parent / "cli_options.txt"
VERBS = typer.main.get_command(cli.app).commands


@pytest.fixture
def say(capsys):
    """Run a command line in this process: exit code, stdout, stderr."""

    def run(*words: str) -> tuple[int, str, str]:
        code = cli.main(list(words))
        out, err = capsys.readouterr()
        return code, out, err

    return run


def options() -> str:
    lines = []
    for verb, command in sorted(VERBS.items()):
        for param in sorted(command.params, key=lambda p: (p.param_type_name, p.opts)):
            names = ", ".join([*param.opts, *param.secondary_opts])
            kind = param.type_descriptor.annotation.__name__ if param.name != "help" else "bool"
            many = " ..." if getattr(param, "multiple", False) else ""
            required = " required" if param.required else f" = {param.default}"
            lines.append(f"{verb} {param.param_type_name} {names} {kind}{many}{required}")
    return "\n".join(lines) + "\n"


def test_options_are_those_on_record():
    """An option, once there, is a promise. To change one on purpose: SELFSUP_GOLDEN=1 pytest."""
    if os.environ.get("SELFSUP_GOLDEN"):
        GOLDEN.write_text(options())
    assert options() == GOLDEN.read_text()


def test_verbs_are_those_of_the_documentation():
    pages = Path(__file__).parent.parent / "docs" / "verbs"
    assert sorted(VERBS) == sorted(page.stem for page in pages.glob("*.md"))


@pytest.mark.parametrize("verb", sorted(VERBS))
def test_every_verb_has_json_debug_quiet_and_help(verb, say):
    flags = {name for param in VERBS[verb].params for name in param.opts}
    assert {"--json", "--debug", "--quiet"} <= flags
    code, out, err = say(verb, "--help")
    assert code == 0 and f"selfsup {verb}" in out and not err
    assert VERBS[verb].help.split(".")[0].split("?")[0] in " ".join(out.split())
    assert "╭" not in out and max(map(len, out.splitlines())) <= 100
    for param in VERBS[verb].params:
        assert param.name == "help" or getattr(param, "help", ""), f"{verb} {param.name}"


def test_alone_it_helps(say):
    assert say() == say("--help") and "pretrain  Train an encoder" in say()[1]
    assert say("--version") == (0, f"selfsup {selfsup.__version__}\n", "")


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["pretrian"], "did you mean pretrain?"),
        (["pretrain", "x", "--metod", "dino"], "did you mean --method?"),
        (["evaluate", "x", "y", "--shot", "1"], "did you mean --shots?"),
        (["evaluate", "x", "y", "--no-finetun"], "did you mean --no-finetune?"),
        (["list", "metods"], "did you mean methods?"),
        (["pretrain", "x", "--method", "simcrl"], "did you mean simclr?"),
        (["pretrain", "x", "--encoder", "resnet81"], "did you mean resnet18?"),
        (["pretrain", "x", "--set", "optim.lrr=1"], "did you mean optim.lr?"),
        (["pretrain", "x", "--set", "optm.lr=1"], "did you mean optim.lr?"),
    ],
)
def test_did_you_mean(words, hint, say):
    code, out, err = say(*words)
    assert code == 2 and hint in err and not out
    assert err.startswith("error[E201] ")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["pretrain", "x", "--minutes", "soon"], 2),
        (["pretrain", "x", "--minutes", "3", "--steps", "3"], 2),
        (["pretrain", "x", "--set", "train.batch=true"], 2),
        (["pretrain", "x", "--minutes", "nan"], 2),
        (["pretrain", "x", "--steps", "0"], 2),
        (["pretrain", "x", "--batch", "1"], 2),
        (["pretrain", "no/such/folder"], 66),
        (["pretrain", "x", "--config", "no/such/file.toml"], 66),
        (["pretrain"], 2),
        (["evaluate", "x", "y", "--shots", "few"], 2),
        (["evaluate", "x", "y", "--shots", "0"], 2),
        (["report"], 2),
        (["list", "zebras"], 2),
    ],
)
def test_exit_codes_and_json_errors(words, expected, say):
    code, out, err = say(*words)
    assert code == expected and not out
    lines = err.strip().splitlines()
    assert lines[0].startswith("error[E")
    assert all(line.startswith("  ") for line in lines[1:]), err
    assert "Traceback" not in err
    code, out, _ = say(*words, "--json")
    told = json.loads(out)
    assert code == expected == told["exit_code"]
    assert told["error"]["code"] in CATALOGUE and told["error"]["what"]


def test_every_error_is_raised_somewhere_and_documented():
    root = Path(__file__).parent.parent
    code = "".join(path.read_text("utf-8") for path in (root / "selfsup").rglob("*.py"))
    assert [e for e in CATALOGUE if code.count(f'"{e}"') < 2] == []
    rows = re.findall(
        r"^\| (E\d+) \| (\d+) \| (.+?) \|", (root / "docs/errors.md").read_text(), re.M
    )
    assert rows == [(e, str(entry.exit_code), entry.title) for e, entry in CATALOGUE.items()]


def test_traceback_only_with_debug(say):
    _, _, err = say("pretrain", "no/such/folder", "--debug")
    assert "Traceback" in err and "error[E101]" in err


@pytest.mark.parametrize("shelf", ["methods", "encoders", "modalities"])
def test_list(shelf, say):
    code, out, _ = say("list", shelf)
    assert code == 0
    code, text, _ = say("list", shelf, "--json")
    entries = json.loads(text)[shelf]
    names = {entry["name"] for entry in entries}
    assert names and all(name in out for name in names)
    wanted = {"methods": "mae", "encoders": "vit_tiny", "modalities": "image"}[shelf]
    assert wanted in names


def test_listed_settings_are_those_of_the_classes():
    """The shelves are read with ast; what they say must be what the code takes."""
    from selfsup import listing, settings

    for shelf, entries in (("method", listing.methods()), ("encoder", listing.encoders())):
        for name, entry in entries.items():
            assert set(entry.settings) == set(settings.keyword_defaults(shelf, name))


def test_a_fault_of_ours_is_said_to_be_one(say, monkeypatch):
    from selfsup import listing

    def broken():
        raise RuntimeError("oh no")

    monkeypatch.setattr(listing, "methods", broken)
    code, _, err = say("list", "methods")
    assert code == 70 and "error[E299] RuntimeError: oh no" in err and "Traceback" not in err


@pytest.mark.parametrize(
    ("error", "code", "exit_code"),
    [
        (OSError(28, "No space left on device"), "E205", 74),
        (OSError(27, "File too large"), "E205", 74),
        (PermissionError(13, "Permission denied", "/a"), "E205", 74),
        (MemoryError(), "E206", 74),
        (ModuleNotFoundError("No module named 'av'", name="av"), "E204", 2),
        (ValueError("x"), "E299", 70),
        (SelfsupError("E101", "x"), "E101", 66),
    ],
)
def test_translate(error, code, exit_code):
    told = cli.translate(error)
    assert told.code == code and told.exit_code == exit_code


def test_warnings_of_libraries_are_counted_not_shown(say, monkeypatch):
    import warnings

    from selfsup import listing

    before = listing.methods

    def warned():
        warnings.warn("deprecated thing", DeprecationWarning, stacklevel=1)
        warnings.warn("another thing", stacklevel=1)
        return before()

    monkeypatch.setattr(listing, "methods", warned)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        _, _, err = say("list", "methods")
    assert "2 warnings from libraries" in err and "thing" not in err


# ---- the terminal


class Stream:
    def __init__(self, terminal: bool, encoding: str = "utf-8"):
        self.terminal, self.encoding, self.text = terminal, encoding, ""

    def isatty(self) -> bool:
        return self.terminal

    def write(self, text: str) -> None:
        text.encode(self.encoding)  # as a real stream would
        self.text += text

    def flush(self) -> None: ...


@pytest.fixture
def plain(monkeypatch):
    for name in ("NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    return monkeypatch


def test_progress_is_one_line_in_30_s_where_there_is_no_terminal(plain):
    out = console.Console(Stream(False))
    for second in range(95):
        out.progress(f"step {second}", now=float(second))
    assert out.stream.text == "step 0\nstep 30\nstep 60\nstep 90\n"


def test_progress_is_rewritten_on_a_terminal(plain):
    out = console.Console(Stream(True))
    out.progress("a long line", now=0.0)
    out.progress("short", now=1.0)
    out.say("done")
    assert out.stream.text.count("\n") == 1 and out.stream.text.endswith("\rdone\n")
    assert "\rshort      " in out.stream.text


def test_colour(plain):
    def red(terminal: bool) -> bool:
        stream = Stream(terminal)
        console.Console(stream).say("x", "red")
        return "\x1b[31m" in stream.text

    assert red(True) and not red(False)
    plain.setenv("FORCE_COLOR", "1")
    assert red(False)
    plain.setenv("NO_COLOR", "1")
    assert not red(True) and not red(False)
    plain.delenv("NO_COLOR")
    plain.delenv("FORCE_COLOR")
    plain.setenv("TERM", "dumb")
    assert not red(True)


def test_ascii_stands_in(plain):
    stream = Stream(False, "ascii")
    console.Console(stream).say("5 ± 1 → é \udcff")
    assert stream.text == "5 +- 1 -> \\xe9 \\udcff\n"


def test_quiet_still_tells_errors(plain):
    out = console.Console(Stream(True), quiet=True)
    out.say("chatter")
    out.progress("more")
    out.tell("trouble")
    assert out.stream.text == "trouble\n"


def test_a_long_cell_takes_no_room_from_the_other_rows():
    path = "/a/folder/" * 6
    rows = [("key", "7", "a reason of several words that is wrapped"), ("path", path, "given")]
    assert console.columns(rows, width=36).splitlines() == [
        "key   7  a reason of several words",
        "         that is wrapped",
        f"path  {path}  given",
    ]


def test_columns_wrap_the_last():
    text = console.columns([("a", "word " * 20), ("long", "x")], width=40)
    lines = text.splitlines()
    assert max(map(len, lines)) <= 40 and lines[0].startswith("a     word")
    assert all(line.startswith("      word") for line in lines[1:-1])
    assert lines[-1] == "long  x"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.5, "0.5 s"), (12, "12 s"), (840, "14 min"), (7500, "2 h 05 min"), (273600, "3 d 04 h")],
)
def test_duration(seconds, text):
    assert console.duration(seconds) == text


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 B"), (999, "999 B"), (1500, "1.5 kB"), (999_900, "1 MB")]
)
def test_size(count, text):
    assert console.size(count) == text


def test_closed_pipe_is_no_error():
    command = f"{sys.executable} -m selfsup list methods | head -1; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=60)
    assert done.stdout.splitlines()[-1] == "0" and "Traceback" not in done.stderr


def test_json_is_alone_on_stdout(say, monkeypatch):
    """Whatever a library prints on the way goes to stderr."""
    from selfsup import listing

    before = listing.methods

    def chatty():
        print("loading ...")
        return before()

    monkeypatch.setattr(listing, "methods", chatty)
    _, out, err = say("list", "methods", "--json")
    assert json.loads(out)["methods"] and "loading" in err
