"""An event loop in a thread of its own, for stages written with `async`, and functions that are called under a clock.

The thread that runs a stretch of stages stays plain: it asks the loop for one thing after the other and waits. While it
waits it serves the other way round: an async generator that wants its next item has it fetched by that thread, so that
no stage before it ever runs on the loop, which stays free for what the user's coroutines have going there.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import asyncio
    from concurrent.futures import Future

_END: Final = object()


class PipelineStopped(Exception):
    """The run was stopped while a stage waited for something. Nobody outside of `flows` sees it."""


class SideLoop:
    """Made when the first stage needs it; `close` ends it. Used by one thread, besides `interrupt`."""

    def __init__(self, name: str) -> None:
        import asyncio  # late: most programs have no stage written with async

        self._loop = asyncio.new_event_loop()
        self._guard = threading.Lock()
        self._asked: set[Future[Any]] = set()
        self._stopped = False
        self._thread = threading.Thread(target=self._loop.run_forever, name=f"{name}-loop", daemon=True)
        self._thread.start()

    def _ask(self, coroutine: Coroutine[Any, Any, Any], cancellable: bool = True) -> Future[Any]:
        import asyncio

        future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        if cancellable:
            with self._guard:
                self._asked.add(future)
                stopped = self._stopped
            future.add_done_callback(self._asked.discard)
            if stopped:
                future.cancel()
        return future

    def _result(self, future: Future[Any]) -> Any:
        if future.cancelled():
            if self._stopped:
                raise PipelineStopped
            raise RuntimeError("the coroutine was cancelled, by itself or by what it waited for")
        return future.result()

    def interrupt(self) -> None:
        """From any thread: cancel what is waited for, now and from now on; whoever waits gets PipelineStopped."""
        with self._guard:
            self._stopped = True
            asked = list(self._asked)
        for future in asked:
            future.cancel()

    def call(self, awaited: Awaitable[Any], timeout: float | None = None) -> Any:
        """Its value. Raises what it raises, TimeoutError after `timeout` seconds, when it is cancelled."""
        import asyncio
        from concurrent.futures import wait

        async def bounded() -> Any:
            try:
                async with asyncio.timeout(timeout) as clock:
                    return await awaited
            except TimeoutError as error:
                if clock.expired() and not error.args:
                    raise TimeoutError(f"not done after {timeout} s") from error
                raise

        future = self._ask(bounded())
        wait([future])
        return self._result(future)

    def finish(self, awaited: Awaitable[Any]) -> Any:
        """As `call`, also when it was interrupted: the last things a stage does."""

        async def whole() -> Any:
            return await awaited

        return self._ask(whole(), cancellable=False).result()

    def iterate(self, made: Callable[[AsyncIterator[Any]], AsyncIterator[Any]], before: Iterator[Any]) -> Iterator[Any]:
        """What the async generator `made(stream)` yields; its stream is `before`, pulled by the calling thread."""
        mail: queue.SimpleQueue[tuple[str, Any]] = queue.SimpleQueue()
        outputs = made(_Feed(self._loop, mail))
        try:
            while True:
                ended = self._ask(_next(outputs))
                ended.add_done_callback(lambda future: mail.put(("out", future)))
                while True:
                    what, future = mail.get()
                    if what == "out":
                        break
                    self._serve_pull(before, future)
                out = self._result(ended)
                if out is _END:
                    return
                yield out
        finally:
            if hasattr(outputs, "aclose"):
                self._finish(outputs, mail)

    def plain(self, made: AsyncIterable[Any]) -> Iterator[Any]:
        """What an asynchronous iterable has, for a thread."""
        return self.iterate(lambda _: aiter(made), iter(()))

    def _finish(self, outputs: Any, mail: queue.SimpleQueue[tuple[str, Any]]) -> None:
        """Close it; what its last words ask for is the end of the stream."""
        ended = self._ask(_closed(outputs), cancellable=False)
        ended.add_done_callback(lambda future: mail.put(("closed", future)))
        while True:
            what, future = mail.get()
            if what == "closed":
                future.result()
                return
            if what == "pull":
                self._answer(future, _END)

    def _serve_pull(self, before: Iterator[Any], future: asyncio.Future[Any]) -> None:
        try:
            item = next(before, _END)
        except Exception as error:  # noqa: BLE001  it is the asker's to raise, and to pass on
            self._loop.call_soon_threadsafe(_fail, future, error)
        else:
            self._answer(future, item)

    def _answer(self, future: asyncio.Future[Any], item: object) -> None:
        self._loop.call_soon_threadsafe(_settle, future, item)

    def close(self) -> None:
        """Cancel what still runs there and end the thread; waits up to a second for user code to let go."""
        import asyncio

        async def ended() -> None:
            others = asyncio.all_tasks() - {asyncio.current_task()}
            for task in others:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)
            await self._loop.shutdown_asyncgens()

        done = asyncio.run_coroutine_threadsafe(ended(), self._loop)
        done.add_done_callback(lambda _: self._loop.call_soon_threadsafe(self._loop.stop))
        self._thread.join(1.0)
        if not self._thread.is_alive():
            self._loop.close()


async def _next(outputs: AsyncIterator[Any]) -> Any:
    return await anext(outputs, _END)


async def _closed(outputs: Any) -> None:
    await outputs.aclose()


def _settle(future: asyncio.Future[Any], item: object) -> None:
    if not future.done():
        future.set_result(item)


def _fail(future: asyncio.Future[Any], error: BaseException) -> None:
    if not future.done():
        future.set_exception(error)


class _Feed:
    """The stream as an async generator sees it."""

    def __init__(self, loop: asyncio.AbstractEventLoop, mail: queue.SimpleQueue[tuple[str, Any]]) -> None:
        self._loop = loop
        self._mail = mail

    def __aiter__(self) -> _Feed:
        return self

    async def __anext__(self) -> Any:
        future = self._loop.create_future()
        self._mail.put(("pull", future))
        item = await future
        if item is _END:
            raise StopAsyncIteration
        return item


class Clocked:
    """Calls functions in a thread of its own, and leaves it behind with one that is not done in time."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._work: queue.SimpleQueue[Any] | None = None

    def call(self, timeout: float, function: Callable[..., Any], *args: Any) -> Any:
        """Its value. Raises what it raises, TimeoutError after `timeout` seconds; the function may then still run."""
        if self._work is None:
            self._work = queue.SimpleQueue()
            threading.Thread(target=_work, args=(self._work,), name=f"{self._name}-clocked", daemon=True).start()
        answer: queue.SimpleQueue[tuple[bool, Any]] = queue.SimpleQueue()
        self._work.put((answer, function, args))
        try:
            good, value = answer.get(timeout=timeout)
        except queue.Empty:
            self.close()
            raise TimeoutError(f"not done after {timeout} s") from None
        if good:
            return value
        raise value

    def close(self) -> None:
        """End the thread when it is done with what it has."""
        if self._work is not None:
            self._work.put(None)
            self._work = None


def _work(work: queue.SimpleQueue[Any]) -> None:
    while (given := work.get()) is not None:
        answer, function, args = given
        try:
            answer.put((True, function(*args)))
        except BaseException as error:  # noqa: BLE001  it is raised where it was asked for
            answer.put((False, error))
        del given, answer, function, args
