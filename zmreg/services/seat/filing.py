"""Values as bytes that outlive the cluster: in a file, in a journal."""

from __future__ import annotations

from typing import Any

from zmreg.model.errors import SerializationError
from zmreg.wire import payload


def to_bytes(value: object, what: str = "value") -> bytes:
    """The contiguous form. Raises SerializationError for what cannot be pickled, and for a value with refs in it: these
    mean nothing once the cluster is gone."""
    refs: list[Any] = []
    packed = payload.pack(value, refs, what=what)
    if refs:
        raise SerializationError(
            f"{what} has {len(refs)} refs in it, and cannot be kept in a file: they mean nothing after the cluster's "
            "end. Return what they stand for."
        )
    return packed if isinstance(packed, bytes) else packed.inline()


def content(value: object) -> bytes:
    """The same for comparing: refs count by what they refer to."""
    packed = payload.pack(value, [], what="an argument")
    return packed if isinstance(packed, bytes) else packed.inline()


def from_bytes(data: bytes) -> Any:
    """The value behind what `to_bytes` made. Raises SerializationError when it cannot be rebuilt here."""
    return payload.unpack(data)
