"""What large objects cost in memory when many processes use them (rows 56, D12)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import numpy as np
import psutil
import pytest

import zmreg
from tests.api.objects_help import MB, store_empties


@pytest.fixture(scope="module", autouse=True)
def roomy_store() -> Iterator[Any]:
    """A cluster for four readers, with a store of 300 MB."""
    handle = zmreg.init(num_cpus=4, object_store_bytes=300 * MB)
    try:
        yield handle
    finally:
        zmreg.shutdown()


@zmreg.remote
class Reader:
    """Reads an array to its end and keeps it."""

    def pid(self) -> int:
        return os.getpid()

    def read(self, array: np.ndarray) -> int:
        self.array = array
        return int(array[::4096].sum())

    def drop(self) -> None:
        del self.array


def proportional(pids: list[int]) -> int:
    """Memory of these processes together, each shared page counted once (PSS)."""
    return sum(int(psutil.Process(pid).memory_full_info().pss) for pid in pids)


def test_row56_readers_of_one_array_share_its_memory() -> None:
    """Four workers that have read 200 MB take less than 240 MB more together."""
    readers = [Reader.remote() for _ in range(4)]
    pids = zmreg.get([reader.pid.remote() for reader in readers], timeout=30)
    zmreg.get([reader.read.remote(np.zeros(MB, dtype=np.uint8)) for reader in readers], timeout=30)
    before = proportional(pids)
    ref = zmreg.put(np.ones(200 * MB, dtype=np.uint8))
    sums = zmreg.get([reader.read.remote(ref) for reader in readers], timeout=50)
    assert sums == [-(-200 * MB // 4096)] * 4
    assert proportional(pids) - before < 240 * MB
    del ref
    zmreg.get([reader.drop.remote() for reader in readers], timeout=30)
    store_empties()


def test_D12_a_large_bytearray_goes_round() -> None:
    @zmreg.remote
    def swap(data: bytearray) -> bytearray:
        data[0], data[-1] = data[-1], data[0]
        return data

    data = bytearray(128 * MB)
    data[0] = 7
    back = swap.remote(zmreg.put(data)).get(timeout=50)
    assert type(back) is bytearray
    assert (len(back), back[0], back[-1]) == (128 * MB, 0, 7)
    assert data[0] == 7
    store_empties()
