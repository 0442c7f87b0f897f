"""A digest of what a function does and of values: equal in every process for what is equal, by content.

Of a function: its bytecode, constants, defaults, what its closure holds, functions and constants of its own package
that it names, and so on; not its comments, layout or line numbers. Other packages count by name. Bytecode is that of
one minor version of Python, so another version gives other digests.
"""

from __future__ import annotations

import functools
from _blake2 import blake2b
from collections.abc import Callable, Iterable, Mapping
from types import BuiltinFunctionType, CodeType, FunctionType, MethodType, ModuleType
from typing import Final

from zmreg.model.record import Record

_SCALARS: Final = (type(None), bool, int, float, complex, str, bytes, type(Ellipsis))
# Globals that count by their value. What can change in place is no part of the code: a list that collects, a cache.
_CONSTANTS: Final = (*_SCALARS, tuple, frozenset)
DIGEST_BYTES: Final = 16
# Py_TPFLAGS_HEAPTYPE: unset for the classes that the interpreter itself brings, whose instances have a content besides.
_HEAP_TYPE: Final = 1 << 9


def fingerprint(value: object, unknown: Callable[[object], bytes]) -> bytes:
    """16 bytes. `unknown(value)` says the content of values of classes that are not Python's own."""
    return _Prints(unknown).of(value)


class _Prints:
    """One walk. Functions that name each other in a circle are met again as the number they were met by first."""

    def __init__(self, unknown: Callable[[object], bytes]) -> None:
        self._unknown = unknown
        self._met: dict[int, int] = {}
        self._kept: list[object] = []  # so that no id is given away meanwhile

    def of(self, value: object) -> bytes:
        kind = type(value)
        if kind in _SCALARS:
            return _digest(kind.__name__, [value if isinstance(value, bytes) else repr(value).encode()])
        if isinstance(value, list | tuple | set | frozenset | dict | FunctionType | type) and (
            met := self._again(value)
        ):
            return met
        if kind in (list, tuple):
            return _digest(kind.__name__, map(self.of, value))  # type: ignore[call-overload]
        if kind in (set, frozenset):
            return _digest(kind.__name__, sorted(map(self.of, value)))  # type: ignore[call-overload]
        if isinstance(value, dict) and kind is dict:
            return _digest("dict", sorted(self.of(key) + self.of(each) for key, each in value.items()))
        return self._of_code(value)

    def _of_code(self, value: object) -> bytes:
        if isinstance(value, FunctionType):
            return self._of_function(value)
        if isinstance(value, CodeType):
            return self._of_bytecode(value)
        if isinstance(value, functools.partial):
            return _digest("partial", [self.of(value.func), self.of(value.args), self.of(value.keywords)])
        if isinstance(value, MethodType):
            return _digest("method", [self.of(value.__func__), self.of(value.__self__)])
        if isinstance(value, BuiltinFunctionType | type | ModuleType):
            return _digest("name", [_named(value)])
        if isinstance(value, Record):  # a stage of a pipeline, say: its function counts as code, not as it is pickled
            fields = [self.of(getattr(value, name)) for name in type(value).__match_args__]
            return _digest("record", [_named(type(value)), *fields])
        wrapped = getattr(value, "__wrapped__", None)  # a remote function, or one with a cache around it
        if isinstance(wrapped, FunctionType):
            return self.of(wrapped)
        if _is_plain_object(value):  # pickles of classes that a program itself has differ from process to process
            met = self._again(value)
            return met or _digest("object", [self._of_class(type(value)), self.of(vars(value))])
        return _digest("value", [_named(type(value)), self._unknown(value)])

    def _again(self, value: object) -> bytes | None:
        """How it is said of what was met before on this walk; functions and classes alone can lead back to
        themselves in what is compared, but a list may contain itself too."""
        if isinstance(value, tuple | set | frozenset | type):
            return None
        number = self._met.get(id(value))
        if number is not None:
            return _digest("again", [str(number).encode()])
        self._met[id(value)] = len(self._met)
        self._kept.append(value)
        return None

    def _of_function(self, function: FunctionType) -> bytes:
        cells = []
        for cell in function.__closure__ or ():
            try:
                cells.append(self.of(cell.cell_contents))
            except ValueError:  # not filled yet: a function that names itself, while it is made
                cells.append(b"empty")
        home = (function.__module__ or "").partition(".")[0]
        named = [
            name.encode() + self._of_global(function.__globals__[name], home)
            for name in sorted(_names_in(function.__code__))
            if name in function.__globals__
        ]
        defaults = [self.of(function.__defaults__), self.of(function.__kwdefaults__)]
        return _digest("function", [self._of_bytecode(function.__code__), *defaults, *cells, *named])

    def _of_global(self, value: object, home: str) -> bytes:
        if isinstance(value, FunctionType) and (value.__module__ or "").partition(".")[0] == home:
            return self.of(value)
        if isinstance(value, type) and value.__module__.partition(".")[0] == home:
            return self._of_class(value)
        if type(value) in _CONSTANTS:
            return self.of(value)
        return _digest("name", [_named(value if isinstance(value, ModuleType | FunctionType) else type(value))])

    def _of_class(self, cls: type) -> bytes:
        """Its methods and constants, and those of its bases in the same package."""
        home = cls.__module__.partition(".")[0]
        parts = []
        for base in cls.__mro__[:-1]:
            parts.append(_named(base))
            if base.__module__.partition(".")[0] == home:
                for name, each in sorted(vars(base).items()):
                    if isinstance(each, FunctionType) or (type(each) in _CONSTANTS and name[:2] != "__"):
                        parts.append(name.encode() + self.of(each))
        return _digest("class", parts)

    def _of_bytecode(self, code: CodeType) -> bytes:
        names = [code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars]
        counts = (code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags)
        table = [code.co_code, code.co_exceptiontable, repr(counts).encode(), repr(names).encode()]
        return _digest("code", [*table, *map(self.of, code.co_consts)])


def _is_plain_object(value: object) -> bool:
    """Whether all that it is stands in its `__dict__`, and nothing says how it would be pickled."""
    cls = type(value)
    return (
        hasattr(value, "__dict__")
        and cls.__reduce_ex__ is object.__reduce_ex__
        and cls.__reduce__ is object.__reduce__
        and getattr(cls, "__getstate__", None) is getattr(object, "__getstate__", None)
        and not any(vars(base).get("__slots__") for base in cls.__mro__)
        and cls.__flags__ & _HEAP_TYPE != 0
        and cls.__mro__[-2].__flags__ & _HEAP_TYPE != 0
    )


def _names_in(code: CodeType) -> set[str]:
    """Names of globals in a function and in those that are written inside it."""
    found = set(code.co_names)
    for const in code.co_consts:
        if isinstance(const, CodeType):
            found |= _names_in(const)
    return found


def _named(value: object) -> bytes:
    module, name = getattr(value, "__module__", ""), getattr(value, "__qualname__", getattr(value, "__name__", ""))
    return f"{module}.{name}".encode()


def _digest(kind: str, parts: Iterable[bytes]) -> bytes:
    state = blake2b(kind.encode(), digest_size=DIGEST_BYTES)
    for part in parts:
        state.update(len(part).to_bytes(8, "little"))
        state.update(part)
    return state.digest()


def combined(parts: Mapping[str, bytes]) -> bytes:
    """16 bytes of digests under names."""
    return _digest("combined", [name.encode() + b"\0" + part for name, part in sorted(parts.items())])
