"""What was probably meant by a name that there is not. For errors alone: imported when one is raised."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable


def no_argument(what: str, given: Iterable[str], known: Collection[str]) -> TypeError:
    """To be raised for arguments of `what` that do not exist: the first of `given` that is not among the `known`."""
    name = next(each for each in given if each not in known)
    near = difflib.get_close_matches(name, known, 1)
    return TypeError(f"{what} has no argument {name!r}; " + (f"did you mean {near[0]!r}?" if near else _all(known)))


def _all(known: Iterable[str]) -> str:
    return f"there are {', '.join(known)}"
