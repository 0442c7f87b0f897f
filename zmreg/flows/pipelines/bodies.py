"""One stage at work: how it is called, whatever it is, and what happens when that fails."""

from __future__ import annotations

import inspect
import random
import threading
import time
from collections.abc import AsyncIterable, Callable, Iterable, Iterator
from typing import Any, Final

from zmreg.api.actors import ActorHandle, ActorMethod
from zmreg.api.functions import RemoteFunction
from zmreg.core.flow_metrics import StageMetrics, Times
from zmreg.flows.pipelines.side_loop import Clocked, PipelineStopped, SideLoop
from zmreg.flows.pipelines.stages import ITEM, SOURCE, SPREAD, DeadLetter, StageSpec, failure, inner_of
from zmreg.model.errors import PipelineError
from zmreg.model.policy import DEAD_LETTER, RAISE, pause_s

DROPPED: Final = object()
_END: Final = object()

DeadLetters = Callable[[DeadLetter], None]


class Surroundings:
    """What the stages of a stretch share."""

    def __init__(self, node: str, dead_letter: DeadLetters) -> None:
        self.node = node
        self.dead_letter = dead_letter
        self.stopped = threading.Event()
        self._loop: SideLoop | None = None
        self._clocked: Clocked | None = None

    @property
    def loop(self) -> SideLoop:
        if self._loop is None:
            self._loop = SideLoop("zmreg-pipeline")
            if self.stopped.is_set():
                self._loop.interrupt()
        return self._loop

    @property
    def clocked(self) -> Clocked:
        if self._clocked is None:
            self._clocked = Clocked("zmreg-pipeline")
        return self._clocked

    def pause(self, seconds: float) -> None:
        """Raises PipelineStopped when the run is stopped before they are over."""
        if self.stopped.wait(max(0.0, seconds)):
            raise PipelineStopped

    def stop(self) -> None:
        """From any thread: nothing waits any more."""
        self.stopped.set()
        if self._loop is not None:
            self._loop.interrupt()

    def close(self) -> None:
        if self._loop is not None:
            self._loop.close()
            self._loop = None
        if self._clocked is not None:
            self._clocked.close()
            self._clocked = None


class Body:
    """A stage in the process that runs it. By one thread, besides `metrics`."""

    def __init__(self, spec: StageSpec, around: Surroundings) -> None:
        self.spec = spec
        self.terms = spec.terms
        self.around = around
        self.items_in = self.items_out = self.filtered = self.skipped = self.dead = self.errors = self.retries = 0
        self.lost = 0
        """Of the stages in a fused loop: whose error ended the run."""
        self.times = Times()
        self.is_open = False
        self._is_class = inspect.isclass(spec.target)
        self._object: Any = None if self._is_class else spec.target
        self._next_at = 0.0
        self.invoke: Callable[..., Any] = _unopened
        """Calls it with an item, waits for whatever has to be waited for, and returns its value."""
        self.is_async = False

    # -- its life -----------------------------------------------------------------------------------------------------

    def open(self) -> None:
        """Make the object of a class, and `initialize` it. Raises PipelineError."""
        try:
            if self._is_class:
                self._object = self.spec.target()
            self._hook("initialize")
        except Exception as error:
            raise self.failed(-1, None, error) from error
        self.is_open = True
        self.invoke = self._invoker()

    def flush(self) -> Iterator[Any]:
        """What `flush` has left: each item of a list or generator, or the one value. Raises PipelineError."""
        if not self._has_hooks:
            return
        try:
            left = self._hook("flush")
            if isinstance(left, AsyncIterable):
                left = self.around.loop.plain(left)
            if left is not None and not (isinstance(left, list | tuple) or inspect.isgenerator(left)):
                left = [left]
            for item in left or ():
                if item is not None or self.terms.keep_none:
                    self.items_out += 1
                    yield item
        except Exception as error:
            raise self.failed(-1, None, error) from error

    def close(self) -> PipelineError | None:
        """`cleanup`, once, if it was opened. Returns what went wrong."""
        if not self.is_open:
            return None
        self.is_open = False
        try:
            self._hook("cleanup")
        except Exception as error:  # noqa: BLE001  the others are still to be cleaned; it is told after that
            return self.failed(-1, None, error)
        return None

    @property
    def has_flush(self) -> bool:
        """Whether something may come out of it after its last item."""
        return self._has_hooks and callable(getattr(self._object, "flush", None))

    @property
    def _has_hooks(self) -> bool:
        target = self._object
        return not (inspect.isroutine(target) or self.spec.calls_out or target is None) and callable(
            getattr(target, "process", None)
        )

    def _hook(self, name: str) -> Any:
        if not self._has_hooks:
            return None
        hook = getattr(self._object, name, None)
        made = hook() if callable(hook) else None
        return self.around.loop.finish(made) if inspect.isawaitable(made) else made

    # -- being called -------------------------------------------------------------------------------------------------

    @property
    def is_plain(self) -> bool:
        """A call is all there is to it, as long as it does not fail."""
        terms = self.terms
        plain = self.spec.kind == ITEM and terms.rate is None and terms.timeout is None
        return plain and not self.spec.calls_out and not self.is_async

    def _invoker(self) -> Callable[..., Any]:
        target, timeout, around = self._object, self.terms.timeout, self.around
        if self.spec.calls_out:
            return _remote_invoker(self.spec, timeout)
        function: Callable[..., Any] = target.process if self._has_hooks else target
        if self.spec.kind != ITEM:
            return function if callable(function) else lambda: function
        inner = function if inspect.isroutine(function) else inner_of(function)
        if inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(inner):
            self.is_async = True
            return lambda item: around.loop.call(function(item), timeout)
        if timeout is None:
            return function
        return lambda item: around.clocked.call(timeout, function, item)

    def pace(self) -> None:
        """Wait for its turn, with a rate. Pauses are not saved up for a burst."""
        rate = self.terms.rate
        if rate is not None:
            now = time.monotonic()
            if now < self._next_at:
                self.around.pause(self._next_at - now)
            self._next_at = max(self._next_at, now) + 1 / rate

    def outputs(self, index: int, item: Any) -> Iterator[Any]:
        """Of one item, for a stage that is called for each. Raises PipelineError."""
        self.items_in += 1
        self.pace()
        if self.spec.kind == SPREAD:
            yield from self._spread(index, item)
            return
        began = time.perf_counter()
        try:
            value = self.invoke(item)
        except Exception as error:  # noqa: BLE001  user code; `recover` tells it on
            value = self.recover(index, item, error)
        self.times.took(time.perf_counter() - began)
        if value is DROPPED:
            return
        if value is None and not self.terms.keep_none:
            self.filtered += 1
            return
        self.items_out += 1
        yield value

    def _spread(self, index: int, item: Any) -> Iterator[Any]:
        attempt, given, dropped, at_work = 0, 0, 0, 0.0
        while True:
            made = self._iterate(item)
            try:
                while True:
                    began = time.perf_counter()
                    try:
                        value = next(made, _END)
                    finally:
                        at_work += time.perf_counter() - began
                    if value is _END:
                        break
                    if value is None and not self.terms.keep_none:
                        dropped += 1
                        self.filtered += 1
                        continue
                    given += 1
                    self.items_out += 1
                    yield value
            except Exception as error:  # noqa: BLE001  user code; `recover` tells it on
                if not given and self._tries_again(attempt, error):
                    attempt += 1
                    continue
                self.times.took(at_work)
                self._give_up(index, item, error)
                return
            finally:
                _close(made)
            break
        self.times.took(at_work)
        self.filtered += not (given or dropped)

    def _iterate(self, item: Any) -> Iterator[Any]:
        timeout = self.terms.timeout
        if self.spec.calls_out:
            return _values(self.invoke(item), timeout)
        made = self.invoke(item)
        if isinstance(made, AsyncIterable):
            made = self.around.loop.plain(made)
        if timeout is None:
            return iter(made)
        return self._timed(iter(made), timeout)

    def _timed(self, made: Iterator[Any], timeout: float) -> Iterator[Any]:
        until = time.monotonic() + timeout
        while True:
            began = time.monotonic()
            value = self.around.clocked.call(max(0.0, until - began), next, made, _END)
            if value is _END:
                return
            left = until - time.monotonic()
            yield value
            until = time.monotonic() + left  # what those after it take is not its own time

    def over(self, before: Iterator[Any]) -> Iterator[Any]:
        """A stage over the whole stream, or one that makes it. Raises PipelineError."""
        upstream = _Upstream(self, before)
        made: Iterator[Any] | None = None
        try:
            try:
                made = self._stream(upstream)
                while True:
                    began, waited = time.perf_counter(), upstream.waited_s
                    value = next(made, _END)
                    self.times.took(time.perf_counter() - began - (upstream.waited_s - waited))
                    if value is _END:
                        break
                    if value is None and not self.terms.keep_none:
                        self.filtered += 1
                        continue
                    self.pace()
                    self.items_out += 1
                    yield value
            except Exception as error:
                if upstream.error is None:
                    if isinstance(error, PipelineStopped):
                        raise
                    self.errors += 1
                    raise self.failed(self.items_in - 1, upstream.last, error) from error
            # What came down the stream is never lost, whatever the generator has made of it.
            if upstream.error is not None:
                raise upstream.error
        finally:
            if made is not None:
                _close(made)

    def _stream(self, upstream: _Upstream) -> Iterator[Any]:
        if self.spec.kind == SOURCE:
            made = _values(self.invoke(), None) if self.spec.calls_out else self.invoke()
            if isinstance(made, AsyncIterable):
                return self.around.loop.plain(made)
            return iter(made)
        function = self.invoke
        inner = function if inspect.isroutine(function) else inner_of(function)
        if inspect.isasyncgenfunction(function) or inspect.isasyncgenfunction(inner):
            return self.around.loop.iterate(function, upstream)
        return iter(function(upstream))

    # -- failing ------------------------------------------------------------------------------------------------------

    def recover(self, index: int, item: Any, error: Exception) -> Any:
        """The value that a further try gives, or DROPPED. Raises PipelineError, PipelineStopped."""
        attempt = 0
        while self._tries_again(attempt, error):
            attempt += 1
            try:
                return self.invoke(item)
            except Exception as again:  # noqa: BLE001  user code; told on below
                error = again
        self._give_up(index, item, error)
        return DROPPED

    def _tries_again(self, attempt: int, error: Exception) -> bool:
        if isinstance(error, PipelineStopped):
            raise error
        self.errors += 1
        if attempt >= self.terms.retries or not isinstance(error, self.terms.retry_on):
            return False
        self.retries += 1
        self.around.pause(pause_s(self.terms.backoff, attempt + 1, random.random()))
        return True

    def _give_up(self, index: int, item: Any, error: Exception) -> None:
        if self.terms.on_error == RAISE:
            raise self.failed(index, item, error) from error
        if self.terms.on_error == DEAD_LETTER:
            self.dead += 1
            self.around.dead_letter(DeadLetter(self.spec.name, index, item, error, self.around.node))
        else:
            self.skipped += 1

    def failed(self, index: int, item: Any, error: BaseException) -> PipelineError:
        """What the run raises for it."""
        return failure(self.spec.name, index, item, error, self.around.node)

    def metrics(self) -> StageMetrics:
        """What it has done so far."""
        return StageMetrics(
            self.spec.name, self.items_in, self.items_out, self.filtered, self.skipped, self.dead, self.errors,
            self.retries, self.times.summary(),
        )  # fmt: skip


class _Upstream:
    """The stream as a generator over it sees it: counts, clocks, and remembers what it raised."""

    def __init__(self, body: Body, before: Iterator[Any]) -> None:
        self._body = body
        self._before = before
        self.waited_s = 0.0
        self.last: Any = None
        self.error: Exception | None = None

    def __iter__(self) -> _Upstream:
        return self

    def __next__(self) -> Any:
        if self.error is not None:
            raise self.error
        began = time.perf_counter()
        try:
            self.last = next(self._before)
        except StopIteration:
            raise
        except Exception as error:
            self.error = error  # remembered: the generator may swallow it
            raise
        finally:
            self.waited_s += time.perf_counter() - began
        self._body.items_in += 1
        return self.last


def _unopened(*_: Any) -> Any:
    raise RuntimeError("the stage was not opened")


def _close(made: Any) -> None:
    close = getattr(made, "close", None)
    if callable(close):
        close()


def _remote_invoker(spec: StageSpec, timeout: float | None) -> Callable[..., Any]:
    target, locs = spec.target, spec.terms.locs
    if isinstance(target, str):
        from zmreg.api.calling import call  # late: most stages are none that somebody serves

        return lambda item: call(target, item, locs=locs, timeout=timeout)
    if isinstance(target, RemoteFunction) and locs:
        target = target.options(locs=locs)
    method: RemoteFunction[..., Any] | ActorMethod = target.process if isinstance(target, ActorHandle) else target
    if spec.kind != ITEM:
        return method.remote
    return lambda item: _value(method.remote(item), timeout)


def _value(ref: Any, timeout: float | None) -> Any:
    try:
        return ref.get(timeout)
    except TimeoutError:
        ref.cancel()
        raise


def _values(refs: Iterable[Any], timeout: float | None) -> Iterator[Any]:
    for ref in refs:
        yield ref.get(timeout)
