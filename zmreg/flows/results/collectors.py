"""Results of several sources, gathered as they come: a bounded queue for each, merged into one stream."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

from zmreg.api.actors import ActorClass, ActorHandle
from zmreg.api.refs import ObjectRef
from zmreg.api.watching import process_id
from zmreg.model.arguments import check_count, check_seconds

if TYPE_CHECKING:
    from zmreg.flows.results.collector_actor import CollectorActor

# Results that a reader takes at once.
_TAKEN: Final = 256


class DistributedResultCollector:
    """Whoever produces results sends them by the number of its source; one reader gets them all.

    Results of one source come in its order; between sources there is no promise. A source that has sent
    `queue_size` results which nobody has read waits. It ends by `finish(source)`; one whose process ends before
    that is in `failed`, what it has sent comes all the same, and the others go on. The stream ends when all have ended.
    Pickled, it is the same collector.

        collector = zmreg.DistributedResultCollector("nightly", num_sources=4)
        for number in range(4):
            simulate.remote(collector, number)     # collector.send(number, result), ..., collector.finish(number)
        for source, result in collector:
            ...
    """

    def __init__(self, workflow_id: str, num_sources: int, queue_size: int = 1000) -> None:
        """ValueError for a number of sources or a size below 1."""
        num_sources = check_count(num_sources, "num_sources", 1)
        queue_size = check_count(queue_size, "queue_size", 1)
        from zmreg.flows.results.collector_actor import CollectorActor  # late: it brings asyncio

        made: ActorClass[CollectorActor] = ActorClass(CollectorActor, {"num_cpus": 0, "max_concurrency": 100_000})
        self._set(workflow_id, num_sources, made.remote(num_sources, queue_size))

    def _set(self, workflow_id: str, num_sources: int, actor: ActorHandle[CollectorActor]) -> None:
        self.workflow_id = workflow_id
        self.num_sources = num_sources
        self._actor = actor
        self._ready: deque[tuple[int, Any]] = deque()
        self._asked: ObjectRef[Any] | None = None
        """What a reader was waiting for when it was interrupted: the next one waits for it again."""

    # -- sources ------------------------------------------------------------------------------------------------------

    def send(self, source: int, result: Any, timeout: float | None = None) -> None:
        """Give a result, and wait while the queue of this source is full, at most `timeout` seconds.

        Raises ValueError when there is no such source or it has ended; GetTimeoutError: it may still be taken, then.
        """
        check_seconds(timeout, past=True)
        self._send(source, result).get(timeout)

    async def asend(self, source: int, result: Any) -> None:
        """`send` in an event loop."""
        await self._send(source, result)

    def finish(self, source: int) -> None:
        """This source gives no more. Idempotent."""
        self._check(source)
        self._actor.finish.remote(source).get()

    async def afinish(self, source: int) -> None:
        """`finish` in an event loop."""
        self._check(source)
        await self._actor.finish.remote(source)

    def fail(self, source: int, reason: str = "") -> None:
        """This source gives no more, and not because it has all: it is in `failed`."""
        self._check(source)
        self._actor.fail.remote(source, reason or "it said so").get()

    def watch(self, source: int, ref: ObjectRef[Any]) -> None:
        """The source ends as this call ends, by which its results are sent: in order, or by an error. The call must not
        be one that is tried again after its worker's death, or what it has sent comes twice."""
        self._check(source)
        actor = self._actor

        def ended(done: ObjectRef[Any]) -> None:
            error = done.exception()
            if error is None:
                actor.finish.remote(source)
            else:
                actor.fail.remote(source, str(error).partition("\n")[0])

        ref.add_done_callback(ended)

    # -- the reader ---------------------------------------------------------------------------------------------------

    @property
    def failed(self) -> set[int]:
        """Sources that ended before they had said so."""
        return set(self.failures)

    @property
    def failures(self) -> Mapping[int, str]:
        """{source: why} of those."""
        found: dict[int, str] = self._actor.failures.remote().get()
        return found

    def counts(self) -> dict[int, int]:
        """{source: results taken from it by the collector}."""
        found: dict[int, int] = self._actor.counts.remote().get()
        return found

    def __iter__(self) -> Iterator[tuple[int, Any]]:
        return self

    def __next__(self) -> tuple[int, Any]:
        if not self._ready:
            self._ready.extend(self._ask().get())
            self._asked = None
        if not self._ready:
            raise StopIteration
        return self._ready.popleft()

    def __aiter__(self) -> AsyncIterator[tuple[int, Any]]:
        return self

    async def __anext__(self) -> tuple[int, Any]:
        if not self._ready:
            self._ready.extend(await self._ask())
            self._asked = None
        if not self._ready:
            raise StopAsyncIteration
        return self._ready.popleft()

    def __reduce__(self) -> tuple[Any, ...]:
        return _same, (self.workflow_id, self.num_sources, self._actor)

    def __repr__(self) -> str:
        return f"<DistributedResultCollector {self.workflow_id} of {self.num_sources} sources>"

    # -- inside -------------------------------------------------------------------------------------------------------

    def _send(self, source: int, result: Any) -> ObjectRef[Any]:
        self._check(source)
        ref: ObjectRef[Any] = self._actor.send.remote(source, process_id(), [result])
        return ref

    def _ask(self) -> ObjectRef[Any]:
        if self._asked is None:
            self._asked = self._actor.take.remote(_TAKEN)
        return self._asked

    def _check(self, source: int) -> None:
        if not isinstance(source, int) or not 0 <= source < self.num_sources:
            raise ValueError(
                f"source={source!r}: collector {self.workflow_id!r} has sources 0 to {self.num_sources - 1}"
            )


def _same(workflow_id: str, num_sources: int, actor: ActorHandle[CollectorActor]) -> DistributedResultCollector:
    made = DistributedResultCollector.__new__(DistributedResultCollector)
    made._set(workflow_id, num_sources, actor)
    return made
