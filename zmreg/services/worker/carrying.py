"""Calls that carry something in front of their arguments, where they run (services/calling/carrying.py).

A context manager of the interceptor's is around such a call, in a context (`contextvars`) of its own: also when the
call goes on behind the return of its function, as coroutines and generators do, and runs on by steps, between which the
same thread does other things.
"""

from __future__ import annotations

import contextvars
import threading
import weakref
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import AbstractContextManager
from types import AsyncGeneratorType, CoroutineType, GeneratorType
from typing import Any, Final, Protocol, cast

from zmreg.services.calling.limits import Limited
from zmreg.services.calling.manners import PLAIN, Mannered
from zmreg.services.worker.execute import ActorExit
from zmreg.wire import payload

TASK, ACTOR, METHOD, NAMED = "task", "actor", "method", "named"
"""What is called; an actor, when it is made."""


class Hook(Protocol):
    """What answers for an interceptor in a process."""

    def around(
        self, kind: str, name: str, function: Callable[..., Any], carried: Any
    ) -> AbstractContextManager[object] | None:
        """What to enter before the call, and to leave with its error; None for nothing."""


current: Hook | None = None
"""The latest that has come to this process, or that was set here. Actors' methods and named functions go by it: their
calls may come from those who have another one, or come where there is none, and then what they carry is dropped."""

_hooks: Final[weakref.WeakValueDictionary[bytes, Hook]] = weakref.WeakValueDictionary()
"""As long as there are functions that have them: a program may take another interceptor for each thing that it does."""
_guard: Final = threading.RLock()


def _hook_of(blob: bytes) -> Hook:
    with _guard:
        hook = _hooks.get(blob)
        if hook is None:
            hook = _hooks[blob] = cast(Hook, payload.unpack_definition(blob))
        return hook


def function_of(blob: bytes, hook: bytes) -> Any:
    """A task's function, to be called with what is carried. The function first: with it comes its environment."""
    function = payload.unpack_definition(blob)
    if isinstance(function, Limited):
        return Limited(Carrying(function.function, TASK, _hook_of(hook)), function.max_calls)
    return Carrying(cast("Callable[..., Any]", function), TASK, _hook_of(hook))


def class_of(cls: Any, hook: bytes, name: str, carried: object) -> Mannered:
    """An actor's class, with what is around its construction."""
    shown = cls if isinstance(cls, Mannered) else Mannered(cls, PLAIN)
    return shown.but(around=_Construction(_hook_of(hook), name, carried))


class _Construction:
    def __init__(self, hook: Hook, name: str, carried: object) -> None:
        self._hook = hook
        self._name = name
        self._carried = carried

    def __call__(self, create: Callable[..., None], cls: type, args: Any, kwargs: dict[str, Any]) -> None:
        """Create an instance by `create`."""
        around = self._hook.around(ACTOR, self._name, cls, self._carried)
        _run(around, create, (cls, args, kwargs), {})


class Carrying:
    """A function as calls call it that carry something: their name and that come first."""

    def __init__(
        self, function: Callable[..., Any], kind: str, hook: Hook | None, shown: Callable[..., Any] | None = None
    ) -> None:
        """`shown`: what the interceptor is told of, if it is not `function`."""
        self._function = function
        self._kind = kind
        self._hook = hook
        self._shown = shown or function
        self.__qualname__ = getattr(function, "__qualname__", "") or "a function"

    def __call__(self, name: str, carried: object, /, *args: Any, **kwargs: Any) -> Any:
        hook = self._hook
        around = None if hook is None else hook.around(self._kind, name, self._shown, carried)
        return _run(around, self._function, args, kwargs)


def method_of(
    function: Callable[..., Any], kind: str = METHOD, shown: Callable[..., Any] | None = None
) -> Callable[..., Any]:
    """An actor's method, or a named function, to be called with what is carried."""
    return Carrying(function, kind, current, shown)


# -- inside the context ------------------------------------------------------------------------------------------------

_UNSET: Final = object()


class _Inside:
    """A context, and the manager that was entered in it."""

    __slots__ = ("_around", "_entered", "context")

    def __init__(self, around: AbstractContextManager[object]) -> None:
        self.context = contextvars.copy_context()
        self.context.run(around.__enter__)
        self._entered = self.context.copy()
        self._around: AbstractContextManager[object] | None = around

    def leave(self, error: BaseException | None) -> None:
        """Who ends its actor, or a generator that nobody reads on, has not failed."""
        around, self._around = self._around, None
        if around is None:
            return
        if error is None or isinstance(error, ActorExit | GeneratorExit):
            self.context.run(around.__exit__, None, None, None)
        else:
            self.context.run(around.__exit__, type(error), error, error.__traceback__)

    def keep(self) -> None:
        """What the call has set is as it would be without us: an actor's later calls find it. What the manager has set
        is for this call alone."""
        for variable, value in self.context.items():
            if self._entered.get(variable, _UNSET) is not value and variable.get(_UNSET) is not value:
                variable.set(value)

    def __del__(self) -> None:
        """A generator that was dropped before its first step runs nothing, not even its `finally`."""
        if getattr(self, "_around", None) is not None:
            self.leave(None)


def _run(
    around: AbstractContextManager[object] | None, function: Callable[..., Any], args: Any, kwargs: dict[str, Any]
) -> Any:
    if around is None:
        return function(*args, **kwargs)
    inside = _Inside(around)
    try:
        result = inside.context.run(function, *args, **kwargs)
    except BaseException as error:
        inside.leave(error)
        inside.keep()
        raise
    goes_on = _GOES_ON.get(type(result))
    if goes_on is not None:
        return goes_on(result, inside)
    inside.leave(None)
    inside.keep()
    return result


def _stepped(inner: Any, context: contextvars.Context) -> Generator[Any, Any, Any]:
    """Run a generator, or a coroutine, on to its end, each step in that context."""
    try:
        given = context.run(inner.send, None)
        while True:
            try:
                sent = yield given
            except GeneratorExit:
                context.run(inner.close)
                raise
            except BaseException as error:  # noqa: BLE001  whatever is thrown in is the inner one's to take
                given = context.run(inner.throw, error)
            else:
                given = context.run(inner.send, sent)
    except StopIteration as end:
        return end.value


class _Awaited:
    def __init__(self, inner: Any, context: contextvars.Context) -> None:
        self._inner = inner
        self._context = context

    def __await__(self) -> Generator[Any, Any, Any]:
        return _stepped(self._inner, self._context)


def _iterated(inner: Any, inside: _Inside) -> Generator[Any, Any, Any]:
    try:
        value = yield from _stepped(inner, inside.context)
    except BaseException as error:
        inside.leave(error)
        raise
    inside.leave(None)
    return value


async def _completed(inner: Any, inside: _Inside) -> Any:
    try:
        value = await _Awaited(inner, inside.context)
    except BaseException as error:
        inside.leave(error)
        raise
    inside.leave(None)
    return value


async def _iterated_async(inner: Any, inside: _Inside) -> AsyncGenerator[Any, None]:
    try:
        try:
            while True:
                try:
                    item = await _Awaited(inner.__anext__(), inside.context)
                except StopAsyncIteration:
                    break
                yield item
        finally:
            await _Awaited(inner.aclose(), inside.context)
    except BaseException as error:
        inside.leave(error)
        raise
    inside.leave(None)


_GOES_ON: Final[dict[type, Callable[[Any, _Inside], Any]]] = {
    CoroutineType: _completed, GeneratorType: _iterated, AsyncGeneratorType: _iterated_async,
}  # fmt: skip
