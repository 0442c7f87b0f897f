"""The store when it is small: reuse, spilling, waiting, refusing (rows 59, C28)."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

import zmreg
from tests.api.objects_help import MB, eventually, store_empties

STORE = 64 * MB
BLOCK = 8 * MB


@pytest.fixture(scope="module")
def small_store() -> Iterator[Any]:
    """A cluster whose store holds seven blocks; creators and readers wait for room for two seconds."""
    handle = zmreg.init(num_cpus=2, object_store_bytes=STORE, allocate_timeout_s=2.0)
    try:
        yield handle
    finally:
        zmreg.shutdown()


pytestmark = pytest.mark.usefixtures("small_store")


def block(number: int = 1, nbytes: int = BLOCK) -> np.ndarray:
    return np.full(nbytes, number % 251, dtype=np.uint8)


def store() -> dict[str, int]:
    stats: dict[str, int] = zmreg.stats()["store"]
    return stats


def spill_files() -> list[Path]:
    from zmreg.services.machine.directories import elsewhere
    from zmreg.services.seat.client import current

    seat = current()
    assert seat is not None
    return sorted(elsewhere(seat.session)[1].glob("*.spill"))


@zmreg.remote
def make(number: int, nbytes: int) -> np.ndarray:
    return np.full(nbytes, number % 251, dtype=np.uint8)


@zmreg.remote
def first(array: np.ndarray) -> int:
    return int(array[0])


# -- reuse -------------------------------------------------------------------------------------------------------------


def test_C28_many_puts_in_a_row_use_the_same_memory() -> None:
    """400 MB one after the other: a quarter of the store's 64 MB is ever touched, and nothing is spilled."""
    store_empties()
    for number in range(200):
        ref = zmreg.put(block(number, MB))
        assert ref.get(timeout=20)[0] == number
        del ref
    assert store()["claimed_bytes"] <= STORE // 4
    assert store()["spilled_bytes_total"] == 0
    resident = psutil.Process().memory_full_info().uss
    for number in range(200):
        zmreg.put(block(number, MB))
    assert psutil.Process().memory_full_info().uss - resident < STORE // 4
    store_empties()


def test_C28_results_are_dropped_as_fast_as_they_are_made() -> None:
    for number in range(30):
        assert first.remote(make.remote(number, BLOCK)).get(timeout=20) == number
    store_empties()


# -- spilling ----------------------------------------------------------------------------------------------------------


def test_row59_more_than_the_store_holds_is_spilled_and_comes_back() -> None:
    refs = [zmreg.put(block(number)) for number in range(20)]
    assert store()["used_bytes"] <= STORE
    assert store()["spilled"] > 0
    assert len(spill_files()) > 0
    for number, ref in enumerate(refs):
        array = ref.get(timeout=30)
        assert array[0] == array[-1] == number
        assert not array.flags.writeable
        del array
    assert store()["restored_bytes_total"] > 0
    del refs, ref
    store_empties()
    eventually(lambda: not spill_files(), "spill files of dropped objects to be removed")


def test_row59_results_of_tasks_are_spilled_too_and_are_arguments_again() -> None:
    refs = [make.remote(number, BLOCK) for number in range(16)]
    assert zmreg.get([first.remote(ref) for ref in refs], timeout=60) == list(range(16))
    del refs
    store_empties()


def test_row59_any_object_that_fits_can_be_made_while_the_store_is_full() -> None:
    """One as large as the whole store (less its header's page) throws everybody else out."""
    refs = [zmreg.put(block(number)) for number in range(7)]
    large = zmreg.put(block(9, STORE - BLOCK // 8))
    assert large.get(timeout=30)[-1] == 9
    del large
    assert zmreg.get([first.remote(ref) for ref in refs], timeout=60) == list(range(7))
    del refs
    store_empties()


def test_row59_get_of_more_than_the_store_holds() -> None:
    """Values that are copied out of the store (bytes) hold no memory there: any number of them can be had at once."""
    refs = [zmreg.put(bytes([number]) * BLOCK) for number in range(16)]
    values = zmreg.get(refs, timeout=60)
    assert [value[0] for value in values] == list(range(16))
    assert {len(value) for value in values} == {BLOCK}
    del refs
    store_empties()


def test_row59_get_of_more_views_than_the_store_holds_is_a_typed_error() -> None:
    refs = [zmreg.put(block(number)) for number in range(16)]
    with pytest.raises(zmreg.errors.ObjectStoreFullError, match="Largest"):
        zmreg.get(refs, timeout=60)
    copies = zmreg.get(refs, timeout=60, copy=True)
    assert [copy[0] for copy in copies] == list(range(16))
    del refs
    store_empties()


def test_fault44_damage_on_disk_is_noticed() -> None:
    """A flipped bit in a spill file: a typed error that says so, never a wrong value."""
    refs = [zmreg.put(block(number)) for number in range(14)]
    eventually(lambda: len(spill_files()) >= 5, "five blocks on disk")
    damaged = spill_files()[0]
    data = bytearray(damaged.read_bytes())
    data[len(data) // 2] ^= 1
    damaged.write_bytes(data)
    (ref,) = [ref for ref in refs if ref.hex() == damaged.stem]
    with pytest.raises(zmreg.errors.ObjectLostError, match="damaged: checksum") as caught:
        ref.get(timeout=30)
    assert caught.value.object_id == ref.hex()
    others = [each for each in refs if each != ref]
    assert len([each.get(timeout=30)[0] for each in others]) == 13
    del refs, others, ref
    store_empties()


# -- refusing ----------------------------------------------------------------------------------------------------------


def test_C28_an_object_larger_than_the_store_is_refused_at_once_with_numbers() -> None:
    with pytest.raises(zmreg.errors.ObjectStoreFullError, match=r"76\.3 MiB .* 61\.0 MiB") as caught:
        zmreg.put(block(1, 80 * MB))
    assert caught.value.needed_bytes >= 80 * MB
    assert STORE - MB < caught.value.budget_bytes <= STORE
    with pytest.raises(zmreg.errors.ObjectStoreFullError, match="object_store_bytes"):
        make.remote(1, 80 * MB).get(timeout=30)
    with pytest.raises(zmreg.errors.ObjectStoreFullError):
        first.remote(block(1, 80 * MB))
    assert zmreg.put(block(2)).get(timeout=20)[0] == 2


def test_C28_when_everything_is_pinned_creators_wait_and_then_hear_who_holds_what() -> None:
    refs = [zmreg.put(block(number)) for number in range(7)]
    views = zmreg.get(refs, timeout=30)
    with pytest.raises(zmreg.errors.ObjectStoreFullError, match="Largest: .* 1 reader") as caught:
        zmreg.put(block(8))
    assert refs[0].hex() in str(caught.value)
    assert "object_store_bytes" in str(caught.value)
    del views
    assert zmreg.put(block(8)).get(timeout=30)[0] == 8
    del refs
    store_empties()


def test_C28_a_creator_that_waits_goes_on_when_room_appears() -> None:
    """Backpressure: no error, as long as somebody lets go in time."""
    refs = [zmreg.put(block(number)) for number in range(7)]
    views = zmreg.get(refs, timeout=30)
    done: list[Any] = []
    thread = threading.Thread(target=lambda: done.append(zmreg.put(block(8))))
    thread.start()
    eventually(lambda: store()["waiting"] == 1 or done, "the creator to wait")
    assert not done
    views.pop()
    thread.join(timeout=20)
    assert done[0].get(timeout=20)[0] == 8
    del views, refs
    done.clear()
    store_empties()


def test_C28_many_creators_at_once_all_get_through() -> None:
    results: list[int] = []

    def work(number: int) -> None:
        for turn in range(5):
            ref = zmreg.put(block(number + turn))
            results.append(int(ref.get(timeout=30)[0]) - number - turn)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    refs = [make.remote(number, BLOCK) for number in range(10)]
    for thread in threads:
        thread.join(timeout=50)
    assert results == [0] * 40
    assert zmreg.get([first.remote(ref) for ref in refs], timeout=50) == list(range(10))
    del refs
    store_empties()


def test_row54_several_large_results_of_one_task_need_not_fit_at_once() -> None:
    """Returns are stored one at a time, so a generator may give more than the store holds (ray#15750)."""

    @zmreg.remote(num_returns=12)
    def many() -> Any:
        for number in range(12):
            yield np.full(BLOCK, number, dtype=np.uint8)

    refs = many.remote()
    for number, ref in enumerate(refs):
        assert ref.get(timeout=30)[0] == number
    del refs, ref
    store_empties()
