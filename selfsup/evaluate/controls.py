"""What an encoder has to beat: itself before training, and what was there before encoders.

Every control passes through the same probe on the same split as the encoder that is judged.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from .. import settings
from ..data import Source, open_source
from ..data.seen import seen_as
from ..data.store import Store
from ..errors import SelfsupError
from ..load import LoadedEncoder
from .features import baseline, extract

# The fourth subject is the modality's own `baseline_name`
PRETRAINED, UNTRAINED, SCRATCH = "pretrained", "untrained", "from scratch"
BEFORE = "started from"  # the encoder of before (--from): beside the one judged, and no control

Pair = tuple[Float[Tensor, "n d"], Float[Tensor, "m d"]]  # of the training and the test part


def behind(control: str) -> str:
    """What a verdict says where `control` is ahead: training harms what did better without it."""
    return "Pretraining hurts" if control == UNTRAINED else "The classical features are better"


def named(control: str) -> str:
    """In a sentence."""
    return "the untrained network" if control == UNTRAINED else control


def untrained(
    encoder: LoadedEncoder,
    store: Store,
    train: np.ndarray,
    test: np.ndarray,
    seed: int,
    tell: Callable[[str], None],
) -> Pair:
    """Features of the same network with other weights."""
    both = extract(fresh(encoder, seed), store, np.concatenate([train, test]), tell=tell)
    return both[: len(train)], both[len(train) :]


def classical(encoder: LoadedEncoder, store: Store, train: np.ndarray, test: np.ndarray) -> Pair:
    """The modality's own baseline (images: small pixels) and its principal components."""
    return baseline(encoder.modality, store, train, test)


def fresh(encoder: LoadedEncoder, seed: int) -> LoadedEncoder:
    """The same network with weights drawn from `seed`, all of its layers at work."""
    return awake(encoder.untrained(seed).to(encoder.device))


def awake(encoder: LoadedEncoder) -> LoadedEncoder:
    """Set normalisations that start at zero to one.

    A residual network starts training as its shortcuts, which look at one pixel in 64 or more: a
    control that is blind by construction would make any encoder look good.
    """
    with torch.no_grad():
        for module in encoder.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm) and not module.weight.any():
                module.weight.fill_(1.0)
    return encoder


def settings_of(run: Any) -> settings.Settings | None:
    """Those of a run; None for exports and loaded encoders."""
    if isinstance(run, LoadedEncoder):
        return None
    path = Path(getattr(run, "path", run)) / "resolved.toml"
    return settings.load(path) if path.is_file() else None


def seen_before(run: Any, source: Source) -> bool:
    """Whether a run has learned from just these data."""
    own = data_of(run)
    return own is not None and own.fingerprint() == source.fingerprint()


def data_of(run: Any, modality: Any = None) -> Source | None:
    """What a run learned from, to teach a control; None where that is not at hand.

    As it was opened, or as `modality` sees it.
    """
    try:
        found = settings_of(run)
        if found is None:
            return None
        source = open_source(found["data.path"], follow_links=found["data.follow_links"])
        return source if modality is None else seen_as(source, modality)
    except SelfsupError:
        return None
