"""Values behind refs: what arrives, where it lies, what is told of it, and when it goes (rows 15-18, 55, 56, D)."""

from __future__ import annotations

import contextlib
import copy
import gc
import os
import subprocess
import sys
import threading
import warnings
import weakref
from typing import Any

import numpy as np
import pytest

import zmreg
from tests.api.objects_help import MB, eventually, received, store_empties, used_bytes

pytestmark = pytest.mark.usefixtures("cluster")

BIG = 2 * MB


@zmreg.remote
def same(*args: Any, **kwargs: Any) -> Any:
    return (args, kwargs)


@zmreg.remote
def zeros(nbytes: int) -> np.ndarray:
    return np.zeros(nbytes, dtype=np.uint8)


@zmreg.remote
def kinds(*args: Any, **kwargs: Any) -> list[str]:
    return [type(arg).__name__ for arg in (*args, *kwargs.values())]


# -- arguments ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", ["small", np.arange(BIG // 8)], ids=["inline", "stored"])
def test_row15_a_ref_as_an_argument_arrives_as_its_value(value: Any) -> None:
    name = type(value).__name__
    ref = zmreg.put(value)
    later = same.remote(value)[0][0]
    assert kinds.remote(ref, 1, x=ref).get(timeout=20) == [name, "int", name]
    assert kinds.remote(*[ref, ref, later]).get(timeout=20) == [name, name, name]
    (args, kwargs) = same.remote(ref, k=ref).get(timeout=20)
    assert np.array_equal(args[0], value)
    assert np.array_equal(kwargs["k"], value)


def test_row15_inputs_are_fetched_before_a_worker_is_occupied() -> None:
    """Both CPUs are waited for by tasks whose input is late; the task that makes it still runs."""
    gate = Gate.remote()
    late = gate.wait.remote()
    waiting = [same.remote(late) for _ in range(4)]
    assert same.remote("free").get(timeout=20) == (("free",), {})
    gate.open.remote()
    assert zmreg.get(waiting, timeout=20) == [(("opened",), {})] * 4


@zmreg.remote
class Gate:
    """A value that comes when it is told to."""

    def __init__(self) -> None:
        import asyncio

        self.opened = asyncio.Event()

    async def wait(self) -> str:
        await self.opened.wait()
        return "opened"

    async def open(self) -> None:
        self.opened.set()


def test_row16_nested_refs_stay_refs() -> None:
    ref = zmreg.put(5)
    (args, _) = same.remote([ref], {"k": (ref, ref)}).get(timeout=20)
    assert args == ([ref], {"k": (ref, ref)})
    assert args[0][0].get(timeout=5) == 5
    assert kinds.remote([ref]).get(timeout=20) == ["list"]


def test_row16_nested_refs_are_gettable_inside_the_task() -> None:
    @zmreg.remote
    def total(refs: list[zmreg.ObjectRef[int]]) -> int:
        return sum(zmreg.get(refs, timeout=20))

    assert total.remote([zmreg.put(n) for n in range(10)]).get(timeout=20) == 45


# -- refs as values ----------------------------------------------------------------------------------------------------


def test_row17_refs_hash_equal_and_copy() -> None:
    ref, other = zmreg.put(1), zmreg.put(1)
    again = same.remote([ref]).get(timeout=20)[0][0][0]
    assert again == ref
    assert ref != other
    assert hash(again) == hash(ref)
    assert {ref: "a", other: "b"}[again] == "a"
    assert len({ref, again, other}) == 2
    assert len(ref.hex()) == 32
    assert bytes.fromhex(ref.hex())
    assert ref.hex() == again.hex() != other.hex()
    assert ref != ref.hex()


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy])
def test_row17_a_copy_is_another_reference(duplicate: Any) -> None:
    ref = zmreg.put(np.ones(BIG, dtype=np.uint8))
    twin = duplicate(ref)
    assert twin == ref
    del ref
    assert twin.get(timeout=10)[0] == 1
    del twin
    store_empties()


@pytest.mark.parametrize("size", [3, BIG], ids=["inline", "stored"])
def test_row18_put_is_a_snapshot(size: int) -> None:
    value = bytearray(size)
    numbers = np.zeros(size, dtype=np.uint8)
    nested = {"k": [0]}
    refs = [zmreg.put(value), zmreg.put(numbers), zmreg.put(nested)]
    value[0] = 9
    numbers[0] = 9
    nested["k"].append(9)
    first, second, third = zmreg.get(refs, timeout=10)
    assert (first[0], second[0], third) == (0, 0, {"k": [0]})


def test_row18_put_of_a_ref_is_a_type_error() -> None:
    with pytest.raises(TypeError, match="not a ref"):
        zmreg.put(zmreg.put(1))


def test_row18_put_inside_a_task_can_be_read_everywhere() -> None:
    @zmreg.remote
    def maker(nbytes: int) -> list[zmreg.ObjectRef[np.ndarray]]:
        return [zmreg.put(np.full(nbytes, 7, dtype=np.uint8))]

    for nbytes in (10, BIG):
        (inner,) = maker.remote(nbytes).get(timeout=20)
        assert inner.get(timeout=20).sum() == 7 * nbytes
        assert same.remote(inner).get(timeout=20)[0][0].sum() == 7 * nbytes


# -- where values live -------------------------------------------------------------------------------------------------


@pytest.mark.near
def test_D3_every_object_is_located() -> None:
    """Stored ones at their node, be they put or returned; small ones with their owner."""
    put, made, small = zmreg.put(bytes(BIG)), zeros.remote(BIG), zmreg.put(1)
    zmreg.wait([made], timeout=20)
    node = zmreg.nodes()[0]["NodeID"]
    assert zmreg.who_has([put, made, small]) == {put: [node], made: [node], small: []}
    assert (put.meta.state, made.meta.state, small.meta.state) == ("stored", "stored", "inline")
    assert put.meta.owner == made.meta.owner


def test_D8_a_result_stays_where_it_was_made() -> None:
    """The driver hears less than 10 KB of a result of 50 MB until it asks for it; all metadata is there already."""
    with received() as count:
        ref = zeros.remote(50 * MB)
        ready, _ = zmreg.wait([ref], timeout=30)
        assert ready
        meta = ref.meta
        assert count() < 10_000
        assert 50 * MB <= meta.nbytes < 51 * MB
        assert meta.type_name == "ndarray"
        assert meta.task_s > 0
        assert len(meta.holders) == 1
        assert ref.get(timeout=20).nbytes == 50 * MB
        assert count() < 20_000, "a value is read in shared memory, never sent"


def test_D8_a_small_result_rides_along() -> None:
    ref = zeros.remote(1000)
    zmreg.wait([ref], timeout=20)
    assert ref.meta.state == "inline"
    before = zmreg.stats()["store"]["peak_bytes"]
    assert ref.get(timeout=5).nbytes == 1000
    assert zmreg.stats()["store"]["peak_bytes"] == before


def test_row55_an_inline_value_can_be_served_to_third_parties() -> None:
    @zmreg.remote
    class Reader:
        def read(self, refs: list[zmreg.ObjectRef[str]]) -> str:
            return refs[0].get(timeout=20)

    small = same.remote("little")
    readers = [Reader.remote() for _ in range(2)]
    assert zmreg.get([reader.read.remote([small]) for reader in readers], timeout=30) == [(("little",), {})] * 2


def test_D9_the_second_get_makes_nothing_new() -> None:
    ref = zeros.remote(BIG)
    first = ref.get(timeout=20)
    with received() as count:
        second = ref.get(timeout=20)
        assert count() < 1_000
    assert first.ctypes.data == second.ctypes.data, "both are the same bytes of shared memory"


def test_D9_a_poll_gets_what_is_there() -> None:
    refs = [zmreg.put(1), zeros.remote(BIG), zmreg.put(bytes(BIG))]
    zmreg.wait(refs, num_returns=3, timeout=20)
    one, array, data = zmreg.get(refs, timeout=0)
    assert (one, array.nbytes, len(data)) == (1, BIG, BIG)
    assert refs[1].get(timeout=0).nbytes == BIG


def test_D9_get_of_many_kinds_at_once() -> None:
    refs = [zmreg.put(1), zeros.remote(BIG), zmreg.put(bytes(BIG)), same.remote()]
    one, array, data, empty = zmreg.get(refs, timeout=20)
    assert (one, array.nbytes, len(data), empty) == (1, BIG, BIG, ((), {}))
    assert zmreg.get([], timeout=1) == []
    assert zmreg.get([refs[0]] * 3, timeout=1) == [1, 1, 1]


@pytest.mark.parametrize(
    "value",
    [bytes(BIG), bytearray(BIG), {"a": [1, {"b": (2, None)}], "blob": bytes(BIG)}, "x" * BIG, list(range(50_000))],
    ids=["bytes", "bytearray", "nested", "text", "list"],
)
def test_D12_values_go_round_unchanged(value: Any) -> None:
    for ref in (zmreg.put(value), same.remote(value)[0][0]):
        back = ref.get(timeout=20)
        assert type(back) is type(value)
        assert back == value


@pytest.mark.parametrize("size", [3, BIG], ids=["inline", "stored"])
def test_seen_in_ray_bytearray_stays_bytearray(size: int) -> None:
    (args, _) = same.remote(bytearray(size), {"k": bytearray(size)}).get(timeout=20)
    assert type(args[0]) is bytearray
    assert type(args[1]["k"]) is bytearray
    args[0][0] = 1
    assert args[0][0] == 1, "and it is the reader's own"


@pytest.mark.parametrize("size", [1, BIG], ids=["inline", "stored"])
def test_seen_in_ray_identity_inside_one_value_survives(size: int) -> None:
    shared: list[Any] = [np.zeros(size, dtype=np.uint8)]
    loop: list[Any] = []
    loop.append(loop)
    (args, _) = same.remote(shared, {"k": shared}, [shared, loop]).get(timeout=20)
    assert args[0] is args[1]["k"]
    assert args[2][0] is args[0]
    assert args[2][1][0] is args[2][1]
    first, second = zmreg.put([shared, shared]).get(timeout=5)
    assert first is second


# -- arrays ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [100, BIG], ids=["inline", "stored"])
def test_C22_arrays_are_read_only_and_copy_gives_a_private_one(size: int) -> None:
    ref = zmreg.put({"x": np.zeros(size, dtype=np.uint8)})
    array = ref.get(timeout=10)["x"]
    assert not array.flags.writeable
    with pytest.raises(ValueError, match="read-only"):
        array[0] = 1
    own = ref.get(timeout=10, copy=True)["x"]
    own[0] = 1
    assert own.flags.writeable
    assert ref.get(timeout=10)["x"][0] == 0
    assert zmreg.get([ref], timeout=10, copy=True)[0]["x"].flags.writeable


def test_C22_the_error_inside_a_task_says_what_to_do() -> None:
    @zmreg.remote
    def write(array: np.ndarray) -> None:
        array[0] = 1

    with pytest.raises(ValueError, match="read-only") as caught:
        write.remote(np.zeros(BIG)).get(timeout=20)
    assert "copy()" in "".join(getattr(caught.value.cause, "__notes__", [])) + str(caught.value)


def test_C22_recarrays_and_object_arrays_survive() -> None:
    records = np.rec.array([(1, 2.5)] * 10_000, dtype=[("a", "i4"), ("b", "f8")])
    objects = np.array([{"k": 1}, None, "x"] * 1000, dtype=object)
    back, things = zmreg.get([same.remote(records)[0][0], same.remote(objects)[0][0]], timeout=20)
    assert back.a.sum() == 10_000
    assert isinstance(back, np.recarray)
    assert things[0] == {"k": 1}


def test_row56_arrays_are_views_of_shared_memory() -> None:
    """Not one of them has a copy: the address is the same for every get and every nested array stays a view."""
    ref = zmreg.put({"a": np.ones(BIG, dtype=np.uint8), "b": np.ones(BIG // 8)})
    one, two = ref.get(timeout=10), ref.get(timeout=10)
    assert one["a"].ctypes.data == two["a"].ctypes.data
    assert one["b"].ctypes.data == two["b"].ctypes.data
    assert not one["a"].flags.owndata


def test_row56_a_view_keeps_its_object_alive() -> None:
    ref = zmreg.put(np.arange(BIG // 8))
    part = ref.get(timeout=10)[10:20].reshape(2, 5)
    del ref
    fill = [zmreg.put(np.zeros(BIG // 8, dtype=np.int64)) for _ in range(3)]
    assert part.tolist() == [[10, 11, 12, 13, 14], [15, 16, 17, 18, 19]]
    assert used_bytes() >= 4 * BIG
    del fill, part
    store_empties()


@pytest.mark.near
def test_row56_views_of_arguments_outlive_the_call_in_an_actor() -> None:
    @zmreg.remote
    class Keeper:
        def keep(self, array: np.ndarray) -> None:
            self.array = array[5:8]

        def read(self) -> list[int]:
            values: list[int] = self.array.tolist()
            return values

        def drop(self) -> None:
            del self.array

    keeper = Keeper.remote()
    keeper.keep.remote(np.arange(BIG // 8)).get(timeout=20)
    noise = [zeros.remote(BIG) for _ in range(3)]
    zmreg.wait(noise, num_returns=3, timeout=20)
    assert keeper.read.remote().get(timeout=20) == [5, 6, 7]
    assert used_bytes() >= 4 * BIG
    keeper.drop.remote().get(timeout=20)
    del noise
    store_empties()


def test_D14_each_task_has_its_own_mutable_containers() -> None:
    @zmreg.remote
    def spoil(numbers: list[int], table: dict[str, list[int]]) -> int:
        numbers.append(1)
        table["k"].append(1)
        return len(numbers) + len(table["k"])

    shared, table = zmreg.put([0] * 20_000), zmreg.put({"k": [0]})
    assert zmreg.get([spoil.remote(shared, table) for _ in range(4)], timeout=20) == [20_003] * 4
    assert len(shared.get(timeout=5)) == 20_000
    mine = shared.get(timeout=5)
    mine.append(2)
    assert len(shared.get(timeout=5)) == 20_000


def test_D13_what_cannot_be_pickled_names_its_path() -> None:
    with pytest.raises(zmreg.errors.SerializationError, match=r"\['deep'\]\[1\]"):
        zmreg.put({"deep": [1, threading.Lock()]})
    with pytest.raises(zmreg.errors.SerializationError, match=r"\['deep'\]\[1\]"):
        same.remote({"deep": [1, threading.Lock()]})

    @zmreg.remote
    def bad() -> dict[str, Any]:
        return {"deep": [1, threading.Lock()]}

    with pytest.raises(zmreg.errors.SerializationError, match=r"\['deep'\]\[1\]"):
        bad.remote().get(timeout=20)


# -- projections, metadata ---------------------------------------------------------------------------------------------


def test_projection_only_the_field_travels() -> None:
    @zmreg.remote
    def table() -> dict[str, Any]:
        return {"k": {"x": 41}, "big": np.zeros(50 * MB, dtype=np.uint8)}

    with received() as count:
        ref = table.remote()
        assert ref["k"]["x"].get(timeout=30) == 41
        assert count() < 20_000
        assert ref.meta.nbytes > 50 * MB
    with pytest.raises(KeyError):
        ref["missing"].get(timeout=20)


def test_projection_of_attributes() -> None:
    ref = zeros.remote(BIG)
    assert ref.attr("shape").get(timeout=20) == (BIG,)
    assert ref.attr("shape")[0].get(timeout=20) == BIG
    with pytest.raises(AttributeError):
        ref.attr("nothing").get(timeout=20)


def test_meta_never_fetches_and_follows_the_state() -> None:
    gate = Gate.remote()
    ref = gate.wait.remote()
    meta = ref.meta
    assert (meta.state, meta.nbytes, meta.holders) == ("pending", 0, ())
    gate.open.remote()
    ref.get(timeout=20)
    assert ref.meta.state == "inline"
    assert ref.meta.task_s > 0

    @zmreg.remote
    def fail() -> None:
        raise KeyError("x")

    bad = fail.remote()
    zmreg.wait([bad], timeout=20)
    assert bad.meta.state == "failed"


def test_D1_a_borrower_sees_size_type_and_holder_too() -> None:
    @zmreg.remote
    def look(refs: list[zmreg.ObjectRef[Any]]) -> Any:
        zmreg.wait(refs, timeout=20)
        return refs[0].meta

    ref = zeros.remote(BIG)
    mine = (zmreg.wait([ref], timeout=20)[0][0]).meta
    theirs = look.remote([ref]).get(timeout=20)
    assert (theirs.state, theirs.nbytes, theirs.type_name) == (mine.state, mine.nbytes, mine.type_name)
    assert (theirs.holders, theirs.owner) == (mine.holders, mine.owner)


# -- errors as results -------------------------------------------------------------------------------------------------


def test_D20_dependants_of_a_failed_task_fail_without_running() -> None:
    @zmreg.remote
    class Count:
        def __init__(self) -> None:
            self.ran = 0

        def call(self, *_args: Any) -> None:
            self.ran += 1

        def read(self) -> int:
            return self.ran

    @zmreg.remote
    def fail() -> None:
        raise KeyError("the reason")

    counter = Count.remote()
    bad = fail.remote()
    with pytest.raises(KeyError, match="the reason"):
        counter.call.remote(bad).get(timeout=20)
    with pytest.raises(KeyError, match="the reason"):
        same.remote(same.remote(bad)).get(timeout=20)
    assert counter.read.remote().get(timeout=20) == 0


# -- freeing -----------------------------------------------------------------------------------------------------------


def test_D19_dropped_refs_free_the_store() -> None:
    """1,000 objects of 1 MB, made, dropped: the store is empty again."""
    block = np.zeros(MB, dtype=np.uint8)
    for _ in range(10):
        refs = [zmreg.put(block) for _ in range(100)]
        assert used_bytes() >= 100 * MB
        del refs
    store_empties()


def test_D19_results_nobody_waits_for_are_freed() -> None:
    for _ in range(20):
        zeros.remote(MB)
    done = same.remote()
    done.get(timeout=20)
    store_empties()


def test_D19_arguments_by_value_are_freed_with_the_call() -> None:
    block = np.zeros(BIG, dtype=np.uint8)
    refs = [kinds.remote(block, more=block) for _ in range(5)]
    assert zmreg.get(refs, timeout=20) == [["ndarray", "ndarray"]] * 5
    store_empties()


def test_D19_an_error_keeps_nothing_alive() -> None:
    """A get that raised, caught and forgotten, leaves no frame behind that would hold refs until a collection."""

    @zmreg.remote
    def fail(_array: np.ndarray) -> None:
        raise KeyError("x")

    def attempt() -> weakref.ref[Any]:
        ref = zmreg.put(np.zeros(BIG, dtype=np.uint8))
        with contextlib.suppress(KeyError):
            fail.remote(ref).get(timeout=20)
        return weakref.ref(ref)

    gc.collect()
    gc.disable()
    try:
        assert attempt()() is None
        eventually(lambda: used_bytes() == 0, "the store to be empty", collect=False)
    finally:
        gc.enable()


def test_C35_large_arguments_by_value_need_no_scolding() -> None:
    block = np.zeros(9 * MB, dtype=np.uint8)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        refs = [kinds.remote(block) for _ in range(4)]
    assert zmreg.get(refs, timeout=20) == [["ndarray"]] * 4


def test_row61_D18_an_object_gone_from_under_its_ref_is_a_typed_error() -> None:
    from zmreg.model.messages import FreeObjects
    from zmreg.services.seat.client import current

    seat = current()
    assert seat is not None
    ref = zmreg.put(bytes(BIG))
    seat.tell_node(FreeObjects((bytes.fromhex(ref.hex()),)))
    with pytest.raises(zmreg.errors.ObjectLostError, match=ref.hex()[-8:]) as caught:
        ref.get(timeout=20)
    assert caught.value.object_id == ref.hex()
    with pytest.raises(zmreg.errors.ObjectLostError):
        same.remote(ref).get(timeout=20)


def test_row61_a_lost_value_says_where_it_was_made(monkeypatch: pytest.MonkeyPatch) -> None:
    from zmreg.model.messages import FreeObjects
    from zmreg.services.seat import sites
    from zmreg.services.seat.client import current

    seat = current()
    assert seat is not None
    monkeypatch.setattr(zmreg.ObjectRef, "__init__", sites.noting(zmreg.ObjectRef.__init__))
    ref = zmreg.put(bytes(BIG))
    seat.tell_node(FreeObjects((bytes.fromhex(ref.hex()),)))
    here = rf"made at .*test_objects\.py:\d+, in {test_row61_a_lost_value_says_where_it_was_made.__name__}"
    with pytest.raises(zmreg.errors.ObjectLostError, match=here):
        ref.get(timeout=20)


def test_row61_a_call_site_that_another_thread_notes_at_the_same_time_is_no_error(monkeypatch) -> None:
    from zmreg.services.seat import sites

    class Busy(dict):
        def __iter__(self):
            raise RuntimeError("dictionary changed size during iteration")

    full = Busy({number.to_bytes(4, "big"): ("f.py", number, "f") for number in range(sites._MOST)})
    monkeypatch.setattr(sites, "_sites", full)
    sites._note(b"mine")
    assert "test_objects.py" in sites.made_at(b"mine")


def test_row61_call_sites_are_recorded_where_the_environment_says_so() -> None:
    for value, name in (("1", "noted"), ("0", "__init__"), ("", "__init__")):
        done = subprocess.run(
            [sys.executable, "-c", "import zmreg; print(zmreg.ObjectRef.__init__.__name__)"],
            env={**os.environ, "ZMREG_RECORD_CALL_SITES": value},
            capture_output=True, text=True, check=True, timeout=60,
        )  # fmt: skip
        assert done.stdout.strip() == name


def test_D21_statistics_tell_of_store_and_refs() -> None:
    before = zmreg.stats()
    refs = [zmreg.put(np.zeros(BIG, dtype=np.uint8)) for _ in range(3)]
    view = refs[0].get(timeout=10)
    now = zmreg.stats()
    assert now["store"]["sealed"] - before["store"]["sealed"] == 3
    assert now["store"]["used_bytes"] - before["store"]["used_bytes"] >= 3 * BIG
    assert now["store"]["pinned"] - before["store"]["pinned"] == 1
    assert {"lent", "borrowed", "out_of_band"} <= now["refs"].keys()
    del view, refs
    store_empties()
    eventually(lambda: zmreg.stats()["store"]["pinned"] == before["store"]["pinned"], "all pins to be given back")


# -- threads -----------------------------------------------------------------------------------------------------------


def test_C3_twenty_threads_get_mixed_sizes_at_once() -> None:
    sizes = [1, 1000, 100_000, MB]
    failures: list[BaseException] = []
    start = threading.Barrier(20)

    def work(number: int) -> None:
        try:
            start.wait(timeout=20)
            for turn in range(5):
                nbytes = sizes[(number + turn) % len(sizes)]
                refs = [zeros.remote(nbytes), zmreg.put(bytes(nbytes)), same.remote(number, turn)]
                array, data, (args, _) = zmreg.get(refs, timeout=40)
                assert (array.nbytes, len(data), args) == (nbytes, nbytes, (number, turn))
                assert refs[turn % 3].get(timeout=40) is not None
        except BaseException as error:  # noqa: BLE001  the main thread shows it
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=50)
    assert not failures, failures[0]
    assert not any(thread.is_alive() for thread in threads)
    del threads
    store_empties()


def test_C3_threads_share_one_ref() -> None:
    ref = zeros.remote(BIG)
    sums: list[int] = []
    threads = [threading.Thread(target=lambda: sums.append(int(ref.get(timeout=30).nbytes))) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=40)
    assert sums == [BIG] * 20
