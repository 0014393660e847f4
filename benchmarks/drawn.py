"""Data that the cases run on: made up, with the sizes and the habits of real ones.

Each function draws `count` samples into a folder, once, and returns the path that the library and
its peers open. The same numbers come out each time.
"""

import math
import wave
from pathlib import Path

import numpy as np
from PIL import Image

SYMBOL = 0x20000  # the first of 42,720 letters that follow one another in Unicode
LETTERS = " \netaoinsrhldcumfpgwybvkxjqzETAOINSRHLDCUMFPGWYBVKXJQZ.,;:'-?!&3$"
RESIDUES = "LAGVESIKRDTPNQFYMHCW"  # amino acids, the usual ones first
RATE = 16_000  # of sounds


def pictures(folder: Path, count: int, side: int) -> Path:
    """JPEG files, `side` pixels square, about as hard to decode as photographs."""
    folder = folder / f"pictures-{side}"
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        path = folder / f"{number:05d}.jpg"
        if not path.exists():
            Image.fromarray(_picture(_random(number), side)).save(path, quality=90)
    return folder


def prose(folder: Path, count: int) -> Path:
    """One file of a million letters of 65 kinds, as long as tiny Shakespeare."""
    path = folder / "prose.txt"
    if not path.exists():
        drawn = _zipf(_random(0), 1_000_000, len(LETTERS))
        _write(path, "".join(LETTERS[i] for i in drawn))
    return path


def documents(folder: Path, count: int, symbols: int) -> Path:
    """Files of 128 to 320 symbols, of which there are so many kinds; each kind occurs."""
    folder = folder / f"documents-{count}"
    if folder.exists():
        return folder
    random = _random(1)
    lengths = random.integers(128, 320, count)
    rest = _zipf(random, max(0, lengths.sum() - symbols), symbols)
    drawn = random.permutation(np.concatenate([np.arange(symbols), rest]))
    for number, part in enumerate(np.split(drawn, lengths.cumsum()[:-1])):
        _write(folder / f"{number:05d}.txt", _symbols(part))
    return folder


def proteins(folder: Path, count: int) -> Path:
    """A FASTA file of sequences whose lengths differ as those of small proteins do."""
    path, random = folder / f"proteins-{count}.fasta", _random(2)
    if not path.exists():
        lengths = random.lognormal(math.log(180), 0.5, count).clip(40, 1000).astype(int)
        shares = np.linspace(10, 1, len(RESIDUES)) / 110
        lines = ("".join(random.choice(list(RESIDUES), n, p=shares)) for n in lengths)
        _write(path, "".join(f">{number}\n{line}\n" for number, line in enumerate(lines)))
    return path


def sounds(folder: Path, count: int) -> Path:
    """Five-second recordings, more of low frequencies than of high ones, in bursts."""
    folder = folder / "sounds"
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        path, random = folder / f"{number:05d}.wav", _random(number)
        if path.exists():
            continue
        n = 5 * RATE
        spectrum = np.fft.rfft(random.normal(size=n)) / np.arange(1, n // 2 + 2) ** 0.5
        loud = np.interp(np.arange(n), np.linspace(0, n, 20), random.uniform(0.05, 1, 20))
        sound = np.fft.irfft(spectrum) * loud
        with wave.open(str(path), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(RATE)
            file.writeframes((sound * (30_000 / np.abs(sound).max())).astype("<i2").tobytes())
    return folder


def series(folder: Path, count: int) -> Path:
    """A .ts file of series of 200 steps and 7 channels: slow waves and noise."""
    path, random = folder / f"series-{count}.ts", _random(3)
    if not path.exists():
        shape = (count, 7, 1)
        turns = np.arange(200) / random.uniform(3, 40, shape) + random.uniform(0, 6, shape)
        cases = np.sin(turns) + 0.3 * random.normal(size=turns.shape)
        lines = (":".join(",".join(f"{v:.3f}" for v in channel) for channel in c) for c in cases)
        _write(path, "@classLabel false\n@data\n" + "\n".join(lines) + "\n")
    return path


def citations(folder: Path, count: int) -> Path:
    """One graph like Cora: 5,278 edges, most of them at few nodes; 18 of 1,433 words a node."""
    path, random = folder / f"citations-{count}.npz", _random(4)
    if not path.exists():
        edges = np.sort(_zipf(random, (2, 20_000), count), 0)
        edges = np.unique(edges[:, edges[0] != edges[1]], axis=1)
        edges = edges[:, random.permutation(edges.shape[1])[:5278]]
        words = np.zeros((count, 1433), np.uint8)
        words[np.arange(count)[:, None], _zipf(random, (count, 18), 1433)] = 1
        folder.mkdir(parents=True, exist_ok=True)
        np.savez(path, edge_index=edges, x=words)
    return path


def captioned(folder: Path, count: int, side: int, symbols: int) -> Path:
    """A table of pictures and of captions of 8 to 24 symbols."""
    folder, random = folder / f"captioned-{side}", _random(5)
    path, place = folder / f"captions-{count}.csv", pictures(folder, count, side).name
    if not path.exists():
        captions = (_symbols(_zipf(random, random.integers(8, 25), symbols)) for _ in range(count))
        rows = (f"{place}/{number:05d}.jpg,{text}\n" for number, text in enumerate(captions))
        _write(path, "image,caption\n" + "".join(rows))
    return path


def clips(folder: Path, count: int, side: int) -> Path:
    """An array of clips of 24 frames: a camera that moves over a picture."""
    path = folder / f"clips-{count}.npy"
    if path.exists():
        return path
    folder.mkdir(parents=True, exist_ok=True)
    made = np.lib.format.open_memmap(path, "w+", np.uint8, (count, 24, side, side, 3))
    for number, clip in enumerate(made):
        scene = _picture(_random(number), 2 * side)
        for frame, shift in enumerate(np.linspace(0, side - 1, 24).astype(int)):
            clip[frame] = scene[shift : shift + side, side // 2 : side // 2 + side]
    made.flush()
    return path


def episodes(folder: Path, count: int) -> Path:
    """Walks through the two rooms of `selfsup simulate`."""
    from selfsup.simulate import simulate

    folder = folder / "episodes"
    if not folder.exists():
        simulate("rooms", folder, episodes=count)
    return folder


def _random(seed: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(seed))


def _picture(random: np.random.Generator, side: int) -> np.ndarray:
    """Noise of all sizes, the coarse ones strongest, as in photographs (a spectrum of 1/f)."""
    picture = np.zeros((side, side, 3), np.float32)
    for level in range(int(math.log2(side)) - 1):
        coarse = random.normal(0, 40 / (level + 1), (2 << level, 2 << level, 3)) + 128
        grown = Image.fromarray(coarse.clip(0, 255).astype(np.uint8)).resize((side, side))
        picture += np.asarray(grown, np.float32) - 128
    return (picture + 128).clip(0, 255).astype(np.uint8)


def _zipf(random: np.random.Generator, size, kinds: int) -> np.ndarray:
    """Numbers below `kinds`, each as often as words are: by one over its rank."""
    shares = 1 / np.arange(1, kinds + 1)
    return np.searchsorted(shares.cumsum() / shares.sum(), random.random(size)).clip(max=kinds - 1)


def _symbols(numbers: np.ndarray) -> str:
    return "".join(chr(SYMBOL + number) for number in numbers.tolist())


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, "utf-8")
