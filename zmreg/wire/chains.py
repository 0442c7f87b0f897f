"""Exceptions through a pickler with all that hangs on them: attributes, cause, context, traceback."""

from __future__ import annotations

from types import TracebackType
from typing import Final, cast

from zmreg.model.errors import TaskError, make_task_error
from zmreg.model.exceptions import has_own_pickling, portable, restore_state

State = dict[str, object] | None


def reduce_exception(error: BaseException) -> str | tuple[object, ...]:
    """For a pickler: how to make `error` again, with cause, context and traceback, which plain pickle loses.

    They come as state, after the instance exists, so that a cycle in a chain does no harm.
    """
    chain = (error.__cause__, error.__context__, error.__suppress_context__, error.__traceback__)
    if isinstance(error, TaskError):
        state = {name: part for name, part in error.__dict__.items() if name not in ("_origin", "_cause")}
        return make_task_error, (error.origin, error.cause), (state, chain), None, None, restore_exception
    if not has_own_pickling(type(error)):
        make, (cls, args, fields, inner) = portable(error)
        return make, (cls, args, fields, {}), (inner, chain), None, None, restore_exception
    reduced = error.__reduce_ex__(5)
    if isinstance(reduced, str):
        return reduced  # the name of a global
    make, made_from, *rest = reduced
    return make, made_from, (rest[0] if rest else None, chain), None, None, restore_exception


def restore_exception(error: BaseException, state: tuple[State, tuple[object, ...]]) -> None:
    """Give an instance just made its attributes and its chain."""
    inner, (cause, context, suppress, trace) = state
    if inner is not None:
        own = getattr(type(error), "__setstate__", None) if has_own_pickling(type(error)) else None
        if own is not None:
            own(error, inner)
        else:
            restore_state(error, inner)
    # BaseException's own setters, past a __setattr__ that refuses (frozen dataclass as exception).
    for name, part in (("__cause__", cause), ("__context__", context), ("__traceback__", trace)):
        BaseException.__setattr__(error, name, part)
    BaseException.__setattr__(error, "__suppress_context__", suppress)


# Deep recursion leaves a thousand frames. The first 20 say where it began, the last 40 where it ended.
_FIRST_FRAMES: Final = 20
_LAST_FRAMES: Final = 40


def shortened(trace: TracebackType) -> TracebackType:
    """A traceback without its middle, when it is long; itself otherwise."""
    links: list[TracebackType] = []
    link: TracebackType | None = trace
    while link is not None:
        links.append(link)
        link = link.tb_next
    if len(links) > _FIRST_FRAMES + _LAST_FRAMES:
        links = links[:_FIRST_FRAMES] + links[-_LAST_FRAMES:]
        for old in reversed(links):
            link = TracebackType(link, old.tb_frame, old.tb_lasti, old.tb_lineno)
        trace = cast(TracebackType, link)
    return trace
