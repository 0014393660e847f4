"""What is measured: jobs that between them exercise every part of the library."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from . import drawn


@dataclass(frozen=True)
class Case:
    """`data(folder, count)` draws so many samples and returns their path; `settings` are those of
    a run, as `--set` takes them; `steps` are measured in each block."""

    name: str
    title: str
    batch: int
    steps: int
    data: Callable[[Path, int], Path]
    settings: dict[str, Any]

    @property
    def trains(self) -> bool:
        return self.name != "embed"


def settings(modality: str, method: str, encoder: str, size: int, **more: Any) -> dict[str, Any]:
    """A key of `more` is one of method, encoder or modality, an underscore, and the setting."""
    named = {"modality.name": modality, "method.name": method, "encoder.name": encoder}
    keys = {key.replace("_", ".", 1): value for key, value in more.items()}
    return named | {"data.resolution": size} | keys


VIT = {"encoder_patch": 16, "encoder_cls": True}
NODES = 2708

CASES = {
    case.name: case
    for case in (
        Case("simclr", "SimCLR ResNet-18 32 px", 256, 3, partial(drawn.pictures, side=32),
             settings("image", "simclr", "resnet18", 32)),
        Case("dino", "DINO ViT-Tiny/16 2x224 + 6x96 px, 65,536 prototypes", 32, 3,
             partial(drawn.pictures, side=224),
             settings("image", "dino", "vit_tiny", 224, **VIT, encoder_pool="cls",
                      method_prototypes=65536)),
        Case("mae", "MAE ViT-Small/16 224 px", 64, 3, partial(drawn.pictures, side=224),
             settings("image", "mae", "vit_small", 224, **VIT)),
        Case("embed", "embedding ViT-Small/16 224 px", 64, 4, partial(drawn.pictures, side=224),
             settings("image", "simclr", "vit_small", 224, **VIT, encoder_pool="cls")),
        Case("mlm", "BERT 6 x 384, 128 tokens of 30,522 kinds", 32, 6,
             partial(drawn.documents, symbols=30_519),
             settings("text", "mlm", "bert_small", 128, modality_tokens="characters",
                      method_ratio=0.15)),
        Case("clm", "GPT 4 x 128, 64 letters", 12, 60, drawn.prose,
             settings("text", "clm", "gpt_micro", 65, modality_tokens="characters")),
        Case("proteins", "ESM 6 x 320, up to 256 residues", 32, 5, drawn.proteins,
             settings("protein", "mlm", "bert_small", 256, method_ratio=0.15, encoder_dim=320,
                      encoder_heads=20, encoder_rescale=True)),
        Case("wav2vec2", "wav2vec 2.0 6 x 384, 256 channels, 4 s", 8, 3, drawn.sounds,
             settings("audio", "wav2vec2", "wave_small", 400, modality_form="wave",
                      modality_rate=drawn.RATE)),
        Case("videomae", "VideoMAE ViT-Small/16, 16 x 112 px", 16, 4,
             partial(drawn.clips, side=128),
             settings("video", "mae", "vit_small", 112, encoder_patch=16, method_mask="tube",
                      method_ratio=0.9, method_decoder_dim=192, method_decoder_depth=4,
                      method_decoder_heads=3)),
        Case("ts2vec", "TS2Vec 10 x 64 to 320, 200 steps of 7 channels", 16, 40, drawn.series,
             settings("series", "ts2vec", "dilated", 200)),
        Case("dgi", "DGI GCN 512, a graph of 2,708 nodes", NODES, 20, drawn.citations,
             settings("network", "dgi", "gcn", NODES, encoder_dim=512, encoder_depth=1)),
        Case("grace", "GRACE GCN 256 and 128, a graph of 2,708 nodes", NODES, 8, drawn.citations,
             settings("network", "grace", "gcn", NODES, encoder_hidden=256, encoder_dim=128,
                      encoder_act="relu")),
        Case("clip", "CLIP ViT-Tiny/16 224 px and 4 x 256, captions of 8 to 24 tokens", 64, 3,
             partial(drawn.captioned, side=224, symbols=4096),
             settings("pairs", "clip", "towers_small", 224,
                      modality_options=("text.tokens=characters",),
                      encoder_parts=("image=vit_tiny", "image.patch=16", "image.cls=true",
                                     "image.pool=cls", "text=bert_mini"))),
        Case("world_model", "world model, 16 steps of two rooms at 32 px", 64, 10, drawn.episodes,
             settings("trajectory", "world_model", "observer_small", 16)),
    )
}  # fmt: skip
