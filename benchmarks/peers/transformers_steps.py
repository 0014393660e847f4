"""MAE pretraining with transformers' ViTMAEForPreTraining, the model of its run_mae.py example.

    python transformers_steps.py mae default|tuned FOLDER

"tuned" adds bfloat16 autocast and the fused AdamW.
"""

import sys

import common
import torch
import transformers
from torchvision import transforms


def main(case: str, kind: str, folder: str) -> None:
    assert case == "mae"
    torch.manual_seed(0)
    tuned = kind == "tuned"
    config = transformers.ViTMAEConfig(
        hidden_size=384, num_attention_heads=6, intermediate_size=1536, norm_pix_loss=True
    )
    model = transformers.ViTMAEForPreTraining(config).train()
    # as run_mae.py
    transform = transforms.Compose(
        [
            transforms.RandomResizedCrop(224, scale=(0.2, 1.0), interpolation=3),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
            transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ]
    )
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=1.5e-4, weight_decay=0.05, fused=True if tuned else None
    )

    def step(batch):
        with common.half(tuned):
            loss = model(pixel_values=batch[0]).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    common.report(step, common.loader(folder, transform, 64), 64, version=transformers.__version__)


if __name__ == "__main__":
    main(*sys.argv[1:])
