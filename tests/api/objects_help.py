"""Small helps of the object tests: waiting for counters without sleeping long, sizes, and what the driver received."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import zmreg
from zmreg.services.seat.client import current

MB = 1_000_000


def eventually(fact: Callable[[], Any], what: str = "", within_s: float = 15.0, collect: bool = True) -> Any:
    """Poll `fact` until it is true; for state that other processes report late. Fails with `what` after the limit."""
    deadline = time.monotonic() + within_s
    while True:
        if collect:
            gc.collect()
        value = fact()
        if value:
            return value
        assert time.monotonic() < deadline, f"not within {within_s} s: {what or fact} (now {zmreg.stats()})"
        time.sleep(0.02)


def used_bytes() -> int:
    """Bytes of the store that objects take now."""
    used: int = zmreg.stats()["store"]["used_bytes"]
    return used


def store_empties() -> None:
    """Wait until the store holds nothing."""
    eventually(lambda: used_bytes() == 0, "the store to be empty")


def loans_end() -> None:
    """Wait until nobody owes this process anything."""
    eventually(lambda: zmreg.stats()["refs"]["lent"] == 0, "all loans to be returned")


@contextmanager
def received() -> Iterator[Callable[[], int]]:
    """Counts the bytes that this process receives through its door, payloads and all."""
    seat = current()
    assert seat is not None
    ends: Any = seat.ends
    original = ends.receive
    total = 0

    def count() -> tuple[bytes, bytes]:
        nonlocal total
        sender, frame = original()
        total += len(frame)
        return sender, frame

    ends.receive = count
    try:
        yield lambda: total
    finally:
        del ends.receive
