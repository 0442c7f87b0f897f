"""What processes have used: CPU time, memory, descriptors, by /proc."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Final

_TICKS_S: Final = 1 / os.sysconf("SC_CLK_TCK")
_PAGE: Final = os.sysconf("SC_PAGE_SIZE")
# Places in /proc/PID/stat, counted from behind the process's name.
_OWN: Final = slice(11, 13)
_CHILDREN: Final = slice(13, 15)
_RESIDENT: Final = 21


def usage_of(zygote: int, workers: Iterable[int]) -> dict[str, tuple[float, float, float]]:
    """{role: (CPU seconds, resident bytes, open descriptors)} of the node and its workers.

    A worker's CPU time stays counted when it has ended.
    """
    worker = _of(workers)
    ended = _stat(zygote)
    cpu_s = worker[0] + (sum(map(float, ended[_CHILDREN])) * _TICKS_S if ended else 0.0)
    return {"node": _of([os.getpid()]), "worker": (cpu_s, *worker[1:])}


def _of(pids: Iterable[int]) -> tuple[float, float, float]:
    cpu_s = resident = fds = 0.0
    for pid in pids:
        stat = _stat(pid)
        if stat:
            cpu_s += sum(map(float, stat[_OWN])) * _TICKS_S
            resident += float(stat[_RESIDENT]) * _PAGE
            with contextlib.suppress(OSError):
                fds += len(os.listdir(f"/proc/{pid}/fd"))
    return cpu_s, resident, fds


def _stat(pid: int) -> list[str]:
    """Nothing when it has ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []
