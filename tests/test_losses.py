"""Each shared loss beside a slow reading."""

import math

import pytest
import torch
from fixed import ONE, OTHER, waves

from selfsup.losses import covariance, info_nce, off_diagonal, sinkhorn, variance
from selfsup.methods import grace, hubert, nnclr, simclr, tfc, ts2vec, wav2vec2

CONTRASTS = {
    "info_nce": lambda a, b: info_nce(a, b, 0.05),
    "info_nce of a queue": lambda a, b: info_nce(a, b, 0.05, negatives=b.flip(0) + a.roll(1, 1)),
    "grace": lambda a, b: grace.contrast(a, b, 0.4),
    "simclr": lambda a, b: simclr.nt_xent(a, b, 0.05),
    "tfc": lambda a, b: tfc.nt_xent(a, b, 0.05),
    "ts2vec": lambda a, b: ts2vec.contrast(a.view(4, -1, 32), b.view(4, -1, 32)),
    "nnclr": nnclr.nearest,
    "hubert": lambda a, b: hubert.named(a[None], b, 0.05),
    "wav2vec2": lambda a, b: wav2vec2.contrast(
        a.view(4, 16, 32),
        b.view(4, 16, 32),
        ~torch.eye(16, dtype=torch.bool).expand(4, 16, 16),
        0.05,
    ),
}
HALF = {"grace": 5e-3}  # off by at most, where the file says why


def test_info_nce_within_the_batch_against_a_slow_reading():
    total = 0.0
    for i in range(6):
        near = [math.exp(torch.cosine_similarity(ONE[i], k, dim=0) / 0.3) for k in OTHER]
        total -= math.log(near[i] / sum(near)) / 6
    torch.testing.assert_close(info_nce(ONE, OTHER, 0.3), torch.tensor(total))


def test_info_nce_with_negatives_against_a_slow_reading_and_another_implementation():
    queue = waves(3.1, 7, 4)
    total = 0.0
    for i in range(6):
        own = math.exp(torch.cosine_similarity(ONE[i], OTHER[i], dim=0) / 0.2)
        rest = [math.exp(torch.cosine_similarity(ONE[i], n, dim=0) / 0.2) for n in queue]
        total -= math.log(own / (own + sum(rest))) / 6
    found = info_nce(ONE, OTHER, 0.2, negatives=queue)
    torch.testing.assert_close(found, torch.tensor(total))
    # solo-learn 1.0.2, losses/moco.py, on the same numbers
    torch.testing.assert_close(found, torch.tensor(0.5167608857), atol=1e-5, rtol=1e-5)


def test_negatives_never_include_the_positive():
    """A query's own key counts once, and keys of others not at all where negatives are given."""
    q, k = torch.eye(4), torch.eye(4)
    away = -torch.ones(3, 4)
    loss = info_nce(q, k, 1.0, negatives=away)
    expected = -math.log(math.e / (math.e + 3 * math.exp(-0.5)))
    torch.testing.assert_close(loss, torch.tensor(expected))


def test_sinkhorn_rows_and_columns():
    codes = sinkhorn(waves(0.4, 40, 8) * 2, rounds=60)
    torch.testing.assert_close(codes.sum(1), torch.ones(40))
    torch.testing.assert_close(codes.sum(0), torch.full((8,), 5.0), atol=1e-4, rtol=1e-4)


def test_sinkhorn_against_another_implementation():
    """lightly 1.6.0, loss/swav_loss.py, epsilon 0.5, 3 iterations; and scores that overflow exp."""
    expected = [0.4875788, 0.4957814, 0.0166399, 0.0852602, 0.6739964, 0.2407434]
    expected += [0.0710127, 0.1046946, 0.8242928, 0.6841139, 0.0364514, 0.2794347]
    found = sinkhorn(waves(0.4, 4, 3) / 0.5)
    torch.testing.assert_close(found.flatten(), torch.tensor(expected), atol=1e-5, rtol=1e-5)
    assert sinkhorn(1e4 * waves(0.4, 4, 3)).isfinite().all()


def test_variance_and_covariance_against_slow_readings():
    z = ONE * torch.tensor([0.1, 1.0, 3.0, 0.5])
    mean = [sum(z[:, j]) / 6 for j in range(4)]
    cov = [
        [sum((z[n, i] - mean[i]) * (z[n, j] - mean[j]) for n in range(6)) / 5 for j in range(4)]
        for i in range(4)
    ]
    below = sum(max(0.0, 1 - math.sqrt(cov[i][i] + 1e-4)) for i in range(4)) / 4
    beside = sum(cov[i][j] ** 2 for i in range(4) for j in range(4) if i != j) / 4
    torch.testing.assert_close(variance(z), torch.tensor(below))
    torch.testing.assert_close(covariance(z), beside)


def test_off_diagonal():
    assert off_diagonal(torch.arange(9.0).view(3, 3)).tolist() == [1, 2, 3, 5, 6, 7]


@pytest.mark.parametrize("name", CONTRASTS)
def test_contrasts_are_of_float32_in_half_precision_too_but_where_the_file_says_why(name):
    torch.manual_seed(0)
    near = 3 * torch.randn(1, 32) + 0.3 * torch.randn(64, 32)  # pooled features are so, at first
    a, b = near + 0.3 * torch.randn(64, 32), torch.nn.functional.normalize(near, dim=1)
    right = CONTRASTS[name](a, b)
    with torch.autocast("cpu", torch.bfloat16):
        found = CONTRASTS[name](a, b)
    torch.testing.assert_close(found, right, atol=HALF.get(name, 1e-4), rtol=0.0)


def test_info_nce_of_rows_in_half_precision_is_that_of_their_values():
    a, b = ONE.bfloat16(), OTHER.bfloat16()
    torch.testing.assert_close(info_nce(a, b, 0.05), info_nce(a.float(), b.float(), 0.05))
