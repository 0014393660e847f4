"""Checkpoints that survive a kill at any moment and a disk that lies.

A checkpoint is a folder: safetensors and JSON files, each synced to the disk, then a manifest with
their sizes and hashes, then the folder gets its name, then its parent is synced. A folder without a
manifest that verifies does not count. The last two are kept, so one is always whole.
"""

import errno
import hashlib
import json
import os
import re
import shutil
import struct
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from . import faults, logs

MANIFEST = "MANIFEST.json"
NAMED = re.compile(r"step-(\d+)")
SPARE = 1.2  # free space asked for, as a multiple of what will be written
BLOCK = 1 << 24  # bytes written at a time
# The system refuses to read, which says nothing of what is on the disk
REFUSED = {
    *(errno.EACCES, errno.EPERM, errno.EMFILE, errno.ENFILE),
    *(errno.ESTALE, errno.ENOMEM, errno.ETIMEDOUT),
}

DTYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}

Tensors = dict[str, Tensor]


class Checkpoints:
    """The checkpoints of a run, `folder/step-000123/`."""

    def __init__(self, folder: Path, keep: int = 2):
        if keep < 2:
            raise ValueError(f"keep is {keep}; at least 2 checkpoints must stay")
        self.folder, self.keep = Path(folder), keep

    def save(
        self,
        step: int,
        files: dict[str, Tensors],
        state: dict[str, Any],
        *,
        whole: Callable[[Tensor], Tensor] = lambda x: x,
        writes: bool = True,
    ) -> Path:
        """Write a checkpoint. `files` holds the tensors of each safetensors file.

        One tensor at a time passes through `whole`, which gathers what is spread over ranks: every
        rank calls `save`, one of them `writes`. Raises SelfsupError E303 when the disk is full;
        older checkpoints are then untouched and nothing half-written stays behind.
        """
        name = f"step-{step:06d}"
        final, temporary = self.folder / name, self.folder / f"{name}.tmp"
        if not writes:
            for tensors in files.values():
                for x in tensors.values():
                    whole(x)
            return final
        needed = sum(x.numel() * x.element_size() for part in files.values() for x in part.values())
        try:
            faults.at("checkpoint.begin")
            self.folder.mkdir(parents=True, exist_ok=True)
            self._ask_for_space(needed)
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir()
            manifest = {
                f"{part}.safetensors": _write(
                    temporary / f"{part}.safetensors", _tensor_bytes(tensors, whole)
                )
                for part, tensors in files.items()
            }
            manifest["state.json"] = _write(temporary / "state.json", [_json(state)])
            faults.at("checkpoint.before_manifest")
            _write(temporary / MANIFEST, [_json({"format": 1, "step": step, "files": manifest})])
            faults.at("checkpoint.after_manifest")
            if final.exists():  # a step that is run again after a rollback
                shutil.rmtree(final)
            temporary.rename(final)
            faults.at("checkpoint.after_rename")
            _sync_folder(self.folder)
        except OSError as error:
            shutil.rmtree(temporary, ignore_errors=True)
            raise logs.disk_error(error, final, needed) from error
        logs.replace(self.folder / "latest", f"{name}\n".encode())
        faults.at("checkpoint.after_latest")
        for old in self.list()[: -self.keep]:
            faults.at("checkpoint.prune")
            shutil.rmtree(old, ignore_errors=True)
        return final

    def list(self) -> list[Path]:
        """All checkpoints by step, whether or not they are whole."""
        if not self.folder.is_dir():
            return []
        found = [p for p in self.folder.iterdir() if NAMED.fullmatch(p.name) and p.is_dir()]
        return sorted(found, key=lambda path: int(path.name.removeprefix("step-")))

    def newest(self, told: Callable[[Path, str], None] = lambda path, why: None) -> Path | None:
        """The newest checkpoint that verifies. Newer ones that do not are set aside as `.corrupt`.

        `told(path, why)` is called for each of those. Changes the folder: hold the run's lock.
        """
        for leftover in self.folder.glob("step-*.tmp") if self.folder.is_dir() else ():
            shutil.rmtree(leftover, ignore_errors=True)
        for path in reversed(self.list()):
            fault = check(path)
            if not fault:
                return path
            aside = path.with_name(path.name + ".corrupt")
            shutil.rmtree(aside, ignore_errors=True)
            path.rename(aside)
            told(aside, fault)
        return None

    def _ask_for_space(self, needed: int) -> None:
        free = logs.free_bytes(self.folder)
        if free < needed * SPARE:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def newest_whole(folder: Path) -> Path | None:
    """The newest checkpoint that verifies, for readers: nothing in the folder is changed."""
    return next((p for p in reversed(Checkpoints(folder).list()) if not check(p)), None)


def check(path: Path) -> str:
    """What is wrong with a checkpoint, in words, or an empty string.

    Raises OSError where the system refuses to read it now: it may well be whole.
    """
    try:
        manifest = json.loads((path / MANIFEST).read_bytes())
        files = manifest["files"]
        for name, expected in files.items():
            if Path(name).name != name or (path / name).is_symlink():
                return f"{name} is not a plain file of the checkpoint"
            size = (path / name).stat().st_size
            if size != expected["bytes"]:
                return f"{name} has {size} bytes instead of {expected['bytes']}"
            if _hash(path / name) != expected["blake2b"]:
                return f"the content of {name} has changed since it was written"
    except FileNotFoundError as error:
        return f"{Path(str(error.filename)).name} is missing"
    except OSError as error:
        if error.errno in REFUSED:
            raise
        return f"{Path(error.filename or path / MANIFEST).name} cannot be read: {error}"
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        return f"{MANIFEST} cannot be read: {error}"
    return ""


def read_state(path: Path) -> dict[str, Any]:
    return json.loads((path / "state.json").read_bytes())


def read(path: Path, part: str) -> Iterator[tuple[str, Tensor]]:
    """The tensors of one file of a checkpoint, one at a time."""
    with safe_open(path / f"{part}.safetensors", framework="pt") as file:
        for name in file.keys():  # noqa: SIM118 (not a dict)
            yield name, file.get_tensor(name)


def write_tensors(path: Path, tensors: Tensors) -> None:
    """A safetensors file, written tensor by tensor: no second copy of the model in memory."""
    _write(path, _tensor_bytes(tensors, lambda x: x))


def _tensor_bytes(tensors: Tensors, whole: Callable[[Tensor], Tensor]) -> Iterator[bytes | Any]:
    """The safetensors format: header length (8 bytes, little endian), JSON header, raw tensors."""
    header: dict[str, Any] = {}
    offset = 0
    for name, x in tensors.items():
        end = offset + x.numel() * x.element_size()
        header[name] = {
            "dtype": DTYPES[x.dtype],
            "shape": list(x.shape),
            "data_offsets": [offset, end],
        }
        offset = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)  # tensors start at a multiple of 8
    yield struct.pack("<Q", len(text)) + text
    for x in tensors.values():
        faults.at("checkpoint.tensor")
        x = whole(x.detach()).cpu().contiguous()
        if x.numel():
            yield memoryview(x.reshape(-1).view(torch.uint8).numpy())


def _write(path: Path, blocks: Iterable[Any]) -> dict[str, Any]:
    """Write and sync a file; its entry in the manifest."""
    digest, size = hashlib.blake2b(digest_size=32), 0
    with path.open("wb", buffering=0) as file:
        for block in blocks:
            view = memoryview(block)
            for start in range(0, len(view), BLOCK):
                piece = view[start : start + BLOCK]
                digest.update(piece)
                size += len(piece)
                while piece:  # a nearly full disk takes a part of it
                    piece = piece[file.write(piece) :]
        faults.at("checkpoint.before_fsync")
        os.fsync(file.fileno())
    faults.at("checkpoint.after_fsync")
    return {"bytes": size, "blake2b": digest.hexdigest()}


def _hash(path: Path) -> str:
    digest = hashlib.blake2b(digest_size=32)
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()


def _json(value: Any) -> bytes:
    return (json.dumps(logs.spell(value), indent=1, allow_nan=False) + "\n").encode()


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
