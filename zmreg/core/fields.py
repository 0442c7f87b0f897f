"""Taking a part of a value: what `name.field` and `Ref("name")["key"]` mean, wherever the value is."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from types import BuiltinMethodType, MethodType
from typing import Final

from zmreg.model.errors import FieldError
from zmreg.model.graphs import Field, Item, Path

_INDEX: Final = re.compile(r"-?\d+")
_MISSING: Final = object()
# As many names as one looks through in an error; with ten thousand columns the rest is a number.
_SHOWN: Final = 20


def follow(value: object, path: Path, of: str) -> object:
    """The part of `value`, which step `of` made, that `path` leads to.

    Raises FieldError, with what there is instead, when a segment leads nowhere. What a property raises goes through.
    """
    walked = of
    for segment in path:
        found = _field(value, segment.name) if isinstance(segment, Field) else _item(value, segment)
        if found is _MISSING:
            raise FieldError(
                f"{walked} has no {_said(segment)}: {_what_there_is(value)}. "
                f"(It was asked for as {of}{''.join(map(str, path))}; a text that is meant as it stands is a Lit.)"
            )
        value = found
        walked += str(segment)
    return value


def _item(value: object, segment: Item) -> object:
    pick = getattr(type(value), "__getitem__", None)
    if pick is None:
        return _MISSING
    try:
        return pick(value, segment.key)
    except (LookupError, TypeError):
        return _MISSING


def _field(value: object, name: str) -> object:
    """A mapping's key, else an index, else a public attribute that is no method: those are no parts."""
    if isinstance(value, Mapping) and name in value:
        return value[name]
    if _INDEX.fullmatch(name):
        return _item(value, Item(int(name)))
    if name.startswith("_"):
        return _MISSING
    found = getattr(value, name, _MISSING)
    return _MISSING if isinstance(found, MethodType | BuiltinMethodType) else found


def _said(segment: Field | Item) -> str:
    return f"field {segment.name!r}" if isinstance(segment, Field) else f"item {segment.key!r}"


def _what_there_is(value: object) -> str:
    kind = f"a {type(value).__name__}"
    if isinstance(value, Mapping):
        return f"it is {kind} with the keys {_listed(value)}" if value else f"it is {kind} without any key"
    if isinstance(value, Sequence):
        return f"it is {kind} of {len(value)}"
    # Of the instance and of its class, but nothing is called: a property may cost or raise.
    names = {*getattr(value, "__dict__", ()), *(name for name in dir(type(value)) if not _is_method(value, name))}
    public = sorted(name for name in names if isinstance(name, str) and not name.startswith("_"))
    return f"it is {kind} with {_listed(public)}" if public else f"it is {kind} without any public attribute"


def _is_method(value: object, name: str) -> bool:
    return callable(getattr(type(value), name, None))


def _listed(names: Iterable[object]) -> str:
    shown = [repr(name) for name in names]
    more = f" and {len(shown) - _SHOWN} more" if len(shown) > _SHOWN else ""
    return ", ".join(shown[:_SHOWN]) + more
