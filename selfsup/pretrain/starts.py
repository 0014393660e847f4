"""What a run takes over from others: their weights, and how they saw the data."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from ..checkpoint import read
from ..console import Console
from ..errors import SelfsupError
from ..load import CARD, Card, modality_of
from ..run import Run
from ..settings import Settings


def place_of(run: str | os.PathLike | Run) -> str:
    return os.fspath(run.path if isinstance(run, Run) else run)


def by_tower(texts: Sequence[str]) -> dict[str, str]:
    """["image=runs/a"] as {"image": "runs/a"}."""
    return {tower: run for tower, _, run in (str(text).partition("=") for text in texts)}


def adopt(modality: Any, texts: Sequence[str]) -> None:
    """Towers that start from other runs see what those runs saw, and as they did."""
    for tower, place in by_tower(texts).items():
        if not hasattr(modality, "adopt"):
            raise SelfsupError(
                "E201",
                f"--from {tower}=... names a tower, and {modality.name} data have none",
                do="--from RUN",
            )
        path = Run.open(place).path / CARD
        card = Card.read(path)
        modality.adopt(tower, card, modality_of(card, path))


def known_state(run: Run, settings: Settings) -> dict[str, Any] | None:
    """What the modality has learned before: in this run, or in the one it starts from."""
    for place in (run.path, settings["start_from"]):
        card = Run(place).read_json(CARD) if place else None
        if card is not None:
            return card.get("state", {})
    return None


def take_weights(method: Any, settings: Settings, console: Console) -> None:
    """The weights of another run, or of several, where the settings name any."""
    if settings["start_from"]:
        _take_all(method, settings["start_from"], console)
    else:
        _take_towers(method, by_tower(settings["start_towers"]), console)


def _take_all(method: Any, place: str, console: Console) -> None:
    """All weights of another run where they fit, else those of its encoder."""
    checkpoint = Run.open(place).checkpoint
    whole = dict(read(checkpoint, "method"))
    own = method.state_dict()
    if {k: v.shape for k, v in whole.items()} == {k: v.shape for k, v in own.items()}:
        method.load_state_dict(whole)
        console.say(f"weights: all of {place}")
        return
    encoder = dict(read(checkpoint, "encoder"))
    targets: list[nn.Module] = [method.encoder]
    if method.kept is not method.encoder:
        targets.append(method.kept)
    try:
        for target in targets:
            target.load_state_dict(encoder)
    except RuntimeError as error:
        raise SelfsupError(
            "E201",
            "the encoder of --from is not the one to be trained",
            where=place,
            why=str(error).splitlines()[-1].strip(),
            do="give the encoder and the resolution that its resolved.toml has",
        ) from error
    console.say(f"weights: the encoder of {place}; the rest of the method starts anew")


def _take_towers(method: Any, towers: Mapping[str, str], console: Console) -> None:
    """The encoder of a run for each tower that is to start from one."""
    for tower, place in towers.items():
        weights = dict(read(Run.open(place).checkpoint, "encoder"))
        method.encoder.towers[tower].encoder.load_state_dict(weights)
        console.say(f"weights: the tower {tower} starts from {place}")
