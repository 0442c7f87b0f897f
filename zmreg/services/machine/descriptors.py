"""File descriptors: a process of a cluster needs one for each process it talks to, and libzmq aborts without.

libzmq calls abort() when it accepts a connection and has no descriptor left (ipc_listener.cpp), so the soft limit,
1,024 on most systems for the sake of programs that use select(), is raised as far as the system allows.
"""

from __future__ import annotations

import resource
import warnings

ENOUGH = 65_536
# Below this a cluster of a few dozen workers and actors runs out (measured: 12 a process, and one a connection).
FEW = 512


def raise_limit(wanted: int = ENOUGH) -> int:
    """Raise the soft limit of this process to at most `wanted`; returns how many files it may open."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return wanted
    allowed = wanted if hard == resource.RLIM_INFINITY else min(hard, wanted)
    if allowed > soft:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
        except (OSError, ValueError):  # a sandbox forbids it: what there was has to do
            return soft
    return max(soft, allowed)


def prepare(stacklevel: int) -> None:
    """Raise the limit of a driver's process, and warn when that is not enough for more than a small cluster."""
    limit = raise_limit()
    if limit < FEW:
        warnings.warn(
            f"this process may open only {limit} files (RLIMIT_NOFILE): zmreg needs about 30, and one for each process "
            f"it talks to. Have the limit raised (`ulimit -Hn {FEW}` or more) before this program starts.",
            RuntimeWarning,
            stacklevel=stacklevel + 1,
        )
