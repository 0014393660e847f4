import math

import torch
from fixed import ONE, OTHER, waves
from test_contract import build

from selfsup.methods.curl import bilinear

W = waves(0.7, 4, 4)


def test_loss_against_a_slow_reading_of_equation_4():
    total = 0.0
    for i in range(6):
        scores = [
            sum(float(ONE[i, a] * W[a, b] * OTHER[j, b]) for a in range(4) for b in range(4))
            for j in range(6)
        ]
        total -= math.log(math.exp(scores[i]) / sum(map(math.exp, scores))) / 6
    torch.testing.assert_close(bilinear(ONE, OTHER, W), torch.tensor(total), atol=1e-5, rtol=1e-5)


def test_loss_against_the_authors_product():
    """curl_sac.py of the authors, at 0999558: logits = q (W k'), less the largest of each row."""
    logits = ONE @ (W @ OTHER.T)
    logits = logits - logits.max(1)[0][:, None]
    expected = torch.nn.CrossEntropyLoss()(logits, torch.arange(6))
    torch.testing.assert_close(expected, torch.tensor(1.6452966928), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(bilinear(ONE, OTHER, W), expected)
    assert not torch.isclose(bilinear(ONE, OTHER, W.T), expected, atol=1e-3)  # W is on one side


def test_a_query_is_of_one_view_and_its_key_of_the_other():
    method, views = build("CURL", "image")
    q, k = method.queries(views[0]), method.keys(views[1])
    found = method(views, 0.5)["info_nce"]
    torch.testing.assert_close(found, bilinear(q, k, method.product))
    for half in (q, k):  # layer norm: every vector has the mean 0 and the length sqrt(d)
        torch.testing.assert_close(half.norm(dim=1), torch.full((8,), 50**0.5), rtol=1e-3, atol=0)


def test_keys_have_no_gradient_and_the_product_has_one():
    method, views = build("CURL", "image")
    for view in views:
        view.requires_grad_()
    method(views, 0.5)["info_nce"].backward()
    assert views[1].grad is None and views[0].grad.abs().sum() > 0
    assert method.product.grad.abs().sum() > 0


def test_the_teacher_follows_at_its_momentum():
    method, _ = build("CURL", "image")
    for slow, fast in ((method.teacher, method.encoder), (method.teacher_head, method.head)):
        before = [p.clone() for p in slow.parameters()]
        with torch.no_grad():
            for p in fast.parameters():
                p.add_(1.0)
        method.after_step(0.3)
        for old, now in zip(before, slow.parameters(), strict=True):
            torch.testing.assert_close(now, old + 0.05, atol=1e-5, rtol=0)
        slow.follow(fast, 0.0)  # so that the second pair starts alike
