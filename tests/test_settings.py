"""Settings: strict, every fault named, priorities, and a file that makes the same run again."""

import os
import tomllib
from pathlib import Path

import numpy as np
import pytest

from selfsup import listing, settings
from selfsup.errors import SelfsupError
from selfsup.settings import Given, check, gather, resolve

CHOSEN = [
    ("modality.name", "image", "the data hold image"),
    ("method.name", "simclr", "because"),
    ("encoder.name", "resnet18", "it fits"),
    ("data.resolution", 32, "the pictures are 32 px"),
    ("train.batch", 256, "usual"),
    ("train.minutes", 10.0, "half an hour"),
]


def from_text(tmp_path, text: str | bytes) -> dict[str, Given]:
    path = tmp_path / "settings.toml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return gather(file=path, environment={})


def refused(given, *words: str) -> SelfsupError:
    with pytest.raises(SelfsupError) as caught:
        resolve(given, CHOSEN)
    text = str(caught.value)
    assert caught.value.code == "E201" and caught.value.exit_code == 2
    for word in words:
        assert word in text, f"{word!r} not in:\n{text}"
    return caught.value


# ---- strict reading


def test_duplicate_key_is_refused_with_its_line(tmp_path):
    with pytest.raises(SelfsupError) as caught:
        from_text(tmp_path, "[train]\nbatch = 8\nbatch = 16\n")
    assert "line 3" in str(caught.value) and "not valid TOML" in str(caught.value)


@pytest.mark.parametrize("text", ["[train\n", "x = ", b"\xff\xfe", "a = " + "[" * 100_000])
def test_what_is_not_toml_is_refused(tmp_path, text):
    with pytest.raises(SelfsupError, match="not valid TOML"):
        from_text(tmp_path, text)


def test_huge_file_is_refused_unread(tmp_path):
    path = tmp_path / "huge.toml"
    with open(path, "wb") as file:
        file.truncate(100 << 20)
    with pytest.raises(SelfsupError, match="too large"):
        gather(file=path, environment={})


def test_missing_file_has_its_own_exit_code(tmp_path):
    with pytest.raises(SelfsupError) as caught:
        gather(file=tmp_path / "nothing.toml", environment={})
    assert caught.value.exit_code == 66


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[train]\nepochs = true", ["train.epochs", "found true", "expected a number"]),
        ("[train]\nsteps = true", ["train.steps", "found true", "expected an integer"]),
        ("[train]\nbatch = 8.0", ["train.batch", "found 8.0", "expected an integer"]),
        ('[train]\nbatch = "8"', ["train.batch", "found '8'", "expected an integer"]),
        ("[train]\nbatch = 0", ["train.batch", "found 0", "greater than or equal to 2"]),
        ("[optim]\nlr = nan", ["optim.lr", "found nan", "finite number"]),
        ("[optim]\nlr = inf", ["optim.lr", "found inf", "finite number"]),
        ("[optim]\nlr = -1.0", ["optim.lr", "found -1.0", "greater than 0"]),
        ("[optim]\nbetas = [0.9, nan]", ["optim.betas[1]", "finite number"]),
        ("[optim]\nbetas = [0.9, true]", ["optim.betas[1]", "found true", "a number"]),
        ("[data]\nfollow_links = 1", ["data.follow_links", "found 1", "true or false"]),
        ("[data]\npath = 3", ["data.path", "found 3", "text"]),
        ('[optim]\nname = "adam"', ["optim.name", "'adam'", "did you mean adamw?"]),
        ("[train]\nbtach = 8", ["train.btach", "unknown key", "did you mean train.batch?"]),
        ("[trian]\nbatch = 8", ["trian.batch", "unknown key", "did you mean train"]),
        ("[train.deep]\nbatch = 8", ["train.deep", "unknown key"]),
        ("batch = 8", ["batch", "unknown key", "did you mean train.batch?"]),
        ("format = 2", ["format", "found 2", "1"]),
        ('[method]\nname = "simcrl"', ["there is no method 'simcrl'", "did you mean simclr?"]),
        ('[encoder]\nname = "resnet19"', ["no encoder 'resnet19'", "did you mean resnet18?"]),
        ("[method]\ntemperatur = 0.1", ["method.temperatur", "did you mean method.temperature?"]),
        ("[method]\ntemperature = true", ["method.temperature", "found true", "a number"]),
        ('[method]\ntemperature = "warm"', ["method.temperature", "found 'warm'", "a number"]),
        ("[method]\ntemperature = nan", ["method.temperature", "finite number"]),
        ("[method]\nteacher_temperature = 0.1", ["it belongs to", "--method dino"]),
        ('[encoder]\nwidth = "wide"', ["encoder.width", "found 'wide'", "a number"]),
        ("[encoder]\nwidht = 0.5", ["encoder.widht", "did you mean encoder.width?"]),
    ],
)
def test_faults_are_named(tmp_path, text, words):
    refused(from_text(tmp_path, text), *words, str(tmp_path / "settings.toml"))


def test_all_faults_at_once(tmp_path):
    text = "[train]\nbatch = true\nbtach = 3\n[optim]\nlr = nan\n[method]\ntemperatur = 1.0"
    error = refused(from_text(tmp_path, text), "4 settings are not valid")
    for key in ("train.batch", "train.btach", "optim.lr", "method.temperatur"):
        assert key in str(error)


@pytest.mark.parametrize(
    "text",
    [
        '_target_ = "os.system"',
        '[method]\n_target_ = "os.system"\nargs = ["touch MARKER"]',
        '[method]\nname = "os.system"',
        '[method]\nname = "../../evil"',
        '[method]\nname = "__init__"',
        '[encoder]\nname = "os:system"',
        '[encoder]\nname = "torch.nn.Linear"',
        '[optim]\nname = "torch.optim.Adam"',
    ],
)
def test_no_setting_names_a_python_object(tmp_path, monkeypatch, text):
    """S3: a name that is not on the shelf is refused before anything is imported or called."""
    import importlib

    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "evil.py").write_text("open('MARKER', 'w')")
    asked = []
    monkeypatch.setattr(importlib, "import_module", lambda *a: asked.append(a))
    refused(from_text(tmp_path, text))
    assert not asked or all("evil" not in str(a) and a[0] != "os" for a in asked)
    assert not (tmp_path / "MARKER").exists()


# ---- where values come from


def test_priority(tmp_path):
    path = tmp_path / "a.toml"
    path.write_text("[train]\nbatch = 2\nseed = 1\n")
    environment = {"SELFSUP_TRAIN_BATCH": "2", "SELFSUP_TRAIN_SEED": "2", "SELFSUP_CACHE": "/c"}
    given = gather(file=path, environment=environment, options={"train.batch": Given(3, "--batch")})
    resolved = resolve(given, CHOSEN)
    assert resolved["train.batch"] == 3 and resolved.values["train.batch"].source == "--batch"
    assert resolved["train.seed"] == 2
    assert resolved.values["train.seed"].source == "SELFSUP_TRAIN_SEED"
    assert resolved["data.cache"] == "/c"
    assert resolved.values["data.resolution"] == (32, "plan", "the pictures are 32 px")
    assert resolved.values["checkpoint.keep"].source == "default"
    assert gather(file=path, environment={})["train.batch"].value == 2  # over the plan's 256
    assert resolve(gather(file=path, environment={}), CHOSEN)["train.batch"] == 2


def test_set_over_environment_and_words_need_no_quotes():
    given = gather(environment={"SELFSUP_METHOD_NAME": "mae"}, sets=["method.name=simclr"])
    assert given["method.name"] == Given("simclr", "--set method.name")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 0.001),
        ("true", True),
        ("[0.9, 0.99]", [0.9, 0.99]),
        ('"1"', "1"),
        ("no", "no"),
        ("012", "012"),
        ("", ""),
        ("a=b", "a=b"),
        ("1\nb = 2", "1\nb = 2"),
    ],
)
def test_literal(text, value):
    found = settings.literal(text)
    assert found == value and type(found) is type(value)


@pytest.mark.parametrize("text", ["optim.lr", "=3", ""])
def test_set_needs_a_key_and_a_value(text):
    with pytest.raises(SelfsupError, match="key=value"):
        gather(environment={}, sets=[text])


def test_set_twice_is_refused():
    with pytest.raises(SelfsupError, match="twice"):
        gather(environment={}, sets=["optim.lr=1", "optim.lr=2"])


def test_two_lengths_in_one_place_are_refused_and_a_later_place_replaces(tmp_path):
    with pytest.raises(SelfsupError, match="more than once"):
        gather(environment={}, sets=["train.steps=3", "train.epochs=2"])
    path = tmp_path / "a.toml"
    path.write_text("[train]\nepochs = 5\n")
    given = gather(file=path, environment={}, options={"train.steps": Given(9, "--steps")})
    resolved = resolve(given, CHOSEN)
    assert resolved["train.steps"] == 9
    assert "train.epochs" not in resolved.values and "train.minutes" not in resolved.values


def test_environment_ignores_what_is_not_a_section():
    given = gather(environment={"SELFSUP_DATA": "/data", "SELFSUP_FAULT": "x", "PATH": "y"})
    assert given == {}


def test_misspelt_environment_variable_is_a_fault():
    refused(gather(environment={"SELFSUP_TRAIN_BTACH": "3"}), "SELFSUP_TRAIN_BTACH", "train.batch")


def test_method_settings_wait_for_the_plan():
    assert "method.temperature" not in check(
        gather(environment={}, sets=["method.temperature=0.3"]), partial=True
    )
    given = gather(environment={}, sets=["method.temperature=0.3"])
    assert resolve(given, CHOSEN)["method.temperature"] == 0.3


# ---- written down and read again


def test_round_trip(tmp_path):
    strange = 'a "b" \\ \t\n\x7f émoji \U0001f600 #'
    given = gather(
        environment={},
        options={
            "data.path": Given(strange, "DATA"),
            "optim.lr": Given(1e-7, "--set"),
            "optim.clip": Given("none", "--set"),
            "train.seed": Given(2**61, "--seed"),
            "train.batch": Given(np.int64(64).item(), "--batch"),
        },
    )
    before = resolve(given, CHOSEN)
    path = tmp_path / "resolved.toml"
    path.write_text(before.to_toml())
    after = settings.load(path)
    assert after.plain() == before.plain()
    assert list(after.values) == list(before.values)
    assert all(type(after[key]) is type(before[key]) for key in before.values)
    assert after.differences(before) == []
    assert before["optim.clip"] is None and before["data.path"] == strange


@pytest.mark.parametrize("method", sorted(listing.methods()))
@pytest.mark.parametrize("encoder", sorted(listing.encoders()))
def test_round_trip_of_every_method_and_encoder(tmp_path, method, encoder):
    chosen = [("method.name", method, ""), ("encoder.name", encoder, ""), CHOSEN[0], *CHOSEN[3:]]
    before = resolve({}, chosen)
    path = tmp_path / "resolved.toml"
    path.write_text(before.to_toml())
    assert settings.load(path).plain() == before.plain()


def test_every_line_says_why():
    text = resolve({}, CHOSEN).to_toml()
    assert tomllib.loads(text)["method"]["name"] == "simclr"
    for line in text.splitlines():
        if " = " in line and not line.startswith("#"):
            assert "  # " in line and line.split("  # ", 1)[1].strip(), line
    assert "# plan: the pictures are 32 px" in text


def test_reasons_cannot_break_out_of_their_comment():
    chosen = [*CHOSEN[:3], ("data.resolution", 32, "evil\n[train]\nbatch = 1"), *CHOSEN[4:]]
    assert tomllib.loads(resolve({}, chosen).to_toml())["train"]["batch"] == 256


def test_name_that_is_not_unicode_is_refused_on_writing():
    given = {"data.path": Given(os.fsdecode(b"/tmp/\xff"), "DATA")}
    with pytest.raises(SelfsupError, match="not Unicode"):
        resolve(given, CHOSEN).to_toml()


def test_differences_name_the_keys():
    one, two = resolve({}, CHOSEN), resolve({"train.seed": Given(4, "--seed")}, CHOSEN)
    assert one.differences(two) == [("train.seed", 0, 4)]


def test_documentation_has_every_key():
    """To write the tables again: selfsup.settings.reference()."""
    page = (Path(__file__).parent.parent / "docs" / "settings.md").read_text()
    assert settings.reference() in page
