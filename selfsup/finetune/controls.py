"""What was used before there were encoders, with the same labels and the same test samples."""

import numpy as np
import torch

from ..evaluate import forecast, linear
from ..evaluate.controls import Pair
from ..evaluate.finetune import plain_head
from ..evaluate.linear import Scale, scale_of
from ..load import LoadedEncoder
from ..randomness import order
from ..stop import stop
from ..transfer.forecast import Forecast, wrong
from ..transfer.segment import Segment
from ..transfer.tasks import Part, Task
from .lesson import fit

COLOUR, PICTURES, PIXELS = "colour of the pixel", 64, 20_000  # that teach, at most


def of_values(
    task: Forecast, judge: forecast.Judge, places: np.ndarray | None = None
) -> dict[str, np.ndarray]:
    """Outcomes of a linear map of the values, taught at `places` or all, and of the last one."""
    parts = [judge.origins(part, task.horizon) for part in range(3)]
    if places is not None:
        parts[0] = [parts[0][i] for i in places.tolist()]
    futures = [judge.future(origins, task.horizon) for origins in parts]
    truth = torch.from_numpy(futures[2])
    return {of: wrong(torch.from_numpy(np.nan_to_num(values)), truth)
            for of, values in judge.simple(parts, futures).items()}  # fmt: skip


def of_features(
    task: Task, both: Pair, train: Part, test: Part, seed: int, scale: Scale | None = None
) -> np.ndarray:
    """Outcomes of a linear layer on the modality's own features, of what teaches and what tests.

    `scale` is that of all training samples where `both` has a part of them; one for all numbers.
    """
    x, other = both
    weight, bias = fit(task, x, train, seed, scale or scale_of(x, common=True))
    out = other.double() @ weight.double() + bias.double()
    return task.outcome(out, task.targets(test, np.arange(len(test)), out.device))


@torch.no_grad()
def by_colour(
    task: Segment, encoder: LoadedEncoder, train: Part, test: Part, seed: int
) -> np.ndarray:
    """Outcomes of a linear layer on the colour of each pixel, its squares and products."""

    def colours(part: Part, places: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        x, y = task.look(encoder, part, places)
        rgb = x.cpu().permute(0, 2, 3, 1).flatten(0, 2)  # (b * s * s, 3)
        pairs = (rgb[:, :, None] * rgb[:, None, :])[:, *np.triu_indices(3)]
        return torch.cat([rgb, pairs], 1), y.cpu().flatten()

    x, y = colours(train, order(seed, 4, len(train))[:PICTURES])
    known = torch.from_numpy(order(seed, 5, len(y))[:PIXELS].copy())
    known = known[y[known] >= 0]
    weight, bias = plain_head(*linear.probe(x[known], y[known], task.outputs, seed=seed))
    found = []
    for low in range(0, len(test), task.evaluated):
        stop.check()
        places = np.arange(low, min(low + task.evaluated, len(test)))
        x, y = colours(test, places)
        said = (x.double() @ weight + bias).argmax(1)
        shape = (len(places), task.size, task.size)
        found.append(task.counts(said.view(shape).numpy(), y.view(shape).numpy()))
    return np.concatenate(found)
