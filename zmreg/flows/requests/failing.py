"""What the error of a request carries: where it failed, with what, what there was by then, how to see it again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from zmreg.api.flight import code_of
from zmreg.api.refs import ObjectRef
from zmreg.core.binding import Template
from zmreg.core.fields import follow
from zmreg.core.graphs import Plan
from zmreg.flows.requests.telling import previews
from zmreg.flows.requests.trace import Results, Trace
from zmreg.model.function_messages import FunctionRow
from zmreg.model.graphs import Path


class Reproduction:
    """Calls what failed once more, in this process and with the very arguments it had; `error.reproduce()`.

    They are fetched then, and the function's code from a process that serves it. The arguments live as long as this.
    """

    def __init__(self, step: str, template: Template, values: dict[str, ObjectRef[Any]]) -> None:
        self.step = step
        self._template = template
        self._values = values
        self._function: Callable[..., Any] | FunctionRow | None = None

    def by(self, function: Callable[..., Any] | FunctionRow | None) -> Reproduction:
        """What is called: a function that is here, or the row of one that somebody serves."""
        self._function = function
        return self

    def arguments(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """(args, kwargs) as the function had them. Raises ObjectLostError, FieldError."""
        uses = self._template.uses
        return self._template.fill([follow(self._values[use.step].get(copy=True), use.path, use.step) for use in uses])

    def function(self) -> Callable[..., Any]:
        """What failed. Raises FunctionNotFoundError when nobody serves it any more, SerializationError."""
        found = self._function
        if found is None:
            raise ValueError(f"step {self.step!r} was not called: there is nothing to reproduce")
        return code_of(found) if isinstance(found, FunctionRow) else found

    def __call__(self, debug: bool = False) -> Any:
        """Its value, should it not fail here. `debug`: when it raises, a debugger opens where it did."""
        function = self.function()
        args, kwargs = self.arguments()
        try:
            result = function(*args, **kwargs)
            if hasattr(result, "__await__"):
                import asyncio

                result = asyncio.run(_awaited(result))
        except Exception as error:
            if debug:
                import pdb

                pdb.post_mortem(error.__traceback__)
            raise
        return result

    def __repr__(self) -> str:
        return f"<Reproduction of step {self.step!r}>"


async def _awaited(result: Any) -> Any:
    return await result


class Failure:
    """Makes the error that a request raises of the one it failed with."""

    def __init__(self, plan: Plan, request_id: str, trace: Trace | None, has_levels: bool) -> None:
        self._plan = plan
        self._request_id = request_id
        self._trace = trace
        self._has_levels = has_levels

    def dressed(
        self, error: BaseException, step: str, node: str, values: dict[str, ObjectRef[Any]],
        called: Callable[..., Any] | FunctionRow | None,
    ) -> BaseException:  # fmt: skip
        """`step`: the one that failed first, or "". `values`: {step: ref} of what was done and is still there."""
        cause = getattr(error, "cause", None)
        if isinstance(cause, BaseException) and error.__cause__ is None:
            error.__cause__ = cause
        facts = {**self._past(), "request_id": self._request_id, "step": step, "node": node}
        facts["level_index"] = self._plan.depth.get(step)
        facts["arg_previews"] = {}
        if step:
            template = self._plan.templates[step]
            inputs = {use.step: values[use.step] for use in template.uses if use.step in values}
            facts["arg_previews"] = previews(
                self._plan, step, lambda other, path: _shown(inputs.get(other), path, other)
            )
            facts["reproduce"] = Reproduction(step, template, inputs).by(called)
            where = f" on node {node}" if node else ""
            self._note(error, f"(step {step!r} of request {self._request_id}{where}; err.reproduce() calls it here)")
        error.__dict__.update(facts)  # past a __setattr__ that refuses (frozen dataclass as exception)
        return error

    def _past(self) -> dict[str, Any]:
        if self._trace is None or not self._has_levels:
            return {"intermediate_results": (), "partial": Results({})}
        past = self._trace.past()
        return {"intermediate_results": past.intermediate_results, "partial": past.partial}

    def _note(self, error: BaseException, text: str) -> None:
        error.__dict__["__notes__"] = [*error.__dict__.get("__notes__", ()), text]


class _Words:
    """Stands in a preview for a value that is not here."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __repr__(self) -> str:
        return self._text


def _shown(ref: ObjectRef[Any] | None, path: Path, step: str) -> object:
    if ref is None:
        return _Words(f"<value of step {step!r}>")
    meta = ref.meta
    if meta.state != "inline":
        return _Words(f"<{''.join((step, *map(str, path)))}: {meta.type_name or 'value'} of {meta.nbytes} bytes>")
    try:
        return follow(ref.get(), path, step)
    except Exception as error:  # noqa: BLE001  a preview is no place to fail in
        return _Words(f"<{step}: {error}>")
