"""Actors: `@zmreg.remote` on a class, handles, methods, names."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Iterable
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, Protocol, TypeVar

from zmreg.api import batching, grouping
from zmreg.api import options as opts
from zmreg.api.batching import Delayed
from zmreg.api.environments import equipped, portable, settled
from zmreg.api.functions import BoundCall, Signature, several
from zmreg.api.refs import ObjectRef
from zmreg.api.strategies import strategy_of
from zmreg.api.streams import ACTOR_BACKPRESSURE, BACKPRESSURE, note_returns, streams
from zmreg.model.arguments import check_seconds
from zmreg.model.errors import GetTimeoutError, PendingCallsLimitError
from zmreg.model.specs import Shape, actor_shapes
from zmreg.services.calling.acting import ActorOrder, create_actor, find_actor, kill_actor
from zmreg.services.calling.calls import Template
from zmreg.services.calling.kinds import RELEASE, options_of
from zmreg.services.calling.manners import mannered, method_shown
from zmreg.services.calling.submit import submit_actor_call
from zmreg.services.seat.client import Client
from zmreg.services.seat.entries import Entry
from zmreg.services.seat.seats import client
from zmreg.services.worker.concurrency import MARK

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
P = ParamSpec("P")

MYPY = False
"""mypy takes this for true. It and pyright find a constructor's parameters in two ways, and neither in the other's."""

if TYPE_CHECKING:

    class Built(Protocol[P]):
        """Whatever is made with these arguments."""

        def __init__(self, *args: P.args, **kwargs: P.kwargs) -> None: ...


# Ray's names for what every actor can do, and what they are called on the wire.
_SPECIAL = {
    "__ray_ready__": "__zmreg_ready__",
    "__ray_terminate__": "__zmreg_terminate__",
    "__ray_call__": "__zmreg_call__",
    "__zmreg_ready__": "__zmreg_ready__",
    "__zmreg_terminate__": "__zmreg_terminate__",
    "__zmreg_call__": "__zmreg_call__",
}


class ActorMethod:
    """`handle.name`: call it with `.remote(...)`. Holds the handle, so a temporary handle lives long enough."""

    __slots__ = ("_handle", "_name", "_options")

    def __init__(self, handle: ActorHandle[Any], name: str, options: dict[str, Any]) -> None:
        self._handle = handle
        self._name = name
        self._options = options

    def remote(self, *args: Any, **kwargs: Any) -> Any:
        """Call the method; a ref at once (a list for num_returns > 1, None for 0)."""
        return self._handle._call(self._name, self._options, args, kwargs)

    def batch(self, calls: Iterable[tuple[Any, ...] | Delayed]) -> list[ObjectRef[Any]]:
        """Many calls of the method for little more than the price of one; a ref for each, in order.

        Each is a tuple of arguments, or what `delay(...)` gives. They run one after the other (on an async actor: at
        once), up to 128 by one message, and each has its own value or error. A ref that is an argument arrives as its
        value; the calls of a message wait for all of theirs. Cancelling one cancels all that are not over of its
        message. Raises TypeError for arguments that do not fit, ValueError for num_returns and release.
        """
        return batching.submit(self._handle, self._name, self._options, calls)

    def delay(self, *args: Any, **kwargs: Any) -> Delayed:
        """A call for `batch(...)`."""
        return Delayed(self._name, args, kwargs)

    def bind(self, *args: Any, **kwargs: Any) -> BoundCall:
        """Write a call down without making it, as `RemoteFunction.bind` does."""
        return BoundCall(self, args, kwargs)

    def options(self, **options: Any) -> ActorMethod:
        """The same method with other options."""
        opts.check_method_options(options)
        batching.check_override(options)
        grouping.check_group(options.get("concurrency_group"), self._handle._facts[6], self._name)
        return ActorMethod(self._handle, self._name, {**self._options, **options})

    if not TYPE_CHECKING:  # as above

        def __call__(self, *_args: Any, **_kwargs: Any) -> Any:
            raise TypeError(f"{self._name} is an actor's method: call {self._name}.remote(...)")

    def getdoc(self) -> str:
        """What `handle.method?` shows in a notebook: IPython asks for it by this name."""
        signature = self._handle._signatures.get(self._name)
        return signature.help() if signature is not None else f"{self._handle._facts[1]}.{self._name}(...)"

    def __repr__(self) -> str:
        return f"<ActorMethod {self._name} of {self._handle!r}>"


Facts = tuple[bytes, str, bool, dict[str, dict[str, Any]], int, int, tuple[str, ...]]
"""(actor id, class name, ordered, methods, max_task_retries, max_pending_calls, concurrency groups)."""


class ActorHandle(Generic[T]):
    """A living or future actor, by reference. Picklable; equal by actor id.

    When the last strong handle anywhere is gone, the actor finishes its queued calls and ends. Handles from
    `get_actor` and an actor's handle to itself are weak.
    """

    __slots__ = ("__weakref__", "_facts", "_lifeline", "_signatures", "_templates")

    def __init__(self, facts: Facts, lifeline: ObjectRef[Any] | None) -> None:
        self._facts = facts
        self._lifeline = lifeline
        self._templates: dict[Any, Template] = {}
        self._signatures: dict[str, Signature] = {}

    def __getattr__(self, name: str) -> Any:
        options = self._facts[3].get(name)
        if options is None:
            if name == "close":  # here, so that a class's own close() goes before
                return functools.partial(close, self)
            if name not in _SPECIAL:
                known = ", ".join(sorted(self._facts[3]))
                text = f"{self._facts[1]} has no method {name!r}; it has {known}"
                raise AttributeError(f"{text} (an actor keeps the class that it was made of)")
            options = {}
        return ActorMethod(self, name, options)

    def __dir__(self) -> list[str]:
        return [*{*super().__dir__(), *self._facts[3], "close"}]  # for completion by the tab key

    def _call(self, name: str, options: dict[str, Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        signature = self._signatures.get(name)
        if signature is not None:
            signature.check(args, kwargs)
        actor_id, class_name, ordered, _, _, limit, _ = self._facts
        seat = client()
        if limit > 0 and name not in _SPECIAL:
            self._check_backlog(seat)
        template = self._templates.get(name)
        if template is None or options is not self._facts[3].get(name):
            template = self._template(name, options)
        lifeline = self._lifeline._entry if self._lifeline is not None else Entry(b"", 0)
        entries = submit_actor_call(seat, template, (actor_id, class_name, ordered), lifeline, args, kwargs).entries
        return ObjectRef(entries[0]) if len(entries) == 1 else several(entries)

    def _check_backlog(self, seat: Client) -> None:
        peer = seat.tasks.peers.get(self._facts[0])
        if peer is not None and peer.backlog() >= self._facts[5]:
            raise PendingCallsLimitError(
                f"{self._facts[1]} has {self._facts[5]} calls of yours unanswered (max_pending_calls); wait for some "
                "first"
            )

    def _template(self, name: str, options: dict[str, Any]) -> Template:
        target, own = _SPECIAL.get(name, name) + method_shown(options, name), self._facts[3].get(name)
        target += RELEASE if options.get("release") else ""
        group = options.get("concurrency_group")
        if own is not options and group != (own or {}).get("concurrency_group"):
            target += MARK + (group or "")
        template = Template(f"{self._facts[1]}.{options.get('name') or name}", target, Shape())
        note_returns(template, options, options.get("num_returns") == "streaming")
        retries = options.get("max_task_retries")
        template.max_retries = self._facts[4] if retries is None else retries
        if _SPECIAL.get(name) == "__zmreg_terminate__":  # an actor that crashed meanwhile is to end when it is back
            template.max_retries = -1
        template.retry_exceptions = opts.exceptions_of(options.get("retry_exceptions"))
        if options is self._facts[3].get(name) or name in _SPECIAL:
            self._templates[name] = template
        return template

    def __enter__(self) -> ActorHandle[T]:
        return self

    def __exit__(self, *_: object) -> None:
        close(self)

    @property
    def _actor_id(self) -> bytes:
        return self._facts[0]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ActorHandle) and self._facts[0] == other._facts[0]

    def __hash__(self) -> int:
        return hash(self._facts[0])

    def __reduce__(self) -> tuple[Any, ...]:
        return ActorHandle, (self._facts, self._lifeline)

    def __repr__(self) -> str:
        return f"<ActorHandle[{self._facts[1]}] {self._facts[0][-4:].hex()}>"

    def _repr_html_(self) -> str:
        from zmreg.api.look import of_actor  # late: for notebooks alone

        return of_actor(self)


_AMOUNTS = ("num_cpus", "num_gpus", "memory")


class ActorClass(Generic[T_co]):
    """A class whose instances live on workers. Made by `@zmreg.remote`."""

    def __init__(self, cls: type[T_co], options: dict[str, Any]) -> None:
        self._cls = cls
        self._options = options
        self._methods = methods_of(cls)
        if (limit := options.get(BACKPRESSURE)) is not None:
            for own in self._methods.values():
                own.setdefault(BACKPRESSURE, limit)
        if (cap := options.get(ACTOR_BACKPRESSURE)) is not None:
            for own in self._methods.values():
                own[ACTOR_BACKPRESSURE] = cap
        grouping.check_class(cls, self._methods, options)
        self._signature = Signature(cls, cls.__name__)
        self._signatures = {
            name: Signature(member, f"{cls.__name__}.{name}", bound=not _is_static(cls, name))
            for name, member in inspect.getmembers(cls, callable)
            if name in self._methods
        }
        self.__name__ = cls.__name__
        self.__qualname__ = cls.__qualname__
        self.__module__ = cls.__module__
        self.__doc__ = cls.__doc__
        self.__wrapped__ = cls

    def remote(self, *args: Any, **kwargs: Any) -> ActorHandle[T_co]:
        """Create an actor; returns a handle at once, the constructor runs later.

        Raises TypeError for arguments that do not fit, ActorExistsError (a ValueError) for a name that is taken.
        """
        self._signature.check(args, kwargs)
        options = self._options
        seat = client()
        namespace = options.get("namespace") or seat.namespace
        if options.get("get_if_exists"):
            found = get_actor_or_none(options["name"], namespace)
            if found is not None:
                return found
        ordered = grouping.is_ordered(self._cls, options)
        shape = {name: options.get(name) for name in _AMOUNTS} | {"resources": opts.resources_of(options)}
        strategy, terms = strategy_of(options.get("scheduling_strategy")), opts.terms_of(options)
        place, hold = actor_shapes(**shape, locs=options.get("locs") or (), strategy=strategy, terms=terms)
        holds_all = hold == place
        place, env = settled(seat, place, options)
        if holds_all:  # in its group the amounts have other names
            hold = place
        order = ActorOrder(
            name=options.get("name") or "",
            namespace=namespace,
            class_name=self._cls.__name__,
            place=place,
            hold=hold,
            max_restarts=options.get("max_restarts", 0),
            detached=options.get("lifetime") == "detached",
            max_concurrency=options.get("max_concurrency") or 0,
            ordered=ordered,
            facts=(
                self._methods,
                options.get("max_task_retries", 0),
                options.get("max_pending_calls", -1),
                tuple(options.get("concurrency_groups") or ()),
            ),
        )
        try:
            shipped = mannered(grouping.grouped(self._cls, self._methods, options), options, self._cls.__name__)
            lifeline = create_actor(seat, equipped(shipped, env), order, args, kwargs)
        except ValueError:
            found = get_actor_or_none(options["name"], namespace) if options.get("get_if_exists") else None
            if found is None:
                raise
            return found
        facts = (lifeline.object_id, self._cls.__name__, ordered, *order.facts)
        handle: ActorHandle[T_co] = ActorHandle(facts, ObjectRef(lifeline))
        handle._signatures = self._signatures
        return handle

    if TYPE_CHECKING and not MYPY:  # by the type of `self`, for pyright

        def remote(self: ActorClass[Built[P]], *args: P.args, **kwargs: P.kwargs) -> ActorHandle[T_co]: ...

    def options(self, **options: Any) -> ActorClass[T_co]:
        """The same class with other options; the original stays as it is."""
        if "concurrency_groups" in options:
            raise ValueError(
                "concurrency_groups belong to the class: @zmreg.remote(concurrency_groups={...}), not options(...)"
            )
        options = opts.owned(options)
        opts.check_actor_options(options)
        return ActorClass(self._cls, {**self._options, **options})

    if not TYPE_CHECKING:  # so that checkers complain of the call before Python does

        def __call__(self, *_args: Any, **_kwargs: Any) -> Any:
            raise TypeError(f"{self.__name__} is an actor class: create one with {self.__name__}.remote(...)")

        def __getattr__(self, name: str) -> Any:
            if name == "__ray_metadata__":  # Ray's way to the plain class, which is `__wrapped__`
                return SimpleNamespace(modified_class=self.__wrapped__)
            more = ": create an actor with .remote(...), and bind its methods" if name == "bind" else ""
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}{more}")

    def __mro_entries__(self, _bases: tuple[Any, ...]) -> tuple[type, ...]:
        raise TypeError(
            f"{self.__name__} is an actor class and cannot be subclassed; subclass the plain class and decorate that: "
            f"class B({self.__name__}.__wrapped__), then zmreg.remote(B)"
        )

    def __reduce__(self) -> tuple[Any, ...]:
        return ActorClass, (self._cls, portable(self._options))

    def __repr__(self) -> str:
        return f"<ActorClass {self.__name__}>"


if TYPE_CHECKING:

    class ActorMaker(ActorClass[T_co], Generic[P, T_co]):
        """How mypy sees an actor class that it has met as a class, with its constructor's parameters."""

        def remote(self, *args: P.args, **kwargs: P.kwargs) -> ActorHandle[T_co]: ...
        def options(self, **options: Any) -> ActorMaker[P, T_co]: ...


def methods_of(cls: type) -> dict[str, dict[str, Any]]:
    """{name: options} of everything that can be called on an instance."""
    found = {}
    for name, member in inspect.getmembers(cls, callable):
        if not (name.startswith("__") and name.endswith("__")) or name == "__call__":
            if name == "__call__" and "__call__" not in {key for base in cls.__mro__ for key in vars(base)}:
                continue
            own = found[name] = dict(options_of(member))
            if streams(member, own):
                own["num_returns"] = "streaming"
    return found


def _is_static(cls: type, name: str) -> bool:
    return isinstance(inspect.getattr_static(cls, name), (staticmethod, classmethod, type))


def get_actor_or_none(name: str, namespace: str) -> ActorHandle[Any] | None:
    """A weak handle to a named actor, if it lives."""
    facts = find_actor(client(), name, namespace)
    return None if facts is None else ActorHandle(facts, None)


def get_actor(name: str, namespace: str | None = None) -> ActorHandle[Any]:
    """The actor of that name in this namespace, by a weak handle. ValueError when there is none."""
    if not isinstance(name, str) or not name:
        raise ValueError(f"an actor's name is a string that is not empty, not {name!r}")
    if not isinstance(namespace, (str, type(None))):
        raise TypeError(f"namespace={namespace!r:.80}: a text is needed, or None for this program's own")
    space = client().namespace if namespace is None else namespace
    found = get_actor_or_none(name, space)
    if found is None:
        raise ValueError(f"there is no actor named {name!r} in namespace {space!r}: not created yet, or ended")
    return found


def close(handle: ActorHandle[Any], timeout: float | None = None) -> None:
    """End an actor in peace and wait until its process is gone; kill it when it has not ended within `timeout` seconds.

    A sync actor first answers what this process has called before; a threaded or async one ends between its calls.
    Also as `handle.close(timeout)` where the class has no method of that name, and at the end of `with handle:`.
    """
    check_seconds(timeout, past=True)
    try:
        handle.__ray_terminate__.remote().exception(timeout)
    except GetTimeoutError:
        kill(handle)


def kill(handle: ActorHandle[Any], *, no_restart: bool = True) -> None:
    """End an actor at once: running calls fail, atexit is not run. `no_restart=False` restarts within its budget.

    Raises ValueError for anything but a handle.
    """
    if not isinstance(handle, ActorHandle):
        raise ValueError(f"zmreg.kill takes an actor handle, not a {type(handle).__name__}; use zmreg.cancel for a ref")
    kill_actor(client(), handle._actor_id, no_restart)
