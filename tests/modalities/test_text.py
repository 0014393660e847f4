"""Text as a modality: views, vocabulary, baseline; and a whole run with all that follows."""

import json
import os
import random

import numpy as np
import pytest
import torch
from tiny import elsewhere

import selfsup
from selfsup.data import open_source
from selfsup.errors import SelfsupError
from selfsup.evaluate import perplexity
from selfsup.evaluate.ngram import SYMBOLS, Ngrams
from selfsup.evaluate.perplexity import _verdict, evaluate_task, losses
from selfsup.evaluate.tasks import suggested
from selfsup.generate import draw
from selfsup.inference import assemble
from selfsup.load import load_method
from selfsup.method import Views
from selfsup.modalities.text import Text
from selfsup.ragged import Ragged
from selfsup.randomness import Draws
from selfsup.stems import MASK
from selfsup.views import tokens as looks

WORDS = {
    "cats": ["cat", "kitten", "purr", "fur", "claw", "whisker"],
    "cars": ["car", "wheel", "motor", "road", "brake", "fuel"],
}


def sentences(count: int, seed: int = 0) -> list[tuple[str, str]]:
    draws = random.Random(seed)
    made = []
    for i in range(count):
        label = ("cats", "cars")[i % 2]
        words = draws.choices(WORDS[label] + ["the", "a", "of", "and"], k=draws.randint(5, 14))
        made.append((label, " ".join([*words, str(i)])))
    return made


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    path = tmp_path_factory.mktemp("texts") / "texts.csv"
    rows = [f"{label},{text}" for label, text in sentences(160)]
    path.write_text("\n".join(["label,text", *rows]) + "\n")
    return path


def batch(text: Text, *texts: str):
    return assemble([text.read(t) for t in texts])


def test_views_are_windows_of_the_text_and_pure_functions_of_the_sample():
    text = Text()
    made = batch(text, "short", "a longer text with words " * 20, "x" * 300)
    spec = Views(light=1, strong=1, local=1)
    views = text.views(made, spec, Draws(0, made.samples), 64)
    again = text.views(made, spec, Draws(0, made.samples), 64)
    for a, b in zip(views, again, strict=True):
        assert torch.equal(a.values, b.values) and torch.equal(a.valid, b.valid)
    light, strong, local = views
    assert light.lengths.tolist() == [7, 64, 64] and light.shape == (3, 64)
    window = light.values[1].tolist()
    whole = text.rows(made)[1].tolist()
    assert any(whole[i : i + 64] == window for i in range(len(whole) - 63))
    assert strong.lengths[1] < 64 and (strong.values == MASK).any()
    assert (local.lengths <= strong.lengths.max()).all()
    other = text.views(made, spec, Draws(1, made.samples), 64)[0]
    assert not torch.equal(other.values, light.values)
    one = assemble([text.read("a longer text with words " * 20)])
    alone = text.views(
        type(made)(one.pixels, one.extents, made.samples[1:2], made.indices[1:2]),
        spec, Draws(0, made.samples[1:2]), 64,
    )  # fmt: skip
    assert torch.equal(alone[0].values[0], light.values[1])  # whatever batch it is in


def test_documents_have_ends_and_parts_have_none():
    from selfsup.data.texts import Cut

    text = Text()
    whole, part = text.rows(assemble([text.read(b"ab"), text.read(Cut(b"ab"))]))
    assert whole.tolist() == [0, 100, 101, 0] and part.tolist() == [100, 101]
    assert text.texts(batch(text, "ab", "abc")) == ["‖ab‖", "‖abc‖"]


def test_the_baseline_knows_words_of_the_training_part_alone():
    text = Text()
    features = text.fitted([batch(text, *(t for _, t in sentences(40)))])
    known, unknown = features(batch(text, "cat purr fur", "zebra xylophone"))
    assert known.abs().sum() > 0.1 and unknown.abs().sum() == 0


def test_documents_are_compared_and_running_text_is_foretold(table, tmp_path):
    (tmp_path / "book.txt").write_text("".join(f"line {i} of a book\n" for i in range(2000)))
    for data, method in ((table, "simclr"), (tmp_path / "book.txt", "clm")):
        text = Text(tokens="characters")
        text.learn(open_source(data))
        assert text.default_method == method
        for encoder, wanted in (("gpt_mini", "clm"), ("bert_mini", None), (None, method)):
            usual = {"simclr": "simclr", "clm": "mlm"}[method]
            assert text.method_for(encoder) == (wanted or usual)
    assert Text().default_method == "simclr"


def test_state_goes_and_comes_back():
    text = Text(tokens="characters")
    with pytest.raises(ValueError, match="asked for"):
        text.restore({"kind": "bytes"})
    text.restore({"kind": "characters", "characters": "abc"})
    assert text.codec.count == 6 and "text 1" in text.rules
    with pytest.raises(SelfsupError, match="E201"):
        Text(vocabulary=1 << 20)


def test_a_run_from_a_table_and_all_that_follows(table, tmp_path):
    run = selfsup.pretrain(
        table, method="mlm", encoder={"name": "bert_micro", "dim": 32, "depth": 1, "heads": 2},
        modality={"name": "text", "vocabulary": 400}, steps=12, batch=16, out=tmp_path / "run",
        quiet=True,
    )  # fmt: skip
    card = json.loads((run.path / "encoder.json").read_text())
    assert card["state"]["kind"] == "bpe" and run.done["step"] == 12
    found = run.evaluate(table, finetune=False, shots=(1,), seeds=2)
    assert {row["of"] for row in found.to_json()["scores"]} == {"pretrained", "untrained", "TF-IDF"}
    assert found.score("linear", "TF-IDF")["value"] > 0.9
    encoder = selfsup.load(run.path)
    vectors = encoder.embed(table)
    assert vectors.shape == (160, 32) and np.isfinite(vectors).all()
    exported = selfsup.export(run.path)
    assert np.allclose(selfsup.load(exported.path).embed(table), vectors, atol=1e-6)
    assert "Reconstructions" in selfsup.report(run.path).read_text()
    scanned = selfsup.scan(table)
    assert scanned.used == 160 and scanned.unit == "characters" and scanned.classes
    hidden = evaluate_task(run.path, table)
    rows = {row["of"]: row for row in hidden.to_json()["scores"]}
    assert set(rows) == {"pretrained", "untrained", "single tokens"}
    assert len({row["tokens"] for row in rows.values()}) == 1 and "hidden tokens" in hidden.verdict
    assert rows["pretrained"]["loss"] < rows["untrained"]["loss"]
    with pytest.raises(SelfsupError, match="E202"):  # an export has no head
        evaluate_task(exported.path, table)
    assert suggested("text", table, None) == "classify"


@pytest.mark.parametrize(
    ("ours", "words"), [(1.40, "helped"), (1.50, "not certainly below"), (1.60, "is not below")]
)
def test_the_sentence_on_perplexity_is_as_sure_as_the_intervals(ours, words):
    rows = [
        {"of": of, "bits_per_byte": v, "low": v - 0.03, "high": v + 0.03, "perplexity": 2.8}
        for of, v in (("pretrained", ours), ("untrained", 1.52), ("single bytes", 4.0))
    ]
    told = _verdict(rows)
    assert words in told["sentence"] and told["gain"] == (words == "helped")


def test_perplexity_and_generation(tmp_path):
    text = "\n".join(t for _, t in sentences(400))
    (tmp_path / "train.txt").write_text(text)
    (tmp_path / "new.txt").write_text("\n".join(t for _, t in sentences(60, seed=9)))
    run = selfsup.pretrain(
        tmp_path / "train.txt", method="clm", steps=40, batch=8, resolution=33,
        encoder={"name": "gpt_micro", "dim": 32, "depth": 1, "heads": 2},
        modality={"name": "text", "tokens": "characters"}, optim={"name": "muon", "lr": 8e-3},
        out=tmp_path / "run", quiet=True,
    )  # fmt: skip
    assert suggested("text", tmp_path / "new.txt", None) == "perplexity"
    assert run.read_json("data/manifest.json")["judged_by"] == "NEW_TEXT"
    found = evaluate_task(run.path, tmp_path / "new.txt")
    rows = {row["of"]: row for row in found.to_json()["scores"]}
    assert rows["pretrained"]["bits_per_byte"] < rows["untrained"]["bits_per_byte"] - 0.3
    assert rows["pretrained"]["perplexity"] == pytest.approx(np.exp(rows["pretrained"]["loss"]))
    assert (run.path / "evaluation-perplexity.json").exists() and str(found)
    same = evaluate_task(run.path, tmp_path / "train.txt").to_json()
    assert not same["notes"] or "training text" in same["notes"][0]

    with pytest.MonkeyPatch.context() as patch:  # the networks and the n-grams: on the same text
        patch.setattr(perplexity, "MOST", 1500)
        patch.setattr(perplexity, "TAUGHT", 2000)
        part = evaluate_task(run.path, tmp_path / "train.txt", seeds=1).to_json()
    lengths = [row["bytes"] for row in part["scores"]]
    assert min(lengths) > 1500 and max(lengths) - min(lengths) <= 2 and max(lengths) < 4000
    assert "1,500 characters test" in part["notes"][0]
    assert "2,000 characters of the training text" in part["notes"][1]

    settings = {"tokens": 60, "top_p": 0.5}  # so little trained, it may well end at any place
    further = selfsup.pretrain(
        tmp_path / "new.txt",
        from_run=run,
        steps=2,
        batch=4,
        quiet=True,
        out=tmp_path / "further",
    )
    cards = [json.loads((r.path / "encoder.json").read_text()) for r in (run, further)]
    assert cards[0]["state"] == cards[1]["state"] and cards[0]["name"] == cards[1]["name"]

    adapted = evaluate_task(further.path, tmp_path / "new.txt", seeds=1)
    new, old = adapted.to_json()["adapted"]["texts"]
    places = {"new": tmp_path / "new.txt", "old": tmp_path / "train.txt"}
    for row in (new, old):
        for which, of in (("now", further), ("before", run)):
            alone = evaluate_task(of.path, places[row["text"]], seeds=1).to_json()["scores"][0]
            assert row[which] == pytest.approx(alone["bits_per_byte"], abs=1e-6)
        assert row["change"] == pytest.approx(row["now"] - row["before"], abs=1e-6)
        assert row["low"] <= row["change"] <= row["high"]
    assert "old text" in str(adapted) and "from which it started" in adapted.verdict
    assert "--old" in " ".join(adapted.to_json()["notes"])
    held = evaluate_task(further.path, tmp_path / "new.txt", seeds=1, old=tmp_path / "new.txt")
    new, old = held.to_json()["adapted"]["texts"]
    assert new["change"] == old["change"] and "--old" not in " ".join(held.to_json()["notes"])
    with pytest.raises(SelfsupError, match="E201"):
        evaluate_task(run.path, tmp_path / "new.txt", old=tmp_path / "new.txt")
    os.replace(tmp_path / "train.txt", tmp_path / "moved.txt")
    gone = evaluate_task(further.path, tmp_path / "new.txt", seeds=1).to_json()
    assert len(gone["adapted"]["texts"]) == 1 and "not there" in " ".join(gone["notes"])

    one = selfsup.generate(run.path, "the cat ", seed=1, **settings)
    assert one == selfsup.generate(run.path, "the cat ", seed=1, **settings)
    assert one.text != selfsup.generate(run.path, "the cat ", seed=2, **settings).text
    assert one.tokens == 60 and len(one.text) == 60  # longer than the context of 32
    greedy = selfsup.generate(run.path, "the cat", tokens=8, temperature=0).text
    encoder = selfsup.load(run.path)
    known = [0, *encoder.modality.codec.encode("the cat").tolist()]
    for _ in range(8):  # without a cache, token by token
        x = torch.tensor([known])
        states = encoder.features(Ragged(x, torch.ones_like(x, dtype=bool)))
        logits = encoder.encoder.logits(states[0, -1])
        logits[[1, 2]] = -torch.inf
        known.append(int(logits.argmax()))
    assert encoder.modality.decode(known[8:]) == greedy
    with pytest.raises(SelfsupError, match="E201"):
        selfsup.generate(run.path, top_p=0)
    nats, targets = losses(encoder, [np.array([0, *known[1:]])], 4)
    assert len(nats) == len(targets) == len(known) - 1  # every token but the first, each once


def test_hidden_tokens_are_filled_after_mdlm_and_not_after_mlm(tmp_path):
    (tmp_path / "train.txt").write_text("the cat sat on the mat and the dog sat on the log\n" * 40)

    def trained(method, steps):
        return selfsup.pretrain(
            tmp_path / "train.txt", method=method, steps=steps, batch=8, resolution=32,
            encoder={"name": "bert_micro", "dim": 32, "depth": 1, "heads": 2},
            modality={"name": "text", "tokens": "characters"}, optim={"name": "muon", "lr": 8e-3},
            out=tmp_path / method, quiet=True,
        )  # fmt: skip

    run = trained("mdlm", 40)
    one = selfsup.generate(run.path, "the cat ", tokens=60, seed=1)
    assert one == selfsup.generate(run.path, "the cat ", tokens=60, seed=1)
    assert one.text != selfsup.generate(run.path, "the cat ", tokens=60, seed=2).text
    assert one.tokens == len(one.text) and (one.tokens == 60 or one.ended)
    assert len(selfsup.generate(run.path, tokens=1, temperature=0).text) <= 1
    with pytest.raises(SelfsupError, match="E202"):
        selfsup.generate(trained("mlm", 1).path)
    told = selfsup.evaluate(run, tmp_path / "train.txt").to_json()
    rows = {row["of"]: row for row in told["scores"]}
    assert set(rows) == {"pretrained", "untrained", "single bytes", "5-grams of bytes"}
    assert "upper bound" in told["notes"][-1]
    encoder = selfsup.load(run)
    method = load_method(run.path, encoder.card, encoder.modality)[0]
    known = np.r_[0, encoder.modality.codec.encode((tmp_path / "train.txt").read_text())]
    rows_of = [torch.from_numpy(known[i : i + 32]) for i in range(0, len(known) - 31, 32)]
    with torch.no_grad():  # what was minimised, at times by chance
        own = [float(method.loss([Ragged.of(rows_of)], 1.0)["bound"]) for _ in range(20)]
    assert rows["pretrained"]["loss"] == pytest.approx(np.mean(own), rel=0.03)


def test_the_nucleus_holds_the_likeliest_alone():
    logits = torch.tensor([0.5, 0.3, 0.15, 0.05]).log()
    generator = torch.Generator().manual_seed(0)
    drawn = {int(draw(logits, 1.0, 0.7, generator)) for _ in range(200)}
    assert drawn == {0, 1}
    assert int(draw(logits, 0, 1.0, generator)) == 0


def test_ngrams_against_a_slow_reading():
    documents, new = [b"abracadabra", b"abra"], b"abcab"
    model = Ngrams(documents, order=2)
    texts = ["\x00\x00" + d.decode() + "\x00" for d in documents]  # ends as zero bytes
    bits = []
    padded = "\x00\x00" + new.decode() + "\x00"
    for i in range(2, len(padded)):
        chance = 1 / SYMBOLS
        for length in range(3):
            context = padded[i - length : i]
            followers = [
                t[j] for t in texts for j in range(2, len(t)) if t[j - length : j] == context
            ]
            if followers:
                kinds = len(set(followers))
                chance = (followers.count(padded[i]) + kinds * chance) / (len(followers) + kinds)
        bits.append(-np.log2(chance))
    assert np.allclose(model.bits(new), bits)


def short(folder, table) -> None:
    """A run of eight steps with a checkpoint after each; continued where it is there."""
    torch.set_num_threads(1)  # sums depend on how many there are
    selfsup.pretrain(
        table, method="mlm", steps=8, batch=16, out=folder, quiet=True,
        encoder={"name": "bert_micro", "dim": 32, "depth": 1, "heads": 2},
        modality={"name": "text", "vocabulary": 400},
        checkpoint={"every_minutes": 1e-4},
    )  # fmt: skip


def test_a_killed_run_goes_on_bitwise(table, tmp_path):
    assert elsewhere(_killed, tmp_path / "half", table) == -9
    short(tmp_path / "half", table)
    short(tmp_path / "whole", table)
    half, whole = (selfsup.Run(tmp_path / name).checkpoint for name in ("half", "whole"))
    for name in ("method.safetensors", "optimizer.safetensors"):
        assert (half / name).read_bytes() == (whole / name).read_bytes()


def _killed(folder, table) -> None:
    os.environ["SELFSUP_FAULT"] = "train.update:kill:5"
    short(folder, table)


def test_written_tokens_need_no_sign_that_the_font_lacks():
    """Ends are left out, and what is hidden is a line."""
    plain = looks.written("a cat _ purrs")
    assert (looks.written("\u2016a cat \u25a1 purrs\u2016") == plain).all()
    assert (plain != looks.written("a cat purrs")).any()
