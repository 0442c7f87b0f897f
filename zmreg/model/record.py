"""Frozen records with slots, as frozen dataclasses are, of which nothing is compiled before the first instance.

A frozen dataclass takes 400 us to define, because its methods are written as text and compiled; a Record takes 15 us.
With some seventy messages and effects that is 25 ms of every start of a driver and of a node, and most processes use a
few of them. Instances take as long to make as a dataclass's (0.5 us). Type checkers see dataclasses.
"""

from __future__ import annotations

from collections.abc import Callable
from types import FunctionType
from typing import ClassVar, NoReturn, Self, dataclass_transform

Resources = tuple[tuple[str, int], ...]
"""Amounts in 1/10000 units, sorted by name."""
Terms = tuple[tuple[str, str], ...]
"""`Shape.terms`."""


@dataclass_transform(frozen_default=True)
class RecordType(type):
    """Turns the annotations of a class body into fields, in their order; a value there is the field's default."""

    __match_args__: tuple[str, ...]
    _defaults: dict[str, object]

    def __new__(cls, name: str, bases: tuple[type, ...], body: dict[str, object]) -> RecordType:
        written = body.get("__annotations__")
        hints = written if isinstance(written, dict) and bases else {}
        fields = tuple(field for field, hint in hints.items() if not str(hint).startswith("ClassVar"))
        defaults = {field: body.pop(field) for field in fields if field in body}
        made = super().__new__(cls, name, bases, {**body, "__slots__": fields, "__match_args__": fields})
        made._defaults = defaults
        return made

    @property
    def __signature__(cls) -> object:
        """What help() shows, also before the first instance."""
        import inspect  # late: it is as dear as fifty records

        signature = inspect.signature(_initializer(cls))
        _, *parameters = signature.parameters.values()
        return signature.replace(parameters=[each for each in parameters if each.kind is not each.VAR_KEYWORD])


class Record(metaclass=RecordType):
    """Equal by class and fields. A subclass of a subclass has its own fields only: records do not extend each other.

    `__post_init__`, if there is one, looks at the values, and raises what is wrong with them.
    """

    def __init__(self, *values: object, **named: object) -> None:
        """All fields, by position or name. Raises TypeError when one is missing, unknown or given twice."""
        cls = type(self)
        type.__setattr__(cls, "__init__", _initializer(cls))  # what this very call goes on with
        cls.__init__(self, *values, **named)

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(f"cannot set {name!r}: a {type(self).__name__} is frozen; make another")

    def __delattr__(self, name: str) -> NoReturn:
        raise AttributeError(f"cannot delete {name!r}: a {type(self).__name__} is frozen; make another")

    def but(self, **changes: object) -> Self:
        """The same with some fields changed. Raises TypeError for a field it does not have."""
        return type(self)(**{**dict(zip(type(self).__match_args__, self._values(), strict=True)), **changes})

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), self._values()  # by its fields: the way of plain objects sets attributes

    def _values(self) -> tuple[object, ...]:
        return tuple([getattr(self, name) for name in type(self).__match_args__])

    def __eq__(self, other: object) -> bool:
        return self._values() == other._values() if type(other) is type(self) else NotImplemented

    def __hash__(self) -> int:
        return hash((type(self), self._values()))

    def __repr__(self) -> str:
        fields = zip(type(self).__match_args__, self._values(), strict=True)
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in fields)})"


class Wish(Record):
    """What users write by hand: a field that it does not have is refused with the one that was probably meant.

    Its instances take an eighth longer to make, so messages and effects are none.
    """


class Sentence(Record):
    """A message."""

    KIND: ClassVar[int]
    """0 to 255, on the wire."""


def _initializer(cls: RecordType) -> Callable[..., None]:
    """An `__init__` with the fields as its parameters. The slots' own setters are the one way past the frozen one."""
    scope: dict[str, object] = {}
    parameters, steps = ["self"], []
    for number, field in enumerate(cls.__match_args__):
        scope[f"_put{number}"] = vars(cls)[field].__set__
        steps.append(f"_put{number}(self, {field})")
        if field in cls._defaults:
            scope[f"_default{number}"] = cls._defaults[field]
            field += f"=_default{number}"
        parameters.append(field)
    if hasattr(cls, "__post_init__"):
        steps.append("self.__post_init__()")
    if issubclass(cls, Wish):
        scope["_refuse"] = _refuse
        parameters.append("**_unknown")
        steps.insert(0, "_unknown and _refuse(self, _unknown)")
    exec(f"def __init__({', '.join(parameters)}): {'; '.join(steps) or 'pass'}", scope)
    made = scope["__init__"]
    assert isinstance(made, FunctionType)
    made.__qualname__ = f"{cls.__qualname__}.__init__"
    return made


def _refuse(wish: Wish, unknown: dict[str, object]) -> NoReturn:
    from zmreg.model.hints import no_argument

    raise no_argument(type(wish).__name__, unknown, type(wish).__match_args__)
