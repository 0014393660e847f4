"""Sentences and a score: the cosine of vectors against what people said."""

import numpy as np
import pytest
from scipy.stats import spearmanr

import selfsup
from selfsup.data import open_source
from selfsup.errors import SelfsupError
from selfsup.evaluate import similarity, tasks

WORDS = "red green blue cat dog bird sees likes hears one two three tall small old new".split()  # noqa: SIM905


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SELFSUP_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


def table(path, count=60, longer=1, part=""):
    """Sentences of six words, of which some are the same: the score."""
    draws = np.random.default_rng(0)
    lines = [f"sentence1,sentence2,score{part}"]
    scores, texts = [], []
    for i in range(count):
        one, other = (list(draws.permutation(WORDS)[:6]) for _ in "ab")
        shared = i % 7
        other[:shared] = one[:shared]
        texts.append((" ".join(one), " ".join(other * longer)))
        scores.append(shared + round(float(draws.uniform(0, 0.4)), 2))
        cells = [*texts[-1], str(scores[-1]), *(["test" if i % 2 else "train"] if part else [])]
        lines.append(",".join(cells))
    path.write_text("\n".join(lines))
    return path, texts, scores


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    return selfsup.pretrain(
        table(folder / "t.csv")[0],
        encoder={"name": "bert_micro", "dim": 24, "heads": 2, "depth": 1},
        resolution=16, batch=8, steps=2, out=folder / "a", quiet=True,
    )  # fmt: skip


def test_spearman_beside_its_controls(run, tmp_path):
    path, texts, scores = table(tmp_path / "t.csv")
    assert tasks.suggested("text", path, None) == "similarity"
    told = similarity.evaluate_task(run, path, seeds=2).to_json()
    rows = {row["of"]: row["spearman"] for row in told["scores"]}
    assert set(rows) == {"pretrained", "untrained", "TF-IDF"} and rows["TF-IDF"] > 0.8
    loaded = selfsup.load(run)
    x, y = (loaded.embed(write(tmp_path / f"{k}.csv", [t[k] for t in texts])) for k in (0, 1))
    cosine = (x * y).sum(1) / np.linalg.norm(x, axis=1) / np.linalg.norm(y, axis=1)
    assert rows["pretrained"] == pytest.approx(spearmanr(cosine, scores).statistic, abs=0.01)
    assert told["gain"]["low"] < told["gain"]["value"] < told["gain"]["high"]
    assert (run.path / "evaluation-similarity.json").exists()


def write(path, texts):
    path.write_text("\n".join(["text", *texts]))
    return path


def test_of_a_table_with_parts_the_one_that_tests(run, tmp_path):
    path, _, _ = table(tmp_path / "t.csv", part=",split")
    assert "30 rows, the part 'test'" in str(similarity.evaluate_task(run, path, seeds=2))


def test_other_tables_are_not_taken_for_it(run, tmp_path):
    def suits(path, modality="text"):
        return similarity.suits(modality, open_source(path), None)

    alike, _, _ = table(tmp_path / "u.csv")
    assert suits(alike) and not suits(alike, "image")
    assert not suits(table(tmp_path / "t.csv", longer=4)[0])  # a title and a text
    one = write(tmp_path / "v.csv", [" ".join(WORDS[i:]) for i in range(12)])
    assert not suits(one)
    rows = alike.read_text().split("\n", 1)[1]
    for head, wanted in (
        ("review,summary,target", "regress"),
        ("review,summary,label", "regress"),
        ("review,summary,value", "regress"),
        ("review,summary,score", "similarity"),
        ("review,summary,similarity_score", "similarity"),
        ("Text1,Text2,label", "similarity"),
    ):
        (tmp_path / "w.csv").write_text(f"{head}\n{rows}")
        assert tasks.suggested("text", tmp_path / "w.csv", None) == wanted, head
    with pytest.raises(SelfsupError, match="score"):
        similarity.evaluate_task(run, one)
