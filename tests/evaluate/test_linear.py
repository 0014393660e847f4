import warnings

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

from selfsup.evaluate import linear


@pytest.fixture(scope="module")
def digits():
    found = load_digits()
    x = torch.from_numpy(found.data).float()
    return x + 0.01 * torch.randn(x.shape, generator=torch.manual_seed(0)), torch.tensor(
        found.target
    )


def objective(plane, x, y):
    cross = torch.nn.functional.cross_entropy(plane(x.double()), y)
    return (cross + plane.strength / 2 * plane.weight.double().square().sum()).item()


@pytest.mark.parametrize("n", [40, 900])  # fewer and more samples than features
@pytest.mark.parametrize("strength", [1.0, 0.01, 1e-4])
def test_agrees_with_scikit_learn(digits, n, strength, monkeypatch):
    x, y = digits
    x, y = linear.scale_of(x)(x)[:n], y[:n]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = LogisticRegression(C=1 / (strength * n), max_iter=5000, tol=1e-9).fit(
            x.double().numpy(), y.numpy()
        )
    weight, bias = torch.from_numpy(found.coef_.T), torch.from_numpy(found.intercept_)
    theirs = linear.Plane(weight, bias, strength)
    usual = linear.fit(x, y, 10, strength)
    assert objective(usual, x, y) <= objective(theirs, x, y) * (1 + 1e-4)
    agreed = (usual(x.double()).argmax(1) == theirs(x.double()).argmax(1)).double().mean()
    assert agreed == 1.0

    monkeypatch.setattr(linear, "ITERATIONS", 5000)
    exact = linear.Path(x, y, 10).fit(strength, tolerance=1e-10)
    torch.testing.assert_close(
        exact(x.double()).log_softmax(1), theirs(x.double()).log_softmax(1), atol=1e-3, rtol=1e-3
    )
    torch.testing.assert_close(exact.weight, weight, atol=1e-4, rtol=1e-3)


def test_the_gradient_of_the_objective_is_zero_at_the_fit(digits):
    x, y = digits
    x = linear.scale_of(x)(x)[:500].double()
    y = y[:500]
    plane = linear.fit(x, y, 10, 0.03)
    weight, bias = plane.weight.clone().requires_grad_(), plane.bias.clone().requires_grad_()
    loss = torch.nn.functional.cross_entropy(x @ weight + bias, y)
    (loss + 0.03 / 2 * weight.square().sum()).backward()
    assert weight.grad.abs().max() < 1e-5 and bias.grad.abs().max() < 1e-5


def test_a_path_of_strengths_ends_where_single_fits_do(digits):
    x, y = digits
    x, y = linear.scale_of(x)(x)[:300], y[:300]
    path = linear.Path(x, y, 10)
    for strength in (10.0, 0.1, 0.001):
        warm = path.fit(strength)
    torch.testing.assert_close(
        warm.weight, linear.fit(x, y, 10, 0.001).weight, atol=1e-4, rtol=1e-3
    )


def test_single_precision_of_large_problems_agrees_with_double(digits, monkeypatch):
    x, y = digits
    x = linear.scale_of(x)(x)
    double = linear.fit(x, y, 10, 0.01)
    monkeypatch.setattr(linear, "SMALL", 0)
    single = linear.fit(x, y, 10, 0.01)
    torch.testing.assert_close(single.weight.double(), double.weight, atol=2e-3, rtol=1e-2)


def test_scale_has_no_division_by_zero():
    x = torch.tensor([[1.0, 5.0], [3.0, 5.0]])
    scale = linear.scale_of(x)
    assert torch.equal(scale(x), torch.tensor([[-1.0, 0.0], [1.0, 0.0]]))
    common = linear.scale_of(torch.tensor([[2.0, 0.0], [-2.0, 0.0]]), common=True)
    assert common.deviation.tolist() == pytest.approx([2**0.5] * 2)


@pytest.mark.parametrize("counts", [(30, 30, 30), (5, 40, 3), (700, 800, 900)])
def test_held_out_parts_do_not_overlap_and_have_all_classes(counts):
    y = torch.cat([torch.full((n,), label) for label, n in enumerate(counts)])
    parts = linear.held_out(y, seed=3)
    for fit_rows, held in parts:
        assert not set(fit_rows.tolist()) & set(held.tolist())
        assert len(fit_rows) + len(held) == len(y)
        assert len(y[fit_rows].unique()) == 3 and len(y[held].unique()) == 3
    if len(parts) > 1:
        assert sorted(i for _, held in parts for i in held.tolist()) == list(range(len(y)))
    again = linear.held_out(y, seed=3)
    assert all(torch.equal(a[1], b[1]) for a, b in zip(parts, again, strict=True))


def test_with_one_label_each_there_is_nothing_to_choose_with():
    y = torch.arange(4)
    assert linear.held_out(y) == []
    plane, _ = linear.probe(torch.eye(4), y, 4)
    assert plane.strength == linear.ONE_LABEL
    assert plane(linear.scale_of(torch.eye(4))(torch.eye(4))).argmax(1).tolist() == [0, 1, 2, 3]


def test_the_strength_is_chosen_for_held_out_accuracy():
    """Noise asks for a strong penalty, clean data with small differences for a weak one."""
    generator = torch.Generator().manual_seed(0)
    y = torch.arange(200) % 2
    noise = torch.randn(200, 150, generator=generator)
    noise[:, 0] += 0.5 * y
    strong, _ = linear.probe(noise, y, 2)
    clean = torch.randn(200, 2, generator=generator) * torch.tensor([1.0, 0.02])
    clean[:, 1] += 0.15 * y + clean[:, 0]  # the difference of two large features decides
    weak, _ = linear.probe(clean, y, 2)
    assert strong.strength > 10 * weak.strength


def test_a_missing_class_and_constant_features_are_no_trouble():
    x, y = torch.zeros(12, 3), torch.arange(12) % 2
    plane, scale = linear.probe(x, y, 4)
    assert plane.weight.isfinite().all() and plane(scale(x)).isfinite().all()
    assert np.isin(plane(scale(x)).argmax(1).numpy(), (0, 1)).all()


def test_classes_of_one_sample_each_leave_none_to_spare():
    assert linear.held_out(torch.arange(2000)) == []
    ((fit, held), *more) = linear.held_out(torch.arange(1000).repeat(2))
    assert len(more) == 1 and len(fit) == len(held) == 1000  # two folds
    ((fit, held),) = linear.held_out(torch.arange(200).repeat(10))
    assert len(held) == 200 and len(fit) == 1800


@pytest.mark.parametrize("n", [120, 2400])  # three folds, and one part in ten
def test_groups_stay_whole_where_the_strength_is_chosen(n):
    """Features that know the recording are of no use for another one."""
    groups = torch.randperm(n, generator=torch.manual_seed(0)).numpy() % (n // 6)
    y = torch.from_numpy(groups % 2)
    alone = [(None, False), (np.arange(n), False), (groups, True)]
    found = [linear.held_out(y, 1, own) for own, _ in alone]
    for parts, (_, whole) in zip(found, alone, strict=True):
        for rows, held in parts:
            assert sorted([*rows.tolist(), *held.tolist()]) == list(range(n))
            assert whole == (not set(groups[rows]) & set(groups[held]))
            assert len(y[held].unique()) == 2
    for mine, same in zip(*found[:2], strict=True):
        assert all(torch.equal(a, b) for a, b in zip(mine, same, strict=True))


def test_the_strength_is_that_for_recordings_which_did_not_teach():
    random = np.random.default_rng(0)
    groups = np.arange(120) // 6
    own = random.normal(size=(20, 40))[groups] + 0.01 * random.normal(size=(120, 40))
    x = torch.from_numpy(own).float()
    y = torch.from_numpy(groups % 2)  # of which the features say nothing but by the recording
    strong, _ = linear.probe(x, y, 2, groups=groups)
    weak, _ = linear.probe(x, y, 2)
    assert strong.strength != weak.strength
    scale = linear.scale_of(x)
    assert linear.choose(scale(x), y, 2, linear.held_out(y))[1] == 1
    assert linear.choose(scale(x), y, 2, linear.held_out(y, 0, groups))[1] < 0.8
