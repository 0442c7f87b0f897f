"""An actor on its worker: construction, then calls one at a time, on threads, or on an event loop.

Which of the three follows from the class: any `async def` method makes it async (1,000 calls at once by default),
`max_concurrency` > 1 makes it threaded, else calls run one at a time on the main thread, by the worker's own loop.
"""

from __future__ import annotations

import inspect
import logging
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from zmreg.model.messages import ActorExiting, Construct, Constructed
from zmreg.services.calling.batching import BATCH, at_once, in_turn
from zmreg.services.calling.hosts import CODE_TARGET
from zmreg.services.calling.kinds import CARRIES, RELEASE, is_async_class, options_of
from zmreg.services.calling.manners import SHOWN, Mannered
from zmreg.services.calling.submit import NOTHING
from zmreg.services.seat import arrivals
from zmreg.services.seat.running import running
from zmreg.services.worker import execute
from zmreg.services.worker.concurrency import MARK, Grouped
from zmreg.services.worker.execute import ActorExit
from zmreg.services.worker.inputs import constructor_arguments
from zmreg.services.worker.releasing import RESUME, LetOthersEnd, Released, Releasing
from zmreg.services.worker.yielding import returns_of
from zmreg.wire import batches, payload

if TYPE_CHECKING:
    from zmreg.services.worker.worker import Worker

log = logging.getLogger("zmreg.actors")

_perf = time.perf_counter
_KINDS = {kind[1:] for kind in (RELEASE, RESUME, BATCH)}
"""Behind the name of a method, after the \0: no version of a named function looks like these."""


class Host(Protocol):
    """An actor that lives here."""

    worker: Worker
    instance: Any
    actor_id: bytes
    handle: bytes
    incarnation: int
    served: dict[str, Callable[..., Any]]
    releasing: Releasing

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
    name, around = "actor", None
    arrivals.take()
    try:
        cls: Any = payload.unpack_definition(construct.blob)
        if type(cls) is Mannered:
            from zmreg.services.worker.manners import of_actor  # late: few have one

            of_actor(worker, cls.manner)
            around, cls = cls.around, cls.cls
        groups, cls = (cls, cls.cls) if type(cls) is Grouped else (None, cls)
        name = cls.__qualname__
        deps = batches.unpack_deps(construct.deps)
        args, kwargs = constructor_arguments(worker, construct, name, deps)
        host = _kind(cls, construct, groups)(worker, construct)
        worker.host = host
        _label(host, cls.__name__)
        host.create(cls, args, kwargs) if around is None else around(host.create, cls, args, kwargs)
        _label(host, cls.__name__)
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


def _label(host: Host, name: str) -> None:
    """What an actor prints is labelled with its class, or as it shows itself once it is made."""
    speech = host.worker.speech
    if speech is None:
        return
    if host.instance is not None and getattr(type(host.instance), "__repr__", None) is not object.__repr__:
        try:
            name = repr(host.instance)
        except Exception as error:  # noqa: BLE001  the user's code may raise anything; its class will do
            log.debug("repr() of an actor of class %s raised %r", name, error)
    speech.label = name
    speech.at_rest = host.actor_id, name


def _kind(cls: type, construct: Construct, groups: Grouped | None) -> Callable[[Worker, Construct], SyncHost]:
    if is_async_class(cls):
        from zmreg.services.worker.hosting_async import (  # late: asyncio is for those who use it
            AsyncHost,
            GroupedAsyncHost,
        )

        return AsyncHost if groups is None else partial(GroupedAsyncHost, groups=groups)
    if groups is None and construct.max_concurrency <= 1:
        return SyncHost
    from zmreg.services.worker.hosting_threads import GroupedThreadHost, ThreadHost  # late: as above

    return ThreadHost if groups is None else partial(GroupedThreadHost, groups=groups)


class SyncHost:
    """One call at a time, by the worker's own loop."""

    is_async: ClassVar[bool] = False
    alone: ClassVar[bool] = True
    """No call runs beside another."""

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
        self.releasing = Releasing(worker, self._resume)

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
        name, marked, _ = target.partition(MARK)
        if marked:
            return self.method(name)
        if SHOWN in target:
            from zmreg.services.worker.manners import method_of  # late: few calls have a manner

            return method_of(self, target, alone=self.alone)
        if CARRIES in target:
            return self._carrying(name)
        name, _, kind = target.partition("\0")
        if kind in _KINDS:
            return self._special(name, "\0" + kind)
        if target == CODE_TARGET:
            from zmreg.services.calling.sources import code_of  # late: asked for once in a while

            return lambda asked: code_of(self.served[asked])
        function = self.served.get(target)
        if function is None:
            raise execute.Unserved(f"{self.class_name()} does not serve {target.partition(chr(0))[0]!r} any more")

        from zmreg.core.binding import filled  # late: most actors serve nothing under a name

        def named(*args: Any, **kwargs: Any) -> Any:
            args, kwargs = filled(args, kwargs)  # type: ignore[assignment]
            return function(*args, **kwargs)

        named.__qualname__ = name
        return named

    def _carrying(self, target: str) -> Callable[..., Any]:
        """A method, or a named function, that is called with something in front of its arguments."""
        from zmreg.services.worker.carrying import METHOD, NAMED, method_of  # late: few calls carry anything

        plain = target.replace(CARRIES, "", 1)
        name, behind, kind = plain.partition("\0")
        if behind + kind == RESUME:  # what it has carried came with its beginning
            return self.method(plain)
        if behind + kind == RELEASE:  # it goes on behind each `yield`, and so does what is around it
            return self._special(name + CARRIES, RELEASE)
        if behind + kind == BATCH:
            return method_of(self.method(plain), METHOD, self.method(name))
        return method_of(self.method(plain), NAMED if behind else METHOD)

    def _special(self, name: str, kind: str) -> Callable[..., Any]:
        """A method that is called in another way than plainly."""
        if kind == RESUME:
            return self.releasing.going_on(name)
        method = self.method(name)
        if kind == RELEASE:
            return self.releasing.starting(method)
        many = options_of(method).get("batch")
        return in_turn(method) if many is None else at_once(method, getattr(self.instance, many))

    def _resume(self, caller: bytes, row: batches.Row, first: bool) -> None:
        """Run a call on that has let go of the actor: before the others, or behind them."""
        inbox = self.worker.inbox
        (inbox.appendleft if first else inbox.append)((caller, row))
        self.worker.idle.finish()

    def _terminate(self) -> None:
        if self.releasing.waits_for_others():
            raise LetOthersEnd
        raise ActorExit

    def takes(self, caller: bytes, rows: list[batches.Row]) -> bool:
        """Never: the worker's loop runs them."""
        return False

    def cancel(self, task_id: bytes) -> bool:
        """Up to the worker, but for those that have let go of the actor."""
        return self.releasing.cancel(task_id)

    def end_when_idle(self) -> None:
        """The worker's loop ends by itself."""

    def serve(self) -> None:
        """The worker's loop serves."""

    def end_now(self) -> None:
        """The worker's loop ends with the call that raises ActorExit. A thread of the user's own has none, and sends
        one ahead of what is queued."""
        if threading.get_ident() != self.worker.pump.main:
            self._resume(self.worker.me, [0, "__zmreg_terminate__", NOTHING], True)

    def blocks(self) -> None:
        """As it should: nothing else would run meanwhile."""

    def holds(self, task_id: bytes) -> bool:
        """The worker knows its inbox."""
        return self.releasing.holds(task_id)

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
                returns = returns_of(worker, caller, row, result, name)
                del result
        except (ActorExit, SystemExit):
            raise
        except Released as released:
            parked = self.releasing.park(caller, row, task_id, released)
            if parked is None:
                return
            returns = parked
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


def keep_on() -> None:
    """Behind an answer: the I/O thread goes on receiving, as nobody else will (`Intake.rest`)."""
