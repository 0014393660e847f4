"""Reading pictures of every kind, and the views that a method asks for."""

import io
import math
import struct
import warnings
import zlib
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image as Pillow
from PIL import ImageCms

from selfsup.data.batch import Batch
from selfsup.data.outcome import BadSample
from selfsup.errors import SelfsupError
from selfsup.method import Views
from selfsup.methods import Colorization
from selfsup.modalities import Modality, find
from selfsup.modalities.image import MOST_PIXELS, Image
from selfsup.randomness import Draws

GRAY = 128


@pytest.fixture
def image() -> Image:
    return Image()


def photograph(h: int = 40, w: int = 60) -> np.ndarray:
    y, x = np.mgrid[0:h, 0:w] / max(h, w)
    waves = [np.sin(5 * (x * (c + 1) + y * (3 - c))) for c in range(3)]
    return ((np.stack(waves, -1) + 1) * 127).astype(np.uint8)


def saved(picture, form: str = "PNG", **options) -> bytes:
    if isinstance(picture, np.ndarray):
        picture = Pillow.fromarray(picture)
    file = io.BytesIO()
    picture.save(file, form, **options)
    return file.getvalue()


def chunk(kind: bytes, data: bytes) -> bytes:
    body = kind + data
    return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))


def png(width: int, height: int, depth: int, color: int, rows: bytes) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0)
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


def refused(image: Image, raw) -> str:
    with pytest.raises(BadSample) as bad:
        image.read(raw)
    assert bad.value.reason
    return bad.value.code


# ------------------------------------------------------------------------------ registry


def test_find():
    assert find("image") is Image and issubclass(Image, Modality)
    with pytest.raises(SelfsupError) as error:
        find("imagee")
    assert error.value.code == "E201" and "image" in str(error.value)


# ------------------------------------------------------------------------------ modes

GRAYS = photograph()[:, :, 0]
THREE = np.repeat(GRAYS[:, :, None], 3, 2)
HALF = np.tile(np.linspace(0, 255, 60).astype(np.uint8), (40, 1))  # opacity


def over_gray(rgb: np.ndarray) -> np.ndarray:
    opacity = HALF[:, :, None] / 255
    return rgb * opacity + GRAY * (1 - opacity)


def with_opacity(mode: str) -> Pillow.Image:
    rgba = Pillow.fromarray(np.dstack([photograph(), HALF]))
    if mode == "LA":
        return Pillow.fromarray(np.dstack([GRAYS, HALF]))
    if mode == "PA":
        picture = Pillow.new("PA", (60, 40))
        picture.putpalette([c for level in range(256) for c in (level, level, level)])
        bands = np.dstack([GRAYS, HALF])
        picture.putdata([tuple(p) for p in bands.reshape(-1, 2).tolist()])
        return picture
    return rgba.convert(mode)


@pytest.mark.parametrize("mode", ["RGB", "RGBX", "YCbCr", "HSV", "CMYK", "LAB", "P"])
def test_colours(image, mode):
    rgb = Pillow.fromarray(photograph())
    if mode == "LAB":
        srgb, lab = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
        picture = ImageCms.profileToProfile(rgb, srgb, lab, outputMode="LAB")
    else:
        picture = rgb.convert(mode, **({"palette": Pillow.Palette.ADAPTIVE} if mode == "P" else {}))
    read = image.read(picture)
    assert read.shape == (40, 60, 3) and read.dtype == np.uint8
    apart = np.abs(read.astype(int) - photograph()).mean()
    assert apart < (8 if mode == "P" else 3)  # 256 colours
    assert picture.mode == mode


@pytest.mark.parametrize("mode", ["LA", "PA", "RGBA", "RGBa"])
def test_transparency_shows_gray(image, mode):
    read = image.read(with_opacity(mode)).astype(float)
    theirs = over_gray(THREE if mode in ("LA", "PA") else photograph())
    assert np.abs(read - theirs).max() <= (2.5 if mode == "RGBa" else 1)
    assert read[:, 0].tolist() == [[GRAY] * 3] * 40  # wholly transparent, whatever colour is there


@pytest.mark.parametrize("mode", ["P", "L", "RGB"])
def test_one_transparent_colour(image, mode):
    """PNG and GIF name a colour that is not shown."""
    levels = np.zeros((8, 8), np.uint8)
    levels[:4] = 200
    picture = Pillow.fromarray(levels).convert(mode)
    hidden = (200, 200, 200) if mode == "RGB" else 200
    if mode == "P":
        hidden = picture.getpixel((0, 0))
    read = image.read(saved(picture, transparency=hidden))
    assert (read[:4] == GRAY).all() and (read[4:] == 0).all()


def test_two_levels(image):
    bits = GRAYS > 128
    read = image.read(saved(Pillow.fromarray(bits)))
    np.testing.assert_array_equal(read, np.repeat(bits[:, :, None], 3, 2) * np.uint8(255))


@pytest.mark.parametrize("mode", ["I;16", "I;16L", "I;16B", "I"])
def test_sixteen_bits_are_scaled_and_never_cut(image, mode):
    deep = np.arange(40 * 60, dtype=np.uint32).reshape(40, 60) * 27  # to 64,773
    kind = {"I;16": "<u2", "I;16L": "<u2", "I;16B": ">u2", "I": "<i4"}[mode]
    picture = Pillow.frombytes(mode, (60, 40), deep.astype(kind).tobytes())
    read = image.read(picture)
    theirs = np.round(deep / 257)
    for channel in range(3):
        np.testing.assert_array_equal(read[:, :, channel], theirs)
    assert (read == 255).mean() < 0.01


@pytest.mark.parametrize("form", ["PNG", "TIFF"])
def test_files_of_sixteen_bits(image, form):
    deep = GRAYS.astype(np.uint16) * 257
    np.testing.assert_array_equal(image.read(saved(deep, form)), THREE)


def test_sixteen_bits_that_are_not_all_used(image):
    levels = np.arange(64, dtype=np.uint16).reshape(8, 8) * 257
    np.testing.assert_array_equal(image.read(levels)[:, :, 0], levels // 257)


def test_twelve_bits_in_sixteen_are_not_black(image):
    twelve = GRAYS.astype(np.uint16) * 16
    read = image.read(saved(twelve))
    assert np.abs(read.astype(int) - THREE).max() <= 1


def test_colours_of_sixteen_bits(image):
    deep = photograph().astype(np.uint16) * 257
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in deep)
    read = image.read(png(60, 40, 16, 2, rows))
    np.testing.assert_array_equal(read, photograph())


@pytest.mark.parametrize(
    ("values", "low", "high"),
    [
        (np.linspace(0, 1, 64), 0, 1),
        (np.linspace(0, 0.4, 64), 0, 1),
        (np.linspace(0, 200.5, 64), 0, 255),
        (np.linspace(-1024, 3071, 64), -1024, 3071),
        (np.linspace(5, 1e6, 64), 5, 1e6),
    ],
)
def test_real_numbers(image, values, low, high):
    values = values.reshape(8, 8).astype(np.float32)
    theirs = np.round((values.astype(float) - low) / (high - low) * 255)
    for raw in (values, Pillow.fromarray(values), saved(values, "TIFF")):
        read = image.read(raw)
        assert np.abs(read[:, :, 1] - theirs).max() <= 1


def test_numbers_that_are_none(image):
    values = np.linspace(0, 1, 64, dtype=np.float32).reshape(8, 8)
    values[0, 0], values[0, 1] = np.nan, np.inf
    read = image.read(values)
    assert read[0, 0, 0] == read[0, 1, 0] == 8  # as the smallest: values[0, 2] is 2/63
    assert read[7, 7, 0] == 255
    assert refused(image, np.full((4, 4), np.nan)) == "no_values"
    assert refused(image, np.zeros((0, 4), np.uint8)) == "no_values"
    assert (image.read(np.full((4, 4), -7.0)) == 0).all()  # constant


def test_arrays(image):
    rgb = photograph()
    np.testing.assert_array_equal(image.read(rgb), rgb)
    np.testing.assert_array_equal(image.read(rgb.transpose(2, 0, 1)), rgb)
    np.testing.assert_array_equal(image.read(torch.from_numpy(rgb)), rgb)
    np.testing.assert_array_equal(image.read(GRAYS), THREE)
    np.testing.assert_array_equal(image.read(GRAYS[:, :, None]), THREE)
    read = image.read(np.dstack([rgb, HALF]))
    assert np.abs(read - over_gray(rgb)).max() <= 1
    assert np.abs(image.read(rgb / 255.0).astype(int) - rgb).max() == 0
    assert np.abs(image.read(rgb.astype(np.int64)).astype(int) - rgb).max() == 0
    for shape in ((6, 6, 2), (8, 8, 13), (4,), (2, 3, 4, 3)):
        assert refused(image, np.zeros(shape, np.uint8)) == "channels"
    assert refused(image, np.array([["a"]])) == "not_an_image"
    assert refused(image, "path.jpg") == "not_an_image"


# ------------------------------------------------------------------------------ bad files


@pytest.mark.parametrize(
    ("raw", "code"),
    [
        (b"", "empty"),
        (bytes(3000), "not_an_image"),
        (b"\xff\xd8\xff\xe0", "not_an_image"),
        (b"<!DOCTYPE html><html>404</html>", "not_an_image"),
        (b"some text\n" * 100, "not_an_image"),
        (np.random.default_rng(0).bytes(4000), "not_an_image"),
    ],
)
def test_what_is_no_picture(image, raw, code):
    assert refused(image, raw) == code


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF"])
@pytest.mark.parametrize("share", [0.9, 0.5, 0.1])
def test_cut_files_are_refused(image, form, share):
    noisy = np.random.default_rng(1).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    whole = saved(noisy, form)
    image.read(whole)
    assert refused(image, whole[: int(len(whole) * share)]) in (
        "truncated",
        "undecodable",
        "not_an_image",
    )


@pytest.mark.parametrize("form", ["JPEG", "PNG"])
def test_cut_files_are_kept_on_request(form):
    noisy = np.random.default_rng(1).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    whole = saved(noisy, form)
    keeping = Image(keep_truncated=True)
    read = keeping.read(whole[: len(whole) // 2])
    full = keeping.read(whole)
    assert read.shape == full.shape
    assert (read[:14] == full[:14]).all() and (read[-8:] == 0).all() and full[-8:].any()
    assert keeping.notes["truncated, kept"] == 1
    assert refused(keeping, b"") == "empty"
    assert keeping.rules != Image().rules
    assert refused(Image(), whole[: len(whole) // 2]) == "truncated"  # no flag of Pillow's was set


def test_damaged_files_raise_nothing_else():
    """Bytes flipped, cut and moved in files of every format."""
    rng = np.random.default_rng(7)
    keeping, plain = Image(keep_truncated=True), Image()
    exif = Pillow.Exif()
    exif[0x0112] = 6
    seeds = [saved(photograph(), f) for f in ("PNG", "GIF", "BMP", "TIFF", "WEBP", "PPM", "ICO")]
    seeds += [
        saved(photograph(), "JPEG", exif=exif),
        saved(photograph(), "TIFF", compression="raw"),
    ]
    fine, codes = 0, set()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for _ in range(60):
            for raw in seeds:
                bad = bytearray(raw)
                for at in rng.integers(0, min(len(bad), rng.choice([64, 10**6])), 6):
                    bad[at] = rng.integers(0, 256)
                bad = bytes(bad[: rng.integers(1, 2 * len(bad))])
                for image in (plain, keeping):
                    try:
                        read = image.read(bad, 16)
                        assert read.dtype == np.uint8 and read.ndim == 3 and read.shape[2] == 3
                        fine += 1
                    except BadSample as bad_sample:
                        codes.add(bad_sample.code)
    assert fine > 50
    assert codes >= {"not_an_image", "truncated", "undecodable"}


def test_bombs_are_refused_by_their_header(image, monkeypatch):
    decoded = []
    load = Pillow.Image.load
    monkeypatch.setattr(
        Pillow.Image, "load", lambda self, *a: (decoded.append(self.size), load(self, *a))[1]
    )
    for side in (12_000, 20_000, 60_000):  # above this budget; above Pillow's own as well
        assert side**2 > MOST_PIXELS
        assert refused(image, png(side, side, 8, 2, b"")) == "too_large"
    assert not decoded
    assert refused(image, png(11_000, 11_000, 1, 0, b"")) != "too_large"  # Pillow would warn


def test_strips_and_dots(image):
    strip = np.zeros((1, 60_000, 3), np.uint8)
    read = image.read(saved(strip))
    assert read.shape == (1, 60_000, 3)
    assert image.shrink(read, 32).shape == (1, 64, 3)
    dot = image.read(saved(strip[:, :1]))
    assert image.shrink(dot, 32).shape == (1, 1, 3)


def test_only_the_first_frame_is_read(image):
    frames = [Pillow.new("RGB", (9, 7), (40 * i, 0, 0)) for i in range(5)]
    for form in ("GIF", "TIFF", "WEBP"):
        raw = saved(frames[0], form, save_all=True, append_images=frames[1:])
        read = image.read(raw)
        assert read.shape == (7, 9, 3) and read.max() <= 2


# ------------------------------------------------------------------------------ EXIF


def turned(array: np.ndarray, orientation: int) -> np.ndarray:
    """What a camera stores for `array` and this tag: the EXIF standard, table of orientations."""
    return {
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.transpose(1, 0, 2),
        6: lambda a: np.rot90(a, 1),
        7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
        8: lambda a: np.rot90(a, -1),
    }[orientation](array)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("form", ["PNG", "WEBP", "TIFF"])
def test_pictures_are_turned_upright_once(image, orientation, form):
    exif = Pillow.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if form == "WEBP" else {}
    stored = np.ascontiguousarray(turned(photograph(), orientation))
    read = image.read(saved(stored, form, exif=exif, **options))
    np.testing.assert_array_equal(read, photograph())


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_orientations_that_do_not_exist(image, orientation):
    exif = Pillow.Exif()
    exif[0x0112] = orientation
    np.testing.assert_array_equal(image.read(saved(photograph(), exif=exif)), photograph())


def test_broken_exif_leaves_the_picture_as_it_is(image):
    jpeg = saved(photograph(), "JPEG")
    plain = image.read(jpeg)
    payloads = [
        b"Exif\0\0II*\0\x08\0\0\0\xff\xff" + bytes(range(200)),
        b"Exif\0\0II*\0\x08\0\0\0\x01\0\x1a\x01\x05\0\x01\0\0\0\x1a\0\0\0\0\0\0\0" + bytes(8),
        b"Exif\0\0XX*\0\x08\0\0\0",
        b"Exif\0\0",
        b'http://ns.adobe.com/xap/1.0/\0<x:xmpmeta tiff:Artist="\xff\xfe\xc3\x28>',
    ]
    for payload in payloads:
        segment = b"\xff\xe1" + struct.pack(">H", len(payload) + 2) + payload
        np.testing.assert_array_equal(image.read(jpeg[:2] + segment + jpeg[2:]), plain)
    raw = saved(photograph())
    for junk in (b"XX*\0\x08\0\0\0", b"II", b"\xff" * 30):
        odd = raw[:33] + chunk(b"eXIf", junk) + raw[33:]
        np.testing.assert_array_equal(image.read(odd), photograph())
    assert image.notes["EXIF that cannot be read: not turned"] == 3


# ------------------------------------------------------------------------------ size


def test_jpegs_are_decoded_at_a_fraction(image):
    raw = saved(Pillow.fromarray(photograph(800, 1200)), "JPEG", quality=95)
    for size in (50, 100, 101, 250, 800, 2000):
        read = image.read(raw, size)
        assert min(read.shape[:2]) >= min(size, 800)
        assert abs(read.shape[1] / read.shape[0] - 1.5) < 0.03
        apart = image.shrink(read, size).astype(int) - image.shrink(image.read(raw), size)
        assert np.abs(apart).mean() < 1.5
    assert image.read(raw, 100).shape == (100, 150, 3)


@pytest.mark.parametrize(
    ("shape", "size", "stored"),
    [
        ((40, 60), 20, (20, 30)),
        ((40, 60), 100, (40, 60)),
        ((32, 32), 32, (32, 32)),
        ((333, 500), 224, (224, 336)),
        ((500, 333), 224, (336, 224)),
        ((100, 1000), 50, (50, 100)),
        ((1000, 10), 50, (100, 10)),
        ((70, 2000), 64, (64, 128)),
    ],
)
def test_shrink(image, shape, size, stored):
    array = photograph(*shape)
    small = image.shrink(array, size)
    assert small.shape[:2] == stored and small.flags.c_contiguous
    if min(shape) > size and max(shape) <= 2 * min(shape):
        theirs = Pillow.fromarray(array).resize(stored[::-1], Pillow.Resampling.BILINEAR)
        assert np.abs(small.astype(int) - np.asarray(theirs)).max() <= 1
    if shape == (1000, 10):  # the middle
        np.testing.assert_array_equal(small, array[450:550])


# ------------------------------------------------------------------------------ batches


def batch(b: int = 6, h: int = 40, w: int = 60, ragged: bool = False) -> Batch:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (b, h, w, 3), dtype=np.uint8)
    extents = None
    if ragged:
        extents = torch.tensor([(h - i, w - 3 * i) for i in range(b)])
        for i, (height, width) in enumerate(extents.tolist()):
            pixels[i, height:] = 0
            pixels[i, :, width:] = 0
    samples = torch.arange(b)
    return Batch(torch.from_numpy(pixels).permute(0, 3, 1, 2), extents, samples, samples)


def test_views_come_in_order_and_in_size(image):
    spec = Views(light=1, strong=2, local=3, share=(0.4, 1.0), local_share=(0.05, 0.4), alike=False)
    data = batch()
    views = image.views(data, spec, Draws(0, data.samples), 64)
    assert [v.shape[-1] for v in views] == [64, 64, 64, 32, 32, 32]
    assert all(v.dtype == torch.float32 and v.is_contiguous() for v in views)
    assert all(torch.isfinite(v).all() for v in views)
    views = image.views(data, spec, Draws(0, data.samples), 64, local_size=28)
    assert [v.shape[-1] for v in views] == [64, 64, 64, 28, 28, 28]


def test_views_of_one_kind_differ_and_come_again(image):
    data = batch()
    spec = Views(light=2, strong=2, local=2, local_share=(0.2, 1.0))
    views = image.views(data, spec, Draws(0, data.samples), 32, local_size=32)
    again = image.views(data, spec, Draws(0, data.samples), 32, local_size=32)
    for i, view in enumerate(views):
        assert torch.equal(view, again[i])
        assert not any(torch.equal(view, other) for other in views[:i])


def test_views_do_not_depend_on_the_number_of_cores(image):
    data = batch(8, 300, 300)
    spec, threads = Views(light=1, strong=2), torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = image.views(data, spec, Draws(0, data.samples), 224)
        torch.set_num_threads(3)
        three = image.views(data, spec, Draws(0, data.samples), 224)
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(a, b) for a, b in zip(one, three, strict=True))


def test_the_usual_local_sizes():
    sizes = {224: 96, 128: 48, 96: 48, 64: 32, 48: 24, 32: 16, 28: 16, 16: 8}
    assert {size: Image.local_size(size) for size in sizes} == sizes


def test_light_views_keep_their_colours(image):
    """A crop of a flat picture is flat; a strong view of it has another colour."""
    data = batch(32)
    data.pixels[:] = torch.tensor([10, 100, 200], dtype=torch.uint8)[:, None, None]
    light, strong = image.views(data, Views(light=1, strong=1), Draws(0, data.samples), 32)
    assert (image.picture(light) == data.pixels[:, :, :1, :1]).all()
    assert (image.picture(strong) != data.pixels[:, :, :1, :1]).any(1).float().mean() > 0.6


def test_each_views_kind_is_the_papers(image):
    """Noise has a fine structure only where nothing is blurred."""
    data = batch(200, 64, 64)

    def sharp(view):  # noise of a crop that is enlarged is soft as well: look at whole pictures
        return ((view[..., 1:] - view[..., :-1]).abs().mean((1, 2, 3)) > 0.35).float().mean()

    spec = Views(1, 2, 1, share=(1.0, 1.0), local_share=(1.0, 1.0), alike=False)
    light, *views = image.views(data, spec, Draws(0, data.samples), 64, local_size=64)
    assert sharp(light) == 1
    shares = [sharp(v) for v in views]
    assert shares[0] < 0.35 and shares[1] > 0.8 and 0.45 < shares[2] < 0.8  # sigma from 0.1
    alike = image.views(data, Views(strong=2, share=(1.0, 1.0)), Draws(0, data.samples), 64)
    assert all(0.45 < sharp(v) < 0.8 for v in alike)


def test_padding_is_never_seen(image):
    data = batch(ragged=True)
    loud = Batch(data.pixels.clone(), data.extents, data.samples, data.indices)
    for i, (h, w) in enumerate(data.extents.tolist()):
        loud.pixels[i, :, h:] = 255
        loud.pixels[i, :, :, w:] = 255
    spec = Views(light=1, strong=1, local=1)
    for ours, theirs in zip(
        [*image.views(data, spec, Draws(0, data.samples), 32), image.plain(data, 24)],
        [*image.views(loud, spec, Draws(0, data.samples), 32), image.plain(loud, 24)],
        strict=True,
    ):
        assert torch.equal(ours, theirs)
    assert torch.equal(image.baseline(data), image.baseline(loud))


def test_ragged_and_even_batches_give_the_same_views(image):
    data = batch(ragged=True)
    spec = Views(strong=1, local=1)
    together = image.views(data, spec, Draws(3, data.samples), 32)
    for i, (h, w) in enumerate(data.extents.tolist()):
        one = Batch(
            data.pixels[i : i + 1, :, :h, :w],
            None,
            data.samples[i : i + 1],
            data.indices[i : i + 1],
        )
        alone = image.views(one, spec, Draws(3, one.samples), 32)
        for a, b in zip(together, alone, strict=True):
            assert torch.equal(a[i : i + 1], b)


def test_plain_is_the_middle_square(image):
    data = batch()
    theirs = data.pixels[:, :, :, 10:50]
    assert (image.picture(image.plain(data, 40)) == theirs).all()
    small = image.picture(image.plain(data, 24))
    for i in range(len(data)):
        middle = Pillow.fromarray(theirs[i].permute(1, 2, 0).contiguous().numpy())
        resized = np.asarray(middle.resize((24, 24), Pillow.Resampling.BILINEAR)).astype(int)
        assert np.abs(small[i].permute(1, 2, 0).numpy() - resized).max() <= 1


def test_scaled_by_mean_and_deviation(image):
    data = batch()
    x = image.plain(data, 40)
    theirs = data.pixels[:, :, :, 10:50].double() / 255
    theirs = (theirs - torch.tensor(image.mean)[:, None, None]) / torch.tensor(image.std)[
        :, None, None
    ]
    torch.testing.assert_close(x, theirs.float(), atol=1e-5, rtol=0)


def test_baseline(image):
    data = batch()
    pixels = image.baseline(data)
    assert pixels.shape == (6, 3 * 32 * 32) and pixels.min() >= 0 and pixels.max() <= 1
    theirs = image.picture(image.plain(data, 32)).flatten(1) / 255
    torch.testing.assert_close(pixels, theirs)


def test_encoder(image):
    encoder = image.encoder("resnet18", 32)
    data = batch()
    assert encoder(image.plain(data, 32)).shape == (6, encoder.dim)
    assert image.default_method and set(image.encoders) >= {"vit_tiny", "resnet18"}


def test_without_mirror_a_whole_picture_stays_as_it_is():
    pixels = torch.randint(0, 256, (16, 3, 8, 8), dtype=torch.uint8)
    batch = Batch(pixels, None, torch.arange(16), torch.arange(16))
    whole = Views(light=1, share=(1.0, 1.0))
    draws = Draws(0, batch.samples)
    (view,) = Image(mirror=False).views(batch, whole, draws, 8)
    (mirrored,) = Image().views(batch, whole, draws, 8)
    same = Image().picture(view)
    boxed = (same == pixels).flatten(1).all(1)
    turned = (Image().picture(mirrored) == pixels.flip(-1)).flatten(1).all(1)
    assert boxed.any() and turned.any() and not (same == pixels.flip(-1)).flatten(1).all(1).any()


def test_what_views_leave_out():
    batch = Batch(
        torch.from_numpy(photograph(48, 48)).permute(2, 0, 1)[None].repeat(64, 1, 1, 1),
        None,
        torch.arange(64),
        torch.arange(64),
    )

    def made(without: str) -> torch.Tensor:
        draws = Draws(0, batch.samples)
        return Image(without=without).views(batch, Views(strong=2, alike=False), draws, 48)[1]

    names = Image.operations
    plain = Image().plain(batch, 48)
    torch.testing.assert_close(made(",".join(names)), plain)
    for name in names:  # each of them alone changes some of the 64 samples
        others = ",".join(other for other in names if other != name)
        assert not torch.equal(made(others), plain), name
    with pytest.raises(SelfsupError, match="rotation") as raised:
        Image(without="colour,rotation")
    assert "crop" in raised.value.do


def test_lab_holds_lightness_and_colour_apart_and_people_see_rgb(image):
    data, lab = batch(), Image(colour="lab")
    grey = replace(data, pixels=data.pixels[:, :1].expand(-1, 3, -1, -1))
    assert lab.plain(grey, 40)[:, 1:].abs().max() < 1e-4
    spec, draws = Views(light=1, strong=1, local=1), Draws(0, data.samples)
    ours, theirs = ([x.plain(data, 40), *x.views(data, spec, draws, 32, 16)] for x in (lab, image))
    for x, rgb in zip(ours, theirs, strict=True):
        off = lab.picture(x).int() - image.picture(rgb).int()
        assert off.abs().max() <= 1 and 2 < x.abs().max() < 8


def test_colorization_foretells_colour_from_lightness(image):
    torch.manual_seed(0)
    lab, data = Image(colour="lab"), batch()
    method = Colorization(lab.encoder("resnet18", 32, width=0.125), seen=(0,))
    (x,) = lab.views(data, method.views, Draws(0, data.samples), 32)
    seen, target = method.split(x)
    assert torch.equal(seen[:, :1], x[:, :1]) and not seen[:, 1:].any()
    assert target.shape[2] == 2 * math.prod(method.encoder.cell)
    torch.testing.assert_close(target.mean(), x[:, 1:].mean())
