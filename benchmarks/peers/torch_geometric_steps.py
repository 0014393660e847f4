"""Graphs with PyTorch Geometric's layers: its own DGI, and GRACE put together of its parts.

    python torch_geometric_steps.py dgi|grace default|tuned DATA

DGI is the step of its example infomax_transductive.py. GRACE, which it lacks, is built as the paper
has it: two GCN layers, edges and columns left out, each node among all of both views. "tuned" adds
bfloat16 autocast, the fused Adam and, where the graph stays the same, its weights found once
(its products of sparse matrices are in float32 alone, and slower).
"""

import sys

import common
import numpy as np
import torch
import torch_geometric
from torch import nn
from torch.nn.functional import elu, normalize
from torch_geometric.nn import DeepGraphInfomax, GCNConv
from torch_geometric.utils import dropout_edge, to_undirected

TEMPERATURE = 0.4


def main(case: str, kind: str, data: str) -> None:
    torch.manual_seed(0)
    tuned = kind == "tuned"
    arrays = np.load(data)
    x = torch.from_numpy(arrays["x"]).float()
    x = x / x.sum(1, keepdim=True).clamp(min=1)
    edges = to_undirected(torch.from_numpy(arrays["edge_index"]))
    step, steps = {"dgi": dgi, "grace": grace}[case](x, edges, tuned)
    common.report(step, [(x, edges)], len(x), steps=steps, version=torch_geometric.__version__)


class Encoder(nn.Module):
    def __init__(self, inputs: int, *sizes: int, act, cached: bool = False):
        super().__init__()
        pairs = zip((inputs, *sizes[:-1]), sizes, strict=True)
        self.layers = nn.ModuleList(GCNConv(i, o, cached=cached) for i, o in pairs)
        self.acts = nn.ModuleList(act(size) for size in sizes)

    def forward(self, x, edges):
        for layer, act in zip(self.layers, self.acts, strict=True):
            x = act(layer(x, edges))
        return x


def optimizer_of(model, tuned: bool, lr: float, decay: float):
    fused = True if tuned else None
    return torch.optim.Adam(model.parameters(), lr=lr, weight_decay=decay, fused=fused)


def dgi(x, edges, tuned: bool):
    model = DeepGraphInfomax(
        512,
        Encoder(x.shape[1], 512, act=nn.PReLU, cached=tuned),
        summary=lambda z, *_: z.mean(0).sigmoid(),
        corruption=lambda x, edges: (x[torch.randperm(len(x))], edges),
    )
    optimizer = optimizer_of(model, tuned, 1e-3, 0.0)

    def step(batch):
        with common.half(tuned):
            loss = model.loss(*model(*batch))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return step, 20


def grace(x, edges, tuned: bool):
    encoder = Encoder(x.shape[1], 256, 128, act=lambda _: nn.ReLU())
    first, second = nn.Linear(128, 128), nn.Linear(128, 128)
    model = nn.ModuleList([encoder, first, second])
    optimizer = optimizer_of(model, tuned, 5e-4, 1e-5)

    def view(x, edges, lost_edges: float, lost_columns: float):
        fewer, _ = dropout_edge(edges, p=lost_edges)
        kept = torch.rand(x.shape[1]) >= lost_columns
        return second(elu(first(encoder(x * kept, fewer))))

    def step(batch):
        with common.half(tuned):
            u, v = view(*batch, 0.2, 0.3), view(*batch, 0.4, 0.4)
            u, v = normalize(u, dim=1), normalize(v, dim=1)
            loss = (one_way(u, v) + one_way(v, u)).mean() / 2
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return step, 8


def one_way(u, v):
    """The paper's equation 1: the partner among all of the other view and the rest of its own."""
    between, within = ((u @ z.T / TEMPERATURE).exp() for z in (v, u))
    own = between.diagonal()
    return -(own / (between.sum(1) + within.sum(1) - within.diagonal())).log()


if __name__ == "__main__":
    main(*sys.argv[1:])
