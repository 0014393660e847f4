"""Curves keep what matters when they are thinned, and numbers and ticks read well."""

import re

import numpy as np
import pytest

from selfsup.report import plots


def test_thin_keeps_every_spike():
    rng = np.random.default_rng(0)
    y = rng.normal(size=100_000)
    y[77_777], y[3] = 1000.0, -1000.0
    x, thinned = plots.thin(np.arange(100_000.0), y)
    assert len(x) <= 1000 and (np.diff(x) > 0).all()
    assert thinned.max() == 1000.0 and thinned.min() == -1000.0
    assert np.array_equal(y[x.astype(int)], thinned)  # points of the curve, not means of them
    for start in range(0, 100_000, 10_000):  # no stretch is left out
        assert ((x >= start) & (x < start + 10_000)).sum() > 50


@pytest.mark.parametrize("n", [0, 1, 2, 999, 1000, 1001, 1499])
def test_thin_at_the_edges(n):
    x, y = plots.thin(np.arange(float(n)), np.ones(n))
    assert len(x) == len(y) <= 1000 and len(x) >= min(n, 500)


def test_thin_leaves_out_what_is_not_finite():
    x, y = plots.thin(np.arange(4.0), np.array([1.0, np.nan, np.inf, 2.0]))
    assert x.tolist() == [0, 3] and y.tolist() == [1, 2]


def test_smooth_against_a_slow_mean():
    y = np.random.default_rng(1).normal(size=50)
    expected = []
    for i in range(50):
        half = min(i, 49 - i, 7 // 2)
        expected.append(y[i - half : i + half + 1].mean())
    np.testing.assert_allclose(plots.smooth(y, 7), expected, atol=1e-12)


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0.0, "0"), (1234567.0, "1.23e6"), (12345.6, "12,346"), (3.14159, "3.142"), (25.0, "25"),
     (0.0012, "0.0012"), (0.00012, "1.2e-4"), (-0.5, "-0.5"), (float("nan"), "not finite"),
     (100.0, "100"), (999.96, "1000")],
)  # fmt: skip
def test_numbers(value, shown):
    assert plots.number(value) == shown


@pytest.mark.parametrize("span", [(0, 1), (0, 97), (-3, 5.5), (1e-7, 3e-7), (1e9, 1.1e9), (5, 5)])
def test_ticks_are_round_few_and_inside(span):
    low, high = span
    found = plots.ticks(low, high, 4)
    assert 1 <= len(found) <= 5
    assert all(low - 1e-9 * abs(low) <= t <= high + 1e-9 * abs(high) for t in found)
    if high > low:
        assert len(found) >= 2


def test_whole_ticks():
    assert all(t == int(t) for t in plots.ticks(1, 7, 4, whole=True))
    assert (
        plots.ticks(10, 20, 4, whole=True) == [10, 12, 14, 16, 18, 20]
        or len(plots.ticks(10, 20, 4, whole=True)) <= 6
    )


def test_lines_draw_points_where_they_belong():
    curve = plots.Series("a", np.array([0.0, 10.0]), np.array([0.0, 1.0]))
    drawn = plots.lines("Loss", [curve], unit="nats")
    (path,) = re.findall(r'class="line dash0 s0" d="M([^"]+)"', drawn)
    (x0, y0), (x1, y1) = (map(float, p.split()) for p in path.split("L"))
    assert x1 > x0 and y1 < y0  # up is more, and SVG counts downwards
    assert (x1, y0) == (plots.WIDTH - 10, plots.HEIGHT - 26)
    assert 'aria-label="Loss. a: 0 at 0, 1 at 10, lowest 0, highest 1."' in drawn
    assert "Loss (nats)" in drawn


def test_a_curve_of_one_point_and_of_none():
    one = plots.Series("a", np.array([3.0]), np.array([2.0]))
    assert "h0" in plots.lines("One", [one])
    none = plots.Series("a", np.zeros(0), np.zeros(0))
    assert plots.lines("None", [none]) == ""
    lost = plots.Series("a", np.array([1.0]), np.array([np.nan]))
    assert plots.lines("Lost", [lost]) == ""


def test_series_differ_by_more_than_colour():
    x = np.arange(3.0)
    drawn = plots.lines("Two", [plots.Series(n, x, x) for n in "ab"])
    assert "line dash0 s0" in drawn and "line dash1 s1" in drawn
    points = np.random.default_rng(0).normal(size=(60, 2))
    cloud = plots.scatter("Map", points, np.arange(60) % 12, [f"g{i}" for i in range(12)])
    looks = re.findall(r'<path class="([^"]+)" d="M13 6([^"]+)"', cloud)
    assert len(set(looks)) == len(looks) == 12


def test_scatter_keeps_distances():
    """One scale for both axes: a circle stays a circle."""
    angle = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    circle = np.stack([np.cos(angle), np.sin(angle)], 1)
    drawn = plots.scatter("Circle", circle, np.zeros(40, int), ["all"])
    (data,) = re.findall(r'class="dots round s0" d="([^"]+h0M[^"]+)"', drawn)
    found = np.array([[float(v) for v in p.split()] for p in re.findall(r"M([^h]+)h0", data)])
    radius = np.linalg.norm(found - found.mean(0), axis=1)
    assert radius.std() < 0.2 and radius.mean() > 100
