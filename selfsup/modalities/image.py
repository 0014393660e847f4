"""Photographs, scans and other pictures.

Every file becomes 8-bit RGB by the rules of docs/modalities/image.md: turned upright once, deep
grey scaled and never clipped, transparency laid on grey, and nothing decoded whose header promises
more than a budget of pixels.
"""

import io
import struct
import warnings
import zlib
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image as Pillow
from PIL import ImageCms
from torch import Tensor, nn
from torch.nn import functional as F

from ..data.base import Source
from ..data.batch import Batch
from ..data.kinds import instead
from ..data.outcome import BadSample
from ..method import Views
from ..randomness import Draws
from ..views import image as looks
from ..views.one_core import on_one_core
from .base import Modality

MOST_PIXELS = 128 * 1024**2  # of one picture, checked before anything is decoded
LONGEST = 2  # a stored picture's longer side, in shorter sides
BACKGROUND = 128  # grey that transparent pixels show
BASELINE = 32  # pixels across, of the pictures that the control sees

# What Pillow raises for files that are not what they say; anything else is a bug of ours.
DECODE_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    LookupError,
    EOFError,
    ArithmeticError,
    AttributeError,
    AssertionError,
    RuntimeError,
    struct.error,
    zlib.error,
    Pillow.DecompressionBombError,
)

UPRIGHT = {
    2: Pillow.Transpose.FLIP_LEFT_RIGHT,
    3: Pillow.Transpose.ROTATE_180,
    4: Pillow.Transpose.FLIP_TOP_BOTTOM,
    5: Pillow.Transpose.TRANSPOSE,
    6: Pillow.Transpose.ROTATE_270,
    7: Pillow.Transpose.TRANSVERSE,
    8: Pillow.Transpose.ROTATE_90,
}
ORIENTATION = 0x0112  # the EXIF tag

# Pillow warns of large pictures, for which there is a budget here, and of metadata not used here.
warnings.filterwarnings("ignore", category=Pillow.DecompressionBombWarning)
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")


class Image(Modality):
    """Pictures of any format that Pillow reads, or arrays, as RGB.

    `keep_truncated` uses pictures whose file ends early; the part that is missing stays black.
    `mirror` says that a picture and its mirror image mean the same: not so for writing.
    `without` names what views leave out, such as "colour,blur". `colour` is what encoders get: red,
    green and blue, or lightness and two channels of colour ("lab"), as colorization wants them.
    """

    name = "image"
    contents = ("image",)
    baseline_name = "pixels + PCA"
    default_method = "simclr"
    encoders = ("vit_tiny", "resnet18", "vit_small", "resnet50", "vit_base")
    # of ImageNet's training set: the usual choice, and near enough for any photograph
    mean = (0.485, 0.456, 0.406)
    std = (0.229, 0.224, 0.225)

    operations = looks.OPERATIONS

    def __init__(
        self,
        *,
        keep_truncated: bool = False,
        mirror: bool = True,
        without: str = "",
        colour: Literal["rgb", "lab"] = "rgb",
    ):
        self.keep_truncated, self.mirror = keep_truncated, mirror
        self.without, self.colour = self.left_out(without), colour
        if colour == "lab":  # 50 and 25 of L's 100; a and b have one unit, and so one deviation
            self.mean, self.std = (0.5, 0.5, 0.5), (0.25, 1 / 16, 1 / 16)  # type: ignore[misc]

    @property
    def rules(self) -> str:
        return f"rgb 1 keep_truncated={self.keep_truncated}"

    # -------------------------------------------------------------------------- one sample

    def read(self, raw: Any, size: int | None = None) -> UInt8[np.ndarray, "h w 3"]:
        """RGB, upright, from a file's bytes, a Pillow picture, an array or a tensor.

        Arrays are (h, w), (h, w, c) or (c, h, w) with 1, 3 or 4 channels; the last of 4 is opacity.
        With `size`, a JPEG is decoded at a fraction of its resolution where its shorter side stays
        at least that long. Raises BadSample: empty, not_an_image, truncated, undecodable,
        too_large, channels, no_values.
        """
        if isinstance(raw, bytes | bytearray | memoryview):
            return self._decode(bytes(raw), size)
        if isinstance(raw, Pillow.Image):
            _within_budget(*raw.size)
            try:
                return _rgb(self._turned(raw))
            except DECODE_ERRORS as error:
                raise BadSample("undecodable", _told(error)) from error
        if isinstance(raw, Tensor):
            raw = raw.detach().cpu().numpy()
        if isinstance(raw, np.ndarray | np.generic):
            return _from_array(np.asarray(raw))
        raise BadSample("not_an_image", f"{type(raw).__name__} is neither bytes, picture nor array")

    def shrink(self, array: UInt8[np.ndarray, "h w 3"], size: int) -> UInt8[np.ndarray, "h2 w2 3"]:
        """The shorter side at `size`, never enlarged; of a strip, the middle two squares."""
        h, w, _ = array.shape
        short = min(h, w)
        most = LONGEST * short if short > size else max(LONGEST * size, short)
        if max(h, w) > most:
            top, left = max(h - most, 0) // 2, max(w - most, 0) // 2
            array = array[top : top + most, left : left + most]
            h, w, _ = array.shape
        if short > size:
            new = (max(round(h * size / short), size), max(round(w * size / short), size))
            array = np.require(array, requirements=("C", "W"))  # torch wants it writable
            pixels = torch.from_numpy(array).permute(2, 0, 1)[None]
            small = F.interpolate(pixels, new, mode="bilinear", antialias=True)
            array = small[0].permute(1, 2, 0).numpy()
        return np.ascontiguousarray(array)

    def _decode(self, raw: bytes, size: int | None) -> UInt8[np.ndarray, "h w 3"]:
        if not raw:
            raise BadSample("empty", "the file has no bytes")
        try:
            picture = Pillow.open(io.BytesIO(raw))  # reads the header alone
        except Pillow.DecompressionBombError as error:
            raise BadSample("too_large", str(error)) from error
        except DECODE_ERRORS as error:
            raise BadSample("not_an_image", _sniffed(raw)) from error
        with picture:
            _within_budget(*picture.size)
            try:
                if size is not None and min(picture.size) > size:
                    scale = size / min(picture.size)
                    picture.draft(None, tuple(-int(-side * scale // 1) for side in picture.size))
                self._load(picture)
                return _rgb(self._turned(picture))
            except DECODE_ERRORS as error:
                raise BadSample("undecodable", _told(error)) from error

    def _load(self, picture: Pillow.Image) -> None:
        try:
            picture.load()
        except DECODE_ERRORS as error:
            if "truncated" not in str(error) and "broken" not in str(error):
                raise
            if not self.keep_truncated:
                raise BadSample("truncated", "the file ends before the picture does") from error
            # The rows that came are there; without tiles left, Pillow takes the picture for loaded.
            picture.tile = []
            self.notes["truncated, kept"] += 1

    def _turned(self, picture: Pillow.Image) -> Pillow.Image:
        """As the camera was held. Only this one tag is read: the rest of EXIF is often broken."""
        try:
            orientation = picture.getexif().get(ORIENTATION, 1)
        except DECODE_ERRORS:
            self.notes["EXIF that cannot be read: not turned"] += 1
            return picture
        if isinstance(orientation, int) and orientation in UPRIGHT:
            return picture.transpose(UPRIGHT[orientation])
        return picture

    # -------------------------------------------------------------------------- batches

    def views(
        self, batch: Batch, spec: Views, draws: Draws, size: int, local_size: int | None = None
    ) -> list[Float[Tensor, "b 3 s s"]]:
        """Light, strong and local views on the batch's device, `size` (or `local_size`) wide.

        Light views are cropped and mirrored (MAE, arXiv 2111.06377); the others are disturbed as
        `selfsup.views.image.recipe` says.
        """
        made = partial(self._views, batch, spec, draws, size, local_size)
        return on_one_core(made) if batch.pixels.device.type == "cpu" else made()

    def _views(
        self, batch: Batch, spec: Views, draws: Draws, size: int, local_size: int | None
    ) -> list[Tensor]:
        height, width = _extents(batch)
        small = local_size if local_size is not None else self.local_size(size)
        without = self.without if self.mirror else (*self.without, "mirror")
        views = []
        for number in range(spec.count):
            local = number >= spec.light + spec.strong
            side, share = (small, spec.local_share) if local else (size, spec.share)
            own = draws.of_view(number)
            boxes = looks.boxes_without(without, own, height, width, share)
            if number < spec.light:
                views.append(looks.light(batch.pixels, boxes, side, *self._scale))
                continue
            recipe = looks.recipe(number - spec.light, side, spec.alike, local)
            look = looks.draw_looks(own, looks.leave_out(recipe, self.without))
            views.append(looks.strong(batch.pixels, boxes, look, side, *self._scale))
        return views

    @property
    def _scale(self) -> tuple[tuple[float, ...], tuple[float, ...], bool]:
        return self.mean, self.std, self.colour == "lab"

    @staticmethod
    def local_size(size: int) -> int:
        """About 3/7 of `size` (DINO: 96 of 224), a multiple of 16, or of 8 below 64 pixels."""
        unit = 16 if size >= 64 else 8
        return max(unit, round(size * 3 / 7 / unit) * unit)

    def plain(self, batch: Batch, size: int) -> Float[Tensor, "b 3 size size"]:
        """The middle square, at `size`."""
        made = partial(looks.light, batch.pixels, _middle(batch), size, *self._scale)
        return on_one_core(made) if batch.pixels.device.type == "cpu" else made()

    def picture(self, x: Float[Tensor, "b 3 h w"]) -> UInt8[Tensor, "b 3 h w"]:
        mean = x.new_tensor(self.mean)[:, None, None]
        std = x.new_tensor(self.std)[:, None, None]
        x = x * std + mean
        x = looks.rgb(x) if self.colour == "lab" else x
        return (x * 255).round().clamp(0, 255).to(torch.uint8)

    def baseline(self, batch: Batch) -> Float[Tensor, "b p"]:
        """The pixels of the middle square, 32 across, in [0, 1]: to be followed by a PCA."""
        return looks.crop(batch.pixels, _middle(batch), BASELINE).flatten(1) / 255

    def extent(self, source: Source) -> int:
        from ..scan import peek

        sides = sorted(min(pair) for pair in peek(source))
        if not sides and len(source):
            return 32  # no header could be read: the store will say why
        return sides[len(sides) // 2] if sides else 0

    def usual_size(self, extent: int, device: str) -> tuple[int, str]:
        """Multiples of 16 above 32 pixels, so that patches of 8 and 16 fit."""
        most = 224 if device == "cuda" else 64
        if extent <= 32:
            side = max(8, extent // 8 * 8)
            told = f"the pictures are {extent} px"
            return side, told if side == extent else told + "; a multiple of 8"
        if extent <= most:
            return extent // 16 * 16, f"the pictures are about {extent} px; a multiple of 16"
        where = "a graphics card" if device == "cuda" else "processor cores"
        return most, f"the pictures are about {extent} px; {most} is what {where} can afford"

    def larger_sizes(self, extent: int, size: int) -> tuple[int, ...]:
        return tuple(side for side in (96, 128, 160, 224) if size < side <= extent)

    def encoder(self, name: str, size: int, **keywords: Any) -> nn.Module:
        from ..encoder import build

        return build(name, size, **keywords)


# ------------------------------------------------------------------------------ batches


def _extents(batch: Batch) -> tuple[Tensor, Tensor]:
    """Height and width of each sample, (b,) int64 each, on the CPU."""
    if batch.extents is not None:
        return batch.extents[:, 0].cpu(), batch.extents[:, 1].cpu()
    b, _, height, width = batch.pixels.shape
    return torch.full((b,), height), torch.full((b,), width)


def _middle(batch: Batch) -> looks.Boxes:
    return looks.middle(*_extents(batch))


# ------------------------------------------------------------------------------ every mode to RGB


def _rgb(picture: Pillow.Image) -> UInt8[np.ndarray, "h w 3"]:
    """Any of Pillow's modes, by the table in docs/modalities/image.md."""
    mode = picture.mode
    if mode.startswith("I;16"):
        return _gray_to_rgb(_scaled(np.asarray(picture)))
    if mode in ("I", "F"):
        return _gray_to_rgb(_scaled(np.asarray(picture)))
    if mode == "LAB":
        return np.asarray(ImageCms.applyTransform(picture, _LAB_TO_RGB))
    if mode in ("RGBa", "La"):  # colours are multiplied by opacity
        picture = picture.convert("RGBA" if mode == "RGBa" else "LA")
    if picture.has_transparency_data:
        return _composited(np.asarray(picture.convert("RGBA")))
    return np.asarray(picture.convert("RGB"))


def _from_array(array: np.ndarray) -> UInt8[np.ndarray, "h w 3"]:
    if array.ndim == 3 and array.shape[2] not in (1, 3, 4) and array.shape[0] in (1, 3, 4):
        array = array.transpose(1, 2, 0)
    if array.ndim == 2:
        array = array[:, :, None]
    if array.ndim != 3 or array.shape[2] not in (1, 3, 4):
        raise BadSample(
            "channels", f"an array of shape {array.shape} is neither grey, RGB nor RGB with opacity"
        )
    _within_budget(array.shape[1], array.shape[0])
    array = _scaled(array)
    if array.shape[2] == 4:
        return _composited(array)
    return _gray_to_rgb(array[:, :, 0]) if array.shape[2] == 1 else np.ascontiguousarray(array)


def _scaled(values: np.ndarray) -> UInt8[np.ndarray, "..."]:
    """Numbers of any kind to 8 bits. The range is that of the format, where it tells; never cut."""
    if values.dtype == np.uint8:
        return values
    if values.dtype == bool:
        return values.astype(np.uint8) * np.uint8(255)
    if values.dtype.kind not in "iuf":
        raise BadSample("not_an_image", f"an array of {values.dtype} does not hold pixels")
    finite = np.isfinite(values)
    if not finite.any():
        raise BadSample("no_values", "no pixel is a finite number")
    low, high = float(values[finite].min()), float(values[finite].max())
    if values.dtype.kind in "iu":
        # 12-bit cameras and scanners write into 16 bits; stretched as 16 they would be black
        ranges = [(0, 65535)] if high > 4095 else [(0, 4095)]
        if values.dtype.itemsize == 1 or (values.dtype != np.uint16 and low >= 0 and high <= 255):
            ranges = [(0, 255)]
    else:
        ranges = [(0.0, 1.0), (0.0, 255.0)]
    first, last = next(((a, b) for a, b in ranges if a <= low and high <= b), (low, high))
    unit = (np.where(finite, values, low).astype(np.float32) - first) / ((last - first) or 1)
    return (unit * 255).round().astype(np.uint8)


def _composited(rgba: UInt8[np.ndarray, "h w 4"]) -> UInt8[np.ndarray, "h w 3"]:
    opacity = rgba[:, :, 3:].astype(np.uint16)
    mixed = rgba[:, :, :3] * opacity + BACKGROUND * (255 - opacity)  # at most 255 * 255
    return ((mixed + 127) // 255).astype(np.uint8)


def _gray_to_rgb(gray: UInt8[np.ndarray, "h w"]) -> UInt8[np.ndarray, "h w 3"]:
    return np.repeat(gray[:, :, None], 3, axis=2)


_LAB_TO_RGB = ImageCms.buildTransform(
    ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB"), "LAB", "RGB"
)


# ------------------------------------------------------------------------------ what is wrong


def _within_budget(width: int, height: int) -> None:
    if width * height > MOST_PIXELS:
        raise BadSample(
            "too_large",
            f"{width} x {height} pixels; the most that is decoded is {MOST_PIXELS // 1024**2} M",
        )
    if width < 1 or height < 1:
        raise BadSample("no_values", f"{width} x {height} pixels")


def _told(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def _sniffed(raw: bytes) -> str:
    """What a file that is no picture looks like instead."""
    if (found := instead(raw)) is not None:
        return found
    if raw[:512].lstrip().lower().startswith((b"<svg", b"<?xml")):
        return "SVG or XML, which has no pixels"
    if raw[4:12] in (b"ftypheic", b"ftypheix", b"ftypmif1"):
        return "HEIC, which Pillow does not read: convert it to JPEG"
    return "no format that Pillow knows, or a header that is cut off"
