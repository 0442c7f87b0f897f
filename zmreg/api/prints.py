"""Digests of code and values by content, for what is built on this room."""

from __future__ import annotations

from _blake2 import blake2b
from typing import Any

from zmreg.api.functions import RemoteFunction
from zmreg.api.refs import ObjectRef
from zmreg.services.calling.memo import print_of
from zmreg.services.seat.filing import content


def digest_of(ref: ObjectRef[Any]) -> bytes:
    """16 bytes of the content behind a ref; a large value is read where it is. Raises what it failed with."""
    if ref.meta.state == "inline":
        return _digest(ref.get())
    found: bytes = RemoteFunction(_digest, {"num_cpus": 0, "name": "digest"}).remote(ref).get()
    return found


def _digest(value: Any) -> bytes:
    return blake2b(content(value), digest_size=16).digest()


__all__ = ["digest_of", "print_of"]
