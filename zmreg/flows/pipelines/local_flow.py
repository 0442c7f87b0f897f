"""A pipeline of one stretch, in this very process."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Generator, Iterable
from typing import Any, Final

from zmreg.core.flow_metrics import StageMetrics
from zmreg.flows.live.figures import STREAMS
from zmreg.flows.pipelines.channel import Channel
from zmreg.flows.pipelines.pipeline_run import MAX_DEAD_LETTERS, Plan
from zmreg.flows.pipelines.segments import Stretch
from zmreg.flows.pipelines.side_loop import PipelineStopped
from zmreg.flows.pipelines.stages import DeadLetter

# For generators to reach their `finally`. A function that runs longer is left to itself.
_STOP_S: Final = 1.0


class LocalFlow:
    """A pipeline of one stretch, in a thread of this process."""

    def __init__(self, plan: Plan, items: Iterable[Any] | None) -> None:
        (segment,) = plan.segments
        self._sink = segment.stages[-1]
        self._items = items
        self._outputs: Channel[tuple[str, Any]] = Channel(plan.buffer)
        self.dead_letters: list[DeadLetter] = []
        self._stretch = Stretch([plan.specs[name] for name in segment.stages], "", keeper(self.dead_letters))
        self._thread = threading.Thread(target=self._work, name="zmreg-pipeline", daemon=True)
        self._thread.start()

    def _work(self) -> None:
        error: BaseException | None = None
        told = STREAMS.begin(lambda: ((self._sink, (self._outputs.blocked_s,), (0,)),))
        try:
            sink, put_now, put = self._sink, self._outputs.put_now, self._outputs.put
            with contextlib.closing(outputs_of(self._stretch, self._items)) as outputs:
                for out in outputs:
                    if not put_now((sink, out)) and not put((sink, out)):
                        break
        except PipelineStopped:
            pass
        except BaseException as raised:  # noqa: BLE001  it is raised where the outputs are taken
            error = raised
        STREAMS.end(told)
        self._outputs.end(error)
        if isinstance(self._items, Channel):  # who fills it is not to wait for somebody who reads
            self._items.stop()

    def receive(self) -> list[tuple[str, Any]]:
        return self._outputs.take()

    def stop(self) -> None:
        self._outputs.stop()
        self._stretch.stop()
        if isinstance(self._items, Channel):
            self._items.stop()
        if self._thread is not threading.current_thread():
            self._thread.join(_STOP_S)

    def drop(self) -> None:
        self.stop()

    def metrics(self) -> tuple[StageMetrics, ...]:
        *before, last = self._stretch.metrics()
        return (*before, last.but(blocked_s=self._outputs.blocked_s))


def keeper(letters: list[DeadLetter]) -> Callable[[DeadLetter], None]:
    """Puts dead letters into the list, as long as there are not too many."""

    def keep(letter: DeadLetter) -> None:
        if len(letters) < MAX_DEAD_LETTERS:
            letters.append(letter)

    return keep


def collected(plan: Plan, items: Iterable[Any] | None) -> list[Any]:
    """All outputs at once: nobody has to be waited for, so there is no thread. Raises as the loop over a run does."""
    (segment,) = plan.segments
    return list(outputs_of(Stretch([plan.specs[name] for name in segment.stages]), items))


def outputs_of(stretch: Stretch, items: Iterable[Any] | None) -> Generator[Any, None, None]:
    """All that a stretch makes of the items, with its stages opened before and closed after, come what may. An iterator
    with `close` is closed, too."""
    finished = False
    try:
        stretch.open()
        source = iter(() if items is None else items)
        with contextlib.ExitStack() as stack:  # both are closed, whatever one raises
            if callable(close := getattr(source, "close", None)):
                stack.callback(close)
            yield from stack.enter_context(contextlib.closing(stretch.run(source)))
            finished = True
    finally:
        wrong = stretch.close()
        if wrong is not None and finished:
            raise wrong
