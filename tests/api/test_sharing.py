"""Refs that cross processes: who holds what, what becomes of it when processes end (rows 16, 21, 53, 54, C5)."""

from __future__ import annotations

import os
import pickle
import signal
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import zmreg
from tests.api.objects_help import MB, eventually, loans_end, store_empties, used_bytes

BIG = 2 * MB
Ref = zmreg.ObjectRef[Any]

pytestmark = pytest.mark.usefixtures("cluster")


@pytest.fixture(autouse=True)
def books_are_clean(cluster: object) -> Iterator[None]:
    """After each test: nobody owes anything, no hold is left, the store is empty, no message was misunderstood.

    Refs in closures and in pickles made by hand are exempt: they are kept as long as the functions, and counted.
    """
    before = zmreg.stats()["refs"]
    yield
    kept = zmreg.stats()["refs"]["out_of_band"] - before["out_of_band"]
    eventually(lambda: zmreg.stats()["refs"]["lent"] <= before["lent"] + kept, "all loans to be returned")
    store_empties()
    eventually(lambda: zmreg.stats()["refs"]["held_for_others"] == 0, "all holds for others to be settled")
    eventually(lambda: zmreg.stats()["adopted"] == 0, "everything adopted to be dropped")
    assert zmreg.stats()["protocol_errors"] == 0


@zmreg.remote
class Keeper:
    """Keeps whatever it is given, and can make and pass on objects of its own."""

    def __init__(self, kept: Any = None) -> None:
        self.kept: Any = kept

    def keep(self, thing: Any) -> int:
        self.kept = thing
        return os.getpid()

    def read(self) -> Any:
        """The values of the refs kept."""
        return zmreg.get(list(self.kept), timeout=20)

    def give(self) -> Any:
        return self.kept

    def drop(self) -> None:
        self.kept = None

    def pass_on(self, other: Any) -> Any:
        """Hand what is kept to another actor."""
        return zmreg.get(other.keep.remote(self.kept), timeout=20)

    def put(self, value: Any) -> list[Ref]:
        return [zmreg.put(value)]

    def put_and_keep(self, value: Any) -> list[Ref]:
        self.kept = [zmreg.put(value)]
        return list(self.kept)

    def nest(self, value: Any) -> list[Ref]:
        """A ref to a list with a ref to the value; only the outer one leaves by name."""
        return [zmreg.put([zmreg.put(value)])]

    def submit(self, function: Any, *args: Any) -> list[Ref]:
        return [function.remote(*args)]

    def pid(self) -> int:
        return os.getpid()


@zmreg.remote
def total(refs: list[Ref]) -> int:
    return int(sum(np.sum(value) for value in zmreg.get(refs, timeout=20)))


@zmreg.remote
def through(thing: Any) -> Any:
    return thing


def ones(size: int) -> np.ndarray:
    return np.ones(size, dtype=np.uint8)


def end(actor: Any) -> None:
    """Have an actor end in peace, and wait until it has."""
    pid = actor.pid.remote().get(timeout=20)
    actor.__zmreg_terminate__.remote()
    gone(pid)


def kill(actor: Any) -> None:
    """Kill -9 an actor's process."""
    pid = actor.pid.remote().get(timeout=20)
    os.kill(pid, signal.SIGKILL)
    gone(pid)


def gone(pid: int) -> None:
    def check() -> bool:
        return pid not in {worker["Pid"] for worker in workers()}

    eventually(check, f"process {pid} to end")


def workers() -> list[dict[str, Any]]:
    from zmreg.services.seat.client import current

    seat = current()
    assert seat is not None
    answer: list[dict[str, Any]] = seat.ask("workers")
    return answer


SIZES = pytest.mark.parametrize("size", [10, BIG], ids=["inline", "stored"])

# -- borrowed ----------------------------------------------------------------------------------------------------------


@SIZES
def test_row54_a_ref_kept_by_an_actor_keeps_its_object(size: int) -> None:
    keeper = Keeper.remote()
    ref = zmreg.put(ones(size))
    keeper.keep.remote([ref]).get(timeout=20)
    del ref
    assert [value.sum() for value in keeper.read.remote().get(timeout=20)] == [size]
    assert zmreg.stats()["refs"]["lent"] == 1
    keeper.drop.remote().get(timeout=20)
    loans_end()


@SIZES
def test_row16_refs_in_return_values_stay_alive(size: int) -> None:
    keeper = Keeper.remote()
    (ref,) = keeper.put.remote(ones(size)).get(timeout=20)
    assert ref.get(timeout=20).sum() == size
    assert total.remote([ref]).get(timeout=20) == size


@SIZES
def test_row16_a_ref_inside_a_put_value_stays_alive(size: int) -> None:
    outer = zmreg.put({"inner": [zmreg.put(ones(size))]})
    assert outer.get(timeout=10)["inner"][0].get(timeout=10).sum() == size
    assert total.remote(outer["inner"]).get(timeout=20) == size
    inner = outer.get(timeout=10)["inner"]
    del outer
    assert inner[0].get(timeout=10).sum() == size


def test_row16_refs_in_refs_ten_deep() -> None:
    ref: Ref = zmreg.put(ones(BIG))
    for _ in range(10):
        ref = through.remote([ref])
    for _ in range(10):
        (ref,) = ref.get(timeout=20)
    assert ref.get(timeout=20).sum() == BIG


@SIZES
def test_row54_third_party_hand_over_survives_both_givers(size: int) -> None:
    """driver -> A -> B, then driver and A let go: B still reads it; when B lets go it is freed."""
    first, second = Keeper.remote(), Keeper.remote()
    ref = zmreg.put(ones(size))
    first.keep.remote([ref]).get(timeout=20)
    first.pass_on.remote(second).get(timeout=20)
    first.drop.remote().get(timeout=20)
    del ref
    assert [value.sum() for value in second.read.remote().get(timeout=20)] == [size]
    second.drop.remote().get(timeout=20)
    loans_end()


@SIZES
def test_row54_third_party_hand_over_of_a_workers_object(size: int) -> None:
    """Made by A, given to the driver, by it to B, by it to C; A's own handle and all between go."""
    maker, second, third = Keeper.remote(), Keeper.remote(), Keeper.remote()
    refs = maker.put.remote(ones(size)).get(timeout=20)
    second.keep.remote(refs).get(timeout=20)
    del refs
    second.pass_on.remote(third).get(timeout=20)
    second.drop.remote().get(timeout=20)
    assert [value.sum() for value in third.read.remote().get(timeout=20)] == [size]
    third.drop.remote().get(timeout=20)


def test_row54_a_ref_that_comes_home_is_the_same_object() -> None:
    keeper = Keeper.remote()
    ref = zmreg.put(ones(BIG))
    keeper.keep.remote([ref]).get(timeout=20)
    (back,) = keeper.give.remote().get(timeout=20)
    assert back == ref
    del ref
    keeper.drop.remote().get(timeout=20)
    assert back.get(timeout=10).sum() == BIG


def test_row54_the_same_ref_over_and_over() -> None:
    """Many hand-overs of one object to one process, dropped in between: never lost, and free at the end."""
    keeper = Keeper.remote()
    ref = zmreg.put(ones(BIG))
    for _ in range(50):
        keeper.keep.remote([ref])
        keeper.drop.remote()
    keeper.keep.remote([ref]).get(timeout=20)
    del ref
    assert [value.sum() for value in keeper.read.remote().get(timeout=20)] == [BIG]
    keeper.drop.remote().get(timeout=20)


def test_row54_pending_results_can_be_lent() -> None:
    """A ref to a result that is not there yet is kept elsewhere; the owner lets go; the value still arrives there."""
    import time

    @zmreg.remote
    def slow() -> np.ndarray:
        time.sleep(0.5)
        return ones(BIG)

    keeper = Keeper.remote()
    ref = slow.remote()
    keeper.keep.remote([ref]).get(timeout=20)
    del ref
    assert [value.sum() for value in keeper.read.remote().get(timeout=20)] == [BIG]
    keeper.drop.remote().get(timeout=20)


def test_row54_task_arguments_are_pinned_until_the_task_ends() -> None:
    import time

    @zmreg.remote
    def later(refs: list[Ref], value: np.ndarray) -> int:
        time.sleep(0.3)
        return int(zmreg.get(refs[0], timeout=20).sum() + value.sum())

    inner, direct = zmreg.put(ones(BIG)), zmreg.put(ones(BIG))
    result = later.remote([inner], direct)
    del inner, direct
    assert result.get(timeout=20) == 2 * BIG


def test_row54_constructor_arguments_live_as_long_as_the_actor() -> None:
    keeper = Keeper.remote([zmreg.put(ones(BIG)), zmreg.put(ones(10))])
    assert [value.sum() for value in keeper.read.remote().get(timeout=20)] == [BIG, 10]
    keeper.drop.remote().get(timeout=20)


def test_row54_borrowed_by_async_and_threaded_actors() -> None:
    """Calls that run at the same time: each one's refs are accounted for."""

    @zmreg.remote
    class Async:
        def __init__(self) -> None:
            self.kept: list[Ref] = []

        async def keep(self, refs: list[Ref]) -> None:
            import asyncio

            await asyncio.sleep(0.01)
            self.kept += refs

        async def read(self) -> int:
            return sum([int((await ref).sum()) for ref in self.kept])

        async def drop(self) -> None:
            self.kept.clear()

    @zmreg.remote(max_concurrency=4)
    class Threads:
        def __init__(self) -> None:
            self.kept: list[Ref] = []

        def keep(self, refs: list[Ref]) -> None:
            self.kept.extend(refs)

        def read(self) -> int:
            return sum(int(value.sum()) for value in zmreg.get(self.kept, timeout=20))

        def drop(self) -> None:
            self.kept.clear()

    for cls in (Async, Threads):
        actor = cls.remote()
        zmreg.get([actor.keep.remote([zmreg.put(ones(100_000))]) for _ in range(10)], timeout=20)
        assert zmreg.stats()["refs"]["lent"] == 10
        assert actor.read.remote().get(timeout=20) == 10 * 100_000
        actor.drop.remote().get(timeout=20)
        loans_end()


# -- processes that die ------------------------------------------------------------------------------------------------


@SIZES
def test_row54_a_borrower_killed_gives_back_what_it_held(size: int) -> None:
    keeper = Keeper.remote()
    ref = zmreg.put(ones(size))
    keeper.keep.remote([ref]).get(timeout=20)
    del ref
    assert zmreg.stats()["refs"]["lent"] == 1
    kill(keeper)
    loans_end()


def test_row54_a_middleman_killed_takes_nothing_along() -> None:
    """driver -> A -> B, A is killed: B's hold counts by itself."""
    first, second = Keeper.remote(), Keeper.remote()
    ref = zmreg.put(ones(BIG))
    first.keep.remote([ref]).get(timeout=20)
    first.pass_on.remote(second).get(timeout=20)
    del ref
    kill(first)
    assert [value.sum() for value in second.read.remote().get(timeout=20)] == [BIG]
    second.drop.remote().get(timeout=20)


@SIZES
def test_row53_an_owner_killed_is_a_typed_error_not_a_hang(size: int) -> None:
    maker = Keeper.remote()
    refs = maker.put_and_keep.remote(ones(size)).get(timeout=20)
    kill(maker)
    with pytest.raises(zmreg.errors.OwnerDiedError, match="owner") as caught:
        refs[0].get(timeout=20)
    assert caught.value.object_id == refs[0].hex()
    with pytest.raises(zmreg.errors.OwnerDiedError):
        through.remote(refs[0]).get(timeout=20)
    ready, _ = zmreg.wait(refs, timeout=20)
    assert ready == refs


def test_row53_an_owner_killed_after_its_value_was_located() -> None:
    """The driver knows that it is in the store; its bytes go with their owner."""
    maker = Keeper.remote()
    refs = maker.put_and_keep.remote(ones(BIG)).get(timeout=20)
    zmreg.wait(refs, timeout=20)
    assert refs[0].meta.state == "stored"
    kill(maker)
    with pytest.raises(zmreg.errors.OwnerDiedError):
        refs[0].get(timeout=20)


def test_row53_an_owner_killed_while_others_wait() -> None:
    import time

    @zmreg.remote
    def never() -> None:
        time.sleep(60)

    maker = Keeper.remote()
    (ref,) = maker.submit.remote(never).get(timeout=20)
    waiting = through.remote(ref)
    kill(maker)
    with pytest.raises(zmreg.errors.OwnerDiedError):
        waiting.get(timeout=20)


@SIZES
def test_row53_a_value_that_was_read_survives_its_owner(size: int) -> None:
    maker = Keeper.remote()
    (ref,) = maker.put_and_keep.remote(ones(size)).get(timeout=20)
    value = ref.get(timeout=20)
    kill(maker)
    assert value.sum() == size


# -- processes that leave in peace -------------------------------------------------------------------------------------


@pytest.mark.near
@SIZES
def test_C5_objects_survive_an_owner_that_leaves_in_peace(size: int) -> None:
    """The node becomes their owner: readable by everybody, freed when the last handle goes."""
    maker = Keeper.remote()
    (ref,) = maker.put_and_keep.remote(ones(size)).get(timeout=20)
    end(maker)
    assert zmreg.stats()["adopted"] == 1
    assert ref.get(timeout=20).sum() == size
    assert total.remote([ref]).get(timeout=20) == size
    assert through.remote(ref).get(timeout=20).sum() == size
    assert ref.meta.type_name == "ndarray"


@pytest.mark.near
@SIZES
def test_C5_what_an_adopted_value_contains_survives_too(size: int) -> None:
    maker = Keeper.remote()
    (ref,) = maker.nest.remote(ones(size)).get(timeout=20)
    end(maker)
    assert zmreg.stats()["adopted"] == 2
    (inner,) = ref.get(timeout=20)
    del ref
    eventually(lambda: zmreg.stats()["adopted"] == 1, "the outer one to be freed")
    assert inner.get(timeout=20).sum() == size
    assert total.remote([inner]).get(timeout=20) == size


def test_C5_an_adopted_value_keeps_another_owners_object_alive() -> None:
    """A list made by A with a ref of the driver's in it: A leaves, the driver lets go of its own ref."""
    maker = Keeper.remote()
    mine = zmreg.put(ones(BIG))
    (outer,) = maker.put.remote([mine]).get(timeout=20)
    del mine
    end(maker)
    (inner,) = outer.get(timeout=20)
    del outer
    eventually(lambda: zmreg.stats()["adopted"] == 0, "the outer one to be freed")
    assert inner.get(timeout=20).sum() == BIG


def test_C5_two_owners_leave_one_after_the_other() -> None:
    """A's list contains B's array. Both leave, in either order; the array outlives them."""
    for first in (0, 1):
        pair = [Keeper.remote(), Keeper.remote()]
        inner = pair[1].put.remote(ones(BIG)).get(timeout=20)
        (outer,) = pair[0].put.remote(inner).get(timeout=20)
        del inner
        end(pair[first])
        end(pair[1 - first])
        (again,) = outer.get(timeout=20)
        del outer
        assert again.get(timeout=20).sum() == BIG
        del again
        store_empties()


def test_C5_adopted_objects_are_handed_on() -> None:
    """To processes that never met the owner, and from them to others; freed when the last of them lets go."""
    maker = Keeper.remote()
    refs = maker.put.remote(ones(BIG)).get(timeout=20)
    end(maker)
    first, second = Keeper.remote(), Keeper.remote()
    first.keep.remote(refs).get(timeout=20)
    del refs
    assert [value.sum() for value in first.read.remote().get(timeout=20)] == [BIG]
    first.pass_on.remote(second).get(timeout=20)
    first.drop.remote().get(timeout=20)
    assert [value.sum() for value in second.read.remote().get(timeout=20)] == [BIG]
    assert used_bytes() > 0
    second.drop.remote().get(timeout=20)


def test_C5_a_dead_borrower_gives_back_what_was_adopted() -> None:
    maker, keeper = Keeper.remote(), Keeper.remote()
    refs = maker.put.remote(ones(BIG)).get(timeout=20)
    keeper.keep.remote(refs).get(timeout=20)
    end(maker)
    del refs
    kill(keeper)
    store_empties()


def test_C5_an_owner_that_leaves_waits_for_what_others_wait_for() -> None:
    """Its last handle goes while a task of its own, lent to the driver, still runs."""
    import time

    @zmreg.remote
    def slow() -> np.ndarray:
        time.sleep(2)  # longer than an ended worker is usually given
        return ones(BIG)

    maker = Keeper.remote()
    (ref,) = maker.submit.remote(slow).get(timeout=20)
    del maker
    assert ref.get(timeout=30).sum() == BIG


def test_C5_unneeded_objects_of_an_owner_that_leaves_are_freed() -> None:
    maker = Keeper.remote()
    maker.put_and_keep.remote(ones(BIG)).get(timeout=20)
    assert used_bytes() > 0
    end(maker)
    store_empties()


def test_C5_failures_are_inherited() -> None:
    @zmreg.remote
    def fail() -> None:
        raise KeyError("inherited")

    maker = Keeper.remote()
    (ref,) = maker.submit.remote(fail).get(timeout=20)
    zmreg.wait([ref], timeout=20)
    end(maker)
    with pytest.raises(KeyError, match="inherited"):
        through.remote(ref).get(timeout=20)


# -- out of band, closures ---------------------------------------------------------------------------------------------


def test_row21_refs_pickled_by_hand_are_kept_and_counted() -> None:
    before = zmreg.stats()["refs"]["out_of_band"]
    ref = zmreg.put(10)
    data = pickle.dumps([ref])
    del ref
    assert zmreg.stats()["refs"]["out_of_band"] == before + 1
    assert pickle.loads(data)[0].get(timeout=5) == 10

    @zmreg.remote
    def read(data: bytes) -> int:
        (ref,) = pickle.loads(data)
        value: int = ref.get(timeout=20)
        return value

    assert read.remote(data).get(timeout=20) == 10


def test_row21_refs_captured_in_closures_work_and_are_counted() -> None:
    before = zmreg.stats()["refs"]["out_of_band"]

    def adder(captured: Ref) -> Any:
        def add(x: int) -> int:
            value: int = captured.get(timeout=20)
            return value + x

        return zmreg.remote(add)

    add = adder(zmreg.put(5))
    assert zmreg.get([add.remote(n) for n in range(4)], timeout=20) == [5, 6, 7, 8]
    assert zmreg.stats()["refs"]["out_of_band"] == before + 1
    assert add.remote(1).get(timeout=20) == 6


# -- handles -----------------------------------------------------------------------------------------------------------


def test_row34_handles_travel_in_arguments_results_and_containers() -> None:
    keeper, other = Keeper.remote(), Keeper.remote()
    pid = other.pid.remote().get(timeout=20)

    @zmreg.remote
    def ask(handle: Any) -> int:
        answer: int = handle.pid.remote().get(timeout=20)
        return answer

    @zmreg.remote
    def through_closure() -> int:
        answer: int = other.pid.remote().get(timeout=20)
        return answer

    assert ask.remote(other).get(timeout=20) == pid
    assert ask.remote(through.remote(other)).get(timeout=20) == pid
    keeper.keep.remote([{"k": other}]).get(timeout=20)
    (back,) = keeper.give.remote().get(timeout=20)
    assert back["k"] == other
    assert hash(back["k"]) == hash(other)
    assert back["k"].pid.remote().get(timeout=20) == pid
    assert zmreg.put(other).get(timeout=10) == other
    assert through_closure.remote().get(timeout=20) == pid


def test_row34_an_actor_lives_while_a_handle_is_held_anywhere() -> None:
    keeper, other = Keeper.remote(), Keeper.remote()
    pid = other.pid.remote().get(timeout=20)
    keeper.keep.remote([other]).get(timeout=20)
    del other
    (back,) = keeper.give.remote().get(timeout=20)
    assert back.pid.remote().get(timeout=20) == pid
    del back
    keeper.drop.remote().get(timeout=20)
    gone(pid)


def test_row34_queued_work_is_finished_when_the_last_handle_goes() -> None:
    refs = [Keeper.remote().put.remote(ones(BIG)) for _ in range(2)]
    values = [zmreg.get(inner, timeout=20)[0] for inner in zmreg.get(refs, timeout=20)]
    assert [value.sum() for value in values] == [BIG] * 2


def test_row34_an_actor_outlives_a_creator_that_leaves_in_peace() -> None:
    """Created inside an actor, its handle returned to the driver; then that actor ends."""

    @zmreg.remote
    class Maker:
        def make(self) -> list[Any]:
            return [Keeper.remote([zmreg.put(ones(BIG))])]

        def pid(self) -> int:
            return os.getpid()

    maker = Maker.remote()
    (made,) = maker.make.remote().get(timeout=20)
    pid = made.pid.remote().get(timeout=20)
    end(maker)
    assert [value.sum() for value in made.read.remote().get(timeout=20)] == [BIG]
    assert made.pid.remote().get(timeout=20) == pid
    made.drop.remote().get(timeout=20)
    del made
    gone(pid)
