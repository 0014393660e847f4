"""Encoders by timm's names: what timm computes from them is what they compute here."""

import importlib.util
import json
from types import SimpleNamespace

import pytest
import small_encoder
import torch
from torch.nn import functional as F

import selfsup
from selfsup import layouts
from selfsup.encoder import build
from selfsup.errors import SelfsupError

# state_dict of timm 1.0.31: VisionTransformer(img_size=8, patch_size=4, embed_dim=192, depth=1,
# num_heads=3, reg_tokens=2, no_embed_class=True, num_classes=0, fc_norm=False)
NAMES = {
    "cls_token": (1, 1, 192),
    "reg_token": (1, 2, 192),
    "pos_embed": (1, 4, 192),
    "patch_embed.proj.weight": (192, 3, 4, 4),
    "patch_embed.proj.bias": (192,),
    "blocks.0.norm1.weight": (192,),
    "blocks.0.norm1.bias": (192,),
    "blocks.0.attn.qkv.weight": (576, 192),
    "blocks.0.attn.qkv.bias": (576,),
    "blocks.0.attn.proj.weight": (192, 192),
    "blocks.0.attn.proj.bias": (192,),
    "blocks.0.norm2.weight": (192,),
    "blocks.0.norm2.bias": (192,),
    "blocks.0.mlp.fc1.weight": (768, 192),
    "blocks.0.mlp.fc1.bias": (768,),
    "blocks.0.mlp.fc2.weight": (192, 768),
    "blocks.0.mlp.fc2.bias": (192,),
    "norm.weight": (192,),
    "norm.bias": (192,),
}


def made(name, size, **keywords):
    torch.manual_seed(0)
    network = build(name, size, **keywords).eval()
    for parameter in network.parameters():
        parameter.data += 0.05 * torch.randn_like(parameter)
    card = SimpleNamespace(
        name=name, size=size, kwargs=keywords, mean=(0.5,) * 3, std=(0.2,) * 3, options={}
    )
    return SimpleNamespace(encoder=network, card=card)


def as_timm_has_it(w, x, heads, cls, pool):
    """A ViT by timm's names, as its paper has it."""
    x = F.conv2d(x, w["patch_embed.proj.weight"], w["patch_embed.proj.bias"], stride=4)
    x = x.flatten(2).transpose(1, 2) + w["pos_embed"]
    prefix = [w[key].expand(len(x), -1, -1) for key in ("cls_token", "reg_token") if key in w]
    x = torch.cat([*prefix, x], 1)
    d = x.shape[-1]
    for i in range(sum(key.endswith("qkv.weight") for key in w)):
        b = {
            key[len(f"blocks.{i}.") :]: v for key, v in w.items() if key.startswith(f"blocks.{i}.")
        }
        y = F.layer_norm(x, (d,), b["norm1.weight"], b["norm1.bias"], 1e-6)
        q, k, v = F.linear(y, b["attn.qkv.weight"], b["attn.qkv.bias"]).chunk(3, -1)
        q, k, v = (t.unflatten(-1, (heads, -1)).transpose(1, 2) for t in (q, k, v))
        y = (q @ k.transpose(-1, -2) / (d // heads) ** 0.5).softmax(-1) @ v
        y = y.transpose(1, 2).flatten(2)
        x = x + F.linear(y, b["attn.proj.weight"], b["attn.proj.bias"])
        y = F.layer_norm(x, (d,), b["norm2.weight"], b["norm2.bias"], 1e-6)
        y = F.gelu(F.linear(y, b["mlp.fc1.weight"], b["mlp.fc1.bias"]))
        x = x + F.linear(y, b["mlp.fc2.weight"], b["mlp.fc2.bias"])
    x = F.layer_norm(x, (d,), w["norm.weight"], w["norm.bias"], 1e-6)
    places = x[:, sum(p.shape[1] for p in prefix) :]
    return x[:, 0] if pool == "cls" else places.mean(1)


def test_names_and_shapes_are_those_of_timm():
    weights, config = layouts.timm(made("vit_tiny", 8, depth=1, patch=4, cls=True, registers=2))
    assert {key: tuple(value.shape) for key, value in weights.items()} == NAMES
    told = config["model_args"]
    assert (told["class_token"], told["reg_tokens"], told["global_pool"]) == (True, 2, "avg")


@pytest.mark.parametrize(
    ("cls", "registers", "pool"),
    [(False, 0, "mean"), (False, 2, "mean"), (True, 0, "mean"), (True, 3, "cls")],
)
def test_what_timm_computes_is_the_same(cls, registers, pool):
    own = made("vit_tiny", 16, depth=2, patch=4, cls=cls, registers=registers, pool=pool)
    weights, config = layouts.timm(own)
    x = layouts.inputs(config)
    with torch.inference_mode():
        there = as_timm_has_it(weights, x, config["model_args"]["num_heads"], cls, pool)
        torch.testing.assert_close(own.encoder(x), there, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_a_residual_network_keeps_its_names(name):
    own = made(name, 96, stem=4)
    weights, config = layouts.timm(own)
    assert list(weights) == list(own.encoder.state_dict()) and config["architecture"] == name


@pytest.mark.parametrize(
    ("name", "keywords"),
    [("resnet18", {"width": 0.5, "stem": 4}), ("resnet18", {}), ("vit_tiny", {"causal": True})],
)
def test_what_timm_has_no_class_for_is_refused(name, keywords):
    with pytest.raises(SelfsupError) as caught:
        layouts.timm(made(name, 32, **keywords))
    assert caught.value.code == "E607" and "safetensors" in caught.value.do


def test_the_verb_writes_the_folder_and_says_whether_it_was_compared(tmp_path):
    torch.manual_seed(0)
    small_encoder.export(tmp_path / "encoder", "vit_tiny", depth=2, patch=4, cls=True)
    told = selfsup.export(tmp_path / "encoder", "timm", tmp_path / "out")
    assert {p.name for p in (tmp_path / "out").iterdir()} == {
        "config.json", "model.safetensors", "MANIFEST.json"
    }  # fmt: skip
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["pretrained_cfg"]["input_size"][0] == 3
    if importlib.util.find_spec("timm") is None:
        assert told.max_abs_error is None and "not compared" in str(told)
    else:
        assert told.max_abs_error < 1e-5 and told.compared == 4 * 192


def test_timm_has_no_pictures_in_lab():
    own = made("vit_tiny", 16, depth=1, patch=4)
    own.card.options = {"colour": "lab"}
    with pytest.raises(SelfsupError, match="lab") as caught:
        layouts.timm(own)
    assert caught.value.code == "E607"
