"""What the setting `without` leaves out of views, of every kind of data."""

from functools import cache

import numpy as np
import pytest
import torch

from selfsup import listing
from selfsup.compare import _tensors
from selfsup.data.batch import Batch
from selfsup.errors import SelfsupError
from selfsup.inference import assemble
from selfsup.method import Views
from selfsup.modalities import find
from selfsup.randomness import Draws
from selfsup.tokens import Bytes

SPEC = Views(light=2, strong=2, local=1, alike=False)
SIZES = {"trajectory": 8, "video": 40, "audio": 24}
PART = {"image": {"size": 48, "options": {}, "state": {}},
        "text": {"size": 24, "options": {"tokens": "bytes"}, "state": Bytes().state}}  # fmt: skip
STATES = {
    "network": {"width": 6, "scale": None},
    "pairs": {"parts": {name: {"modality": name, **part} for name, part in PART.items()}},
}


def made(name: str, **without: str):
    modality = find(name)(**without)
    if name in STATES:
        modality.restore(STATES[name])
    return modality


@cache
def batch(name: str) -> Batch:
    """Samples of several lengths and sizes, some of which are longer than a view."""
    modality, size = made(name), SIZES.get(name, 48)
    noise = np.random.default_rng(0)
    raws = modality.examples() or [noise.integers(0, 256, (60, 64, 3), np.uint8)]
    found = [modality.shrink(modality.read(raw, size), 2 * size) for raw in raws]
    return assemble((found * 16)[:16])


def views(name: str, seed: int = 0, **without: str) -> list[torch.Tensor]:
    """All that they hold."""
    x, modality = batch(name), made(name, **without)
    if name == "network":
        modality.examples()  # its graph
    return _tensors(modality.views(x, SPEC, Draws(seed, x.samples), SIZES.get(name, 48)))


def same(a: list[torch.Tensor], b: list[torch.Tensor]) -> bool:
    return len(a) == len(b) and all(map(torch.equal, a, b))


@pytest.mark.parametrize("name", listing.modalities())
def test_operations_are_all_that_chance_does_and_each_can_be_left_out(name):
    names = made(name).operations
    whole, nothing = views(name), ",".join(names)
    assert len(names) > 2 and same(whole, views(name, without=""))
    assert same(views(name, without=nothing), views(name, 1, without=nothing))
    for operation in names:
        less = views(name, without=operation)
        assert not same(whole, less), operation
        assert all(x.isfinite().all() for x in less), operation
        alone = ",".join(other for other in names if other != operation)
        assert not same(views(name, without=alone), views(name, 1, without=alone)), operation
    with pytest.raises(SelfsupError, match="weather") as raised:
        made(name, without=f"{names[0]},weather")
    assert raised.value.code == "E201" and names[-1] in raised.value.do
