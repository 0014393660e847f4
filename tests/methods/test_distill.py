import copy
import math

import pytest
import torch
from fixed import waves
from test_contract import build

from selfsup import released
from selfsup.dilated import Dilated
from selfsup.encoder import Encoder, resnet
from selfsup.errors import SelfsupError
from selfsup.language import Language
from selfsup.methods import Distill
from selfsup.methods.distill import whitened
from selfsup.stems import Patches

BETA = 2.0


def slow_smooth(found, target):
    """Equation 3: half the square over beta where it is small, else the distance less half beta."""
    total, n = 0.0, 0
    for a, b in zip(found.flatten().tolist(), target.flatten().tolist(), strict=True):
        d = abs(a - b)
        total += 0.5 * d * d / BETA if d <= BETA else d - 0.5 * BETA
        n += 1
    return total / n


def slow_whitened(features):
    rows = []
    for row in features.flatten(0, 1).tolist():
        mean = sum(row) / len(row)
        spread = math.sqrt(sum((v - mean) ** 2 for v in row) / len(row) + 1e-5)
        rows.append([(v - mean) / spread for v in row])
    return torch.tensor(rows).view(features.shape)


def test_whitening_against_a_slow_reading():
    features = 5 * waves(0.3, 2, 3, 7) + waves(1.1, 2, 3, 1)
    torch.testing.assert_close(whitened(features), slow_whitened(features), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", ["image", "series"])
def test_loss_is_that_of_every_place_of_the_same_view(kind):
    method, views = build("Distill", kind)
    with torch.no_grad():
        method.head.weight.mul_(6)  # so that both parts of the loss take part
        for p in method.teacher.network.parameters():  # a last norm that has learned
            p.add_(0.3 * torch.randn_like(p))
    said = method.head(method.encoder.features(views[0]))
    target = slow_whitened(method.teacher.network.features(views[0]))
    assert ((said - target).abs() > BETA).any() and ((said - target).abs() < BETA).any()
    found = method(views, 0.5)["distillation"].item()
    assert found == pytest.approx(slow_smooth(said, target), rel=1e-5)


def test_loss_against_the_authors_code():
    """Feature-Distillation at becd8b3, models/feature_distillation.py: ln_tgt and loss_feat."""
    method, views = build("Distill", "image")
    method.teacher = lambda x, grid: 5 * waves(0.3, 2, 3, 7) + waves(1.1, 2, 3, 1)
    method.head.forward = lambda z: 3 * waves(1.9, 2, 3, 7)
    found = method(views, 0.0)["distillation"]
    torch.testing.assert_close(found, torch.tensor(1.2566270828), atol=1e-5, rtol=1e-5)


def test_the_teacher_is_frozen_and_no_part_of_the_run():
    method, views = build("Distill", "convolutional")  # with batch norm
    before = copy.deepcopy(method.teacher.network.state_dict())
    method.train()
    method(views, 0.5)["distillation"].backward()
    method.after_step(0.5)
    for key, value in method.teacher.network.state_dict().items():
        assert torch.equal(value, before[key]), key
    assert all(p.grad is None for p in method.teacher.network.parameters())
    assert {key.partition(".")[0] for key in method.state_dict()} == {"encoder", "head"}
    assert not method.teacher.network.training


def test_places_of_another_grid_are_interpolated_between():
    wide = Encoder(Patches((16, 16), (2, 2), 3, 12), dim=12, depth=1, heads=2)
    teacher = released.of(wide)
    x = torch.randn(2, 3, 16, 16)
    found = teacher(x, (4, 4))
    own = wide.features(x).view(2, 8, 8, 12)
    halves = own.view(2, 4, 2, 4, 2, 12).mean((2, 4))  # bilinear, by two: the mean of four
    torch.testing.assert_close(found, halves.flatten(1, 2))
    assert torch.equal(teacher(x, (8, 8)), wide.features(x))
    with pytest.raises(SelfsupError, match="cannot teach"):
        teacher(x, (4,))


def test_what_cannot_be_taught_is_refused():
    teacher = released.of(resnet("resnet18", 16, width=0.125))
    token = Encoder(
        Patches((16, 16), (4, 4), 3, 24), dim=24, depth=1, heads=2, cls=True, pool="cls"
    )
    words = Language(16, 23, dim=24, depth=1, heads=2, causal=False)
    for encoder, told in ((token, "places"), (words, "grid")):
        with pytest.raises(SelfsupError) as caught:
            Distill(encoder, teacher=teacher)
        assert caught.value.code == "E202" and told in str(caught.value)
    with pytest.raises(SelfsupError, match="needs a teacher"):
        Distill(Dilated(32, 3, dim=24, hidden=16, depth=3))
