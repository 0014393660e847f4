"""Learn an encoder from unlabelled data, and find out honestly whether it helped.

    run = selfsup.pretrain("photos/", minutes=10)
    print(run.evaluate("labelled/"))
    encoder = selfsup.load(run.path)

Nothing is imported until it is used: `import selfsup` is instant, and needs no torch.
"""

import importlib
import sys
import types
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from .compare import compare
    from .embed import embed
    from .encoder import build
    from .errors import SelfsupError
    from .evaluate import evaluate
    from .evaluate.control import control
    from .export import export
    from .finetune import finetune
    from .generate import generate
    from .load import load
    from .method import Method, Views
    from .predict import predict
    from .pretrain import pretrain
    from .report import report
    from .run import Run
    from .scan import scan
    from .search import search
    from .simulate import simulate
    from .train import train
    from .transfer.model import load_model
    from .variants import variants

_HOME = {
    "Method": "method",
    "Run": "run",
    "SelfsupError": "errors",
    "Views": "method",
    "build": "encoder",
    "compare": "compare",
    "control": "evaluate.control",
    "embed": "embed",
    "evaluate": "evaluate",
    "export": "export",
    "finetune": "finetune",
    "generate": "generate",
    "load": "load",
    "load_model": "transfer.model",
    "predict": "predict",
    "pretrain": "pretrain",
    "report": "report",
    "scan": "scan",
    "search": "search",
    "simulate": "simulate",
    "train": "train",
    "variants": "variants",
}

__all__ = [
    "Method",
    "Run",
    "SelfsupError",
    "Views",
    "build",
    "compare",
    "control",
    "embed",
    "evaluate",
    "export",
    "finetune",
    "generate",
    "load",
    "load_model",
    "predict",
    "pretrain",
    "report",
    "scan",
    "search",
    "simulate",
    "train",
    "variants",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f".{_HOME[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


class _FrontDoor(types.ModuleType):
    """Several verbs live in a module of their own name, and importing `selfsup.embed` would put
    that module in the place of the function `selfsup.embed`. Here the function always stays.
    """

    def __setattr__(self, name: str, value: Any) -> None:
        if not (name in _HOME and isinstance(value, types.ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _FrontDoor
