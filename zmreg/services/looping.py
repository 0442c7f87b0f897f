"""The event loop of a worker's main thread: for `async def` tasks one after another, or for an async actor's life."""

from __future__ import annotations

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

        loop = self.loop()
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
