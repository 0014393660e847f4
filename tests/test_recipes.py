"""Records and the page made from them stay together."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks import methods as budgets
from recipes import RESULTS, emoji_masks, made
from recipes.__main__ import PAGE, _curve_name, beside, page, side_by_side, verdicts
from selfsup import listing, modalities, plan, suited
from selfsup.run import Run

SAMPLES = 2000


def test_the_page_is_what_the_records_say():
    assert PAGE.read_text() == page(), "run: python -m recipes"


def test_the_default_for_pictures_is_the_first_under_one_budget():
    rows = [r for r in budgets.rows() if (r["set"], r["budget"]) == ("cifar10", "2 minutes")]
    best = max(rows, key=lambda r: r["linear"]["pretrained"][0])["method"]
    default = modalities.find("image").default_method
    reason = plan._method(default, plan.Facts(samples=1000, size=32))[1]
    assert best == default
    assert f"first of {len({r['method'] for r in rows})} methods" in reason


def test_defaults_are_said_to_help_where_they_did_with_every_seed():
    rows = json.loads(RESULTS.read_text())
    for key, names in suited.HELPED.items():
        modality, method = key.split(".")
        assert modalities.find(modality).default_method == method
        for name in names:
            found = [row for row in rows if row["recipe"] == name]
            assert found and all((r["modality"], r["method"]) == (modality, method) for r in found)
            assert all(
                r["verdict"].startswith(("Pretraining help", "Planning help")) for r in found
            ), name
            assert name in plan._method(method, plan.Facts(100, 8, modality=modality))[1]


def test_every_record_stands_beside_its_controls():
    rows = json.loads(RESULTS.read_text())
    assert {row["method"] for row in rows} <= set(listing.methods())
    for row in rows:
        assert row.get("scores", row.get("linear")), row["recipe"]
        for found in row.get("scores", {}).values():
            assert "pretrained" in found and len(found) > 1, row["recipe"]
        for protocol in ("linear", "knn") if "scores" not in row else ():
            classical = modalities.find(row["modality"]).baseline_name
            assert set(row[protocol]) == {"pretrained", "untrained", classical}


def test_encoders_of_one_name_are_told_apart(monkeypatch):
    known = {
        "cifar10": ["vit_tiny, patch 4", "vit_tiny, patch 4, causal", "vit_tiny, patch 8"],
        "ag_news": ["bert_micro", "bert_micro, dropout 0.5"],
    }
    for name, told in known.items():
        pool, linear = budgets.SETS[name], {"pretrained": [60, 59, 61], "untrained": [50, 49, 51]}
        rows = [
            {"set": name, "budget": "2 minutes", "method": "simclr", "encoder": encoder,
             "asked": True, "linear": linear}
            for encoder in pool.encoders if encoder["name"] == told[0].split(",")[0]
        ]  # fmt: skip
        assert [_curve_name(row) for row in rows] == [f"simclr ({one})" for one in told]
        monkeypatch.setattr(budgets, "rows", lambda found=rows: found)
        place = f"{name} in 2 minutes with"
        assert beside("simclr", pool.modality) == {f"**{place} {one}**" for one in told}
        rows[1:] = [rows[0] | {"linear": linear | {"pretrained": [51, 50, 52]}}]  # another seed
        assert beside("simclr", pool.modality) == {f"{place} {told[0]}"}


def test_what_was_measured_stands_in_the_cell_of_its_method():
    lines, kinds = PAGE.read_text().splitlines(), list(listing.modalities())
    for row in budgets.rows():
        link = listing.methods()[row["method"]].link
        cells = next(line for line in lines if link in line).split(" | ")
        cell = cells[1 + kinds.index(budgets.SETS[row["set"]].modality)]
        assert f"{row['set']} in {row['budget']}" in cell


def test_encoders_that_were_asked_for_are_named_among_the_others(monkeypatch):
    row = next(row for row in budgets.rows() if row["set"] == "cifar10")
    asked = row | {"encoder": budgets.CIFAR10.encoders[3], "asked": True}
    monkeypatch.setattr(budgets, "rows", lambda: [row, asked])
    lines = side_by_side()
    own = [line for line in lines if line.startswith(f"| {row['method']} ")]
    assert len(own) == 2 and sum("vit_tiny (depth 4, patch 8)" in line for line in own) == 1


def test_a_record_tells_the_health_of_training(tmp_path):
    run = Run(tmp_path)
    written = [f'[{shelf}]\nname = "{name}"' for shelf, name in
               (("method", "mae"), ("modality", "image"), ("encoder", "vit_tiny"))]  # fmt: skip
    (run.path / "resolved.toml").write_text("\n".join(written))
    run.finish(step=2, samples=16, seconds=3.0, verdict="collapsed")
    row = made(run) | {"recipe": "a", "seed": 0, "verdict": "No clear gain."}
    (told,) = verdicts([row])
    assert told == "- a, seed 0: No clear gain. Training: collapsed."
    row.pop("health")
    assert verdicts([row]) == ["- a, seed 0: No clear gain."]


@pytest.mark.skipif("SELFSUP_DATA" not in os.environ, reason="SELFSUP_DATA is not set")
def test_pretraining_on_photographs_beats_the_untrained_encoder(tmp_path, monkeypatch):
    import tarfile

    import selfsup

    archive = Path(os.environ["SELFSUP_DATA"]) / "images" / "cifar10_jpg.tar.gz"
    with tarfile.open(archive) as tar:
        for member in tar:
            number = Path(member.name).stem
            if member.isfile() and number.isdigit() and int(number) < SAMPLES // 10:
                tar.extract(member, tmp_path, filter="data")
    monkeypatch.setenv("SELFSUP_CACHE", str(tmp_path / "cache"))
    photos = tmp_path / "cifar10"
    run = selfsup.pretrain(
        photos / "train",
        method={"name": "mae", "decoder_dim": 64, "decoder_depth": 1, "decoder_heads": 2},
        encoder={"name": "vit_tiny", "depth": 3, "patch": 4},
        optim={"lr": 4e-3},
        batch=64,
        steps=400,
        out=tmp_path / "run",
        quiet=True,
    )
    result = run.evaluate(photos, shots=(), finetune=False)
    ours = result.score("linear", "pretrained")
    assert ours["value"] > result.score("linear", "untrained")["value"] + 0.02


def test_masks_are_of_the_drawings_of_their_part(tmp_path, monkeypatch):
    random = np.random.default_rng(0)
    for folder in ("train", "val"):
        (tmp_path / folder).mkdir()
        for i in range(3):
            Image.new("RGB", (128, 128), "black").save(tmp_path / folder / f"{i}.jpg")
    (tmp_path / "images").mkdir()
    lines, shade = ["file,category,split"], {}
    for part in ("train", "test"):
        for kind, category in enumerate(emoji_masks.CLASSES[1:], 1):
            drawing = np.zeros((72, 72, 4), np.uint8)
            drawing[18:54, 18:54] = shade[part, kind] = (*random.integers(50, 255, 3), 255)
            Image.fromarray(drawing).save(tmp_path / "images" / f"{part}{kind}.png")
            lines.append(f"{part}{kind}.png,{category},{part}")
    (tmp_path / "emoji.csv").write_text("\n".join(lines) + "\n")
    monkeypatch.setattr(emoji_masks, "data", lambda *_: tmp_path)
    parts = {"train": ("train", 3, 2), "test": ("val", 2, 2)}
    home = emoji_masks.composites(tmp_path / "made", parts)
    found = sorted(str(path.relative_to(home)) for path in home.rglob("*.png"))
    assert [name for name in found if "mask" in name] == [
        f"masks/{part}/000{i}.png" for part in ("test", "train") for i in range(2)
    ]
    for part in parts:
        picture = np.asarray(Image.open(home / "pictures" / part / "0001.png")).astype(int)
        mask = np.asarray(Image.open(home / "masks" / part / "0001.png"))
        assert mask.any() and not picture[0, mask[0] == 0].any()
        for kind in np.unique(mask[mask > 0]).tolist():
            off = np.abs(picture[mask == kind] - shade[part, kind][:3]).max(1)
            assert np.median(off) < 9  # edges are mixed
    again = emoji_masks.composites(tmp_path / "again", parts)
    assert all((home / name).read_bytes() == (again / name).read_bytes() for name in found)
