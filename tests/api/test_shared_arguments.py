"""Large immutable arguments passed to many calls are stored once; what can change is not shared (core-api C35)."""

from __future__ import annotations

import gc
import os
import sys
import threading

import numpy as np
import pytest

import zmreg
from tests.api.objects_help import MB, eventually, store_empties, used_bytes
from zmreg.services.seat import once
from zmreg.services.seat.client import current

pytestmark = pytest.mark.usefixtures("cluster")


@zmreg.remote
def size(value, *more):
    return len(value)


@zmreg.remote
def first(value):
    return value[0]


def objects():
    return zmreg.stats()["store"]["sealed"]


@pytest.fixture
def gated(tmp_path, empty_store):
    """A call that holds its arguments in the store until the gate is there, and that gate."""
    gate = tmp_path / "gate"

    @zmreg.remote
    def waits(*values, path=str(gate), **named):
        while not os.path.exists(path):
            threading.Event().wait(0.005)
        return [len(value) for value in (*values, *named.values())]

    yield waits, gate
    gate.touch()


@pytest.fixture(autouse=True)
def empty_store():
    store_empties()
    yield
    store_empties()  # whatever was stored for calls goes with them


@pytest.mark.parametrize("blob", [bytes(10 * MB), "ü" * (5 * MB)], ids=["bytes", "str"])
def test_C35_the_same_object_passed_to_20_calls_is_stored_once(blob, gated):
    waits, gate = gated
    refs = [waits.remote(blob) for _ in range(20)]
    assert objects() == 1
    assert 10 * MB <= used_bytes() < 11 * MB
    gate.touch()
    assert zmreg.get(refs, timeout=60) == [[len(blob)]] * 20
    store_empties()
    assert not current().once._kept
    assert size.remote(blob).get(timeout=20) == len(blob)  # and once more, from the beginning


def test_C35_by_position_by_name_twice_and_for_actors(gated):
    blob = bytes(10 * MB)
    waits, gate = gated

    @zmreg.remote(num_cpus=0)
    class Actor:
        def __init__(self, value):
            self.nbytes = len(value)

        def both(self, value, other=b""):
            return self.nbytes, len(value), len(other)

    refs = [waits.remote(blob), waits.remote(7 * b".", named=blob), waits.remote(blob, blob)]
    actor = Actor.remote(blob)
    answer = actor.both.remote(blob, other=blob)
    assert answer.get(timeout=30) == (10 * MB,) * 3
    assert objects() == 1
    gate.touch()
    assert zmreg.get(refs, timeout=30) == [[10 * MB], [7, 10 * MB], [10 * MB, 10 * MB]]
    del actor


def test_C35_beside_refs_and_other_large_arguments(gated):
    blob, ref = bytes(MB), zmreg.put(bytes(2 * MB))
    waits, gate = gated
    refs = [waits.remote(ref, blob, np.zeros(MB, np.uint8), "s", also=ref, more=blob) for _ in range(3)]
    assert objects() == 2 + 3  # the arrays are each call's own
    gate.touch()
    assert zmreg.get(refs, timeout=30) == [[2 * MB, MB, MB, 1, 2 * MB, MB]] * 3


@pytest.mark.parametrize("kind", [np.ndarray, bytearray, list])
def test_C35_what_is_changed_between_calls_is_seen(kind):
    value = np.zeros(MB, np.uint8) if kind is np.ndarray else kind(bytes(200_000))
    before = first.remote(value)
    value[0] = 1
    after = first.remote(value)
    assert [before.get(timeout=20), after.get(timeout=20)] == [0, 1]


def test_C35_a_read_only_view_of_memory_that_changes_is_not_shared():
    memory = np.zeros(MB, np.uint8)
    value = memory.view()
    value.flags.writeable = False
    before = first.remote(value)
    memory[0] = 1
    assert [before.get(timeout=20), first.remote(value).get(timeout=20)] == [0, 1]


def test_C35_a_subclass_of_bytes_is_not_taken_for_bytes():
    class Marked(bytes):
        pass

    assert type(zmreg.remote(lambda value: value).remote(Marked(MB)).get(timeout=20)).__name__ == "Marked"
    assert not current().once._kept


def test_C35_a_new_object_at_the_address_of_an_old_one_is_not_taken_for_it():
    refs = []
    for n in range(50):
        refs.append(first.remote(bytes([n]) * 100_000))
    assert zmreg.get(refs, timeout=30) == list(range(50))


def test_C35_an_object_that_nobody_else_holds_is_let_go(gated):
    """It cannot be passed again: keeping it would only take memory until its call is over."""
    waits, gate = gated
    held = bytes(MB)
    refs = [waits.remote(held)]
    refs += [waits.remote(bytes(MB)) for _ in range(5)]
    assert len(current().once._kept) == 2  # the one that is held, and the last one
    assert sum(kept[0] is held for kept in current().once._kept.values()) == 1
    gate.touch()
    zmreg.get(refs, timeout=30)


def test_C35_what_is_kept_is_bounded(gated, monkeypatch):
    monkeypatch.setattr(once, "KEEP_BYTES", 3 * MB)
    waits, gate = gated
    many = [bytes(100_000 + n) for n in range(40)]
    large = [bytes(MB + n) for n in range(5)]
    refs = [waits.remote(value) for value in many]
    assert len(current().once._kept) == once.KEEP
    refs += [waits.remote(value) for value in large]
    assert sum(len(kept[0]) for kept in current().once._kept.values()) <= 3 * MB
    refs.append(waits.remote(huge := bytes(4 * MB)))
    refs.append(waits.remote(huge))
    assert [kept[0] is huge for kept in current().once._kept.values()] == [True]
    gate.touch()
    assert zmreg.get(refs[-1], timeout=30) == [4 * MB]
    zmreg.get(refs, timeout=60)


def test_C35_the_callers_object_is_not_held_beyond_its_calls():
    blob = bytes(MB)
    before = sys.getrefcount(blob)
    zmreg.get([size.remote(blob) for _ in range(3)], timeout=20)
    gc.collect()
    eventually(lambda: sys.getrefcount(blob) == before, "the object to be let go")


def test_C35_a_failed_call_can_be_made_again_with_it(tmp_path):
    @zmreg.remote
    def needs(value, path):
        if not os.path.exists(path):
            raise FileNotFoundError(path)
        return len(value)

    blob = bytes(MB)
    ref = needs.remote(blob, str(tmp_path / "a"))
    assert ref.exception(timeout=20) is not None
    (tmp_path / "a").touch()
    assert ref.retry().get(timeout=20) == MB


def test_C35_threads_that_pass_the_same_object():
    blob = bytes(MB)
    answers = []

    def work():
        answers.extend(zmreg.get([size.remote(blob) for _ in range(20)], timeout=60))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert answers == [MB] * 80


def test_C35_X2_keywords_of_map_are_stored_once():
    blob = bytes(10 * MB)
    before = zmreg.stats()["store"]
    values = zmreg.map(lambda n, blob: n + len(blob), range(200), chunk=10, blob=blob)
    assert next(values) == 10 * MB
    assert used_bytes() < 11 * MB
    assert list(values) == [n + 10 * MB for n in range(1, 200)]
    assert before["used_bytes"] == 0
