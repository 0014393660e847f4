"""GraphMAE. Hou et al., 2022, https://arxiv.org/abs/2205.10803

What is known of half the nodes is hidden, and must be found out from their neighbours. Hidden
nodes are blanked once more before the decoder, so that it is the encoder that has to find out.
Graphs; any encoder that gives one vector per node.
"""

from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn.functional import normalize

from .. import distributed, needs
from ..method import Method, Views
from ..optim import Optim
from ..shown import Guess, Guesses
from ..sparse import Graphs, numbers, shuffled

SHOWN = 4  # hidden nodes of a graph that the report tells of


class GraphMAE(Method):
    views = Views(light=1, share=(1.0, 1.0))  # paper: no augmentation
    optim = Optim("adamw", lr=1e-3, weight_decay=2e-4, betas=(0.9, 0.999), warmup=0.0)

    def __init__(
        self, encoder: Any, *, ratio: float = 0.5, noise: float = 0.05, sharpness: float = 3.0
    ):
        super().__init__(encoder)
        needs.nodes("GraphMAE", encoder)
        self.ratio, self.noise, self.sharpness = ratio, noise, sharpness
        self.token = nn.Parameter(torch.zeros(encoder.width))  # [MASK]
        self.between = nn.Linear(encoder.dim, encoder.dim, bias=False)
        self.decoder = encoder.layer(encoder.width)

    def loss(self, views, progress):
        (x,) = views
        hidden, blank, shown = self.mask(x)
        h = self.encoder.nodes(shown, blank, self.token)
        again = self.between(h) * ~hidden[:, None]  # re-mask
        similarity = self.decoder.cosine(again, x)[hidden]
        self.watch = {"embedding": h.detach()}
        self.chance = {"reconstruction": float(unseen(x, hidden, self.sharpness))}
        # by the mean over ranks, which hide more or fewer: every node counts the same
        count = distributed.mean(hidden.sum().float())
        return {"reconstruction": scaled_cosine(similarity, self.sharpness).sum() / count}

    @torch.no_grad()
    def show(self, views):
        (x,) = views
        hidden, blank, shown = self.mask(x)
        if x.rows is not None:  # the nodes that are looked at
            hidden, blank = (flags.index_fill(0, x.rows, True) for flags in (hidden, blank))
        nodes = hidden.nonzero()[:, 0] if x.rows is None else x.rows
        again = self.between(self.encoder.nodes(shown, blank, self.token)) * ~hidden[:, None]
        cosines, said = self.decoder.cosine(again, x)[nodes], self.decoder(again, x, nodes)
        rows = [[] for _ in range(len(x))]
        columns, right = x.columns.clone(), 0
        for i, (node, cosine, scores) in enumerate(zip(nodes.tolist(), cosines, said, strict=True)):
            own = slice(int(x.starts[node]), int(x.starts[node] + x.lengths[node]))
            known = x.values[own] != 0
            if 2 * int(known.sum()) > x.width:  # numbers: which are the largest
                known = x.values[own] >= x.values[own].quantile(0.75)
            true = sorted(x.columns[own][known].tolist())
            guessed = scores.topk(len(true)).indices.sort().values  # as many as there are
            columns[own][known] = guessed
            both = len(set(guessed.tolist()) & set(true))
            right += both == len(true)
            of = i if x.rows is not None else int(x.graph[node])
            note = f"cosine {float(cosine):.2f}, {both} of {len(true)}"
            rows[of].append(Guess(int(x.place[node]), true, guessed.tolist(), note))
        made = {"hidden nodes": Guesses([row[:SHOWN] for row in rows], right, len(nodes))}
        if x.rows is None:
            seen = replace(x, values=x.values * ~hidden[x.owner])
            made = {
                "original": x,
                "what the encoder sees (grey is hidden)": seen,
                "rebuilt": replace(x, columns=columns),
                **made,
            }
        return made

    def mask(self, x):
        """Who is hidden (n,); who of them shows the token; the others show another node's values.

        At least one node of the batch is hidden and one is not. Departure: another node of the same
        graph. Authors' code: of any in the batch, which may be on another rank.
        """
        turn, n = shuffled(x)
        count = min(max(1, int(self.ratio * n)), max(1, n - 1))
        hidden, noisy = turn < count, turn < int(self.noise * count)
        itself = torch.arange(x.nodes, device=x.device)
        another = itself - x.place + (numbers(x) * x.sizes[x.graph]).long()
        return hidden, hidden & ~noisy, x.exchanged(torch.where(noisy, another, itself))


@torch.no_grad()
def unseen(x: Graphs, hidden: Bool[Tensor, " n"], sharpness: float, rounds: int = 5) -> Tensor:
    """What the best answer costs that is the same for all hidden nodes.

    Most nodes have much in common, so it is far below 1: 0.034 for molecules, sharpness 3.
    """
    size = torch.zeros_like(hidden, dtype=torch.float32)
    size = size.index_add(0, x.owner, x.values.float().square()).sqrt()
    unit = x.values / size.clamp(min=1e-6)[x.owner]
    weight, answer = hidden.float(), torch.zeros(x.width, device=x.device)
    for _ in range(rounds):  # its gradient is zero where it is the mean by these weights
        mean = torch.zeros_like(answer).index_add(0, x.columns, unit * weight[x.owner])
        answer = normalize(answer + normalize(mean, dim=0), dim=0)
        cosine = torch.zeros_like(size).index_add(0, x.owner, unit * answer[x.columns])
        weight = hidden * (1 - cosine).pow(sharpness - 1)
    return scaled_cosine(cosine[hidden], sharpness).mean()


def scaled_cosine(similarity: Float[Tensor, " n"], sharpness: float) -> Float[Tensor, " n"]:
    """Equation 2 for each node: (1 - cos(x, z)) ** sharpness."""
    return (1 - similarity.float()).pow(sharpness)
