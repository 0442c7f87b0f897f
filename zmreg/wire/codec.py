"""Messages <-> frames: the only translator, the same in every process.

A frame is 4 bytes of header (b"ZR", version, kind) and a msgpack array of the message's fields in their order.
Whole, partial and wrong are told apart: `decode` answers with the message or raises ProtocolError saying what is amiss.
Header and length are checked before msgpack builds anything; types are checked before the message exists, by checks
compiled from its annotations when a class is first met.
"""

from __future__ import annotations

import types
import typing
from collections.abc import Callable
from operator import attrgetter
from typing import Any, ClassVar, Final, NewType, Protocol

import msgpack

from zmreg.model.errors import MessageTooLargeError, ProtocolError
from zmreg.model.messages import Message
from zmreg.model.record import Record

MAGIC: Final = b"ZR"
VERSION: Final = 1
HEADER_BYTES: Final = 4

# 4 MiB: control messages are some hundred bytes; the largest real ones carry ids by the thousand (16 bytes each), a
# failure (at most 1.4 MiB) or a node's log lines.
MAX_ENVELOPE: Final = 4 << 20

# 128 MiB for messages that carry a user's bytes: definitions may have 100 MB (wire/payload.py), and actor arguments
# ride inline up to their limit.
MAX_CARRIER: Final = 128 << 20
_CARRIES: Final = frozenset({"blob", "payload", "body"})

Check = Callable[[Any], bool]


class Kind(Protocol):
    """A `Sentence`, or a frozen dataclass, with a KIND, 0 to 255, and its fields in __match_args__."""

    KIND: ClassVar[int]


class _Plan(Record):
    """All that is known of one message class beforehand."""

    cls: type[Any]
    header: bytes
    fields: Callable[[Any], tuple[object, ...]]
    count: int
    exact: tuple[type, ...] | None  # the types of all fields, when each has exactly one: a single comparison
    checks: tuple[tuple[str, Check, str], ...]  # otherwise (name, check, type as written) each
    max_bytes: int


class Codec:
    """A table of message classes by kind, and the two directions."""

    def __init__(self, *classes: type[Kind]) -> None:
        """With `classes` whose annotations are known to be supported: each is compiled (0.1 ms) when it is first met.

        Raises ValueError on a kind given twice.
        """
        self._classes: dict[bytes, type[Any]] = {}
        self._by_class: dict[type[Any], _Plan] = {}
        self._by_header: dict[bytes, _Plan] = {}
        for cls in classes:
            self._name(cls)

    def register(self, *classes: type[Kind]) -> None:
        """Add message classes. Raises ValueError on a kind given twice, TypeError on an annotation not supported."""
        for cls in classes:
            header = self._name(cls)
            try:
                self._compile(header)
            except BaseException:
                del self._classes[header]
                raise

    def _name(self, cls: type[Kind]) -> bytes:
        if not 0 <= cls.KIND <= 255:
            raise ValueError(f"kind {cls.KIND} of {cls.__name__} does not fit into a byte")
        header = MAGIC + bytes((VERSION, cls.KIND))
        other = self._classes.setdefault(header, cls)
        if other is not cls:
            raise ValueError(f"kind {cls.KIND} of {cls.__name__} belongs to {other.__name__} already")
        return header

    def warm(self, *classes: type[Kind]) -> None:
        """Compile these now, for a process that others are forked from."""
        for cls in classes:
            if cls not in self._by_class:
                self._compile(self._name(cls))

    def _compile(self, header: bytes) -> _Plan:
        # Two threads may do this at once: both plans are good, and the last one stays.
        cls = self._classes[header]
        plan = self._by_class[cls] = self._by_header[header] = _plan(cls, header)
        return plan

    def _met(self, message: object) -> _Plan:
        for header, cls in self._classes.items():
            if cls is type(message):
                return self._compile(header)
        raise TypeError(f"{type(message).__name__} is not a registered message; register() it")

    def encode(self, message: object) -> bytes:
        """The frame of `message`.

        Raises MessageTooLargeError over the limit of its kind, TypeError for a class not registered or a field that
        msgpack does not know.
        """
        plan = self._by_class.get(type(message)) or self._met(message)
        # surrogatepass: file names and log lines hold lone surrogates, and must arrive as they are.
        body: bytes = msgpack.packb(plan.fields(message), unicode_errors="surrogatepass")
        frame = plan.header + body
        if len(frame) > plan.max_bytes:
            raise MessageTooLargeError(
                f"a {plan.cls.__name__} of {len(frame)} bytes is over the limit of {plan.max_bytes} for its kind"
            )
        return frame

    def decode(self, frame: bytes | memoryview) -> Any:  # noqa: ANN401  whichever message it is; see decode() below
        """The message in `frame`. Raises ProtocolError, and nothing else, for anything that is not one."""
        header = bytes(frame[:HEADER_BYTES])
        plan = self._by_header.get(header)
        if plan is None:
            if header not in self._classes:
                raise ProtocolError(_header_fault(header))
            plan = self._compile(header)
        if len(frame) > plan.max_bytes:
            raise ProtocolError(f"a {plan.cls.__name__} of {len(frame)} bytes, the limit is {plan.max_bytes}")
        try:
            # Lengths inside are bounded by the frame's own; extension types have no place in our messages.
            fields = msgpack.unpackb(
                memoryview(frame)[HEADER_BYTES:],
                use_list=False,
                strict_map_key=True,
                max_ext_len=0,
                unicode_errors="surrogatepass",
            )
        except (ValueError, TypeError, OverflowError, RecursionError, msgpack.UnpackException) as error:
            raise ProtocolError(f"the body of a {plan.cls.__name__} is cut short or no msgpack: {error}") from None
        if type(fields) is not tuple or len(fields) != plan.count:
            raise ProtocolError(_count_fault(plan, fields))
        if plan.exact is not None:
            if tuple(map(type, fields)) != plan.exact:
                raise ProtocolError(_type_fault(plan, fields))
        else:
            for value, (_, check, _) in zip(fields, plan.checks, strict=True):
                if not check(value):
                    raise ProtocolError(_type_fault(plan, fields))
        return plan.cls(*fields)

    def kinds(self) -> dict[int, type[Any]]:
        """The message classes by kind, for tables in the docs."""
        return {cls.KIND: cls for _, cls in sorted(self._classes.items())}


# ---- what is wrong, in words -----------------------------------------------------------------------------------------


def _header_fault(header: bytes) -> str:
    if len(header) < HEADER_BYTES:
        return f"a frame of {len(header)} bytes: cut short, the header alone has {HEADER_BYTES}"
    if header[:2] != MAGIC:
        return f"a frame begins with {header[:2]!r}, ours begin with {MAGIC!r}: the peer does not speak zmreg"
    if header[2] != VERSION:
        return f"a frame of protocol version {header[2]}, this is {VERSION}: update the older side"
    return f"a message of kind {header[3]}, which is not known here: the peer may be newer"


def _count_fault(plan: _Plan, fields: object) -> str:
    found = f"{len(fields)} fields" if isinstance(fields, tuple) else f"a {type(fields).__name__}"
    return f"a {plan.cls.__name__} with {found}, it has {plan.count} fields"


def _type_fault(plan: _Plan, fields: tuple[object, ...]) -> str:
    for value, (name, check, written) in zip(fields, plan.checks, strict=True):
        if not check(value):
            return f"field {name} of a {plan.cls.__name__} is a {type(value).__name__}, not {written}"
    return f"a {plan.cls.__name__} with wrong types"


# ---- checks from annotations -----------------------------------------------------------------------------------------


def _plan(cls: type[Kind], header: bytes) -> _Plan:
    target: Any = cls
    hints = typing.get_type_hints(cls)
    names = list(target.__match_args__)
    kinds = [_exact_type(hints[name]) for name in names]
    exact = tuple(kind for kind in kinds if kind is not None)
    return _Plan(
        cls=cls,
        header=header,
        fields=_reader(names),
        count=len(names),
        exact=exact if len(exact) == len(kinds) else None,
        checks=tuple((name, _check(hints[name]), _written(hints[name])) for name in names),
        max_bytes=MAX_CARRIER if _CARRIES.intersection(names) else MAX_ENVELOPE,
    )


def _reader(names: list[str]) -> Callable[[Any], tuple[object, ...]]:
    if len(names) == 1:
        get = attrgetter(names[0])
        return lambda message: (get(message),)
    return attrgetter(*names) if names else lambda message: ()


def _written(hint: object) -> str:
    return str(getattr(hint, "__name__", hint)) if type(hint) is type else str(hint)


def _exact_type(hint: object) -> type | None:
    """The one type a value of `hint` has; None when there are several (a float may be written as an int)."""
    while isinstance(hint, NewType):
        hint = hint.__supertype__
    return hint if hint in (int, str, bytes, bool) and isinstance(hint, type) else None


def _check(hint: Any) -> Check:  # noqa: ANN401  annotations have no common type
    exact = _exact_type(hint)
    if exact is not None:
        return lambda value: type(value) is exact
    if isinstance(hint, NewType):
        return _check(hint.__supertype__)
    if hint is float:
        return lambda value: type(value) is float or type(value) is int
    if hint is None or hint is type(None):
        return lambda value: value is None
    origin, parts = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        choices = [_check(part) for part in parts]
        return lambda value: any(choice(value) for choice in choices)
    if origin is typing.Literal:
        # Compared with its type: 1, 1.0 and True are equal, and only one of them was meant.
        allowed = frozenset((type(part), part) for part in parts)
        return lambda value: type(value) in (int, str, bytes, bool) and (type(value), value) in allowed
    if origin is tuple:
        return _check_tuple(parts)
    if origin is dict and parts[0] in (str, bytes):
        key, inside = parts[0], _check(parts[1])
        return lambda value: (
            type(value) is dict and all(type(name) is key and inside(item) for name, item in value.items())
        )
    raise TypeError(f"messages have no fields of type {hint}: use scalars, X | None, tuples, dict[str, X]")


def _check_tuple(parts: tuple[Any, ...]) -> Check:
    if len(parts) == 2 and parts[1] is Ellipsis:
        exact = _exact_type(parts[0])
        if exact is not None:
            only = frozenset({exact}).issuperset
            return lambda value: type(value) is tuple and only(map(type, value))
        inside = _check(parts[0])
        return lambda value: type(value) is tuple and all(map(inside, value))
    checks = [_check(part) for part in parts]
    return lambda value: (
        type(value) is tuple
        and len(value) == len(checks)
        and all(check(item) for check, item in zip(checks, value, strict=True))
    )


# ---- the table of this package ---------------------------------------------------------------------------------------

_table: Final = Codec(*typing.get_args(Message))

register: Final = _table.register
warm: Final = _table.warm
encode: Final[Callable[[Message], bytes]] = _table.encode
decode: Final[Callable[[bytes | memoryview], Message]] = _table.decode
kinds: Final = _table.kinds
