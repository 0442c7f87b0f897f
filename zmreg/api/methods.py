"""Methods of actors: `@zmreg.method`, and what type checkers know of a method that has it.

A checker cannot turn the methods of a class into remote ones. It can be told that what `@zmreg.method` has decorated is
both: called on the instance it is the method, and it has a `.remote` beside. So `zmreg.typed(handle)` stands for the
instance where types are read, and is the handle where the program runs.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator
from typing import TYPE_CHECKING, Any, Concatenate, Generic, Literal, ParamSpec, Protocol, TypeVar, overload

from zmreg.api import options as opts
from zmreg.api.actors import ActorHandle
from zmreg.services.calling.kinds import OPTIONS

P = ParamSpec("P")
R = TypeVar("R")
V = TypeVar("V")
T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])

if TYPE_CHECKING:
    from zmreg.api.batching import Delayed
    from zmreg.api.refs import ObjectRef
    from zmreg.api.streams import ObjectRefGenerator

    class TypedMethod(Generic[P, R, V]):
        """`zmreg.typed(handle).name`: called, it gives an R; called from afar, a V at once."""

        def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R: ...
        def remote(self, /, *args: P.args, **kwargs: P.kwargs) -> V: ...
        def batch(self, calls: Iterable[tuple[Any, ...] | Delayed]) -> list[V]: ...
        def delay(self, /, *args: P.args, **kwargs: P.kwargs) -> Delayed: ...
        def options(self, **options: Any) -> TypedMethod[P, R, V]: ...

    class DecoratedMethod(Generic[P, R, V]):
        """What a class has of a method with `@zmreg.method`."""

        @overload
        def __get__(self, instance: None, owner: type) -> Callable[Concatenate[Any, P], R]: ...
        @overload
        def __get__(self, instance: object, owner: type) -> TypedMethod[P, R, V]: ...
        def __get__(self, instance: Any, owner: type) -> Any: ...

    class MethodDecorator(Protocol):
        """What `method(**options)` gives."""

        @overload
        def __call__(
            self, function: Callable[Concatenate[Any, P], Coroutine[Any, Any, V]]
        ) -> DecoratedMethod[P, Coroutine[Any, Any, V], ObjectRef[V]]: ...
        @overload
        def __call__(  # type: ignore[overload-overlap]  # the first that fits
            self, function: Callable[Concatenate[Any, P], Iterator[V]]
        ) -> DecoratedMethod[P, Iterator[V], ObjectRefGenerator[V]]: ...
        @overload
        def __call__(  # type: ignore[overload-overlap]
            self, function: Callable[Concatenate[Any, P], AsyncIterator[V]]
        ) -> DecoratedMethod[P, AsyncIterator[V], ObjectRefGenerator[V]]: ...
        @overload
        def __call__(self, function: Callable[Concatenate[Any, P], R]) -> DecoratedMethod[P, R, ObjectRef[R]]: ...


@overload
def method(
    function: Callable[Concatenate[Any, P], Coroutine[Any, Any, V]], /
) -> DecoratedMethod[P, Coroutine[Any, Any, V], ObjectRef[V]]: ...
@overload
def method(  # type: ignore[overload-overlap]
    function: Callable[Concatenate[Any, P], Iterator[V]], /
) -> DecoratedMethod[P, Iterator[V], ObjectRefGenerator[V]]: ...
@overload
def method(  # type: ignore[overload-overlap]
    function: Callable[Concatenate[Any, P], AsyncIterator[V]], /
) -> DecoratedMethod[P, AsyncIterator[V], ObjectRefGenerator[V]]: ...
@overload
def method(function: Callable[Concatenate[Any, P], R], /) -> DecoratedMethod[P, R, ObjectRef[R]]: ...
@overload  # what such a call gives, its options say and not its types
def method(*, num_returns: int | str, **options: Any) -> Callable[[F], F]: ...
@overload
def method(*, release: Literal[True], **options: Any) -> Callable[[F], F]: ...
@overload
def method(**options: Any) -> MethodDecorator: ...
def method(*functions: Any, **options: Any) -> Any:
    """Options of an actor's method (docs/settings.md), or none: then it is for type checkers (`zmreg.typed`).

    `release=True`, on a generator: each `value = yield ref` lets go of the actor until the ref's value is there, and
    the actor runs other calls meanwhile; what they change has changed when the method goes on. `return` ends the call.
    `batch="name"`: that method does many calls of this one at once. It gets a list with a tuple of arguments for each
    and returns a value for each; an exception among them is that call's error.

    Raises TypeError for anything but a method or keyword options (and for empty parentheses), ValueError for an unknown
    option or value.
    """
    if functions:
        if len(functions) > 1 or options or not callable(functions[0]):
            raise TypeError("use @zmreg.method, or @zmreg.method(num_returns=2, ...) with keyword options only")
        return functions[0]
    if not options:
        raise TypeError("empty parentheses: use @zmreg.method, or give options: @zmreg.method(num_returns=2)")
    opts.check_method_options(options)
    if options.get("release"):
        options = {**options, "num_returns": 1}

    def mark(function: F) -> F:
        setattr(function, OPTIONS, options)
        return function

    return mark


def typed(handle: ActorHandle[T]) -> T:
    """The same handle, as type checkers and editors should see it: with the methods that have `@zmreg.method`.

    `zmreg.typed(counter).add.remote(1)` is an `ObjectRef[int]` where `add` takes an int and returns one; the others of
    its methods stand in the class without a `.remote`, and the handle itself has them all. TypeError for anything else.
    """
    if not isinstance(handle, ActorHandle):
        raise TypeError(f"zmreg.typed takes an actor's handle, not {handle!r:.80}")
    return handle  # type: ignore[return-value]  # the one lie of this page
