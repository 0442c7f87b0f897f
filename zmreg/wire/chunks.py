"""Chunks: parts of an object's bytes on their way from node to node. Two frames: this header, and the bytes.

    b"ZC\\x01"   3 bytes, magic and version
    transfer    8 bytes, unsigned, big-endian: whose chunk it is (see model/fetch_messages.py)
    offset      8 bytes, unsigned, big-endian: where in the object its first byte belongs

A chunk is no record: packing 16 MiB of them into msgpack would copy each byte once more.
"""

from __future__ import annotations

import struct
from typing import Final

from zmreg.model.errors import ProtocolError

CHUNK_MAGIC: Final = b"ZC\x01"
_LAYOUT: Final = struct.Struct(">3sQQ")
CHUNK_HEADER_BYTES: Final = _LAYOUT.size


def pack_chunk_header(transfer: int, offset: int) -> bytes:
    """The header frame. Raises ValueError for numbers that do not fit into 64 bits without sign."""
    try:
        return _LAYOUT.pack(CHUNK_MAGIC, transfer, offset)
    except struct.error as error:
        raise ValueError(f"transfer {transfer}, offset {offset}: {error}") from None


def is_chunk(header: bytes | memoryview) -> bool:
    """Whether a message that begins with this frame is a chunk and not a sentence."""
    return header[:3] == CHUNK_MAGIC


def unpack_chunk_header(header: bytes | memoryview) -> tuple[int, int]:
    """(transfer, offset) of a header frame. Raises ProtocolError, and nothing else, for anything that is not one."""
    if len(header) != CHUNK_HEADER_BYTES:
        raise ProtocolError(f"a chunk's header has {CHUNK_HEADER_BYTES} bytes, this one {len(header)}")
    magic, transfer, offset = _LAYOUT.unpack(header)
    if magic != CHUNK_MAGIC:
        raise ProtocolError(f"a chunk's header begins with {CHUNK_MAGIC!r}, this one with {bytes(magic)!r}")
    return transfer, offset
