"""The page as a whole: complete, escaped, closed to the network, and there for every state."""

import json
import re
import resource
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import pytest

from selfsup.errors import SelfsupError
from selfsup.report import LIMIT, report

VOID = {"meta", "img", "br", "link", "hr"}


class Page(HTMLParser):
    """Elements and text of a page; fails on tags that do not close in order."""

    def __init__(self, path):
        super().__init__()
        self.content = path.read_bytes().decode("utf-8")
        self.open, self.elements, self.words = [], [], []
        self.feed(self.content)
        assert not self.open, self.open

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open and self.open[-1] == tag, (tag, self.open)
        self.open.pop()

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.words.append(data)

    @property
    def text(self):
        return " ".join("".join(self.words).split())

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]


def assert_closed(page):
    """Nothing can run and nothing is fetched, whatever the run holds."""
    names = {name for name, _ in page.elements}
    assert not names & {"script", "iframe", "object", "embed", "form", "base", "link", "video"}
    for name, attributes in page.elements:
        assert not [key for key in attributes if key.startswith("on") or key == "style"], name
        for key in ("src", "href"):
            where = attributes.get(key)
            assert where is None or where.startswith(("data:image/webp;base64,", "#")), where
    policies = [m["content"] for m in page.all("meta") if "http-equiv" in m]
    assert len(policies) == 1 and policies[0].startswith("default-src 'none'; img-src data:; ")
    assert "script-src" not in policies[0] and "unsafe" not in policies[0]
    assert "http://" not in page.content and "https://" not in page.content


def test_it_can_be_printed(finished):
    """All of it, dark on white, whatever was folded or cut off on the screen."""
    content = report(finished).read_text("utf-8")
    style = re.sub(r"/\*.*?\*/", "", content.split("<style>")[1].split("</style>")[0], flags=re.S)
    before, printed = style.split("@media print", 1)
    rules = dict(re.findall(r"([^{}]+?)\s*\{([^{}]*)\}", printed.split("@media")[0]))
    rules = {" ".join(name.strip("{ \n").split()): body for name, body in rules.items()}
    assert "--page: #ffffff" in rules[":root"] and "--ink: #000000" in rules[":root"]
    opened = rules["details::details-content"]  # what is folded is printed too
    assert "content-visibility: visible" in opened and "block-size: auto" in opened
    assert "overflow: visible" in rules[".scroll"]  # wide tables are not cut
    assert "display: none" in rules["nav, .skip"]
    assert any("break-inside: avoid" in body for name, body in rules.items() if "figure" in name)
    # nothing has a height that text could outgrow; pictures and the signs of legends may
    for name, body in re.findall(r"([^{}]+)\{([^{}]*)\}", style):
        if not re.search(r"svg|img", name):
            assert not re.search(r"(^|[;\s])(max-)?height:", body), name
            assert "position: fixed" not in body and "position: sticky" not in body, name
    assert content.count("<details") > 0 and "100vh" not in style and "@media" in before


def test_a_finished_run_says_all_that_it_knows(finished):
    path = report(finished)
    assert path == finished / "report.html"
    assert path.stat().st_size < LIMIT
    page = Page(path)
    assert_closed(page)
    assert page.text.index("+19.0 points over untrained") < page.text.index("Did pretraining help?")
    for said in (
        "50,007 found = 50,000 used + 7 skipped",
        "62.4 (61.2 to 63.6)",  # the probe, and its control beside it
        "43.4 (42.5 to 44.3)",
        "+19.0 (+17.8 to +20.2)",
        "at least 9.5 times as many",
        "the file ends before its last rows",
        "usual for simclr",  # the reason for a setting
        "a number too large for bfloat16",  # the cause of an event
        "energy, estimated",
        "12 W for each of 2 processor cores",
        "2.13.0+cpu",
        "fine-tuning and its control use 5000 of 50000 labels",
    ):
        assert said in page.text, said
    drawings = [svg for svg in page.all("svg") if svg.get("role") == "img"]
    assert len(drawings) >= 9 and all(len(svg["aria-label"]) > 40 for svg in drawings)


def test_the_policy_allows_the_style_sheet_and_no_other(finished):
    import base64
    import hashlib

    content = report(finished).read_text()
    style = re.search(r"<style>(.*?)</style>", content, re.DOTALL)[1]
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert f"style-src 'sha256-{digest}'" in content


def test_headings_ids_and_links_are_sound(finished):
    page = Page(report(finished))
    levels = [int(name[1]) for name, _ in page.elements if re.fullmatch("h[1-6]", name)]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert {a["href"][1:] for a in page.all("a")} <= set(ids)
    assert all("alt" in image for image in page.all("img"))
    assert all("scope" in cell for cell in page.all("th"))


def damage(run, state):
    """Leave a run as something or somebody else left it."""
    if state == "empty":
        for path in sorted(run.rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()
    elif state == "half lines":
        for name in ("metrics.jsonl", "events.jsonl", "data/skipped.jsonl"):
            path = run / name
            path.write_bytes(path.read_bytes()[:-7])
    elif state == "running":
        (run / "DONE").unlink()
        (run / "evaluation.json").unlink()
    elif state == "collapsed":
        (run / "evaluation.json").unlink()
        ended = {"step": 1200, "verdict": "collapsed", "message": "all samples get one embedding"}
        (run / "DONE").write_text(json.dumps(ended))
        event = {"time": 1.8e9, "step": 900, "kind": "health", "verdict": "collapsed",
                 "message": "all samples get the same embedding", "cause": "complete collapse",
                 "do": "lower the learning rate"}  # fmt: skip
        (run / "events.jsonl").write_text(json.dumps(event) + "\n")
    elif state == "diverged":
        (run / "DONE").unlink()
        (run / "FAILED").write_text(json.dumps({"step": 7, "message": "no longer finite"}))
    elif state == "garbage":
        for path in run.rglob("*"):
            if path.is_file():
                path.write_bytes(b"\xff\xfe\x00[[[[{{{{ not what it was \n\x00" * 50)
    elif state == "wrong types":
        for name in ("env.json", "encoder.json", "data/manifest.json", "DONE", "evaluation.json"):
            (run / name).write_text("[1, 2]")
        lines = ['{"step": "x", "train/loss": []}', "17", "null", '{"step": null}', '"text"']
        for name in ("metrics.jsonl", "events.jsonl", "data/skipped.jsonl"):
            (run / name).write_text("\n".join(lines) + "\n")
    elif state == "wrong inside":
        odd = {"verdict": 5, "scores": {"a": 1}, "curve": [1, {"protocol": []}], "notes": "x",
               "data": {"classes": 3, "place": 4}, "split": [], "labels_worth": [{"labels": "x"}],
               "encoder": []}  # fmt: skip
        (run / "evaluation.json").write_text(json.dumps(odd))
        (run / "encoder.json").write_text('{"format": 1, "modality": "../os"}')
        (run / "data" / "manifest.json").write_text('{"samples": "many"}')
        (run / "metrics.jsonl").write_text('{"step": 1, "train/loss": true, "time": "NaN"}\n' * 3)
    elif state == "deep":
        for name in ("env.json", "evaluation.json", "encoder.json"):
            (run / name).write_text("[" * 100_000 + "]" * 100_000)


SAYS = {
    "empty": "Nothing has been trained in this folder yet",
    "half lines": "+19.0 points over untrained",
    "running": "Training has not finished",
    "collapsed": "All samples get the same embedding",
    "diverged": "No longer finite",
    "garbage": "What could not be read",
    "wrong types": "What could not be read",
    "wrong inside": "Did pretraining help?",
    "deep": "evaluation.json cannot be read",
}


@pytest.mark.parametrize("state", SAYS)
def test_any_state_of_a_run_has_a_report(finished, state):
    damage(finished, state)
    page = Page(report(finished))
    assert_closed(page)
    assert SAYS[state] in page.text
    if state in ("running", "collapsed", "empty", "garbage"):
        assert "selfsup evaluate" in page.text and "Not here yet" in page.text
    if state == "collapsed":
        assert "Likely cause: complete collapse" in page.text
        assert "Try: lower the learning rate" in page.text
    if state == "running":
        assert "selfsup pretrain 'photos # 1/' --out" in page.text
    if state == "half lines":
        assert "1 line of metrics.jsonl could not be read" in page.text


def test_nothing_from_a_run_becomes_markup(finished, hostile):
    """Names, captions, reasons, keys, numbers: whatever a stranger can write into a run."""
    evil = hostile
    row = {"step": 5, f"train/{evil}": 1.0, evil: 2.0}
    with (finished / "metrics.jsonl").open("a") as file:
        file.writelines(json.dumps(row | {"step": 1300 + i}) + "\n" for i in range(3))
    event = {"kind": evil, "message": evil, "cause": evil, "do": evil, "time": evil, "step": evil}
    with (finished / "events.jsonl").open("a") as file:
        file.write(json.dumps(event) + "\n")
        file.write(json.dumps(event | {"verdict": "collapsed"}) + "\n")
    (finished / "env.json").write_text(json.dumps({evil: evil, "nested": {evil: [evil]}}))
    skipped = {"name": evil, "code": evil, "reason": evil}
    odd = {"name": "\udcff\u202etxt.exe\x1b[31m\n\t", "code": "odd", "reason": "x" * 10_000_000}
    (finished / "data" / "skipped.jsonl").write_text(
        json.dumps(skipped) + "\n" + json.dumps(odd) + "\n"
    )
    told = json.loads((finished / "evaluation.json").read_text())
    told["verdict"]["sentence"] = evil + "y" * 10_000_000
    told["notes"] = [evil]
    told["data"]["place"] = evil
    told["scores"][0]["of"] = told["scores"][1]["protocol"] = evil
    told["curve"][0]["of"] = evil
    (finished / "evaluation.json").write_text(json.dumps(told))
    (finished / "resolved.toml").write_text(
        f"[data]\npath = {json.dumps(evil)}  # {evil}: {evil}\n"
        f"[method]\nname = {json.dumps(evil)}\n"
    )
    (finished / "DONE").write_text(json.dumps({"verdict": evil, "message": evil}))
    page = Page(report(finished))
    assert_closed(page)
    assert "alert(1)" in page.text  # shown, as text
    assert len(page.content) < 300_000
    assert "\\udcff\\u202etxt.exe\\x1b[31m" in page.content
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e]", page.content)
    assert "10,000,000 characters" in page.text


def test_the_file_stays_small_whatever_the_run_holds(finished):
    """Thousands of everything, all of it long."""
    long = "w" * 2000
    many = {f"{long}{i}": 1.0 for i in range(3000)}
    with (finished / "metrics.jsonl").open("a") as file:
        file.writelines(json.dumps({"step": 2000 + i} | many) + "\n" for i in range(3))
    with (finished / "events.jsonl").open("a") as file:
        for i in range(5000):
            event = {"step": i, "kind": f"{i}", "message": long, "cause": long, "do": long}
            file.write(json.dumps(event) + "\n")
    with (finished / "data" / "skipped.jsonl").open("a") as file:
        for i in range(5000):
            file.write(json.dumps({"name": long, "code": f"{i}", "reason": long}) + "\n")
    told = json.loads((finished / "evaluation.json").read_text())
    row = told["scores"][0]
    told["scores"] = [row | {"of": f"{i}{long}", "protocol": f"{i}"} for i in range(5000)]
    told["curve"] = [row | {"shots": i, "of": f"{i % 50}"} for i in range(5000)]
    told["notes"] = [long] * 5000
    told["labels_worth"] = told["labels_worth"] * 5000
    (finished / "evaluation.json").write_text(json.dumps(told))
    (finished / "env.json").write_text(json.dumps({f"{i}": long for i in range(5000)}))
    (finished / "data" / "manifest.json").write_text(json.dumps(many))
    lines = [f'k{i} = "{long}"  # {long}: {long}' for i in range(450)]
    (finished / "resolved.toml").write_text("[method]\n" + "\n".join(lines))
    path = report(finished)
    assert path.stat().st_size < 3_000_000  # pictures may have seven more
    assert_closed(Page(path))


def test_the_counts_of_the_manifest_are_the_equation(finished):
    """What the run itself counted, when it ended; the list of skipped files may be older."""
    facts = {"samples": 50_007, "found": 50_012, "used": 50_000, "skipped": 12, "unseen": 1_024}
    (finished / "data" / "manifest.json").write_text(json.dumps(facts | {"copies": 3}))
    text = report(finished).read_text()
    assert "50,012 found = 50,000 used + 12 skipped" in text
    assert "1,024 of the used were not reached" in text and "unseen" not in text


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(SelfsupError) as caught:
        report(tmp_path / "nowhere")
    assert caught.value.code == "E301"


def test_a_full_disk_leaves_the_old_report(finished):
    """Under a limit on the size of files, which a write meets as it meets a full disk."""
    report(finished)
    before = (finished / "report.html").read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
        with pytest.raises(SelfsupError) as caught:
            report(finished)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert caught.value.code == "E701" and caught.value.exit_code == 74
    assert (finished / "report.html").read_bytes() == before
    assert not list(finished.glob(".report-*"))


def test_the_same_run_gives_the_same_file(finished):
    first = report(finished).read_bytes()
    assert report(finished).read_bytes() == first


def test_other_tasks_speak_for_a_run_that_no_labels_judged(finished, hostile):
    (finished / "evaluation.json").unlink()
    told = {"verdict": {"sentence": "Pretraining helped: Spearman 0.81", "gain": True}}
    told |= {"text": f"pretrained  0.81\nuntrained   0.43\n{hostile}"}
    (finished / "evaluation-regress.json").write_text(json.dumps(told))
    page = Page(report(finished))
    assert "It helped" in page.text and "Whether it helped is not known" not in page.text
    assert page.text.count("Spearman 0.81") >= 1 and "untrained 0.43" in page.text
    assert "Judged by regress" in page.text and "Not here yet: scores" not in page.text
    assert_closed(page)
    (finished / "evaluation-regress.json").write_text("[")
    assert "evaluation-regress.json cannot be read" in Page(report(finished)).text


def test_few_labels_of_other_tasks_are_drawn(finished, hostile):
    ends = {"low": 0.2, "high": 0.4}
    found = ((of, n, value) for of, value in ((hostile, 0.25), ("pretrained", 0.375))
             for n in (100, 10))  # fmt: skip
    curve = [{"of": of, "labels": n, "value": value} | ends for of, n, value in found]
    told = {"regress": {"heads": {"spearman": 3}, "curve": curve},
            "finetune-segment": {"metric": "mean IoU", "percent": True, "few": {"curve": curve}},
            "folds": {"curve": [7, {"of": 3}, {"labels": -1, "value": 1}]}}  # fmt: skip
    for name, found in told.items():
        (finished / f"evaluation-{name}.json").write_text(json.dumps(found | {"text": "found"}))
    page = Page(report(finished))
    assert_closed(page)
    drawn = [svg["aria-label"] for svg in page.all("svg") if "aria-label" in svg]
    masks, numbers = (label for label in drawn if label.startswith("Few labels. pretrained: ")
                      and " at 10, " in label and "untrained" not in label)  # fmt: skip
    assert "pretrained: 37.5 % at 10, 37.5 % at 100" in masks and "0.375 at 10" in numbers
    assert "Few labels (mean IoU)" in page.text and "Few labels (spearman)" in page.text


def test_a_part_of_a_monitor_is_called_like_the_whole(finished):
    with (finished / "metrics.jsonl").open("a") as file:
        file.writelines(json.dumps({"step": 1300 + i, "monitor/rank_image": 5.0 + i}) + "\n"
                        for i in range(3))  # fmt: skip
    text = Page(report(finished)).text
    assert "Effective rank: image" in text and "monitor/rank_image" not in text


def test_forecasts_are_drawn_and_transcripts_stand_side_by_side(finished, hostile):
    case = {"channel": hostile, "step": 300, "past": [0.5, None, 1.5], "future": [2.0, 2.5],
            "guesses": [{"of": "pretrained", "values": [1.9, 2.4]},
                        {"of": "last value", "values": [1.5, 1.5]}]}  # fmt: skip
    table = "\n".join(f"{step} steps ahead  {step / 1000:.3f}" for step in range(100))
    told = {"text": f"MSE 0.3\n{table}", "cases": [case, {"past": "x", "guesses": [3]}, 7]}
    (finished / "evaluation-forecast.json").write_text(json.dumps(told))
    heard = [["one two", "one too"], [hostile, ""], "x", [1, 2, 3]]
    (finished / "evaluation-transcribe.json").write_text(
        json.dumps({"text": "12 % of characters", "heard": heard})
    )
    page = Page(report(finished))
    assert_closed(page)
    assert "99 steps ahead 0.099" in " ".join(page.text.split())  # a table is never cut
    (drawing,) = [svg for svg in page.all("svg") if "after step 300" in svg.get("aria-label", "")]
    for said in ("values: 0.5 at -2, 2.5 at 2", "pretrained: 1.9 at 1, 2.4 at 2",
                 "last value: 1.5 at 1"):  # fmt: skip
        assert said in drawing["aria-label"], drawing["aria-label"]
    assert "saidheardone twoone too" in page.text
    for name in ("forecast", "transcribe"):
        (finished / f"evaluation-{name}.json").write_text('{"text": "odd", "cases": 1, "heard": 2}')
    assert "odd" in Page(report(finished)).text


def test_the_table_of_the_docs_has_every_section():
    root = Path(__file__).parents[2]
    written = "".join(path.read_text() for path in (root / "selfsup" / "report").glob("*.py"))
    titles = {title for _, title in re.findall(r'(?<!\w)\("(\w+)", "([A-Z][^"]+)", ', written)}
    assert {"Partners", "Planning", "Other tasks", "Views", "Did it help?"} <= titles
    page = (root / "docs" / "report.md").read_text()
    assert not [title for title in sorted(titles) if f"\n| {title} |" not in page]
