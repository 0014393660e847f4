"""Batches larger than memory: an encoder takes a few rows at a time, and the loss sees all of them.

Gradient caching. Gao, Zhang, Han, Callan, 2021, https://arxiv.org/abs/2101.06983: every part of a
batch is encoded and nothing but the result is kept; once the loss has said how the results should
change, one part after the other is encoded again and passes that on to the weights. The gradients
are those of the whole batch, for one more pass of the encoder. PyTorch's checkpoints do just that.
"""

from collections.abc import Callable, Sequence
from functools import partial, wraps
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from .errors import SelfsupError

Encode = TypeVar("Encode", bound=Callable[..., Any])


class Chunked(nn.Module):
    """A network that makes of a row what it would make of it alone: its methods `in_chunks` take
    `chunk` rows at a time."""

    chunk: int | None = None  # all of them


def in_chunks(encode: Encode) -> Encode:
    """For methods of `Chunked`. What they are given and what they return, a tensor or several, has
    its rows in the order of samples; what they are given may also be None."""

    @wraps(encode)
    def in_turn(self: Chunked, x: Any, *others: Any) -> Any:
        size = self.chunk
        if size is None or len(x) <= size:
            return encode(self, x, *others)
        once: Callable[..., Any] = encode
        if torch.is_grad_enabled():
            # its random numbers and its precision come back when it is computed again
            once = partial(checkpoint, encode, use_reentrant=False)
        with _afresh(x.device.type):
            turns = zip(*(_parts(given, size, len(x)) for given in (x, *others)), strict=True)
            found = [once(self, *part) for part in turns]
        if isinstance(found[0], Tensor):
            return torch.cat(found)
        return tuple(torch.cat(pieces) for pieces in zip(*found, strict=True))

    return in_turn  # type: ignore[return-value]


def cut(method: Any, size: int | None) -> None:
    """Have the encoders of a method, teachers among them, take `size` rows at a time; or all.

    Raises E202 where that is not possible.
    """
    if size is not None and (why := hindrance(method)):
        raise SelfsupError(
            "E202",
            f"{type(method.encoder).__name__} cannot take {size} samples of a batch at a time",
            why=why,
            do="leave train.chunk out, or choose another encoder: transformers on patches "
            "(--encoder vit_tiny) and on tokens can",
        )
    for module in method.modules():
        if isinstance(module, Chunked):
            module.chunk = size


def hindrance(method: Any) -> str:
    """Why the encoder of a method, in its present mode, must see all rows at once; or nothing."""
    towers = getattr(method.encoder, "towers", None)
    for encoder in [method.encoder] if towers is None else [t.encoder for t in towers.values()]:
        name = type(encoder).__name__
        if not isinstance(encoder, Chunked):
            return f"{name} is not known to keep samples apart"
        if any(isinstance(m, _BatchNorm) and m.training for m in encoder.modules()):
            return (
                f"{name} has batch norm, whose statistics would be those of a part: other gradients"
            )
    return ""


def _parts(given: Any, size: int, rows: int) -> Sequence[Any]:
    if isinstance(given, Tensor):
        return given.split(size)  # one node backwards; slices would each fill a whole gradient
    starts = range(0, rows, size)
    return [None if given is None else given[at : at + size] for at in starts]


def _afresh(device: str) -> torch.autocast:
    """The autocast that is, but for its cache: weights that all parts share in half precision
    would sum their gradients in half precision too."""
    return torch.autocast(
        device,
        torch.get_autocast_dtype(device),
        enabled=torch.is_autocast_enabled(device),
        cache_enabled=False,
    )
