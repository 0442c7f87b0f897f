"""What is told of a request while it runs: to its trace, to who waits for its levels, to a topic.

None of those can fail it or hold it up, besides an `on_level` that takes its time.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from typing import Any

from zmreg.api import events
from zmreg.api.flight import unix_offset_s
from zmreg.api.refs import ObjectRef
from zmreg.core.graphs import Plan
from zmreg.core.topics import topic_for
from zmreg.flows.requests.options import Options
from zmreg.flows.requests.trace import Held, LevelRecord, Trace
from zmreg.flows.requests.words import Readers, in_words, preview
from zmreg.model.errors import ClusterError, MessageTooLargeError
from zmreg.model.graph_events import LevelDone, RunDone, RunEvent, StepFailed, StepFinished
from zmreg.model.graphs import Path

log = logging.getLogger("zmreg.requests")


class Teller:
    """Hears the events of one run."""

    def __init__(self, plan: Plan, request_id: str, options: Options) -> None:
        self.trace = Trace(plan, request_id, unix_offset_s()) if options.traced else None
        self.arg_previews: dict[str, dict[str, str]] = {}
        """{step: what it was called with}, in debug mode."""
        self._request_id = request_id
        self._options = options
        topic = options.intermediate_result_callback_topic
        self._topic = "" if topic is None else topic_for(topic, request_id)
        self._guard = threading.Lock()
        self._waiting: list[Callable[[], None]] = []
        self._over = False
        self._run_topic = run_topic(request_id)
        self._wanted = events.wanted(self._run_topic)
        self._readers = Readers()

    @property
    def listens(self) -> bool:
        """Whether events have to be told at all."""
        return self.trace is not None or self._wanted

    def hear(self, event: RunEvent) -> None:
        """The next event."""
        if isinstance(event, StepFinished):
            event = event.but(value=self._shown(event))  # with events alone: a small value, or what leads to it
        if self._options.debug_mode:
            log.debug("%r", event)
        record = self.trace.hear(event) if self.trace is not None else None
        if self._wanted:
            self._publish(f"{self._run_topic}.{_topic_of(event)}", event if record is None else record)
        if record is not None:
            self._level(record)

    def _level(self, record: LevelRecord) -> None:
        if self._options.on_level is not None:
            try:
                self._options.on_level(record)
            except Exception:
                log.exception("on_level of request %s raised; the request goes on", self._request_id)
        if self._topic:
            self._publish(self._topic, record)
        self._wake()

    def _publish(self, topic: str, told: RunEvent | LevelRecord) -> None:
        try:
            for form in _ever_smaller(told):
                try:
                    events.publish(topic, form)
                    return
                except MessageTooLargeError as error:
                    log.debug("%s", error)
        except ClusterError as error:  # the program is leaving it: who would hear, does not matter any more
            log.debug("request %s could not publish %s: %s", self._request_id, topic, error)
        except Exception:
            log.exception("request %s could not publish %s; it goes on", self._request_id, topic)

    def _shown(self, event: StepFinished) -> Any:
        """The value as records have it: a copy of its own, or what leads to it, or words."""
        ref, detail = event.value, self._options.detail
        assert isinstance(ref, ObjectRef)
        meta = ref.meta
        here = meta.state == "inline"
        if detail == "summary":
            return in_words(ref.get(), event.nbytes) if here else self._readers.ask(event.step, ref, meta, event.nbytes)
        return ref.get() if here and detail == "values" else Held(ref, meta.type_name, event.nbytes)

    # -- who waits for levels -----------------------------------------------------------------------------------------

    def level(self, index: int) -> LevelRecord | None:
        """The record of a level, if it is there."""
        assert self.trace is not None
        return self.trace.records[index] if index < len(self.trace.records) else None

    def when_level(self, index: int, wake: Callable[[], None]) -> None:
        """Call `wake`, from any thread, once that level or the end of the run is there."""
        with self._guard:
            if not self._over and self.level(index) is None:
                self._waiting.append(wake)
                return
        wake()

    def end(self, until: float | None, patient: bool) -> None:
        """There will be no more events. `patient`: wait for what is still to be said of values, at most `until`, a time
        of time.monotonic()."""
        with self._guard:
            self._over = True
        self._wake()
        if patient and self.trace is not None:
            self._readers.settle(self.trace.amend, until)

    def _wake(self) -> None:
        with self._guard:
            waiting, self._waiting = self._waiting, []
        for wake in waiting:
            wake()


def run_topic(request_id: str) -> str:
    """What the topics of all events of a request begin with."""
    return f"run.{_words(request_id)}"


def _ever_smaller(told: RunEvent | LevelRecord) -> Iterator[RunEvent | LevelRecord]:
    """The same for an event, which may not have as much as a record: words for values, then without earlier levels."""
    yield told
    if isinstance(told, StepFinished):
        yield told.but(value=_said_of(told.value))
    elif isinstance(told, StepFailed | RunDone):
        yield told.but(error=preview(told.error))
    elif isinstance(told, LevelRecord):
        levels = [{step: _said_of(value) for step, value in level.items()} for level in told.levels]
        yield told.but(levels=tuple(levels))
        yield told.but(levels=(*({} for _ in levels[1:]), levels[-1]))


def _said_of(value: object) -> dict[str, object]:
    if isinstance(value, Held):
        return {"type": value.type_name, "nbytes": value.nbytes, "repr": ""}
    return in_words(value)


def _topic_of(event: RunEvent) -> str:
    if isinstance(event, RunDone):
        return "done"
    if isinstance(event, LevelDone):
        return f"level.{event.level}"
    return f"step.{_words(event.step)}.{type(event).__name__.removeprefix('Step').lower()}"


def _words(name: str) -> str:
    """A name as a part of a topic, where words are not empty and * and # are none."""
    return ".".join("_" if word in ("", "*", "#") else word for word in name.split("."))


def previews(plan: Plan, step: str, value_of: Callable[[str, Path], object]) -> dict[str, str]:
    """{"args[0]": what it is, cut at 200 characters} of the arguments of a step."""
    try:
        args, kwargs = plan.bind(step, value_of)
    except ValueError:  # a set that cannot hold what goes there
        args, kwargs = tuple(plan.steps[step].args), dict(plan.steps[step].kwargs or {})
    found = {f"args[{index}]": preview(value) for index, value in enumerate(args)}
    return {**found, **{f"kwargs.{name}": preview(value) for name, value in kwargs.items()}}
