"""compare: paused runs are exact, losers stop early, and the leaderboard is arithmetic."""

import json
import sys

import numpy as np
import pytest
import small_encoder
import torch
from tiny import tensors_hash

import selfsup
from selfsup import cli, leaderboard
from selfsup.compare import RUNGS, _better_half, _contenders, _judge, _probe, compare
from selfsup.console import Console
from selfsup.demo import digits
from selfsup.errors import SelfsupError
from selfsup.evaluate import controls
from selfsup.evaluate.quality import agreement, stability
from selfsup.pretrain import start
from selfsup.run import Run
from selfsup.settings import Given

SETTINGS = {
    "encoder.name": "resnet18",
    "encoder.width": 0.125,
    "data.resolution": 8,
    "train.batch": 64,
    "method.hidden": 32,
    "method.dim": 16,
}
QUIET = Console(quiet=True)


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)  # the same digits after a pause, whatever else runs
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    return digits(tmp_path_factory.mktemp("digits"))


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    return SETTINGS | {"data.cache": str(tmp_path_factory.mktemp("cache"))}


@pytest.fixture(scope="module")
def found(pictures, settings, tmp_path_factory):
    out = tmp_path_factory.mktemp("compare") / "a"
    told = compare(
        pictures / "train",
        methods=("simclr", "dino"),
        steps=8,
        labels=pictures,
        out=out,
        settings=settings,
        console=QUIET,
    )
    return out, told.to_json()


# ---- runs ------------------------------------------------------------------------------------


def test_a_paused_run_ends_as_one_that_was_not(pictures, settings, tmp_path):
    given = {**settings, "data.path": pictures / "train", "train.steps": 8, "method.name": "simclr"}
    given = {key: Given(value, "test") for key, value in given.items()}
    straight, paused = tmp_path / "straight", tmp_path / "paused"
    start(given, out=straight, console=QUIET)
    done = start(given, out=paused, until=0.25, console=QUIET)
    assert (done.result["step"], done.result["status"], done.exit_code) == (2, "stopped", 0)
    assert not Run(paused).done
    start(given, out=paused, console=QUIET)
    assert Run(paused).done
    assert tensors_hash(Run(paused).checkpoint) == tensors_hash(Run(straight).checkpoint)


def test_linked_pictures_are_judged_too(pictures, settings, tmp_path):
    (tmp_path / "links").mkdir()
    for i, path in enumerate(sorted((pictures / "train").rglob("*.png"))[:100]):
        (tmp_path / "links" / f"{i}.png").symlink_to(path)
    given = {**settings, "data.path": tmp_path / "links", "data.follow_links": True,
             "train.steps": 1, "method.name": "simclr"}  # fmt: skip
    given = {key: Given(value, "test") for key, value in given.items()}
    start(given, out=tmp_path / "run", console=QUIET)
    told = _judge(tmp_path / "run", None, 0, QUIET, tmp_path / "run")
    assert 0 < told["quality"]["rank"] <= 1


def test_losers_stop_early_and_the_winner_comes_to_the_end(found):
    out, told = found
    assert [row["rung"] for row in told["scores"]] == [0.25, 0.25, 0.5, 1.0]
    assert [row["step"] for row in told["scores"]] == [2, 2, 4, 8]
    first, second = told["leaderboard"]
    assert first["name"] == told["best"] and (first["rung"], second["rung"]) == (1.0, 0.25)
    assert Run(out / told["best"]).done and not Run(out / second["name"]).done
    early = {row["name"]: row["probe"]["pretrained"]["value"] for row in told["scores"][:2]}
    assert told["best"] == max(early, key=early.get)
    assert {"untrained", "pixels + PCA"} < set(first["probe"])


def test_labels_of_the_test_part_are_not_used(found, pictures):
    probe = found[1]["scores"][0]["probe"]
    train = len(list((pictures / "train").rglob("*.png")))
    assert probe["train"] + probe["test"] <= train


def test_the_page_says_it_without_network(found):
    out, told = found
    page = (out / "report.html").read_text()
    assert told["best"] in page and "stability" in page and "<script" not in page
    assert "http" not in page.replace("http-equiv", "")


def test_the_same_command_goes_on_where_it_was(found, pictures, settings, monkeypatch, capsys):
    monkeypatch.delenv("SELFSUP_CACHE", raising=False)
    out, told = found
    lost = json.loads((out / "compare.json").read_text())
    last = lost["scores"].pop()
    (out / "compare.json").write_text(json.dumps(lost))
    words = ["--methods", "simclr,dino", "--steps", "8", "--labels", str(pictures), "--json"]
    words += [f"--set={key}={value}" for key, value in settings.items()]
    command = ["compare", str(pictures / "train"), *words, "--out", str(out)]
    assert cli.main(command) == 0
    again = json.loads(capsys.readouterr().out)
    assert again["scores"][-1]["probe"] == last["probe"] and again["best"] == told["best"]
    for old, new in (("8", "9"), (str(pictures), str(pictures / "train")), ("--out", "--seed=3")):
        other = [*command]
        at = len(other) - 1 - other[::-1].index(old)  # the labels, not the data
        other[at : at + 1] = [new, "--out"] if old == "--out" else [new]
        assert cli.main(other) == 2, new
        assert "E304" in capsys.readouterr().out


def test_views_are_taken_apart(pictures, settings, tmp_path, monkeypatch):
    image = selfsup.modalities.find("image")
    assert {"crop", "colour", "blur"} < set(image.operations)
    monkeypatch.setattr(image, "operations", ("blur", "colour"))
    out = tmp_path / "views"
    found = compare(
        pictures / "train",
        methods=("simclr",),
        vary="views",
        steps=2,
        labels=pictures,
        out=out,
        settings=settings,
        console=QUIET,
    )
    told = found.to_json()
    names = {row["name"] for row in told["scores"]}
    assert names == {"all-views", "without-colour"}  # pictures so small: no blur
    assert all(row["rung"] == 1 for row in told["scores"])
    whole, *parts = told["scores"]
    assert whole["name"] == "all-views" and "contribution" not in whole
    ours = np.load(out / "all-views" / "outcomes.npy")
    for row in parts:
        gain, theirs = row["contribution"], np.load(out / row["name"] / "outcomes.npy")
        assert gain["value"] == pytest.approx(ours.mean() - theirs.mean())
        assert theirs.mean() == pytest.approx(row["probe"]["pretrained"]["value"])
        assert gain["low"] <= gain["value"] <= gain["high"]
    assert "views clearly gain from" in str(found) and "contribution" in str(found)
    assert "contribution" in (out / "report.html").read_text()


def test_views_of_graphs_are_taken_apart_where_the_method_has_some(tmp_path, monkeypatch):
    """Molecules; GraphMAE sees them as they are, and no strong view has lost columns."""
    table = tmp_path / "molecules.csv"
    table.write_text("\n".join(["smiles", *(f"{'CN'[i % 2]}{'C' * (4 + i)}" for i in range(40))]))
    given = {"data.cache": str(tmp_path / "cache"), "encoder.dim": 8, "encoder.depth": 1}
    words = {"vary": "views", "steps": 1, "settings": given, "console": QUIET}
    with pytest.raises(SelfsupError, match="graphmae") as raised:
        compare(table, out=tmp_path / "y", **words)
    assert raised.value.code == "E201" and "nodes, edges, attributes" in raised.value.why
    assert not (tmp_path / "y").exists()
    monkeypatch.setattr(selfsup.modalities.find("graph"), "operations", ("nodes", "columns"))
    made_by, module = [], sys.modules[compare.__module__]
    true = module.quality
    monkeypatch.setattr(module, "quality", lambda *a: made_by.append(a[3].without) or true(*a))
    found = compare(table, methods=("simclr",), out=tmp_path / "x", **words)
    assert {row["name"] for row in found.to_json()["scores"]} == {"all-views", "without-nodes"}
    assert made_by == [(), ()]  # both are looked at by the same views
    resolved = (tmp_path / "x" / "without-nodes" / "resolved.toml").read_text()
    assert 'without = "nodes"' in resolved


def test_views_of_a_network(tmp_path):
    """Those of GRACE are light: they lose edges and columns, and nothing else."""
    (tmp_path / "net").mkdir()
    edges = [f"{i},{(i + step) % 30}" for i in range(30) for step in (1, 7)]
    (tmp_path / "net" / "edges.csv").write_text("\n".join(edges))
    given = {"data.cache": str(tmp_path / "cache"), "encoder.dim": 8, "encoder.depth": 1}
    words = {"vary": "views", "steps": 1, "settings": given, "console": QUIET}
    found = compare(tmp_path / "net", methods=("grace",), out=tmp_path / "x", **words)
    rows = found.to_json()["scores"]
    assert {row["name"] for row in rows} == {"all-views", "without-edges", "without-columns"}
    assert all(0 <= row["quality"]["stability"] <= 1 for row in rows)


def test_views_of_pairs_are_those_of_their_parts_beside_what_was_left_out_already(tmp_path):
    """CLIP's are light: fewer edges and columns, and parts of texts longer than a view."""
    rows = ["smiles,said", *(f"{'C' * (3 + i)},{'a word or two ' * (9 if i % 5 else 99)}{i}"
                             for i in range(20))]  # fmt: skip
    table = tmp_path / "pairs.csv"
    table.write_text("\n".join(rows))
    common = {"data.path": str(table), "data.cache": str(tmp_path / "cache"), "train.seed": 0}
    common |= {"modality.columns": ["smiles", "said"], "modality.without": "graphs.edges"}
    assert _contenders((), "views", common, QUIET) == {
        "all-views": {},
        "without-graphs.columns": {"modality.without": "graphs.edges,graphs.columns"},
        "without-text.crop": {"modality.without": "graphs.edges,text.crop"},
    }


def test_a_method_that_cannot_learn_from_the_data_is_refused_before_any_trains(pictures, tmp_path):
    with pytest.raises(SelfsupError, match="mlm") as raised:
        compare(pictures / "train", methods=("simclr", "mlm"), steps=8, out=tmp_path / "x")
    assert raised.value.code == "E202" and not (tmp_path / "x").exists()


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"methods": ("simclr",)}, "fewer than two"),
        ({"methods": ("simclr", "simclear")}, "simclear"),
        ({"methods": ("simclr", "dino"), "vary": "views"}, "views of one method"),
        ({"vary": "weather"}, "weather"),
        ({"methods": ("simclr", "dino"), "minutes": 1, "steps": 2}, "minutes is 1, steps 2"),
        ({"methods": ("simclr", "dino"), "steps": 0}, "steps 0"),
    ],
)
def test_what_makes_no_sense(pictures, tmp_path, wrong, said):
    with pytest.raises(SelfsupError, match=said):
        compare(pictures / "train", out=tmp_path / "x", console=QUIET, **wrong)
    assert not (tmp_path / "x").exists()


# ---- arithmetic ------------------------------------------------------------------------------


def score(name, rung, probe, rank, stability, agreement, health="healthy"):
    told = {"pretrained": {"value": probe, "low": probe - 0.1, "high": probe + 0.1}}
    told |= {"untrained": {"value": 0.2, "low": 0.1, "high": 0.3}, "train": 8, "test": 2}
    quality = {"rank": rank, "stability": stability, "agreement": agreement}
    return {"name": name, "rung": rung, "probe": told, "quality": quality, "health": health,
            "seconds": 1.0, "samples_per_second": 9.0}  # fmt: skip


def told(by, *scores):
    names = dict.fromkeys(row["name"] for row in scores)
    return {"contenders": names, "rungs": list(RUNGS), "by": by, "scores": list(scores),
            "budget": {"minutes": 30.0}}  # fmt: skip


SCORES = (
    score("a", 0.25, 0.6, 0.1, 0.1, 0.1),
    score("b", 0.25, 0.5, 0.9, 0.9, 0.2),
    score("c", 0.25, 0.9, 0.8, 0.8, 0.8, health="collapsed"),
)


def test_ranking_by_probe_by_quality_and_what_collapsed():
    by_probe, by_quality = (
        told(by, *SCORES) for by in (leaderboard.BY_PROBE, leaderboard.BY_QUALITY)
    )
    assert [row["name"] for row in leaderboard.leaderboard(by_probe)] == ["a", "b", "c"]
    assert [row["name"] for row in leaderboard.leaderboard(by_quality)] == ["b", "a", "c"]
    assert _better_half(by_probe, ["a", "b", "c"], 0.25) == ["a", "b"]
    assert "does not clearly beat" not in leaderboard.sentence(by_probe)
    assert "b is within the interval" in leaderboard.sentence(by_probe)


def test_the_budget_is_for_all_training():
    """Four methods: 4 quarters, 2 quarters and 1 half of a run are two whole runs."""
    names = dict.fromkeys("abcd")
    four = {"contenders": names, "rungs": [0.25, 0.5, 1.0], "budget": {"minutes": 30.0}}
    assert leaderboard.full_minutes(four) == pytest.approx(15.0)
    assert leaderboard.full_minutes({**four, "rungs": [1.0]}) == pytest.approx(7.5)


def test_correlation_with_the_probe():
    rising = [score(str(i), 0.25, i / 10, i / 10, 1 - i / 10, 0.5) for i in range(5)]
    found = leaderboard.agreement(told(leaderboard.BY_PROBE, *rising))
    assert found["correlation"]["rank"] == pytest.approx(1)
    assert found["correlation"]["stability"] == pytest.approx(-1)
    assert "agreement" not in found["correlation"]  # a constant correlates with nothing
    assert leaderboard.agreement(told(leaderboard.BY_PROBE, *rising[:2])) == {}


def test_label_free_numbers_against_a_slow_reading():
    draws = torch.Generator().manual_seed(0)
    first = torch.randn(40, 6, generator=draws)
    second = first + 0.8 * torch.randn(40, 6, generator=draws)

    def around(x, i):
        similar = torch.cosine_similarity(x[i][None], x, dim=-1)
        similar[i] = -2
        return set(similar.argsort(descending=True)[:10].tolist())

    own = [torch.cosine_similarity(x[None], second, dim=-1).argmax() for x in first]
    right = np.mean([int(found) == i for i, found in enumerate(own)])
    assert 0 < right < 1 and stability(first, second) == pytest.approx(right)
    kept = np.mean([len(around(first, i) & around(second, i)) / 10 for i in range(40)])
    assert agreement(first, second) == pytest.approx(kept)
    assert stability(first, first) == 1 and agreement(first, first) == 1


def test_a_probe_is_judged_by_other_recordings_and_no_copies(tmp_path, monkeypatch):
    from selfsup.data import open_source

    images = np.random.default_rng(0).integers(0, 255, (80, 8, 8), np.uint8)
    labels, recordings, parts = np.arange(80) // 4 % 2, np.arange(80) // 4, []
    images[0] = images[8]  # a copy in another recording of the same class
    source = open_source({"images": images, "labels": labels})
    source.groups = lambda: recordings
    small_encoder.export(tmp_path / "e", "resnet18", 8, seed=0, width=0.125)
    true = controls.untrained
    monkeypatch.setattr(controls, "untrained", lambda *a: parts.append((a[2], a[3])) or true(*a))
    for seed in range(3):
        found, outcomes = _probe(selfsup.load(tmp_path / "e"), source, seed, None)
        train, test = parts[-1]
        joined = np.where(recordings == 2, 0, recordings)
        assert not set(joined[train]) & set(joined[test])
        assert (found["train"], found["test"]) == (len(train), len(test)) and len(test) >= 12
        assert len(outcomes) == len(test)
