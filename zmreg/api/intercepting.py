"""Looking at calls: around each that this program makes, and around each of those where it runs.

No call asks on its way whether anybody looks at it. While somebody does, the functions that submit calls are exchanged
in the modules that use them; so programs that nobody looks at pay nothing.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from types import ModuleType
from typing import Any, Final, NoReturn

from zmreg.api import actors, batching, functions
from zmreg.model.errors import SerializationError
from zmreg.model.ids import object_id
from zmreg.services.calling import naming
from zmreg.services.calling.acting import ActorOrder
from zmreg.services.calling.calls import Task, Template
from zmreg.services.calling.carrying import Carrier
from zmreg.services.calling.submit import pack_arguments
from zmreg.services.seat.client import Client
from zmreg.services.seat.context import hosted, running_task
from zmreg.services.seat.entries import Entry
from zmreg.services.seat.seats import client
from zmreg.services.worker import carrying


class InterceptedCall:
    """What is known of a call."""

    __slots__ = ("actor_class", "actor_id", "attempt", "function", "kind", "name", "task_id")

    def __init__(self, kind: str, name: str) -> None:
        self.kind = kind
        """"task", "actor" (that is made), "method", or "named" (`zmreg.call`)."""
        self.name = name
        """"f", "Counter.__init__", "Counter.add", or as its caller has said."""
        self.task_id = ""
        """Hex. When it is submitted, "" until it is; of an actor that is made, always."""
        self.actor_class = ""
        """"Counter"; "" for no actor's."""
        self.actor_id = ""
        """Hex; "" for none. Of an actor that is made, known when it is submitted."""
        self.attempt = 0
        """Where it runs: how often it was begun before."""
        self.function: Callable[..., Any] | None = None
        """Where it runs: what is called; the class, for an actor that is made."""

    def __repr__(self) -> str:
        return f"<InterceptedCall {self.kind} {self.name} {self.task_id}>"


class Interceptor:
    """What is done around calls. Subclass it, and give an instance to `zmreg.intercept`: workers get it pickled."""

    def setup(self) -> None:
        """In each worker that it comes to, before the first call there. What it raises is that call's error."""

    def submitting(self, call: InterceptedCall) -> AbstractContextManager[Any] | None:
        """Entered before a call is submitted, left when it is, or with the error for which it is not.

        What it gives travels with the call, so it is small, and can be pickled. None: `running` is not asked either.
        """
        return None

    def running(self, call: InterceptedCall, carried: Any) -> AbstractContextManager[Any] | None:
        """Entered before the function runs, left when it has returned, with its error if it raises; behind the last
        step of a coroutine or a generator. Once for each attempt.

        `carried`: what `submitting` has given. It is in a context (`contextvars`) with the call, and nothing else is.
        """
        return None


def intercept(interceptor: Interceptor | None) -> None:
    """Have that one look at all calls of this program from now on: tasks, actors and their methods, and calls by name.

    It comes with them to the workers that run them, and looks at the calls that are made there, too. Actors have the
    one that there was when they were made. There is one at a time: RuntimeError when there is another. None: there is
    none any more in this process; workers keep theirs, for calls that still carry something.
    TypeError for what is no interceptor, SerializationError when it cannot be pickled.
    """
    global _explicit
    if interceptor is not None and not isinstance(interceptor, Interceptor):
        raise TypeError(f"zmreg.intercept takes an instance of a zmreg.Interceptor, or None, not {interceptor!r:.80}")
    if interceptor is None:
        _explicit = False
        _exchange(None)
        return
    if _explicit:
        raise RuntimeError("another interceptor looks at the calls of this process: zmreg.intercept(None) takes it out")
    hook = _Hook(interceptor)
    _explicit = True
    _exchange(hook)


class _Hook:
    """One interceptor in one process."""

    def __init__(self, interceptor: Interceptor) -> None:
        self._interceptor = interceptor
        self._carrier = Carrier(_Arrival(interceptor))

    def submitted(
        self, kind: str, submit: Callable[..., Task], seat: Client, template: Template, where: list[Any], args: Any,
        kwargs: Any,
    ) -> Task:  # fmt: skip
        """A call, submitted by that function."""
        twin = self._carrier.twin(seat, template)
        call = InterceptedCall(kind, template.name)
        if kind == carrying.METHOD:
            call.actor_id, call.actor_class = where[0][0].hex(), where[0][1]
        around = None if twin is None else self._interceptor.submitting(call)
        if around is None:
            return submit(seat, template, *where, args, kwargs)
        with around as carried:
            try:
                task = submit(seat, twin, *where, (template.name, carried, *args), kwargs)
            except SerializationError as error:
                _blame(seat, template, args, kwargs, error)
            call.task_id = object_id(seat.me, task.counter).hex()
            return task

    def made(
        self, create: Callable[..., Entry], seat: Client, cls: Any, order: ActorOrder, args: Any, kwargs: Any
    ) -> Entry:
        """An actor, ordered by that function."""
        call = InterceptedCall(carrying.ACTOR, f"{order.class_name}.__init__")
        call.actor_class = order.class_name
        around = self._interceptor.submitting(call)
        if around is None:
            return create(seat, cls, order, args, kwargs)
        with around as carried:
            lifeline = create(seat, self._carrier.born(cls, call.name, carried), order, args, kwargs)
            call.actor_id = lifeline.object_id.hex()
            return lifeline

    def around(
        self, kind: str, name: str, function: Callable[..., Any], carried: Any
    ) -> AbstractContextManager[object] | None:
        """See `services.worker.carrying.Hook`."""
        call, task, host = InterceptedCall(kind, name), running_task(), hosted()
        call.function = function
        if task is not None:
            call.task_id, call.attempt = task[0].hex(), task[2]
        if host is not None:
            call.actor_id, call.actor_class = host.actor_id.hex(), host.class_name()
            if kind == carrying.ACTOR:  # of which there is no instance yet
                call.actor_class, call.attempt = name.removesuffix(".__init__"), host.incarnation - 1
        return self._interceptor.running(call, carried)


def _blame(seat: Client, template: Template, args: Any, kwargs: Any, error: SerializationError) -> NoReturn:
    """Raise what names the caller's own argument, by the place it has without ours; or that it is not one of his."""
    try:
        pack_arguments(seat, args, kwargs, template.name)
    except SerializationError as own:
        raise own from error.__cause__
    cause = error.__cause__
    raise SerializationError(
        f"cannot send what the interceptor's `submitting` gives with a call of {template.name} "
        f"({type(cause).__name__}: {cause})"
    ) from cause


class _Arrival:
    """What travels in place of a hook: unpickling it gives the one that answers for the interceptor there."""

    def __init__(self, interceptor: Interceptor) -> None:
        self._interceptor = interceptor

    def __reduce__(self) -> tuple[Any, ...]:
        return _arrived, (self._interceptor,)


def _arrived(interceptor: Interceptor) -> _Hook:
    with _guard:
        shared = client().shares_process  # a cluster within this process: it is here, or was
        if shared and _now is not None:
            return _now
        hook = _Hook(interceptor)
        if not shared:
            interceptor.setup()
            _exchange(hook)
        return hook


# -- exchanging what submits -------------------------------------------------------------------------------------------

_guard: Final = threading.RLock()
_now: _Hook | None = None
_explicit = False
"""It was set in this process, and did not come with a call."""


def _submitting(kind: str, submit: Callable[..., Task]) -> Callable[..., Task]:
    def submitted(seat: Client, template: Template, *rest: Any) -> Task:
        *where, args, kwargs = rest
        hook = _now
        if hook is None:  # just now
            return submit(seat, template, *rest)
        return hook.submitted(kind, submit, seat, template, where, args, kwargs)

    return submitted


def _making(create: Callable[..., Entry]) -> Callable[..., Entry]:
    def made(*order: Any) -> Entry:
        hook = _now
        return create(*order) if hook is None else hook.made(create, *order)

    return made


PLACES: Final = {
    (functions, "submit_task"): carrying.TASK,
    (actors, "submit_actor_call"): carrying.METHOD,
    (actors, "create_actor"): carrying.ACTOR,
    (batching, "submit_actor_call"): carrying.METHOD,
    (naming, "submit_task"): carrying.NAMED,
    (naming, "submit_to"): carrying.NAMED,
}
"""Where calls are submitted: (module, name there), and what is called."""
_PLAIN: Final[dict[tuple[ModuleType, str], Callable[..., Any]]] = {place: getattr(*place) for place in PLACES}
_LOOKED_AT: Final = {
    place: _making(plain) if PLACES[place] == carrying.ACTOR else _submitting(PLACES[place], plain)
    for place, plain in _PLAIN.items()
}


def _exchange(hook: _Hook | None) -> None:
    global _now
    with _guard:
        _now = carrying.current = hook
        for place, plain in _PLAIN.items():
            setattr(*place, plain if hook is None else _LOOKED_AT[place])
