"""What tells one call from another, by content: for results that are remembered."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from zmreg.core.fingerprints import combined, fingerprint
from zmreg.services.seat.entries import EntryRef
from zmreg.services.seat.filing import content


def content_of(value: object) -> bytes:
    """The content of a value of whatever class. A ref counts by its id: values are immutable."""
    return value._entry.object_id if isinstance(value, EntryRef) else content(value)


def key_of(function: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bytes:
    """16 bytes: equal for equal code and equal arguments. Raises SerializationError."""
    parts = {"code": fingerprint(function, content_of), "args": fingerprint(args, content_of)}
    return combined({**parts, "kwargs": fingerprint(dict(kwargs), content_of)})


def print_of(value: object) -> bytes:
    """16 bytes of a value or of code: see `core.fingerprints`."""
    return fingerprint(value, content_of)
