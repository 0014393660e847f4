"""On a model that is known, plans arrive."""

import pytest
import torch

from selfsup.planning import PLANNERS


@pytest.mark.parametrize("name", PLANNERS)
def test_finds_the_goal_of_a_linear_model(name):
    """x' = A x + B u: the plan must be nearly there, in each situation."""
    generator = torch.Generator().manual_seed(0)
    a, b = torch.tensor([[1.0, 0.1], [0.0, 0.9]]), torch.tensor([[0.1, 0.0], [0.3, 0.5]])
    start, goal = torch.randn(2, 5, 2, generator=generator)

    def ends(actions):  # (b, k, h, 2)
        x = start[:, None].expand(-1, actions.shape[1], -1)
        for u in actions.unbind(2):
            x = x @ a.T + u @ b.T
        return x

    plan = PLANNERS[name](
        lambda actions: (ends(actions) - goal[:, None]).square().sum(-1),
        torch.zeros(5, 4, 2), torch.ones(2), generator=generator, rounds=25,
    )  # fmt: skip
    found = (ends(plan[:, None])[:, 0] - goal).norm(dim=1)
    began = (ends(torch.zeros(5, 1, 4, 2))[:, 0] - goal).norm(dim=1)
    assert (found < 0.15 * began.clamp(min=1)).all(), found


@pytest.mark.parametrize("name", PLANNERS)
def test_stays_within_bounds_and_follows_the_generator(name):
    def run(seed):
        return PLANNERS[name](
            lambda actions: (actions - 0.6).square().sum((2, 3)),
            torch.zeros(2, 3, 1), torch.ones(1),
            generator=torch.Generator().manual_seed(seed), clip=lambda u: u.clamp(-0.5, 0.7),
        )  # fmt: skip

    assert (run(0) == run(0)).all() and (run(0) != run(1)).any()
    assert (run(0) <= 0.7 + 1e-6).all() and (run(0) > 0.2).all()


def test_situations_do_not_meet():
    """The goal of one is nothing to the others."""
    target = torch.tensor([1.0, -1.0])

    def cost(actions):
        return (actions.sum((2, 3)) - target[: len(actions), None]).square()

    plan = PLANNERS["cem"](cost, torch.zeros(2, 2, 1), torch.ones(1),
                           generator=torch.Generator().manual_seed(0), rounds=10)  # fmt: skip
    torch.testing.assert_close(plan.sum((1, 2)), target, atol=0.05, rtol=0)
