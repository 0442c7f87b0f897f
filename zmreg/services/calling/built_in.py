"""`echo` and `echos`, which every node can be called for: they run as ordinary tasks, and nobody has to serve them."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, Final

from zmreg.core.binding import filled
from zmreg.core.functions import Wanted
from zmreg.model.errors import NoRouteError
from zmreg.model.function_messages import FunctionRow
from zmreg.model.specs import Shape
from zmreg.services.calling.calls import Template
from zmreg.services.calling.submit import define
from zmreg.services.seat.client import Client


def echo(x: Any) -> Any:
    """Its argument, as it came."""
    return x


def echos(*args: Any) -> list[Any]:
    """Its arguments, as a list."""
    return list(args)


BUILT_IN: Final[dict[str, Callable[..., Any]]] = {"echo": echo, "echos": echos}


# What is shipped is by name: each in a function of its own.
def _echo(*args: Any, **kwargs: Any) -> Any:
    args, kwargs = filled(args, kwargs)  # type: ignore[assignment]
    return echo(*args, **kwargs)


def _echos(*args: Any, **kwargs: Any) -> list[Any]:
    args, kwargs = filled(args, kwargs)  # type: ignore[assignment]
    return echos(*args, **kwargs)


_SHIPPED: Final[dict[str, Callable[..., Any]]] = {"echo": _echo, "echos": _echos}


class BuiltIn:
    """The built-in functions as one process calls them."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._templates: dict[tuple[str, tuple[str, ...]], Template] = {}
        self._found: set[tuple[str, ...]] = {()}
        """Sets of locs that a living node was seen to have."""

    def look(self, wanted: Wanted) -> FunctionRow | None:
        """One that may be called, or None: no such name. Asks the node when there are locs it has not seen together.

        Raises NoRouteError when no node has all locs, or a version is asked for. Not under the client's lock.
        """
        if wanted.name not in BUILT_IN:
            return None
        if wanted.version:
            raise NoRouteError(
                f"nobody can be called for {wanted.name!r} with version {wanted.version!r}: it is built in, without one"
            )
        if wanted.locs not in self._found:
            nodes = [row for row in self._client.ask("nodes") if row["Alive"]]
            if not any(set(wanted.locs).issubset(row["Locs"]) for row in nodes):
                missing = ", ".join(map(repr, wanted.locs))
                raise NoRouteError(
                    f"nobody can be called for {wanted.name!r} with locs {missing}: no node has them all"
                )
            self._found.add(wanted.locs)
        return self.row(wanted)

    def row(self, wanted: Wanted) -> FunctionRow | None:
        """The same by what is known already; None also when the node would have to be asked."""
        function = BUILT_IN.get(wanted.name)
        if function is None or wanted.version or wanted.locs not in self._found:
            return None
        return row_of(wanted.name, self._client.node)

    def template(self, wanted: Wanted) -> Template:
        """How it is submitted: a task that takes no CPU, on a node with the locs."""
        key = (wanted.name, wanted.locs)
        template = self._templates.get(key)
        if template is None:
            digest, blob, captured = define(self._client, _SHIPPED[wanted.name])
            template = self._templates[key] = Template(wanted.name, digest, Shape.of(0, locs=wanted.locs))
            template.blob, template.contained, template.max_retries = blob, captured, 3
            self._client.tasks.templates[digest] = template
        return template


def row_of(name: str, node: bytes, node_name: str = "", locs: tuple[str, ...] = ()) -> FunctionRow:
    """A built-in function at one node, as if that had registered it."""
    function = BUILT_IN[name]
    signature, doc = str(inspect.signature(function)), inspect.getdoc(function) or ""
    return FunctionRow(name, "", node, node_name=node_name, node_locs=locs, signature=signature, doc=doc)
