"""Every key that is there for all runs: its type, its limits, its default, what it means."""

import types
import typing
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.fields import FieldInfo

NONE = "none"  # TOML has no null
LENGTHS = ("train.steps", "train.epochs", "train.minutes")
CHOSEN: Any = None  # by the plan, or by the method
# Sections whose keys are the keyword arguments of what their `name` names -> its shelf
SHELVES = {"modality": "modalities", "method": "methods", "encoder": "encoders"}


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


class Top(Section):
    format: Literal[1] = Field(1, description="version of this file's layout")
    start_from: str | None = Field(None, description="run whose weights are the start")
    start_towers: tuple[str, ...] = Field(
        (), strict=False, description="runs that towers start from, each as tower=RUN"
    )


class Data(Section):
    path: str | None = Field(None, description="folder, tar shards, parquet, CSV or array file")
    labels: str | None = Field(None, description="labelled folder or CSV for the online kNN alone")
    resolution: int = Field(
        CHOSEN, ge=4, le=1 << 20, description="size of a view: pixels a side, tokens, time steps"
    )
    cache: str | None = Field(None, description="folder of the decoded samples; none: the user's")
    follow_links: bool = Field(False, description="follow links that lead out of the data folder")
    drop_copies: bool = Field(False, description="leave out files that are copies of others")
    workers: int = Field(2, ge=0, le=256, description="threads that prepare batches")


class ModalityName(Section):
    name: str = Field(
        CHOSEN, description="selfsup list modalities; its settings are the other keys"
    )


class MethodName(Section):
    name: str = Field(CHOSEN, description="selfsup list methods; its settings are the other keys")


class EncoderName(Section):
    name: str = Field(CHOSEN, description="selfsup list encoders; its settings are the other keys")


class OptimSettings(Section):
    name: Literal["adamw", "muon", "sgd", "lars"] = Field(CHOSEN, description="the optimizer")
    lr: float = Field(
        CHOSEN, gt=0, description="learning rate for a batch of `per`; scales linearly"
    )
    per: int = Field(CHOSEN, ge=1, description="the batch size that lr belongs to")
    weight_decay: float = Field(CHOSEN, ge=0, description="not on biases, norms and positions")
    weight_decay_end: float | None = Field(None, ge=0, description="cosine from weight_decay here")
    betas: tuple[float, float] = Field(CHOSEN, strict=False, description="of AdamW and Muon")
    momentum: float = Field(CHOSEN, ge=0, lt=1, description="of SGD and LARS")
    warmup: float = Field(CHOSEN, ge=0, lt=1, description="share of all steps")
    clip: float | None = Field(None, gt=0, description="largest gradient norm; none: no clipping")
    final: float = Field(CHOSEN, ge=0, le=1, description="learning rate at the end, a share of lr")


class Train(Section):
    steps: int | None = Field(None, ge=1, description="length in optimizer steps")
    epochs: float | None = Field(None, gt=0, description="length in passes over the data")
    minutes: float | None = Field(None, gt=0, description="length in minutes of training")
    batch: int = Field(CHOSEN, ge=2, description="samples per step, over all processes")
    accumulate: int = Field(1, ge=1, description="parts in which a batch is computed")
    chunk: int | None = Field(
        None, ge=1, description="views that the encoder takes at a time; the loss sees all"
    )
    seed: int = Field(0, ge=0, lt=2**62, description="all random numbers follow from it")
    precision: Literal["auto", "bf16", "fp32"] = Field(
        "auto", description="auto: bf16 where it measures faster"
    )
    shard: bool = Field(False, description="spread the weights over processes (FSDP2)")
    compile: bool = Field(False, description="torch.compile the method")


class Checkpoint(Section):
    every_minutes: float = Field(5.0, gt=0, description="time between two saves")
    keep: int = Field(2, ge=2, description="how many are kept")


class Log(Section):
    tensorboard: bool = Field(False, description="write TensorBoard files too")
    wandb: bool = Field(False, description="send metrics to Weights & Biases too")


SECTIONS: dict[str, type[Section]] = {
    "data": Data,
    "modality": ModalityName,
    "method": MethodName,
    "encoder": EncoderName,
    "optim": OptimSettings,
    "train": Train,
    "checkpoint": Checkpoint,
    "log": Log,
}


MODELS: dict[str, type[Section]] = {"": Top, **SECTIONS}


def dotted(section: str, key: str) -> str:
    """The name by which a key is given; those at the top have no section."""
    return f"{section}.{key}" if section else key


def optional(field: FieldInfo) -> bool:
    """Whether it may be "none"."""
    return types.NoneType in typing.get_args(field.annotation)
