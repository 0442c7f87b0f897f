"""Results of a run on their way to its sink and to who is told of each."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Mapping
from typing import Any

from zmreg.api.refs import ObjectRef
from zmreg.core.phases import COMPLETED
from zmreg.flows.runs.phases import RunOptions

log = logging.getLogger("zmreg.runs")


class Recording:
    """The sink of one run, if it has one, and its `on_result`."""

    def __init__(self, options: RunOptions) -> None:
        self.sink: Any = options.get("sink")
        if self.sink is not None and not callable(getattr(self.sink, "write", None)):
            raise TypeError(f"sink={self.sink!r:.80} cannot be written to: give a zmreg.Sink, as zmreg.Sink('out')")
        self._on_result = options.get("on_result")

    def note(self, phase: str, index: int | None, ref: ObjectRef[Any], written: bool) -> None:
        """A result is there. `written`: its phase writes to the sink itself. Mappings alone are rows of a sink.

        Raises what the sink does: ValueError with the phase for what is no row of it, OSError of the disk.
        """
        if self._on_result is None and (self.sink is None or written):
            return
        meta = ref.meta
        if self._on_result is None and meta.state != "inline" and meta.type_name != "dict":
            return  # large and no row: it stays where it is
        value = ref.get()
        if self.sink is not None and not written and isinstance(value, Mapping):
            at = {} if index is None else {"container": str(index)}
            try:
                self.sink.write({"phase": phase, **at, **value})
            except ValueError as error:
                raise ValueError(f"a result of phase {phase!r} is no row of the run's sink: {error}") from error
        if self._on_result is not None:
            try:
                self._on_result({"phase": phase, "index": index, "result": value})
            except Exception:
                log.exception("on_result raised for phase %s; the run goes on", phase)

    def keep(self) -> None:
        """Have what was written so far in files: a phase that counts as done is not run again, so its rows must not be
        lost after that. Raises what stands in the way."""
        flush = getattr(self.sink, "flush", None)
        if flush is not None:
            flush()

    def close(self, status: str) -> Any:
        """Nothing more comes; what the sink makes of all of it, if it says so. A run that is not completed leaves it
        marked as incomplete."""
        if self.sink is None:
            return None
        close = self.sink.close
        if status != COMPLETED and "complete" in inspect.signature(close).parameters:
            close(complete=False)
        else:
            close()
        tell = getattr(self.sink, "get_aggregated_results", None)
        return None if tell is None else tell()
