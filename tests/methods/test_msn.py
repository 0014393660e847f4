import math

import pytest
import torch
from fixed import waves
from test_contract import METHODS, build

from selfsup.encoder import Encoder
from selfsup.losses import sinkhorn
from selfsup.stems import Patches


def anchored(a, target, prototypes):
    """The terms of a method whose heads say these numbers: a (2b, d), target (b, d)."""
    method, _ = build("MSN", "image")
    method.prototypes.directions = torch.nn.Parameter(prototypes)
    method.head.forward = lambda h: a
    method.teacher_head.forward = lambda h: target
    return method([torch.randn(len(target), 3, 16, 16)] * 3, 0.5)


def test_loss_against_a_slow_reading_and_another_implementation():
    a, target, prototypes = waves(0.2, 12, 4), waves(0.9, 6, 4), waves(1.3, 5, 4)

    def sort(x):
        near = [torch.cosine_similarity(x, q, dim=0) / 0.1 for q in prototypes]
        return torch.stack(near).softmax(0)

    p = torch.stack([sort(x) for x in a])
    sharp = torch.stack([sort(x) ** 4 for x in target])
    sharp = sharp / sharp.sum(1, keepdim=True)
    codes = sinkhorn(sharp.log())
    total = sum(-(codes[i % 6] * p[i].log()).sum() / 12 for i in range(12))
    mean = p.mean(0)
    entropy = -sum(m * m.log() for m in mean)
    terms = anchored(a, target, prototypes)
    torch.testing.assert_close(terms["clusters"], total, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(terms["spread"], math.log(5) - entropy, atol=1e-5, rtol=1e-5)
    # lightly 1.6.0, loss/msn_loss.py, on the same numbers
    found = terms["clusters"] + terms["spread"]
    torch.testing.assert_close(found, torch.tensor(5.966304779), atol=1e-4, rtol=1e-5)


def test_hidden_tokens_are_never_seen():
    method, views = build("MSN", "image")
    seen = []
    method.encoder.trunk.blocks[0].register_forward_hook(lambda m, i, out: seen.append(i[0].shape))
    method(views, 0.5)
    assert seen[0][:2] == (8, 14)  # of 16 tokens two are hidden
    method.mask = lambda batch, grid, device: torch.arange(16).expand(batch, 16) < 4
    views[1].requires_grad_()
    sum(method(views, 0.5).values()).backward()
    hidden = views[1].grad[:, :, :4]  # the first row of patches
    assert hidden.abs().sum() == 0 and views[1].grad[:, :, 4:].abs().sum() > 0


def test_the_target_is_of_the_first_view_alone_and_has_no_gradient():
    method, views = build("MSN", "image")
    views = [x.requires_grad_() for x in views]
    sum(method(views, 0.5).values()).backward()
    assert views[0].grad is None
    assert all(x.grad.abs().sum() > 0 for x in views[1:])
    assert method.prototypes.directions.grad.abs().sum() > 0
    assert method.kept is method.teacher.slow


def test_the_teacher_slows_down_evenly_and_never_stops():
    """Authors' code, msn_train.py: by equal amounts to 1, over 1.25 times the run."""
    momentum = METHODS["MSN"](build("MSN", "image")[0].encoder).momentum
    found = [momentum(progress) for progress in (0.0, 0.5, 1.0)]
    assert found == pytest.approx([0.9, 0.94, 0.98])


def test_the_cls_token_is_what_is_sorted_where_the_encoder_pools_by_it():
    torch.manual_seed(0)
    stem = Patches((16, 16), (4, 4), 3, 24)
    encoder = Encoder(stem, dim=24, depth=2, heads=2, cls=True, pool="cls")
    x = torch.randn(2, 3, 16, 16)
    torch.testing.assert_close(encoder.pooled(encoder.tokens(x)), encoder(x))
    assert METHODS["MSN"](encoder)([torch.randn(2, 3, 16, 16)] * 6, 0.5)
