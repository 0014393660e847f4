"""An encoder comes back as it was, or with an error that says why not: no file is trusted."""

import json
import os
import struct
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import small_encoder
import torch
from PIL import Image
from safetensors.numpy import load_file, save_file

import selfsup
from selfsup.checkpoint import Checkpoints
from selfsup.errors import SelfsupError
from selfsup.load import Card, LoadedEncoder, load, rebuild
from selfsup.machine import peak_memory
from selfsup.modalities import find


@pytest.fixture
def exported(tmp_path):
    made = small_encoder.export(tmp_path / "export")
    return tmp_path / "export", made


def refused(folder, code):
    with pytest.raises(SelfsupError) as caught:
        load(folder)
    assert caught.value.code == code, caught.value
    return str(caught.value)


def test_what_was_saved_comes_back(exported):
    folder, made = exported
    encoder = load(folder)
    x = torch.randn(3, 3, 16, 16)
    assert torch.equal(encoder(x), made(x)) and not encoder.training
    assert encoder.dim == 64 and encoder.size == 16 and encoder.features(x).shape[-1] == 64
    assert encoder.modality.mean == (0.4, 0.5, 0.6)  # the card's, not the class's
    assert type(encoder.modality).mean != (0.4, 0.5, 0.6)
    assert selfsup.load is not None and "resnet18" in repr(encoder)


def test_the_newest_whole_checkpoint_of_a_run_is_taken(tmp_path):
    small_encoder.run(tmp_path, step=10, seed=1)
    newer = small_encoder.run(tmp_path, step=20, seed=2)
    x = torch.randn(2, 3, 16, 16)
    assert torch.equal(load(tmp_path)(x), newer(x))
    assert torch.equal(load(tmp_path / "checkpoints/step-000010")(x), small_encoder.network(
        "resnet18", 16, 1, width=0.125)(x))  # fmt: skip
    weights = tmp_path / "checkpoints/step-000020/encoder.safetensors"
    content = bytearray(weights.read_bytes())
    content[-3] ^= 1
    weights.write_bytes(content)
    older = small_encoder.network("resnet18", 16, 1, width=0.125)
    assert torch.equal(load(tmp_path)(x), older(x))
    assert weights.exists()  # a reader changes nothing


def test_vectors_of_paths_arrays_and_folders_agree(exported, tmp_path):
    encoder = load(exported[0])
    generator = np.random.default_rng(0)
    pictures = generator.integers(0, 255, (5, 16, 16, 3)).astype(np.uint8)
    paths = [tmp_path / "pictures" / f"{i}.png" for i in range(5)]
    paths[0].parent.mkdir()
    for path, picture in zip(paths, pictures, strict=True):
        Image.fromarray(picture).save(path)
    found = encoder.embed(pictures, precision="fp32")
    assert found.shape == (5, 64) and found.dtype == np.float32
    np.testing.assert_array_equal(found, encoder.embed(paths, precision="fp32"))
    np.testing.assert_array_equal(found, encoder.embed(paths[0].parent, precision="fp32"))
    # a batch of another size is multiplied in another order
    np.testing.assert_allclose(found[:1], encoder.embed(paths[0], precision="fp32"), atol=1e-5)
    small = encoder.embed(pictures, precision="fp32", batch=2)
    np.testing.assert_allclose(found, small, atol=1e-5)
    x = torch.stack([encoder.preprocess(p) for p in (paths[0], pictures[1], Image.open(paths[2]))])
    np.testing.assert_allclose(encoder(x).detach().numpy(), found[:3], atol=1e-5)


def test_bfloat16_is_close(exported):
    encoder = load(exported[0])
    pictures = np.random.default_rng(0).integers(0, 255, (8, 16, 16, 3)).astype(np.uint8)
    exact, fast = (encoder.embed(pictures, precision=p) for p in ("fp32", "bf16"))
    assert not np.array_equal(exact, fast)
    assert np.abs(exact - fast).max() < 0.03 * np.abs(exact).max()
    assert next(encoder.parameters()).dtype == torch.float32  # the encoder itself is left alone


def test_a_sample_that_cannot_be_read_is_an_error_not_a_missing_row(exported, tmp_path):
    encoder = load(exported[0])
    (tmp_path / "a.png").write_bytes(b"")
    with pytest.raises(SelfsupError) as caught:
        encoder.embed([tmp_path / "a.png"])
    assert caught.value.code == "E103" and "a.png" in caught.value.what
    with pytest.raises(SelfsupError) as caught:
        encoder.embed([tmp_path / "absent.png", tmp_path / "a.png"])
    assert caught.value.code == "E103" and "absent.png" in caught.value.what
    with pytest.raises(SelfsupError) as caught:
        encoder.preprocess(b"no picture")
    assert caught.value.code == "E103"


def test_untrained_networks_follow_their_seed_and_leave_the_random_state(exported):
    encoder = load(exported[0])
    torch.manual_seed(5)
    state = torch.random.get_rng_state()
    one, again, two = encoder.untrained(1), encoder.untrained(1), encoder.untrained(2)
    assert torch.equal(state, torch.random.get_rng_state())
    assert one.fingerprint() == again.fingerprint() != two.fingerprint()
    assert one.fingerprint() != encoder.fingerprint()


# ---- folders that a stranger made ----------------------------------------------------------------


def test_nothing_there(tmp_path):
    refused(tmp_path / "absent", "E601")
    refused(tmp_path, "E601")
    Checkpoints(tmp_path / "checkpoints").save(1, {"encoder": {}}, {})
    assert "encoder.json" in refused(tmp_path, "E601")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"format": 2}, "format"),
        ({"modality": "os.system"}, "modality"),
        ({"modality": "nothing"}, "no modality"),
        ({"name": "../resnet18"}, "name"),
        ({"name": "system"}, "no encoder"),
        ({"size": 0}, "size"),
        ({"size": True}, "size"),
        ({"size": 1e3}, "size"),
        ({"size": 10**9}, "size"),
        ({"kwargs": {"_target_": "os.system"}}, "no encoder can be built"),
        ({"kwargs": {"width": 1e9}}, "width"),
        ({"kwargs": {"width": float("inf")}}, "width"),
        ({"kwargs": {"width": "wide"}}, "no encoder can be built"),
        ({"kwargs": []}, "kwargs"),
        ({"name": "vit_tiny", "kwargs": {"depth": 10**6}}, "depth"),
        ({"name": "vit_tiny", "kwargs": {"patch": 5}}, "do not tile"),
        ({"mean": [0.5]}, "means"),
        ({"mean": ["0.5"] * 3}, "mean"),
        ({"std": [0.0] * 3}, "std"),
        ({"std": [float("nan")] * 3}, "std"),
    ],
)
def test_a_card_that_is_not_valid(exported, change, told):
    folder, _ = exported
    card = json.loads((folder / "encoder.json").read_text())
    (folder / "encoder.json").write_text(json.dumps(card | change))
    assert told in refused(folder, "E602")


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"{", b"\xff\xfe", b"[" * 100_000, b" " * (1 << 20) + b"{}"]
)
def test_a_card_that_is_no_card(exported, content):
    (exported[0] / "encoder.json").write_bytes(content)
    refused(exported[0], "E602")


def test_a_card_keeps_what_it_says():
    told = small_encoder.describe("vit_tiny", 32, patch=4, cls=True, pool="cls")
    assert Card.parse(told).to_json() == told


def header(folder):
    content = (folder / "encoder.safetensors").read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    return json.loads(content[8 : 8 + length]), content[8 + length :]


def rewrite(folder, told, data, length=None):
    text = json.dumps(told).encode()
    size = struct.pack("<Q", len(text) if length is None else length)
    (folder / "encoder.safetensors").write_bytes(size + text + data)


def test_headers_that_lie(exported):
    folder, _ = exported
    told, data = header(folder)
    for length in (0, 1 << 62, (1 << 64) - 1, len(json.dumps(told)) + len(data) + 1):
        rewrite(folder, told, data, length)
        refused(folder, "E603")
    name = "conv1.weight"
    overlapping = {k: dict(v) for k, v in told.items()}
    overlapping[name]["data_offsets"] = overlapping["bn1.weight"]["data_offsets"]
    rewrite(folder, overlapping, data)
    refused(folder, "E603")
    outside = {k: dict(v) for k, v in told.items()}
    outside[name]["data_offsets"] = [len(data), len(data) + 1728]
    rewrite(folder, outside, data)
    refused(folder, "E603")
    rewrite(folder, told, data[:-10])
    refused(folder, "E603")
    (folder / "encoder.safetensors").write_bytes(b"")
    refused(folder, "E603")


def test_weights_of_something_else(exported):
    folder, _ = exported
    whole = load_file(folder / "encoder.safetensors")
    part = dict(whole)
    del part["conv1.weight"]
    save_file(part, folder / "encoder.safetensors")
    assert "conv1.weight" in refused(folder, "E603")
    save_file(whole | {"extra": np.zeros(2, np.float32)}, folder / "encoder.safetensors")
    assert "'extra'" in refused(folder, "E603")
    save_file(whole | {"bn1.weight": np.zeros(9, np.float32)}, folder / "encoder.safetensors")
    assert "bn1.weight is (9,)" in refused(folder, "E603")
    save_file(whole | {"bn1.weight": np.zeros(8, np.int64)}, folder / "encoder.safetensors")
    assert "type" in refused(folder, "E603")
    bad = whole["bn1.weight"].copy()
    bad[0] = np.nan
    save_file(whole | {"bn1.weight": bad}, folder / "encoder.safetensors")
    assert "not finite" in refused(folder, "E603")


def test_a_card_that_promises_much_more_than_the_file_costs_no_memory(exported):
    folder, _ = exported
    card = small_encoder.describe("vit_base", 16, dim=49152, depth=24, heads=4096)
    (folder / "encoder.json").write_text(json.dumps(card))
    with suppress(OSError):  # the peak of this process begins anew
        Path("/proc/self/clear_refs").write_text("5")
    before = peak_memory()
    refused(folder, "E603")
    assert peak_memory() - before < 200e6


@pytest.mark.parametrize("name", ["encoder.json", "encoder.safetensors"])
def test_links_out_of_the_folder_and_pipes_are_not_opened(exported, tmp_path, name):
    folder, _ = exported
    (folder / name).rename(tmp_path / "outside")
    (folder / name).symlink_to(tmp_path / "outside")
    assert "leads out of the folder" in refused(folder, "E603")
    (folder / name).unlink()
    os.mkfifo(folder / name)
    refused(folder, "E603")  # a pipe would wait for ever


def test_pickles_are_not_read(exported, tmp_path):
    folder, _ = exported
    marker = tmp_path / "touched"

    class Payload:
        def __reduce__(self):
            return os.system, (f"touch {marker}",)

    torch.save({"conv1.weight": Payload()}, folder / "encoder.safetensors")
    refused(folder, "E603")
    assert not marker.exists()


def test_an_encoder_of_pixels_writes_no_text():
    modality = find("image")()
    shape = {"dim": 16, "depth": 1, "heads": 2, "causal": True}
    card = Card("image", "vit_tiny", 8, shape, modality.mean, modality.std, "igpt")
    with pytest.raises(SelfsupError, match="E202"):
        selfsup.generate(LoadedEncoder(rebuild(card, modality, 0), card, modality))
