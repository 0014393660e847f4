import torch
from fixed import ONE, OTHER
from test_contract import build

from selfsup import optim
from selfsup.methods.simsiam import distance
from selfsup.optim import Optim


def test_distance_against_a_slow_reading_of_equation_1_and_another_implementation():
    total = 0.0
    for p, z in zip(ONE, OTHER, strict=True):
        total -= (p / p.norm()) @ (z / z.norm()) / 6
    torch.testing.assert_close(distance(ONE, OTHER), total)
    # solo-learn 1.0.2, losses/simsiam.py, on the same numbers
    torch.testing.assert_close(
        distance(ONE, OTHER), torch.tensor(-0.870244979858), atol=1e-5, rtol=0
    )


def test_the_gradient_stops_at_the_target():
    p, z = ONE.clone().requires_grad_(), OTHER.clone().requires_grad_()
    distance(p, z).backward()
    assert p.grad.abs().sum() > 0 and z.grad is None


def test_each_view_predicts_the_other_one():
    method, views = build("SimSiam", "image")
    seen = {}
    method.projector.register_forward_hook(lambda m, i, out: seen.update(z=out.detach()))
    method.predictor.register_forward_hook(lambda m, i, out: seen.update(p=out.detach()))
    loss = method(views, 0.5)["similarity"]
    (p1, p2), (z1, z2) = seen["p"].chunk(2), seen["z"].chunk(2)
    torch.testing.assert_close(loss, (distance(p1, z2) + distance(p2, z1)) / 2)


def test_the_predictor_keeps_its_learning_rate():
    method, _ = build("SimSiam", "image")
    recipe = Optim("sgd", lr=0.1, per=8, weight_decay=0.5, warmup=0.0)
    optimizer = optim.build(method, recipe, 8, method.steady)
    names = {id(p): name for name, p in method.named_parameters()}
    assert len(optimizer.param_groups) == 4
    for progress in (0.0, 0.5, 1.0):
        usual = optim.set_progress(optimizer, recipe, 8, progress)
        for group in optimizer.param_groups:
            steady = {names[id(p)].startswith("predictor.") for p in group["params"]}
            assert steady == {group["steady"]}
            assert group["lr"] == (0.1 if group["steady"] else usual)
            assert group["weight_decay"] == (0.5 if group["decays"] else 0.0)
    assert usual < 1e-9
