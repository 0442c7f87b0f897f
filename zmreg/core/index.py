"""What a replicated table is kept in: the rows of all its writers, each writer's part apart from the others.

Two forms behind one protocol, `RowStore`: `Rows` for small tables, and `LocationIndex`, which answers "who holds this
object" for millions of objects at no more than 160 bytes each (measured in tests/core/test_index.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import compress, repeat
from operator import add, mul
from types import MappingProxyType
from typing import Final, Protocol
from zlib import crc32

from zmreg.model.errors import InternalError

DIGEST_MASK: Final = (1 << 64) - 1
# 1 MiB: "where is my large array" is worth telling everybody; what is smaller is found by asking its owner.
LARGE_BYTES: Final = 1 << 20


# Not 0: the checksum of an empty key must not make the product 0.
_SEED: Final = 1


def row_hash(key: bytes, value: bytes) -> int:
    """64 bits, the same in every process. The digest of a part is the sum of its rows' hashes modulo 2^64.

    It finds our own mistakes, one in 2^32 of them excepted, and is no proof against people. The product of two
    checksums is not linear as each of them is: values exchanged between rows, or neighbours for neighbours, show.
    """
    of_key = crc32(key, _SEED)
    return of_key * crc32(value, of_key)


def rows_hash(keys: Sequence[bytes], values: Sequence[bytes]) -> int:
    """The sum of `row_hash` over rows, not reduced; rows with an empty value are none. All of it runs in C."""
    if not keys:
        return 0
    if not all(values):
        keys, values = list(compress(keys, values)), list(filter(None, values))
    of_keys = list(map(crc32, keys, repeat(_SEED)))
    return sum(map(mul, of_keys, map(crc32, values, of_keys)))


Rowset = tuple[Sequence[bytes], Sequence[bytes]]
"""Keys, and as many values."""


class RowStore(Protocol):
    """Rows by (node, key). Values are never empty."""

    def put(self, node: bytes, key: bytes, value: bytes) -> bytes | None:
        """Set a row; returns the value it had."""

    def remove(self, node: bytes, key: bytes) -> bytes | None:
        """Returns the value it had, None when there was none."""

    def change(self, node: bytes, keys: Sequence[bytes], values: Sequence[bytes]) -> Rowset:
        """Set rows, and remove those whose new value is empty, as if one after the other. Returns (keys, values) of
        what each of these steps found there, in any order."""

    def drop(self, node: bytes) -> None:
        """Everything `node` has said."""

    def items(self, node: bytes) -> Iterator[tuple[bytes, bytes]]:
        """The rows of one part. The part must not change meanwhile."""


def _one_by_one(rows: RowStore, node: bytes, keys: Sequence[bytes], values: Sequence[bytes]) -> Rowset:
    old_keys: list[bytes] = []
    old_values: list[bytes] = []
    for key, value in zip(keys, values, strict=True):
        old = rows.put(node, key, value) if value else rows.remove(node, key)
        if old is not None:
            old_keys.append(key)
            old_values.append(old)
    return old_keys, old_values


class Rows:
    """A dict for each node: for tables with few rows."""

    def __init__(self) -> None:
        self._parts: dict[bytes, dict[bytes, bytes]] = {}

    def put(self, node: bytes, key: bytes, value: bytes) -> bytes | None:
        part = self._parts.setdefault(node, {})
        old = part.get(key)
        part[key] = value
        return old

    def remove(self, node: bytes, key: bytes) -> bytes | None:
        part = self._parts.get(node)
        return part.pop(key, None) if part is not None else None

    def change(self, node: bytes, keys: Sequence[bytes], values: Sequence[bytes]) -> Rowset:
        return _one_by_one(self, node, keys, values)

    def drop(self, node: bytes) -> None:
        self._parts.pop(node, None)

    def items(self, node: bytes) -> Iterator[tuple[bytes, bytes]]:
        return iter(self._parts.get(node, {}).items())

    def part(self, node: bytes) -> Mapping[bytes, bytes]:
        """The rows of one node, as they are now and will be."""
        return MappingProxyType(self._parts.get(node, {}))

    def find(self, key: bytes) -> list[tuple[bytes, bytes]]:
        """(node, value) of every node that has a row under `key`."""
        return [(node, part[key]) for node, part in self._parts.items() if key in part]

    def nodes(self) -> list[bytes]:
        return [node for node, part in self._parts.items() if part]

    def __len__(self) -> int:
        return sum(map(len, self._parts.values()))

    def __repr__(self) -> str:
        return f"<Rows {len(self)} of {len(self._parts)} nodes>"


# -- locations ---------------------------------------------------------------------------------------------------------


def location(nbytes: int, primary: bool) -> bytes:
    """The value of an object's row: its size and whether this copy was made there. Raises ValueError below 0."""
    if nbytes < 0:
        raise ValueError(f"location(nbytes={nbytes}): a size is 0 or more")
    return _value(nbytes << 1 | primary)


def read_location(value: bytes) -> tuple[int, bool]:
    """(nbytes, primary)"""
    said = int.from_bytes(value, "big")
    return said >> 1, bool(said & 1)


def _value(said: int) -> bytes:
    return said.to_bytes((said.bit_length() + 7) // 8 or 1, "big")


Admit = Callable[[bytes, bytes], bool]


def everything(_key: bytes, _value: bytes) -> bool:
    """`registry_scope="all"`, and every other table."""
    return True


def nothing(_key: bytes, _value: bytes) -> bool:
    """`registry_scope="owner"`: nobody is told, everybody asks the owner."""
    return False


def only_large(_key: bytes, value: bytes) -> bool:
    """`registry_scope="large"`."""
    return int.from_bytes(value, "big") >> 1 >= LARGE_BYTES


SCOPES: Final[Mapping[str, Admit]] = MappingProxyType({"all": everything, "large": only_large, "owner": nothing})
"""Which locations a node publishes, by `registry_scope`."""

# An entry is an int: size, primary flag, number of the node. 16 bits of number leave 43 of size (8 TiB) in the two
# digits of a 32-byte int; what is larger takes four bytes more.
_NUMBER_BITS: Final = 16
_NUMBER_MASK: Final = (1 << _NUMBER_BITS) - 1
# A part's list of keys keeps those that were removed until there are this many, or a quarter of the living.
_STALE_KEYS: Final = 64
# Fewer rows than this are quicker one by one.
_MANY: Final = 6


class _Part:
    """One node's: its number in the entries, its keys (some of them stale), how many are not."""

    __slots__ = ("keys", "live", "number")

    def __init__(self, number: int) -> None:
        self.number = number
        self.keys: list[bytes] = []
        self.live = 0


class LocationIndex:
    """Object id -> holders. The entry of an object with one holder, as nearly all have, is an int, else a tuple."""

    def __init__(self) -> None:
        self._entries: dict[bytes, int | tuple[int, ...]] = {}
        self._parts: dict[bytes, _Part] = {}
        self._nodes: list[bytes] = []
        self._free_numbers: list[int] = []

    # -- questions

    def holders(self, object_id: bytes) -> list[tuple[bytes, int, bool]]:
        """(node, size in bytes, primary) of each copy known; empty: none is known here."""
        return [
            (self._nodes[entry & _NUMBER_MASK], entry >> _NUMBER_BITS + 1, bool(entry >> _NUMBER_BITS & 1))
            for entry in self._all(object_id)
        ]

    def where_primary(self, object_id: bytes) -> bytes | None:
        """The node where the object was made, as far as known."""
        return next((node for node, _, primary in self.holders(object_id) if primary), None)

    def objects_of(self, node: bytes) -> list[bytes]:
        """The ids of all objects `node` holds."""
        part = self._parts.get(node)
        return list(self._tidy(part)) if part is not None else []

    def count_of(self, node: bytes) -> int:
        part = self._parts.get(node)
        return part.live if part is not None else 0

    def nodes(self) -> list[bytes]:
        """Those that hold anything."""
        return [node for node, part in self._parts.items() if part.live]

    def __contains__(self, object_id: bytes) -> bool:
        return object_id in self._entries

    def __len__(self) -> int:
        """Objects, not copies."""
        return len(self._entries)

    def __repr__(self) -> str:
        return f"<LocationIndex {len(self)} objects on {len(self.nodes())} nodes>"

    # -- the row store

    def put(self, node: bytes, key: bytes, value: bytes) -> bytes | None:
        part = self._parts.get(node)
        if part is None:
            part = self._admit(node)
        entry = int.from_bytes(value, "big") << _NUMBER_BITS | part.number
        found = self._entries.get(key)
        if found is None:
            self._entries[key] = entry
        else:
            entries = found if isinstance(found, tuple) else (found,)
            for place, other in enumerate(entries):
                if other & _NUMBER_MASK == part.number:
                    self._keep(key, (*entries[:place], entry, *entries[place + 1 :]))
                    return _value(other >> _NUMBER_BITS)
            self._keep(key, (*entries, entry))
        part.keys.append(key)
        part.live += 1
        return None

    def remove(self, node: bytes, key: bytes) -> bytes | None:
        part = self._parts.get(node)
        if part is None:
            return None
        old = self._take(part.number, key)
        if old is None:
            return None
        part.live -= 1
        if len(part.keys) - part.live > max(_STALE_KEYS, part.live // 4):
            self._tidy(part)
        return _value(old >> _NUMBER_BITS)

    def change(self, node: bytes, keys: Sequence[bytes], values: Sequence[bytes]) -> Rowset:
        """What is new here, as nearly all is that another node tells of, goes in without any Python for a row."""
        if len(keys) < _MANY or len(set(keys)) != len(keys):  # where a key is told twice, their order matters
            return _one_by_one(self, node, keys, values)
        old: Rowset = (), ()
        known = set(filter(self._entries.__contains__, keys))
        if known or not all(values):
            rows = list(zip(keys, values, strict=True))
            some = [(key, value) for key, value in rows if key in known]
            old = _one_by_one(self, node, [key for key, _ in some], [value for _, value in some])
            rows = [(key, value) for key, value in rows if value and key not in known]
            keys, values = [key for key, _ in rows], [value for _, value in rows]
        part = self._parts.get(node) or self._admit(node)
        number = part.number.to_bytes(_NUMBER_BITS // 8, "big")
        self._entries.update(zip(keys, map(int.from_bytes, map(add, values, repeat(number))), strict=True))
        part.keys += keys
        part.live += len(keys)
        return old

    def drop(self, node: bytes) -> None:
        part = self._parts.pop(node, None)
        if part is None:
            return
        for key in part.keys:  # stale ones among them find nothing to take
            self._take(part.number, key)
        self._nodes[part.number] = b""
        self._free_numbers.append(part.number)

    def items(self, node: bytes) -> Iterator[tuple[bytes, bytes]]:
        part = self._parts.get(node)
        if part is None:
            return
        number, entries = part.number, self._entries
        for key in self._tidy(part):
            entry = entries[key]
            if isinstance(entry, tuple):
                entry = next(each for each in entry if each & _NUMBER_MASK == number)
            yield key, _value(entry >> _NUMBER_BITS)

    # -- inside

    def _admit(self, node: bytes) -> _Part:
        if self._free_numbers:
            number = self._free_numbers.pop()
            self._nodes[number] = node
        else:
            number = len(self._nodes)
            if number > _NUMBER_MASK:
                raise InternalError(f"a location index of {number} nodes: {_NUMBER_MASK + 1} is the most there can be")
            self._nodes.append(node)
        part = self._parts[node] = _Part(number)
        return part

    def _all(self, key: bytes) -> tuple[int, ...]:
        found = self._entries.get(key)
        if found is None:
            return ()
        return found if isinstance(found, tuple) else (found,)

    def _of(self, number: int, key: bytes) -> int | None:
        return next((entry for entry in self._all(key) if entry & _NUMBER_MASK == number), None)

    def _keep(self, key: bytes, entries: tuple[int, ...]) -> None:
        if not entries:
            del self._entries[key]
        else:
            self._entries[key] = entries if len(entries) > 1 else entries[0]

    def _take(self, number: int, key: bytes) -> int | None:
        """Remove one node's entry for `key`, and return it."""
        found = self._entries.get(key)
        if found is None:
            return None
        if not isinstance(found, tuple):
            if found & _NUMBER_MASK != number:
                return None
            del self._entries[key]
            return found
        old = self._of(number, key)
        if old is not None:
            self._keep(key, tuple(entry for entry in found if entry is not old))
        return old

    def _tidy(self, part: _Part) -> list[bytes]:
        """Its keys, each once and none stale."""
        if len(part.keys) != part.live:
            part.keys = [key for key in dict.fromkeys(part.keys) if self._of(part.number, key) is not None]
        return part.keys
