"""A stretch of stages that runs in one process, by one thread: an iterator over an iterator.

Stages that are plain calls are fused into one loop, and nothing is between them but a local variable. Everything is
pulled: an item is asked for when all that the one before it became has been taken, unless a generator over the stream
asks for more. So there is nothing between the stages that could grow.
"""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from typing import Any, Final

from zmreg.core.flow_metrics import StageMetrics
from zmreg.flows.live.figures import STAGES, Facts
from zmreg.flows.pipelines.bodies import DROPPED, Body, Surroundings
from zmreg.flows.pipelines.stages import SOURCE, STREAM, DeadLetter, StageSpec
from zmreg.model.errors import PipelineError

# Reading the clock costs as much as a trivial stage: stretches that take less than 20 us an item are measured at every
# 16th, after 64 in a row have shown that.
_QUICK_S: Final = 20e-6
_SURE: Final = 64
_SPARSE: Final = 15


def _forget(_: DeadLetter) -> None:
    """Where nobody keeps dead letters."""


class Stretch:
    """`open`, then `run` or many `one` and `finish`, then `close`, by one thread; `stop` and `metrics` by any."""

    def __init__(
        self, specs: Sequence[StageSpec], node: str = "", dead_letter: Callable[[DeadLetter], None] = _forget
    ) -> None:
        """`node`: where it runs, for errors; "" for here."""
        self._around = Surroundings(node, dead_letter)
        self._bodies = [Body(spec, self._around) for spec in specs]
        self._fused: list[list[Body]] = []
        self._guard = threading.Lock()
        self._told = 0

    def open(self) -> None:
        """Make what is given as classes, and `initialize` all. Raises PipelineError; those opened are closed then."""
        self._told = STAGES.begin(self._facts)
        try:
            for body in self._bodies:
                body.open()
        except PipelineError:
            self.close()
            raise

    def run(self, items: Iterable[Any]) -> Generator[Any, None, None]:
        """All outputs, in order. Raises PipelineError in its place, PipelineStopped, and what `items` raises.

        Closing it closes every generator of a stage, the last one first.
        """
        links: list[Any] = [iter(items)]
        for group in self._groups():
            made = (
                self._loop(group, links[-1]) if len(group) > 1 or group[0].is_plain else self._each(group[0], links[-1])
            )
            links.append(made)
            if group[-1].has_flush:
                links.append(_flushed(group[-1], made))
        with contextlib.ExitStack() as stack:  # all of them are closed, whatever one raises
            for link in links[1:]:
                stack.callback(link.close)
            yield from links[-1]

    def _groups(self) -> list[list[Body]]:
        groups: list[list[Body]] = []
        for body in self._bodies:
            if groups and body.is_plain and groups[-1][-1].is_plain and not groups[-1][-1].has_flush:
                groups[-1].append(body)
            else:
                groups.append([body])
        self._fused = [group for group in groups if group[0].is_plain]
        return groups

    def _each(self, body: Body, before: Iterator[Any]) -> Iterator[Any]:
        """A stage that is more than a call."""
        if body.spec.kind in (STREAM, SOURCE):
            yield from body.over(before)
            return
        for item in before:
            yield from body.outputs(body.items_in, item)

    def _loop(self, group: list[Body], before: Iterator[Any]) -> Iterator[Any]:
        """Plain calls, fused. `items_in` counts at the first of them; `_settle` says what follows for the others."""
        numbered = tuple((at, body.invoke, body.terms.keep_none) for at, body in enumerate(group))
        head, clock, mask = group[0], time.perf_counter, 0
        for item in before:
            head.items_in = count = head.items_in + 1
            at = 0
            value = item
            try:
                if count & mask:
                    for at, call, keep_none in numbered:  # noqa: B007  read where it stops
                        value = call(value)
                        if value is None and not keep_none:
                            break
                else:
                    start = began = clock()
                    for at, call, keep_none in numbered:
                        value = call(value)
                        now = clock()
                        group[at].times.took(now - began, mask + 1)
                        began = now
                        if value is None and not keep_none:
                            break
                    quick = began - start < _QUICK_S
                    if quick is not (mask > 0) and (count > _SURE or not quick):
                        mask = _SPARSE if quick else 0
            except Exception as error:  # noqa: BLE001  user code; `_mend` tells it on
                value = self._mend(group, at, item, value, error)
                if value is DROPPED:
                    continue
                yield value
                continue
            if value is None and not group[at].terms.keep_none:
                group[at].filtered += 1
                continue
            yield value

    def _mend(self, group: list[Body], at: int, item: Any, value: Any, error: Exception) -> Any:
        """What becomes of an item at whose stage number `at` a call raised; the rest of the group follows, one by one.
        `value`: what that stage was called with."""
        while True:
            body = group[at]
            self._settle(group)
            try:
                value = body.recover(body.items_in - 1, value, error)
            except PipelineError:
                body.lost += 1
                raise
            while value is not DROPPED:
                if value is None and not body.terms.keep_none:
                    body.filtered += 1
                    return DROPPED
                at += 1
                if at == len(group):
                    return value
                body = group[at]
                try:
                    value = body.invoke(value)
                except Exception as another:  # noqa: BLE001  user code; told on by the next turn
                    error = another
                    break
            else:
                return DROPPED

    def _settle(self, group: list[Body]) -> None:
        with self._guard:
            count = group[0].items_in
            for body in group:
                body.items_in = count
                count -= body.filtered + body.skipped + body.dead + body.lost
                body.items_out = count

    # -- one by one, for lanes ----------------------------------------------------------------------------------------

    def one(self, index: int, item: Any) -> Iterator[Any]:
        """The outputs of one item; its stages are item-wise. `index`: its place, for errors. Raises as `run`."""
        return self._from(0, index, item)

    def finish(self) -> Iterator[Any]:
        """After the last `one`: what `flush` of each has left."""
        for at, body in enumerate(self._bodies):
            for out in body.flush():
                yield from self._from(at + 1, -1, out)

    def _from(self, at: int, index: int, item: Any) -> Iterator[Any]:
        if at == len(self._bodies):
            yield item
            return
        body = self._bodies[at]
        for out in body.outputs(index if index >= 0 else body.items_in, item):
            yield from self._from(at + 1, -1, out)

    # -- its end ------------------------------------------------------------------------------------------------------

    def stop(self) -> None:
        """From any thread: pauses end, coroutines are cancelled, and whoever runs it gets PipelineStopped from there. A
        function that is called now is not interrupted."""
        self._around.stop()

    def close(self) -> PipelineError | None:
        """`cleanup` of all that were opened, once, whatever one of them raises: the first of it is returned."""
        STAGES.end(self._told)
        wrong = [body.close() for body in self._bodies]
        self._around.close()
        return next(filter(None, wrong), None)

    def _facts(self) -> Facts:
        """As the cluster's metrics have it."""
        for group in self._fused:
            self._settle(group)
        for body in self._bodies:
            busy_s = body.times.total_s
            counts = (body.items_in, body.items_out, body.filtered, body.skipped, body.dead, body.errors, body.retries)
            yield body.spec.name, (*counts, busy_s), (1,)

    def metrics(self) -> tuple[StageMetrics, ...]:
        """In the order of the stages."""
        for group in self._fused:
            self._settle(group)
        import resource  # late: where nothing runs, nothing is measured

        # In KiB on Linux, in bytes on macOS.
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
        return tuple(body.metrics().but(peak_rss=peak) for body in self._bodies)


def _flushed(body: Body, before: Iterator[Any]) -> Iterator[Any]:
    yield from before
    yield from body.flush()
