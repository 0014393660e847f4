"""Pictures stay within their budget, and show what they claim to."""

import base64
import io

import numpy as np
import torch
from PIL import Image

from selfsup.report import gallery, pictures

RNG = np.random.default_rng(0)


def decode(uri):
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.split(",")[1]))))


def test_an_album_keeps_to_its_budget():
    album = pictures.Album(budget=20_000)
    noise = RNG.integers(0, 256, (128, 128, 3), np.uint8)
    uris = [album.uri(noise) for _ in range(10)]
    kept = [uri for uri in uris if uri is not None]
    assert 0 < len(kept) < 10 and sum(map(len, kept)) <= 20_000
    assert album.refused == 10 - len(kept)
    assert "no room" in album.image(noise, "noise")


def test_exact_pictures_keep_every_pixel():
    small = RNG.integers(0, 256, (8, 8, 3), np.uint8)
    np.testing.assert_array_equal(decode(pictures.Album().uri(small, exact=True)), small)


def test_large_pictures_are_made_smaller_in_proportion():
    album = pictures.Album()
    assert decode(album.uri(np.zeros((500, 1000, 3), np.uint8))).shape == (64, 128, 3)
    frames = np.zeros((100, 1000, 3), np.uint8)  # side by side: each has some room
    assert decode(album.uri(frames)).shape == (51, 512, 3)
    tile = pictures.Tile(frames, "frames")
    assert "strip wide" in pictures.strip(album, [tile], label="a")
    assert "wide" not in pictures.strip(album, [], label="none")
    assert "wide" not in pictures.grid(album, ["a"], [("none", [])], caption="none")


def test_heat_is_bright_where_the_weight_is():
    weights = np.zeros((4, 4))
    weights[0, 3] = 1.0
    shown = pictures.heat(np.full((32, 32, 3), 128, np.uint8), weights).astype(int).sum(-1)
    assert np.unravel_index(shown.argmax(), shown.shape)[0] < 8
    assert np.unravel_index(shown.argmax(), shown.shape)[1] >= 24
    flat = pictures.heat(np.full((32, 32, 3), 128, np.uint8), np.ones((4, 4)))
    assert len(np.unique(flat.reshape(-1, 3), axis=0)) == 1


def test_patches_of_one_kind_have_one_colour():
    kinds = RNG.normal(size=(3, 20))
    which = RNG.integers(0, 3, (5, 16))
    shown = pictures.as_colours(kinds[which], (4, 4)).reshape(5, 16, 3)
    colours = [np.unique(shown[which == kind], axis=0) for kind in range(3)]
    assert all(len(c) == 1 for c in colours)
    assert len(np.unique(np.concatenate(colours), axis=0)) == 3


def test_principal_components_against_a_singular_value_decomposition():
    x = RNG.normal(size=(50, 8)) * np.arange(1, 9)
    found, share = gallery.principal(x, 2)
    u, s, _ = np.linalg.svd(x - x.mean(0), full_matrices=False)
    np.testing.assert_allclose(np.abs(found), np.abs(u[:, :2] * s[:2]), atol=1e-9)
    np.testing.assert_allclose(share, s[:2] ** 2 / (s**2).sum())


def test_attention_counts_only_patches():
    """Tokens in front (cls, registers) are looked at, too, but are no places."""
    weights = torch.zeros(1, 2, 6, 6)  # cls, register, four patches
    weights[..., 0] = 0.5
    weights[..., 4] = 0.5
    weights[:, :, 0, :] = 0
    weights[:, :, 0, 5] = 1.0
    received, _ = gallery.attention_map(weights, 4, cls=False)
    assert received.tolist() == [[0, 0, 0.5, 0]]
    seen, _ = gallery.attention_map(weights, 4, cls=True)
    assert seen.tolist() == [[0, 0, 0, 1]]


def test_rows_for_different_groups():
    order, groups = np.array([3, 1, 0, 2, 4]), np.array([0, 0, 1, 0, 1])
    assert gallery._apart(order, groups, 2).tolist() == [3, 2]
    assert gallery._apart(order, groups, 4).tolist() == [3, 2, 1, 0]
