"""What travels between the processes of a pipeline: small items as they are, large ones as a reference to one copy."""

from __future__ import annotations

import sys
import time
from collections.abc import Collection, Mapping
from typing import Any, Final

from zmreg.api.cluster import put
from zmreg.api.refs import ObjectRef
from zmreg.model.errors import PipelineError, ZmregError

# The limit up to which results ride in messages (settings.md, inline_bytes): what is larger is stored anyway.
LARGE_BYTES: Final = 64 << 10
EDGE_BYTES: Final = 16 << 20
"""What may be on its way between two stages, or wait there."""
_PLAIN: Final = frozenset({int, float, bool, type(None), str, bytes})
_LOOK_S: Final = 0.2
_PAGE: Final = 4096


class Parcel:
    """A large item: stored once, however many take it."""

    __slots__ = ("nbytes", "ref")

    def __init__(self, ref: ObjectRef[Any], nbytes: int) -> None:
        self.ref = ref
        self.nbytes = nbytes

    def __reduce__(self) -> tuple[Any, ...]:
        return Parcel, (self.ref, self.nbytes)

    def __repr__(self) -> str:
        return f"<Parcel {self.nbytes} B>"


def weight(item: Any) -> int:
    """Bytes of an item, roughly: of containers, with what is directly in them."""
    if type(item) in _PLAIN:  # they are not asked for `nbytes`, which takes longest where there is none
        return sys.getsizeof(item)
    nbytes = getattr(item, "nbytes", None)
    if isinstance(nbytes, int):
        return nbytes
    size = sys.getsizeof(item, 64)
    if isinstance(item, (list, tuple, Mapping)) and len(item) <= 64:
        inside = item.values() if isinstance(item, Mapping) else item
        for each in inside:
            part = getattr(each, "nbytes", None)
            size += part if isinstance(part, int) else sys.getsizeof(each, 64)
    return size


def weights(items: Collection[Any]) -> int:
    """Of all of them together."""
    if _PLAIN.issuperset(map(type, items)):
        return sum(map(sys.getsizeof, items))
    return sum(map(weight, items))


def packed(item: Any) -> tuple[Any, int]:
    """(what is sent for it, bytes that this takes up on its way). ZmregError when it cannot be stored."""
    nbytes = weight(item)
    if nbytes > LARGE_BYTES and type(item) is not Parcel:
        return Parcel(put(item), nbytes), nbytes
    return item, nbytes


def unpacked(sent: Any) -> Any:
    """The item. Raises ObjectLostError and its like for a large one that is lost."""
    return sent.ref.get() if type(sent) is Parcel else sent


def portable(error: PipelineError) -> PipelineError:
    """It as it can be sent: without a cause that cannot."""
    try:
        put(error)
    except (ZmregError, TypeError, ValueError, AttributeError):
        alone = PipelineError(*error.args)
        alone.__dict__.update(error.__dict__, cause=None)
        return alone
    return error


def arrived(error: PipelineError) -> PipelineError:
    """It as it was before it was sent."""
    if error.__cause__ is None and error.cause is not None:
        error.__cause__ = error.cause
    return error


class Memory:
    """This process's, looked at now and then."""

    def __init__(self, limit: int) -> None:
        """`limit`: bytes from which on less is to come in."""
        self.limit = limit
        self._next_look = 0.0
        self._is_short = False

    def is_short(self) -> bool:
        """Whether it has passed the limit."""
        now = time.monotonic()
        if now >= self._next_look:
            self._next_look = now + _LOOK_S
            self._is_short = resident_bytes() > self.limit
        return self._is_short


def resident_bytes() -> int:
    """Memory of this process that is its own: what it maps of the store is not."""
    with open("/proc/self/statm", encoding="ascii") as file:
        fields = file.read().split()
    return (int(fields[1]) - int(fields[2])) * _PAGE
