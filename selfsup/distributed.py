"""Ranks. On one process every function here is the identity."""

import gc
import json
import os
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from .errors import SelfsupError


def running() -> bool:
    return dist.is_available() and dist.is_initialized()


def rank() -> int:
    return dist.get_rank() if running() else 0


def world() -> int:
    return dist.get_world_size() if running() else 1


def one_machine() -> bool:
    """Whether all ranks are on this machine, as torchrun tells them."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", str(world()))) == world()


def gather(x: Tensor) -> Tensor:
    """Every rank's rows, in the order of ranks, with gradients."""
    if not running():
        return x
    from torch.distributed.nn.functional import all_gather

    # as rows: where gradients come back transposed, gloo would mix up what belongs to which rank
    rows = torch.cat(all_gather(x.reshape(len(x), -1)))
    return rows.reshape(-1, *x.shape[1:])


def gather_ragged(x: Tensor) -> tuple[Tensor, slice]:
    """As `gather`, where ranks have different numbers of rows; and which rows are this rank's."""
    if not running():
        return x, slice(0, len(x))
    sizes = gather(torch.tensor([len(x)], device=x.device)).tolist()
    longest, first = max(sizes), sum(sizes[: rank()])
    rows = gather(torch.cat([x, x.new_zeros(longest - len(x), *x.shape[1:])]))
    parts = [part[:size] for part, size in zip(rows.split(longest), sizes, strict=True)]
    return torch.cat(parts), slice(first, first + len(x))


def own(x: Tensor, rows: int) -> Tensor:
    """This rank's rows, so many, of what was gathered."""
    return x[rank() * rows : (rank() + 1) * rows]


def mean(x: Tensor) -> Tensor:
    """The mean over ranks, without gradients."""
    if not running():
        return x
    x = x.clone()
    dist.all_reduce(x)
    return x / world()


def rand(rows: int, n: int, device: torch.device | None = None) -> Float[Tensor, "rows n"]:
    """Uniform numbers for this rank's rows of the global batch.

    All ranks start a step from the same generator state, so a sample's numbers do not depend on
    how many ranks there are.
    """
    everyone = torch.rand(rows * world(), n, device=device)
    return everyone[rank() * rows : (rank() + 1) * rows]


# -- what the loop needs ------------------------------------------------------------------------


@contextmanager
def process_group() -> Iterator[None]:
    """Join the other processes that torchrun started; leave at the end. Nothing to do for one."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or running():
        yield
        return
    # imported after the start of the group, it would hold the group, and its threads, for ever
    import torch.distributed.nn.functional

    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    dist.init_process_group(
        "nccl" if torch.cuda.is_available() else "gloo", timeout=timedelta(minutes=10)
    )
    try:
        yield
    finally:
        # a thread of the group that frees its last tensor while Python is ending aborts the process
        gc.collect()
        dist.destroy_process_group()


def uneven(batch: int, accumulate: int) -> SelfsupError:
    parts = world() * accumulate
    return SelfsupError(
        "E801",
        f"a batch of {batch} cannot be cut into {parts} equal parts",
        why=f"{world()} processes, each with {accumulate} parts of a batch",
        do=f"--batch {max(parts, batch // parts * parts)}",
    )


def wrap(method: nn.Module, *, shard: bool = False) -> nn.Module:
    """The method as every rank should call it, so that gradients are those of the whole batch.

    Batch norm sees the whole batch. DistributedDataParallel by default; with `shard`, parameters
    and optimizer state are spread over the ranks (FSDP2), block by block.
    """
    if not running():
        return method
    if world() > 1:
        global_batch_norm(method)
    if shard:
        from torch.distributed.fsdp import fully_shard

        for parameter in method.parameters():
            parameter.data = parameter.data.contiguous()  # FSDP2 wants plain rows
        for part in blocks(method):
            fully_shard(part)
        return fully_shard(method)
    ids = [torch.cuda.current_device()] if next(method.parameters()).is_cuda else None
    # statistics are of the whole batch, hence equal on all ranks: nothing to broadcast
    return DistributedDataParallel(
        method, device_ids=ids, broadcast_buffers=False, gradient_as_bucket_view=True
    )


def blocks(method: nn.Module) -> list[nn.Module]:
    """The repeated parts of a network: the members of its lists that have parts themselves."""
    found = []
    for module in method.modules():
        if isinstance(module, (nn.ModuleList, nn.Sequential)):
            found += [m for m in module if any(True for _ in m.children())]
    inner = {id(part) for block in found for part in block.modules() if part is not block}
    return [m for m in found if id(m) not in inner and any(True for _ in m.parameters())]


def sync(model: nn.Module, last: bool) -> AbstractContextManager:
    """Ranks exchange gradients after the last micro-batch only."""
    if isinstance(model, DistributedDataParallel) and not last:
        return model.no_sync()
    if running() and _sharded(model):
        model.set_requires_gradient_sync(last)
    return nullcontext()


def clip(method: nn.Module, limit: float | None) -> Tensor:
    """The norm of all gradients, over all shards; scaled down to `limit` where it is larger."""
    parameters = [p for p in method.parameters() if p.grad is not None]
    if not parameters:
        return torch.zeros(())
    norm = whole(torch.nn.utils.get_total_norm([p.grad for p in parameters]))
    if limit is not None:
        torch.nn.utils.clip_grads_with_norm_(parameters, limit, norm)
    return norm


def agree(*flags: bool) -> list[bool]:
    """Each flag is true on all ranks if it is on one."""
    if not running() or world() == 1:
        return list(flags)
    x = torch.tensor(flags, dtype=torch.int32, device=_device())
    dist.all_reduce(x, op=dist.ReduceOp.MAX)
    return [bool(v) for v in x.tolist()]


def share(number: int) -> int:
    """The first rank's number."""
    if not running() or world() == 1:
        return number
    x = torch.tensor(number, dtype=torch.int64, device=_device())
    dist.broadcast(x, 0)
    return int(x)


def collect(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows of all ranks, in the order of ranks."""
    if not running() or world() == 1:
        return rows
    mine = torch.frombuffer(bytearray(json.dumps(rows).encode()), dtype=torch.uint8).to(_device())
    sizes = [torch.zeros(1, dtype=torch.int64, device=mine.device) for _ in range(world())]
    dist.all_gather(sizes, torch.tensor([len(mine)], device=mine.device))
    padded = mine.new_zeros(int(max(sizes)))
    padded[: len(mine)] = mine
    texts = [torch.empty_like(padded) for _ in range(world())]
    dist.all_gather(texts, padded)
    found = []
    for text, size in zip(texts, sizes, strict=True):
        found += json.loads(bytes(text[: int(size)].tolist()))
    return found


def whole(x: Tensor) -> Tensor:
    """A tensor whose parts lie on several ranks, put together; all ranks must call it."""
    return x.full_tensor() if spread(x) else x


def local(x: Tensor) -> Tensor:
    """The part of a tensor that this rank holds."""
    return x.to_local() if spread(x) else x


@torch.no_grad()
def like(x: Tensor, model: Tensor) -> Tensor:
    """`x` on the device, in the memory layout and, if sharded, spread over ranks as `model` is."""
    if spread(model):
        from torch.distributed.tensor import distribute_tensor

        return distribute_tensor(x.to(model.device), model.device_mesh, model.placements)
    return torch.empty_like(model, dtype=x.dtype).copy_(x)


@torch.no_grad()
def fill(targets: dict[str, Tensor], tensors: Iterable[tuple[str, Tensor]], where: str) -> None:
    """Copy `tensors` into `targets`, which must have the same names and shapes."""
    missing = set(targets)
    for name, x in tensors:
        if name not in targets or targets[name].shape != x.shape:
            shape = tuple(targets[name].shape) if name in targets else "no such tensor"
            raise ValueError(f"{where}: {name} is {tuple(x.shape)}, the model has {shape}")
        targets[name].copy_(like(x, targets[name]))
        missing.discard(name)
    if missing:
        raise ValueError(f"{where}: {', '.join(sorted(missing))} not found")


def spread(x: Tensor) -> bool:
    """Whether a tensor lies on several ranks."""
    if not running():
        return False
    from torch.distributed.tensor import DTensor  # takes a second to import: only where needed

    return isinstance(x, DTensor)


def _sharded(model: nn.Module) -> bool:
    from torch.distributed.fsdp import FSDPModule

    return isinstance(model, FSDPModule)


def _device() -> torch.device:
    gpu = dist.get_backend() == "nccl"
    return torch.device("cuda", torch.cuda.current_device()) if gpu else torch.device("cpu")


# -- batch norm over all ranks ------------------------------------------------------------------


def global_batch_norm(module: nn.Module) -> None:
    """Make every batch norm in `module` use the statistics of all ranks, in place.

    PyTorch's own SyncBatchNorm refuses the CPU, so there `GlobalBatchNorm` takes its part.
    """
    for parent in list(module.modules()):
        for name, child in list(parent.named_children()):
            if type(child) not in (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d):
                continue
            weight = child.weight if child.affine else child.running_mean
            gpu = weight is not None and weight.is_cuda
            new = (nn.SyncBatchNorm if gpu else GlobalBatchNorm)(
                child.num_features,
                child.eps,
                child.momentum,
                child.affine,
                child.track_running_stats,
            )
            new.train(child.training)
            for kind in (new._parameters, new._buffers):
                for key in kind:
                    kind[key] = getattr(child, key)
            setattr(parent, name, new)


class GlobalBatchNorm(nn.modules.batchnorm._BatchNorm):
    """Batch norm with the mean and variance of all ranks' samples. Ioffe, Szegedy 2015."""

    def _check_input_dim(self, x: Tensor) -> None:
        assert x.ndim >= 2

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or world() == 1:
            return super().forward(x)
        y, mean, var, n = _GlobalNorm.apply(x, self.weight, self.bias, self.eps)
        if self.track_running_stats:
            with torch.no_grad():
                self.num_batches_tracked += 1
                share = self.momentum
                if share is None:
                    share = 1 / float(self.num_batches_tracked)
                self.running_mean.lerp_(mean, share)
                self.running_var.lerp_(var * (n / (n - 1)), share)  # unbiased, as in PyTorch
        return y


class _GlobalNorm(torch.autograd.Function):
    """Forward: mean and squared deviations of ranks, combined (Chan, Golub, LeVeque 1983)."""

    @staticmethod
    def forward(ctx, x, weight, bias, eps):
        axes = [0, *range(2, x.ndim)]
        shape = [1, -1] + [1] * (x.ndim - 2)
        work = x.float()
        count = x.numel() // x.shape[1]
        local = torch.var_mean(work, axes, correction=0)  # (c), (c)
        mine = torch.cat([local[1], local[0] * count, local[1].new_tensor([count])])
        all_ranks = [torch.empty_like(mine) for _ in range(world())]
        dist.all_gather(all_ranks, mine)
        c = x.shape[1]
        table = torch.stack(all_ranks).double()  # (ranks, 2c + 1)
        means, squares, counts = table[:, :c], table[:, c : 2 * c], table[:, -1:]
        n = counts.sum()
        mean = (means * counts).sum(0) / n  # (c)
        var = (squares.sum(0) + ((means - mean).square() * counts).sum(0)) / n
        mean, var = mean.float(), var.float()
        scale = (var + eps).rsqrt()
        normal = (work - mean.view(shape)) * scale.view(shape)
        ctx.save_for_backward(normal, scale, weight)
        ctx.axes, ctx.shape, ctx.n = axes, shape, float(n)
        y = normal
        if weight is not None:
            y = y * weight.float().view(shape) + bias.float().view(shape)
        ctx.mark_non_differentiable(mean, var)
        return y.to(x.dtype), mean, var, float(n)

    @staticmethod
    def backward(ctx, dy, *_):
        normal, scale, weight = ctx.saved_tensors
        work = dy.float()
        sums = torch.cat([work.sum(ctx.axes), (work * normal).sum(ctx.axes)])  # (2c)
        own = sums.clone()
        dist.all_reduce(sums)
        c = len(scale)
        means = (sums / ctx.n).view(2, *ctx.shape)
        dx = (work - means[0] - normal * means[1]) * scale.view(ctx.shape)
        if weight is None:
            return dx.to(dy.dtype), None, None, None
        dx = dx * weight.float().view(ctx.shape)
        return dx.to(dy.dtype), own[c:].to(weight.dtype), own[:c].to(weight.dtype), None
