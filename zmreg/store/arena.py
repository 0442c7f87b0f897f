"""The shared-memory arena: who gets which bytes of it (`Allocator`), and one process's map of it (`Mapping`).

One sparse file per node, mapped whole and once by each process of the machine. Pages stay in the file when their
object is freed, so the next object at that address is written at memory speed: a first touch of fresh pages runs at
0.3 GB/s, a copy into pages that are mapped already at 11 GB/s (measured on one virtual machine).

Space is claimed (`posix_fallocate`) before it is written: a full /dev/shm is a typed error, never SIGBUS.
"""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import threading
import weakref
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from zmreg.model.errors import InternalError, ObjectStoreFullError
from zmreg.store.extents import Extents, FreeList

if TYPE_CHECKING:
    import ctypes

PAGE: Final = 4096
ARENA_SUFFIX: Final = ".arena"

# Linux 5.14; not in the mmap module. READ also maps shared tmpfs pages writable, by whole batches: the first 100 MB
# copy of a process into warm pages takes 19 ms with it, 30 ms by page faults, 36 ms with POPULATE_WRITE (measured).
_MADV_POPULATE_READ: Final = 22
# Below 1 MiB the page faults cost less than the system call saves.
_POPULATE_FROM: Final = 1 << 20
# madvise and memcpy hold the GIL: 4 MiB are 0.4 ms on warm pages and 12 ms on fresh ones, so no heartbeat is missed.
_GIL_STEP: Final = 4 << 20
# fallocate on tmpfs starts over when a signal interrupts it; 64 MiB take 15 ms, so a 100 Hz profiler cannot stall it.
_CLAIM_STEP: Final = 64 << 20
# What fallocate says when there is no memory for the file: tmpfs full, over quota, over the cgroup's limit.
_NO_SPACE: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.ENOMEM})


def round_to_pages(nbytes: int) -> int:
    """Bytes an object of `nbytes` takes in the arena: whole pages, at least one."""
    return max(-(-nbytes // PAGE), 1) * PAGE


class Allocator:
    """Which bytes of the arena are taken; pure. Blocks are whole pages and never overlap.

    Address-ordered first fit: low addresses, whose pages are warm, are used again before fresh ones.
    Also remembers which parts of the file were ever claimed, since those need no second `posix_fallocate`.
    """

    def __init__(self, capacity_bytes: int) -> None:
        """`capacity_bytes`: size of the arena, cut down to whole pages; ValueError when less than one."""
        if capacity_bytes < PAGE:
            raise ValueError(f"an arena of {capacity_bytes} bytes is less than one page of {PAGE}; give it more")
        self.capacity_bytes: Final = capacity_bytes // PAGE * PAGE
        self._free = FreeList(self.capacity_bytes)
        self._blocks: dict[int, int] = {}  # offset -> bytes, both multiples of PAGE
        self._claimed = Extents()
        self._used_bytes = 0

    def __repr__(self) -> str:
        return f"<Allocator {self._used_bytes}/{self.capacity_bytes} bytes in {len(self._blocks)} blocks>"

    @property
    def used_bytes(self) -> int:
        """Bytes in blocks, rounded up to pages."""
        return self._used_bytes

    @property
    def largest_free_bytes(self) -> int:
        """The largest block that can be had now; 0 when full."""
        return self._free.largest_bytes

    @property
    def claimed_bytes(self) -> int:
        """Bytes of the file that were ever claimed: what it takes of the machine's memory at most."""
        return self._claimed.total_bytes

    def blocks(self) -> list[tuple[int, int]]:
        """All taken blocks as (offset, bytes), by address."""
        return sorted(self._blocks.items())

    def holes(self) -> list[tuple[int, int]]:
        """All free ranges as (offset, bytes), by address."""
        return self._free.holes()

    def allocate(self, nbytes: int) -> int | None:
        """A page-aligned offset with room for `nbytes`, or None when no hole is large enough."""
        if nbytes < 0:
            raise ValueError(f"cannot allocate {nbytes} bytes; a size is 0 or more")
        size = round_to_pages(nbytes)
        offset = self._free.take(size)
        if offset is not None:
            self._blocks[offset] = size
            self._used_bytes += size
        return offset

    def free(self, offset: int) -> int:
        """Give the block at `offset` back; returns its bytes in whole pages. InternalError when none begins there."""
        size = self._blocks.pop(offset, None)
        if size is None:
            raise InternalError(f"no block of the arena begins at {offset}, so none can be freed there")
        self._free.give(offset, size)
        self._used_bytes -= size
        return size

    def is_claimed(self, offset: int, nbytes: int) -> bool:
        """Whether every page of the range has memory behind it already."""
        return self._claimed.covers(offset, offset + round_to_pages(nbytes))

    def mark_claimed(self, offset: int, nbytes: int) -> None:
        """Remember that the pages of the range were claimed; they stay so for the life of the file."""
        self._claimed.add(offset, offset + round_to_pages(nbytes))


class Mapping:
    """One process's map of the arena file. Any thread may use it.

    The node makes the file (`create`), all other processes of the machine attach to it. Nothing here knows which
    ranges belong to whom: that is the node's `ObjectTable`.
    """

    def __init__(self, path: Path, fd: int, capacity_bytes: int) -> None:
        """Use `create` or `attach`. Takes over `fd`."""
        self.path: Final = path
        self.capacity_bytes: Final = capacity_bytes
        self._fd = fd
        self._map: mmap.mmap | None = mmap.mmap(fd, capacity_bytes)
        self._populated = Extents()  # what this process has in its page tables, roughly
        self._lock = threading.Lock()  # guards _populated only
        self._can_populate = True

    @classmethod
    def create(cls, path: str | Path, capacity_bytes: int) -> Mapping:
        """Make the sparse file (0600) and map it. FileExistsError when it is there; other OSErrors as they come.

        The file stays locked while this process lives, which tells `sweep_arenas` that it is in use.
        """
        if capacity_bytes < PAGE:
            raise ValueError(f"an arena of {capacity_bytes} bytes is less than one page of {PAGE}; give it more")
        path = Path(path)
        while True:
            fd = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_NOFOLLOW, 0o600)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX)
                if _is_same_file(fd, path):  # else a sweep took it before we had the lock
                    os.ftruncate(fd, capacity_bytes)
                    return cls(path, fd, capacity_bytes)
            except BaseException:
                os.close(fd)
                path.unlink(missing_ok=True)
                raise
            os.close(fd)

    @classmethod
    def attach(cls, path: str | Path) -> Mapping:
        """Map the file another process made. OSError when it cannot be opened, ValueError when it is no arena."""
        path = Path(path)
        fd = os.open(path, os.O_RDWR | os.O_NOFOLLOW)
        try:
            size = os.fstat(fd).st_size
            if size < PAGE:
                raise ValueError(f"{path} has {size} bytes and is no arena; has its node started?")
            return cls(path, fd, size)
        except BaseException:
            os.close(fd)
            raise

    def __repr__(self) -> str:
        return f"<Mapping {self.path.name} [{self.capacity_bytes} bytes{', closed' if self._map is None else ''}]>"

    def claim(self, offset: int, nbytes: int) -> None:
        """Put memory behind the range, so that writing it cannot fail; done already is cheap (2 ms per 100 MB).

        Raises ObjectStoreFullError when the machine has no memory left for it.
        """
        end = min(offset + round_to_pages(nbytes), self.capacity_bytes)
        self._check(offset, nbytes)
        for start in range(offset, end, _CLAIM_STEP):
            try:
                os.posix_fallocate(self._fd, start, min(_CLAIM_STEP, end - start))
            except OSError as error:
                if error.errno not in _NO_SPACE:
                    raise
                raise self._no_memory(nbytes, error) from error

    def writable(self, offset: int, nbytes: int) -> memoryview:
        """The range, to be written by the process it was granted to, after `claim`. It keeps no object alive.

        A large range is brought into this process's page tables first, once.
        """
        region = self._check(offset, nbytes)
        if nbytes >= _POPULATE_FROM and self._can_populate:
            self._populate(region, offset, offset + round_to_pages(nbytes))
        return memoryview(region)[offset : offset + nbytes]

    def view(self, offset: int, nbytes: int, release: Callable[[], object]) -> memoryview:
        """A read-only view of the range; `release()` is called once when the last reader of its bytes is gone.

        Readers are slices, arrays made from it and slices of those. `release` runs in whatever thread drops the last
        one, perhaps inside garbage collection: it must only leave a note. It is not called at interpreter exit, nor
        in a forked child.
        """
        region = self._check(offset, nbytes)
        # The pin has to be the exporter of the buffer: numpy wraps a memoryview anew, so a finalizer on the view
        # itself would fire while the array lives.
        span = _span(nbytes)
        pin = _bytes_type(span if offset + span <= self.capacity_bytes else nbytes).from_buffer(region, offset)
        weakref.finalize(pin, _release, os.getpid(), release).atexit = False
        return memoryview(pin).cast("B")[:nbytes].toreadonly()

    def unlink(self) -> None:
        """Take the file's name away (the node, at its end); every map of it stays good. Harmless when gone."""
        self.path.unlink(missing_ok=True)

    def close(self) -> None:
        """Let go of file and map. Never raises for live views: they keep the map until the last of them dies."""
        fd, self._fd = self._fd, -1
        region, self._map = self._map, None
        if fd >= 0:
            os.close(fd)
        if region is not None:
            try:
                region.close()
            except BufferError:
                pass  # views live: each of them holds the map, and the last one to die unmaps it

    def _check(self, offset: int, nbytes: int) -> mmap.mmap:
        region = self._map
        if region is None:
            raise ValueError(f"the map of {self.path} is closed; the process has left its cluster")
        if offset < 0 or nbytes < 0 or offset + nbytes > self.capacity_bytes:
            end = offset + nbytes
            raise InternalError(f"bytes {offset} to {end} are not in {self.path} of {self.capacity_bytes} bytes")
        return region

    def _populate(self, region: mmap.mmap, start: int, end: int) -> None:
        with self._lock:
            if self._populated.covers(start, end):
                return
            self._populated.add(start, end)
        end = min(end, self.capacity_bytes)
        for step in range(start, end, _GIL_STEP):
            try:
                region.madvise(_MADV_POPULATE_READ, step, min(_GIL_STEP, end - step))
            except OSError:
                self._can_populate = False  # an older kernel: page faults do the same, slower
                return

    def _no_memory(self, nbytes: int, error: OSError) -> ObjectStoreFullError:
        try:
            stat = os.statvfs(self.path.parent)
            left = f"{stat.f_bavail * stat.f_frsize:,} bytes free of {stat.f_blocks * stat.f_frsize:,}"
        except OSError:
            left = "free space unknown"
        return ObjectStoreFullError(
            f"no shared memory for an object of {nbytes:,} bytes in {self.path} ({left}: {error.strerror}). "
            f"Free memory on this machine, enlarge {self.path.parent}, or start the node with a smaller object store "
            f"so that it spills to disk earlier.",
            needed_bytes=nbytes,
            budget_bytes=self.capacity_bytes,
        )


def copy_bytes(target: memoryview, source: Any) -> None:
    """Copy all of `source` (any contiguous buffer) to the start of `target`, letting other threads run in between.

    ValueError when the target is too small.
    """
    with memoryview(source) as whole, whole.cast("B") as flat:
        if flat.nbytes > target.nbytes:
            raise ValueError(f"{flat.nbytes} bytes do not fit into {target.nbytes}")
        for start in range(0, flat.nbytes, _GIL_STEP):
            end = min(start + _GIL_STEP, flat.nbytes)
            target[start:end] = flat[start:end]


def sweep_arenas(directory: str | Path) -> list[Path]:
    """Remove the arena files in `directory` whose makers are dead (`kill -9` leaves them); returns their paths."""
    removed = []
    for path in sorted(Path(directory).glob(f"*{ARENA_SUFFIX}")):
        try:
            fd = os.open(path, os.O_RDWR | os.O_NOFOLLOW)
        except OSError:
            continue  # gone meanwhile, or not ours
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_same_file(fd, path):
                path.unlink(missing_ok=True)
                removed.append(path)
        except BlockingIOError:
            continue  # its maker lives
        finally:
            os.close(fd)
    return removed


def _is_same_file(fd: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), os.stat(path, follow_symlinks=False))
    except FileNotFoundError:
        return False


def _release(pid: int, release: Callable[[], object]) -> None:
    """Views inherited by a forked child die there too; their pins are the parent's."""
    if os.getpid() == pid:
        release()


def _span(nbytes: int) -> int:
    """`nbytes` rounded up to one of 16 sizes per power of two, so that a program uses ~300 array types at most.

    A new ctypes array type costs 8 us and lives until a full garbage collection; a known one costs nothing.
    """
    step = max(PAGE, 1 << max(nbytes.bit_length() - 5, 0))
    return -(-nbytes // step) * step


@lru_cache(maxsize=1024)
def _bytes_type(nbytes: int) -> type[ctypes.Array[ctypes.c_ubyte]]:
    import ctypes  # late: it takes 2 ms, and who reads nothing stored needs none

    return ctypes.c_ubyte * nbytes
