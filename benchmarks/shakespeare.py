"""nanoGPT's case for processors, tiny Shakespeare by characters, here and by its recipe.

    SELFSUP_DATA=... python -m benchmarks.shakespeare --seeds 0,1

The yardstick is what nanoGPT documents for a processor (its README: 4 layers of 128, 4 heads,
context 64, 2,000 steps of 12 windows, no dropout; AdamW from 1e-3 to 1e-4, betas 0.9 and 0.99,
warm-up 100, clipping at 1; validation loss 1.88), in float32 on PyTorch's own layers. Its clock
runs for its steps alone. Here the clock runs for a whole process that calls `selfsup.pretrain`,
from its start to its end, with the settings of recipes.tinyshakespeare: once for its 300 steps,
once for the minutes that the yardstick took. The loss is the mean over the last tenth of the plays,
cut into windows of 64. The runs take turns, and nothing else should run beside them.
"""

import argparse
import json
import math
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recipes import tinyshakespeare
from selfsup.evaluate.perplexity import evaluate_task

DEPTH, WIDTH, HEADS, CONTEXT, BATCH, STEPS = 4, 128, 4, 64, 12, 2000
RATE, LAST, WARM = 1e-3, 1e-4, 100


class GPT(nn.Module):
    """GPT-2's form: learned positions, norms before, the head shares the embedding's weights."""

    def __init__(self, kinds: int):
        super().__init__()
        self.tokens, self.places = nn.Embedding(kinds, WIDTH), nn.Embedding(CONTEXT, WIDTH)
        layer = nn.TransformerEncoderLayer(
            WIDTH, HEADS, 4 * WIDTH, 0.0, "gelu", batch_first=True, norm_first=True, bias=False
        )
        self.layers = nn.TransformerEncoder(
            layer, DEPTH, nn.LayerNorm(WIDTH, bias=False), enable_nested_tensor=False
        )
        self.register_buffer("later", nn.Transformer.generate_square_subsequent_mask(CONTEXT))
        for name, weight in self.named_parameters():
            if weight.dim() > 1:
                out = name.endswith(("out_proj.weight", "linear2.weight"))
                nn.init.normal_(weight, std=0.02 / math.sqrt(2 * DEPTH) if out else 0.02)

    def forward(self, x: Tensor) -> Tensor:
        n = x.shape[1]
        x = self.tokens(x) + self.places.weight[:n]
        x = self.layers(x, mask=self.later[:n, :n], is_causal=True)
        return F.linear(x, self.tokens.weight)

    def loss(self, windows: Tensor) -> Tensor:
        return F.cross_entropy(self(windows[:, :-1]).flatten(0, 1), windows[:, 1:].flatten())


def yardstick(train: Path, new: Path, seed: int) -> dict[str, float]:
    """Seconds of its 2,000 steps and the loss on new text."""
    torch.manual_seed(seed)
    plays, unseen = train.read_text("utf-8"), new.read_text("utf-8")
    number = {letter: i for i, letter in enumerate(sorted(set(plays + unseen)))}
    text = torch.tensor([number[letter] for letter in plays])
    model = GPT(len(number))
    matrices = [p for p in model.parameters() if p.dim() > 1]
    others = [p for p in model.parameters() if p.dim() == 1]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=RATE, betas=(0.9, 0.99))
    start = time.perf_counter()
    for step in range(STEPS):
        part = (step - WARM) / (STEPS - WARM)
        cosine = LAST + (RATE - LAST) * (1 + math.cos(math.pi * part)) / 2
        for group in optimizer.param_groups:
            group["lr"] = RATE * step / WARM if step < WARM else cosine
        first = torch.randint(len(text) - CONTEXT, (BATCH,))
        model.loss(torch.stack([text[i : i + CONTEXT + 1] for i in first])).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    seconds = time.perf_counter() - start
    tested = torch.tensor([number[letter] for letter in unseen])
    windows = tested[: (len(tested) - 1) // CONTEXT * CONTEXT + 1].unfold(0, CONTEXT + 1, CONTEXT)
    with torch.no_grad():
        loss = np.mean([float(model.eval().loss(part)) for part in windows.split(200)])
    return {"seconds": seconds, "loss": float(loss)}


def here(train: Path, new: Path, seed: int, **length: float) -> dict[str, float]:
    """Seconds of a whole process that pretrains, and the loss on new text."""
    program = "import json, sys, selfsup; selfsup.pretrain(**json.loads(sys.argv[1]))"
    with tempfile.TemporaryDirectory() as folder:
        asked = {"data": str(train), "out": f"{folder}/run", "seed": seed, "quiet": True, **length}
        words = json.dumps({**tinyshakespeare.SETTINGS, **asked})
        start = time.perf_counter()
        subprocess.run([sys.executable, "-c", program, words], check=True)
        seconds = time.perf_counter() - start
        told = evaluate_task(f"{folder}/run", new, seed=seed).to_json()
    return {"seconds": seconds, "loss": told["scores"][0]["loss"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", default="0,1")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    train, new = tinyshakespeare.parts()
    found = []
    for seed in map(int, given.seeds.split(",")):
        theirs = yardstick(train, new, seed)
        rows = {
            "nanoGPT's recipe": theirs,
            "here": here(train, new, seed, steps=tinyshakespeare.STEPS),
            "here, as long": here(train, new, seed, minutes=theirs["seconds"] / 60),
        }
        found += [{"of": name, "seed": seed, **row} for name, row in rows.items()]
        if not given.json:
            for name, row in rows.items():
                share = row["seconds"] / theirs["seconds"]
                print(f"{name:<17} seed {seed}: {row['seconds']:6.1f} s ({share:.2f} of its time), "
                      f"validation loss {row['loss']:.3f}", flush=True)  # fmt: skip
    if given.json:
        print(json.dumps({"runs": found}))


if __name__ == "__main__":
    main()
