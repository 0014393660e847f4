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
    """kNN on labelled data, each sample against all others: a number to watch, nothing more."""
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
    if (groups := source.groups()) is not None:  # clips would find others of their recording
        rows = rows[np.sort(np.unique(groups[rows], return_index=True)[1])]
    rows = np.sort(rows[:LABELLED])
    store = open_store(source, job.modality, round(STORED * job.size), cache=settings["data.cache"])
    job.beside.append(store)

    def knn(encoder: nn.Module) -> dict[str, float]:
        features, truth = [], []
        for low in range(0, len(rows), 256):
            stop.check()
            batch = store.batch(rows[low : low + 256])
            truth.append(torch.from_numpy(labels[batch.indices.numpy()]))
            x = job.modality.plain(batch.to(job.device), job.size)
            features.append(encoder(x).float().cpu())
        z, y = torch.cat(features), torch.cat(truth)
        similarity, near = nearest(z, z, 20, among_themselves=True)
        guess = vote(similarity, y[near], len(names)).argmax(1)
        return {"knn_top1": (guess == y).float().mean().item()}

    return knn
