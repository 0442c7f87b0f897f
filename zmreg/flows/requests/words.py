"""What is said of a value instead of it: its type, its size, and 200 characters, read where the value is."""

from __future__ import annotations

import reprlib
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from zmreg.api.functions import RemoteFunction
from zmreg.api.refs import ObjectMeta, ObjectRef
from zmreg.api.strategies import NodeAffinitySchedulingStrategy
from zmreg.model.errors import ZmregError

if TYPE_CHECKING:
    from zmreg.flows.requests.trace import Held

PREVIEW_CHARS: Final = 200
# For all words of a request that are under way at its end: reading takes milliseconds, a first worker a second.
_LATE_S: Final = 5.0


class _Short(reprlib.Repr):
    """Looks at no more than it shows, where Python's own types allow that."""

    def repr_bytes(self, value: bytes, level: int) -> str:
        return self.repr_instance(value[:PREVIEW_CHARS], level)

    repr_bytearray = repr_bytes


_short = _Short()
_short.maxstring = _short.maxother = PREVIEW_CHARS
_short.maxlist = _short.maxtuple = _short.maxdict = _short.maxset = 20


def preview(value: object) -> str:
    """At most 200 characters of it. What its `__repr__` raises is part of the answer."""
    text = _short.repr(value)
    return text if len(text) <= PREVIEW_CHARS else f"{text[: PREVIEW_CHARS - 3]}..."


def in_words(value: object, nbytes: int = 0) -> dict[str, object]:
    """What records have with detail="summary"."""
    return {"type": type(value).__name__, "nbytes": nbytes, "repr": preview(value)}


class Readers:
    """Has values described by their holders, one small task each: a value itself never moves for that."""

    def __init__(self) -> None:
        self._at: dict[str, RemoteFunction[..., Any]] = {}
        self._under_way: dict[str, Held] = {}

    def ask(self, step: str, ref: ObjectRef[Any], meta: ObjectMeta, nbytes: int) -> Held:
        """What leads to the words, until `settle`."""
        (holder,) = meta.holders
        reader = self._at.get(holder)
        if reader is None:
            there = NodeAffinitySchedulingStrategy(holder)
            options = {"num_cpus": 0, "name": "summary", "scheduling_strategy": there, "max_retries": 0}
            reader = self._at[holder] = RemoteFunction(in_words, options)
        from zmreg.flows.requests.trace import Held  # late: stages of pipelines use the words alone

        held = self._under_way[step] = Held(reader.remote(ref, nbytes), meta.type_name, nbytes)
        return held

    def settle(self, note: Callable[[str, object], None], until: float | None) -> None:
        """Wait for what is under way, five seconds at most and until a time of time.monotonic(), and call
        `note(step, words)` with each."""
        latest = time.monotonic() + _LATE_S
        until = latest if until is None else min(latest, until)
        for step, held in self._under_way.items():
            try:
                words = held.ref.get(timeout=max(0.0, until - time.monotonic()))
            except ZmregError:  # it is lost, or nothing of that class can be made there
                words = {"type": held.type_name, "nbytes": held.nbytes, "repr": ""}
            note(step, words)
        self._under_way.clear()
