"""Actors that take calls in turn (core-api row 50)."""

from __future__ import annotations

import os
from typing import Any

import pytest

import zmreg
from tests.processes.drivers import eventually
from zmreg import ActorPool
from zmreg.model.errors import ActorDiedError, GetTimeoutError, TaskError

pytestmark = pytest.mark.usefixtures("cluster")
T = 30


@zmreg.remote(num_cpus=0)
class Doubler:
    def double(self, value: int) -> int:
        return 2 * value

    def after(self, gate: zmreg.sync.Event, value: int) -> int:
        assert gate.wait(T)
        return value

    def pair(self, value: int) -> tuple[int, int]:
        return value, -value

    def fail(self, value: int) -> None:
        raise KeyError(value)

    def die(self, _value: int) -> None:
        os._exit(1)


def double(actor: Any, value: int) -> Any:
    return actor.double.remote(value)


def after(gate: str) -> Any:
    return lambda actor, value: actor.after.remote(zmreg.sync.Event(gate), value)


@pytest.fixture
def actors() -> list[Any]:
    return [Doubler.remote() for _ in range(2)]


def test_row50_map_is_ordered_and_map_unordered_is_not(actors: list[Any]) -> None:
    pool = ActorPool(actors)
    assert list(pool.map(double, range(7))) == [2 * value for value in range(7)]
    assert sorted(pool.map_unordered(double, range(7))) == [2 * value for value in range(7)]
    assert not pool.has_next()
    pool.submit(after("row50.first"), 1)
    pool.submit(double, 2)
    assert pool.get_next_unordered(T) == 4
    zmreg.sync.Event("row50.first").set()
    assert pool.get_next(T) == 1
    with pytest.raises(StopIteration):
        pool.get_next()


def test_row50_calls_go_out_as_actors_come_free_and_not_as_results_are_taken(actors: list[Any]) -> None:
    pool = ActorPool(actors)
    for value in range(6):
        pool.submit(double, value)
    eventually(pool.has_free, T, "six calls are done, though nobody has taken one")
    assert [pool.get_next(T) for _ in range(6)] == [0, 2, 4, 6, 8, 10]


def test_row50_a_result_that_is_late_can_be_taken_later_or_given_up(actors: list[Any]) -> None:
    pool = ActorPool(actors[:1])
    pool.submit(after("row50.late"), 1)
    pool.submit(double, 2)
    with pytest.raises(GetTimeoutError):
        pool.get_next(timeout=0.01)
    with pytest.raises(TimeoutError, match="given up"):
        pool.get_next(timeout=0.01, ignore_if_timedout=True)
    assert not pool.has_free()
    zmreg.sync.Event("row50.late").set()
    assert pool.get_next(T) == 4 and not pool.has_next()


def test_row50_trap_the_unordered_one_gives_up_the_oldest_when_the_time_is_up(actors: list[Any]) -> None:
    pool = ActorPool(actors[:1])
    for value in range(2):
        pool.submit(after("row50.trap"), value)
    for _ in range(2):
        with pytest.raises(TimeoutError, match="given up"):
            pool.get_next_unordered(timeout=0.01, ignore_if_timedout=True)
    with pytest.raises(StopIteration):
        pool.get_next_unordered(timeout=0.01, ignore_if_timedout=True)
    zmreg.sync.Event("row50.trap").set()
    eventually(pool.has_free, T, "the actor is free once its call is done")


def test_row50_errors_are_raised_where_their_results_would_stand(actors: list[Any]) -> None:
    pool = ActorPool(actors)
    pool.submit(lambda actor, value: actor.fail.remote(value), 1)
    pool.submit(lambda actor, value: actor.pair.options(num_returns=2).remote(value), 2)
    with pytest.raises(TaskError) as caught:
        pool.get_next(T)
    assert isinstance(caught.value, KeyError)
    assert pool.get_next(T) == [2, -2]
    with pytest.raises(ZeroDivisionError):
        pool.submit(lambda actor, value: value / 0, 1)
    assert not pool.has_next() and pool.has_free()


def test_row50_push_and_pop_idle(actors: list[Any]) -> None:
    pool = ActorPool(actors[:1])
    with pytest.raises(ValueError, match="in the pool already"):
        pool.push(actors[0])
    assert pool.pop_idle() == actors[0] and pool.pop_idle() is None
    pool.submit(double, 5)
    assert not pool.has_free() and pool.has_next()
    pool.push(actors[1])
    assert pool.get_next(T) == 10


def test_row50_dead_actors_leave_the_idle_set(actors: list[Any]) -> None:
    pool = ActorPool(actors)
    pool.submit(lambda actor, value: actor.die.remote(value), 0)
    for value in range(3):
        pool.submit(double, value)
    with pytest.raises(ActorDiedError):
        pool.get_next(T)
    assert [pool.get_next(T) for _ in range(3)] == [0, 2, 4]
    zmreg.kill(actors[1])
    eventually(lambda: not pool.has_free(), T, "who died while it was free is not free")
    assert pool.pop_idle() is None
    pool.submit(double, 1)
    with pytest.raises(ActorDiedError, match=r"push\(\) another"):
        pool.get_next(T)
    assert not pool.has_next()
