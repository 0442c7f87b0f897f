"""The thread on which users' done-callbacks run: never the one that receives messages."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable

log = logging.getLogger("zmreg.callbacks")


class Callbacks:
    """One daemon thread, started with the first callback, that runs them in order."""

    def __init__(self) -> None:
        self._queue: queue.SimpleQueue[Callable[[], object] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._guard = threading.Lock()

    def put(self, callback: Callable[[], object]) -> None:
        """Run it soon. An error in it is logged, and the next one runs."""
        with self._guard:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="zmreg-callbacks", daemon=True)
                self._thread.start()
        self._queue.put(callback)

    def _run(self) -> None:
        while (callback := self._queue.get()) is not None:
            try:
                callback()
            except Exception:
                log.exception("a done-callback raised")
            del callback

    def close(self) -> None:
        """Finish what is queued; waits at most two seconds for a callback that is running."""
        with self._guard:
            thread, self._thread = self._thread, None
        if thread is not None:
            self._queue.put(None)
            if thread is not threading.current_thread():
                thread.join(timeout=2)
