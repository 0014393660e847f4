"""What is on the shelves, read from the source files without importing them (or torch).

The folder is the registry: a public class whose base is `Method` in `methods/mae.py` is the method
"mae"; likewise `Modality`. Encoders are the keys of the tables in FAMILIES.
"""

import ast
import re
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path

from .console import did_you_mean
from .errors import SelfsupError

ROOT = Path(__file__).parent
# File, table of encoders in it, function in it that builds them
FAMILIES = (
    ("encoder", "TRANSFORMERS", "vit"),
    ("encoder", "RESNETS", "resnet"),
    ("dilated", "DILATED", "dilated"),
    ("graph", "NETWORKS", "network"),
    ("sound", "SPECTRAL", "spectral"),
    ("sound", "WAVES", "wave"),
    ("steps", "OBSERVERS", "observer"),
    ("language", "BIDIRECTIONAL", "language"),
    ("language", "CAUSAL", "language"),
    ("carp", "CONVOLUTIONS", "carp"),
    ("towers", "TOWERS", "towers"),
)


@dataclass(frozen=True)
class Listed:
    """One thing on a shelf, as its own source describes it."""

    name: str
    title: str  # first line of its docstring
    idea: str = ""  # first paragraph after it
    link: str = ""
    module: str = ""
    class_name: str = ""
    settings: dict[str, str] = field(default_factory=dict)  # keyword -> default, as written
    asks: tuple[str, ...] = ()  # of an encoder, by the functions of `needs`

    def to_json(self) -> dict:
        return asdict(self)


@cache
def methods() -> dict[str, Listed]:
    return _classes(ROOT / "methods", "Method")


@cache
def modalities() -> dict[str, Listed]:
    return _classes(ROOT / "modalities", "Modality")


@cache
def encoders() -> dict[str, Listed]:
    """The keys of the tables of FAMILIES, each with the function that builds its family."""
    found = {}
    for module, table, builder in FAMILIES:
        tree = ast.parse((ROOT / f"{module}.py").read_text("utf-8"))
        functions = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}
        function = functions[builder]
        doc = " ".join((ast.get_docstring(function) or "").split())
        for name, what in _table(tree, table).items():
            found[name] = Listed(
                name,
                what,
                idea=doc,
                module=module,
                class_name=builder,
                settings=_keywords(function),
            )
    return found


def find(shelf: str, name: str) -> Listed:
    """`name` from "methods", "encoders" or "modalities"; raises E201 with the nearest name."""
    known = {"methods": methods, "encoders": encoders, "modalities": modalities}[shelf]()
    if name not in known:
        raise SelfsupError(
            "E201",
            f"there is no {shelf[:-1] if shelf != 'modalities' else 'modality'} {name!r}",
            why=f"known: {', '.join(known)}",
            do=did_you_mean(name, known) or f"see: selfsup list {shelf}",
        )
    return known[name]


def _classes(folder: Path, base: str) -> dict[str, Listed]:
    found = {}
    for path in sorted(folder.glob("*.py")):
        if path.stem.startswith("_"):
            continue
        tree = ast.parse(path.read_text("utf-8"))
        for node in tree.body:
            if isinstance(node, ast.ClassDef) and base in [_last(b) for b in node.bases]:
                found[path.stem] = _listed(path.stem, tree, node)
    return found


def _listed(name: str, tree: ast.Module, node: ast.ClassDef) -> Listed:
    doc = ast.get_docstring(tree) or ast.get_docstring(node) or ""
    paragraphs = [" ".join(p.split()) for p in doc.split("\n\n")]
    link = re.search(r"https?://[^\s)>,]+", doc)
    return Listed(
        name,
        title=re.sub(r",?\s*https?://\S+", "", paragraphs[0]).rstrip(". "),
        idea=paragraphs[1] if len(paragraphs) > 1 else "",
        link=link.group().rstrip(".") if link else "",
        class_name=node.name,
        settings=_keywords(_init(node)),
        asks=_asked(node),
    )


def _init(node: ast.ClassDef) -> ast.FunctionDef | None:
    functions = [item for item in node.body if isinstance(item, ast.FunctionDef)]
    return next((item for item in functions if item.name == "__init__"), None)


def _asked(node: ast.ClassDef) -> tuple[str, ...]:
    used = [item for item in ast.walk(node) if isinstance(item, ast.Attribute)]
    return tuple(n.attr for n in used if isinstance(n.value, ast.Name) and n.value.id == "needs")


def _keywords(function: ast.FunctionDef | None) -> dict[str, str]:
    if function is None:
        return {}
    pairs = zip(function.args.kwonlyargs, function.args.kw_defaults, strict=True)
    return {a.arg: ast.unparse(d) if d is not None else "required" for a, d in pairs}


def _table(tree: ast.Module, name: str) -> dict[str, str]:
    """A dictionary at the top of a module: key -> its value as written."""
    for node in tree.body:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", node)]
        if [getattr(target, "id", "") for target in targets] == [name]:
            assert isinstance(node, ast.Assign | ast.AnnAssign) and isinstance(node.value, ast.Dict)
            pairs = zip(node.value.keys, node.value.values, strict=True)
            return {str(k.value): _words(v) for k, v in pairs if isinstance(k, ast.Constant)}
    raise AssertionError(f"there is no table {name}")


def _words(value: ast.expr) -> str:
    if isinstance(value, ast.Dict):
        pairs = zip(value.keys, value.values, strict=True)
        return ", ".join(f"{ast.literal_eval(k)} {ast.unparse(v)}" for k, v in pairs if k)
    if isinstance(value, ast.Tuple):
        return ", ".join(_words(item).replace(", ", "-") for item in value.elts)
    return ast.unparse(value)


def _last(base: ast.expr) -> str:
    return base.attr if isinstance(base, ast.Attribute) else getattr(base, "id", "")
