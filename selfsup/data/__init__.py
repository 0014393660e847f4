"""From any kind of storage to batches: sources, the decode-once store, the counter-based loader."""

from importlib import import_module

_WHERE = {
    "BadSample": "outcome",
    "Batch": "batch",
    "Ledger": "outcome",
    "Loader": "loader",
    "Source": "sources",
    "Store": "store",
    "open_source": "sources",
    "open_store": "store",
}

__all__ = [
    "BadSample",
    "Batch",
    "Ledger",
    "Loader",
    "Source",
    "Store",
    "open_source",
    "open_store",
]


def __getattr__(name: str):
    # sources and scan need no torch, so nothing that imports it is loaded before it is asked for
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_WHERE[name]}", __name__), name)


def __dir__() -> list[str]:
    return __all__
