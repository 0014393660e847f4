"""Clips: cameras, phones, screens, microscopes; files, or folders of numbered pictures.

A clip is a few frames at even times, whatever the file's own rate; decoded and made small once, by
the rules of docs/modalities/video.md: turned upright, the frame that is shown at each moment, and
nothing decoded whose header promises more than a budget of pixels. Files need PyAV (an extra).
"""

from functools import partial
from typing import Any, BinaryIO

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torch.nn import functional as F

from ..data import fields, videos
from ..data.base import Source, evenly
from ..data.batch import Batch
from ..data.frames import Frames
from ..data.outcome import BadSample
from ..data.recordings import Clip
from ..data.videos import EXACT, Head
from ..errors import SelfsupError
from ..method import Views
from ..randomness import Draws
from ..views import image as looks
from ..views import video as clips
from ..views.one_core import on_one_core
from .base import Modality
from .image import Image

UNASKED = 128  # shorter side where no size is asked for
SLOWEST = 4.0  # frames a second that views have at least, where the data allow it
LOOKED_AT = 16  # files whose headers tell rate, length and size
SEGMENTS, ACROSS = 8, 16  # moments and pixels across that the control sees
GONE = 0.5  # of the frames between the first and the last number of a folder, at most
MOTION = 4.0  # of differences beside pixels: they are about so much smaller


class Video(Modality):
    """Anything that FFmpeg reads (mp4, mkv, webm, avi, mov, mpg), folders of frames, or arrays
    (t, h, w, 3).

    A view has `frames` frames, `rate` a second; without one, as many as let nine of ten clips be
    seen whole. Folders of frames were taken at `frame_rate`. Longer files are cut into clips of at
    most `longest` seconds, of longer folders the middle is kept. `mirror` says that a clip and its
    mirror image mean the same. `keep_truncated` uses files that end early as far as they go.
    `without` names what views leave out, such as "colour,time".
    """

    name = "video"
    contents = ("video",)
    baseline_name = "pixels, motion + PCA"
    default_method = "simclr"
    encoders = ("vit_tiny", "vit_small", "vit_base")
    # of ImageNet's training set, as for pictures
    mean = (0.485, 0.456, 0.406)
    std = (0.229, 0.224, 0.225)

    operations = (*looks.OPERATIONS, "time")

    def __init__(
        self,
        *,
        frames: int = 16,
        rate: float | None = None,
        frame_rate: float = 25.0,
        longest: float = 10.0,
        mirror: bool = True,
        keep_truncated: bool = False,
        without: str = "",
    ):
        rates = (frame_rate,) if rate is None else (rate, frame_rate)
        if frames < 4 or frames % 4 or not all(0 < r <= 1000 for r in rates) or longest <= 0:
            raise SelfsupError(
                "E201",
                f"a setting of video is not valid: frames {frames}, rate {rate}, frame_rate "
                f"{frame_rate}, longest {longest}",
                why="frames is a multiple of 4 (local views have half of them, in pairs)",
            )
        self.frames, self.longest, self.frame_rate = frames, longest, frame_rate
        self.mirror, self.keep_truncated = mirror, keep_truncated
        self.without = self.left_out(without)
        self.rate, self.fixed = rate or 8.0, rate is not None
        self.stored = 2 * self.rate  # frames a second: so that half a view has as many

    @property
    def rules(self) -> str:
        kept = f"longest={self.longest} truncated={self.keep_truncated}"
        return f"video 1 stored={self.stored} {kept} folders={self.frame_rate}"

    # ---- what the data tell ----------------------------------------------------------------------

    def learn(self, source: Source) -> None:
        """The rate of views and of what is stored, from headers."""
        heads = self._heads(source)
        own = sorted(head.rate for head in heads)
        lengths = sorted(min(head.seconds, self.longest) for head in heads if head.seconds)
        if not own:
            return
        if not self.fixed and lengths:
            usual = self.frames / lengths[int(0.9 * (len(lengths) - 1))]
            self.rate = round(min(max(usual, SLOWEST), own[len(own) // 2]), 3)
        self.stored = round(min(2 * self.rate, max(own[len(own) // 2], self.rate)), 3)

    @property
    def state(self) -> dict[str, Any]:
        return {"rate": self.rate, "stored": self.stored}

    def restore(self, state: dict[str, Any]) -> None:
        if not state:
            return
        rate, stored = state.get("rate"), state.get("stored")
        if not all(isinstance(v, float | int) and 0 < v <= 2000 for v in (rate, stored)):
            raise ValueError(f"rate {rate!r}, stored {stored!r} are no state of video")
        self.rate, self.stored = float(rate), float(stored)  # type: ignore[arg-type]

    def extent(self, source: Source) -> int:
        sides = sorted(min(head.height, head.width) for head in self._heads(source))
        if sides:
            return sides[len(sides) // 2]
        raw = source.read(0)
        return min(raw.shape[1:3]) if isinstance(raw, np.ndarray) else UNASKED

    def usual_size(self, extent: int, device: str) -> tuple[int, str]:
        """Multiples of 16, so that patches of 8 and 16 fit."""
        most = 112 if device == "cuda" else 64
        if extent < most:
            return max(16, extent // 16 * 16), f"the clips are {extent} px; a multiple of 16"
        where = "a graphics card" if device == "cuda" else "processor cores"
        return most, f"the clips are about {extent} px; {most} is what {where} can afford"

    # ---- one sample ------------------------------------------------------------------------------

    def read(self, raw: Any, size: int | None = None) -> UInt8[np.ndarray, "n 1 1"]:
        """A clip from a file's bytes, from numbered pictures, or from an array (t, h, w),
        (t, h, w, 3) or (t, 3, h, w).

        Field: frames, uint8 (t, h, w, 3), `stored` a second, their shorter side at `size` at most.
        Raises BadSample: empty, not_a_video, no_video, truncated, undecodable, too_large, channels,
        no_values, missing_frames, frame_sizes, and those of pictures.
        """
        size = size or UNASKED
        if isinstance(raw, bytes | bytearray | memoryview | Clip):
            raw = raw if isinstance(raw, Clip) else bytes(raw)
            frames = videos.decode(
                raw, size, self.stored, self.longest, self.keep_truncated, self.notes
            )
            return fields.pack({"frames": frames})
        if isinstance(raw, Frames):
            return fields.pack({"frames": self._gather(raw, size)})
        if isinstance(raw, Tensor):
            raw = raw.detach().cpu().numpy()
        if not isinstance(raw, np.ndarray):
            raise BadSample("not_a_video", f"{type(raw).__name__} is neither bytes nor array")
        most = max(1, round(self.longest * self.stored))
        frames = videos.from_array(raw)
        first = max(0, len(frames) - most) // 2
        return fields.pack({"frames": videos.smaller(frames[first : first + most], size)})

    def _gather(self, clip: Frames, size: int) -> UInt8[np.ndarray, "t h w 3"]:
        """The pictures shown at even times; where one is not there, the one before it is."""
        numbers, seconds = _spaced(clip, self.frame_rate)
        gone = 1 - len(numbers) / (numbers[-1] + 1)
        if gone > GONE:
            raise BadSample("missing_frames", f"{100 * gone:.0f} % of its frames are not there")
        if gone > 0:
            self.notes["frames are missing: the one before is shown"] += 1
        first = max(0.0, (seconds - self.longest) / 2)
        if first > 0:
            self.notes["longer than `longest`: the middle is used"] += 1
        shown = min(seconds, self.longest)
        times = first + np.arange(max(1, round(shown * self.stored))) / self.stored
        at = np.searchsorted(numbers / self.frame_rate, times + EXACT, side="right") - 1
        reader, names, made = Image(keep_truncated=self.keep_truncated), list(clip), []
        small: dict[int, np.ndarray] = {}
        for k in at.tolist():
            if k not in small:
                small = {k: self._picture(reader, clip, names[k], size)}
            made.append(small[k])
            if made[-1].shape != made[0].shape:
                shapes = " and ".join(f"{m.shape[1]} x {m.shape[0]}" for m in (made[0], made[-1]))
                raise BadSample("frame_sizes", f"frame {names[k]} has another form: {shapes}")
        return np.stack(made)

    @staticmethod
    def _picture(reader: Image, clip: Frames, number: int, size: int) -> np.ndarray:
        try:
            return reader.shrink(reader.read(clip[number](), size), size)
        except BadSample as bad:
            raise BadSample(bad.code, f"frame {number}: {bad.reason}") from bad

    # ---- batches ---------------------------------------------------------------------------------

    def views(
        self, batch: Batch, spec: Views, draws: Draws, size: int, local_size: int | None = None
    ) -> list[Float[Tensor, "b 3 t s s"]]:
        """Light views are cropped in space and time and mirrored; strong ones look different too,
        all frames of a clip in the same way; local ones have half the frames."""
        on_cpu = Draws(draws.seed, draws.samples.cpu(), 0)
        made = partial(self._views, fields.unpack(batch.to("cpu")), spec, on_cpu, size, local_size)
        return [view.to(batch.pixels.device) for view in on_one_core(made)]

    def _views(
        self,
        samples: list[dict[str, np.ndarray]],
        spec: Views,
        draws: Draws,
        size: int,
        local_size: int | None,
    ) -> list[Tensor]:
        frames, height, width = self._shapes(samples)
        small = local_size if local_size is not None else self.local_size(size)
        without = self.without if self.mirror else (*self.without, "mirror")
        views = []
        for number in range(spec.count):
            light, local = number < spec.light, number >= spec.light + spec.strong
            side, share = (small, spec.local_share) if local else (size, spec.share)
            own = draws.of_view(number)
            boxes = looks.boxes_without(without, own, height, width, share)
            # in time less is cut off than in space: what happens takes time
            part, start = own.uniform(0.75 if light else 0.5, 1.0), own.uniform()
            if "time" in self.without:
                part, start = torch.ones_like(part), torch.full_like(start, 0.5)
            long = self._span(frames) * part
            long = long / 2 if local else long
            first = start * (frames - long)
            at = clips.moments(frames, first, long, self.frames // 2 if local else self.frames)
            look = None
            if not light:
                recipe = looks.recipe(number - spec.light, side, spec.alike, local)
                look = looks.draw_looks(own, looks.leave_out(recipe, self.without))
            views.append(self._cut(samples, at, boxes, side, look))
        return views

    def _cut(
        self,
        samples: list[dict[str, np.ndarray]],
        at: Tensor,
        boxes: looks.Boxes,
        size: int,
        look: looks.Looks | None = None,
    ) -> Float[Tensor, "b 3 t s s"]:
        scale = 1 / torch.tensor(self.std)[:, None, None, None]
        shift = torch.tensor(self.mean)[:, None, None, None] * scale
        out = torch.empty(len(samples), 3, at.shape[1], size, size)
        places = torch.stack(boxes[:4], 1).tolist()
        for row, sample in enumerate(samples):
            chosen = torch.from_numpy(sample["frames"][at[row].numpy()])
            x = clips.cut(chosen, tuple(places[row]), size, bool(boxes.mirrored[row])).float() / 255
            if look is not None:
                x = clips.disturbed(x, look, row)
            torch.mul(x.transpose(0, 1), scale, out=out[row]).sub_(shift)
        return out

    @staticmethod
    def _shapes(samples: list[dict[str, np.ndarray]]) -> tuple[Tensor, Tensor, Tensor]:
        """Frames, height and width of each clip."""
        shapes = torch.tensor([sample["frames"].shape[:3] for sample in samples])
        return shapes[:, 0], shapes[:, 1], shapes[:, 2]

    def _span(self, frames: Tensor) -> Float[Tensor, " b"]:
        """Stored frames that a view covers; a shorter clip is slowed down to fill it."""
        return frames.float().clamp(max=self.frames / self.rate * self.stored)

    local_size = staticmethod(Image.local_size)

    def plain(self, batch: Batch, size: int) -> Float[Tensor, "b 3 t size size"]:
        """The middle of each clip, and the middle square of its frames."""
        return on_one_core(partial(self._plain, batch, size)).to(batch.pixels.device)

    def _plain(self, batch: Batch, size: int) -> Tensor:
        samples = fields.unpack(batch.to("cpu"))
        frames, height, width = self._shapes(samples)
        long = self._span(frames)
        at = clips.moments(frames, (frames - long) / 2, long, self.frames)
        return self._cut(samples, at, looks.middle(height, width), size)

    def picture(self, x: Float[Tensor, "b 3 t h w"]) -> UInt8[Tensor, "b 3 h2 w2"]:
        """Four moments, to be read like lines of text."""
        mean = x.new_tensor(self.mean)[:, None, None]
        std = x.new_tensor(self.std)[:, None, None]
        return ((clips.sheet(x) * std + mean) * 255).round().clamp(0, 255).to(torch.uint8)

    def thumbnail(self, sample: UInt8[np.ndarray, "n 1 1"]) -> UInt8[np.ndarray, "h w 3"]:
        frames = torch.from_numpy(fields.unpack_one(sample[:, 0, 0])["frames"].copy())
        return clips.sheet(frames.permute(3, 0, 1, 2)[None])[0].permute(1, 2, 0).numpy()

    def describe(self, raw: Any) -> tuple[str, str, tuple[int, int]]:
        """Format, codec with frames a second, height and width."""
        if isinstance(raw, Frames):
            return "frames", f"{len(raw)} pictures", self._head(raw)[2:]
        if not isinstance(raw, bytes | Clip):
            return "array", f"{raw.dtype}, {len(raw)} frames", raw.shape[1:3]
        return videos.described(raw)

    def _heads(self, source: Source) -> list[Head]:
        """Of samples spread over the source, without those that cannot be read."""
        found = []
        for i in evenly(len(source), LOOKED_AT):
            try:
                raw = source.read(i)
                if isinstance(raw, bytes | Frames | Clip):
                    found.append(self._head(raw))
            except BadSample:
                continue
        return found

    @staticmethod
    def seconds(file: BinaryIO) -> float:
        return videos.seconds(file)

    def _head(self, raw: bytes | Frames | Clip) -> Head:
        """What is known of a clip before it is decoded; of pictures, the first one is."""
        if isinstance(raw, Frames):
            first = Image(keep_truncated=True).read(next(iter(raw.values()))())
            return Head(self.frame_rate, _spaced(raw, self.frame_rate)[1], *first.shape[:2])
        return videos.head(raw)

    def examples(self) -> list[Any]:
        """A square that moves over a pattern, in clips of several lengths."""
        random = np.random.Generator(np.random.Philox(20260101))
        made = []
        for count in (3, 16, 40):
            frames = np.broadcast_to(random.integers(0, 256, (48, 64, 3)), (count, 48, 64, 3))
            frames = frames.astype(np.uint8)
            for t in range(count):
                frames[t, 10:25, t % 45 : t % 45 + 15] = 255
            made.append(frames)
        return made

    def baseline(self, batch: Batch) -> Float[Tensor, "b p"]:
        """Pixels of eight moments of the whole clip, 16 across and grey; how much changed between
        them, place by place; mean and deviation of each colour. To be followed by a PCA."""
        return on_one_core(partial(self._baseline, batch))

    def _baseline(self, batch: Batch) -> Tensor:
        samples = fields.unpack(batch.to("cpu"))
        frames, height, width = self._shapes(samples)
        long = frames.float()
        at = clips.moments(frames, torch.zeros_like(long), long, 4 * SEGMENTS)
        boxes = torch.stack(looks.middle(height, width)[:4], 1).tolist()
        rows = []
        for sample, moments, box in zip(samples, at, boxes, strict=True):
            chosen = torch.from_numpy(sample["frames"][moments.numpy()])
            x = clips.cut(chosen, tuple(box), ACROSS, False).float() / 255
            grey = looks.luma(x)[:, 0]  # (t, h, w)
            still = grey.unflatten(0, (SEGMENTS, -1)).mean(1)
            moved = F.avg_pool2d(grey.diff(dim=0, prepend=grey[:1]).abs(), 2)
            moved = moved.unflatten(0, (SEGMENTS, -1)).mean(1)
            colour = torch.std_mean(x, (0, 2, 3), correction=0)
            rows.append(torch.cat([still.flatten(), MOTION * moved.flatten(), *colour]))
        return torch.stack(rows)

    def encoder(self, name: str, size: int, **keywords: Any) -> nn.Module:
        from ..encoder import TRANSFORMERS, build

        if name not in TRANSFORMERS:
            raise SelfsupError(
                "E202",
                f"{name} is no encoder of clips",
                why="these have three axes",
                do=f"--encoder {', '.join(TRANSFORMERS)}",
            )
        return build(name, (self.frames, size, size), **keywords)


def _spaced(clip: Frames, rate: float) -> tuple[np.ndarray, float]:
    """Places of the frames that are there, from 0, and the length in seconds.

    Numbers may go in steps: the most usual one is a frame.
    """
    numbers = np.fromiter(clip, np.int64, len(clip))
    steps, counts = np.unique(np.diff(numbers), return_counts=True)
    step = steps[counts.argmax()] if len(steps) else 1
    places = (numbers - numbers[0]) // step
    return places, float(places[-1] + 1) / rate
