"""`ray.util.check_serialize`: which part of a value cannot be sent."""

from __future__ import annotations

import inspect
from typing import Any, NamedTuple

import zmreg


class FailureTuple(NamedTuple):
    """A part that cannot be sent: itself, its name, and what has it."""

    obj: Any
    name: str
    parent: Any


def inspect_serializability(
    base_obj: Any, name: str | None = None, depth: int = 3, print_file: Any = None
) -> tuple[bool, set[FailureTuple]]:
    """(Whether `base_obj` can be sent, the innermost parts that cannot), looked for in what functions close over and in
    attributes, `depth` levels deep; printed, too."""
    named = name or getattr(base_obj, "__name__", None) or type(base_obj).__name__
    failures: list[FailureTuple] = []
    error = _refused(base_obj)
    if error is not None:
        _search(base_obj, named, None, depth, failures)
    print(f"{named!r} can be sent" if error is None else f"{named!r} cannot be sent: {error}", file=print_file)
    for part in failures:
        print(f"  {part.name}: {part.obj!r:.80}, of {part.parent!r:.80}", file=print_file)
    return error is None, set(failures)


def _refused(value: Any) -> TypeError | None:
    try:
        if inspect.isfunction(value) or inspect.isclass(value):
            zmreg.put((value,))
        else:
            zmreg.put(value)
    except TypeError as error:
        return error
    return None


def _search(value: Any, name: str, parent: Any, depth: int, failures: list[FailureTuple]) -> None:
    """Go down to the parts that are refused by themselves."""
    found = False
    for inner_name, inner in _parts(value) if depth > 0 else ():
        if _refused(inner) is not None:
            found = True
            _search(inner, inner_name, value, depth - 1, failures)
    if not found:
        failures.append(FailureTuple(value, name, parent))


def _parts(value: Any) -> list[tuple[str, Any]]:
    if inspect.isfunction(value):
        closed = inspect.getclosurevars(value)
        return [*closed.globals.items(), *closed.nonlocals.items()]
    if inspect.isclass(value):
        return [(name, each) for name, each in vars(value).items() if inspect.isfunction(each)]
    return list(getattr(value, "__dict__", {}).items())


__all__ = ["FailureTuple", "inspect_serializability"]
