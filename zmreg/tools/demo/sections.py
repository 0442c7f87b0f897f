"""Several byte strings in one buffer, read in place: the layout below a partial index.

Layout: magic, number of sections, their end offsets (unsigned 32 bit), then the sections one after the other. Nothing
is decoded on opening, so a reader of a buffer in shared memory touches only the pages it asks for.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Iterable, Sequence
from itertools import accumulate, pairwise
from typing import overload

_HEADER = struct.Struct("<8sI")
_MAGIC = b"zmdemo1\n"
# 32-bit offsets: a partial index is a few hundred KiB; this only guards against a --root full of enormous files.
MAX_BYTES = 1 << 32


def join(sections: Sequence[bytes]) -> bytes:
    """Sections -> one buffer. Raises ValueError when it would need offsets past 4 GiB."""
    ends = list(accumulate(len(section) for section in sections))
    if ends and ends[-1] >= MAX_BYTES:
        raise ValueError(f"a partial index of {ends[-1]:,} bytes passes {MAX_BYTES:,}: use smaller groups")
    return b"".join((_HEADER.pack(_MAGIC, len(sections)), numbers(ends), *sections))


def split(data: bytes | memoryview, expected: int) -> list[memoryview]:
    """One buffer -> views of its sections, without a copy. Raises ValueError when it is not such a buffer."""
    view = memoryview(data)
    if view.nbytes < _HEADER.size:
        raise ValueError(f"a partial index of {view.nbytes} bytes is shorter than its own header: it was cut")
    magic, count = _HEADER.unpack_from(view)
    if magic != _MAGIC or count != expected:
        raise ValueError(f"no partial index: {magic!r}, {count} sections; expected {_MAGIC!r}, {expected}")
    body = _HEADER.size + 4 * count
    ends = view[_HEADER.size : body].cast("I")
    if count and body + ends[-1] != view.nbytes:
        raise ValueError(f"a partial index of {view.nbytes} bytes should have {body + ends[-1]}: it was cut")
    return [view[body + start : body + end] for start, end in pairwise((0, *ends))]


def numbers(values: Iterable[int]) -> bytes:
    """Unsigned 32-bit numbers as bytes; `view.cast("I")` reads them back."""
    return array("I", values).tobytes()


def strings(values: Sequence[bytes]) -> tuple[bytes, bytes]:
    """Byte strings as two sections (their end offsets, their bytes); `Strings` reads them back."""
    return numbers(accumulate(map(len, values))), b"".join(values)


class Strings(Sequence[bytes]):
    """A list of byte strings inside a buffer; an item is copied out when it is asked for."""

    __slots__ = ("_body", "_ends")

    def __init__(self, ends: memoryview, body: memoryview) -> None:
        self._ends = ends.cast("I")
        self._body = body

    def __len__(self) -> int:
        return len(self._ends)

    @overload
    def __getitem__(self, index: int) -> bytes: ...
    @overload
    def __getitem__(self, index: slice) -> list[bytes]: ...
    def __getitem__(self, index: int | slice) -> bytes | list[bytes]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        end = self._ends[index]
        start = self._ends[index - 1] if index % len(self) else 0
        return self._body[start:end].tobytes()
