"""A queue for any number of processes, with an actor behind it. Its methods and errors are those of `queue.Queue`."""

from __future__ import annotations

import queue
import sys
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Generic, Never, TypeVar

from zmreg.api.actors import ActorClass, ActorHandle, close, kill
from zmreg.api.refs import ObjectRef
from zmreg.api.watching import process_id
from zmreg.model.arguments import check_count, check_seconds

if TYPE_CHECKING:
    from zmreg.flows.kit.queue_actor import QueueActor

T = TypeVar("T")


class Queue(Generic[T]):
    """First in, first out, at most `maxsize` items (0: any number). Pickled, it is the same queue.

    What is put is what is got: refs stay refs. Items are with the actor until somebody gets them; they are lost with
    it. Who waits occupies nothing: a task gives its CPU back meanwhile. Who dies while it waits gets nothing.
    """

    def __init__(self, maxsize: int = 0, actor_options: Mapping[str, Any] | None = None, **unknown: Never) -> None:
        """`actor_options`: as for any actor, `name` or `lifetime` for example; it takes no CPU unless they say so."""
        if unknown:
            from zmreg.model.hints import no_argument

            raise no_argument("Queue", unknown, ("maxsize", "actor_options"))
        from zmreg.flows.kit.queue_actor import QueueActor  # late: it brings asyncio

        maxsize = check_count(maxsize, "maxsize", -sys.maxsize)  # below 0: any number, as in the standard library
        options = {"num_cpus": 0, "max_concurrency": 100_000, **(actor_options or {})}
        made: ActorClass[QueueActor] = ActorClass(QueueActor, {}).options(**options)
        self.maxsize = maxsize
        self.actor: ActorHandle[QueueActor] = made.remote(maxsize)

    # -- what there is ------------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        return self.qsize()

    def __bool__(self) -> bool:
        return True  # and not whether it is empty, which takes a question

    def qsize(self) -> int:
        """How many items there are; may be old news by the time you read it."""
        return int(self.actor.qsize.remote().get())

    def size(self) -> int:
        """The same."""
        return self.qsize()

    def empty(self) -> bool:
        """Whether there are none."""
        return self.qsize() == 0

    def full(self) -> bool:
        """Whether there are `maxsize`."""
        return 0 < self.maxsize <= self.qsize()

    # -- putting ------------------------------------------------------------------------------------------------------

    def put(self, item: T, block: bool = True, timeout: float | None = None) -> None:
        """Put it in, as soon as there is room. queue.Full when there is none, or none within `timeout` seconds."""
        if not self.actor.put.remote([item], _patience(block, timeout)).get():
            raise queue.Full

    async def put_async(self, item: T, block: bool = True, timeout: float | None = None) -> None:
        """`put` in an event loop."""
        if not await self.actor.put.remote([item], _patience(block, timeout)):
            raise queue.Full

    def put_nowait(self, item: T) -> None:
        """`put` without waiting."""
        self.put(item, block=False)

    def put_nowait_batch(self, items: Iterable[T]) -> None:
        """All of them, in order, or none: queue.Full when there is no room for all."""
        batch = list(items)
        if not self.actor.put_batch.remote(batch).get():
            raise queue.Full(f"there is no room for {len(batch)} items in a queue of {self.maxsize}")

    # -- getting ------------------------------------------------------------------------------------------------------

    def get(self, block: bool = True, timeout: float | None = None) -> T:
        """The oldest, as soon as there is one. queue.Empty when there is none, or none within `timeout` seconds."""
        ref = self.actor.get.remote(process_id(), _patience(block, timeout))
        try:
            found = ref.get()
        except KeyboardInterrupt:
            self._nobody_takes(ref)
            raise
        return _first(found)  # type: ignore[no-any-return]

    async def get_async(self, block: bool = True, timeout: float | None = None) -> T:
        """`get` in an event loop; cancelled, it takes nothing."""
        import asyncio

        ref = self.actor.get.remote(process_id(), _patience(block, timeout))
        try:
            found = await ref
        except asyncio.CancelledError:
            self._nobody_takes(ref)
            raise
        return _first(found)  # type: ignore[no-any-return]

    def get_nowait(self) -> T:
        """`get` without waiting."""
        return self.get(block=False)

    def get_nowait_batch(self, num_items: int) -> list[T]:
        """The oldest `num_items`, or none: queue.Empty when there are fewer."""
        found = self.actor.get_batch.remote(check_count(num_items, "num_items")).get()
        if found is None:
            raise queue.Empty(f"there are fewer than {num_items} items")
        items: list[T] = found
        return items

    def _nobody_takes(self, ref: ObjectRef[Any]) -> None:
        """An item that is on its way already goes back to the front."""
        actor = self.actor

        def back(done: ObjectRef[Any]) -> None:
            if not done.failed() and (found := done.get()):
                actor.put_back.remote(found)

        ref.cancel()
        ref.add_done_callback(back)

    def shutdown(self, force: bool = False, grace_period_s: float = 5.0) -> None:
        """End the actor, and the queue: whoever waits gets ActorDiedError. `force`: at once."""
        check_seconds(grace_period_s, "grace_period_s")
        if force:
            kill(self.actor)
        else:
            close(self.actor, grace_period_s)

    def __reduce__(self) -> tuple[Any, ...]:
        return _same, (self.maxsize, self.actor)

    def __repr__(self) -> str:
        return f"<Queue of {self.maxsize or 'any number'} in {self.actor!r}>"


def _same(maxsize: int, actor: ActorHandle[Any]) -> Queue[Any]:
    made: Queue[Any] = Queue.__new__(Queue)
    made.maxsize, made.actor = maxsize, actor
    return made


def _patience(block: bool, timeout: float | None) -> float | None:
    check_seconds(timeout)
    return timeout if block else 0.0


def _first(found: list[Any]) -> Any:
    if not found:
        raise queue.Empty
    return found[0]
