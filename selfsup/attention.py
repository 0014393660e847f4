"""Attention, by whatever is fastest where it runs."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

LONGEST = 1024  # tokens; above, n x n probabilities for each head cost more memory than they save


def attend(
    q: Float[Tensor, "b h m d"],
    k: Float[Tensor, "b h n d"],
    v: Float[Tensor, "b h n d"],
    *,
    bias: Float[Tensor, "b h m n"] | None = None,
    causal: bool = False,
) -> Float[Tensor, "b h m d"]:
    """softmax(q k^T / sqrt(d) + bias) v (arXiv 1706.03762, equation 1).

    `bias`, minus infinity where a query must not look, may have axes of 1; with `causal` (m = n)
    no query looks at later keys.

    In bfloat16 on a CPU, PyTorch's kernel is slow backwards: four batched products are 3 to 10
    times faster for 16 to 256 tokens. In float32 the kernel is as fast and needs less memory; on
    accelerators it is faster. docs/speed.md has the figures.
    """
    if q.device.type == "cpu" and q.dtype == torch.bfloat16 and k.shape[2] <= LONGEST:
        if causal:
            later = torch.full((k.shape[2], k.shape[2]), -torch.inf, dtype=q.dtype).triu(1)
            bias = later if bias is None else bias + later
        return _Products.apply(q, k, v, bias)
    if bias is not None:
        bias = bias.to(q.dtype)
    return scaled_dot_product_attention(q, k, v, bias, is_causal=causal)


class _Products(torch.autograd.Function):
    """Attention written out, on contiguous (b * h, n, d): batched products of strided ones crawl.

    It keeps the probabilities P. With O = P V, backwards: dV = P^T dO, dP = dO V^T,
    dS = P * (dP - rowsum(P * dP)), dQ = dS K / sqrt(d), dK = dS^T Q / sqrt(d).
    Softmax and its gradient run in place, since touching fresh memory costs as much as they do.
    """

    @staticmethod
    def forward(ctx, q, k, v, bias=None):
        shape = q.shape
        # (b * h, m, d) and twice (b * h, n, d)
        q, k, v = (x.flatten(0, 1).contiguous() for x in (q, k, v))
        p = q.new_empty(*q.shape[:2], k.shape[1])  # (b * h, m, n)
        if bias is not None:
            p.view(*shape[:3], k.shape[1]).copy_(bias)
        scaled = {"beta": bias is not None, "alpha": shape[-1] ** -0.5}
        torch.baddbmm(p, q, k.transpose(1, 2), **scaled, out=p)
        torch.softmax(p, -1, out=p)
        ctx.save_for_backward(q, k, v, p)
        return (p @ v).view(shape)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad):
        q, k, v, p = ctx.saved_tensors
        shape, long = grad.shape, (*grad.shape[:2], *k.shape[1:])
        scaled = {"beta": 0, "alpha": shape[-1] ** -0.5}
        grad = grad.reshape(q.shape)
        dv = p.transpose(1, 2) @ grad
        ds = grad @ v.transpose(1, 2)
        torch.ops.aten._softmax_backward_data.out(ds, p, -1, p.dtype, grad_input=ds)
        dq = torch.baddbmm(q, ds, k, **scaled)
        dk = torch.baddbmm(k, ds.transpose(1, 2), q, **scaled)
        return dq.view(shape), dk.view(long), dv.view(long), None
