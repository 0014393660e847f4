"""What losses share. All but `across_views`, `unseen` look over the whole batch: gather before."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import cross_entropy, l1_loss, mse_loss, normalize, relu


def info_nce(
    queries: Float[Tensor, "b d"],
    keys: Float[Tensor, "b d"],
    temperature: float,
    negatives: Float[Tensor, "m d"] | None = None,
) -> Tensor:
    """-log p(a query's own key | all keys), averaged; similarities are cosines over `temperature`.

    With `negatives` the other candidates are these, and not the keys of others.
    """
    with torch.autocast(queries.device.type, enabled=False):  # half digits are too few
        q, k = normalize(queries.float(), dim=-1), normalize(keys.float(), dim=-1)
        if negatives is None:
            similarity = q @ k.T  # (b, b)
            own = torch.arange(len(q), device=q.device)
        else:
            own_similarity = (q * k).sum(-1, keepdim=True)
            similarity = torch.cat([own_similarity, q @ normalize(negatives.float(), dim=-1).T], 1)
            own = torch.zeros(len(q), dtype=torch.long, device=q.device)
    return cross_entropy(similarity / temperature, own)


def across_views(student: Float[Tensor, "v b k"], teacher: Float[Tensor, "w b k"]) -> Tensor:
    """Cross-entropy of each student view with each teacher view, never with its own (DINO,
    arXiv 2104.14294, equation 3).

    `student` holds logits over the temperature, `teacher` probabilities; the first w student
    views are the teacher's. For one student view the targets add up, so each needs one pass.
    """
    w, v = len(teacher), len(student)
    every = teacher.sum(0)  # (b, k)
    total = student.new_zeros((), dtype=torch.float32)
    for i, logits in enumerate(student):
        targets, count = (every - teacher[i], w - 1) if i < w else (every, w)
        normaliser = count * torch.logsumexp(logits.float(), -1)  # (b,)
        total = total + (normaliser - (targets * logits).sum(-1)).mean()
    return total / (w * v - w)


@torch.no_grad()
def unseen(target: Float[Tensor, "*b p"], error: Callable[..., Tensor] = mse_loss) -> Tensor:
    """What the best answer costs that is the same for all samples and places.

    Who looks at the samples must be better; the health monitor asks.
    """
    rows = target.flatten(0, -2)
    some = rows[:: 1 + len(rows) // 4096]  # thousands are enough for a median, which is slow
    best = some.median(0).values if error is l1_loss else rows.mean(0)
    return error(best.expand_as(rows), rows)


@torch.no_grad()
def sinkhorn(scores: Float[Tensor, "b k"], rounds: int = 3) -> Float[Tensor, "b k"]:
    """Probabilities for each row, near exp(scores), by which all columns are used alike.

    Sinkhorn-Knopp as in SwAV (arXiv 2006.09882, appendix A.1), on logarithms: nothing overflows.
    """
    scores = scores.float()
    for _ in range(rounds):
        scores = scores - scores.logsumexp(0, keepdim=True)
        scores = scores - scores.logsumexp(1, keepdim=True)
    return scores.exp()


def variance(z: Float[Tensor, "b d"], target: float = 1.0) -> Tensor:
    """How far the deviation of each dimension is below `target` (VICReg, arXiv 2105.04906, (1))."""
    return relu(target - (z.var(0) + 1e-4).sqrt()).mean()


def covariance(z: Float[Tensor, "b d"]) -> Tensor:
    """The squared covariances of different dimensions, summed, over d (VICReg, (3) and (4))."""
    z = z - z.mean(0)
    with torch.autocast(z.device.type, enabled=False):
        return off_diagonal(z.T @ z / (len(z) - 1)).square().sum() / z.shape[1]


def off_diagonal(x: Float[Tensor, "d d"]) -> Float[Tensor, " k"]:
    """All d * (d - 1) entries beside the diagonal."""
    d = len(x)
    return x.flatten()[:-1].view(d - 1, d + 1)[:, 1:].flatten()


def directions(dim: int, count: int, device: torch.device | None = None) -> Float[Tensor, "d m"]:
    """Drawn evenly; the same on all ranks, which start a step from one state of the generator."""
    return normalize(torch.randn(dim, count, device=device), dim=0)


def sigreg(
    z: Float[Tensor, "v b d"], directions: Float[Tensor, "d m"], knots: int = 17, limit: float = 3.0
) -> Tensor:
    """How far each view is from a standard normal distribution (LeJEPA, arXiv 2511.08544, 4).

    The Epps-Pulley statistic along each of `directions`, averaged:
    b times the integral over t of |empirical - Gaussian characteristic function|^2 exp(-t^2 / 2),
    by trapeziums on [0, limit], doubled as the integrand is even. It is 0 at t = 0.
    """
    with torch.autocast(z.device.type, enabled=False):
        x = z @ directions  # (v, b, m)
        step, total = limit / (knots - 1), x.new_zeros(())
        for k in range(1, knots):
            t = k * step
            gauss = torch.exp(x.new_tensor(-t * t / 2))
            real, imaginary = (t * x).cos().mean(1), (t * x).sin().mean(1)  # (v, m)
            error = ((real - gauss).square() + imaginary.square()).mean()
            total = total + error * gauss * (step if k == knots - 1 else 2 * step)
        return z.shape[1] * total
