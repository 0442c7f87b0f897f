"""A queue with an actor behind it (core-api row 51)."""

from __future__ import annotations

import asyncio
import os
import pickle
import queue

import pytest

import zmreg
from tests.processes.drivers import eventually
from zmreg import Queue
from zmreg.model.errors import ActorDiedError, WorkerDiedError

pytestmark = pytest.mark.usefixtures("cluster")
T = 30


def test_row51_it_is_the_queue_of_the_standard_library() -> None:
    items: Queue[int] = Queue(maxsize=2)
    assert items.empty() and len(items) == items.size() == 0
    items.put(1)
    items.put_nowait(2)
    assert items.full() and items.qsize() == 2
    with pytest.raises(queue.Full):
        items.put_nowait(3)
    with pytest.raises(queue.Full):
        items.put(3, timeout=0.01)
    assert [items.get(), items.get(timeout=1)] == [1, 2]
    with pytest.raises(queue.Empty):
        items.get(block=False)
    with pytest.raises(queue.Empty):
        items.get(timeout=0.01)
    with pytest.raises(ValueError, match="non-negative"):
        items.get(timeout=-1)
    assert pickle.loads(pickle.dumps(items)).empty()
    with pytest.raises(TypeError, match="Queue has no argument 'max_size'; did you mean 'maxsize'"):
        Queue(max_size=2)  # type: ignore[arg-type]


def test_row51_batches_are_all_or_nothing() -> None:
    items: Queue[int] = Queue(maxsize=3)
    items.put_nowait_batch([1, 2])
    with pytest.raises(queue.Full, match="no room for 2"):
        items.put_nowait_batch([3, 4])
    with pytest.raises(queue.Empty):
        items.get_nowait_batch(3)
    assert items.get_nowait_batch(2) == [1, 2]


def test_row51_refs_stay_refs() -> None:
    items: Queue[zmreg.ObjectRef[int]] = Queue()
    items.put(zmreg.put(7))
    assert items.get().get() == 7


def test_row51_a_blocking_get_holds_neither_the_actors_slot_nor_a_cpu() -> None:
    items: Queue[int] = Queue(maxsize=1)

    @zmreg.remote
    def consume(items: Queue[int], count: int) -> list[int]:
        return [items.get(timeout=T) for _ in range(count)]

    @zmreg.remote
    def produce(items: Queue[int], count: int) -> None:
        for value in range(count):
            items.put(value, timeout=T)

    consumers = [consume.remote(items, 5) for _ in range(3)]  # of 2 CPUs
    produce.remote(items, 15)
    assert sorted(sum(zmreg.get(consumers, timeout=T), [])) == list(range(15))


def test_row51_async_and_a_cancelled_get_takes_nothing() -> None:
    items: Queue[int] = Queue()

    async def main() -> None:
        waiting = asyncio.create_task(items.get_async())
        await items.put_async(1)
        assert await asyncio.wait_for(waiting, T) == 1
        waiting = asyncio.create_task(items.get_async())
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        await items.put_async(2)
        assert await items.get_async(timeout=T) == 2
        with pytest.raises(queue.Empty):
            await items.get_async(timeout=0.01)

    asyncio.run(main())


def test_row51_a_process_that_dies_while_it_waits_takes_nothing() -> None:
    items: Queue[int] = Queue()

    @zmreg.remote(max_retries=0)
    def dies(items: Queue[int]) -> None:
        import threading

        threading.Thread(target=items.get, daemon=True).start()
        while not zmreg.sync.Event("row51").wait(T):
            pass
        os._exit(1)

    dying = dies.remote(items)
    # Both calls go to the queue by one way: what is behind a `get` in it has been seen to wait.
    eventually(lambda: zmreg.get(items.actor.waiting.remote()) == 1, T, "nobody waits")
    zmreg.sync.Event("row51").set()
    assert isinstance(dying.exception(T), WorkerDiedError)
    eventually(lambda: zmreg.get(items.actor.waiting.remote()) == 0, T, "the dead one still waits")
    items.put(1)
    assert items.get(timeout=T) == 1


def test_row51_who_waits_at_shutdown_is_told() -> None:
    items: Queue[int] = Queue()
    waiting = items.actor.get.remote("somebody", None)
    items.shutdown(force=True)
    assert isinstance(waiting.exception(T), ActorDiedError)
    with pytest.raises(ActorDiedError):
        items.put(1)
    other: Queue[int] = Queue()
    other.put(1)
    other.shutdown()
    with pytest.raises(ActorDiedError):
        other.get()
