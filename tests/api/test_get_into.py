"""X35: a value copied into the caller's memory."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest

import zmreg
from zmreg.model.errors import GetTimeoutError, TaskError

pytestmark = pytest.mark.usefixtures("cluster")
T = 20


@zmreg.remote
def made(kind: str) -> Any:
    if kind == "fails":
        raise ArithmeticError("no value")
    small = np.arange(6, dtype="i4").reshape(2, 3)
    values = {"small": small, "large": np.arange(300_000.0), "bytes": b"abc", "much": b"x" * 200_000, "list": [1]}
    return {**values, "times": np.array(["2024-01-01", "2025-01-01"], dtype="M8[D]")}[kind]


@pytest.mark.parametrize("kind", ["small", "large", "times"])
def test_X35_an_array_comes_into_mine_also_when_it_is_strided(kind: str) -> None:
    ref = made.remote(kind)
    value = ref.get(timeout=T)
    mine = np.zeros_like(value)
    assert ref.get_into(mine) is mine
    assert (mine == value).all() and mine.flags.writeable
    wide = np.zeros((*value.shape, 2), value.dtype)
    ref.get_into(wide[..., 0])
    assert (wide[..., 0] == value).all() and (wide[..., 1] == np.zeros((), value.dtype)).all()


@pytest.mark.parametrize("kind", ["bytes", "much"])
def test_X35_bytes_come_into_any_memory_of_that_size(kind: str) -> None:
    ref = made.remote(kind)
    value = ref.get(timeout=T)
    memory = bytearray(len(value))
    assert ref.get_into(memory) is memory and memory == value
    array = np.zeros(len(value), "u1")
    ref.get_into(array)
    assert array.tobytes() == value
    half = bytearray(2 * len(value))
    ref.get_into(memoryview(half)[len(value) :])
    assert half[len(value) :] == value and not any(half[: len(value)])


@pytest.mark.parametrize(
    ("kind", "out", "error", "says"),
    [
        ("small", np.zeros((3, 2), "i4"), ValueError, r"\(2, 3\).*\(3, 2\)"),
        ("small", np.zeros((2, 3), "i8"), ValueError, "int32.*int64"),
        ("small", bytearray(24), TypeError, "array"),
        ("small", np.broadcast_to(np.zeros((), "i4"), (2, 3)), ValueError, "read-only"),
        ("bytes", bytearray(4), ValueError, "3 bytes.*4"),
        ("bytes", b"abc", ValueError, "read-only"),
        ("bytes", memoryview(bytearray(6))[::2], ValueError, "one piece"),
        ("bytes", "abc", TypeError, "bytearray"),
        ("list", bytearray(1), TypeError, "list.*get"),
    ],
)
def test_X35_what_does_not_fit_is_an_error_and_nothing_is_written(
    kind: str, out: Any, error: type[Exception], says: str
) -> None:
    before = bytes(out) if not isinstance(out, str) else b""
    with pytest.raises(error, match=says):
        made.remote(kind).get_into(out, timeout=T)
    assert before == (bytes(out) if not isinstance(out, str) else b"")


def test_X35_what_get_raises_it_raises_too() -> None:
    with pytest.raises(ArithmeticError) as caught:
        made.remote("fails").get_into(bytearray(1), timeout=T)
    assert isinstance(caught.value, TaskError)
    sleeps = zmreg.remote(time.sleep).remote(60)
    with pytest.raises(GetTimeoutError):
        sleeps.get_into(bytearray(3), timeout=0)
    zmreg.cancel(sleeps)
