import torch

from selfsup.memory import Queue


def test_first_in_first_out():
    queue = Queue(5, 1)
    torch.testing.assert_close(queue.rows.norm(dim=1), torch.ones(5))
    queue.push(torch.tensor([[1.0], [2.0]]))
    assert queue.rows[:2, 0].tolist() == [1, 2] and not queue.full
    queue.push(torch.tensor([[3.0], [4.0]]))
    queue.push(torch.tensor([[5.0], [6.0]]))
    assert queue.rows[:, 0].tolist() == [5, 6, 3, 4, 1] and queue.full
    queue.push(torch.arange(10.0, 17.0)[:, None])  # more than it holds
    assert queue.rows[:, 0].tolist() == [10, 11, 12, 13, 14]


def test_a_loss_keeps_the_queue_that_it_saw():
    queue = Queue(4, 2)
    x = torch.ones(3, 2, requires_grad=True)
    before = queue.rows.clone()
    loss = (x @ queue.rows.T).sum()
    queue.push(x)
    loss.backward()
    torch.testing.assert_close(x.grad, before.sum(0).expand(3, 2))
    assert not queue.rows.requires_grad


def test_it_is_state():
    old, new = Queue(4, 2), Queue(4, 2)
    old.push(torch.ones(5, 2))
    new.load_state_dict(old.state_dict())
    assert new.full and torch.equal(new.rows, old.rows)
