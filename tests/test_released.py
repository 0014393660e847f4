"""Teachers from folders: what they see is what they learned to see, and odd folders are told."""

import json
import sys

import numpy as np
import pytest
import small_encoder
import torch
from torch.nn.functional import interpolate

import selfsup
from selfsup import modalities, released
from selfsup.errors import SelfsupError
from selfsup.load import load, load_method
from selfsup.run import Run

X = torch.rand(2, 3, 12, 12)  # in [0, 1], before any scale


@pytest.fixture
def pictures():
    return modalities.find("image")()


def shown(modality):
    """X as the modality scales it."""
    mean, std = (torch.tensor(part)[:, None, None] for part in (modality.mean, modality.std))
    return (X - mean) / std


def known(mean, std, side):
    """X as a teacher has learned to see it."""
    x = (X - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]
    return interpolate(x, (side, side), mode="bilinear", antialias=True, align_corners=False)


def refused(code, *arguments):
    with pytest.raises(SelfsupError) as caught:
        released.find(*arguments)
    assert caught.value.code == code, caught.value
    return str(caught.value)


def test_an_export_sees_its_own_scale_and_resolution(tmp_path, pictures):
    made = small_encoder.export(tmp_path)
    before = torch.get_rng_state()
    teacher = released.find(str(tmp_path), pictures, 12)
    assert torch.equal(torch.get_rng_state(), before)
    card = load(tmp_path).card
    expected = made.features(known(card.mean, card.std, card.size))
    torch.testing.assert_close(teacher(shown(pictures), made.grid), expected)
    assert teacher.dim == made.dim


def test_a_clip_is_resized_picture_by_picture():
    clip = torch.randn(2, 3, 4, 8, 8)
    assert released.resized(clip, 8) is clip
    for side in (16, 3):
        found = released.resized(clip, side)
        assert found.shape == (2, 3, 4, side, side)
        one = interpolate(clip[:, :, 2], (side, side), mode="bilinear", antialias=True)
        torch.testing.assert_close(found[:, :, 2], one)


def test_folders_that_cannot_teach(tmp_path, pictures):
    assert "no folder" in refused("E601", str(tmp_path / "nothing"), pictures, 16)
    small_encoder.export(tmp_path / "a")
    told = refused("E202", str(tmp_path / "a"), modalities.find("video")(), 16)
    assert "image data" in told
    lab = modalities.find("image")(colour="lab")
    assert "scale" in refused("E202", str(tmp_path / "a"), lab, 16)
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "config.json").write_text("{")
    assert "JSON" in refused("E602", str(tmp_path / "b"), pictures, 16)
    for content in ({"architecture": "resnet18"}, {"model_type": "vit"}):
        (tmp_path / "b" / "config.json").write_text(json.dumps(content))
        assert "pictures alone" in refused(
            "E202", str(tmp_path / "b"), modalities.find("series")(), 16
        )
        assert "are lab" in refused("E202", str(tmp_path / "b"), lab, 16)


@pytest.mark.parametrize(
    ("name", "package", "extra"), [("timm:x", "timm", "timm"), ("hf:x/y", "transformers", "hf")]
)
def test_a_missing_package_is_told_with_its_line(name, package, extra, pictures, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    assert f"pip install 'selfsup[{extra}]'" in refused("E204", name, pictures, 16)


def test_looking_at_a_run_fetches_nothing(pictures, monkeypatch):
    monkeypatch.setitem(released.FETCHED, "timm", lambda *rest: pytest.fail("fetched"))
    with pytest.raises(SelfsupError, match="training alone"):
        released.find("timm:resnet18", pictures, 16, fetch=False)


def test_what_cannot_be_fetched_is_told(pictures, monkeypatch):
    def offline(name, modality):
        raise OSError("no connection\nand much more")

    monkeypatch.setitem(released.FETCHED, "hf", offline)
    told = refused("E601", "hf:owner/name", pictures, 16)
    assert "no connection" in told and "much more" not in told


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "resnet10t"])
def test_a_model_that_timm_saved(name, tmp_path, pictures):
    timm = pytest.importorskip("timm")
    size = {"img_size": 32} if name.startswith("vit") else {}
    model = timm.create_model(name, num_classes=5, **size).eval()
    timm.models.save_for_hf(model, tmp_path, safe_serialization=True, model_args=size)
    before = torch.get_rng_state()
    teacher = released.find(str(tmp_path), pictures, 12)
    assert torch.equal(torch.get_rng_state(), before)
    told = model.pretrained_cfg
    side = 32 if size else told["input_size"][-1]
    with torch.no_grad():
        expected = model.forward_features(known(told["mean"], told["std"], side))
    if size:
        expected = expected[:, 1:]  # without the class token
        grid = (2, 2)
    else:
        grid, expected = tuple(expected.shape[2:]), expected.flatten(2).transpose(1, 2)
    found = teacher(shown(pictures), grid)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    assert teacher.dim == found.shape[-1]
    (tmp_path / "model.safetensors").unlink()
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    assert "safetensors" in refused("E601", str(tmp_path), pictures, 12)


TINY = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
        "intermediate_size": 32}  # fmt: skip
SEEN = {"image_size": 16, "patch_size": 4}


@pytest.mark.parametrize("kind", ["vit", "resnet", "clip", "swin"])
def test_a_model_that_transformers_saved(kind, tmp_path, pictures):
    package = pytest.importorskip("transformers")
    side, grid = 16, (4, 4)
    if kind == "vit":
        model = package.ViTModel(package.ViTConfig(**TINY, **SEEN))
    elif kind == "clip":  # for pictures and texts
        config = package.CLIPConfig(text_config=TINY | {"vocab_size": 9}, vision_config=TINY | SEEN)
        model = package.CLIPModel(config)
    elif kind == "swin":  # with fewer tokens than patches
        config = package.SwinConfig(**SEEN, embed_dim=8, depths=[1, 1], num_heads=[1, 2],
                                    window_size=2)  # fmt: skip
        model = package.SwinModel(config)
    else:
        config = package.ResNetConfig(hidden_sizes=[8, 16], depths=[1, 1], embedding_size=8,
                                      layer_type="basic")  # fmt: skip
        model, side = package.ResNetModel(config), 32
    model.eval()
    model.save_pretrained(tmp_path)
    mean, std = [0.5, 0.4, 0.3], [0.2, 0.3, 0.4]
    assert "image processor" in refused("E601", str(tmp_path), pictures, 12)
    told = {"image_mean": mean, "image_std": std, "size": {"height": side, "width": side}}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(told))
    teacher = released.find(str(tmp_path), pictures, 12)
    if kind == "swin":
        with pytest.raises(SelfsupError, match="cannot teach"):
            teacher(shown(pictures), grid)
        return
    eye = model.vision_model if kind == "clip" else model
    with torch.no_grad():
        expected = eye(pixel_values=known(mean, std, side)).last_hidden_state
    expected = expected.flatten(2).transpose(1, 2) if kind == "resnet" else expected[:, 1:]
    torch.testing.assert_close(teacher(shown(pictures), grid), expected, atol=1e-4, rtol=1e-4)
    assert teacher.dim == 16


def test_a_run_learns_from_a_teacher_and_is_loaded_again(tmp_path, monkeypatch):
    monkeypatch.setenv("SELFSUP_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    small_encoder.export(tmp_path / "teacher")
    data = np.random.default_rng(0).integers(0, 256, (16, 8, 8, 3), np.uint8)
    run = selfsup.pretrain(
        data,
        method={"name": "distill", "teacher": "teacher"},
        encoder={"name": "resnet18", "width": 0.125},
        resolution=8, steps=2, batch=8, out="run", quiet=True,
    )  # fmt: skip
    assert str(tmp_path / "teacher") in (run.path / "resolved.toml").read_text()
    monkeypatch.chdir("/")
    found = load(Run.open(tmp_path / "run").path)
    method, trained = load_method(tmp_path / "run", found.card, found.modality)
    assert trained and method.teacher.side == 16
