"""Every method of the contract on an encoder as small as it gets, for tests that train them all."""

import torch
from test_contract import CASES, METHODS
from test_graph import WIDTH, graphs
from tiny import BATCH
from torch import nn

from selfsup import distributed, methods
from selfsup.encoder import Encoder, resnet
from selfsup.graph import network
from selfsup.language import Language
from selfsup.method import Method
from selfsup.ragged import Ragged
from selfsup.stems import Patches
from selfsup.steps import Observer, Steps
from selfsup.towers import Parts, Towers

KINDS = ("image", "text", "graphs", "pairs", "vectors")
# Settings under which a method computes something else
FORMS = {
    "DINOv2 mean": lambda e: methods.DINOv2(
        e, prototypes=8, hidden=16, dim=8, local_views=1, momentum=0.9, centring="mean"
    ),
    "GRACE thinned": lambda e: methods.GRACE(e, hidden=16, dim=8, most=20),
    "SigLIP": lambda e: methods.CLIP(e, kind="sigmoid"),
    "World_Model spread": lambda e: methods.WorldModel(e, hidden=32, sigreg=0.1),
}
MORE = [
    *(("DINOv2 mean", "image"), ("GRACE thinned", "graphs"), ("SigLIP", "pairs")),
    *(("World_Model spread", "vectors"), ("Data2Vec", "text")),
]


def cases(*kinds: str) -> list[tuple[str, str]]:
    """Each method with the first of these kinds of data that it is for, and other forms of some."""
    return [next((m, k) for k in kinds if (m, k) in CASES) for m in METHODS] + MORE


def make(name: str, kind: str) -> Method:
    torch.manual_seed(0)
    return (FORMS.get(name) or METHODS[name])(_encoder(name, kind))


def _encoder(name: str, kind: str) -> nn.Module:
    if kind == "convolutional":  # with batch norm
        return resnet("resnet18", 8, width=0.125)
    if kind == "graphs":
        return network("gcn", WIDTH, dim=8, norm=True, act="relu")
    shape = {"dim": 16, "depth": 2, "heads": 2, "causal": name in ("CLM", "IGPT")}
    if kind == "text":
        return Language(16, 23, **shape, dropout=0.1 if name == "SimCSE" else 0.0)
    if kind == "vectors":
        return Observer((4,), 2, dim=8, hidden=16, depth=1)
    encoder = Encoder(Patches((8, 8), (4, 4), 3, 16), **shape)
    if kind == "pairs":
        other = Encoder(Patches((8, 8), (2, 2), 3, 16), dim=16, depth=1, heads=2)
        return Towers({"a": encoder, "b": other}, dim=8)
    return encoder


class Rows:
    """This rank's rows of so many views of a step."""

    def __init__(self, kind: str, count: int):
        self.kind, self.count = kind, 2 if kind == "pairs" else count

    def __call__(self, step: int, part: int = 0, parts: int = 1) -> list:
        generator = torch.Generator().manual_seed(step)
        shards = parts * distributed.world()
        rows, at = BATCH // shards, distributed.rank() * parts + part
        mine = slice(at * rows, (at + 1) * rows)
        if self.kind == "text":  # of very different lengths, the long ones all on one rank
            made = [torch.randint(3, 23, (2 + 2 * i,), generator=generator) for i in range(BATCH)]
            return [Ragged.of(made[mine])]
        if self.kind == "vectors":  # rows of very different lengths
            x = torch.randn(2, BATCH, 6, 4, generator=generator)
            valid = torch.arange(6) < torch.tensor([6, 6, 5, 6, 2, 3, 2, 2])[:, None]
            return [Steps(x[0], x[1, :, :, :2], valid)[mine]]
        if self.kind == "graphs":  # of very different sizes, the large ones all on one rank
            sizes = [1 + 2 * i for i in range(BATCH)]
            made = [graphs(sizes, seed=9 * step + view) for view in range(self.count)]
            return [x[mine] for x in made]
        views = [torch.randn(BATCH, 3, 8, 8, generator=generator) for _ in range(self.count)]
        views = [x[mine] for x in views]
        return [Parts(dict(zip("ab", views, strict=True)))] if self.kind == "pairs" else views
