"""Alarms ring when a collapse is forced, for each method, and stay silent when all is well."""

import json
import math

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from tiny import Local, Samples

from selfsup import checkpoint, health, methods
from selfsup.encoder import Encoder, resnet
from selfsup.health import Monitor
from selfsup.logs import Events
from selfsup.method import Method, Views
from selfsup.methods import dino, simclr
from selfsup.optim import Optim
from selfsup.report import reading
from selfsup.report.curves import curves
from selfsup.run import Run
from selfsup.stems import Patches
from selfsup.train import train

torch.set_num_threads(1)
BATCH = 32
NAMES = ["SimCLR", "DINO", "MAE", "JEPA"]


def vit() -> Encoder:
    return Encoder(Patches((8, 8), (2, 2), 1, 32), dim=32, depth=2, heads=2)


def make(name: str, **settings) -> Method:
    torch.manual_seed(0)
    if name == "SimCLR":
        return methods.SimCLR(vit(), hidden=64, dim=16, **settings)
    if name == "DINO":
        small = {"prototypes": 32, "hidden": 64, "dim": 16, "momentum": 0.99}
        return methods.DINO(vit(), **(small | settings))
    if name == "JEPA":
        small = {"predictor_dim": 32, "predictor_depth": 1, "predictor_heads": 2}
        return methods.JEPA(vit(), **(small | settings))
    return methods.MAE(vit(), decoder_dim=32, decoder_depth=1, decoder_heads=2, **settings)


OPTIM = Optim("adamw", lr=2e-3, per=BATCH, weight_decay=0.0, clip=3.0)
SLOWLY = Optim("adamw", lr=5e-4, per=BATCH, weight_decay=0.0, clip=3.0)  # DINO collapses at 2e-3


class Digits:
    """Shifted, noisy views of real digits; `same` shows one digit only, `blank` none."""

    def __init__(self, count: int, same: bool = False, blank: bool = False, noise: float = 0.3):
        pixels = torch.from_numpy(load_digits().images).float()[:, None] / 8 - 1  # (n, 1, 8, 8)
        self.pixels = pixels[:1].expand(BATCH, -1, -1, -1) if same else pixels
        self.count, self.blank, self.noise = count, blank, noise

    def __call__(self, step, part=0, parts=1):
        generator = torch.Generator().manual_seed(step)
        i = torch.randint(len(self.pixels), (BATCH,), generator=generator)
        x, views = self.pixels[i], []
        if self.blank:
            return [torch.rand(BATCH, 1, 1, 1).expand(BATCH, 1, 8, 8) for _ in range(self.count)]
        for _ in range(self.count):
            shift = torch.randint(-1, 2, (2,), generator=generator).tolist()
            noise = self.noise * torch.randn(x.shape, generator=generator)
            views.append(x.roll(shift, (2, 3)) + noise)
        return views


def look(method, batches, steps=60, optim=OPTIM, every=2):
    rows = []
    settings = {"batch": BATCH, "steps": steps, "every": every, "precision": "fp32"}
    outcome = train(method, batches, optim=optim, watch=rows.append, **settings)
    return outcome, rows, [e for e in outcome.events if e["kind"] == "verdict"]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("name", NAMES)
def test_silent_on_a_healthy_run(name, precision):
    method = make(name)
    outcome = train(
        method,
        Digits(method.views.count),
        batch=BATCH,
        steps=80,
        every=2,
        optim=SLOWLY if name == "DINO" else OPTIM,
        precision=precision,
    )
    assert [e for e in outcome.events if e["kind"] != "spike"] == []
    assert outcome.verdict == "healthy" and outcome.exit_code == 0


def test_silent_with_a_convolutional_encoder():
    torch.manual_seed(0)
    method = methods.SimCLR(resnet("resnet18", 8, width=0.125, channels=1), hidden=32, dim=16)
    outcome, _, alarms = look(method, Digits(2), optim=None, steps=40)
    assert alarms == [] and outcome.verdict == "healthy"


@pytest.mark.parametrize("lr", [0.0, 1e-20])
@pytest.mark.parametrize("name", NAMES)
def test_a_learning_rate_of_nothing_rings_in_one_window(name, lr):
    method = make(name)
    outcome, _rows, alarms = look(method, Digits(method.views.count), 20, Optim(lr=lr))
    (alarm,) = alarms
    assert alarm["verdict"] == "collapsed" and "weights do not move" in alarm["message"]
    assert "learning rate" in alarm["cause"] and "optim.lr" in alarm["do"]
    assert alarm["step"] <= 2 * (1 + health.WINDOW)
    assert outcome.exit_code == 3


@pytest.mark.parametrize("name", NAMES)
def test_identical_samples_are_a_fault_of_the_data(name):
    method = make(name)
    outcome, _rows, alarms = look(method, Digits(method.views.count, same=True, noise=0.0), 12)
    assert alarms[0]["step"] <= 2 * health.WINDOW
    assert "look the same" in alarms[0]["message"] and "the data" in alarms[0]["cause"]
    assert outcome.verdict == "collapsed" and outcome.exit_code == 3


@pytest.mark.parametrize(("name", "term"), [("SimCLR", "nt_xent"), ("MAE", "reconstruction")])
def test_the_report_draws_what_guessing_costs(name, term, tmp_path):
    method, run = make(name), Run(tmp_path)
    train(method, Digits(method.views.count), batch=BATCH, steps=2, every=2, optim=OPTIM, run=run)
    kept = checkpoint.read_state(run.checkpoint)["monitor"]
    level = method.constant[term] if name == "MAE" else math.log(2 * BATCH - 1)
    assert kept["guessing"] == {term: pytest.approx(float(level))}
    assert Monitor(method, kept).save() == kept
    assert "nothing learned" in curves(reading.read(tmp_path))


@pytest.mark.parametrize("name", NAMES)
def test_blank_samples_are_a_fault_of_the_data(name):
    method = make(name)
    _outcome, _, alarms = look(method, Digits(method.views.count, blank=True), 12)
    assert alarms[0]["step"] <= 2 * health.WINDOW
    assert "no content" in alarms[0]["message"] and "the data" in alarms[0]["cause"]


def test_identical_samples_in_noisy_views_ring_too():
    """Nothing to tell apart: the contrast stays at chance."""
    outcome, _, alarms = look(make("SimCLR"), Digits(2, same=True, noise=0.3), 80)
    assert outcome.verdict == "collapsed" and "duplicates" in alarms[-1]["do"]


def test_simclr_that_cannot_tell_samples_apart():
    """A temperature so high that all similarities look alike: the loss stays at ln(2b - 1)."""
    _outcome, rows, alarms = look(make("SimCLR", temperature=1e4), Digits(2))
    assert [alarm["verdict"] for alarm in alarms] == ["warning", "collapsed"]
    assert rows[-1]["train/nt_xent"] == pytest.approx(math.log(2 * BATCH - 1), abs=1e-3)


def test_simclr_without_its_negatives(monkeypatch):
    """Attraction alone: the shortest way to a small loss is one point for all samples."""

    def attract(z1, z2, temperature):
        return 1 - torch.cosine_similarity(z1, z2).mean()

    class NoProjector(torch.nn.Module):
        def forward(self, h):
            return h

    monkeypatch.setattr(simclr, "nt_xent", attract)
    method = make("SimCLR")
    method.projector = NoProjector()
    outcome, rows, alarms = look(method, Digits(2), 120, Optim(lr=1e-2, per=BATCH))
    assert outcome.verdict == "collapsed", rows[-1]
    assert "same embedding" in alarms[-1]["message"] and rows[-1]["monitor/std"] < 0.02


def test_dino_at_too_high_a_rate():
    """A teacher that follows at 0.9 and ten times the rate of a healthy run."""
    high = Optim("adamw", lr=5e-3, per=BATCH, weight_decay=0.0, clip=3.0)
    outcome, _rows, alarms = look(make("DINO", momentum=0.9), Digits(8), 80, high)
    assert alarms and outcome.verdict in ("warning", "collapsed")


def test_dino_with_gradients_into_the_targets_and_no_centre(monkeypatch):
    """The stop-gradient removed: targets move to where they are easiest to hit."""

    def both_ways(student, teacher):
        free = student.log_softmax(-1)
        targets = student[: len(teacher)].softmax(-1)
        return -(targets[:, None] * free).sum(-1).mean()

    monkeypatch.setattr(dino, "across_views", both_ways)
    method = make("DINO", centre_momentum=1.0)
    outcome, rows, _alarms = look(method, Digits(8), 120, Optim(lr=5e-3, per=BATCH))
    assert outcome.verdict == "collapsed", rows[-1]


def test_dino_whose_teacher_says_nothing():
    """A teacher temperature that flattens every assignment."""
    method = make("DINO", teacher_temperature=1e4, teacher_temperature_end=1e4, temperature=1.0)
    outcome, rows, alarms = look(method, Digits(8), 60)
    assert outcome.verdict == "collapsed"
    assert "all prototypes alike" in alarms[-1]["message"]
    assert rows[-1]["monitor/vagueness"] > 0.999


def test_dino_with_everything_in_one_prototype():
    method = make(
        "DINO", centre_momentum=1.0, teacher_temperature=1e-4, teacher_temperature_end=1e-4
    )
    with torch.no_grad():  # a direction that wins everywhere
        for head in (method.head, method.teacher_head.slow):
            head["project"][-1].bias.add_(100.0)
    _outcome, rows, alarms = look(method, Digits(8), 20)
    assert "same prototype" in alarms[-1]["message"]
    assert rows[-1]["monitor/perplexity"] < 1.5


def test_mae_whose_encoder_is_blind():
    """The decoder learns what can be guessed without looking."""
    method = make("MAE")
    for p in method.encoder.parameters():
        torch.nn.init.zeros_(p)
    outcome, _rows, alarms = look(method, Digits(1), 80, Optim(lr=1e-9, per=BATCH))
    assert outcome.verdict == "collapsed"
    assert "same embedding" in alarms[-1]["message"] or "guessing" in alarms[-1]["message"]


def test_jepa_that_follows_itself():
    """Without a slow teacher latents that are easily foretold win: the same for all."""
    method = make("JEPA", momentum=0.0)
    optim = Optim("adamw", lr=1e-2, per=BATCH, weight_decay=0.0, clip=3.0)
    outcome, _rows, alarms = look(method, Digits(1), 150, optim)
    assert outcome.verdict == "collapsed" and "same embedding" in alarms[-1]["message"]


def test_masked_methods_may_have_a_low_rank():
    class Line(Local):
        """All embeddings on a line through the origin, of both signs."""

        def loss(self, views, progress):
            terms = super().loss(views, progress)
            h = self.watch["embedding"]
            self.watch = {"embedding": (h[:, :1] - h[:, :1].mean()) * torch.ones_like(h)}
            return terms

    class Joint(Line):
        views = Views(light=2)

        def loss(self, views, progress):
            return super().loss(views[:1], progress)

    class Apart(Line):
        apart = True

    for kind, expected in ((Line, "healthy"), (Joint, "warning"), (Apart, "warning")):
        method = kind()
        monitor = Monitor(method)
        monitor.first_rank = 8.0
        events = Events(None)
        for step in range(20):
            terms = method.loss(Samples(views=2)(step)[: method.views.count], 0.0)
            numbers = {name: x.item() for name, x in terms.items()}
            with torch.no_grad():
                method.decoder.bias.add_(0.1)  # weights that move
            monitor.look(step, step / 20, Samples()(step), numbers, events)
        assert monitor.verdict.kind == expected


@pytest.mark.parametrize(
    ("progress", "error", "kind"),
    [
        (0.4, 1.0, "healthy"),
        (0.6, 0.9, "healthy"),
        (0.6, 1.0, "collapsed"),
        (0.6, 1.3, "collapsed"),
    ],
)
def test_no_better_than_one_answer_for_all_is_an_alarm_late(progress, error, kind):
    method = Local()
    monitor = Monitor(method)
    method.constant = {"rebuild": torch.tensor(1.0)}
    for step in range(4):
        method.watch = {"embedding": torch.randn(8, 4)}
        with torch.no_grad():
            method.decoder.bias.add_(0.1)
        monitor.look(step, progress, Samples()(step), {"rebuild": error}, Events(None))
    assert monitor.verdict.kind == kind


def test_a_spike_is_an_event_and_nothing_else(tmp_path):
    class Spiky(Local):
        def loss(self, views, progress):
            terms = super().loss(views, progress)
            return {n: x * (100 if abs(progress - 0.7) < 0.01 else 1) for n, x in terms.items()}

    run = Run(tmp_path)
    outcome = train(Spiky(), Samples(views=1), batch=8, steps=50, run=run, every=5)
    (event,) = outcome.events
    assert event["kind"] == "spike" and event["step"] == 36 and "usually" in event["message"]
    assert outcome.finished and outcome.verdict == "healthy"


def test_a_verdict_needs_a_window_and_can_be_taken_back():
    method, events = Local(), Events(None)
    monitor = Monitor(method)

    def see(constant, step):
        x = torch.randn(8, 12, generator=torch.Generator().manual_seed(step))
        method.watch = {"embedding": torch.ones(8, 4) if constant else x[:, :4]}
        with torch.no_grad():
            method.decoder.bias.add_(0.1)
        monitor.look(step, 0.5, [x], {"rebuild": 1.0}, events)
        return monitor.verdict.kind

    assert [see(False, s) for s in range(3)] == ["healthy"] * 3
    assert [see(True, s) for s in (3, 4)] == ["healthy"] * 2
    assert see(False, 5) == "healthy"
    assert [see(True, s) for s in (6, 7, 8)] == ["healthy", "healthy", "collapsed"]
    assert [see(False, s) for s in (9, 10, 11)] == ["collapsed", "collapsed", "healthy"]
    assert [e["verdict"] for e in events.seen] == ["collapsed", "healthy"]


def test_memory_of_the_monitor_is_json_and_complete():
    method, events = Local(), Events(None)
    monitors = [Monitor(method), Monitor(method)]
    for step in range(8):
        terms = method.loss(Samples(views=1)(step), 0.0)
        numbers = {name: x.item() for name, x in terms.items()}
        monitors[1] = Monitor(method, json.loads(json.dumps(monitors[1].save())))
        for monitor in monitors:
            monitor.spike(step, numbers["rebuild"], events)
            monitor.look(step, 0.1, Samples()(step), numbers, events)
        assert monitors[0].save() == monitors[1].save()
    assert monitors[0].verdict == monitors[1].verdict == health.FROZEN


# -- the numbers, each beside a slow reading ------------------------------------------------------


def test_effective_rank_against_numpy_and_known_cases():
    x = torch.randn(20, 6, generator=torch.Generator().manual_seed(0))
    values = np.linalg.svd(x.double().numpy(), compute_uv=False)
    p = values / values.sum()
    assert health.effective_rank(x) == pytest.approx(math.exp(-(p * np.log(p)).sum()), rel=1e-4)
    assert health.effective_rank(torch.eye(7)) == pytest.approx(7, rel=1e-4)
    assert health.effective_rank(torch.ones(9, 5)) == pytest.approx(1, rel=1e-3)
    assert health.effective_rank(torch.zeros(9, 5)) < 1.1


def test_spread_of_an_even_cloud_is_one_and_of_a_point_zero():
    generator = torch.Generator().manual_seed(0)
    assert health.spread(torch.randn(4000, 32, generator=generator)) == pytest.approx(1, abs=0.02)
    assert health.spread(torch.ones(10, 4)) == 0
    assert health.spread(torch.ones(1, 4)) == 1.0


def test_prototype_use():
    perplexity, vagueness = health.prototype_use(torch.full((6, 8), 1 / 8))
    assert perplexity == pytest.approx(8, rel=1e-4) and vagueness == pytest.approx(1)
    perplexity, vagueness = health.prototype_use(torch.eye(8))
    assert perplexity == pytest.approx(8, rel=1e-4) and vagueness == pytest.approx(0)
    one = torch.zeros(6, 8)
    one[:, 3] = 1
    assert health.prototype_use(one)[0] == pytest.approx(1)


def test_finite_tensors_and_weight():
    method = Local()
    before = health.weight(method)
    assert health.finite_tensors(method) and health.weight(method) == before
    with torch.no_grad():
        method.decoder.bias[2] += 1e-5
    assert abs(health.weight(method) - before) > health.STILL * before
    for bad in (math.inf, -math.inf, math.nan):
        with torch.no_grad():
            method.decoder.bias[2] = bad
        assert not health.finite_tensors(method)
