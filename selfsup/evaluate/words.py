"""Texts by their words: what was there before encoders of text."""

from typing import Any


def by_words(texts: list[str], token: str, together: int = 1) -> Any:
    """TF-IDF weighed on these very texts: a sparse row of length one for each, or of zeros.

    `token` is the pattern of a word; up to `together` of them in a row count as one.
    """
    from scipy.sparse import csr_matrix
    from sklearn.feature_extraction.text import TfidfVectorizer

    counter = TfidfVectorizer(sublinear_tf=True, ngram_range=(1, together), token_pattern=token)
    words = counter.build_analyzer()
    if not any(words(text) for text in texts):
        return csr_matrix((len(texts), 1))
    return counter.fit_transform(texts)
