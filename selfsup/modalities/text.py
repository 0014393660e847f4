"""Text of any kind: prose, messages, source code, one document a sample.

Samples are stored as numbers of tokens; what became of the bytes before is in
docs/modalities/text.md: UTF-8 (or UTF-16 with its mark), ends of lines as one sign, and nothing
used that is no text.
"""

import math
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor, nn

from ..data.base import Source
from ..data.batch import Batch
from ..data.outcome import BadSample
from ..data.texts import Cut
from ..errors import SelfsupError
from ..method import Views
from ..ragged import Ragged
from ..randomness import Draws
from ..stems import END
from ..tokens import MOST, Bytes, Characters, Codec, Pairs, restored
from ..views import tokens as looks
from .base import Modality

LEARNED_FROM = 16 << 20  # bytes that a vocabulary is learned from, spread over all data
SMALLEST, LARGEST = 512, 16384  # vocabularies of byte pairs that are chosen by themselves
BYTES_A_TOKEN = 256  # of data for each token of a vocabulary, for it to be seen often enough
KEPT = 1 << 20  # tokens of a text; what follows is left out
LOOKED_AT = 64  # texts that tell the usual length
MOST_TOKENS = {"cpu": 128, "cuda": 512}  # of a view, where nothing else is asked for
COMPONENTS = 512  # of the baseline's singular value decomposition
SURROGATE = re.compile("[\ud800-\udfff]")  # no character: what stands for a byte that is not UTF-8


class Text(Modality):
    """Plain text, rows of tables, JSON lines, source code.

    `tokens` are bpe (learned from the data), bytes or characters; `vocabulary` is the most tokens
    that bpe learns, 0 for as many as the data can teach. `errors` says what becomes of texts that
    are not UTF-8: strict leaves them out, replace puts a sign for each wrong byte. `without` names
    what views leave out, such as "drop,mask".
    """

    name = "text"
    contents = ("text",)
    unit = "tokens"
    raw_unit = "characters"
    baseline_name = "TF-IDF"
    baseline_components = COMPONENTS
    default_method = "simclr"  # of documents; running text is foretold: see `learn`
    encoders = ("bert_micro", "bert_mini", "bert_small", "bert_base",
                "gpt_micro", "gpt_mini", "gpt_small", "gpt_base")  # fmt: skip
    mean = (0.0,)
    std = (1.0,)

    operations = looks.OPERATIONS

    def __init__(
        self,
        *,
        tokens: Literal["bpe", "bytes", "characters"] = "bpe",
        vocabulary: int = 0,
        errors: Literal["strict", "replace"] = "strict",
        without: str = "",
    ):
        if not 0 <= vocabulary <= MOST:
            raise SelfsupError("E201", f"modality.vocabulary is {vocabulary}", why=f"most: {MOST}")
        self.tokens, self.vocabulary, self.errors = tokens, vocabulary, errors
        self.without = self.left_out(without)
        self.codec: Codec = Bytes()  # until something is learned

    # -------------------------------------------------------------------------- the vocabulary

    @property
    def rules(self) -> str:
        from hashlib import blake2b

        digest = blake2b(repr(sorted(self.codec.state.items())).encode(), digest_size=12)
        return f"text 1 {self.errors} {digest.hexdigest()}"

    def learn(self, source: Source) -> None:
        """The vocabulary, from up to 16 MiB spread over the data; and what suits such text.

        Parts of one document say little of each other that tells them from others: the next token
        is the better task for them.
        """
        if _all_cut(source):
            self.default_method = "clm"  # type: ignore[misc]
        if self.tokens == "bytes":
            self.codec = Bytes()
        elif self.tokens == "characters":
            self.codec = Characters("".join({c for text in self._some(source) for c in set(text)}))
        else:
            texts = list(self._some(source))
            usual = sum(map(len, texts)) // BYTES_A_TOKEN
            usual = 1 << max(usual.bit_length() - 1, 0)
            count = self.vocabulary or min(max(usual, SMALLEST), LARGEST)
            self.codec = Pairs.learn(texts, count)

    def method_for(self, encoder: str | None) -> str:
        """An encoder that was asked for sees both sides or one, which settles what it can learn."""
        if encoder is not None and encoder.startswith("gpt"):
            return "clm"
        if encoder is not None and self.default_method == "clm":
            return "mlm"
        return self.default_method

    def _some(self, source: Source) -> Iterator[str]:
        from ..stop import stop

        seen, n = 0, len(source)
        usual = max(1, sum(len(t) for t in self._texts(source, _spread(n, 16))) // min(n, 16))
        for text in self._texts(source, _spread(n, max(1, LEARNED_FROM // usual))):
            stop.check()
            yield text
            seen += len(text)
            if seen > LEARNED_FROM:
                break

    def _texts(self, source: Source, rows: Iterable[int]) -> Iterator[str]:
        for i in rows:
            try:
                yield self.text(source.read(i))
            except BadSample:
                continue

    @property
    def state(self) -> dict[str, Any]:
        return self.codec.state

    def restore(self, state: dict[str, Any]) -> None:
        codec = restored(state)
        if codec.name != self.tokens:
            raise ValueError(f"a vocabulary of {codec.name} where {self.tokens} are asked for")
        self.codec = codec

    # -------------------------------------------------------------------------- one sample

    def text(self, raw: Any) -> str:
        """A file's bytes, or a string, as text with plain ends of lines.

        Raises BadSample: empty, not_text, not_utf8.
        """
        if isinstance(raw, np.ndarray | np.generic):
            raw = raw.item() if raw.ndim == 0 else None
        if isinstance(raw, bytes | bytearray | memoryview):
            raw = bytes(raw)
            if raw[:2] in (b"\xff\xfe", b"\xfe\xff"):
                kind = "utf-16"
            else:
                kind, raw = "utf-8", raw.removeprefix(b"\xef\xbb\xbf")
            if kind == "utf-8" and b"\0" in raw:
                raise BadSample("not_text", f"a zero byte at {raw.index(0)}")
            try:
                raw = raw.decode(kind, self.errors)
            except UnicodeDecodeError as error:
                raise BadSample(
                    "not_utf8", f"{error.reason} at byte {error.start}; modality.errors=replace"
                ) from None
        if not isinstance(raw, str):
            raise BadSample("not_text", f"{type(raw).__name__} is neither bytes nor a string")
        try:
            raw.encode()
        except UnicodeEncodeError as error:  # from tables: wrong bytes, or JSON's halves of signs
            if self.errors == "strict":
                told = f"no character at {error.start}; modality.errors=replace"
                raise BadSample("not_utf8", told) from None
            raw = SURROGATE.sub("\ufffd", raw)
        if "\0" in raw:
            raise BadSample("not_text", f"a zero character at {raw.index(chr(0))}")
        if not raw.strip():
            raise BadSample("empty", "nothing but blanks" if raw else "no characters")
        return raw.replace("\r\n", "\n").replace("\r", "\n")

    def read(self, raw: Any, size: int | None = None) -> UInt8[np.ndarray, "n 1 1"]:
        """Tokens, two bytes each. A whole document begins and ends with END, a part does not."""
        text = self.text(raw)[: 16 * KEPT]
        tokens = self.codec.encode(text)[:KEPT]
        if not isinstance(raw, Cut):
            tokens = np.concatenate([[END], tokens, [END]])
        return looks.packed(tokens)

    def decode(self, tokens: Iterable[int]) -> str:
        return self.codec.decode(tokens)

    def words(self, numbers: Iterable[int]) -> str:
        return self.decode(numbers)

    # -------------------------------------------------------------------------- batches

    def views(
        self, batch: Batch, spec: Views, draws: Draws, size: int, local_size: int | None = None
    ) -> list[Ragged]:
        """Windows of up to `size` tokens, at any place of longer texts.

        Strong views show a part (`spec.share`) of such a window and leave out one token in ten and
        hide one in ten; local ones show less of it.
        """
        return looks.views(batch, spec, draws, size, self.without)

    def plain(self, batch: Batch, size: int) -> Ragged:
        """The first `size` tokens."""
        return looks.first(batch, size)

    def rows(self, batch: Batch) -> list[Int64[np.ndarray, " n"]]:
        """The tokens that were stored of each sample."""
        return looks.rows(batch)

    def texts(self, batch: Batch) -> list[str]:
        """What was stored, as text."""
        return [self.decode(row) for row in self.rows(batch)]

    def picture(self, x: Ragged) -> UInt8[Tensor, "b 3 h w"]:
        """The beginning of each text, written."""
        return looks.picture(x, self.decode)

    def thumbnail(self, sample: UInt8[np.ndarray, "n 1 1"]) -> UInt8[np.ndarray, "h w 3"]:
        return looks.written(self.decode(sample.reshape(-1).view("<u2")[:1000]))

    def describe(self, raw: Any) -> tuple[str, str, tuple[int, int]]:
        length = len(self.text(raw))
        return "text", "part" if isinstance(raw, Cut) else "document", (length, length)

    def examples(self) -> list[Any]:
        words = [
            "the",
            "quick",
            "brown",
            "fox",
            "jumps",
            "over",
            "a",
            "lazy",
            "dog,",
            "1234567890",
            "times!\n",
        ]
        return [" ".join(words[i % 10] for i in range(n)).encode() for n in (1, 7, 40, 600)]

    def baseline(self, batch: Batch) -> Float[Tensor, "b p"]:
        """How often each token occurs, as a share of the text."""
        return looks.shares(batch, self.codec.count)

    def fitted(self, batches: Iterable[Batch]) -> Callable[[Batch], Float[Tensor, "b p"]]:
        """TF-IDF of words and pairs of words that occur twice in these texts, by its main parts.

        The singular value decomposition keeps what a linear probe can use of the sparse counts.
        """
        from sklearn.decomposition import TruncatedSVD
        from sklearn.feature_extraction.text import TfidfVectorizer

        texts = [text for batch in batches for text in self.texts(batch)]
        words = r"(?u)\b\w+\b"
        counter = TfidfVectorizer(
            sublinear_tf=True, min_df=2 if len(texts) > 100 else 1, ngram_range=(1, 2),
            token_pattern=words, dtype=np.float32,
        )  # fmt: skip
        try:
            found = counter.fit_transform(texts)
        except ValueError:  # no words at all
            return self.baseline
        most = min(COMPONENTS, min(found.shape) - 1)
        if most < 1:
            return self.baseline
        parts = TruncatedSVD(most, random_state=0).fit(found)

        def features(batch: Batch) -> Float[Tensor, "b p"]:
            return torch.from_numpy(
                parts.transform(counter.transform(self.texts(batch))).astype(np.float32)
            )

        return features

    # -------------------------------------------------------------------------- sizes

    def extent(self, source: Source) -> int:
        lengths = []
        for text in self._texts(source, _spread(len(source), LOOKED_AT)):
            lengths.append(len(self.codec.encode(text[: 1 << 16])) + 2)
        return sorted(lengths)[len(lengths) // 2] if lengths else 0

    def usual_size(self, extent: int, device: str) -> tuple[int, str]:
        most = MOST_TOKENS[device]
        where = "a graphics card" if device == "cuda" else "processor cores"
        size = max(16, 16 * math.ceil(1.5 * extent / 16))
        if size <= most:
            return size, f"texts have about {extent} tokens; half as many more, for longer ones"
        return most, f"texts have about {extent} tokens; {most} is what {where} can afford"

    def encoder(self, name: str, size: int, **keywords: Any) -> nn.Module:
        from ..language import language

        made = language(name, size, self.codec.count, **keywords)
        made.stem.starts = torch.from_numpy(self.codec.starts())
        return made


def _all_cut(source: Source) -> bool:
    found = []
    for i in _spread(len(source), 4):
        try:
            found.append(isinstance(source.read(i), Cut))
        except BadSample:
            continue
    return bool(found) and all(found)


def _spread(n: int, count: int) -> list[int]:
    return np.unique(np.linspace(0, n - 1, min(n, count)).astype(int)).tolist()
