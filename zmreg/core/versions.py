"""Versions of named functions, and what a caller may ask of them: `2.1.0`, `>=2,<3`, `~=2.1`.

A version is numbers joined by dots; zeros at its end say nothing, so 2.1 is 2.1.0. There are no pre-releases: whoever
registers a function decides by its number who gets it.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from types import MappingProxyType
from typing import Final

from zmreg.model.record import Record

Version = tuple[int, ...]
"""Compares as versions do."""

NO_VERSION: Final[Version] = (-1,)
"""Of a function that has none: below every version, and no constraint is met by it."""

# Dates and build numbers fit; a text that makes a number of a million digits does not.
_NUMBERS: Final = r"[0-9]{1,14}(?:\.[0-9]{1,14}){0,7}"
_VERSION: Final = re.compile(_NUMBERS)
_CLAUSE: Final = re.compile(rf"\s*(==|!=|>=|<=|~=|>|<|)\s*({_NUMBERS})\s*")

_HOLDS: Final[Mapping[str, Callable[[Version, Version], bool]]] = MappingProxyType(
    {
        "": operator.eq, "==": operator.eq, "!=": operator.ne,
        ">=": operator.ge, ">": operator.gt, "<=": operator.le, "<": operator.lt,
    }
)  # fmt: skip


# Both are read for each row at each call.
@lru_cache(1024)
def read_version(text: str) -> Version:
    """The version that is written so; NO_VERSION for an empty text. Raises ValueError."""
    if not text:
        return NO_VERSION
    if not _VERSION.fullmatch(text):
        raise ValueError(f"{text!r} is no version: numbers joined by dots are, as 2 or 2.1.0")
    return _meant(_numbers(text))


def show_version(version: Version) -> str:
    """The one way to write it; empty for NO_VERSION."""
    return "" if version == NO_VERSION else ".".join(map(str, version))


class Constraint(Record):
    """What a version has to be: all of the clauses hold. None of them: any will do, and also none at all."""

    text: str
    clauses: tuple[tuple[str, Version], ...]

    def met_by(self, version: Version) -> bool:
        """Whether that version will do."""
        if version == NO_VERSION:
            return not self.clauses
        return all(_HOLDS[sign](version, bound) for sign, bound in self.clauses)


@lru_cache(1024)
def read_constraint(text: str) -> Constraint:
    """Clauses joined by commas: a version, or one behind `==`, `!=`, `>=`, `>`, `<=`, `<` or `~=`. Raises ValueError.

    `~=2.1.3` is `>=2.1.3,<2.2`: the last number may grow, the others may not.
    """
    clauses: list[tuple[str, Version]] = []
    for each in text.split(",") if text.strip() else ():
        found = _CLAUSE.fullmatch(each)
        if found is None:
            raise ValueError(
                f"version={text!r}: {each.strip()!r} is no constraint; write a version, or one behind ==, !=, >=, >, "
                f"<=, < or ~=, several of them with commas between"
            )
        sign, numbers = found[1], _numbers(found[2])
        if sign != "~=":
            clauses.append((sign, _meant(numbers)))
        elif len(numbers) > 1:
            clauses += [(">=", _meant(numbers)), ("<", _meant((*numbers[:-2], numbers[-2] + 1)))]
        else:
            raise ValueError(f"version={text!r}: ~= wants two numbers or more; {each.strip()}.0 is what you may mean")
    return Constraint(text, tuple(clauses))


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(map(int, text.split(".")))


def _meant(numbers: tuple[int, ...]) -> Version:
    """Without the zeros at the end; one number is always left, so that 0 is above NO_VERSION."""
    kept = len(numbers)
    while kept > 1 and not numbers[kept - 1]:
        kept -= 1
    return numbers[:kept]
