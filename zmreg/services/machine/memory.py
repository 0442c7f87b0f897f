"""How much memory is in use, by /proc and the limits of control groups; and which processes have how much.

Page cache counts as free, since the kernel gives it up; shared memory (the store) as used, once for the machine. Of a
process only what it alone has counts: all workers share the store and what the zygote has loaded.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from zmreg.core.memory import Reading

# Where proc/ and sys/ are looked for instead of in /: for tests, and where the host's are mounted elsewhere.
ROOT_VARIABLE: Final = "ZMREG_MEMORY_ROOT"
# A worker is the first to go when the kernel runs out of memory, a daemon the last that is ours.
WORKER_SCORE: Final = 1000
DAEMON_SCORE: Final = -500
_PAGE: Final = os.sysconf("SC_PAGE_SIZE")
_KIB: Final = 1024
_MEMINFO: Final = re.compile(rb"MemTotal: *(\d+) kB.*MemAvailable: *(\d+) kB", re.DOTALL)
# Both are among the first lines.
_MEMINFO_BYTES: Final = 512


class Group:
    """The files of one level of control groups that has something to say of memory."""

    __slots__ = ("_cache", "_events", "_limit", "_stat", "_used")

    def __init__(self, directory: Path, version: int) -> None:
        if version == 2:
            names = ("memory.max", "memory.current", "memory.events")
            self._cache = ("inactive_file", "active_file")
        else:
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "memory.oom_control")
            self._cache = ("total_inactive_file", "total_active_file")
        self._limit, self._used, self._events, self._stat = (str(directory / name) for name in (*names, "memory.stat"))

    def read(self, total: int) -> Reading | None:
        """None when it sets no limit below `total`, or is not there."""
        try:
            text = _content(self._limit).strip()
            if text == b"max" or not 0 < int(text) < total:
                return None
            used = int(_content(self._used))
            stat = _table(self._stat)
        except (OSError, ValueError):  # no such controller here, or the group is gone
            return None
        used -= sum(stat.get(name, 0) for name in self._cache)
        return Reading(max(0, used), int(text), f"the limit in {self._limit}")

    def kills(self) -> int:
        """Processes in it that the kernel has ended for want of memory."""
        try:
            return _table(self._events).get("oom_kill", 0)
        except (OSError, ValueError):
            return 0


class Meter:
    """What is in use of the narrowest limit that this process is under. Where /proc is no Linux's, there is none."""

    def __init__(self, root: Path | None = None) -> None:
        self._root = root or Path(os.environ.get(ROOT_VARIABLE) or "/")
        self._meminfo = str(self._root / "proc/meminfo")
        self._groups = [Group(directory, version) for directory, version in self._levels()]

    def read(self) -> Reading | None:
        """The limit that is used up most: the machine's memory, or a control group's."""
        try:
            with open(self._meminfo, "rb", buffering=0) as file:
                said = _MEMINFO.search(file.read(_MEMINFO_BYTES))
        except OSError:
            return None
        if said is None:
            return None
        total, available = (int(kib) * _KIB for kib in said.groups())
        found = [Reading(total - available, total, "the machine's memory")]
        found += [reading for group in self._groups if (reading := group.read(total)) is not None]
        most = max(found, key=lambda reading: reading.share)
        return most.but(kills=self._groups[0].kills() if self._groups else 0)

    def _levels(self) -> Iterator[tuple[Path, int]]:
        """The groups this process is in and those above them; own ones first."""
        try:
            lines = (self._root / "proc/self/cgroup").read_text().splitlines()
        except OSError:
            return
        base = self._root / "sys/fs/cgroup"
        for line in lines:
            _, controllers, path = line.split(":", 2)
            if controllers == "" and not (base / "cgroup.controllers").exists():
                continue  # version 2 beside version 1: it has no memory controller
            if controllers == "" or "memory" in controllers.split(","):
                top, version = (base, 2) if controllers == "" else (base / "memory", 1)
                own = top / path.lstrip("/")
                while own != top and top in own.parents:
                    if own.is_dir():  # else it is the host's path, of which this container sees nothing but the top
                        yield own, version
                    own = own.parent
                yield top, version


def _content(path: str) -> bytes:
    with open(path, "rb", buffering=0) as file:
        return file.read()


def _table(path: str) -> dict[str, int]:
    lines = _content(path).decode().splitlines()
    return {name: int(rest) for name, _, rest in (line.partition(" ") for line in lines)}


def children_of(pid: int) -> list[int]:
    """The processes it has started, by all its threads; none when it is gone."""
    found = []
    try:
        threads = os.listdir(f"/proc/{pid}/task")
    except OSError:
        return []
    for thread in threads:
        with contextlib.suppress(OSError, ValueError):
            children = Path(f"/proc/{pid}/task/{thread}/children").read_text().split()
            found += [int(child) for child in children]
    return found


def own_bytes(pid: int, with_children: bool = True) -> int:
    """Memory of a process and of all it has started, without what they share with others; 0 when it is gone."""
    try:
        _, resident, shared, *_ = Path(f"/proc/{pid}/statm").read_text().split()
    except (OSError, ValueError):
        return 0
    own = (int(resident) - int(shared)) * _PAGE
    return own + sum(own_bytes(child) for child in children_of(pid)) if with_children else own


def prefer(score: int) -> None:
    """Tell the kernel how gladly it may end this process, and those it starts, when it runs out of memory itself.

    To ask for less than one has takes a privilege; without it workers still go before daemons.
    """
    try:
        Path("/proc/self/oom_score_adj").write_text(str(score))
    except OSError:
        return
