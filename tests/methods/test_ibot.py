import torch
from test_contract import build

from selfsup.methods.ibot import hidden_tokens


def test_hidden_tokens_against_a_slow_reading_of_equation_2():
    hidden = torch.tensor([[1, 0, 1, 1], [0, 0, 0, 0], [0, 1, 0, 0]], dtype=torch.bool)
    logits, targets = torch.randn(4, 5), torch.randn(4, 5).softmax(-1)
    total, row = 0.0, 0
    for i in range(3):
        for j in range(4):
            if hidden[i, j]:
                p = logits[row].softmax(0)
                total -= (targets[row] * p.log()).sum() / hidden[i].sum() / 3
                row += 1
    torch.testing.assert_close(hidden_tokens(logits, targets, hidden), total)
    assert hidden_tokens(logits[:0], targets[:0], hidden & False) == 0


def test_the_student_never_sees_hidden_tokens_and_the_teacher_sees_all():
    method, views = build("IBOT", "image")
    mask = torch.zeros(8, 16, dtype=torch.bool)
    mask[:, 5] = True
    method.mask, method.masked = (lambda batch, grid, device: mask.clone()), 1.0
    students, teachers = [], []
    method.encoder.trunk.blocks[0].register_forward_hook(lambda m, i, o: students.append(i[0]))
    method.teacher.slow.trunk.blocks[0].register_forward_hook(lambda m, i, o: teachers.append(i[0]))
    method(views, 0.5)
    blank = method.mask_token + method.encoder.positions[5]
    torch.testing.assert_close(students[0][:, 5], blank.expand(16, -1))
    torch.testing.assert_close(teachers[0], method.encoder.tokens(torch.cat(views[:2])))


def test_targets_are_of_the_same_view_and_place():
    method, views = build("IBOT", "image")
    hidden, targets, seen = [], [], []
    hide, target = method.hide, method.targets
    method.hide = lambda x: hidden.append(hide(x)) or hidden[-1]
    method.targets = lambda *of: targets.append(target(*of)) or targets[-1]
    method.head["prototypes"].register_forward_hook(lambda m, i, out: seen.append(out))
    loss = method(views, 0.5)["tokens"]
    hidden = torch.cat(hidden)
    rows = targets[1].unflatten(0, (16, 16))[hidden]
    torch.testing.assert_close(loss, hidden_tokens(seen[1] / 0.1, rows, hidden))


def test_centres_of_samples_and_of_tokens_are_kept_apart():
    method, views = build("IBOT", "image")
    logits = []
    method.teacher_head.slow["prototypes"].register_forward_hook(lambda m, i, o: logits.append(o))
    method(views, 0.5)
    method.after_step(0.5)
    assert [len(x) for x in logits] == [16, 256]
    for kind in (0, 1):
        torch.testing.assert_close(method.centre[kind], 0.1 * logits[kind].mean(0))
    assert method.rows.sum() == 0 and method.seen.abs().sum() == 0
