"""The actor behind a sink: the one process that owns its files, so that nobody who writes rows waits for a disk."""

from __future__ import annotations

import gc
import logging
import threading
from collections.abc import Sequence
from typing import Any

from zmreg.api import events
from zmreg.api.watching import at_the_end
from zmreg.core.aggregates import Aggregates, Measures
from zmreg.core.columns import Columns
from zmreg.flows.results.parquet import warm
from zmreg.flows.results.recorder import Recorder, Terms
from zmreg.model.errors import ZmregError

log = logging.getLogger("zmreg.sinks")


class SinkActor:
    """Its calls are those of `Recorder`; one after the other, with a thread beside them that flushes by time."""

    def __init__(self, directory: str, terms: Terms, flush_interval: float | None) -> None:
        # Rows by the ten thousand are alive here, and none of them is in a circle: to look for circles among them as
        # often as usual takes a third of this process' time where rows are nested.
        gc.set_threshold(200_000, 20, 100)
        self._recorder = Recorder(directory, terms, _tell)
        if terms.format == "parquet":
            threading.Thread(target=warm, name="zmreg-sink-warm", daemon=True).start()
        self._over = threading.Event()
        at_the_end(self._end)
        if flush_interval is not None:
            work = threading.Thread(target=self._flush_by_time, args=(flush_interval,), name="zmreg-sink", daemon=True)
            work.start()

    def push(
        self, rows: Sequence[Any] | Columns, measures: Sequence[Measures] | None, keys: Sequence[str]
    ) -> tuple[bool, Exception | None]:
        """See `Recorder.take`."""
        return self._recorder.take(rows, measures, keys)

    def flush(self) -> None:
        """See `Recorder.flush`."""
        self._recorder.flush()

    def close(self, complete: bool) -> tuple[dict[str, Any], Aggregates]:
        """See `Recorder.close`. How it ended, and what was counted."""
        self._recorder.close(complete)
        self._over.set()
        return self._recorder.state(), self._recorder.aggregates

    def state(self) -> dict[str, Any]:
        """See `Recorder.state`."""
        return self._recorder.state()

    def counted(self, method: str, *args: Any) -> Any:
        """What one of the methods of `Aggregates` says."""
        return getattr(self._recorder.aggregates, method)(*args)

    def _flush_by_time(self, interval: float) -> None:
        while not self._over.wait(interval):
            try:
                self._recorder.flush(promise=False)
            except OSError as error:  # whoever writes next is told
                log.warning("%s was not flushed: %s; its rows are kept", self._recorder.directory, error)

    def _end(self) -> None:
        """Nobody has closed it: what there is is kept, and the manifest says that it is not all."""
        self._over.set()
        try:
            self._recorder.give_up()
        except OSError as error:
            log.error("%s lost what was not flushed: %s", self._recorder.directory, error)


def _tell(topic: str, value: dict[str, Any]) -> None:
    try:
        events.publish(topic, value)
    except ZmregError as error:  # the seat is given up: nobody is told any more
        log.debug("%s was not published: %s", topic, error)
