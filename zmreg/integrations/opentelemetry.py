"""Traces: a span for each call that is made, and one for each time it runs, whose parent the first is.

import zmreg.integrations.opentelemetry
zmreg.integrations.opentelemetry.instrument(setup="my_package.tracing:setup")

Where spans go is the program's to say, by OpenTelemetry's own means: here, and for the workers in `setup`.
"""

from __future__ import annotations

import importlib
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Final

try:
    from opentelemetry.context import Context, attach, detach, get_value, set_value
    from opentelemetry.propagate import extract, inject
    from opentelemetry.trace import Span, SpanKind, Status, StatusCode, TracerProvider, get_current_span, get_tracer
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        f"zmreg.integrations.opentelemetry needs opentelemetry-api ({error}): pip install 'zmreg[otel]', on all nodes",
        name=error.name,
    ) from error

import zmreg

log = logging.getLogger("zmreg.tracing")

_INSIDE: Final = "zmreg-traced-call"
"""In OpenTelemetry's context: what runs is a call that is traced."""


_instrumented = False


def instrument(
    setup: str | Callable[[], object] | None = None, *, tracer_provider: TracerProvider | None = None
) -> None:
    """Trace the calls of this program from now on: tasks, actors and their methods, and calls by name.

    `setup`: what sets up OpenTelemetry in a worker, such as a provider with an exporter: "module:function", or a
    function. It is called once in each worker that runs traced calls, before the first. What it raises is logged there,
    and the worker goes on without it. In this process everything is set up as the program likes; `tracer_provider` is
    for this process alone, instead of the global one. Actors that were made before are not traced.
    Raises RuntimeError when calls are traced already, ValueError and TypeError for a `setup` that is none.
    """
    if isinstance(setup, str):
        module, colon, name = setup.partition(":")
        if not (module and colon and name):
            raise ValueError(f"setup={setup!r} names no function: write 'module:function'")
    elif setup is not None and not callable(setup):
        raise TypeError(f"setup is a function or 'module:function', not {setup!r:.60}")
    global _instrumented
    zmreg.intercept(_Tracing(setup, tracer_provider))
    _instrumented = True


def uninstrument() -> None:
    """Trace no more calls. Those that are under way still are where they run."""
    global _instrumented
    if _instrumented:
        zmreg.intercept(None)
    _instrumented = False


class _Tracing(zmreg.Interceptor):
    def __init__(self, setup: str | Callable[[], object] | None, provider: TracerProvider | None) -> None:
        self._setup = setup
        self._tracer = get_tracer("zmreg", zmreg.__version__, provider)
        self._everything = True
        """Also calls that are made in no span: where `instrument` was called. Elsewhere the worker may run calls that
        are not traced, and theirs are not, either."""

    def __reduce__(self) -> tuple[Any, ...]:
        return _in_worker, (self._setup,)

    def setup(self) -> None:
        """Once in each worker."""
        if self._setup is None:
            return
        try:
            function_of(self._setup)()
        except Exception:
            log.exception("tracing could not be set up in this worker: %r raised", self._setup)

    def submitting(self, call: zmreg.InterceptedCall) -> AbstractContextManager[dict[str, str]] | None:
        """A span of kind PRODUCER; what travels are the headers of OpenTelemetry's propagator."""
        if self._everything or get_value(_INSIDE) or get_current_span().get_span_context().is_valid:
            return self._submitting(call)
        return None

    @contextmanager
    def _submitting(self, call: zmreg.InterceptedCall) -> Iterator[dict[str, str]]:
        with self._tracer.start_as_current_span(
            f"submit {call.name}", kind=SpanKind.PRODUCER, attributes=_attributes(call, "submit", "send")
        ) as span:
            headers: dict[str, str] = {}
            inject(headers)
            yield headers
            if span.is_recording():
                span.set_attributes(_ids(call))

    @contextmanager
    def running(self, call: zmreg.InterceptedCall, carried: Mapping[str, str]) -> Iterator[None]:
        """A span of kind CONSUMER, in the context that came with the call."""
        token = attach(set_value(_INSIDE, True, extract(carried, Context())))
        try:
            attributes = {**_attributes(call, "run", "process"), **_ids(call), "zmreg.attempt": call.attempt}
            if function := _name_of(call.function):
                attributes["code.function.name"] = function
            with self._tracer.start_as_current_span(
                f"run {call.name}", kind=SpanKind.CONSUMER, attributes=attributes,
                record_exception=False, set_status_on_exception=False,
            ) as span:  # fmt: skip
                try:
                    yield
                except BaseException as raised:  # cancelled ones as well
                    _fail(span, raised)
                    raise
        finally:
            detach(token)


def _in_worker(setup: str | Callable[[], object] | None) -> _Tracing:
    tracing = _Tracing(setup, None)
    tracing._everything = False
    return tracing


def function_of(setup: str | Callable[[], object]) -> Callable[[], object]:
    """What "module:function" names. Raises ImportError, AttributeError."""
    if not isinstance(setup, str):
        return setup
    module, _, name = setup.partition(":")
    found: Any = importlib.import_module(module)
    for part in name.split("."):
        found = getattr(found, part)
    return found  # type: ignore[no-any-return]  # what it names is the user's


def _attributes(call: zmreg.InterceptedCall, operation: str, kind: str) -> dict[str, str | int]:
    """By the conventions for messaging, version 1.27 and later."""
    here = zmreg.get_runtime_context()
    return {
        "messaging.system": "zmreg",
        "messaging.operation.name": operation,
        "messaging.operation.type": kind,
        "messaging.destination.name": call.name,
        "messaging.client.id": here.get_worker_id(),
        "zmreg.node_id": here.get_node_id(),
    }


def _ids(call: zmreg.InterceptedCall) -> dict[str, str | int]:
    ids: dict[str, str | int] = {}
    if call.task_id:
        ids["zmreg.task_id"] = ids["messaging.message.id"] = call.task_id
    if call.actor_id:
        ids["zmreg.actor_id"] = call.actor_id
        ids["zmreg.actor_class"] = call.actor_class
    return ids


def _name_of(function: Callable[..., Any] | None) -> str:
    """With its module; of a class, its constructor's."""
    name, module = getattr(function, "__qualname__", ""), getattr(function, "__module__", None)
    if isinstance(function, type):
        name += ".__init__"
    return f"{module}.{name}" if name and module else name


def _fail(span: Span, error: BaseException) -> None:
    if span.is_recording():
        span.record_exception(error)
        span.set_attribute("error.type", f"{type(error).__module__}.{type(error).__qualname__}")
        span.set_status(Status(StatusCode.ERROR, f"{type(error).__name__}: {error}"))
