"""A pipeline that runs: its outputs as they come, what can be asked of it meanwhile, and how it is stopped."""

from __future__ import annotations

import os
import sys
import threading
import weakref
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator, Sized
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Protocol

from zmreg.core.flow_metrics import PipelineMetrics, StageMetrics
from zmreg.core.pipelines import Segment, Topology
from zmreg.flows.live.news import tell
from zmreg.flows.pipelines.channel import Channel
from zmreg.flows.pipelines.stages import DeadLetter, StageSpec
from zmreg.model.record import Record

if TYPE_CHECKING:
    import asyncio

    from zmreg.core.live_table import Line
    from zmreg.flows.live.view import LiveView

# Enough to see what is wrong with a stream; what comes after them is counted, and not kept.
MAX_DEAD_LETTERS: Final = 10_000
_OVER: Final = "the pipeline has ended: nothing comes out of it any more"


class Plan(Record):
    """A pipeline that makes sense, cut into stretches. `here`: it is one, and may run in this very process."""

    specs: dict[str, StageSpec]
    topology: Topology
    segments: tuple[Segment, ...]
    buffer: int
    here: bool

    def buffer_of(self, stage: str) -> int:
        """Items of each of its streams that may wait before it."""
        return self.specs[stage].terms.buffer or self.buffer


class Flow(Protocol):
    """A pipeline at work. Where, is its own business."""

    dead_letters: list[DeadLetter]

    def receive(self) -> list[tuple[str, Any]]:
        """(sink, item) of what has come out, at least one; [] at the end or when it was stopped. Raises
        PipelineError when all before it was given out."""
        ...

    def stop(self) -> None:
        """End it early; generators are closed. Idempotent, from any thread."""
        ...

    def drop(self) -> None:
        """The same by the garbage collector, which may come in the midst of anything."""
        ...

    def metrics(self) -> tuple[StageMetrics, ...]:
        """In the order of the topology's stages."""
        ...


class PipelineRun:
    """The outputs of a pipeline, `for` or `async for`, in the order in which they come; with several sinks that of one
    is kept, and theirs mixes. The end of a loop over it, `break` too, ends the run; so does dropping it.

    An error is raised in its place: all outputs that were made before it come first.
    """

    def __init__(self, flow: Flow, plan: Plan, total: int | None = None) -> None:
        """`total`: how many items go in, where that is known."""
        self._flow = flow
        self._plan = plan
        self._total = total
        self._sinks = tuple(plan.topology.sinks)
        self._view: LiveView | None = None
        self.id = f"p{os.urandom(6).hex()}"
        """In the topics of its events: `pipeline.<id>.started` and `.ended`."""
        self._status = "stopped"
        self._told = False
        tell(self.id, "started", lambda: {"stages": list(plan.topology.stages)})
        self._ready: deque[tuple[str, Any]] = deque()
        self._kept: dict[str, list[Any]] | None = None
        self._failed: Exception | None = None
        self._pulling: asyncio.Future[list[tuple[str, Any]]] | None = None
        self._end = weakref.finalize(self, flow.drop)

    # -- taking -------------------------------------------------------------------------------------------------------

    def pairs(self) -> Iterator[tuple[str, Any]]:
        """(sink, item) of each output. Raises PipelineError, and what the iterable of the items raises."""
        ready = self._ready
        try:
            while self._more():
                while ready:
                    yield ready.popleft()
        finally:
            self.close()

    def __iter__(self) -> Iterator[Any]:
        ready = self._ready
        try:
            while self._more():
                while ready:
                    yield ready.popleft()[1]
        finally:
            self.close()

    def __next__(self) -> Any:
        """The next one alone; the run goes on."""
        if not self._more():
            raise StopIteration
        return self._ready.popleft()[1]

    def _more(self) -> bool:
        if not self._ready:
            self._ready.extend(self._pull())
        return bool(self._ready)

    def _pull(self) -> list[tuple[str, Any]]:
        """What the flow has; its error, again and again."""
        if self._failed is not None:
            raise self._failed
        try:
            taken = self._flow.receive()
        except BaseException as error:
            if isinstance(error, Exception):  # Ctrl-C is none of it
                self._failed = error
                self._status = "failed"
            self.close()
            raise
        if not taken and self._end.alive:
            self._status = "completed"
            self._tell_end()
        return taken

    def _tell_end(self) -> None:
        if not self._told:
            self._told = True
            tell(self.id, "ended", self._how_it_went)

    def _how_it_went(self) -> dict[str, Any]:
        stages = [one.as_dict() for one in self._flow.metrics()]
        return {"status": self._status, "error": str(self._failed or ""), "stages": stages}

    def raise_failure(self) -> None:
        """Of a flow that has ended. What came out before stays to be taken."""
        while taken := self._pull():
            self._ready.extend(taken)

    def __aiter__(self) -> AsyncIterator[Any]:
        return _AsyncOutputs(self)

    async def __anext__(self) -> Any:
        """The next one alone; the run goes on."""
        if not self._ready:
            import asyncio  # late: it is running

            # Who waits may be cancelled and wait again: what a thread takes for it meanwhile is not lost.
            if self._pulling is None:
                self._pulling = asyncio.get_running_loop().run_in_executor(None, self._pull)
            pulling = self._pulling
            try:
                taken = await asyncio.shield(pulling)
            finally:
                if pulling.done():
                    self._pulling = None
            self._ready.extend(taken)
        if not self._ready:
            raise StopAsyncIteration
        return self._ready.popleft()[1]

    @property
    def outputs(self) -> dict[str, list[Any]]:
        """{sink: its items} of all that was not taken before; waits for the end. Raises as the loop does."""
        if self._kept is None:
            kept: dict[str, list[Any]] = {sink: [] for sink in self._sinks}
            for sink, item in self.pairs():
                kept[sink].append(item)
            self._kept = kept
        return self._kept

    # -- asking -------------------------------------------------------------------------------------------------------

    def metrics(self) -> PipelineMetrics:
        """What each stage has done so far; also after the end."""
        return PipelineMetrics(self._flow.metrics())

    @property
    def bottleneck(self) -> str:
        """The stage that the others wait for; "" before the first item."""
        return self.metrics().bottleneck

    @property
    def dead_letters(self) -> list[DeadLetter]:
        """What stages with on_error="dead_letter" could not do, the first 10,000."""
        return list(self._flow.dead_letters)

    def watch(self, every_s: float | None = None) -> PipelineRun:
        """Itself, with a table of its stages on stderr (or below the cell) until it ends: what went in and out, how
        fast now, what waits, how long a stage was held up, and when all will be through where that is known.

        `every_s`: seconds between looks; None: 0.5, and 5 where stderr is no terminal. Raises ValueError.
        """
        if self._view is None and self._end.alive:
            from zmreg.flows.live.view import LiveView  # late: most are not watched

            # It holds the flow and not the run: a run that is dropped ends, and its view with it.
            self._view = view = LiveView(partial(_lines, self._flow, self._plan.topology, self._total), every_s)
            weakref.finalize(self, view.drop)
        return self

    def lines(self) -> list[Line]:
        """How far each stage is, as lines of a live table."""
        return _lines(self._flow, self._plan.topology, self._total)

    # -- ending -------------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """End it now: generators are closed, `cleanup` is called, processes are given back. Waits a second at most for
        functions that are being called. Idempotent."""
        if self._end.detach() is not None:
            try:
                self._flow.stop()
            finally:
                if self._view is not None:
                    self._view.close()
                self._tell_end()

    async def aclose(self) -> None:
        """The same, without holding up the event loop."""
        import asyncio  # late: it is running

        await asyncio.get_running_loop().run_in_executor(None, self.close)

    def __enter__(self) -> PipelineRun:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    async def __aenter__(self) -> PipelineRun:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    def __repr__(self) -> str:
        return f"<PipelineRun to {', '.join(self._sinks)}, {'going on' if self._end.alive else 'closed'}>"


class _AsyncOutputs:
    """An `async for` over a run. Dropped when the loop ends, also by `break`; the run ends with it."""

    def __init__(self, run: PipelineRun) -> None:
        self._run = run

    def __aiter__(self) -> _AsyncOutputs:
        return self

    async def __anext__(self) -> Any:
        try:
            return await anext(self._run)
        except BaseException:  # the end, an error, or the task is cancelled
            await self._run.aclose()
            raise

    def __del__(self) -> None:
        if self._run._end.alive:  # `break`: not to wait for it on the event loop
            threading.Thread(target=self._run.close, name="zmreg-pipeline-end", daemon=True).start()


class PipelineSession:
    """A pipeline that is sent items one by one. Opened where an event loop runs, its methods are to be awaited."""

    def __init__(self, run: PipelineRun, inputs: Channel[Any]) -> None:
        self._run = run
        self._inputs = inputs
        asyncio = sys.modules.get("asyncio")
        self._is_async = asyncio is not None and asyncio._get_running_loop() is not None

    def send(self, item: Any) -> Any:
        """Wait for room, and put it in. Raises ValueError after `close`, and PipelineError once the run has failed."""
        return self._aside(self._send, item) if self._is_async else self._send(item)

    def _send(self, item: Any) -> None:
        if not self._inputs.put(item):
            self._run.raise_failure()
            raise ValueError("the run is over: nothing can be sent any more")

    def recv(self) -> Any:
        """Wait for the next output. Raises EOFError when there is none any more, PipelineError."""
        return self._arecv() if self._is_async else self._recv()

    async def _arecv(self) -> Any:
        try:
            return await anext(self._run)
        except StopAsyncIteration:
            raise EOFError(_OVER) from None

    def _recv(self) -> Any:
        try:
            return next(self._run)
        except StopIteration:
            raise EOFError(_OVER) from None

    def finish(self) -> Any:
        """No more items; wait for the outputs that are left, and return them as a list. Raises PipelineError."""
        return self._aside(self._finish) if self._is_async else self._finish()

    def _finish(self) -> list[Any]:
        self._inputs.end()
        return list(self._run)

    def close(self) -> Any:
        """End it now; what is under way is dropped. Idempotent."""
        return self._aside(self._close) if self._is_async else self._close()

    def _close(self) -> None:
        self._inputs.end()
        self._run.close()

    async def _aside(self, function: Callable[..., Any], *args: Any) -> Any:
        import asyncio  # late: it is running

        return await asyncio.get_running_loop().run_in_executor(None, function, *args)

    @property
    def run(self) -> PipelineRun:
        """For its metrics and dead letters."""
        return self._run

    def __enter__(self) -> PipelineSession:
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    async def __aenter__(self) -> PipelineSession:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._aside(self._close)


def start(plan: Plan, items: Iterable[Any] | None) -> PipelineRun:
    """Have it run, here or where its stages want to be."""
    flow: Flow
    if plan.here:
        from zmreg.flows.pipelines.local_flow import (
            LocalFlow,  # late: what runs stages is not needed to write them down
        )

        flow = LocalFlow(plan, items)
    else:
        from zmreg.flows.pipelines.remote_flow import RemoteFlow  # late: most pipelines run here

        flow = RemoteFlow(plan, items)
    return PipelineRun(flow, plan, len(items) if isinstance(items, Sized) else None)


def _lines(flow: Flow, shape: Topology, total: int | None) -> list[Line]:
    from zmreg.core.live_table import Line  # late: most are not watched

    metrics = PipelineMetrics(flow.metrics())
    busiest = metrics.bottleneck if len(metrics.stages) > 1 else ""
    return [
        Line(
            one.stage, "busiest" if one.stage == busiest else "", one.items_in, one.items_out, one.depth,
            one.blocked_s, total if one.stage in shape.sources else None,
        )
        for one in metrics.stages
    ]  # fmt: skip


def fed_by(items: AsyncIterable[Any], size: int) -> Channel[Any]:
    """The items of an asynchronous iterable, by a task on the running loop, `size` ahead at most."""
    import asyncio  # late: it is running

    channel: Channel[Any] = Channel(size)
    loop = asyncio.get_running_loop()

    async def feed() -> None:
        source = aiter(items)
        try:
            async for item in source:
                if not channel.put_now(item) and not await loop.run_in_executor(None, channel.put, item):
                    break
            channel.end()
        except BaseException as error:
            channel.end(error if isinstance(error, Exception) else RuntimeError("the task that read it was cancelled"))
            if not isinstance(error, Exception):
                raise
        finally:
            close = getattr(source, "aclose", None)
            if close is not None:
                await close()

    task = loop.create_task(feed())
    _feeding.add(task)  # the loop itself holds it weakly
    task.add_done_callback(_feeding.discard)
    return channel


_feeding: set[Any] = set()
