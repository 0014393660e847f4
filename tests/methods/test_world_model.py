import copy

import pytest
import torch
from fixed import waves
from test_contract import build

from selfsup import health
from selfsup.encoder import resnet
from selfsup.errors import SelfsupError
from selfsup.health import Monitor
from selfsup.logs import Events
from selfsup.losses import covariance, sigreg, variance
from selfsup.methods import WorldModel
from selfsup.methods.world_model import Predictor, mean
from selfsup.steps import Observer, Steps


def test_foretold_is_compared_with_what_came_and_padding_counts_for_nothing():
    """The whole loss, row by row and step by step."""
    method, (x,) = build("World_Model", "vectors")
    z = method.encoder.features(x)
    count = sum(max(0, int(n) - 1) for n in x.valid.sum(1))
    total = {"predict": 0.0, "similar": 0.0, "inverse": 0.0}
    for b in range(8):
        now = z[b, 0]
        for t in range(int(x.valid[b].sum()) - 1):
            now = now + method.predictor.change(torch.cat([now, x.actions[b, t]]))
            total["predict"] += (now - z[b, t + 1]).square().mean() / count
            total["similar"] += (z[b, t] - z[b, t + 1]).square().mean() / count
            between = method.inverter(torch.cat([z[b, t], z[b, t + 1]]))
            total["inverse"] += (between - x.actions[b, t]).square().mean() / count
    found = method([x], 0.0)
    for name, value in total.items():
        expected = method.weights[name] * value
        torch.testing.assert_close(found[name], expected, atol=1e-5, rtol=1e-5)
    other = copy.deepcopy(x)
    other.observations[~x.valid] += 9.0
    other.actions[~x.valid] -= 9.0
    for name, value in method([other], 0.0).items():
        torch.testing.assert_close(value, found[name])


def test_what_keeps_vectors_apart_against_slow_readings():
    """VICReg's equations 1 and 3 over all steps that are there, whosever they are; SIGReg too."""
    method, (x,) = build("World_Model", "vectors")
    method.weights["sigreg"] = 0.5
    torch.manual_seed(3)
    found = method([x], 0.0)
    torch.manual_seed(3)
    d = torch.randn(12, 256)
    all_steps = method.encoder.features(x)
    z = torch.stack([all_steps[b, t] for b in range(8) for t in range(6) if x.valid[b, t]])
    mean = sum(z) / len(z)
    covariance = sum(torch.outer(row - mean, row - mean) for row in z) / (len(z) - 1)
    below = sum((1 - (covariance[i, i] + 1e-4).sqrt()).clamp(min=0) for i in range(12)) / 12
    beside = sum(covariance[i, j] ** 2 for i in range(12) for j in range(12) if i != j) / 12
    expected = {"variance": 16 * below, "covariance": beside}
    expected["sigreg"] = 0.5 * sigreg(z[None], d / d.norm(dim=0))
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, atol=1e-5, rtol=1e-5)


def test_terms_against_the_authors_code():
    """pldm/objectives, as in HWM_PLDM at 73d0542: vicreg.py, prediction.py and idm.py; statistics
    of one step, and adjust_cov, another 1 / (d - 1), taken back."""
    method, (x,) = build("World_Model", "vectors")
    z, said, actions = 0.9 * waves(0.3, 3, 6, 4), waves(1.9, 3, 6, 4), waves(0.5, 2, 6, 2)
    done = torch.cat([actions, torch.zeros(1, 6, 2)]).transpose(0, 1)
    x = Steps(x.observations[:6, :3], done, torch.ones(6, 3, dtype=torch.bool))
    method.encoder.features = lambda x: z.transpose(0, 1)
    method.predictor.rollout = lambda first, actions: said[1:].transpose(0, 1)
    method.inverter.forward = lambda pairs: waves(2.5, 2, 6, 2).transpose(0, 1)
    found = method([x], 0.0)
    expected = {"predict": 0.9297316670, "similar": 1.6202741861, "inverse": 1.4154049158}
    for name, value in expected.items():
        assert found[name].item() / method.weights[name] == pytest.approx(value, abs=1e-5)
    assert variance(z[0]).item() == pytest.approx(0.5137882233, abs=1e-5)
    assert covariance(z[0]).item() / 3 == pytest.approx(0.0370879583, abs=1e-5)


def test_later_observations_are_targets_and_never_inputs_of_what_is_foretold():
    method, (x,) = build("World_Model", "vectors")
    other = Steps(x.observations.clone(), x.actions, x.valid)
    other.observations[:, 1:] += torch.randn_like(other.observations[:, 1:])
    said = [
        method.predictor.rollout(method.encoder.features(v)[:, 0], v.actions) for v in (x, other)
    ]
    torch.testing.assert_close(*said)
    actions = x.actions.clone().requires_grad_()
    rolled = method.predictor.rollout(torch.randn(8, 12), actions)
    (gradient,) = torch.autograd.grad(rolled[:, 2].sum(), actions)
    assert (gradient[:, :3].abs().sum((0, 2)) > 0).all() and (gradient[:, 3:] == 0).all()


def test_gradients_reach_the_encoder_from_both_sides():
    """No gradient is stopped: what is foretold and what came both move."""
    method, (x,) = build("World_Model", "vectors")
    seen = x.observations.clone().requires_grad_()
    method([Steps(seen, x.actions, x.valid)], 0.0)["predict"].backward()
    moved = seen.grad.abs().sum(-1) > 0
    assert (moved == x.valid).all()


def test_mean_is_over_what_is_there():
    valid = torch.tensor([[True, True], [True, False]])
    assert float(mean(torch.tensor([[1.0, 2.0], [6.0, 100.0]]), valid)) == 3.0


def test_terms_of_no_weight_are_left_out():
    encoder = Observer((4,), 2, dim=6, hidden=16, depth=1)
    x = Steps(torch.randn(4, 3, 4), torch.randn(4, 3, 2), torch.ones(4, 3, dtype=torch.bool))
    plain = WorldModel(encoder, hidden=8)
    assert set(plain([x], 0.0)) == {"predict", "similar", "inverse", "variance", "covariance"}
    sliced = WorldModel(encoder, hidden=8, variance=0.0, covariance=0.0, sigreg=0.1)
    assert set(sliced([x], 0.0)) == {"predict", "similar", "inverse", "sigreg"}


@pytest.mark.parametrize("safe", [True, False])
def test_without_what_keeps_vectors_apart_they_collapse_and_the_alarm_rings(safe):
    """Foretelling alone is easiest where all is one point."""
    torch.manual_seed(0)
    encoder = Observer((3, 8, 8), 2, dim=8, hidden=64, depth=2)
    off = {} if safe else {"variance": 0.0, "covariance": 0.0, "inverse": 0.0}
    method = WorldModel(encoder, hidden=32, **off)
    monitor, events = Monitor(method), Events(None)
    optimizer = torch.optim.Adam(method.parameters(), 1e-2)
    x = Steps(torch.randn(16, 3, 3, 8, 8), torch.randn(16, 3, 2), torch.ones(16, 3).bool())
    for step in range(120):
        terms = method([x], step / 120)
        sum(terms.values()).backward()
        optimizer.step()
        optimizer.zero_grad()
        if step % 10 == 9:
            said = {name: float(term.detach()) for name, term in terms.items()}
            monitor.look(step, step / 120, [x], said, events)
    assert (monitor.verdict == health.ONE_POINT) != safe


def test_data_without_actions_are_refused():
    with pytest.raises(SelfsupError, match="E202"):
        WorldModel(resnet("resnet18", 16, width=0.125))


def test_predictor_begins_at_the_present():
    """A residual: with a change of zero, nothing moves."""
    predictor = Predictor(5, 2, 16)
    torch.nn.init.zeros_(predictor.change[-1].weight)
    torch.nn.init.zeros_(predictor.change[-1].bias)
    z = torch.randn(3, 5)
    rolled = predictor.rollout(z, torch.randn(3, 4, 2))
    torch.testing.assert_close(rolled, z[:, None].expand(-1, 4, -1))


def test_show_finds_the_true_steps_where_all_is_foretold():
    method, (x,) = build("World_Model", "vectors")
    z = method.encoder.features(x)
    method.predictor.rollout = lambda first, actions: z[:, 1:]
    original, found = method.show([x]).values()
    assert torch.equal(found.observations[x.valid], original.observations[x.valid])
    method.predictor.rollout = lambda first, actions: z[2, 1].expand(8, 5, -1)
    _, found = method.show([x]).values()
    assert (found.observations[:, 1:] == x.observations[2, 1]).all()
    assert torch.equal(found.observations[:, 0], x.observations[:, 0])
