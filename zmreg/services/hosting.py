"""An actor on its worker: construction, then calls one at a time, on threads, or on an event loop.

Which of the three follows from the class: any `async def` method makes it async (1,000 calls at once by default),
`max_concurrency` > 1 makes it threaded, else calls run one at a time on the main thread, by the worker's own loop.
"""

from __future__ import annotations

import inspect
import logging
import queue
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from zmreg.model.errors import FunctionWithdrawnError
from zmreg.model.ids import object_id
from zmreg.model.messages import ActorExiting, Construct, Constructed
from zmreg.services import arrivals, execute
from zmreg.services.execute import ActorExit
from zmreg.services.hosts import CODE_TARGET
from zmreg.services.inputs import constructor_arguments
from zmreg.services.kinds import is_async_class
from zmreg.services.running import running
from zmreg.wire import batches, payload

if TYPE_CHECKING:
    from zmreg.services.worker import Worker

log = logging.getLogger("zmreg.actors")

_perf = time.perf_counter


class Host(Protocol):
    """An actor that lives here."""

    instance: Any
    actor_id: bytes
    handle: bytes
    incarnation: int
    served: dict[str, Callable[..., Any]]

    def facts(self) -> Any:
        """What a handle to this actor is made of."""

    def method(self, name: str) -> Callable[..., Any]:
        """The bound method of that name."""

    def finish(self) -> None:
        """Before leaving in peace."""

    def end_now(self) -> None:
        """exit_actor() was called: nothing more is started."""

    def blocks(self) -> None:
        """User code on the main thread waits for a value."""

    def holds(self, task_id: bytes) -> bool:
        """A call that cannot go on while the main thread waits, besides those in the worker's inbox."""

    def class_name(self) -> str:
        """For messages."""

    def takes(self, caller: bytes, rows: list[batches.Row]) -> bool:
        """Whether it runs these by itself; False = the worker's own loop does."""

    def cancel(self, task_id: bytes) -> bool:
        """Cancel a call if that is up to the host."""

    def end_when_idle(self) -> None:
        """Finish what is queued, then let `serve` return."""

    def serve(self) -> None:
        """Run calls on the main thread until the end; returns at once where the worker's loop does it."""


def make_host(worker: Worker, construct: Construct) -> Host | None:
    """Run the constructor and tell the node how it went; None when it raised."""
    name = "actor"
    arrivals.take()
    try:
        cls: Any = payload.unpack_definition(construct.blob)
        name = cls.__qualname__
        deps = batches.unpack_deps(construct.deps)
        args, kwargs = constructor_arguments(worker, construct, name, deps)
        host = _kind(cls, construct)(worker, construct)
        worker.host = host
        host.create(cls, args, kwargs)
    except ActorExit:
        worker.tell_node(ActorExiting(construct.actor_id))
        worker.ending = True
        return None
    except (SystemExit, KeyboardInterrupt):
        raise
    except BaseException as error:  # noqa: BLE001  the user's constructor may raise anything; every caller hears of it
        worker.tell_node(Constructed(construct.actor_id, execute.failure_of(error, f"{name}.__init__", worker)))
        return None
    del args, kwargs
    with worker.lock:
        worker.sharing.keep(ref() for ref in arrivals.take())
    worker.tell_node(Constructed(construct.actor_id, b""))
    return host


def _kind(cls: type, construct: Construct) -> Callable[[Worker, Construct], SyncHost]:
    if is_async_class(cls):
        from zmreg.services.hosting_async import AsyncHost  # late: asyncio is only for those who use it

        return AsyncHost
    return ThreadHost if construct.max_concurrency > 1 else SyncHost


class SyncHost:
    """One call at a time, by the worker's own loop."""

    is_async: ClassVar[bool] = False

    def __init__(self, worker: Worker, construct: Construct) -> None:
        self.worker = worker
        self.actor_id = construct.actor_id
        self.incarnation = construct.incarnation
        self.handle = construct.handle
        self.name = construct.name
        self.concurrency = construct.max_concurrency
        self.instance: Any = None
        self.served: dict[str, Callable[..., Any]] = {}
        """Functions that this actor serves under a name, by "name\0version"."""

    def facts(self) -> Any:
        """What a handle to this actor is made of."""
        return payload.unpack(self.handle)

    def create(self, cls: type, args: Any, kwargs: dict[str, Any]) -> None:
        """Construct the instance; `__post_create__` follows where the class has one."""
        self.instance = cls(*args, **kwargs)
        hook = getattr(self.instance, "__post_create__", None)
        if hook is not None:
            self._complete(hook())

    def _complete(self, result: Any) -> None:
        if inspect.isawaitable(result):
            self.worker.looping.complete(result)

    def method(self, name: str) -> Callable[..., Any]:
        """The bound method of that name; the special ones of every actor included."""
        if name == "__zmreg_ready__":
            return lambda: True
        if name == "__zmreg_terminate__":
            return self._terminate
        if name == "__zmreg_call__":
            return lambda function, *args, **kwargs: function(self.instance, *args, **kwargs)
        if "\0" in name:
            return self._named(name)
        bound: Callable[..., Any] = getattr(self.instance, name)
        receive = getattr(self.instance, "__on_receive__", None)
        if receive is None:
            return bound
        return lambda *args, **kwargs: receive(name, args, kwargs)

    def _named(self, target: str) -> Callable[..., Any]:
        if target == CODE_TARGET:
            from zmreg.services.sources import code_of  # late: asked for once in a while

            return lambda asked: code_of(self.served[asked])
        function = self.served.get(target)
        if function is None:
            raise FunctionWithdrawnError(f"{self.class_name()} does not serve {target.partition(chr(0))[0]!r} any more")

        from zmreg.core.binding import filled  # late: most actors serve nothing under a name

        def named(*args: Any, **kwargs: Any) -> Any:
            args, kwargs = filled(args, kwargs)  # type: ignore[assignment]
            return function(*args, **kwargs)

        named.__qualname__ = target.partition("\0")[0]
        return named

    def _terminate(self) -> None:
        raise ActorExit

    def takes(self, caller: bytes, rows: list[batches.Row]) -> bool:
        """Never: the worker's loop runs them."""
        return False

    def cancel(self, task_id: bytes) -> bool:
        """Up to the worker."""
        return False

    def end_when_idle(self) -> None:
        """The worker's loop ends by itself."""

    def serve(self) -> None:
        """The worker's loop serves."""

    def end_now(self) -> None:
        """The worker's loop ends with the call that raises ActorExit."""

    def blocks(self) -> None:
        """As it should: nothing else would run meanwhile."""

    def holds(self, task_id: bytes) -> bool:
        """The worker knows its inbox."""
        return False

    def class_name(self) -> str:
        """For messages."""
        return type(self.instance).__name__

    def finish(self) -> None:
        """Before leaving in peace: word to the node that this is no crash, then `__pre_destroy__`.

        In this order, so that the node bounds the hook and the atexit functions (core/actors.py, EXIT_GRACE_S). The
        call in which the actor ended itself is never answered: it fails when this process is gone, hook and all.
        """
        self.worker.answer_now()
        if not self.worker.moving:
            self.worker.tell_node(ActorExiting(self.actor_id))
        hook = getattr(self.instance, "__pre_destroy__", None)
        if hook is not None:
            try:
                self._complete(hook())
            except Exception:
                log.exception("__pre_destroy__ of %s raised", type(self.instance).__name__)

    # -- shared by the concurrent kinds -------------------------------------------------------------------------------

    def run_here(self, caller: bytes, row: batches.Row, task_id: bytes) -> None:
        """Run one call on this thread and answer it. Raises ActorExit and SystemExit: no answer then."""
        arrivals.take()
        worker, name = self.worker, called(row)
        start = _perf()
        try:
            if task_id in worker.cancelled:
                returns = [execute.CANCELLED_ROW]
            else:
                function = self.method(row[1])
                args, kwargs = execute.load_arguments(worker, worker.recent, caller, row)
                token = running.set((task_id, name, attempt(row)))
                try:
                    result = function(*args, **kwargs)
                finally:
                    running.reset(token)
                del args, kwargs
                returns = execute.pack_returns(worker, caller, task_id, result, nreturns(row), name)
                del result
        except (ActorExit, SystemExit):
            raise
        except BaseException as error:  # noqa: BLE001  whatever the user's method raised goes to the caller
            returns = execute.failed_rows(error, name, worker, nreturns(row))
        worker.answer(caller, execute.result_row(worker, caller, row[0], int((_perf() - start) * 1e6), returns))
        worker.answer_now()


def nreturns(row: batches.Row) -> int:
    """How many values the caller expects."""
    count: int = row[3] if len(row) > 3 else 1
    return count


def called(row: batches.Row) -> str:
    """What people call the method, or the named function; the row has its version behind the name."""
    return str(row[1]).partition("\0")[0]


def attempt(row: batches.Row) -> int:
    """0 for the first time this call is made."""
    number: int = row[4] if len(row) > 3 else 0
    return number


class ThreadHost(SyncHost):
    """Up to `max_concurrency` calls at once, on threads that live as long as the actor (thread-locals stay)."""

    def __init__(self, worker: Worker, construct: Construct) -> None:
        super().__init__(worker, construct)
        self._calls: queue.SimpleQueue[tuple[bytes, batches.Row, bytes] | None] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._unfinished: set[bytes] = set()
        self._guard = threading.Lock()
        self._over = threading.Event()
        self._at_once = False
        self._exit: SystemExit | None = None

    def takes(self, caller: bytes, rows: list[batches.Row]) -> bool:
        """Hand each call to a thread; one more thread while all are busy and the limit allows."""
        if self.instance is None:
            return False
        for row in rows:
            task_id = object_id(caller, row[0])
            with self._guard:
                if self._over.is_set() and self.worker.moving:  # not begun: its caller sends it to where we go on
                    return True
                self._unfinished.add(task_id)
                # By calls, not by idle threads: one that has taken a call and not yet said so would be counted twice.
                if len(self._threads) < min(len(self._unfinished), self.concurrency):
                    thread = threading.Thread(target=self._work, daemon=True, name=f"zmreg-call-{len(self._threads)}")
                    self._threads.append(thread)
                    thread.start()
                self._calls.put((caller, row, task_id))
        return True

    def _work(self) -> None:
        while True:
            item = self._calls.get()
            if item is None:
                return
            try:
                self.run_here(*item)
            except ActorExit:
                self.end_now()
            except SystemExit as error:
                self._exit = error
                self.end_now()
            with self._guard:
                self._unfinished.discard(item[2])
                self.worker.cancelled.discard(item[2])

    def cancel(self, task_id: bytes) -> bool:
        """A call that waits is dropped when its turn comes; one that runs can ask `zmreg.cancelled()`."""
        with self._guard:
            if task_id in self._unfinished:
                self.worker.cancelled.add(task_id)
        return True

    def end_now(self) -> None:
        """Wait for no other thread: their calls fail with the process."""
        self.worker.moving = False
        self._at_once = True
        self._over.set()

    def end_when_idle(self) -> None:
        """Threads end behind what is queued."""
        self._over.set()

    def serve(self) -> None:
        """Wait for the end; then let the threads finish. Raises SystemExit when a call did."""
        inbox = self.worker.inbox
        while inbox:
            caller, row = inbox.popleft()
            self.takes(caller, [row])
        self._over.wait()
        with self._guard:
            for _ in self._threads:
                self._calls.put(None)
        for thread in self._threads:
            while thread.is_alive() and not self._at_once:
                thread.join(timeout=0.1)
        if self._exit is not None:
            raise self._exit
        self.worker.ending = True
