import math

import pytest
import torch
from fixed import ONE, OTHER, waves
from test_contract import build

from selfsup.losses import sinkhorn
from selfsup.methods.dinov2 import koleo


def run(method, views, progress=0.5):
    """The terms, and the logits of student and teacher, each for samples and for tokens."""
    said = []
    heads = [*method.heads, *method.teacher_heads]
    handles = [head.register_forward_hook(lambda m, i, o: said.append(o)) for head in heads]
    terms = method(views, progress)
    for handle in handles:
        handle.remove()
    return terms, *said


@pytest.mark.parametrize(("progress", "temperature"), [(0.0, 0.04), (0.5, 0.07)])
@pytest.mark.parametrize("centring", ["sinkhorn", "mean"])
def test_terms_against_a_slow_reading(centring, progress, temperature):
    method, views = build("DINOv2", "image")
    method.centring = centring
    for centre in method.centres:
        centre.mean.normal_()
    terms, samples, parts, whole, all_parts = run(method, views, progress)
    if centring == "mean":
        targets = ((whole - method.centres[0].mean) / temperature).softmax(-1)
        parts_targets = ((all_parts - method.centres[1].mean) / temperature).softmax(-1)
    else:
        targets, parts_targets = (sinkhorn(t / temperature) for t in (whole, all_parts))
    targets, samples = targets.view(2, 8, 32), samples.view(10, 8, 32) / 0.1
    total = 0.0
    for i in range(2):
        for j in range(10):
            if i != j:
                total -= (targets[i] * samples[j].log_softmax(-1)).sum(-1).mean() / 18
    torch.testing.assert_close(terms["samples"], total, atol=1e-5, rtol=1e-5)
    assert len(parts) == len(parts_targets) and len(parts) % 8 == 0
    total = 0.0
    for p, t in zip(parts, parts_targets, strict=True):  # per view the mean; over 16 views
        total -= (t * (p / 0.1).log_softmax(-1)).sum() / (len(parts) / 8) / 16
    torch.testing.assert_close(terms["tokens"], total, atol=1e-5, rtol=1e-5)


def test_terms_against_the_authors_code():
    """dinov2, ssl_meta_arch.py, dino_clstoken_loss.py and ibot_patch_loss.py: Sinkhorn-Knopp at
    0.055, two wide and eight small views, every other wide one hides five tokens."""
    method, views = build("DINOv2", "image")
    hidden = waves(0.6, 16, 16).argsort(1).argsort(1) >= 11
    hidden[1::2] = False
    method.hide = lambda rows, device: hidden
    for head, phase in zip(method.heads, (1.1, 2.3), strict=True):
        head.forward = lambda h, frozen, phase=phase: waves(phase, len(h), 32)
    for head, phase in zip(method.teacher_heads, (0.4, 0.8), strict=True):
        head.forward = lambda h, phase=phase: waves(phase, len(h), 32)
    terms = method(views, 0.15)
    for name, value in {"samples": 11.6627388000, "tokens": 5.3526983261}.items():
        torch.testing.assert_close(terms[name], torch.tensor(value), atol=1e-5, rtol=1e-5)


def test_koleo_against_a_slow_reading():
    x = torch.randn(7, 5)
    directions = [row / row.norm() for row in x]
    total = 0.0
    for i, a in enumerate(directions):
        near = min(float((a - b).norm()) for j, b in enumerate(directions) if j != i)
        total -= math.log(near) / 7
    assert float(koleo(x, 1e-8)) == pytest.approx(total, abs=1e-5)
    assert float(koleo(x)) == pytest.approx(total, abs=5e-3)


def test_koleo_against_another_implementation():
    """lightly 1.6.0, loss/koleo_loss.py."""
    assert float(koleo(ONE, 1e-8)) == pytest.approx(0.6918401718, abs=1e-5)
    both = koleo(ONE, 1e-8) + koleo(OTHER, 1e-8)
    assert float(both) == pytest.approx(1.4018931389, abs=1e-5)


def test_koleo_is_finite_for_duplicates_and_under_autocast():
    x = torch.randn(4, 5).repeat(2, 1).requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = koleo(x.bfloat16())
    loss.backward()
    assert loss.isfinite() and loss.dtype == torch.float32
    assert x.grad.isfinite().all() and x.grad.norm() < 1e4


def test_koleo_is_never_between_two_views_of_a_sample():
    method, views = build("DINOv2", "image")
    twice = [views[0], views[0], *views[2:]]
    method.hide = lambda rows, device: torch.arange(16).expand(2 * rows, 16) < 4
    apart = method(twice, 0.5)["spread"].item()
    tokens = method.encoder.tokens(views[0], method.hide(4, None)) + method.blank * (
        torch.arange(16) < 4
    ).view(1, 16, 1)
    expected = 2 * 0.1 * koleo(method.encoder.both(tokens)[0])
    assert apart == pytest.approx(expected.item(), rel=1e-4)


def test_one_view_of_each_sample_hides_and_all_hide_equally_much():
    method, _ = build("DINOv2", "image")
    for seed in range(8):
        torch.manual_seed(seed)
        counts = method.hide(50, None).sum(1).view(2, 50)
        assert ((counts > 0).sum(0) == 1).all() and len(set(counts[counts > 0].tolist())) == 1
        assert 2 <= int(counts.max()) <= 8  # of 16


def test_hidden_tokens_are_never_seen_by_the_student_and_are_those_that_are_compared():
    method, views = build("DINOv2", "image")
    views = [x.requires_grad_() for x in views]
    hide, kept, asked = method.hide, [], []
    method.hide = lambda *args: kept.append(hide(*args)) or kept[-1]
    for head in (method.heads[1], method.teacher_heads[1]):
        head.register_forward_hook(lambda m, i, o: asked.append(i[0]))
    terms = method(views, 0.5)
    wide, encoder = torch.cat(views[:2]), method.encoder
    tokens = torch.where(kept[0][..., None], method.blank, encoder.embed(wide))
    final = encoder.trunk(tokens + encoder.positions)
    torch.testing.assert_close(asked[0], final[kept[0]])
    torch.testing.assert_close(asked[1], method.teacher.slow.features(wide)[kept[0]])
    (terms["samples"] + terms["tokens"]).backward()
    gradient = torch.cat([method.encoder.stem.patches(x.grad) for x in views[:2]]).abs().sum(-1)
    assert torch.equal(gradient > 0, ~kept[0])
    assert method.kept is method.teacher.slow


def test_the_mean_moves_only_where_it_is_asked_for():
    method, views = build("DINOv2", "image")
    run(method, views)
    method.after_step(0.5)
    assert all(centre.mean.abs().sum() == 0 for centre in method.centres)
    method.centring = "mean"
    said = run(method, views)
    method.after_step(0.5)
    for centre, logits in zip(method.centres, said[3:], strict=True):
        torch.testing.assert_close(centre.mean, 0.1 * logits.mean(0))


def test_heads_are_two():
    method, _ = build("DINOv2", "image")
    one, other = (head["prototypes"].directions for head in method.heads)
    assert one is not other and not torch.equal(one, other)
