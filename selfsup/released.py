"""A teacher that somebody released: a frozen network whose features another one learns.

It is named by a folder (a run or an export, or a model that timm or transformers saved), or as
timm:NAME or hf:NAME, which those packages then fetch. Of a folder nothing but numbers and settings
is used: weights are safetensors, and no file in it names code.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import interpolate

from .errors import SelfsupError

WEIGHTS = "model.safetensors"
SAFE = "save the model once more as safetensors: other formats can hold programs"
LINEAR = {1: "linear", 2: "bilinear", 3: "trilinear"}


@dataclass(eq=False)
class Released:
    """One vector for each place of a grid. Never trained, and no part of the state of a run.

    `maps(network, x)` gives (b, dim, *its own grid). `side` is that of the pictures that it has
    learned from, 0 where views are seen as they are; `scale` is the gain and the shift by which
    their channels come to its own.
    """

    network: nn.Module
    maps: Callable[[Any, Tensor], Tensor]
    dim: int
    side: int = 0
    scale: tuple[Float[Tensor, " c"], Float[Tensor, " c"]] | None = None

    def __post_init__(self) -> None:
        self.network.eval().requires_grad_(False)

    @torch.no_grad()
    def __call__(self, x: Float[Tensor, "b c *size"], grid: tuple[int, ...]) -> Tensor:
        """(b, n, dim) for the n places of `grid`, between which its own are interpolated."""
        if self.scale is not None:
            gain, shift = (part.to(x).view(-1, *[1] * (x.ndim - 2)) for part in self.scale)
            x = x * gain + shift
        if self.side:
            x = resized(x, self.side)
        found = self.maps(self.network.to(x.device), x).float()
        if found.ndim - 2 != len(grid):
            raise SelfsupError(
                "E202",
                "the teacher cannot teach this encoder",
                why=f"its places lie on a grid of {found.ndim - 2} axes, not of {len(grid)}",
            )
        if tuple(found.shape[2:]) != grid:
            found = interpolate(found, grid, mode=LINEAR[len(grid)], align_corners=False)
        return found.flatten(2).transpose(1, 2)


def resized(x: Float[Tensor, "b c *t h w"], side: int) -> Float[Tensor, "b c *t s s"]:
    if x.shape[-2:] == (side, side):
        return x
    flat = x.flatten(1, -3)
    flat = interpolate(flat, (side, side), mode="bilinear", antialias=True, align_corners=False)
    return flat.unflatten(1, x.shape[1:-2])


def taught(
    keywords: Mapping[str, Any], modality: Any, size: int, *, fetch: bool = True
) -> dict[str, Any]:
    """A method's settings, with the teacher in the place of its name, if they name one."""
    name = keywords.get("teacher")
    teacher = {"teacher": find(str(name), modality, size, fetch=fetch)} if name else {}
    return {**keywords, **teacher}


def find(name: str, modality: Any, size: int, *, fetch: bool = True) -> Released:
    """The teacher called `name`, for views of `size` as `modality` makes them.

    Without `fetch` only folders can be named, as where a run that is looked at names the teacher.
    Raises SelfsupError: E601 nothing there, E603 weights that do not fit, E202 a teacher of other
    data, E204 a package that is missing.
    """
    kind, _, rest = name.partition(":")
    with torch.random.fork_rng(devices=[]):  # what a teacher draws changes no student
        if kind in FETCHED and rest:
            if not fetch:
                raise SelfsupError("E601", f"the teacher {name} is fetched for training alone")
            try:
                return FETCHED[kind](rest, modality)
            except (OSError, RuntimeError, ValueError) as error:
                why = str(error).splitlines()[0]
                raise SelfsupError("E601", f"{name} cannot be fetched", why=why) from None
        folder = Path(name)
        told = _told(folder / "config.json")
        if "architecture" in told:
            return of_timm(folder, modality)
        if "model_type" in told:
            return of_transformers(folder, modality)
        return of_run(folder, modality, size)


def of(encoder: Any, side: int = 0, scale: tuple[Tensor, Tensor] | None = None) -> Released:
    """An encoder of our own; the rest is as in Released."""
    return Released(encoder, _own, encoder.dim, side, scale)


def of_run(folder: Path, modality: Any, size: int) -> Released:
    """A run or an export of data of the same kind."""
    from .load import load

    found = load(folder)
    if _knows(found.modality) != _knows(modality):
        same = found.modality.name == modality.name
        raise SelfsupError(
            "E202",
            f"{folder} cannot teach here",
            why="it has learned from data of another vocabulary, scale or colours"
            if same
            else f"it has learned from {found.modality.name} data, and these are {modality.name}",
            do="give the run of a teacher that saw the same data, or data of the same kind",
        )
    if modality.unit != "px" and found.size != size:
        raise SelfsupError(
            "E202",
            f"{folder} cannot teach here",
            why=f"it looks at {found.size} {modality.unit}, and views here have {size}",
            do=f"--resolution {found.size}",
        )
    if modality.unit != "px":
        return of(found.encoder)
    scale = _scale(modality, found.modality.mean, found.modality.std)
    return of(found.encoder, found.size, scale)


def of_timm(source: str | Path, modality: Any) -> Released:
    """A model of timm, from a folder or, by its name, as timm fetches it."""
    _pictures(modality, "timm")
    timm = _package("timm", "timm")
    if isinstance(source, Path):  # its configuration is timm's to read, its weights are not
        _there(source, WEIGHTS, SAFE)
        network = timm.create_model(f"local-dir:{source}", pretrained=False, num_classes=0)
        _fill(network, source / WEIGHTS)
    else:
        network = timm.create_model(source, pretrained=True, num_classes=0)
    if not hasattr(network, "forward_intermediates"):
        raise SelfsupError("E202", f"{source} has no map of features that timm could tell")
    seen = timm.data.resolve_model_data_config(network)
    scale = _scale(modality, seen["mean"], seen["std"])
    return Released(network, _timm, network.num_features, seen["input_size"][-1], scale)


def of_transformers(source: str | Path, modality: Any) -> Released:
    """A model of transformers for pictures, from a folder or, by its name, as they fetch it."""
    _pictures(modality, "transformers")
    package = _package("transformers", "hf")
    only = {"local_files_only": isinstance(source, Path)}
    if isinstance(source, Path):
        _there(source, WEIGHTS, SAFE)
        _there(source, "preprocessor_config.json", "save the model's image processor there too")
    model = package.AutoModel.from_pretrained(source, use_safetensors=True, **only)
    model = getattr(model, "vision_model", model)  # of a model for pictures and texts
    reader = _package("transformers.image_processing_base", "hf").ImageProcessingMixin
    seen, _ = reader.get_image_processor_dict(source, **only)
    shape = seen.get("crop_size") or seen.get("size") or {}
    side = shape.get("height") or model.config.image_size
    width = getattr(model.config, "hidden_size", None) or model.config.hidden_sizes[-1]
    scale = _scale(modality, seen["image_mean"], seen["image_std"])
    return Released(model, _transformers, width, side, scale)


FETCHED: dict[str, Callable[[Any, Any], Released]] = {"timm": of_timm, "hf": of_transformers}


# ---- maps of features ---------------------------------------------------------------------------


def _own(network: Any, x: Tensor) -> Tensor:
    return network.features(x).transpose(1, 2).unflatten(2, network.grid)


def _timm(network: Any, x: Tensor) -> Tensor:
    return network.forward_intermediates(x, indices=1, norm=True, intermediates_only=True)[-1]


def _transformers(network: Any, x: Tensor) -> Tensor:
    found = network(pixel_values=x).last_hidden_state
    if found.ndim == 4:
        return found
    patch = getattr(network.config, "patch_size", None)
    grid = tuple(side // patch for side in x.shape[2:]) if isinstance(patch, int) else ()
    if not grid or prod(grid) > found.shape[1]:
        raise SelfsupError(
            "E202",
            f"{type(network).__name__} cannot teach",
            why="it gives neither a map of features nor a token for each square patch",
        )
    places = found[:, -grid[0] * grid[1] :]  # what is no place comes first
    return places.transpose(1, 2).unflatten(2, grid)


# ---- folders ------------------------------------------------------------------------------------


def _told(path: Path) -> dict[str, Any]:
    """A small JSON file; nothing where there is none."""
    if not path.is_file():
        return {}
    try:
        with path.open("rb") as file:
            told = json.loads(file.read(1 << 20))
    except ValueError as error:
        raise SelfsupError("E602", f"{path} is not valid JSON", why=str(error)) from None
    return told if isinstance(told, dict) else {}


def _fill(network: nn.Module, path: Path) -> None:
    """Weights of all parts but the classifier, which the network does not have."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    wanted = network.state_dict()
    try:
        tensors = {k: v for k, v in load_file(path).items() if k in wanted}
        network.load_state_dict(tensors)
    except (SafetensorError, RuntimeError) as error:
        why = str(error).splitlines()[0]
        raise SelfsupError("E603", "the weights of the teacher cannot be used", why=why) from None


def _there(folder: Path, name: str, do: str) -> None:
    if not (folder / name).is_file():
        raise SelfsupError("E601", f"there is no {name} in {folder}", do=do)


def _knows(modality: Any) -> tuple[Any, ...]:
    """What must be the same for a teacher to see what its student does, but for an affine scale."""
    return modality.name, modality.state, getattr(modality, "colour", "")


def _scale(modality: Any, mean: Any, std: Any) -> tuple[Tensor, Tensor]:
    """The gain and shift by which what the modality shows becomes what the teacher knows."""
    ours = torch.tensor(modality.mean), torch.tensor(modality.std)
    theirs = torch.tensor(mean), torch.tensor(std)
    return ours[1] / theirs[1], (ours[0] - theirs[0]) / theirs[1]


def _pictures(modality: Any, package: str) -> None:
    if modality.name != "image" or modality.colour != "rgb":
        kind = modality.colour if modality.name == "image" else modality.name
        raise SelfsupError(
            "E202",
            f"models of {package} teach RGB pictures alone, and these data are {kind}",
            do="give the run of an encoder of such data as teacher",
        )


def _package(name: str, extra: str) -> Any:
    from importlib import import_module

    try:
        return import_module(name)
    except ImportError:
        raise SelfsupError(
            "E204", f"this teacher needs {name}", do=f"pip install 'selfsup[{extra}]'"
        ) from None
