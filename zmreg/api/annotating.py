"""`with zmreg.annotate(priority=5):`, options for all calls and actors that are made inside (core-api row X18).

A call pays nothing for it in a program that has none: the first `annotate` puts another `RemoteFunction.remote` in the
place of the plain one, which looks for notes first from then on. A bound `f.remote` that was kept from before that is
never annotated.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import ContextVar, Token
from types import FunctionType, TracebackType
from typing import Any, Final, cast
from weakref import WeakKeyDictionary

from zmreg.api import options
from zmreg.api.actors import ActorClass
from zmreg.api.functions import RemoteFunction

_OPTIONS: Final = {"priority": "priority", "retries": "max_retries", "locs": "locs", "resources": "resources"}
_OWN: Final = "zmreg."


class _Notes:
    """What holds in a block, with what holds around it."""

    __slots__ = ("options", "twins")

    def __init__(self, given: dict[str, Any]) -> None:
        self.options = given
        self.twins: WeakKeyDictionary[Any, Any] = WeakKeyDictionary()

    def function(self, plain: RemoteFunction[..., Any]) -> RemoteFunction[..., Any]:
        """The function with these options where it says nothing itself; our own small tasks stay as they are."""
        found = self.twins.get(plain)
        if found is None:
            inner = plain._function
            own = isinstance(inner, FunctionType) and inner.__module__.startswith(_OWN)
            found = plain if own else RemoteFunction(inner, {**self.options, **plain._options}, plain._body)
            self.twins[plain] = found
        return cast("RemoteFunction[..., Any]", found)

    def actor(self, plain: ActorClass[Any]) -> ActorClass[Any]:
        """The class with these options where it says nothing itself, as far as an actor can have them."""
        found = self.twins.get(plain)
        if found is None:
            given = {name: value for name, value in self.options.items() if name != "max_retries"}
            found = self.twins[plain] = ActorClass(plain._cls, {**given, **plain._options})
        return cast("ActorClass[Any]", found)


_notes: ContextVar[_Notes | None] = ContextVar("zmreg_annotations", default=None)
_function_remote, _actor_remote = RemoteFunction.remote, ActorClass.remote


class annotate:
    """Options for the calls made and the actors created inside the block, by this thread or coroutine.

    `priority`, `retries` (a task's `max_retries`), `locs` and `resources` mean what they mean as options. What a
    function or class says itself, by `@zmreg.remote(...)` or `.options(...)`, goes before, and so does an inner block.
    Raises TypeError or ValueError for what can be no such option.
    """

    def __init__(
        self,
        *,
        priority: int | None = None,
        retries: int | None = None,
        locs: Any = None,
        resources: Mapping[str, float] | None = None,
    ) -> None:
        given = {"priority": priority, "retries": retries, "locs": locs, "resources": resources}
        self._options = options.owned({_OPTIONS[name]: value for name, value in given.items() if value is not None})
        options.check_task_options(self._options)
        self._tokens: list[Token[_Notes | None]] = []

    def __enter__(self) -> annotate:
        _install()
        around = _notes.get()
        self._tokens.append(_notes.set(_Notes({**(around.options if around else {}), **self._options})))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        _notes.reset(self._tokens.pop())

    def __repr__(self) -> str:
        return f"<annotate {self._options}>"


def _install() -> None:
    # In place of a question in the hot path, which every call of every program would pay for.
    RemoteFunction.remote = _call  # type: ignore[method-assign]
    ActorClass.remote = _create  # type: ignore[method-assign, assignment]


def _call(self: RemoteFunction[..., Any], /, *args: Any, **kwargs: Any) -> Any:
    notes = _notes.get()
    return _function_remote(self if notes is None else notes.function(self), *args, **kwargs)


def _create(self: ActorClass[Any], /, *args: Any, **kwargs: Any) -> Any:
    notes = _notes.get()
    return _actor_remote(self if notes is None else notes.actor(self), *args, **kwargs)
