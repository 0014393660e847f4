"""The keys of a method, an encoder, a modality: keyword-only arguments of its constructor."""

import importlib
import inspect
import typing
from functools import cache
from typing import Annotated, Any

from pydantic import Field, create_model

from .. import listing
from .schema import EncoderName, MethodName, ModalityName, Section


def method_class(name: str) -> Any:
    """The class in `methods/<name>.py`. Only names found in the folder are imported."""
    entry = listing.find("methods", name)
    module = importlib.import_module(f"..methods.{entry.name}", __package__)
    return getattr(module, entry.class_name)


def encoder_builder(name: str) -> Any:
    """The function that builds the encoder called `name`. Only names in the tables are imported."""
    entry = listing.find("encoders", name)
    return getattr(importlib.import_module(f"..{entry.module}", __package__), entry.class_name)


@cache
def keywords_model(shelf: str, name: str) -> type[Section]:
    """A section of the schema from the constructor of what is named."""
    base: type[Section]
    if shelf == "method":
        constructor, base = method_class(name).__init__, MethodName
    elif shelf == "modality":
        from .. import modalities

        constructor, base = modalities.find(name).__init__, ModalityName
    else:
        constructor, base = encoder_builder(name), EncoderName
    fields: dict[str, Any] = {}
    hints = typing.get_type_hints(constructor)
    for key, parameter in inspect.signature(constructor).parameters.items():
        if parameter.kind is not inspect.Parameter.KEYWORD_ONLY:
            continue
        assert key in hints, f"{name}: the keyword {key} has no annotation"
        annotation, default = hints[key], parameter.default
        if _has_tuple(annotation):
            annotation = Annotated[annotation, Field(strict=False)]
        fields[key] = (annotation, ... if default is inspect.Parameter.empty else default)
    return create_model(f"{shelf}_{name}", __base__=base, **fields)


def keyword_defaults(shelf: str, name: str) -> dict[str, Any]:
    """The paper's values: keyword -> default of the constructor."""
    model = keywords_model(shelf, name)
    return {
        key: field.default
        for key, field in model.model_fields.items()
        if key != "name" and not field.is_required()
    }


def _has_tuple(annotation: Any) -> bool:
    parts = typing.get_args(annotation) or (annotation,)
    return typing.get_origin(annotation) is tuple or any(
        typing.get_origin(part) is tuple for part in parts
    )
