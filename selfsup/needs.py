"""What methods ask of an encoder, and what to do where it does not have it.

Each raises E202; `method` is how the method is called in sentences. What the encoder lacks ends the
reason, from where docs/methods.md has it.
"""

from typing import Any

from .errors import SelfsupError


def tokens(method: str, encoder: Any, part: str = "embed") -> None:
    """Masked methods drop tokens before the trunk, which a convolutional encoder cannot.

    One that only hides them, and drops none, needs `tokens(x, hidden)`.
    """
    if not hasattr(encoder, part):
        raise _unfit(
            method,
            encoder,
            "it hides tokens before the trunk, and this encoder has no patches of numbers",
            "choose a transformer on patches (--encoder vit_tiny), or another method",
        )


def local(method: str, encoder: Any) -> None:
    """Methods that predict what tokens are made of: real values, before the trunk mixes them."""
    tokens(method, encoder)
    if not hasattr(encoder.stem, "local"):
        raise _unfit(
            method,
            encoder,
            "it predicts what tokens are made of, and this encoder has no patches of numbers",
            "choose a method for symbols: selfsup list methods",
        )


def causal(method: str, encoder: Any) -> None:
    """Methods that foretell tokens from those before need a trunk that sees no others."""
    tokens(method, encoder)
    if not encoder.causal:
        raise _unfit(
            method,
            encoder,
            "it foretells each token, and this encoder sees both sides of one",
            "--set encoder.causal=true, or leave --encoder out",
        )


def grid(method: str, encoder: Any, axes: int | None = None) -> None:
    """Methods that cut or turn what they are shown need real values on a grid."""
    if not hasattr(encoder, "entrance") or axes not in (None, len(encoder.grid)):
        told = "grid" + (f" of {axes} axes" if axes else "")
        raise _unfit(
            method,
            encoder,
            f"it cuts or turns what it is shown, and this encoder has no {told}",
            "choose another method: selfsup list methods",
        )


def places(method: str, encoder: Any) -> None:
    """Methods that teach the places of a sample alone leave a token that is none untaught."""
    if getattr(encoder, "pool", "") == "cls":
        raise _unfit(
            method,
            encoder,
            "it teaches the places of a sample, and this encoder gives a token beside them",
            "--set encoder.pool=mean",
        )


def vocabulary(method: str, encoder: Any, *, causal: bool) -> None:
    """Language models name tokens, from both sides or from those before alone."""
    if not hasattr(encoder, "logits"):
        raise _unfit(
            method,
            encoder,
            "it names tokens, and this encoder has no vocabulary",
            "choose a language encoder (bert_small, gpt_small) and data that are text",
        )
    if encoder.causal != causal:
        sees = "what came before alone" if encoder.causal else "both sides of a token"
        raise _unfit(
            method,
            encoder,
            f"it sees {sees}",
            f"choose {'gpt' if causal else 'bert'}_small, or leave --encoder out",
        )


def dropout(method: str, encoder: Any) -> None:
    """Methods whose two looks at a sample differ in nothing but what the encoder drops."""
    shares = [getattr(m, key, 0) for m in encoder.modules() for key in ("p", "drop", "dropout")]
    if not any(isinstance(share, float) and share > 0 for share in shares):
        raise _unfit(
            method,
            encoder,
            "what it compares differs by dropout alone, and this encoder has no dropout",
            "--set encoder.dropout=0.1, or encoder.drop=0.1 for gcn, gat and gin",
        )


def nodes(method: str, encoder: Any) -> None:
    """Methods for the nodes of graphs need an encoder that keeps them apart."""
    if not hasattr(encoder, "nodes"):
        raise _unfit(
            method,
            encoder,
            "it looks at the nodes of graphs, and this encoder has no nodes",
            "use it on graphs, with --encoder gcn, gat or gin",
        )


def towers(method: str, encoder: Any) -> None:
    """Methods that compare the parts of a sample need an encoder for each."""
    if not hasattr(encoder, "towers"):
        raise _unfit(
            method,
            encoder,
            "it compares the parts of a sample, and this encoder has one part alone",
            "give it samples of two parts, such as a table of files and texts",
        )


def actions(method: str, encoder: Any) -> None:
    """Methods that foretell what an action leads to need to know what was done."""
    if not hasattr(encoder, "actions"):
        raise _unfit(
            method,
            encoder,
            "it foretells what actions lead to, and this encoder has no actions",
            "use it on trajectories, with --encoder observer_small",
        )


def _unfit(method: str, encoder: Any, why: str, do: str) -> SelfsupError:
    what = f"{method} cannot use the encoder {type(encoder).__name__}"
    return SelfsupError("E202", what, why=why, do=do)
