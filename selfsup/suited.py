"""Tables of what suits a method and a kind of data; experiments correct them (docs/LOG.md).

Keys are methods, "clip", or a modality with a method, "video.mae", where that wants something else.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Candidate:
    """An encoder worth trying; `keywords` are its settings."""

    encoder: str
    keywords: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        words = ", ".join(f"{key} {value}" for key, value in self.keywords.items())
        return self.encoder + (f" ({words})" if words else "")


# From large to small. Masked methods need the tokens of a transformer.
CONVOLUTIONAL = (
    Candidate("resnet18"),
    Candidate("resnet18", {"width": 0.5}),
    Candidate("resnet18", {"width": 0.5, "stem": 2}),
    Candidate("resnet18", {"width": 0.25, "stem": 2}),
)
TRANSFORMERS = (
    Candidate("vit_small"),
    Candidate("vit_tiny"),
    Candidate("vit_tiny", {"depth": 6}),
    Candidate("vit_tiny", {"depth": 4}),
)
# Clips of two seconds are 64 tokens of 64 px: with eight times as many, runs see too few of them
CLIPS = tuple(Candidate(c.encoder, {**c.keywords, "patch": 16, "tubelet": 4}) for c in TRANSFORMERS)
BIDIRECTIONAL = (
    Candidate("bert_small"),
    Candidate("bert_mini"),
    Candidate("bert_micro"),
    Candidate("bert_micro", {"depth": 2}),
)
# ESM's token dropout: hidden tokens come in as zeros
RESCALED = tuple(Candidate(c.encoder, {**c.keywords, "rescale": True}) for c in BIDIRECTIONAL)
# Convolutions know their neighbours from the first step on, which is what ten minutes suffice for
CONVOLVED = (
    Candidate("carp_small"),
    Candidate("carp_micro"),
)
# What dropout leaves out makes the views: with less an untrained network tells all texts apart
DROPPING = tuple(Candidate(c.encoder, {**c.keywords, "dropout": 0.5}) for c in BIDIRECTIONAL)
CAUSAL = (
    Candidate("gpt_small"),
    Candidate("gpt_mini"),
    Candidate("gpt_micro"),
    Candidate("gpt_micro", {"depth": 2}),
)
DILATED = (
    Candidate("dilated"),
    Candidate("dilated_small"),
)
GRAPHS = (Candidate("gin", {"pool": "sum", "jump": True, "norm": True}),)
# Tokens of a few frames: from digits spoken by strangers these learn what a ResNet does not
FRAMES = (
    Candidate("mel_small"),
    Candidate("mel_tiny"),
    Candidate("mel_tiny", {"depth": 4}),
)
WAVES = (
    Candidate("wave_small"),
    Candidate("wave_tiny"),
    Candidate("wave_tiny", {"depth": 2, "channels": 64}),
)
TOWERS = (
    Candidate("towers_small"),
    Candidate("towers_mini"),
    Candidate("towers_micro"),
)
OBSERVERS = (
    Candidate("observer"),
    Candidate("observer_small"),
)
# By modality and form of its samples, "audio.wave"; by modality and method where the modality asks
# for others, "text.mlm"; by method
CANDIDATES = {
    "simclr": CONVOLUTIONAL,
    "dino": CONVOLUTIONAL,
    "mae": TRANSFORMERS,
    "jepa": TRANSFORMERS,
    "ts2vec": DILATED,
    "series.simclr": DILATED,
    "series.dino": DILATED,
    "network.graphmae": (Candidate("gat", {"dim": 256, "drop": 0.2, "attention_drop": 0.1}),),
    "network.grace": (Candidate("gcn", {"hidden": 256, "dim": 128, "act": "relu"}),),
    "network.dgi": (Candidate("gcn", {"dim": 512, "depth": 1}),),
    "network.bgrl": (Candidate("gcn", {"hidden": 512, "dim": 256, "norm": True}),),
    "network.simclr": (Candidate("gcn", {"hidden": 256, "dim": 128, "act": "relu"}),),
    "network.dino": (Candidate("gcn"),),
    "graph.graphmae": GRAPHS,
    "graph.grace": GRAPHS,
    "graph.dgi": GRAPHS,
    "graph.bgrl": GRAPHS,
    "graph.simclr": GRAPHS,
    "graph.dino": GRAPHS,
    "audio.simclr": FRAMES,
    "audio.dino": FRAMES,
    "audio.mae": FRAMES,
    "audio.jepa": FRAMES,
    "audio.wav2vec2": FRAMES,
    "audio.wave": WAVES,
    "video.simclr": CLIPS,
    "video.dino": TRANSFORMERS,  # these two also look at parts of clips
    "video.relativeposition": TRANSFORMERS,
    "world_model": OBSERVERS[1:],
    "trajectory.simclr": OBSERVERS[1:],
    "trajectory.dino": OBSERVERS[1:],
    "mlm": BIDIRECTIONAL,
    "clm": CAUSAL,
    "text.simclr": BIDIRECTIONAL,
    "text.dino": BIDIRECTIONAL,
    "protein.mlm": CONVOLVED,
    "protein.simclr": BIDIRECTIONAL,
    "protein.dino": BIDIRECTIONAL,
    "clip": TOWERS,
    "pairs.simclr": TOWERS,
    "pairs.dino": TOWERS,
    "text.data2vec": BIDIRECTIONAL,
    "protein.data2vec": BIDIRECTIONAL,
    "text.simcse": DROPPING,
    "series.simcse": DILATED,
    "network.simcse": (Candidate("gcn", {"hidden": 256, "dim": 128, "drop": 0.1}),),
    "graph.simcse": (Candidate("gin", {**GRAPHS[0].keywords, "drop": 0.1}),),
}
GPU_CANDIDATES = {
    "clip": (Candidate("towers_base"), Candidate("towers_small")),
    "simclr": (Candidate("resnet50"), Candidate("resnet18")),
    "dino": (Candidate("vit_small"), Candidate("vit_tiny")),
    "mae": (Candidate("vit_base"), Candidate("vit_small"), Candidate("vit_tiny")),
    "jepa": (Candidate("vit_base"), Candidate("vit_small"), Candidate("vit_tiny")),
    "video.simclr": (Candidate("vit_small"), Candidate("vit_tiny")),
    "ts2vec": (Candidate("dilated"),),
    "series.simclr": DILATED,
    "series.dino": DILATED,
    "audio.simclr": FRAMES,
    "audio.dino": FRAMES,
    "audio.mae": FRAMES,
    "audio.jepa": FRAMES,
    "audio.wav2vec2": FRAMES,
    "audio.wave": (Candidate("wave_base"), *WAVES),
    "world_model": OBSERVERS,
    "trajectory.simclr": OBSERVERS,
    "trajectory.dino": OBSERVERS,
    "mlm": (Candidate("bert_base"), *BIDIRECTIONAL[:2]),
    "clm": (Candidate("gpt_base"), *CAUSAL[:2]),
    "text.simclr": BIDIRECTIONAL[:2],
    "text.dino": BIDIRECTIONAL[:2],
    "protein.mlm": RESCALED[:2],
    "protein.simclr": BIDIRECTIONAL[:2],
    "protein.dino": BIDIRECTIONAL[:2],
    "pairs.simclr": TOWERS[:2],
    "pairs.dino": TOWERS[:2],
    "text.data2vec": BIDIRECTIONAL[:2],
    "protein.data2vec": BIDIRECTIONAL[:2],
    "text.simcse": DROPPING[:2],
    # networks of graphs are small on any machine
    **{key: found for key, found in CANDIDATES.items() if key.startswith(("graph.", "network."))},
}
BATCHES = {
    "simclr": 256,
    "audio.simclr": 128,
    "dino": 128,
    "mae": 128,
    "jepa": 128,
    "video.simclr": 64,
    "video.dino": 32,
    "video.mae": 32,
    "video.jepa": 32,
    "wav2vec2": 64,
    "ts2vec": 8,
    "graphmae": 128,
    "grace": 128,
    "dgi": 128,
    "bgrl": 128,
    "igpt": 128,
    "video.igpt": 32,
    "mlm": 64,
    "protein.mlm": 32,
    "text.data2vec": 64,
    "protein.data2vec": 32,
    "clm": 32,
    "clip": 128,
    "world_model": 64,
    "simcse": 128,
}
# Methods that want of encoder and batch what another one wants. Those that neither stand here nor
# have lines of their own are like "mae" where they ask for tokens (calls of `needs`), else "simclr"
LIKE = {
    **dict.fromkeys(("mocov3", "swav", "lejepa", "rotation"), "dino"),
    **dict.fromkeys(("mdlm", "electra"), "mlm"),
    "hubert": "wav2vec2",
}
# Samples that one forward pass gives all of, the nodes of one graph: this many at most in a batch
WHOLE = {"network": 8192}

# The papers' settings are for hundreds of passes over a million pictures. On processor cores a run
# has one or two thousand steps: small heads, quick teachers, and Muon, which on CIFAR-10 learns
# more from 130 steps than AdamW does from 200 (docs/LOG.md).
QUICK = {
    "optim.name": "muon",
    "optim.lr": 2e-2,
    "optim.weight_decay": 0.01,
    "optim.betas": (0.9, 0.99),
    "optim.warmup": 0.1,
}
# a prototype for samples and for places
NAMED_PLACES = {
    **QUICK,
    "method.prototypes": 512,
    "method.hidden": 512,
    "method.dim": 64,
    "method.head_norm": True,
    "method.local_views": 2,
    "method.momentum": 0.98,
    "method.teacher_temperature_end": 0.04,
    "optim.lr": 1e-2,
    "optim.per": 256,  # DINOv2's own is 1,024
    "optim.weight_decay_end": 0.01,
}
SHORT: dict[str, dict[str, Any]] = {
    "simclr": {
        "method.hidden": 512,
        "optim.name": "muon",
        "optim.lr": 2e-2,
        "optim.weight_decay": 0.01,
        "optim.betas": (0.9, 0.99),
    },
    "moco": {
        **QUICK,
        "method.hidden": 512,
        "method.queue": 4096,
        "method.head_norm": True,
        "method.momentum": 0.98,
        "method.momentum_end": 0.98,
    },
    "curl": {**QUICK, "optim.final": 0.0},
    "distill": QUICK,
    "mocov3": {
        **QUICK,
        "method.hidden": 512,
        "method.dim": 128,
        "method.layers": 2,
        "method.momentum": 0.98,
    },
    "byol": {**QUICK, "method.hidden": 512, "method.dim": 128, "method.momentum": 0.97},
    "simsiam": {**QUICK, "method.hidden": 512, "method.bottleneck": 128},
    "barlowtwins": {**QUICK, "method.dim": 512},
    "vicreg": {**QUICK, "method.dim": 512},
    "swav": {
        **QUICK,
        "method.prototypes": 256,
        "method.hidden": 512,
        "method.dim": 64,
        "method.local_views": 2,
        "method.queue": 1024,
    },
    "nnclr": {
        **QUICK,
        "method.hidden": 512,
        "method.dim": 128,
        "method.predictor_hidden": 512,
        "method.queue": 4096,
    },
    "tico": {**QUICK, "method.hidden": 512, "method.dim": 128, "method.momentum": 0.97},
    "tfc": QUICK,
    "lejepa": {
        **QUICK,
        "method.hidden": 512,
        "method.dim": 64,
        "method.slices": 256,
        "method.local_views": 2,
    },
    "msn": {
        **QUICK,
        "method.prototypes": 256,
        "method.hidden": 512,
        "method.dim": 64,
        "method.local_views": 2,
        "method.momentum": 0.98,
        "optim.weight_decay_end": 0.01,
    },
    "simmim": {"optim.lr": 4e-3},
    "beit": {"method.codes": 256, "method.hidden": 128, "optim.lr": 2e-2},
    "maskfeat": {"optim.lr": 4e-3, "optim.clip": 1.0},
    "igpt": {"method.clusters": 128, "method.upper": 2, "optim.lr": 4e-3},
    "jigsaw": {"optim.lr": 4e-3},
    "cpc": {"method.dim": 64, "optim.lr": 4e-3},
    "rotation": QUICK,
    "relativeposition": QUICK,
    "colorization": QUICK,
    "inpainting": QUICK,
    "data2vec": {
        "method.layers": 2,
        "method.momentum": 0.99,
        "optim.lr": 2e-2,
    },
    "ibot": NAMED_PLACES,
    "dinov2": NAMED_PLACES,
    "dino": {
        "method.prototypes": 1024,
        "method.hidden": 512,
        "method.dim": 64,
        "method.head_norm": True,
        "method.local_views": 2,
        "method.momentum": 0.98,
        "method.teacher_temperature_end": 0.04,
        "optim.name": "muon",
        "optim.lr": 1e-2,
        "optim.weight_decay": 0.01,
        "optim.weight_decay_end": 0.01,
    },
    "wav2vec2": {
        "method.span": 4,
        "method.codes": 64,
        "method.dim": 64,
        "optim.lr": 4e-3,
    },
    "hubert": {
        "method.span": 4,
        "method.clusters": 64,
        "method.dim": 64,
        "optim.lr": 4e-3,
    },
    "mae": {
        "method.decoder_dim": 96,
        "method.decoder_depth": 1,
        "method.decoder_heads": 3,
        "optim.lr": 4e-3,
    },
    "jepa": {
        "method.predictor_dim": 96,
        "method.predictor_depth": 2,
        "method.predictor_heads": 3,
        "method.momentum": 0.98,
        "optim.lr": 3.2e-2,
        "optim.weight_decay_end": 0.04,
        "optim.warmup": 0.1,
    },
    "text.simclr": {
        "method.hidden": 256,
        "optim.name": "adamw",
        "optim.lr": 2e-3,
        "optim.weight_decay": 0.01,
        "optim.betas": (0.9, 0.99),
    },
    "mlm": {"optim.lr": 3e-3},
    "protein.mlm": {"optim.name": "muon", "optim.lr": 1.6e-2, "optim.final": 0.0},
    "clip": {"optim.lr": 2e-3},
    "mdlm": {
        "optim.name": "muon",
        "optim.lr": 1.6e-2,
        "optim.per": 64,
        "optim.betas": (0.9, 0.99),
    },
    "simcse": {"optim.lr": 1e-3},
    "clm": {"optim.name": "muon", "optim.lr": 1.6e-2, "optim.final": 0.0},
}

# Recipes in which pretraining by a modality's default method helped, with every seed
HELPED: dict[str, tuple[str, ...]] = {
    "audio.simclr": ("spoken_digits",),
    "network.graphmae": ("cora", "citeseer"),
    "protein.mlm": ("flip-structure-mlm",),
    "series.ts2vec": ("basicmotions",),
    "text.simclr": ("ag-news", "ohsumed"),
    "trajectory.world_model": ("rooms-world-model",),
    "video.simclr": ("fights",),
}

# What a method needs for a kind of data on any machine, and why
ALIKE = "neighbouring frames hold nearly the same"
SUITED: dict[str, tuple[str, dict[str, Any]]] = {
    "video.mae": (ALIKE, {"method.mask": "tube", "method.ratio": 0.9}),
    # V-JEPA: short blocks, and long ones; what is seen is all the rest
    "video.jepa": (
        ALIKE,
        {
            "method.blocks": 8,
            "method.scale": (0.15, 0.15),
            "method.context": (1.0, 1.0),
            "method.long_blocks": 2,
            "method.error": "l1",
        },
    ),
    "protein.mlm": ("of residues ESM-2 hides 15 %, BERT's share", {"method.ratio": 0.15}),
}
