"""A model to keep: an encoder with the head that labels taught it, in a folder that answers.

encoder.json and encoder.safetensors are those of an export, so `selfsup.load` takes the folder too;
model.json says what an answer means, head.safetensors holds the layer that gives it. All of it is
taken for what a stranger may have written.
"""

import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from .. import machine
from ..checkpoint import check, write_tensors
from ..data import Source, open_source
from ..data.seen import seen_as
from ..errors import SelfsupError
from ..export import MODEL, compare, manifest, pictures, place
from ..inference import Bad, decoded
from ..load import CARD, LARGEST_CARD, WEIGHTS, Card, LoadedEncoder, fill, modality_of
from ..logs import replace, spell
from . import core
from .find import task_class
from .tasks import Network, Task

HEAD = "head.safetensors"
FORMAT = 1


class Model(nn.Module):
    """An encoder and its head. `predict(data)` answers; `told` is all of model.json."""

    def __init__(self, network: Network, card: Card, modality: Any, told: dict[str, Any]):
        super().__init__()
        self.network, self.told = network, told
        self.encoder = LoadedEncoder(network.encoder, card, modality)
        self.eval()

    @property
    def task(self) -> Task:
        return self.network.task

    def forward(self, x: Any) -> Tensor:
        return self.network(x)

    def answers(
        self, source: Source, *, batch: int = 128, workers: int = 2, precision: str = "auto",
        start: int = 0, end: int | None = None,
    ) -> Iterator[tuple[np.ndarray, dict[str, Any], list[Bad]]]:  # fmt: skip
        """Sample numbers, columns of answers, and what could not be read, a batch at a time.

        `source` is what `task.samples` gives.
        """
        device = self.encoder.device
        bf16 = machine.choose_precision(precision, device.type) == "bf16"
        for part, bad in decoded(source, self.encoder.modality, self.encoder.size, start=start,
                                 end=end, batch=batch, workers=workers):  # fmt: skip
            if part is None:
                yield np.empty(0, np.int64), {}, bad
                continue
            with (
                torch.inference_mode(),
                torch.autocast(device.type, torch.bfloat16, enabled=bf16),
            ):
                out = self.network(self.task.plain(self.encoder, part.to(device)))
            yield part.indices.numpy(), self.task.tell(out.float(), part), bad

    def predict(
        self, data: Any, *, batch: int = 128, workers: int = 2, precision: str = "auto"
    ) -> dict[str, np.ndarray]:
        """Columns of answers, a row a sample, in order.

        Raises SelfsupError E103 at the first sample that cannot be read, because a row would be
        missing; `selfsup.predict` lists such samples and goes on.
        """
        source = data if isinstance(data, Source) else open_source(data)
        source = seen_as(source, self.encoder.modality, whole=self.task.whole)
        source = self.task.samples(source)
        for problem in source.problems:
            raise _unreadable(problem["name"], problem["reason"])
        found: dict[str, list[np.ndarray]] = {}
        for _, columns, bad in self.answers(
            source, batch=batch, workers=workers, precision=precision
        ):
            if bad:
                raise _unreadable(source.name(bad[0].number), bad[0].reason)
            for key, values in columns.items():
                found.setdefault(key, []).append(np.asarray(values))
        return {key: np.concatenate(parts) for key, parts in found.items()}


def save(
    network: Network,
    encoder: LoadedEncoder,
    told: dict[str, Any],
    out: Path,
    shown: Mapping[str, bytes],
) -> float:
    """Write a model and prove it; the largest difference to what a fresh process computes.

    Adapters are merged into the weights they stand beside; `shown` are files for people, which
    a model does not need. Raises SelfsupError E604 where the copy computes something else.
    """
    core.merge(network.encoder)
    told = {"format": FORMAT, "task": network.task.name, "answers": network.task.to_json()} | told
    # as a fresh process will have it: a graph that was met here is not there
    model = Model(network, encoder.card, modality_of(encoder.card, out / CARD), told)

    def make(folder: Path) -> float:
        write_tensors(folder / WEIGHTS, network.encoder.state_dict())
        write_tensors(folder / HEAD, network.head.state_dict())
        for name, value in ((CARD, encoder.card.to_json()), (MODEL, told)):
            replace(folder / name, (json.dumps(spell(value), indent=1) + "\n").encode())
        for name, content in shown.items():
            replace(folder / name, content)
        manifest(folder, (WEIGHTS, CARD, HEAD, MODEL))
        error, _ = compare(outputs(model), "selfsup.transfer.model", folder)
        return error

    needed = sum(x.numel() * x.element_size() for x in network.state_dict().values())
    return place(out, make, needed)


def load_model(path: Any, *, device: str | torch.device = "cpu") -> Model:
    """The model that `selfsup finetune` wrote.

    Raises SelfsupError: E608 no model there, E602 a description that is not valid, E603 damaged
    files or weights of something else.
    """
    folder = Path(getattr(path, "path", path))
    if not (folder / MODEL).is_file():
        raise SelfsupError(
            "E608",
            f"there is no model in {folder}",
            where=str(folder.absolute()),
            why=f"no {MODEL} is there",
            do="give the folder that `selfsup finetune` wrote",
        )
    links = [name for name in (CARD, WEIGHTS, MODEL, HEAD) if (folder / name).is_symlink()]
    fault = f"{links[0]} is a link" if links else check(folder)
    if fault:
        raise SelfsupError("E603", f"{folder} cannot be used", where=str(folder), why=fault)
    card = Card.read(folder / CARD)
    modality = modality_of(card, folder / CARD)
    inner = fill(card, folder / CARD, folder / WEIGHTS, modality)
    told, task = _parse(folder / MODEL)
    network = Network(inner, task)
    wanted = {name: x.shape for name, x in network.head.state_dict().items()}
    try:
        tensors = load_file(folder / HEAD)
    except (SafetensorError, OSError, ValueError) as error:
        raise _damaged(folder / HEAD, str(error).splitlines()[0]) from None
    if {name: x.shape for name, x in tensors.items()} != wanted:
        raise _damaged(folder / HEAD, "its tensors are not those of this head")
    if not all(x.is_floating_point() and x.isfinite().all() for x in tensors.values()):
        raise _damaged(folder / HEAD, "values that are not finite")
    network.head.load_state_dict(tensors)
    return Model(network.to(device), card, modality, told)


def _parse(path: Path) -> tuple[dict[str, Any], Task]:
    try:
        with path.open("rb") as file:
            told = json.loads(file.read(LARGEST_CARD))
        if told["format"] != FORMAT:
            raise ValueError(f"format is {told['format']!r}")
        return told, task_class(str(told["task"])).parse(told["answers"])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise SelfsupError(
            "E602", f"{path.name} does not describe a model", where=str(path), why=str(error),
            do="take the file that selfsup wrote beside the weights",
        ) from None  # fmt: skip


def _unreadable(name: str, why: str) -> SelfsupError:
    return SelfsupError(
        "E103", f"{name!r} cannot be read", why=why,
        do="take it out, or use `selfsup predict`, which lists such files and goes on",
    )  # fmt: skip


def _damaged(path: Path, why: str) -> SelfsupError:
    return SelfsupError("E603", f"{path.name} cannot be used", where=str(path), why=why)


def outputs(model: Model) -> Float[np.ndarray, "b k"]:
    """Of some made-up samples in float32: all of preprocessing takes part."""
    samples = model.encoder.modality.examples() or pictures()
    x = torch.cat([model.encoder.preprocess(sample)[None] for sample in samples])
    with torch.inference_mode():
        return model(x.to(model.encoder.device)).flatten(1).cpu().numpy()


if __name__ == "__main__":  # the clean process: FOLDER ANSWER
    np.save(sys.argv[2], outputs(load_model(sys.argv[1])), allow_pickle=False)
