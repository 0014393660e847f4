import torch
from fixed import ONE, OTHER, waves
from test_contract import build

from selfsup.losses import info_nce
from selfsup.methods.nnclr import nearest


def test_nearest_against_a_slow_reading_of_equation_2():
    queue = torch.nn.functional.normalize(waves(2.0, 9, 4), dim=1)
    found = nearest(ONE, queue)
    for z, n in zip(ONE, found, strict=True):
        away = [(z / z.norm() - q).norm() for q in queue]
        assert torch.equal(n, queue[away.index(min(away))])


def test_loss_against_another_implementation():
    """solo-learn 1.0.2, losses/nnclr.py: rows are neighbours, candidates predictions."""
    found = info_nce(ONE, OTHER, 0.1)
    torch.testing.assert_close(found, torch.tensor(1.3910626173), atol=1e-5, rtol=1e-5)


def test_neighbours_are_of_the_queue_as_it_was_and_cross_over():
    method, views = build("NNCLR", "image")
    z, p = torch.randn(16, 16), torch.randn(16, 16)
    method.projector.forward = lambda h: z
    method.predictor.forward = lambda h: p
    queue = method.queue.rows.clone()
    loss = method(views, 0.5)["info_nce"]
    near = nearest(z, queue)
    expected = info_nce(near[:8], p[8:], 0.1) + info_nce(near[8:], p[:8], 0.1)
    torch.testing.assert_close(loss, expected / 2)
    torch.testing.assert_close(method.queue.rows[:8], torch.nn.functional.normalize(z[:8], dim=1))
    torch.testing.assert_close(method.queue.rows[8:], queue[:16])


def test_gradients_reach_the_encoder_through_predictions_alone():
    method, views = build("NNCLR", "image")
    seen = []
    method.predictor.register_full_backward_hook(lambda m, i, o: seen.append(i[0]))
    z = []
    method.projector.register_forward_hook(lambda m, i, out: (out.retain_grad(), z.append(out))[0])
    method(views, 0.5)["info_nce"].backward()
    torch.testing.assert_close(z[0].grad, seen[0])
