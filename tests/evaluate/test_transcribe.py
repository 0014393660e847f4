"""Error rates, decoding and the label curve of speech recognition."""

import io
import os
import shutil
from functools import cache

import numpy as np
import pytest
import soundfile
import torch

import selfsup
from selfsup.console import Console
from selfsup.data import open_source, open_store
from selfsup.errors import SelfsupError
from selfsup.evaluate import tasks
from selfsup.evaluate.transcribe import Recogniser, conclude, evaluate_task, rates, transcripts
from selfsup.finetune.asked import ask
from selfsup.finetune.job import Job
from selfsup.transfer.transcribe import Transcribe, collapse, distance


def slow_distance(a, b):
    @cache
    def d(i, j):
        if i == 0 or j == 0:
            return i + j
        return min(d(i - 1, j) + 1, d(i, j - 1) + 1, d(i - 1, j - 1) + (a[i - 1] != b[j - 1]))

    return d(len(a), len(b))


def test_distance_against_its_definition():
    random = np.random.default_rng(0)
    for _ in range(40):
        a, b = ("".join(random.choice(list("abc"), random.integers(0, 9))) for _ in range(2))
        assert distance(a, b) == slow_distance(a, b), (a, b)
    assert distance("kitten", "sitting") == 3
    assert distance(["a", "word"], ["a", "bird"]) == 1


def test_greedy_decoding():
    letters = [" ", "a", "b"]
    assert collapse([0, 2, 2, 0, 2, 3, 3, 0, 1, 1, 3], letters) == "aab b"
    assert collapse([0, 0, 1, 1], letters) == ""


def test_ctc_against_all_alignments():
    """-log of the sum over every path that collapses to the text."""
    from itertools import product

    torch.manual_seed(0)
    letters, text = ["a", "b"], "ab"
    scores = torch.randn(1, 4, 3).log_softmax(-1)
    total = sum(
        np.exp(sum(scores[0, t, k].item() for t, k in enumerate(path)))
        for path in product(range(3), repeat=4)
        if collapse(path, letters) == text
    )
    found = Transcribe(letters, 4).loss(scores, [text]).item()
    assert found == pytest.approx(-np.log(total) / len(text), abs=1e-5)  # torch: a letter's share


def test_rates_are_errors_over_letters_with_an_interval():
    counts = np.array([[1, 10], [0, 30], [5, 10]])
    found = rates(counts)
    assert found.value == pytest.approx(6 / 50) and found.low <= found.value <= found.high


def test_the_verdict_needs_an_interval_above_zero():
    same = np.tile([3.0, 10, 1, 2], (20, 1))
    better = np.tile([1.0, 10, 1, 2], (20, 1))
    told = conclude({("pretrained", 1.0): better, ("from scratch", 1.0): same}, [1.0])
    assert told["gain"] and "spares transcription" in told["sentence"]
    told = conclude({("pretrained", 1.0): same, ("from scratch", 1.0): same}, [1.0])
    assert not told["gain"] and "does not certainly spare" in told["sentence"]
    told = conclude({("pretrained", 1.0): same, ("from scratch", 1.0): better}, [1.0])
    assert not told["gain"] and "does not spare" in told["sentence"]
    mixed = np.where(np.arange(20)[:, None] % 3 == 0, better, same)  # a little better, by chance?
    both = {("pretrained", a): same for a in (1.0, 9.0)}
    both |= {("from scratch", 1.0): better, ("from scratch", 9.0): same}
    told = conclude(both, [1.0, 9.0])
    assert "does not certainly spare" in told["sentence"] and "with 9 " in told["sentence"]
    told = conclude({("pretrained", 1.0): mixed, ("from scratch", 1.0): mixed[::-1]}, [1.0])
    assert "does not certainly spare" in told["sentence"]


@pytest.fixture(scope="module")
def melodies(tmp_path_factory):
    """Words of two letters, each letter a tone: speech that is learned in seconds."""
    folder = tmp_path_factory.mktemp("melodies")
    random, rows = np.random.default_rng(0), ["file\ttext\tsplit\tgroups"]
    t = np.arange(1200) / 8000
    for i in range(60):
        text = " ".join("".join(random.choice(list("ab"), 2)) for _ in range(2))
        parts = [np.sin(2 * np.pi * {"a": 500, "b": 1500, " ": 0}[c] * t) for c in text]
        sound = 0.3 * np.concatenate(parts) + 0.01 * random.standard_normal(1200 * len(text))
        file = io.BytesIO()
        soundfile.write(file, sound, 8000, format="WAV")
        (folder / f"{i}.wav").write_bytes(file.getvalue())
        rows.append(f"{i}.wav\t{text}\t{'test' if i % 5 == 0 else 'train'}\t{i % 30}")
    (folder / "said.tsv").write_text("\n".join(rows) + "\n")
    return folder


@pytest.fixture(scope="module")
def encoder(melodies, tmp_path_factory):
    os.environ["SELFSUP_CACHE"] = str(tmp_path_factory.mktemp("cache"))

    run = selfsup.pretrain(
        melodies,
        method={"name": "mae", "decoder_dim": 32, "decoder_depth": 1, "decoder_heads": 2},
        encoder={"name": "mel_tiny", "dim": 48, "depth": 1, "heads": 2},
        modality={"name": "audio", "mels": 16},
        steps=2,
        batch=8,
        resolution=80,
        out=tmp_path_factory.mktemp("run") / "run",
        quiet=True,
    )
    yield run
    os.environ.pop("SELFSUP_CACHE")


def test_a_whole_evaluation(melodies, encoder, tmp_path):
    found = evaluate_task(
        encoder.path,
        melodies,
        labels=melodies / "said.tsv",
        amounts=(0.05, 1),
        seeds=1,
        minutes=0.05,
        cache=tmp_path,
    )
    told = found.to_json()
    assert [(row["minutes"], row["of"]) for row in told["curve"]] == [
        (0.05, "pretrained"), (0.05, "from scratch"), (told["curve"][2]["minutes"], "pretrained"),
        (told["curve"][3]["minutes"], "from scratch"),
    ]  # fmt: skip
    assert told["letters"] == " ab" and "12 to test" in told["statement"]
    assert "60 samples are of 30 recordings or groups" in told["notes"][-1]
    assert "transcribed" in str(found) and found.verdict in str(found)
    assert (encoder.path / "evaluation-transcribe.json").exists()
    for row in told["curve"]:
        assert row["cer"]["low"] <= row["cer"]["value"] <= row["cer"]["high"]
    assert len(told["heard"]) == 8 and all(len(pair) == 2 for pair in told["heard"])
    assert tasks.suggested("audio", melodies, melodies / "said.tsv") == "transcribe"
    assert tasks.suggested("audio", melodies, None) == "classify"


def test_a_model_of_texts(melodies, encoder, tmp_path, monkeypatch):
    from selfsup.transfer import model, transcribe

    monkeypatch.setattr(transcribe, "MOST_STEPS", 40)
    monkeypatch.setattr(model, "compare", lambda *given: (0.0, 0))
    found = encoder.finetune(melodies, tmp_path / "m", labels=melodies / "said.tsv", seed=1)
    told = found.to_json()
    assert told["task"] == "transcribe" and told["settings"]["trained"] == "full"
    assert told["split"]["test"] == 12 and 0 <= found.score() <= 1.5
    assert any("60 samples are of 30 recordings or groups" in note for note in told["notes"])
    said = found.model.predict(melodies)["text"]
    assert len(said) == 60 and set("".join(said)) <= set(" ab")
    texts, parts = transcripts(found.model.task.samples(open_source(melodies)),
                               melodies / "said.tsv")  # fmt: skip
    tests = [i for i, part in enumerate(parts) if part == "test"]
    wrong = sum(distance(texts[i], said[i]) for i in tests)
    assert found.score() == pytest.approx(wrong / sum(len(texts[i]) for i in tests), abs=0.03)
    assert selfsup.load_model(found.path).told["answers"]["letters"] == [" ", "a", "b"]


def test_a_curve_of_texts(melodies, encoder, tmp_path, monkeypatch):
    """Letters are those of the texts that are drawn; both sides get the same ones."""
    from selfsup.transfer import model, transcribe
    from selfsup.transfer import tasks as transfer

    monkeypatch.setattr(transcribe, "MOST_STEPS", 2)
    monkeypatch.setattr(transcribe, "LEAST_STEPS", 2)
    monkeypatch.setattr(model, "compare", lambda *given: (0.0, 0))
    seen, honest = [], transfer.train

    def train(network, encoder, part, **settings):
        seen.append((network, part, settings))
        honest(network, encoder, part, **settings)

    monkeypatch.setattr(transfer, "train", train)
    found = encoder.finetune(melodies, tmp_path / "m", labels=melodies / "said.tsv", minutes=1000,
                             shots=(1, 3), seeds=2)  # fmt: skip
    assert [(row["shots"], row["of"]) for row in found.curve] == [
        (shots, of) for shots in (1, 3) for of in ("pretrained", "from scratch")
    ]
    few = [call for call in seen if len(call[1]) <= 3]
    assert len(few) == 2 * 2 * 2
    texts, parts = transcripts(open_source(melodies), melodies / "said.tsv")
    for (one, ours, a), (other, theirs, b) in zip(few[::2], few[1::2], strict=True):
        assert a["pretrained"] and not b["pretrained"] and a["steps"] == b["steps"]
        assert ours.rows.tolist() == theirs.rows.tolist()
        assert ours.targets == [texts[i] for i in ours.rows]
        assert {parts[i] for i in ours.rows} == {"train"}
        assert one.task.letters == other.task.letters == sorted(set("".join(ours.targets)))
    ours, theirs = found.curve[:2]
    assert ours["gain"]["value"] == pytest.approx(theirs["value"] - ours["value"])  # of errors


@pytest.mark.parametrize("given", [False, True])
def test_no_copy_of_a_recording_that_tests_or_chooses_teaches(given, melodies, encoder, tmp_path):
    """Of 20 recordings each is there three times."""
    for i in range(60):
        shutil.copy(melodies / f"{i % 20}.wav", tmp_path / f"{i:02}.wav")
    texts = ["ab ab" if i % 20 else None for i in range(60)]  # of the first nothing is known
    parts = ["train"] * 40 + ["dev"] * 10 + ["test"] * 10 if given else [""] * 60
    loaded = selfsup.load(encoder.path)
    with open_store(open_source(tmp_path), loaded.modality, loaded.size) as store:
        job = Recogniser(loaded, store, texts, parts, Console(quiet=True), 0)
    train, held, test = (
        {i % 20 for i in rows.tolist()} for rows in (job.train, job.held, job.test)
    )
    assert not train & held and not train & test and not held & test and 0 not in train | test
    assert len(job.test) >= 10 and len(job.train) >= 14
    assert any("were dropped: they are also in test" in note for note in job.notes) == given


@pytest.mark.parametrize("speakers", [1, 2, 30])
def test_few_speakers_leave_most_to_teach(speakers, melodies, encoder):
    """Whole speakers choose the rate where these are few recordings, else some of each."""
    loaded, source = selfsup.load(encoder.path), open_source(melodies)
    own = np.arange(60) % speakers
    own[40:] = 30  # who tests
    source.groups = lambda: own
    parts = ["train"] * 40 + ["test"] * 20
    with open_store(source, loaded.modality, loaded.size) as store:
        job = Recogniser(loaded, store, ["ab ab"] * 60, parts, Console(quiet=True), 0)
    assert 4 <= len(job.held) <= 8 and len(job.train) + len(job.held) == 40
    assert len(job.test) == 20 and len(np.union1d(job.train, job.held)) == 40
    alone = set(own[job.train]).isdisjoint(own[job.held])
    assert alone == (speakers == 30)


def test_an_encoder_that_is_too_slow_for_letters_is_refused(melodies, encoder, tmp_path):
    table = tmp_path / "long.csv"
    table.write_text("file,text\n" + "".join(f"{i}.wav,{'ab' * 40}\n" for i in range(60)))
    with pytest.raises(SelfsupError, match="E202"):
        evaluate_task(encoder.path, melodies, labels=table, cache=tmp_path, minutes=0.01)


def test_missing_transcripts_are_an_error(melodies, tmp_path):
    table = tmp_path / "wrong.csv"
    table.write_text("file,label\n1.wav,2\n")
    with pytest.raises(SelfsupError, match="E501"):
        transcripts(open_source(melodies), table)
    texts, parts = transcripts(open_source(melodies), melodies / "said.tsv")
    assert len(texts) == 60 and set(parts) == {"train", "test"}


def test_texts_are_those_of_the_files_that_the_table_means(melodies, encoder, tmp_path):
    for name in ("x/1.wav", "y/1.wav", "y/2.wav"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(melodies / "1.wav", tmp_path / name)
    table = tmp_path / "said.csv"
    table.write_text("file,text\n1.wav,which\n2.wav,b\n")
    assert transcripts(open_source(tmp_path), table)[0] == [None, None, "b"]
    table.write_text("file,text\ny/1.wav,a\n./y/2.wav,B  b\n")
    texts, parts = transcripts(open_source(tmp_path / "y"), table)  # by the table's own folder
    assert texts == ["a", "b b"] and parts == ["", ""]
    loaded = selfsup.load(encoder.path)
    asked = ask(loaded, melodies / "said.tsv", None, None, False)
    assert asked.task == "transcribe" and asked.known.all() and asked.source.content == "audio"
    loaded.modality.longest = 0.1  # seconds, which all of them are longer than
    with open_store(asked.source, loaded.modality, loaded.size, cache=tmp_path / "c") as store:
        job = Job(loaded, store, asked, Console(quiet=True), 0, 1.0)
        job.divide(drop_leaks=False)
    told = f"Of {len(job.train)} recordings of 0.1 s or more the middle is heard"
    assert any(note.startswith(told) for note in job.notes)


def test_unknown_tasks_are_named():
    with pytest.raises(SelfsupError, match="transcribe"):
        tasks.find("transcripe")
