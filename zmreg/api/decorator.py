"""`@zmreg.remote`, on functions and on classes, bare or with options."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from typing import TYPE_CHECKING, Any, ParamSpec, Protocol, TypeVar, overload

from zmreg.api import options as opts
from zmreg.api.actors import ActorClass
from zmreg.api.functions import RemoteFunction

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

if TYPE_CHECKING:
    from zmreg.api.actors import ActorMaker
    from zmreg.api.functions import GeneratorFunction

    Items = Iterator[T] | AsyncIterator[T]

    class AnyClass(Protocol[P, T_co]):
        """A class, as mypy sees it, with its constructor's parameters; pyright takes the overload below it."""

        @property
        def __mro__(self) -> tuple[type, ...]: ...
        def __call__(self, *args: P.args, **kwargs: P.kwargs) -> T_co: ...


class Decorator(Protocol):
    """What `remote(**options)` gives."""

    # A class is a callable too, so these overlap: the first that fits counts, and classes come first.
    @overload
    def __call__(self, target: AnyClass[P, T]) -> ActorMaker[P, T]: ...  # type: ignore[overload-overlap]
    @overload
    def __call__(self, target: type[T]) -> ActorClass[T]: ...  # type: ignore[overload-overlap]
    @overload
    def __call__(self, target: Callable[P, Items[R]]) -> GeneratorFunction[P, R]: ...
    @overload
    def __call__(self, target: Callable[P, Coroutine[Any, Any, R]]) -> RemoteFunction[P, R]: ...
    @overload
    def __call__(self, target: Callable[P, R]) -> RemoteFunction[P, R]: ...


@overload
def remote(target: AnyClass[P, T]) -> ActorMaker[P, T]: ...  # type: ignore[overload-overlap]  # as above
@overload
def remote(target: type[T]) -> ActorClass[T]: ...  # type: ignore[overload-overlap]
@overload
def remote(target: Callable[P, Items[R]]) -> GeneratorFunction[P, R]: ...
@overload
def remote(target: Callable[P, Coroutine[Any, Any, R]]) -> RemoteFunction[P, R]: ...
@overload
def remote(target: Callable[P, R]) -> RemoteFunction[P, R]: ...
@overload
def remote(**options: Any) -> Decorator: ...
def remote(*targets: Any, **options: Any) -> Any:
    """Make a function a task, or a class an actor: bare, or with keyword options.

    Raises TypeError for anything else (and for empty parentheses), ValueError for an unknown option or value.
    """
    if targets and (len(targets) > 1 or options):
        raise TypeError("use @zmreg.remote, or @zmreg.remote(num_cpus=2, ...) with keyword options only")
    if targets:
        return _make(targets[0], {})
    if not options:
        raise TypeError("empty parentheses: use @zmreg.remote, or give options: @zmreg.remote(num_cpus=2)")
    opts.check_names(options, {**opts.TASK_OPTIONS, **opts.ACTOR_OPTIONS}, "zmreg.remote")
    return lambda target: _make(target, options)


def _make(target: Any, options: dict[str, Any]) -> Any:
    if isinstance(target, (RemoteFunction, ActorClass)):
        raise TypeError(f"{target!r} is remote already; use .options(...) for other options")
    options = opts.owned(options)
    if inspect.isclass(target):
        opts.check_actor_options(options)
        return ActorClass(target, options)
    if callable(target):
        options = opts.with_policy(options)
        opts.check_task_options(options)
        if options.get("cache"):
            from zmreg.api.caching import cached  # late: few are

            return cached(target, options)
        return RemoteFunction(target, options)
    raise TypeError(f"zmreg.remote takes a function or a class, not {type(target).__name__}: {target!r:.80}")
