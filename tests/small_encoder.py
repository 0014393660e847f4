"""A folder with an untrained encoder in it, as an export or a run has one."""

import json
from pathlib import Path

import torch

from selfsup.checkpoint import Checkpoints, write_tensors
from selfsup.encoder import build


def describe(name: str, size: int, **keywords) -> dict:
    return {
        "format": 1,
        "modality": "image",
        "name": name,
        "size": size,
        "kwargs": keywords,
        "mean": [0.4, 0.5, 0.6],
        "std": [0.2, 0.25, 0.3],
        "state": {},
        "options": {},
        "method": "simclr",
    }


def network(name: str = "resnet18", size: int = 16, seed: int = 0, **keywords) -> torch.nn.Module:
    torch.manual_seed(seed)
    return build(name, size, **keywords).eval()


def export(
    folder: Path, name: str = "resnet18", size: int = 16, seed: int = 0, **keywords
) -> torch.nn.Module:
    """Write encoder.json and encoder.safetensors; the network that they hold."""
    keywords = keywords or ({"width": 0.125} if name == "resnet18" else {})
    folder.mkdir(parents=True, exist_ok=True)
    made = network(name, size, seed, **keywords)
    write_tensors(folder / "encoder.safetensors", made.state_dict())
    (folder / "encoder.json").write_text(json.dumps(describe(name, size, **keywords)))
    return made


def run(folder: Path, step: int = 10, seed: int = 0, size: int = 16) -> torch.nn.Module:
    """A run with one checkpoint."""
    made = network("resnet18", size, seed, width=0.125)
    Checkpoints(folder / "checkpoints").save(step, {"encoder": made.state_dict()}, {"step": step})
    (folder / "encoder.json").write_text(json.dumps(describe("resnet18", size, width=0.125)))
    return made
