"""Finding what in a value cannot be pickled, so that the error can name the path to it."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from types import CodeType, FunctionType, MethodType
from typing import Final

from zmreg.model.record import Record

# 400 attempts of pickling, 12 levels: finds the culprit in any real argument within milliseconds, and ends on all.
MAX_ATTEMPTS: Final = 400
MAX_DEPTH: Final = 12

# How many children of one container are looked at: a list of a million bad items names the first.
MAX_CHILDREN: Final = 100


class Culprit(Record):
    """The innermost thing that does not pickle: `path` from the value to it, and what it is."""

    path: str
    type_name: str


def find_culprit(value: object, pickles: Callable[[object], bool]) -> Culprit:
    """Descend from `value`, known not to pickle, to its innermost part that does not either.

    `pickles` tells whether something can be pickled on its own; it is called at most MAX_ATTEMPTS times.
    """
    path, seen, attempts = "value", {id(value)}, 0
    for _ in range(MAX_DEPTH):
        deeper = None
        for step, child in _first(MAX_CHILDREN, _children(value)):
            if id(child) in seen or attempts >= MAX_ATTEMPTS:
                continue
            attempts += 1
            if not pickles(child):
                deeper = step, child
                break
        if deeper is None:
            break
        path += deeper[0]
        value = deeper[1]
        seen.add(id(value))
    return Culprit(path, type_label(type(value)))


def type_label(cls: type) -> str:
    """`module.name`, or the name alone for built-ins."""
    return cls.__qualname__ if cls.__module__ == "builtins" else f"{cls.__module__}.{cls.__qualname__}"


def _first(count: int, children: Iterator[tuple[str, object]]) -> Iterator[tuple[str, object]]:
    for _, child in zip(range(count), children):  # noqa: B905  the shorter one ends it, that is the point
        yield child


def _children(value: object) -> Iterator[tuple[str, object]]:
    """(how to write the step, the part) for everything a pickle of `value` would contain."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield f"[{_short(key)}]", item
            yield f" key {_short(key)}", key
    elif isinstance(value, (list, tuple)):
        yield from ((f"[{index}]", item) for index, item in enumerate(value))
    elif isinstance(value, (set, frozenset)):
        yield from ((f" element {_short(item)}", item) for item in value)
    elif isinstance(value, FunctionType):
        yield from _function_parts(value)
    elif isinstance(value, MethodType):
        yield ".__self__", value.__self__
        yield ".__func__", value.__func__
    elif isinstance(value, functools.partial):
        yield from ((".func", value.func), (".args", value.args), (".keywords", value.keywords))
    elif isinstance(value, type):
        yield from ((f".{name}", _unwrapped(part)) for name, part in vars(value).items() if not name.startswith("__"))
    yield from _attributes(value)


def _unwrapped(part: object) -> object:
    return part.__func__ if isinstance(part, (staticmethod, classmethod)) else part


def _attributes(value: object) -> Iterator[tuple[str, object]]:
    if isinstance(value, type):
        return
    state = getattr(value, "__dict__", None)
    if isinstance(state, dict):
        yield from ((f".{name}", part) for name, part in state.items())
    for cls in type(value).__mro__:
        slots = vars(cls).get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else tuple(slots):
            if name not in ("__dict__", "__weakref__") and hasattr(value, name):
                yield f".{name}", getattr(value, name)
    if isinstance(value, BaseException):
        yield ".args", value.args


def _function_parts(function: FunctionType) -> Iterator[tuple[str, object]]:
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            yield f" closure variable {name!r}", cell.cell_contents
        except ValueError:
            continue  # a cell not filled yet
    for name in sorted(_global_names(function.__code__)):
        if name in function.__globals__:
            yield f" global {name!r}", function.__globals__[name]
    yield from ((f" default {index}", part) for index, part in enumerate(function.__defaults__ or ()))
    yield from ((f" default {name!r}", part) for name, part in (function.__kwdefaults__ or {}).items())


def _global_names(code: CodeType) -> set[str]:
    """Names the code may look up, its inner functions included; attribute names among them do no harm."""
    names = set(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            names |= _global_names(constant)
    return names


def _short(value: object) -> str:
    try:
        text = repr(value)
    except Exception:  # noqa: BLE001  a foreign __repr__ may raise anything; the path must still be told
        return f"<{type_label(type(value))}>"
    return text if len(text) <= 60 else f"{text[:57]}..."
