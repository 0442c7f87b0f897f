"""Several test processes at once (pytest-xdist): who runs together, and who runs while the others pause.

A test marked `alone` has the machine to itself: it times things closely, or it leaves a dead session for the next start
to sweep, which would be anybody's next start. Without xdist all this costs nothing.
"""

from __future__ import annotations

import fcntl
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

# Rooms whose tests take longest, first: what is long and last would leave the other processes idle.
FIRST = ("processes", "services", "tools", "api")
# More failures than these are no accident.
FEW = 5


class Turns:
    """A lock of readers and writers among processes; writers get in however many readers there are."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    @contextmanager
    def taken(self, alone: bool) -> Iterator[None]:
        """Waits for its turn. Who wants to be alone stays in the door until the room is empty; the others wait there
        before they go in."""
        kind = fcntl.LOCK_EX if alone else fcntl.LOCK_SH
        with self._held("door", kind) as door, self._held("room", kind):
            fcntl.flock(door, fcntl.LOCK_UN)  # whoever comes next waits at the room
            yield

    @contextmanager
    def _held(self, name: str, kind: int) -> Iterator[int]:
        fd = os.open(self._directory / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, kind)
            yield fd
        finally:
            os.close(fd)


def turns_of(config: pytest.Config, shared: str | None) -> Turns | None:
    """None when this is the only test process. `shared`: the directory of the one that has started us."""
    return Turns(Path(shared)) if shared and hasattr(config, "workerinput") else None


def in_order(items: list[pytest.Item], root: Path) -> list[pytest.Item]:
    """The long rooms first, files whole."""

    def rank(item: pytest.Item) -> int:
        room = item.path.relative_to(root).parts[0]
        return FIRST.index(room) if room in FIRST else len(FIRST)

    return sorted(items, key=rank)


def may_try_again(failed: Path) -> bool:
    """Whether what has failed in company is so little that haste may be to blame. Says so: whoever passes alone then is
    a test to be mended, or a rare fault to be found."""
    names = list(json.loads(failed.read_text())) if failed.exists() else []
    few = 0 < len(names) <= FEW
    print(f"\n{len(names)} failed in company" + (", and have a second try alone:" if few else ""), *names, sep="\n  ")
    return few


if __name__ == "__main__":
    sys.exit(not may_try_again(Path(sys.argv[1])))
