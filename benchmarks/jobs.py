"""The functions and the actor that the peers' workers run. Importable by name in every worker (PYTHONPATH)."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from typing import Any

# A reader that nobody releases (the driver died) ends by itself.
HOLD_LIMIT_S = 60.0


def noop() -> None:
    """Nothing: what is left is the framework."""


def numbers(count: int) -> Iterator[int]:
    """From 0, one after the other. In a loop: Ray 2.60 cannot do `yield from range(count)`."""
    for number in range(count):  # noqa: UP028
        yield number


def identity(item: int) -> int:
    """The item itself: the no-op of `map`."""
    return item


def increment(number: int) -> int:
    """One more: a link of a chain, a leaf of a tree."""
    return number + 1


def add(left: int, right: int) -> int:
    """The sum of two: an inner node of a tree."""
    return left + right


def sleep_for(seconds: float) -> float:
    """Sleep; returns the seconds asked for."""
    time.sleep(seconds)
    return seconds


def pid_after(seconds: float) -> int:
    """This worker's process id, after a sleep long enough for the other worker to take the next task."""
    time.sleep(seconds)
    return os.getpid()


def make_array(nbytes: int) -> Any:
    """A new float64 array of `nbytes` bytes, all ones, its pages touched."""
    return import_module("numpy").ones(nbytes // 8)


@lru_cache(maxsize=1)
def _kept_array(nbytes: int) -> Any:
    return make_array(nbytes)


def kept_array(nbytes: int) -> Any:
    """The same array on every call in one process, so that only returning it is measured."""
    return _kept_array(nbytes)


def prepare_array(nbytes: int, seconds: float) -> int:
    """Make the array `kept_array` will return, then hold the worker so that the other one gets a task too."""
    size = int(_kept_array(nbytes).nbytes)
    time.sleep(seconds)
    return size


def changed_array(array: Any) -> Any:
    """A new array of the same size, all ones, made of all elements of another one."""
    return array * 2.0 - 1.0


def size_of(array: Any) -> int:
    """Bytes of the array, after a look at both its ends."""
    return int(array.nbytes) if array[0] == array[-1] == 1.0 else -1


def read_and_hold(array: Any, directory: str, index: int) -> float:
    """Read every element, tell so with a file in `directory`, and keep the array until the file `release` appears.

    Returns the sum. The driver measures memory while all readers hold.
    """
    total = float(array.sum())
    Path(directory, f"reader-{index}").touch()
    end = time.monotonic() + HOLD_LIMIT_S
    while not Path(directory, "release").exists() and time.monotonic() < end:
        time.sleep(0.01)
    return total + 0.0 * float(array[0])


def forever_at_first(directory: str) -> int:
    """Write this worker's id into the file `started` and stay; who is called after that returns at once.

    Returns the worker's process id.
    """
    started = Path(directory, "started")
    if started.exists():
        return os.getpid()
    new = Path(directory, "starting")
    new.write_text(str(os.getpid()), encoding="ascii")
    new.rename(started)
    time.sleep(HOLD_LIMIT_S)
    return -1


class Counter:
    """The actor: counts its calls."""

    def __init__(self) -> None:
        self.count = 0

    def inc(self) -> int:
        """One more call; returns how many there were."""
        self.count += 1
        return self.count
