"""Attention by products against PyTorch's own, against float64 and against finite differences."""

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from selfsup import attention
from selfsup.attention import attend


def draw(b, h, n, d, dtype, strided):
    """q, k, v as a trunk makes them: views of one (b, n, 3, h, d) product, or contiguous."""
    torch.manual_seed(n)
    packed = torch.randn(b, n, 3, h, d, dtype=dtype)
    parts = packed.permute(2, 0, 3, 1, 4).unbind(0)
    return [(x if strided else x.contiguous()).detach().requires_grad_() for x in parts]


def outcome(function, inputs):
    """Output and the three gradients for a fixed direction."""
    copies = [x.detach().requires_grad_() for x in inputs]
    out = function(*copies)
    direction = torch.linspace(-1, 1, out.numel(), dtype=out.dtype).view_as(out)
    return [out, *torch.autograd.grad(out, copies, direction)]


def exact(inputs):
    return outcome(scaled_dot_product_attention, [x.double() for x in inputs])


def error(found, right):
    return max(((f.double() - r).norm() / r.norm()).item() for f, r in zip(found, right))


@pytest.mark.parametrize("strided", [True, False])
@pytest.mark.parametrize("n", [1, 16, 37, 49, 197])
@pytest.mark.parametrize("d", [32, 64])
def test_products_in_bfloat16_are_as_exact_as_the_kernel(n, d, strided):
    inputs = draw(2, 3, n, d, torch.bfloat16, strided)
    right = exact(inputs)
    ours, kernel = outcome(attend, inputs), outcome(scaled_dot_product_attention, inputs)
    # queries and keys get no gradient from a single token: only values are compared there
    ours, kernel, right = (x if n > 1 else [x[0], x[3]] for x in (ours, kernel, right))
    assert error(ours, right) < 2e-2
    assert error(ours, right) < 3 * error(kernel, right) + 2e-3


@pytest.mark.parametrize("function", [attend, attention._Products.apply])
@pytest.mark.parametrize("n", [16, 37, 197])
def test_float32_equals_the_kernel(function, n):
    inputs = draw(2, 3, n, 64, torch.float32, strided=True)
    assert error(outcome(function, inputs), exact(inputs)) < 1e-5


def test_gradients_equal_finite_differences():
    inputs = draw(2, 2, 5, 3, torch.float64, strided=True)
    assert torch.autograd.gradcheck(attention._Products.apply, inputs)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_fewer_queries_than_keys(dtype):
    q, k, v = draw(2, 3, 12, 8, dtype, strided=True)
    inputs = [q[:, :, :5], k, v]
    assert error(outcome(attention._Products.apply, inputs), exact(inputs)) < 2e-2
    if dtype == torch.float64:
        inputs = [x.detach().contiguous().requires_grad_() for x in inputs]
        assert torch.autograd.gradcheck(attention._Products.apply, inputs)


def test_autocast_reaches_the_products():
    """Under autocast a trunk's queries are bfloat16, and the result stays so."""
    layer = torch.nn.Linear(64, 3 * 64)
    with torch.autocast("cpu", torch.bfloat16):
        q, k, v = layer(torch.randn(2, 9, 64)).view(2, 9, 3, 2, 32).permute(2, 0, 3, 1, 4)
        out = attend(q, k, v)
    assert out.dtype == torch.bfloat16
    assert type(out.grad_fn).__name__ == "_ProductsBackward"


def test_a_batch_of_none():
    q, k, v = draw(2, 2, 9, 32, torch.bfloat16, strided=False)
    bias = torch.zeros(1, 1, 9, 9, dtype=torch.bfloat16)
    assert attention._Products.apply(q[:0], k[:0], v[:0], bias).shape == (0, 2, 9, 32)


def test_inputs_stay_as_they_were():
    inputs = draw(2, 2, 9, 32, torch.bfloat16, strided=False)
    before = [x.detach().clone() for x in inputs]
    out = attend(*inputs)
    out.sum().backward()
    assert all(torch.equal(x, y) for x, y in zip(inputs, before))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_was_in_memory_before_does_not_matter(dtype):
    """Scaled products go into fresh memory, here full of what is not a number."""
    inputs = draw(2, 2, 16, 32, dtype, strided=True)
    torch.use_deterministic_algorithms(True)
    try:
        found = outcome(attention._Products.apply, inputs)
    finally:
        torch.use_deterministic_algorithms(False)
    assert error(found, exact(inputs)) < 2e-2


def test_many_tokens_keep_no_probabilities(monkeypatch):
    monkeypatch.setattr(attention, "LONGEST", 8)
    inputs = draw(1, 1, 9, 32, torch.bfloat16, strided=True)
    assert type(attend(*inputs).grad_fn).__name__ != "_ProductsBackward"
