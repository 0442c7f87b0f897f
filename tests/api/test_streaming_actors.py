"""Generators of actors: plain, threaded and async (core-api rows 26, 28, 44-46)."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import zmreg
from zmreg import ObjectRefGenerator
from zmreg.model.errors import ActorDiedError, ActorUnavailableError, TaskCancelledError

pytestmark = pytest.mark.usefixtures("cluster")
T = 30
LIMIT = "_generator_backpressure_num_objects"


def until(is_so: Callable[[], Any], what: str) -> None:
    """What other processes do takes a moment."""
    deadline = time.monotonic() + T
    while not is_so():
        assert time.monotonic() < deadline, f"not in time: {what}"
        threading.Event().wait(0.005)


def until_ready(generator: Any, items: int) -> None:
    until(lambda: generator.next_ready() and len(generator._stream.ready) == items, f"{items} items")


def values(generator: Any) -> list[Any]:
    return [ref.get(timeout=T) for ref in generator]


class Plain:
    def ready(self) -> bool:
        return True

    def count(self, n: int) -> Iterator[int]:
        yield from range(n)

    @zmreg.method(num_returns=2)
    def pair(self) -> Iterator[int]:
        yield 1
        yield 2

    @zmreg.method(_generator_backpressure_num_objects=2)
    def marking(self, marks: str) -> Iterator[int]:
        try:
            for i in range(1_000):
                Path(marks, f"item-{i}").touch()
                yield i
        finally:
            Path(marks, "over").touch()

    def fails(self) -> Iterator[int]:
        yield 1
        raise KeyError("mine")


class Async:
    async def ready(self) -> bool:
        return True

    async def count(self, n: int) -> AsyncIterator[int]:
        for i in range(n):
            yield i

    @zmreg.method(_generator_backpressure_num_objects=2)
    async def marking(self, marks: str) -> AsyncIterator[int]:
        try:
            for i in range(1_000):
                Path(marks, f"item-{i}").touch()
                yield i
        finally:
            await asyncio.sleep(0)
            Path(marks, "over").touch()

    async def fails(self) -> AsyncIterator[int]:
        yield 1
        raise KeyError("mine")

    def sync(self, n: int) -> Iterator[int]:
        yield from range(n)


@pytest.fixture(scope="module", params=["plain", "threaded", "async"])
def actor(request: pytest.FixtureRequest, cluster: object) -> Iterator[Any]:
    made = {
        "plain": lambda: zmreg.remote(Plain).remote(),
        "threaded": lambda: zmreg.remote(Plain).options(max_concurrency=2).remote(),
        "async": lambda: zmreg.remote(Async).remote(),
    }[request.param]()
    yield made
    made.close(T)


def test_row26_a_generator_method_streams_by_default(actor: Any) -> None:
    generator = actor.count.remote(200)
    assert isinstance(generator, ObjectRefGenerator)
    assert values(generator) == list(range(200))
    assert actor.count.remote(7).completed().get(timeout=T) == 7


def test_row26_an_error_is_the_last_ref(actor: Any) -> None:
    good, bad = actor.fails.remote()
    assert good.get(timeout=T) == 1
    with pytest.raises(KeyError, match="mine"):
        bad.get(timeout=T)


def test_row28_it_parks_and_the_dropped_generator_ends(actor: Any, tmp_path: Path) -> None:
    generator = actor.marking.remote(str(tmp_path))
    until((tmp_path / "item-1").exists, "two items")
    next(generator)
    until((tmp_path / "item-2").exists, "one more")
    until_ready(generator, 2)
    assert not (tmp_path / "item-3").exists()
    del generator
    until((tmp_path / "over").exists, "its finally block")
    assert actor.ready.remote().get(timeout=T)


def test_row28_cancel_ends_a_parked_call(actor: Any, tmp_path: Path) -> None:
    generator = actor.marking.remote(str(tmp_path))
    until((tmp_path / "item-1").exists, "two items")
    zmreg.cancel(generator)
    *good, last = generator
    assert zmreg.get(good) == [0, 1]
    with pytest.raises(TaskCancelledError):
        last.get(timeout=T)
    until((tmp_path / "over").exists, "its finally block")
    assert actor.ready.remote().get(timeout=T)


def test_row28_a_parked_call_holds_up_only_a_plain_actor(actor: Any, tmp_path: Path) -> None:
    generator = actor.marking.remote(str(tmp_path))
    until((tmp_path / "item-1").exists, "two items")
    ready = actor.ready.remote()
    if actor._facts[2]:  # one call at a time, in order: it waits, as behind any call that waits
        assert zmreg.wait([ready], timeout=0.05)[0] == []
    else:
        assert ready.get(timeout=T)
    del generator
    assert ready.get(timeout=T)


def test_row26_a_sync_generator_of_an_async_actor_lets_others_in() -> None:
    made = zmreg.remote(Async).remote()
    generator = made.sync.options(**{LIMIT: 5}).remote(1_000_000)
    next(generator)
    assert made.ready.remote().get(timeout=T)
    del generator
    assert values(made.sync.remote(3)) == [0, 1, 2]
    assert values(made.count.options(num_returns="streaming").remote(2)) == [0, 1]
    made.close(T)


def test_row26_a_method_may_still_give_a_fixed_number_or_be_told_to_stream() -> None:
    made = zmreg.remote(Plain).options(**{LIMIT: 3}).remote()
    assert zmreg.get(made.pair.remote(), timeout=T) == [1, 2]
    assert values(made.pair.options(num_returns="streaming").remote()) == [1, 2]
    generator = made.count.remote(100)
    until_ready(generator, 3)  # the class's back-pressure
    assert values(generator) == list(range(100))
    made.close(T)


def test_row26_a_named_handle_knows_which_methods_stream() -> None:
    made = zmreg.remote(Plain).options(name="streamer").remote()
    made.ready.remote().get(timeout=T)
    assert values(zmreg.get_actor("streamer").count.remote(3)) == [0, 1, 2]
    made.close(T)


def test_fault64_an_actor_that_is_killed_leaves_its_items_and_a_typed_error(tmp_path: Path) -> None:
    made = zmreg.remote(Plain).remote()
    generator = made.marking.remote(str(tmp_path))
    until_ready(generator, 2)
    zmreg.kill(made)
    *good, last = generator
    assert zmreg.get(good) == [0, 1]
    with pytest.raises((ActorDiedError, ActorUnavailableError)):
        last.get(timeout=T)


def test_row26_an_async_generator_is_a_task_as_well() -> None:
    @zmreg.remote
    async def count(n: int) -> AsyncIterator[int]:
        for i in range(n):
            await asyncio.sleep(0)
            yield i

    assert values(count.options(**{LIMIT: 2}).remote(50)) == list(range(50))
    generator = count.options(**{LIMIT: 2}).remote(50)
    next(generator)
    zmreg.cancel(generator)
    with pytest.raises(TaskCancelledError):
        list(generator)[-1].get(timeout=T)


# -- one bound for all generators of an actor --------------------------------------------------------------------------

TOGETHER = "_actor_generator_backpressure_num_objects"


class Gens:
    def gen(self, marks: str, tag: str, n: int = 50) -> Iterator[int]:
        for i in range(n):
            Path(marks, f"{tag}-{i}").touch()
            yield i

    def fails(self) -> Iterator[int]:
        yield 0
        raise KeyError("mine")


class AsyncGens:
    async def gen(self, marks: str, tag: str, n: int = 50) -> AsyncIterator[int]:
        for i in range(n):
            Path(marks, f"{tag}-{i}").touch()
            yield i

    async def fails(self) -> AsyncIterator[int]:
        yield 0
        raise KeyError("mine")


@pytest.fixture(params=["threaded", "async"])
def capped(request: pytest.FixtureRequest, cluster: object) -> Iterator[Callable[[int], Any]]:
    made: list[Any] = []

    def make(cap: int) -> Any:
        cls, options = (Gens, {"max_concurrency": 3}) if request.param == "threaded" else (AsyncGens, {})
        made.append(zmreg.remote(**options, **{TOGETHER: cap})(cls).remote())
        return made[-1]

    yield make
    for actor in made:
        actor.close(T)


def marked(path: Path) -> int:
    return len(list(path.iterdir()))


def received(*generators: Any) -> int:
    """What has come of them and is not taken; nobody waits for more by this."""
    for generator in generators:
        generator._done.done()
    return sum(len(generator._stream.ready) for generator in generators)


def test_row28_generators_of_an_actor_park_together(capped: Any, tmp_path: Path) -> None:
    actor = capped(6)
    one, two = actor.gen.remote(str(tmp_path), "1"), actor.gen.remote(str(tmp_path), "2")
    until(lambda: received(one, two) == 6, "six items of both")
    assert marked(tmp_path) == 6, "and no more are made"
    has_some = one if one._stream.ready else two
    next(has_some)
    until(lambda: received(one, two) == 6, "one more, of either")
    assert marked(tmp_path) == 7
    for generator in (one, two):
        assert values(generator)[-1] == 49


def test_row28_whoever_waits_for_a_generator_of_a_full_actor_gets_its_items(capped: Any, tmp_path: Path) -> None:
    actor = capped(2)
    one = actor.gen.remote(str(tmp_path), "1")
    until(lambda: received(one) == 2, "it has all places")
    two = actor.gen.remote(str(tmp_path), "2", 20)
    assert values(two) == list(range(20)), "though the first one's items are not taken before"
    assert values(one) == list(range(50))


def test_row28_what_ends_gives_its_places_back(capped: Any, tmp_path: Path) -> None:
    actor = capped(3)
    first = actor.gen.remote(str(tmp_path), "1", 2)
    assert first.completed().get(timeout=T) == 2, "over, with its items untaken"
    failed = actor.fails.remote()
    good, bad = failed
    assert good.get(timeout=T) == 0 and isinstance(bad.exception(timeout=T), KeyError)
    dropped = [actor.gen.remote(str(tmp_path), "2")]
    until(lambda: received(*dropped) == 3, "full again")
    dropped.clear()
    cancelled = actor.gen.remote(str(tmp_path), "3")
    until(lambda: received(cancelled) == 3, "and again")
    zmreg.cancel(cancelled)
    last = actor.gen.remote(str(tmp_path), "4")
    until(lambda: received(last) == 3, "and again, without a taker that waits")
    assert marked(tmp_path) == 2 + 3 + 3 + 3
    assert values(first) == [0, 1]


def test_row28_a_methods_own_bound_goes_on_beside_the_actors(cluster: object, tmp_path: Path) -> None:
    actor = zmreg.remote(max_concurrency=3, **{TOGETHER: 50})(Gens).remote()
    own = actor.gen.options(**{LIMIT: 2})
    one, two = own.remote(str(tmp_path), "1"), own.remote(str(tmp_path), "2")
    until(lambda: received(one, two) == 4, "two of each")
    assert marked(tmp_path) == 4
    named = actor.gen.options(**{LIMIT: -1}).remote(str(tmp_path), "3", 60)
    until(lambda: received(named) == 46, "no bound of its own, and the actor's all the same")
    assert values(named) == list(range(60))
    actor.close(T)


@pytest.mark.parametrize("limit", [0, -2, 1.0, True])
def test_row28_an_actors_bound_that_makes_no_sense(limit: Any) -> None:
    with pytest.raises((ValueError, TypeError), match=TOGETHER):
        zmreg.remote(**{TOGETHER: limit})(Gens)


def test_row28_minus_one_is_no_bound_of_an_actor(cluster: object, tmp_path: Path) -> None:
    actor = zmreg.remote(**{TOGETHER: -1})(Gens).remote()
    assert actor.gen.remote(str(tmp_path), "1").completed().get(timeout=T) == 50
    actor.close(T)
