"""Remote functions: `@zmreg.remote` on a function, `.remote(...)`, `.options(...)`."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, Protocol, TypeVar, cast

from zmreg.api import options as opts
from zmreg.api.environments import portable, settled
from zmreg.api.refs import ObjectRef
from zmreg.api.streams import ObjectRefGenerator, note_returns, streams
from zmreg.model.specs import ENV
from zmreg.services.calling.advice import PROJECTION
from zmreg.services.calling.calls import Template
from zmreg.services.calling.limits import limited
from zmreg.services.calling.manners import manner_of, written
from zmreg.services.calling.streaming import StreamEntry
from zmreg.services.calling.submit import define, submit_task
from zmreg.services.seat.client import Client
from zmreg.services.seat.seats import client
from zmreg.services.worker.environments import Equipped

P = ParamSpec("P")
R = TypeVar("R")


class Signature:
    """Whether arguments fit a function, asked on every call: the usual case is two comparisons."""

    __slots__ = ("_doc", "_least", "_most", "_name", "_signature")

    def __init__(self, function: Callable[..., Any], name: str, bound: bool = False) -> None:
        """`bound`: the first parameter (self) is not the caller's to give."""
        self._name = name
        self._doc = function.__doc__
        try:
            signature = inspect.signature(function)
        except (TypeError, ValueError):  # builtins without a signature: the worker will tell
            self._signature: inspect.Signature | None = None
            self._least, self._most = 0, 1 << 30
            return
        parameters = list(signature.parameters.values())
        if bound:
            parameters = parameters[1:]
            signature = signature.replace(parameters=parameters)
        self._signature = signature
        positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
        only_names = any(p.kind is p.KEYWORD_ONLY and p.default is p.empty for p in parameters)
        self._least = sum(p.default is p.empty for p in positional)
        self._most = 1 << 30 if any(p.kind is p.VAR_POSITIONAL for p in parameters) else len(positional)
        if only_names:  # never by the short way
            self._least, self._most = 1, 0

    def check(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """TypeError as calling the function would raise it."""
        if kwargs or not self._least <= len(args) <= self._most:
            if self._signature is None:
                return
            try:
                self._signature.bind(*args, **kwargs)
            except TypeError as error:
                raise TypeError(f"{self._name}(): {error}; its parameters are {self._signature}") from None

    def help(self) -> str:
        """How it is called and what its docstring says."""
        return f"{self._name}{self._signature or '(...)'}\n\n{inspect.cleandoc(self._doc or '')}".rstrip()


class Body:
    """What a remote function and its twins made by `options()` share: signature and pickled form, each made once."""

    __slots__ = ("_client", "_env", "_max_calls", "_shipped", "function", "latest", "signature")

    def __init__(self, function: Callable[..., Any], max_calls: int) -> None:
        self.function = function
        self._max_calls = max_calls
        self.signature = Signature(function, getattr(function, "__name__", "function"))
        self.latest: Template | None = None
        """Whoever comes next starts from its measured duration."""
        self._client: Client | None = None
        self._env = ""
        self._shipped: tuple[bytes, bytes, tuple[Any, ...]] = (b"", b"", ())

    def template(self, seat: Client, name: str, options: dict[str, Any]) -> Template:
        """How the function is called with these options. Raises SerializationError."""
        shape, env = settled(seat, opts.shape_of(options), options)
        if self._client is not seat or self._env != env.key:
            shipped = limited(self.function, 0 if env.process else self._max_calls)
            shipment = self._shipped = define(seat, Equipped(shipped, env) if env.key else shipped)
            self._client, self._env = seat, env.key
        else:
            shipment = self._shipped
        digest, blob, captured = shipment
        target = digest + written(manner_of(options, getattr(self.function, "__name__", "")))
        template = Template(name, target, shape.with_terms({ENV: env.key}) if env.key else shape)
        template.blob, template.contained = blob, captured
        note_returns(template, options, streams(self.function, options))
        template.max_retries = opts.max_retries_of(options)
        template.retry_exceptions = opts.exceptions_of(options.get("retry_exceptions", False))
        if self.latest is not None:
            template.est_us = self.latest.est_us
        self.latest = seat.tasks.templates[digest] = template
        return template


class RemoteFunction(Generic[P, R]):
    """A function whose calls run on workers. Made by `@zmreg.remote`."""

    def __init__(self, function: Callable[P, R], options: dict[str, Any], body: Body | None = None) -> None:
        """`body` is given by a twin, which differs in its options only."""
        # First, because it takes over the function's attributes, whatever their names.
        functools.update_wrapper(cast(Any, self), function)
        self._function = function
        self._options = options
        self._name = str(options.get("name") or getattr(function, "__name__", "function"))
        self._body = body or Body(function, opts.max_calls_of(options))
        self._signature = self._body.signature
        self._template: Template | None = None
        self._client: Client | None = None

    def remote(self, /, *args: P.args, **kwargs: P.kwargs) -> ObjectRef[R]:
        """Submit a call; returns a ref at once (a list of refs for num_returns > 1, None for 0).

        Raises TypeError for arguments that do not fit, SerializationError for ones that cannot be sent.
        """
        self._signature.check(args, kwargs)
        seat = client()
        template = self._template
        if template is None or self._client is not seat:
            template = self._body.template(seat, self._name, self._options)
            self._client = None  # between the two, another thread's seat must not take this one's (in-process cluster)
            self._template = template
            self._client = seat
        entries = submit_task(seat, template, args, kwargs).entries
        if len(entries) == 1:
            return ObjectRef(entries[0])
        refs: ObjectRef[R] = several(entries)
        return refs

    def bind(self, *args: Any, **kwargs: Any) -> BoundCall:
        """Write a call down without making it; bound calls among the arguments become its inputs.

        Raises TypeError for arguments that do not fit.
        """
        self._signature.check(args, kwargs)
        return BoundCall(self, args, kwargs)

    def options(self, **options: Any) -> RemoteFunction[P, R]:
        """The same function with other options, for one call or many; the original stays as it is."""
        options = opts.owned(opts.with_policy(options))
        if "max_calls" in options:
            raise ValueError("max_calls belongs to the function: @zmreg.remote(max_calls=...), not options(...)")
        if options.get("cache"):
            raise ValueError("cache belongs to the function: @zmreg.remote(cache=True), not options(cache=True)")
        opts.check_task_options(options)
        both = {**self._options, **options}
        opts.check_process(both)
        return RemoteFunction(self._function, both, self._body)

    if not TYPE_CHECKING:  # so that checkers complain of the call before Python does

        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            raise TypeError(
                f"{self._name} is a remote function: call {self._name}.remote(...), or {self._name}.__wrapped__(...) "
                "to run it here"
            )

    def __reduce__(self) -> tuple[Any, ...]:
        return RemoteFunction, (self._function, portable(self._options))

    def __repr__(self) -> str:
        return f"<RemoteFunction {self._name}>"

    def _repr_html_(self) -> str:
        from zmreg.api.look import of_function  # late: for notebooks alone

        return of_function(self)


if TYPE_CHECKING:

    class GeneratorFunction(RemoteFunction[P, Any], Generic[P, R]):
        """How type checkers see a remote function that is written with `yield`."""

        def remote(self, /, *args: P.args, **kwargs: P.kwargs) -> ObjectRefGenerator[R]:  # type: ignore[override]
            """A generator of refs at once."""


class Remote(Protocol):
    """A remote function, or a method of an actor."""

    _name: str

    def remote(self, *args: Any, **kwargs: Any) -> Any:
        """Make the call."""


class BoundCall:
    """A call that is written down and not made. `.remote()` makes it, and every bound call it depends on, each once."""

    __slots__ = ("_args", "_function", "_kwargs")

    def __init__(self, function: Remote, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._function = function
        self._args = args
        self._kwargs = kwargs

    def remote(self) -> Any:
        """A ref at once, as the function's own `.remote` gives. Calls bound once and used twice run once."""
        made: dict[int, Any] = {}
        stack = [self]
        while stack:  # not by recursion: chains are longer than the stack is deep
            call = stack[-1]
            missing = [each for each in call._inputs() if id(each) not in made]
            stack += missing
            if not missing:
                stack.pop()
                if id(call) not in made:
                    made[id(call)] = call._make(made)
        return made[id(self)]

    def execute(self, *inputs: Any) -> Any:
        """Ray's name for `remote`. TypeError for inputs: what is bound has all it needs."""
        if inputs:
            raise TypeError(
                f"{self!r}.execute() takes no inputs: a graph that has some is a zmreg.Graph (docs/guides/requests.md)"
            )
        return self.remote()

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            compiled = ": graphs are not compiled; a zmreg.Pipeline keeps its actors and a line between them"
            more = compiled if name == "experimental_compile" else ""
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}{more}")

    def _inputs(self) -> list[BoundCall]:
        return [arg for arg in (*self._args, *self._kwargs.values()) if isinstance(arg, BoundCall)]

    def _make(self, made: dict[int, Any]) -> Any:
        args = [made[id(arg)] if isinstance(arg, BoundCall) else arg for arg in self._args]
        kwargs = {name: made[id(arg)] if isinstance(arg, BoundCall) else arg for name, arg in self._kwargs.items()}
        return self._function.remote(*args, **kwargs)

    def __reduce__(self) -> tuple[Any, ...]:
        raise TypeError(f"{self!r} cannot be sent: call .remote() on it, and send the ref")

    def __repr__(self) -> str:
        return f"<BoundCall {self._function._name}>"


def several(entries: tuple[Any, ...]) -> Any:
    """What a call with num_returns != 1 gives: a list of refs, None, or an ObjectRefGenerator."""
    if entries and isinstance(first := entries[0], StreamEntry):
        return ObjectRefGenerator(first)
    return [ObjectRef(entry) for entry in entries] or None


def _pick(value: Any, kind: str, key: Any) -> Any:
    return value[key] if kind == "item" else getattr(value, key)


_project = RemoteFunction(_pick, {"num_cpus": 0, "name": PROJECTION})


def project(ref: ObjectRef[Any], kind: str, key: Any) -> ObjectRef[Any]:
    """A ref to a part of a value: a small task that runs where the value is."""
    return _project.remote(ref, kind, key)
