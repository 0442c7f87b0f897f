"""Memory of process trees, read from /proc (Linux only): PSS, USS, and who descends from whom.

PSS (proportional set size) counts a page shared by n processes as 1/n in each, so the sum over a tree counts
every page once. USS counts only the pages a process has to itself.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

PR_SET_CHILD_SUBREAPER = 36


@dataclass(frozen=True, slots=True)
class Memory:
    """Memory of one process, or of several together, in bytes."""

    pss_bytes: int
    uss_bytes: int


def become_subreaper() -> None:
    """Make orphans among this process's descendants its own children, so that none can get away.

    Raises OSError when the kernel refuses.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"prctl(PR_SET_CHILD_SUBREAPER): {os.strerror(code)}")


def descendants(root: int) -> list[int]:
    """Ids of all live processes below `root`, without `root` itself."""
    children: dict[int, list[int]] = {}
    for pid, parent in _parents():
        children.setdefault(parent, []).append(pid)
    found: list[int] = []
    todo = [root]
    while todo:
        below = children.get(todo.pop(), [])
        found.extend(below)
        todo.extend(below)
    return found


def ancestors(pid: int) -> set[int]:
    """The process, its parent, and so on up to the first of all."""
    parents = dict(_parents())
    found = set()
    while pid and pid not in found:
        found.add(pid)
        pid = parents.get(pid, 0)
    return found


def memory_of(pids: Iterable[int]) -> Memory:
    """PSS and USS of the processes together; those that ended meanwhile count as nothing."""
    pss = uss = 0
    for pid in pids:
        try:
            text = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii")
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue  # it ended between the listing and the reading
        for line in text.splitlines():
            key, _, rest = line.partition(":")
            if key == "Pss":
                pss += int(rest.split()[0]) * 1024
            elif key in ("Private_Clean", "Private_Dirty"):
                uss += int(rest.split()[0]) * 1024
    return Memory(pss, uss)


def meminfo_bytes(key: str) -> int:
    """One line of /proc/meminfo, in bytes: `MemTotal`, `MemAvailable`, `Shmem`. Raises KeyError when absent."""
    for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
        name, _, rest = line.partition(":")
        if name == key:
            return int(rest.split()[0]) * 1024
    raise KeyError(f"/proc/meminfo has no line {key!r}")


def _parents() -> Iterator[tuple[int, int]]:
    """(process, parent) for every process that is not a zombie."""
    for entry in os.scandir("/proc"):
        if not entry.name.isdigit():
            continue
        try:
            text = Path(entry.path, "stat").read_text(encoding="utf-8", errors="replace")
        except (FileNotFoundError, ProcessLookupError):
            continue
        # The command name, in brackets, may itself hold brackets and blanks: the state is after the last one.
        state, parent = text.rpartition(")")[2].split()[:2]
        if state != "Z":
            yield int(entry.name), int(parent)
