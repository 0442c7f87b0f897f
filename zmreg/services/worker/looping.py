"""The event loop of a worker's main thread: for `async def` tasks one after another, or for an async actor's life."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import asyncio


class Looping:
    """One loop, made on first use."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None

    def loop(self) -> asyncio.AbstractEventLoop:
        """The main thread's loop."""
        if self._loop is None:
            import asyncio  # late, here and below: 20 ms and 2 MB that most workers need not pay

            self._loop = asyncio.new_event_loop()
            asyncio.set_event_loop(self._loop)
        return self._loop

    def complete(self, awaitable: Any) -> Any:
        """Run a coroutine to its end. An interrupt cancels it; what it leaves running is cancelled too."""
        import asyncio

        outer = asyncio._get_running_loop()
        if outer is not None:  # a call run inside a coroutine's wait, which goes on later (services/worker/helping.py)
            with _aside(outer) as inner:
                return _run(awaitable, inner)
        return _run(awaitable, self.loop())


def _run(awaitable: Any, loop: asyncio.AbstractEventLoop) -> Any:
    import asyncio

    task = asyncio.ensure_future(awaitable, loop=loop)
    try:
        return loop.run_until_complete(task)
    finally:
        left = asyncio.all_tasks(loop)
        for each in left:
            each.cancel()
        if left:
            loop.run_until_complete(asyncio.wait(left))
        for each in left:
            if not each.cancelled():
                each.exception()  # looked at: asyncio would report it as never retrieved


@contextlib.contextmanager
def _aside(outer: asyncio.AbstractEventLoop) -> Iterator[asyncio.AbstractEventLoop]:
    """A loop to run while `outer` stands still, in the midst of a callback or of a coroutine's step.

    asyncio keeps the running loop by thread, and since Python 3.12 so may the running task be: both are put aside.
    """
    import asyncio

    swap: Callable[..., Any] = getattr(asyncio.tasks, "_swap_current_task", lambda loop, task: None)
    inner = asyncio.new_event_loop()
    step = swap(outer, None)
    asyncio._set_running_loop(None)
    try:
        yield inner
    finally:
        asyncio._set_running_loop(outer)
        swap(outer, step)
        inner.close()
