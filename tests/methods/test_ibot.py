import pytest
import torch
from fixed import waves
from test_contract import build

from selfsup.methods.ibot import at_hidden


def run(method, views, progress=0.5):
    """The terms, and what both heads said before them: logits (m, k) and the mask."""
    said, masks_ = [], []
    student, teacher = method.head["prototypes"], method.teacher_head.slow["prototypes"]
    handles = [
        head.register_forward_hook(lambda m, i, o: said.append(o)) for head in (student, teacher)
    ]
    hide = method.hide
    method.hide = lambda *args: masks_.append(hide(*args)) or masks_[-1]
    terms = method(views, progress)
    for handle in handles:
        handle.remove()
    method.hide = hide
    return terms, *said, torch.cat(masks_)


@pytest.mark.parametrize(("progress", "temperature"), [(0.0, 0.04), (0.5, 0.07)])
def test_terms_against_a_slow_reading(progress, temperature):
    method, views = build("IBOT", "image")
    for centre in method.centres:
        centre.mean.normal_()
    terms, student, teacher, hidden = run(method, views, progress)
    samples, rest = student[: 12 * 8].view(12, 8, 32) / 0.1, student[12 * 8 :] / 0.1
    whole = ((teacher[:16] - method.centres[0].mean) / temperature).softmax(-1).view(2, 8, 32)
    parts = ((teacher[16:] - method.centres[1].mean) / temperature).softmax(-1)
    total = 0.0
    for i in range(2):
        for j in range(12):
            if i != j:
                total -= (whole[i] * samples[j].log_softmax(-1)).sum(-1).mean() / 22
    torch.testing.assert_close(terms["samples"], total, atol=1e-5, rtol=1e-5)
    at, total = 0, 0.0
    for row in hidden:
        count = int(row.sum())
        for _ in range(count):
            total -= (parts[at] * rest[at].log_softmax(-1)).sum() / count / 16
            at += 1
    assert at == len(rest) == len(parts) > 0
    torch.testing.assert_close(terms["tokens"], total, atol=1e-5, rtol=1e-5)


def test_loss_of_tokens_against_another_implementation():
    """lightly 1.6.0, loss/ibot_loss.py, teacher_temp 0.055, a centre that is not zero."""
    method, views = build("IBOT", "image")
    hidden = waves(0.2, 16, 16) > 0.6
    hidden[::3] = False
    parts = iter(hidden.split(8))
    method.hide = lambda rows, device: next(parts)
    method.head.forward = lambda h, frozen: waves(1.1, len(h), 32)
    method.teacher_head.forward = lambda h: waves(0.4, len(h), 32)
    method.centres[1].mean.copy_(waves(0.7, 32))
    found = method(views, 0.15)["tokens"]
    torch.testing.assert_close(found, torch.tensor(7.2156834602), atol=1e-5, rtol=1e-5)


def test_each_hidden_token_is_compared_with_the_same_token_of_the_same_view():
    method, views = build("IBOT", "image")
    slow = method.teacher.slow
    seen, asked = [], []
    method.teacher_head.slow["project"].register_forward_hook(lambda m, i, o: seen.append(i[0]))
    method.head["project"].register_forward_hook(lambda m, i, o: asked.append(i[0]))
    _, _, _, hidden = run(method, views)
    wide, encoder = torch.cat(views[:2]), method.encoder
    tokens = torch.where(hidden[..., None], method.blank, encoder.embed(wide)) + encoder.positions
    torch.testing.assert_close(asked[0][12 * 8 :], encoder.trunk(tokens)[hidden])
    places = slow.features(wide)
    torch.testing.assert_close(seen[0][16:], places[hidden])
    torch.testing.assert_close(seen[0][:16], places.mean(1))


def test_only_the_student_has_hidden_tokens_and_only_wide_views_do():
    method, views = build("IBOT", "image")
    views = [x.requires_grad_() for x in views]
    terms, _, _, hidden = run(method, views)
    terms["samples"].backward()
    gradient = torch.cat([method.encoder.stem.patches(x.grad) for x in views[:2]]).abs().sum(-1)
    assert torch.equal(gradient > 0, ~hidden)
    assert all((method.encoder.stem.patches(x.grad).abs().sum(-1) > 0).all() for x in views[2:])


def test_centres_are_moving_means_of_samples_and_of_tokens():
    method, views = build("IBOT", "image")
    said, old = [], torch.randn(2, 32)
    for centre, mean in zip(method.centres, old, strict=True):
        centre.mean.copy_(mean)
    for _ in range(2):  # two micro-batches, one step
        said.append(run(method, views)[2])
    method.after_step(0.5)
    samples = torch.cat([t[:16] for t in said]).mean(0)
    tokens = torch.cat([t[16:] for t in said]).mean(0)
    for centre, mean, new in zip(method.centres, old, (samples, tokens), strict=True):
        torch.testing.assert_close(centre.mean, 0.9 * mean + 0.1 * new)
        assert centre.rows == 0 and centre.total.abs().sum() == 0


def test_views_with_nothing_hidden_count_as_zero():
    hidden = torch.tensor([[True, True, False], [False, False, False], [True, False, False]])
    student, teacher = torch.randn(3, 5), torch.randn(3, 5).softmax(-1)
    each = -(teacher * student.log_softmax(-1)).sum(-1)
    expected = ((each[0] + each[1]) / 2 + each[2]) / 3
    torch.testing.assert_close(at_hidden(student, teacher, hidden), expected)


def test_half_of_the_views_hide_blocks_of_one_ratio():
    method, _ = build("IBOT", "image")
    counts = set()
    for seed in range(20):
        torch.manual_seed(seed)
        hidden = method.hide(200, None).sum(1)
        assert 60 < int((hidden > 0).sum()) < 140
        assert len(set(hidden[hidden > 0].tolist())) == 1
        counts.add(int(hidden.max()))
    assert min(counts) >= 2 and max(counts) <= 8 and len(counts) > 4  # of 16


def test_prototypes_do_not_move_while_frozen_and_the_teacher_is_kept():
    method, views = build("IBOT", "image")
    sum(method(views, 0.0).values()).backward()
    assert method.head["prototypes"].directions.grad.abs().sum() == 0
    assert method.kept is method.teacher.slow
