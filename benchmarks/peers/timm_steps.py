"""Embedding with timm's ViT in the loop that its documentation shows.

    python timm_steps.py embed default|tuned FOLDER

"tuned" is the faster of bfloat16 autocast and bfloat16 weights.
"""

import sys

import common
import timm
import torch
from torchvision import transforms


def main(case: str, kind: str, folder: str) -> None:
    assert case == "embed"
    torch.manual_seed(0)
    model = timm.create_model("vit_small_patch16_224", num_classes=0).eval()
    normalise = transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    transform = transforms.Compose(
        [transforms.Resize(224), transforms.CenterCrop(224), transforms.ToTensor(), normalise]
    )
    # bfloat16 weights were the faster way of the two on every machine tried
    dtype = torch.bfloat16 if kind == "tuned" else torch.float32
    model.to(dtype)
    vectors = []

    def step(batch):
        with torch.inference_mode():
            vectors.append(model(batch[0].to(dtype)).float())

    common.report(
        step, common.loader(common.pictures(folder, transform), 64), 64, version=timm.__version__
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
