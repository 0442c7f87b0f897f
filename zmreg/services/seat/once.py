"""Large arguments that are passed to many calls, stored once: exact `bytes` and `str`, told by identity.

`f.remote(blob)` twenty times would write twenty equal objects. What cannot change needs to be written once, so the
second call that is given the very same object gets the entry of the first. Equal but distinct objects are not found
(a hash of the content costs several times what storing it costs), and nothing that can change is shared: a call must
see what was passed at that moment (docs/decisions/0007).

Invariant: an object in here is alive, so its id is its own. It leaves when the last call that was given it is over and
the entry dies; when nobody but us holds it, as then nobody can pass it again; or as the least recently passed one.
"""

from __future__ import annotations

import sys
import weakref
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from zmreg.services.seat.entries import STORED, Entry, EntryRef, Plain
from zmreg.wire.payload import LARGE_BYTES

if TYPE_CHECKING:
    from zmreg.services.seat.client import Client

# Objects and bytes that are kept at most, besides the one that was passed last, whatever its size.
KEEP: Final = 16
KEEP_BYTES: Final = 512 << 20

UNCHANGING: Final = frozenset({bytes, str})
_Kept = tuple[Any, "weakref.ref[Entry]"]


def _holders(kept: tuple[Any, Any]) -> int:
    return sys.getrefcount(kept[0])


_NOBODY_ELSE: Final = _holders((object(), None))


class Argument(EntryRef):
    """Stands among a call's arguments for a value that is in the store, as a ref does."""

    __slots__ = ()

    def __init__(self, entry: Entry) -> None:
        self._entry = entry


class Once:
    """The large immutable arguments of one process's calls under way."""

    def __init__(self) -> None:
        self._kept: dict[int, _Kept] = {}
        self.over = LARGE_BYTES
        """Values of at most so many bytes or characters may ride in messages."""

    def takes(self, value: object) -> bool:
        """Whether it is to be stored once."""
        return type(value) in UNCHANGING and len(value) > self.over  # type: ignore[arg-type]

    def stand_in(
        self, client: Client, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> tuple[tuple[Any, ...], Mapping[str, Any]]:
        """The arguments with an `Argument` for each large one. Raises ObjectStoreFullError."""

        def each(value: Any) -> Any:
            return Argument(self._entry(client, value)) if self.takes(value) else value

        return tuple([each(arg) for arg in args]), {name: each(value) for name, value in kwargs.items()}

    def _entry(self, client: Client, value: Any) -> Entry:
        key = id(value)
        kept = self._kept.pop(key, None)
        entry = kept[1]() if kept is not None else None
        if kept is None or entry is None or entry.state != STORED:
            self._make_room(len(value))
            entry = client.put(value, Plain)
            kept = (value, weakref.ref(entry, lambda ref: self._forget(key, ref)))
        self._kept[key] = kept
        return entry

    def _forget(self, key: int, ref: weakref.ref[Entry]) -> None:
        """A finalizer: takes no lock. The row may be a later one by now."""
        kept = self._kept.get(key)
        if kept is not None and kept[1] is ref:
            self._kept.pop(key, None)

    def _make_room(self, nbytes: int) -> None:
        for key, kept in list(self._kept.items()):
            if _holders(kept) <= _NOBODY_ELSE:
                self._kept.pop(key, None)
        held = list(self._kept.items())  # the least recently passed one first
        nbytes += sum(len(kept[0]) for _, kept in held)
        for place, (key, kept) in enumerate(held):
            if nbytes <= KEEP_BYTES and len(held) - place < KEEP:
                return
            self._kept.pop(key, None)
            nbytes -= len(kept[0])
