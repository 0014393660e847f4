"""lightly's steps for SimCLR, DINO and MAE, as its examples have them.

    python lightly_steps.py simclr|dino|mae default|tuned FOLDER

Model, views and batch are those of ../cases.py. "default" is the example as written, in float32;
"tuned" adds bfloat16 autocast, channels_last for convolutions and the fused AdamW.
"""

import copy
import sys

import common
import lightly
import timm
import torch
import torchvision
from lightly.loss import DINOLoss, NTXentLoss
from lightly.models import utils
from lightly.models.modules import (
    DINOProjectionHead,
    MAEDecoderTIMM,
    MaskedVisionTransformerTIMM,
    SimCLRProjectionHead,
)
from lightly.transforms import DINOTransform, MAETransform, SimCLRTransform
from lightly.utils.scheduler import cosine_schedule
from torch import nn


def main(case: str, kind: str, folder: str) -> None:
    torch.manual_seed(0)
    tuned = kind == "tuned"
    transform, batch, step = {"simclr": simclr, "dino": dino, "mae": mae}[case](tuned)
    common.report(
        step,
        common.loader(common.pictures(folder, transform), batch),
        batch,
        version=lightly.__version__,
    )


def simclr(tuned: bool):
    backbone = torchvision.models.resnet18()
    backbone.conv1 = nn.Conv2d(3, 64, 3, 1, 1, bias=False)  # the stem for small pictures
    backbone.maxpool = backbone.fc = nn.Identity()
    model = nn.Sequential(backbone, SimCLRProjectionHead(512, 2048, 128))
    if tuned:
        model.to(memory_format=torch.channels_last)
    criterion = NTXentLoss(temperature=0.2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.06)

    def step(batch):
        x0, x1 = (laid_out(x, tuned) for x in batch[0])
        with common.half(tuned):
            loss = criterion(model(x0), model(x1))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    transform = SimCLRTransform(input_size=32, cj_strength=0.5, min_scale=0.2, gaussian_blur=0.0)
    return transform, 256, step


class Dino(nn.Module):
    def __init__(self):
        super().__init__()
        self.student_backbone = timm.create_model(
            "vit_tiny_patch16_224", num_classes=0, dynamic_img_size=True
        )
        self.student_head = DINOProjectionHead(192, 2048, 256, 65536, freeze_last_layer=1)
        self.teacher_backbone = copy.deepcopy(self.student_backbone)
        self.teacher_head = DINOProjectionHead(192, 2048, 256, 65536)
        utils.deactivate_requires_grad(self.teacher_backbone)
        utils.deactivate_requires_grad(self.teacher_head)

    def forward(self, x):
        return self.student_head(self.student_backbone(x).flatten(start_dim=1))

    def forward_teacher(self, x):
        return self.teacher_head(self.teacher_backbone(x).flatten(start_dim=1))


def dino(tuned: bool):
    model = Dino()
    criterion = DINOLoss(output_dim=65536, warmup_teacher_temp_epochs=5)
    optimizer = adamw(model, tuned, lr=0.001)
    model.train()

    def step(batch):
        views = batch[0]
        momentum = cosine_schedule(0, 10, 0.996, 1)
        utils.update_momentum(model.student_backbone, model.teacher_backbone, m=momentum)
        utils.update_momentum(model.student_head, model.teacher_head, m=momentum)
        with common.half(tuned):
            teacher_out = [model.forward_teacher(view) for view in views[:2]]
            student_out = [model.forward(view) for view in views]
            loss = criterion(teacher_out, student_out, epoch=1)
        loss.backward()
        model.student_head.cancel_last_layer_gradients(current_epoch=1)
        optimizer.step()
        optimizer.zero_grad()

    return DINOTransform(), 32, step


class Mae(nn.Module):
    def __init__(self):
        super().__init__()
        vit = timm.create_model("vit_small_patch16_224")
        self.mask_ratio, self.patch_size = 0.75, 16
        self.backbone = MaskedVisionTransformerTIMM(vit=vit)
        self.sequence_length = self.backbone.sequence_length
        self.decoder = MAEDecoderTIMM(
            num_patches=vit.patch_embed.num_patches,
            patch_size=16,
            embed_dim=vit.embed_dim,
            decoder_embed_dim=512,
            decoder_depth=8,
            decoder_num_heads=16,
        )

    def forward_decoder(self, x_encoded, idx_keep, idx_mask):
        batch_size = len(x_encoded)
        x_decode = self.decoder.embed(x_encoded)
        x_masked = utils.repeat_token(self.decoder.mask_token, (batch_size, self.sequence_length))
        x_masked = utils.set_at_index(x_masked, idx_keep, x_decode.type_as(x_masked))
        x_decoded = self.decoder.decode(x_masked)
        return self.decoder.predict(utils.get_at_index(x_decoded, idx_mask))

    def forward(self, images):
        idx_keep, idx_mask = utils.random_token_mask(
            size=(len(images), self.sequence_length), mask_ratio=self.mask_ratio
        )
        x_encoded = self.backbone.encode(images=images, idx_keep=idx_keep)
        x_pred = self.forward_decoder(x_encoded, idx_keep, idx_mask)
        patches = utils.patchify(images, self.patch_size)
        return x_pred, utils.get_at_index(patches, idx_mask - 1)


def mae(tuned: bool):
    model = Mae()
    criterion = nn.MSELoss()
    optimizer = adamw(model, tuned, lr=1.5e-4)

    def step(batch):
        with common.half(tuned):
            predictions, targets = model(batch[0][0])
            loss = criterion(predictions, targets)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return MAETransform(), 64, step


def adamw(model, tuned: bool, lr: float):
    trained = [p for p in model.parameters() if p.requires_grad]
    return torch.optim.AdamW(trained, lr=lr, fused=True if tuned else None)


def laid_out(x, tuned: bool):
    return x.contiguous(memory_format=torch.channels_last) if tuned else x


if __name__ == "__main__":
    main(*sys.argv[1:])
