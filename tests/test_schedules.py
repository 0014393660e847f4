"""What the papers say of momenta and temperatures, written once more, beside what methods do."""

import inspect
import math

import pytest
import torch
from test_contract import CASES, METHODS, build

from selfsup import methods

PROGRESS = (0.0, 0.3, 0.5, 1.0)


def steady(start, p):
    return start


def cosine(start, p):
    """BYOL: 1 - (1 - tau_base) (cos(pi k / K) + 1) / 2; others took it over."""
    return 1 - (1 - start) * (math.cos(math.pi * p) + 1) / 2


# what each paper (or its authors' code) starts with, and how it goes on
MOMENTA = {
    "BYOL": (0.996, cosine),
    "MoCoV3": (0.99, cosine),
    "TiCo": (0.99, cosine),
    "DINO": (0.996, cosine),
    "IBOT": (0.996, cosine),
    "DINOv2": (0.992, cosine),
    "BGRL": (0.99, cosine),
    "JEPA": (0.996, lambda start, p: start + (1 - start) * p),
    "MSN": (0.996, lambda start, p: start + (1 - start) * p / 1.25),
    "MoCo": (0.999, lambda start, p: 0.999 - (0.999 - start) * (math.cos(math.pi * p) + 1) / 2),
    "Data2Vec": (0.9998, steady),
    "CURL": (0.95, steady),
}


def settings(name):
    return inspect.signature(getattr(methods, name.replace("_", ""))).parameters


def a_case(name):
    """Any data that the method runs on."""
    return build(name, next(kind for method, kind in CASES if method == name))


def test_every_momentum_is_in_the_table():
    assert {name for name in METHODS if "momentum" in settings(name)} == set(MOMENTA)


@pytest.mark.parametrize("name", MOMENTA)
def test_teachers_follow_by_the_momentum_of_the_paper(name):
    start, schedule = MOMENTA[name]
    assert settings(name)["momentum"].default == start
    method, _ = a_case(name)
    slow = {key: p for key, p in method.named_parameters() if ".slow." in key}
    assert slow
    with torch.no_grad():
        for key, p in method.named_parameters():
            p.add_(key not in slow)  # each student is one above its teacher
    start = 0.95 if name == "CURL" else 0.9
    for p in PROGRESS:
        before = {key: value.clone() for key, value in slow.items()}
        method.after_step(p)
        gap = 1 - schedule(start, p)
        for key, value in slow.items():
            expected = before[key] + gap
            torch.testing.assert_close(value, expected, atol=1e-6, rtol=1e-6)
            value.data.copy_(before[key])


@pytest.mark.parametrize("name", ["DINO", "IBOT", "DINOv2"])
def test_temperatures_of_teachers_rise_for_three_tenths_of_the_run(name):
    """DINO, section 3.2: from 0.04 to 0.07 in the first 30 epochs (of 100)."""
    found = [a_case(name)[0].teacher_temperature(p) for p in (0.0, 0.15, *PROGRESS[1:])]
    assert found == pytest.approx([0.04, 0.055, 0.07, 0.07, 0.07])


@pytest.mark.parametrize(("name", "first", "last"), [("Wav2Vec2", 2.0, 0.5), ("BEiT", 1.0, 0.0625)])
def test_gumbel_temperatures_fall_by_the_same_factor_in_each_step(name, first, last):
    steps = 1000
    factor, value, found = (last / first) ** (1 / steps), first, a_case(name)[0].gumbel
    for step in range(steps + 1):
        if step / steps in PROGRESS:
            assert found(step / steps) == pytest.approx(value, rel=1e-5)
        value *= factor
