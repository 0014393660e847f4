"""The main job on real data that every installation has: scikit-learn's handwritten digits.

1,797 digits, written by 43 people (UCI, Alpaydin and Kaynak 1998), become a folder of pictures like
any user's. An encoder learns from 1,297 of them without their labels; the other 500 judge it.
"""

import time
from pathlib import Path
from typing import Any, NamedTuple

from .console import Console, duration
from .stop import stop

LABELS = (1, 10)  # per class
SIDE = 16  # pixels; the data set has 8
TEST = 500


class Shown(NamedTuple):
    result: dict[str, Any]
    text: str
    exit_code: int = 0


def demo(
    *, out: Path = Path("runs/demo"), seconds: float = 17.0, console: Console | None = None
) -> Shown:
    """Pretrain on digits for `seconds`, judge, write the report. The data land beside `out`."""
    from .evaluate import evaluate
    from .pretrain import start
    from .report import report
    from .settings import Given

    console = console or Console()
    began = time.monotonic()
    data = digits(out.parent / f"{out.name}-digits")
    console.say(f"1. pictures: {data} (1,797 handwritten digits, real, embedded in scikit-learn)")
    console.say(f"2. pretraining without labels: selfsup pretrain {data / 'train'} --out {out}")
    options = {
        "data.path": data / "train",
        "method.name": "simclr",
        "encoder.name": "resnet18",
        "encoder.width": 0.25,
        "method.hidden": 256,
        "modality.mirror": False,  # a digit seen in the mirror is no digit
        "train.batch": 128,
        "train.minutes": seconds / 60,
        "data.cache": out.parent / f"{out.name}-cache",
    }
    given = {key: Given(value, "demo") for key, value in options.items()}
    done = start(given, out=out, console=console)
    if done.exit_code:
        return Shown(done.result, done.text, done.exit_code)

    console.say(f"3. did it help? selfsup evaluate {out} {data} --shots 1,10")
    # trainings on labels end at 41 s where pretraining has its usual 17, and otherwise in
    # proportion; frozen features and the report come to some 9 s more
    left = max(0.5 * seconds, 2.4 * seconds - (time.monotonic() - began))
    with stop.installed():
        found = evaluate(out, data, shots=LABELS, seeds=5, minutes=left / 60, console=console)
        page = report(out)
    console.say(f"4. report: {page}")
    took = time.monotonic() - began
    text = f"{found}\n\nreport: {page.resolve()}\ntook {duration(took)}"
    result = {"run": str(out), "report": str(page), "seconds": took, "gain": found.gain}
    return Shown(result | {"verdict": found.verdict, "evaluation": found.to_json()}, text)


def digits(folder: Path) -> Path:
    """FOLDER/train/7/0123.png and FOLDER/test/...; written once."""
    import numpy as np
    from PIL import Image
    from sklearn.datasets import load_digits

    done = folder / "DONE"
    if done.exists():
        return folder
    pictures, labels = load_digits(return_X_y=True)
    pictures = (pictures.reshape(-1, 8, 8) * (255 / 16)).astype(np.uint8)
    order = np.random.Generator(np.random.Philox(0)).permutation(len(pictures))
    for place, i in enumerate(order.tolist()):
        part = "test" if place < TEST else "train"
        path = folder / part / str(labels[i]) / f"{i:04d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pictures[i]).resize((SIDE, SIDE), Image.Resampling.BICUBIC).save(path)
    done.write_text("scikit-learn's digits, enlarged from 8 to 16 pixels\n")
    return folder


def scenes(folder: Path, count: int = 600, side: int = 32) -> Path:
    """FOLDER/pictures/0123.png: digits on textures; FOLDER/masks/0123.png: 1 where a digit is.

    Real digits, made-up surroundings: each picture has two colours of its own, one for the waves
    behind and one for the digit, so that no colour tells what is what.
    """
    import numpy as np
    from PIL import Image
    from sklearn.datasets import load_digits

    random = np.random.default_rng(0)
    for part in ("pictures", "masks"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    rows, columns = np.mgrid[:side, :side] / side
    for i, digit in enumerate(load_digits().images[:count]):
        size = int(random.integers(side // 2, 3 * side // 4 + 1))
        ink = Image.fromarray((digit * 15.9).astype(np.uint8)).resize((size, size))
        ink = np.asarray(ink, float) / 255
        top, left = random.integers(0, side - size + 1, 2)
        opaque = np.zeros((side, side))
        opaque[top : top + size, left : left + size] = ink
        behind, before = random.uniform(0.1, 0.9, (2, 3))
        angle, waves = random.uniform(0, np.pi), random.uniform(2, 8)
        wave = np.sin(2 * np.pi * waves * (rows * np.cos(angle) + columns * np.sin(angle)))
        picture = behind + 0.15 * wave[:, :, None] + random.normal(0, 0.05, (side, side, 3))
        picture = picture * (1 - opaque[:, :, None]) + before * opaque[:, :, None]
        name = f"{i:04d}.png"
        pixels = (picture * 255).clip(0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / "pictures" / name)
        Image.fromarray((opaque > 0.5).astype(np.uint8)).save(folder / "masks" / name)
    return folder
