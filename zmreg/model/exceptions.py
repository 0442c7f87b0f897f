"""Taking exceptions of any class apart and putting them together again, without calling the user's `__init__`.

`__init__` often takes other arguments than those it leaves in `args`; unpickling the usual way then raises TypeError,
and the error that mattered is lost. Here the built-in ancestor makes the instance, and all it carried is put back.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from types import GetSetDescriptorType, MemberDescriptorType
from typing import Final, TypeVar, cast

from zmreg.model.record import Record

E = TypeVar("E", bound=BaseException)

# Py_TPFLAGS_HEAPTYPE: unset for the classes that the interpreter itself brings.
_HEAP_TYPE: Final = 1 << 9

# A frame of a traceback: its file and its line.
_PLACE: Final = re.compile(r'  File "([^"]+)", line (\d+), in ')

# Read and written past the user's class, which may have a property of the same name or a __setattr__ that refuses.
_ARGS: Final = cast(GetSetDescriptorType, vars(BaseException)["args"])


class FailureOrigin(Record):
    """Where and how user code failed, as text that every process can read without the user's modules."""

    type_name: str = ""
    text: str = ""
    function: str = ""
    remote_traceback: str = ""
    pid: int = 0
    node_id: str = ""
    notes: tuple[str, ...] = ()
    """How the failure came from there to whoever reads it: tasks that never ran for want of this value."""

    def headline(self) -> str:
        """One line: what was raised, by which function, in which process of which node."""
        where = [f"pid {self.pid}"] if self.pid else []
        where += [f"node {self.node_id}"] if self.node_id else []
        place = f" ({', '.join(where)})" if where else ""
        raised = f"{self.type_name}: {self.text}" if self.text else self.type_name or "an error"
        return f"{raised}\n  raised by {self.function}{place}" if self.function else f"{raised}{place}"


def with_sources(text: str) -> str:
    """A traceback with the source lines that were not known where it was written: those of a notebook's cells, and of a
    program whose files are here alone."""
    lines = text.splitlines()
    told: list[str] = []
    for line, following in zip(lines, [*lines, ""][1:], strict=True):
        told.append(line)
        place = _PLACE.match(line)
        if place is not None and not following.startswith("    "):
            import linecache  # late: it takes 10 ms, and few tracebacks need it

            source = linecache.getline(place[1], int(place[2])).strip()
            told += [f"    {source}"] if source else []
    return "\n".join(told)


def portable(error: BaseException) -> tuple[Callable[..., BaseException], tuple[object, ...]]:
    """How to make `error` again elsewhere, as (function, arguments), without calling the user's `__init__`.

    `__init__` often takes other arguments than those in `args`, and then the usual way of unpickling breaks.
    Chains and the traceback are left out. Only right for classes for which `has_own_pickling` is False.
    """
    return rebuild_exception, (type(error), constructor_args(error), fields_of(error), dict(error.__dict__))


def has_own_pickling(cls: type[BaseException]) -> bool:
    """Whether the class, or an ancestor that is not built in, says itself how its instances are pickled."""
    hooks = ("__reduce__", "__reduce_ex__", "__getstate__", "__setstate__", "__getnewargs__", "__getnewargs_ex__")
    users = (base for base in cls.__mro__ if base.__flags__ & _HEAP_TYPE)
    return any(hook in vars(base) for base in users for hook in hooks)


def is_importable(cls: type) -> bool:
    """Whether plain pickle finds the class again by its name: one that a function has defined it does not."""
    found: object = sys.modules.get(cls.__module__)
    for name in cls.__qualname__.split("."):
        found = getattr(found, name, None)
    return found is cls


def rebuild_exception(cls: type[E], args: tuple[object, ...], fields: dict[str, object], state: dict[str, object]) -> E:
    """An instance of `cls` that carries `args`, `fields` (slots and fields kept in C) and `state` (its `__dict__`).

    Neither `__new__` nor `__init__` of the user's class runs. The built-in ancestor's `__new__` does, because it fills
    what cannot be assigned later (`ExceptionGroup.exceptions`). Raises TypeError or ValueError when that one refuses.
    """
    builtin: type = cls
    # Not by the MRO: instances of a class (MyError, MemoryError) are made by what MyError comes from.
    while builtin.__flags__ & _HEAP_TYPE:
        builtin = cast(type, builtin.__base__)
    error = cast(Callable[..., E], builtin.__new__)(cls, *args)
    descriptors = _descriptors(cls)
    for name, value in fields.items():
        if name in descriptors:
            try:
                descriptors[name].__set__(error, value)
            except (AttributeError, TypeError):
                continue  # read-only: filled by the constructor above
    _ARGS.__set__(error, args)
    restore_state(error, state)
    return error


def restore_state(error: BaseException, state: dict[str, object]) -> None:
    """Give `error` these attributes. A class that travelled by value has lost its slots where it was raised, and what
    this one keeps in slots comes as plain attributes, which its slots would hide."""
    error.__dict__.update(state)
    for base in type(error).__mro__:
        for name in state.keys() & vars(base).keys() if "__slots__" in vars(base) else ():
            if isinstance(slot := vars(base)[name], MemberDescriptorType):
                slot.__set__(error, error.__dict__.pop(name))


def _descriptors(cls: type[BaseException]) -> dict[str, MemberDescriptorType | GetSetDescriptorType]:
    """Slots and fields in C, by name. Names with two underscores are the interpreter's: class, chain, traceback."""
    found: dict[str, MemberDescriptorType | GetSetDescriptorType] = {}
    for base in reversed(cls.__mro__):
        for name, value in vars(base).items():
            if isinstance(value, (MemberDescriptorType, GetSetDescriptorType)) and not name.startswith("__"):
                found[name] = value
    found.pop("args", None)
    return found


def fields_of(error: BaseException) -> dict[str, object]:
    fields: dict[str, object] = {}
    for name, descriptor in _descriptors(type(error)).items():
        if name == "obj" and descriptor.__objclass__ is AttributeError:
            continue  # whose attribute was missing: perhaps gigabytes, and of use for suggestions only
        try:
            value = descriptor.__get__(error)
        except AttributeError:
            continue  # an empty slot
        if value is None and not descriptor.__objclass__.__flags__ & _HEAP_TYPE:
            continue  # unset in C: an OSError whose errno *is set* to None prints "[Errno None]"
        fields[name] = value
    return fields


def constructor_args(error: BaseException) -> tuple[object, ...]:
    if isinstance(error, BaseExceptionGroup):
        return error.message, list(error.exceptions)
    return cast(tuple[object, ...], _ARGS.__get__(error))


class Travelling(Record):
    """Stands for an exception inside a pickle; what comes out at the far end is the exception."""

    error: BaseException

    def __reduce__(self) -> tuple[Callable[..., BaseException], tuple[object, ...]]:
        return portable(self.error)


# Classes that change what the surrounding code does when raised. A dual of these would end a `for` loop early and turn
# an error into a short result; they stay reachable as `.cause`.
_CONTROL_FLOW: Final = (StopIteration, StopAsyncIteration)


def dual_class(base: type[E], cls: type[BaseException]) -> type[E] | None:
    """A class that is both, `base` first; None when it cannot be. `cls` itself when it is one."""
    if issubclass(cls, _CONTROL_FLOW):
        return None
    if issubclass(cls, base):
        return cls
    name = base.__name__
    fields = {"__module__": cls.__module__, "__qualname__": f"{name}({cls.__qualname__})", "__doc__": cls.__doc__}
    try:
        return cast(Callable[..., type[E]], type(cls))(f"{name}({cls.__name__})", (base, cls), fields)
    except Exception:  # noqa: BLE001  final types, layout conflicts, a metaclass or __init_subclass__ that objects
        return None
