"""Text to words: identifiers fall apart at `_` and capitals: `AsyncContextManager` answers "context manager"."""

from __future__ import annotations

import re

_PIECES = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")


class _Folded(dict[str, str]):
    """Spelling -> folded word, "" for single letters. Bounded by the vocabulary: the library has 25,000."""

    def __missing__(self, spelling: str) -> str:
        word = spelling.lower()
        if len(word) < 2:
            word = ""
        elif len(word) > 3 and word.endswith("s") and not word.endswith("ss"):
            word = word[:-1]
        self[spelling] = word
        return word


_folded = _Folded()


def spellings(text: str) -> list[str]:
    """The pieces of `text` as written, in order; fold them with `fold` before comparing."""
    return _PIECES.findall(text)


def fold(spelling: str) -> str:
    """One piece -> the word it counts as (lower case, plural `s` dropped), or "" when it is a single letter."""
    return _folded[spelling]


def words(text: str) -> list[str]:
    """`text` -> its folded words, in order, single letters left out."""
    return [word for piece in _PIECES.findall(text) if (word := _folded[piece])]
