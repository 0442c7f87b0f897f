"""Many calls of one method as one call: one row there, one row back, and each with a value or an error of its own.

The arguments of all travel side by side, so that a ref among them arrives as its value, as in any call: a shape, then
all arguments in turn. The shape is the number of arguments of each call when all are alike and none is named; else a
list with one [number of positional ones, names of the others] a call.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final

from zmreg.services.worker.execute import Outcomes

BATCH: Final = "\0*"
"""Behind a method's name."""

Arguments = tuple[tuple[Any, ...], dict[str, Any]]
Shape = int | list[list[Any]]


def flat(calls: Sequence[Arguments]) -> tuple[Any, ...]:
    """(shape, arguments of all)."""
    count = len(calls[0][0])
    if all(not kwargs and len(args) == count for args, kwargs in calls):
        shape: Shape = count
    else:
        shape = [[len(args), *kwargs] for args, kwargs in calls]
    return (shape, len(calls), *(value for args, kwargs in calls for value in (*args, *kwargs.values())))


def unflat(shape: Shape, number: int, values: Sequence[Any]) -> Iterator[Arguments]:
    """The arguments of each call."""
    at = 0
    for index in range(number):
        count, *names = (shape,) if isinstance(shape, int) else shape[index]
        args, at = tuple(values[at : at + count]), at + count
        kwargs, at = dict(zip(names, values[at:], strict=False)) if names else {}, at + len(names)
        yield args, kwargs


def in_turn(method: Callable[..., Any]) -> Callable[..., Any]:
    """Run the calls one after the other on this thread."""

    def run(shape: Shape, number: int, *values: Any) -> Outcomes:
        calls = unflat(shape, number, values)
        each: list[tuple[bool, Any]] = []
        for args, kwargs in calls:
            try:
                each.append((True, method(*args, **kwargs)))
            except Exception as error:  # noqa: BLE001  this call's error, and no other's
                each.append((False, error))
        return Outcomes(each)

    run.__qualname__ = getattr(method, "__qualname__", "method")
    return run


def at_once(method: Callable[..., Any], many: Callable[..., Any]) -> Callable[..., Any]:
    """Have `many` do it: it takes a list with a tuple of arguments for each call, and returns a value for each.

    An exception among the values is that call's error.
    """

    name = getattr(many, "__qualname__", "method")

    def run(shape: Shape, number: int, *values: Any) -> Outcomes:
        return outcomes_of(name, number, many(tuples(method, shape, number, values)))

    run.__qualname__ = name
    return run


def tuples(method: Callable[..., Any], shape: Shape, number: int, values: Sequence[Any]) -> list[tuple[Any, ...]]:
    """The arguments of each call as a tuple, named ones and defaults in their places. TypeError for what has none."""
    signature = inspect.signature(method)
    calls = []
    for args, kwargs in unflat(shape, number, values):
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        if bound.kwargs:
            raise TypeError(f"{', '.join(bound.kwargs)} goes by name only, and here each call is a tuple of arguments")
        calls.append(bound.args)
    return calls


def outcomes_of(name: str, number: int, given: Iterable[Any]) -> Outcomes:
    """What a method that does many calls at once has returned."""
    each = list(given)
    if len(each) != number:
        raise ValueError(f"{name} was given {number} calls and returned {len(each)} values")
    return Outcomes([(not isinstance(value, Exception), value) for value in each])
