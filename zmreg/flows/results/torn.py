"""Files of text that may have been cut short: which of their bytes are whole rows, and what is in them."""

from __future__ import annotations

import io
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Final

_BLOCK: Final = 1 << 20


def zipped(data: bytes) -> bytes:
    """A gzip member."""
    packer = zlib.compressobj(6, zlib.DEFLATED, 31)
    return packer.compress(data) + packer.flush()


def members(path: Path) -> Iterator[tuple[int, bytes]]:
    """(size in the file, content) of each whole gzip member."""
    with path.open("rb") as file:
        rest = b""
        while True:
            unpacker, content, size = zlib.decompressobj(31), bytearray(), 0
            while not unpacker.eof:
                block = rest or file.read(_BLOCK)
                rest = b""
                if not block:
                    return
                try:
                    content += unpacker.decompress(block)
                except zlib.error:
                    return
                size += len(block)
            rest = unpacker.unused_data
            yield size - len(rest), bytes(content)


def text_of(path: Path, compression: str | None, whole: int) -> Iterator[str]:
    """Lines with their ends, up to so many bytes."""
    if compression == "gzip":
        for _, content in members(path):
            yield from io.StringIO(content.decode("utf-8", "surrogatepass"), newline="")
        return
    with path.open("rb") as file:
        while whole > 0:
            line = file.readline()
            whole -= len(line)
            yield line.decode("utf-8", "surrogatepass")


def whole_lines(path: Path) -> int:
    """Up to the last end of a line."""
    with path.open("rb") as file:
        end = file.seek(0, 2)
        while end > 0:
            begin = max(0, end - _BLOCK)
            file.seek(begin)
            found = file.read(end - begin).rfind(b"\n")
            if found >= 0:
                return begin + found + 1
            end = begin
    return 0


def whole_records(path: Path) -> int:
    """Up to the last end of a line that is in no quotes."""
    whole, at, quoted = 0, 0, False
    with path.open("rb") as file:
        for line in file:
            at += len(line)
            quoted ^= line.count(b'"') % 2 == 1
            if not quoted and line.endswith(b"\n"):
                whole = at
    return whole
