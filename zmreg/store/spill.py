"""Objects on disk: one checksummed file each, written beside its place and renamed when whole."""

from __future__ import annotations

import errno
import os
import struct
import zlib
from io import FileIO
from pathlib import Path
from typing import Final

from zmreg.model.errors import ObjectLostError, SpillFullError

_MAGIC: Final = b"ZMSPILL\0"
_VERSION: Final = 1
# magic, version, checksum (crc32 of the body), id (16 bytes), size of the body
_HEADER: Final = struct.Struct("<8sHxxI16sQ")
_ID_BYTES: Final = 16
_SUFFIX: Final = ".spill"
_PARTIAL: Final = ".partial"
# crc32 and the file calls release the GIL; 8 MiB keep the body in cache between checksum and write.
_STEP: Final = 8 << 20
_NO_SPACE: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


class SpillDirectory:
    """The spill files of one node's session. Any thread may use it, on different objects at a time.

    Files are not synced: they serve this session only, and a power cut ends that.
    """

    def __init__(self, path: str | Path, keep_free: float = 0.05, limit_bytes: int = 0) -> None:
        """`path`: made (0700) when absent. `keep_free`: part of the disk that spilling leaves to others.

        `limit_bytes`: what the objects here may take together, give or take one; 0 = no other limit than the disk.
        """
        self.path: Final = Path(path)
        self.keep_free: Final = keep_free
        self.limit_bytes: Final = limit_bytes
        self._sizes: dict[bytes, int] = {}
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)

    def __repr__(self) -> str:
        return f"<SpillDirectory {self.path}>"

    def write(self, object_id: bytes, view: memoryview) -> None:
        """Put the object's bytes on disk, whole or not at all.

        Raises SpillFullError when the disk is full or cannot be written; nothing of the object is left then.
        """
        final = self._file(object_id)
        partial = final.with_suffix(_PARTIAL)
        body = view.cast("B")
        self._check_space(body.nbytes)
        try:
            with open(partial, "wb", buffering=0, opener=_private) as file:
                file.write(bytes(_HEADER.size))
                checksum = 0
                for start in range(0, body.nbytes, _STEP):
                    piece = body[start : start + _STEP]
                    checksum = zlib.crc32(piece, checksum)
                    _write_all(file.fileno(), piece)
                file.seek(0)
                file.write(_HEADER.pack(_MAGIC, _VERSION, checksum, object_id, body.nbytes))
            partial.rename(final)
            self._sizes[object_id] = body.nbytes
        except OSError as error:
            partial.unlink(missing_ok=True)
            raise self._cannot_write(body.nbytes, error) from error

    def read_into(self, object_id: bytes, view: memoryview) -> None:
        """Fill `view`, which has the object's size, from disk.

        Raises ObjectLostError when the file is gone, cut, of another object or size, or its checksum differs.
        """
        path = self._file(object_id)
        body = view.cast("B")
        try:
            with open(path, "rb", buffering=0) as file:
                expected = self._read_header(file.read(_HEADER.size), object_id, body.nbytes)
                checksum = 0
                for start in range(0, body.nbytes, _STEP):
                    piece = body[start : start + _STEP]
                    if not _read_all(file, piece):
                        raise self._lost(object_id, f"ends before its {body.nbytes} bytes do")
                    checksum = zlib.crc32(piece, checksum)
        except OSError as error:
            raise self._lost(object_id, f"cannot be read ({error.strerror or error})") from error
        if checksum != expected:
            raise self._lost(object_id, f"is damaged: checksum {checksum:08x}, expected {expected:08x}")

    def delete(self, object_id: bytes) -> None:
        """Remove the object's file; harmless when there is none."""
        self._sizes.pop(object_id, None)
        self._file(object_id).unlink(missing_ok=True)

    def sweep(self) -> int:
        """Remove all spill files, partial ones too, at the end of a session or after a crash; returns how many."""
        removed = 0
        for suffix in (_SUFFIX, _PARTIAL):
            for path in self.path.glob(f"*{suffix}"):
                path.unlink(missing_ok=True)
                removed += 1
        return removed

    def _file(self, object_id: bytes) -> Path:
        if len(object_id) != _ID_BYTES:
            raise ValueError(f"object id {object_id.hex()!r} has {len(object_id)} bytes, not {_ID_BYTES}")
        return self.path / f"{object_id.hex()}{_SUFFIX}"

    def _read_header(self, header: bytes, object_id: bytes, nbytes: int) -> int:
        """The checksum in the header, after all else in it was checked."""
        if len(header) < _HEADER.size:
            raise self._lost(object_id, "is cut inside its header")
        magic, version, checksum, found_id, found_bytes = _HEADER.unpack(header)
        if (magic, version) != (_MAGIC, _VERSION):
            raise self._lost(object_id, f"is no spill file of version {_VERSION}")
        if (found_id, found_bytes) != (object_id, nbytes):
            raise self._lost(object_id, f"has object {found_id.hex()} of {found_bytes} bytes, expected {nbytes}")
        return int(checksum)

    def _lost(self, object_id: bytes, what: str) -> ObjectLostError:
        text = f"the spill file {self._file(object_id)} {what}; the copy on this node's disk is lost"
        return ObjectLostError(text, object_id=object_id.hex())

    def _check_space(self, nbytes: int) -> None:
        taken = sum(self._sizes.values())
        if self.limit_bytes and taken + nbytes > self.limit_bytes:
            raise SpillFullError(
                f"no room to spill {nbytes:,} bytes to {self.path}: {taken:,} of the {self.limit_bytes:,} bytes "
                "allowed by spill_bytes are taken. Drop refs you no longer need, or start the node with a larger one",
                needed_bytes=nbytes,
                budget_bytes=self.limit_bytes,
            )
        try:
            stat = os.statvfs(self.path)
        except OSError as error:
            raise self._cannot_write(nbytes, error) from error
        left = stat.f_bavail * stat.f_frsize - nbytes - _HEADER.size
        if left < self.keep_free * stat.f_blocks * stat.f_frsize:
            raise SpillFullError(
                f"no room to spill {nbytes:,} bytes to {self.path}: {stat.f_bavail * stat.f_frsize:,} bytes are free "
                f"and {self.keep_free:.0%} of the disk stay reserved. Free some disk, or spill to a larger one",
                needed_bytes=nbytes,
            )

    def _cannot_write(self, nbytes: int, error: OSError) -> SpillFullError:
        what = "the disk is full" if error.errno in _NO_SPACE else "it cannot be written"
        text = f"cannot spill {nbytes:,} bytes to {self.path}: {what} ({error.strerror or error})"
        return SpillFullError(f"{text}. Free some disk, or spill to another one", needed_bytes=nbytes)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW, 0o600)


def _write_all(fd: int, piece: memoryview) -> None:
    while piece.nbytes:
        piece = piece[os.write(fd, piece) :]


def _read_all(file: FileIO, piece: memoryview) -> bool:
    """Fill `piece`; False when the file ends first."""
    while piece.nbytes:
        got = file.readinto(piece)
        if not got:
            return False
        piece = piece[got:]
    return True
