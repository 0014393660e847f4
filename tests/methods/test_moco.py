import torch
from test_contract import build

from selfsup.losses import info_nce


def outputs_of(module):
    """What a module gives from now on, and a handle that ends it."""
    seen = []
    return seen, module.register_forward_hook(lambda m, i, out: seen.append(out))


def inputs_of(module):
    seen = []
    return seen, module.register_forward_hook(lambda m, i, out: seen.append(i[0]))


def test_the_loss_is_that_of_the_parts_and_the_queue_as_it_was():
    method, views = build("MoCo", "image")
    queue = method.queue.rows.clone()
    queries, first = outputs_of(method.head)
    keys, second = outputs_of(method.teacher_head.slow)
    loss = method(views, 0.5)["info_nce"]
    first.remove(), second.remove()
    k = torch.empty(8, 16)
    k[0::2], k[1::2] = keys  # eight samples in parts of four
    torch.testing.assert_close(loss, info_nce(queries[0], k, 0.2, negatives=queue))
    pushed = torch.nn.functional.normalize(k, dim=1)
    torch.testing.assert_close(method.queue.rows, torch.cat([pushed, queue[:16]]))


def test_a_query_is_of_one_view_and_its_key_of_the_other():
    method, views = build("MoCo", "image")
    students, first = inputs_of(method.encoder)
    teachers, second = inputs_of(method.teacher)
    method(views, 0.5)
    first.remove(), second.remove()
    assert torch.equal(students[0], views[0])
    assert torch.equal(torch.stack(teachers, 1).flatten(0, 1), views[1])


def test_a_key_shares_batch_statistics_with_its_part_alone():
    method, views = build("MoCo", "convolutional")
    before = method.keys(views[1])
    changed = views[1].clone()
    changed[1] += 1.0  # in the second part
    after = method.keys(changed)
    torch.testing.assert_close(after[0::2], before[0::2])
    assert (after[1::2] - before[1::2]).abs().sum(1).min() > 0


def test_keys_and_queue_have_no_gradient():
    method, views = build("MoCo", "image")
    views[1].requires_grad_()
    views[0].requires_grad_()
    method(views, 0.5)["info_nce"].backward()
    assert views[1].grad is None and views[0].grad.abs().sum() > 0


def test_the_teacher_follows_at_its_momentum():
    method, _ = build("MoCo", "image")
    slow, fast = method.teacher_head.slow[0].weight, method.head[0].weight
    with torch.no_grad():
        fast.add_(1.0)
    expected = 0.9 * slow + 0.1 * fast
    method.momentum = lambda progress: 0.9
    method.after_step(0.0)
    torch.testing.assert_close(slow, expected)
    assert method.kept is method.encoder
