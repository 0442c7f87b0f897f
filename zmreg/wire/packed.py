"""The contiguous form of a value: one run of bytes that a reader can use without copying the large parts.

First byte 0x80: a plain pickle, nothing else. Otherwise a header, little-endian:

    B form     0x01 pickle and buffers, 0x02 raw bytes, 0x03 raw bytearray
    3x
    I count    how many buffers follow the pickle (0 for the raw forms)
    Q length   of the pickle, or of the raw value
    Q * count  length of each buffer

then the pickle, then the buffers, each at its alignment; a raw value begins at offset 64.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Final

from zmreg.model.errors import SerializationError
from zmreg.model.record import Record

PICKLE: Final = 0x80
BUFFERS: Final = 0x01
RAW_BYTES: Final = 0x02
RAW_BYTEARRAY: Final = 0x03

# 64 bytes: a cache line, and what Arrow and AVX-512 loads want. Buffers under 4 KiB take 16, enough for any C type:
# padding a 24-byte array to 64 would cost more than it holds.
ALIGNMENT: Final = 64
SMALL_ALIGNMENT: Final = 16
SMALL_BUFFER: Final = 4096

# 1 << 20 buffers: a table of lengths of 8 MiB; a corrupt count must not make us allocate more than that.
MAX_BUFFERS: Final = 1 << 20

_HEADER: Final = struct.Struct("<B3xIQ")
_ZEROS: Final = bytes(ALIGNMENT)


# A copy holds the interpreter lock: in steps of 8 MiB (1 ms warm, 15 ms into fresh pages) other threads get in between.
_COPY_STEP: Final = 8 << 20


def _aligned(offset: int, length: int) -> int:
    step = ALIGNMENT if length >= SMALL_BUFFER else SMALL_ALIGNMENT
    return (offset + step - 1) & -step


class Packed:
    """A value ready to be written once, wherever it belongs. It only borrows the value's memory:
    write it before the user can change the value again."""

    __slots__ = ("_parts", "nbytes")

    def __init__(self, parts: list[bytes | memoryview], nbytes: int) -> None:
        self._parts = parts  # in order, paddings included; views are flat and of format "B"
        self.nbytes = nbytes  # size of the contiguous form

    @classmethod
    def of_pickle(cls, data: bytes) -> Packed:
        """Only a pickle, without buffers: the contiguous form is the pickle itself."""
        return cls([data], len(data))

    @classmethod
    def of_buffers(cls, data: bytes | memoryview, buffers: Sequence[memoryview]) -> Packed:
        """A pickle and its out-of-band buffers, flat views of format "B"."""
        lengths = [buffer.nbytes for buffer in buffers]
        header = _HEADER.pack(BUFFERS, len(lengths), len(data)) + struct.pack(f"<{len(lengths)}Q", *lengths)
        parts: list[bytes | memoryview] = [header, data]
        offset = len(header) + len(data)
        for buffer, length in zip(buffers, lengths, strict=True):
            start = _aligned(offset, length)
            parts += (_ZEROS[: start - offset], buffer)
            offset = start + length
        return cls(parts, offset)

    @classmethod
    def of_raw(cls, value: bytes | bytearray) -> Packed:
        """A bytes or bytearray as it is."""
        form = RAW_BYTES if isinstance(value, bytes) else RAW_BYTEARRAY
        header = _HEADER.pack(form, 0, len(value)).ljust(ALIGNMENT, b"\0")
        return cls([header, memoryview(value)], ALIGNMENT + len(value))

    def inline(self) -> bytes:
        """The contiguous form as bytes."""
        return b"".join(self._parts)

    def write_into(self, view: memoryview) -> int:
        """Write the contiguous form at the start of `view`, without a copy in between; returns its size in bytes.

        Raises ValueError when the view is too small or read-only.
        """
        if view.nbytes < self.nbytes:
            raise ValueError(f"the value needs {self.nbytes} bytes, the view has {view.nbytes}")
        if view.readonly:
            raise ValueError("the view is read-only: a sealed object cannot be written again")
        flat = view if view.format == "B" and view.ndim == 1 else view.cast("B")
        offset = 0
        for part in self._parts:
            for start in range(0, len(part), _COPY_STEP):
                piece = part[start : start + _COPY_STEP] if len(part) > _COPY_STEP else part
                flat[offset : offset + len(piece)] = piece
                offset += len(piece)
        return offset

    def __repr__(self) -> str:
        return f"<Packed {self.nbytes} bytes in {len(self._parts)} parts>"


class Opened(Record):
    """The parts of a contiguous form, as read-only views of it."""

    form: int
    body: memoryview  # the pickle, or the raw value
    buffers: tuple[memoryview, ...]


def open_packed(data: bytes | memoryview) -> Opened:
    """Find the parts of a contiguous form whose first byte is not PICKLE; checks every length before slicing.

    Raises SerializationError when the bytes are cut short or are nothing of ours.
    """
    view = memoryview(data).toreadonly()
    if view.format != "B" or view.ndim != 1:
        view = view.cast("B")
    if len(view) < _HEADER.size:
        raise SerializationError(f"a stored value is cut short: {len(view)} bytes, its header alone has {_HEADER.size}")
    form, count, length = _HEADER.unpack_from(view)
    if form in (RAW_BYTES, RAW_BYTEARRAY) and count == 0:
        return Opened(form, _slice(view, ALIGNMENT, length), ())
    if form != BUFFERS or count > MAX_BUFFERS:
        raise SerializationError(f"a stored value begins with form {form:#04x} and {count} buffers: not ours")
    table = _slice(view, _HEADER.size, 8 * count)
    offset = _HEADER.size + 8 * count
    body = _slice(view, offset, length)
    offset += length
    buffers = []
    for size in struct.unpack(f"<{count}Q", table):
        offset = _aligned(offset, size)
        buffers.append(_slice(view, offset, size))
        offset += size
    return Opened(form, body, tuple(buffers))


def _slice(view: memoryview, start: int, length: int) -> memoryview:
    if start + length > len(view):
        raise SerializationError(
            f"a stored value is cut short: {len(view)} bytes, a part of {length} should begin at {start}"
        )
    return view[start : start + length]
