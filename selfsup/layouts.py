"""An encoder as timm has it: weights by timm's names, and what `timm.create_model` must be told.

    timm.create_model("local-dir:FOLDER", pretrained=True)

gives the same network: a ViT on pictures, or a ResNet of the papers' shape. A class token that
comes without a position, and registers, are timm's `no_embed_class` and `reg_tokens`.
"""

import sys
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from .encoder import Encoder, ResNet
from .errors import SelfsupError
from .load import LoadedEncoder

WEIGHTS, CONFIG = "model.safetensors", "config.json"


def timm(encoder: LoadedEncoder) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Weights by timm's names, and the content of its config.json.

    Raises SelfsupError E607 for encoders that timm has no class for.
    """
    network, card = encoder.encoder, encoder.card
    if card.options.get("colour", "rgb") != "rgb":
        raise SelfsupError(
            "E607",
            f"timm has no pictures in {card.options['colour']}",
            do="--to safetensors, which selfsup.load opens",
        )
    if isinstance(network, Encoder) and len(network.grid) == 2 and not network.causal:
        cls = bool(card.kwargs.get("cls"))
        name, weights, arguments = "vit_base_patch16_224", _vit(network, cls), _shape(network, cls)
        first, head, pool = "patch_embed.proj", "head", arguments["global_pool"]
        size = network.stem.size
    elif isinstance(network, ResNet) and network.stem == 4 and network.conv1.out_channels == 64:
        name, weights = card.name, dict(network.state_dict())
        arguments = {"in_chans": network.conv1.in_channels}
        first, head, pool = "conv1", "fc", "avg"
        size = (card.size, card.size)
    else:
        raise SelfsupError(
            "E607",
            f"timm has no network like this {type(network).__name__}",
            why="it has ViTs on pictures, and ResNets with a 7x7 stem at the usual width",
            do="--to safetensors, which selfsup.load opens",
        )
    channels = arguments["in_chans"]
    told = {
        "input_size": [channels, *size],
        "num_classes": 0,
        "mean": list(card.mean),
        "std": list(card.std),
        "interpolation": "bilinear",
        "crop_pct": 1.0,
        "first_conv": first,
        "classifier": head,
        "pool_size": None,
    }
    return weights, {
        "architecture": name,
        "num_classes": 0,
        "num_features": network.dim,
        "global_pool": pool,
        "model_args": arguments,
        "pretrained_cfg": told,
    }


def _vit(network: Encoder, cls: bool) -> dict[str, Tensor]:
    state = network.state_dict()
    weights = {
        "patch_embed.proj.weight": state.pop("stem.weight"),
        "patch_embed.proj.bias": state.pop("stem.bias"),
        "pos_embed": state.pop("positions")[None],
    }
    prefix = state.pop("trunk.prefix", None)
    if prefix is not None:
        if cls:
            weights["cls_token"] = prefix[None, :1]
        if len(prefix) > cls:
            weights["reg_token"] = prefix[None, int(cls) :]
    weights |= {key.removeprefix("trunk."): value for key, value in state.items()}
    return {key: value.contiguous().clone() for key, value in weights.items()}


def _shape(network: Encoder, cls: bool) -> dict[str, Any]:
    block = network.trunk.blocks[0]
    prefix = 0 if network.trunk.prefix is None else len(network.trunk.prefix)
    return {
        "img_size": list(network.stem.size),
        "patch_size": list(network.stem.patch),
        "in_chans": network.stem.channels,
        "embed_dim": network.dim,
        "depth": len(network.trunk.blocks),
        "num_heads": block.attn.heads,
        "class_token": cls,
        "reg_tokens": prefix - int(cls),
        "no_embed_class": True,
        "global_pool": "token" if network.pool == "cls" else "avg",
        "fc_norm": False,  # the trunk's norm comes before the mean
    }


def inputs(config: dict[str, Any]) -> Float[Tensor, "4 c h w"]:
    """Four prepared pictures of noise; the same in every process."""
    generator = np.random.Generator(np.random.Philox(20260101))
    size = config["pretrained_cfg"]["input_size"]
    return torch.from_numpy(generator.standard_normal((4, *size), np.float32))


if __name__ == "__main__":  # the clean process: FOLDER ANSWER
    import json
    from pathlib import Path

    from timm import create_model

    folder, answer = sys.argv[1:]
    model = create_model(f"local-dir:{folder}", pretrained=True).eval()
    with torch.inference_mode():
        x = inputs(json.loads((Path(folder) / CONFIG).read_text()))
        np.save(answer, model(x).numpy(), allow_pickle=False)
