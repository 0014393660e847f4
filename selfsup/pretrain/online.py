"""A number to watch while training: neighbours among labelled data, nothing more."""

from collections.abc import Callable

import numpy as np
import torch
from torch import nn

from ..data import open_source, open_store
from ..data.seen import seen_as
from ..errors import SelfsupError
from ..settings import Settings
from ..stop import stop
from .job import STORED, Job

LABELLED = 2000  # samples of --labels that the online kNN looks at, at most


def online(settings: Settings, job: Job) -> Callable[[nn.Module], dict[str, float]]:
    """kNN on labelled data, each sample against those of other groups: a number to watch."""
    from ..evaluate.knn import nearest, vote

    source = seen_as(open_source(settings["data.labels"]), job.modality)
    labelled = source.labels()
    if labelled is None:
        raise SelfsupError(
            "E105",
            "the data of --labels have no labels",
            where=str(settings["data.labels"]),
            do="give a folder with one sub-folder for each class, or a CSV with path,label",
        )
    labels, names = labelled
    rows = np.flatnonzero(labels >= 0)
    rows = np.random.Generator(np.random.Philox(0)).permutation(rows)
    rows = np.sort(rows[:LABELLED])
    own = source.groups()
    own = np.arange(len(labels)) if own is None else own
    store = open_store(source, job.modality, round(STORED * job.size), cache=settings["data.cache"])
    job.beside.append(store)

    def knn(encoder: nn.Module) -> dict[str, float]:
        features, truth, groups = [], [], []
        for low in range(0, len(rows), 256):
            stop.check()
            batch = store.batch(rows[low : low + 256])
            truth.append(torch.from_numpy(labels[batch.indices.numpy()]))
            groups.append(torch.from_numpy(own[batch.indices.numpy()]))
            x = job.modality.plain(batch.to(job.device), job.size)
            features.append(encoder(x).float().cpu())
        z, y = torch.cat(features), torch.cat(truth)
        similarity, near = nearest(z, z, 20, apart=torch.cat(groups))
        known = similarity.isfinite().any(1)  # there are samples of other groups
        guess = vote(similarity[known], y[near[known]], len(names)).argmax(1)
        return {"knn_top1": (guess == y[known]).float().mean().item()} if known.any() else {}

    return knn
