"""Work for a few actors of one's own: each has one call at a time, and whoever is free gets the next."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from zmreg.api.actors import ActorHandle
from zmreg.api.cluster import get, wait
from zmreg.api.refs import ObjectRef
from zmreg.api.upkeep import wait_for_actors
from zmreg.model.arguments import check_seconds
from zmreg.model.errors import ActorDiedError, ClusterError, GetTimeoutError

Actor = ActorHandle[Any]
Call = Callable[[Any, Any], Any]
"""(actor, value) -> what a method's `.remote` has returned: a ref, or a list of them."""


class _Work:
    """One submitted call: what is to be called, and once it was, by which actor and under which refs."""

    __slots__ = ("actor", "call", "error", "future", "value")

    def __init__(self, call: Call, value: Any) -> None:
        self.call = call
        self.value = value
        self.actor: Actor | None = None
        self.error: Exception | None = None
        """What `call` itself has raised."""
        self.future: Any = None

    def refs(self) -> list[ObjectRef[Any]]:
        return self.future if isinstance(self.future, list) else [self.future]

    def done(self) -> bool:
        if self.error is not None:
            return True
        return self.future is not None and all(ref.done() for ref in self.refs())


def _checked(actor: Actor) -> Actor:
    if not isinstance(actor, ActorHandle):
        raise TypeError(f"zmreg.ActorPool takes handles of actors, not {type(actor).__name__}: {actor!r:.80}")
    return actor


class ActorPool:
    """Actors that take calls in turn: `submit` and `get_next`, or `map`.

    An actor is free again as soon as its call is done, whether or not its result was taken. One that has died is in the
    pool no more; calls that had not been given to it go to the others. For use by several threads.
    """

    def __init__(self, actors: Iterable[Actor]) -> None:
        self._guard = threading.RLock()
        self._idle: deque[Actor] = deque()
        for actor in actors if isinstance(actors, Iterable) else [actors]:
            self._idle.append(_checked(actor))
        self._busy: list[_Work] = []
        self._unsent: deque[_Work] = deque()
        self._results: dict[int, _Work] = {}
        """What was not taken yet, in the order of `submit`."""
        self._submitted = 0
        self._grave: BaseException | None = None

    # -- calls --------------------------------------------------------------------------------------------------------

    def submit(self, fn: Call, value: Any) -> None:
        """Have `fn(actor, value)` called with an actor that is free, or with the next one that is.

        >>> pool.submit(lambda actor, value: actor.double.remote(value), 1)
        """
        work = _Work(fn, value)
        with self._guard:
            self._results[self._submitted] = work
            self._submitted += 1
            self._unsent.append(work)
            self._send()
            if work.error is not None:  # and so this call never was
                self._results.popitem()
                raise work.error

    def map(self, fn: Call, values: Iterable[Any]) -> Iterator[Any]:
        """Results of `fn(actor, value)` for all values, in their order. What was submitted before is given up."""
        self._submit_all(fn, values)
        return self._rest(self.get_next)

    def map_unordered(self, fn: Call, values: Iterable[Any]) -> Iterator[Any]:
        """The same, as they come."""
        self._submit_all(fn, values)
        return self._rest(self.get_next_unordered)

    def _submit_all(self, fn: Call, values: Iterable[Any]) -> None:
        with self._guard:
            self._results.clear()
            self._unsent.clear()
        for value in values:
            self.submit(fn, value)

    def _rest(self, take: Callable[[], Any]) -> Iterator[Any]:
        while self.has_next():
            yield take()

    # -- results ------------------------------------------------------------------------------------------------------

    def has_next(self) -> bool:
        """Whether there are results that were not taken, there or to come."""
        with self._guard:
            return bool(self._results)

    def get_next(self, timeout: float | None = None, ignore_if_timedout: bool = False) -> Any:
        """The next result in the order of `submit`; or its error is raised, and it counts as taken.

        StopIteration when there are no more. GetTimeoutError (a TimeoutError) after `timeout` seconds: the result can
        still be taken, or with `ignore_if_timedout` is given up. ActorDiedError when no actor is left to make it.
        """
        return self._take(timeout, ignore_if_timedout, False)

    def get_next_unordered(self, timeout: float | None = None, ignore_if_timedout: bool = False) -> Any:
        """The next result that comes; as above. What is given up is the oldest."""
        return self._take(timeout, ignore_if_timedout, True)

    def _take(self, timeout: float | None, ignore: bool, any_order: bool) -> Any:
        check_seconds(timeout, past=True)
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            with self._guard:
                self._settle()
                if not self._results:
                    raise StopIteration("no more results to get")
                first = next(iter(self._results))
                wanted = list(self._results) if any_order else [first]
                ready = next((number for number in wanted if self._results[number].done()), None)
                if ready is not None:
                    work = self._results.pop(ready)
                    break
                refs = [ref for work in self._busy for ref in work.refs()]
                if not any_order and self._results[first].future is not None:
                    refs = self._results[first].refs()
                if not refs:
                    self._drop(first)
                    raise ActorDiedError("no actor is left in the pool for this call; push() another") from self._grave
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            if not wait(refs, num_returns=1, timeout=left)[0]:
                with self._guard:
                    if ignore:
                        self._drop(first)
                raise GetTimeoutError(
                    f"no result within {timeout} s{': the oldest was given up' if ignore else ''}", timeout_s=timeout
                )
        if work.error is not None:
            raise work.error
        return get(work.future)

    def _drop(self, number: int) -> None:
        work = self._results.pop(number, None)
        if work is not None and work.future is None and work in self._unsent:
            self._unsent.remove(work)

    # -- actors -------------------------------------------------------------------------------------------------------

    def has_free(self) -> bool:
        """Whether an actor has nothing to do, and nothing waits for one."""
        with self._guard:
            self._settle()
            self._bury()
            return bool(self._idle) and not self._unsent

    def pop_idle(self) -> Actor | None:
        """Take an actor that is free out of the pool; None when there is none."""
        with self._guard:
            return self._idle.popleft() if self.has_free() else None

    def push(self, actor: Actor) -> None:
        """One more actor. ValueError when it is in the pool already."""
        with self._guard:
            self._settle()
            _checked(actor)
            if actor in self._idle or any(work.actor == actor for work in self._busy):
                raise ValueError(f"{actor!r} is in the pool already")
            self._idle.append(actor)
            self._send()

    # -- inside: under the guard --------------------------------------------------------------------------------------

    def _send(self) -> None:
        while self._unsent and self._idle:
            work, actor = self._unsent.popleft(), self._idle.popleft()
            try:
                future = work.call(actor, work.value)
            except Exception as error:  # noqa: BLE001  the user's function may raise anything; whoever takes it is told
                self._idle.appendleft(actor)
                work.error = error
                continue
            except BaseException:
                self._idle.appendleft(actor)
                raise
            work.actor, work.future, work.value = actor, future, None
            self._busy.append(work)
            work.refs()[-1].add_done_callback(self._on_done)

    def _on_done(self, _ref: ObjectRef[Any]) -> None:
        """On the callbacks' thread: the next call goes out, wherever the program is."""
        with self._guard, contextlib.suppress(ClusterError):  # it is over, and nobody takes anything any more
            self._settle()

    def _settle(self) -> None:
        done = [work for work in self._busy if work.done()]
        if not done:
            return
        self._busy = [work for work in self._busy if work not in done]
        for work in done:
            assert work.actor is not None
            last = work.refs()[-1]
            error = last.exception(0) if last.failed() else None
            if isinstance(error, ActorDiedError):
                self._grave = error
            else:
                self._idle.append(work.actor)
        self._send()

    def _bury(self) -> None:
        """Take those out that died while they had nothing to do."""
        for actor in list(self._idle):
            try:
                wait_for_actors([actor], timeout=0)
            except GetTimeoutError:
                continue  # it is being made, or comes back
            except ActorDiedError as error:
                self._grave = error
                self._idle.remove(actor)

    def __repr__(self) -> str:
        return f"<ActorPool [{len(self._busy)} busy, {len(self._idle)} idle, {len(self._unsent)} calls wait]>"
