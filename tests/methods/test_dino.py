import math

import pytest
import torch
from fixed import fill, waves
from test_contract import build

from selfsup.encoder import Encoder
from selfsup.methods import DINO
from selfsup.methods.dino import across_views
from selfsup.stems import Patches


def test_across_views_against_a_slow_reading_of_equation_3():
    student = torch.randn(5, 3, 7)
    teacher = torch.randn(2, 3, 7).softmax(-1)
    total, pairs = 0.0, 0
    for i in range(2):
        for j in range(5):
            if i == j:
                continue
            pairs += 1
            for row in range(3):
                p = torch.softmax(student[j, row], -1)
                total -= sum(teacher[i, row, k] * math.log(p[k]) for k in range(7)) / 3
    torch.testing.assert_close(across_views(student, teacher), total / pairs, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("progress", "temperature"), [(0.0, 0.04), (0.15, 0.055), (0.5, 0.07)])
def test_loss_against_a_slow_reading(progress, temperature):
    """Algorithm 1, view by view; the student's temperature is 0.1."""
    method, views = build("DINO", "image")
    method.centre.normal_()
    for p in method.teacher.parameters():  # after a while it is another one
        p.data += 0.1 * torch.randn_like(p)
    total = 0.0
    for i in range(2):
        t = method.teacher_head(method.teacher(views[i]))
        t = ((t - method.centre) / temperature).softmax(-1)
        for j in range(8):
            if i != j:
                s = method.head(method.encoder(views[j])) / 0.1
                total -= (t * s.softmax(-1).log()).sum(-1).mean() / 14
    terms = method(views, progress)
    assert list(terms) == ["dino"]
    torch.testing.assert_close(terms["dino"], total, atol=1e-5, rtol=1e-5)


def test_loss_against_another_implementation():
    """lightly 1.6.0, loss/dino_loss.py, teacher_temp 0.055, a centre that is not zero."""
    method, views = build("DINO", "image")
    method.head.forward = lambda h, frozen: waves(1.1, 64, 32)
    method.teacher_head.forward = lambda h: waves(0.4, 16, 32)
    method.centre.copy_(waves(0.7, 32))
    found = method(views, 0.15)["dino"]
    torch.testing.assert_close(found, torch.tensor(11.7355222702), atol=1e-5, rtol=1e-5)


def test_two_whole_steps_against_the_authors_code():
    """dino at 04c0ad9, main_dino.py and vision_transformer.py, the same numbers put into both
    networks: then the centre and the teacher have moved. No place for the cls token."""
    encoder = Encoder(
        Patches((16, 16), (4, 4), 3, 24), dim=24, depth=2, heads=2, cls=True, pool="cls"
    )
    method = DINO(encoder, prototypes=14, hidden=20, dim=10, local_views=1, momentum=0.9)
    for student, teacher in (
        (method.encoder, method.teacher),
        (method.head, method.teacher_head),
    ):
        fill(student, 0.0)
        fill(teacher, 1.0)
    views = [waves(phase, 2, 3, 16, 16) for phase in (0.3, 1.4, 2.5)]
    for progress, expected in ((0.0, 1.2058545351), (0.15, 1.3121852875)):
        found = method(views, progress)["dino"]
        torch.testing.assert_close(found, torch.tensor(expected), atol=1e-5, rtol=1e-5)
        method.after_step(progress)


def test_a_view_is_not_scored_against_itself():
    student = torch.randn(2, 3, 7, requires_grad=True)
    teacher = torch.zeros(2, 3, 7)
    teacher[0, :, 0] = 1.0  # only the first teacher view says anything
    (gradient,) = torch.autograd.grad(across_views(student, teacher), student)
    assert gradient[0].abs().sum() > 0  # the pair (teacher view 1, student view 0): mass 0
    # with teacher view 1 silent, student view 0 only loses its normaliser; view 1 follows view 0
    expected = (student[1].softmax(-1) - teacher[0]) / 6
    torch.testing.assert_close(gradient[1], expected)


def test_centre_follows_equation_4():
    method, views = build("DINO", "image")
    old = method.centre.clone().normal_()
    method.centre.copy_(old)
    outputs = []
    head = method.teacher_head.slow["prototypes"]
    handle = head.register_forward_hook(lambda m, i, out: outputs.append(out))
    method(views, 0.5)
    method(views, 0.5)  # two micro-batches, one step
    handle.remove()
    method.after_step(0.5)
    expected = 0.9 * old + 0.1 * torch.cat(outputs).mean(0)
    torch.testing.assert_close(method.centre, expected)
    assert method.rows == 0 and method.seen.abs().sum() == 0


def test_teacher_is_centred_and_sharpened():
    method, views = build("DINO", "image")
    method.centre.normal_()
    logits = []
    head = method.teacher_head.slow["prototypes"]
    handle = head.register_forward_hook(lambda m, i, out: logits.append(out))
    method(views, 0.0)
    handle.remove()
    expected = torch.softmax((logits[0] - method.centre) / 0.04, -1)
    torch.testing.assert_close(method.watch["assignments"], expected)


def test_prototypes_do_not_move_while_frozen():
    method, views = build("DINO", "image")
    sum(method(views, 0.0).values()).backward()
    assert method.head["prototypes"].directions.grad.abs().sum() == 0
    assert method.head["project"][0].weight.grad.abs().sum() > 0


def test_the_teacher_sees_wide_views_only():
    method, views = build("DINO", "image")
    seen = []
    handle = method.teacher.register_forward_hook(lambda m, args, out: seen.append(args[0]))
    method(views, 0.5)
    handle.remove()
    (x,) = seen
    assert torch.equal(x, torch.cat(views[:2]))


def test_the_teacher_is_what_is_kept():
    method, _ = build("DINO", "image")
    assert method.kept is method.teacher.slow
