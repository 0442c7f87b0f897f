"""What message classes are made of: frozen records with slots, and nothing that is compiled when they are defined.

A dataclass of this kind takes 400 us to define (its methods are written as text and compiled), one of these 15 us. With
some fifty messages that is the difference between 20 ms and less than 1 ms of every `import zmreg`; an instance takes
as long to make as before. Type checkers see dataclasses.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, NoReturn, Self, dataclass_transform

Resources = tuple[tuple[str, int], ...]
"""Amounts in 1/10000 units, sorted by name."""


@dataclass_transform(frozen_default=True)
class SentenceType(type):
    """Turns the annotations of a class body that have no value into fields, in their order. There are no defaults."""

    __match_args__: tuple[str, ...]
    _put: tuple[Callable[[object, object], None], ...]

    def __new__(cls, name: str, bases: tuple[type, ...], body: dict[str, object]) -> SentenceType:
        written = body.get("__annotations__")
        fields = tuple(key for key in written if key not in body) if bases and isinstance(written, dict) else ()
        made = super().__new__(cls, name, bases, {**body, "__slots__": fields, "__match_args__": fields})
        # The slots' own setters: the one way past the frozen __setattr__, and the fastest.
        made._put = tuple(vars(made)[field].__set__ for field in fields)
        return made


class Sentence(metaclass=SentenceType):
    """A message: frozen, equal by kind and fields. Its fields are what `match` patterns see, in the same order."""

    KIND: ClassVar[int]
    """0 to 255, on the wire."""

    def __init__(self, *values: object, **named: object) -> None:
        """All fields, by position or name. Raises TypeError when one is missing, unknown or given twice."""
        names = type(self).__match_args__
        if named:
            values += tuple(named.pop(name) for name in names[len(values) :] if name in named)
        if named or len(values) != len(names):
            raise TypeError(f"{type(self).__name__} has the fields ({', '.join(names)}), each to be given once")
        for put, value in zip(type(self)._put, values, strict=True):
            put(self, value)

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(f"cannot set {name!r}: a {type(self).__name__} is frozen; make another")

    def __delattr__(self, name: str) -> NoReturn:
        raise AttributeError(f"cannot delete {name!r}: a {type(self).__name__} is frozen; make another")

    def but(self, **changes: object) -> Self:
        """The same sentence with some fields changed."""
        return type(self)(**{**dict(zip(type(self).__match_args__, self._values(), strict=True)), **changes})

    def _values(self) -> tuple[object, ...]:
        return tuple(getattr(self, name) for name in type(self).__match_args__)

    def __eq__(self, other: object) -> bool:
        return self._values() == other._values() if type(other) is type(self) else NotImplemented

    def __hash__(self) -> int:
        return hash((type(self), self._values()))

    def __repr__(self) -> str:
        fields = zip(type(self).__match_args__, self._values(), strict=True)
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in fields)})"
