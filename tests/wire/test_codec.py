"""Frames: round trips for all messages, and every kind of wrong."""

from __future__ import annotations

import typing
from dataclasses import dataclass
from typing import ClassVar, Literal, NewType

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from zmreg.model import messages
from zmreg.model.errors import MessageTooLargeError, ProtocolError
from zmreg.wire import codec
from zmreg.wire.codec import MAX_CARRIER, MAX_ENVELOPE, Codec

Name = NewType("Name", str)
Amounts = tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class Everything:
    """test -> test: one field of each supported type."""

    KIND: ClassVar[int] = 200
    whole: int
    real: float
    text: str
    raw: bytes
    flag: bool
    name: Name
    perhaps: int | None
    either: int | str | None
    state: Literal["on", "off"]
    many: tuple[int, ...]
    pair: tuple[str, float]
    nested: Amounts
    table: dict[str, tuple[int, ...]]
    deep: dict[str, dict[str, int | None]]


@dataclass(frozen=True, slots=True)
class Empty:
    """test -> test: nothing."""

    KIND: ClassVar[int] = 201


@dataclass(frozen=True, slots=True)
class Carrier:
    """test -> test: a user's bytes."""

    KIND: ClassVar[int] = 202
    blob: bytes


OWN = Codec()
OWN.register(Everything, Empty, Carrier)

INTS = st.integers(-(2**63), 2**64 - 1)
EVERYTHING = st.builds(
    Everything,
    whole=INTS,
    real=st.floats(allow_nan=False),
    text=st.text(st.characters(exclude_categories=())),
    raw=st.binary(),
    flag=st.booleans(),
    name=st.text(),
    perhaps=st.none() | INTS,
    either=st.none() | INTS | st.text(),
    state=st.sampled_from(["on", "off"]),
    many=st.lists(INTS, max_size=5).map(tuple),
    pair=st.tuples(st.text(), st.floats(allow_nan=False)),
    nested=st.lists(st.tuples(st.text(), INTS), max_size=5).map(tuple),
    table=st.dictionaries(st.text(), st.lists(INTS, max_size=3).map(tuple), max_size=3),
    deep=st.dictionaries(st.text(), st.dictionaries(st.text(), st.none() | INTS, max_size=3), max_size=3),
)


def values_for(hint: object) -> st.SearchStrategy[object]:
    """Any value of a field's type."""
    simple = {int: INTS, float: st.floats(allow_nan=False), str: st.text(), bytes: st.binary(), bool: st.booleans()}
    if hint in simple:
        return simple[hint]  # type: ignore[index]
    if hint is type(None):
        return st.none()
    origin, parts = typing.get_origin(hint), typing.get_args(hint)
    if origin is tuple and parts[-1] is Ellipsis:
        return st.lists(values_for(parts[0]), max_size=4).map(tuple)
    if origin is tuple:
        return st.tuples(*map(values_for, parts))
    if origin is dict:
        return st.dictionaries(values_for(parts[0]), values_for(parts[1]), max_size=3)
    if origin is Literal:
        return st.sampled_from(parts)
    return st.one_of(*map(values_for, parts))


def any_message(cls: type) -> st.SearchStrategy[object]:
    hints = typing.get_type_hints(cls)
    return st.builds(cls, **{name: values_for(hints[name]) for name in cls.__slots__})


REAL = st.one_of(*map(any_message, typing.get_args(messages.Message)))


@given(EVERYTHING)
def test_round_trip_of_every_field_type(message: Everything) -> None:
    frame = OWN.encode(message)
    assert OWN.decode(frame) == message and OWN.decode(memoryview(frame)) == message


@given(REAL)
def test_round_trip_of_the_real_messages(message: messages.Message) -> None:
    assert codec.decode(codec.encode(message)) == message


def test_all_real_messages_are_registered() -> None:
    assert set(codec.kinds().values()) == set(typing.get_args(messages.Message))
    assert not {messages.CALLS_KIND, messages.RESULTS_KIND} & set(codec.kinds())


@given(EVERYTHING, st.data())
def test_fault31_changed_and_cut_bytes_never_raise_anything_else(message: Everything, data: st.DataObject) -> None:
    frame = bytearray(OWN.encode(message))
    for _ in range(data.draw(st.integers(0, 4))):
        frame[data.draw(st.integers(0, len(frame) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    end = data.draw(st.integers(0, len(frame)))
    try:
        found = OWN.decode(bytes(frame[:end]))
    except ProtocolError:
        return
    assert type(found) in (Everything, Empty, Carrier)


@given(st.sampled_from([200, 201, 202]), st.binary(max_size=200))
def test_fault31_random_bodies_never_raise_anything_else(kind: int, body: bytes) -> None:
    try:
        OWN.decode(b"ZR\x01" + bytes([kind]) + body)
    except ProtocolError:
        pass


@given(st.binary(max_size=100))
def test_fault31_random_frames_never_raise_anything_else(frame: bytes) -> None:
    with pytest.raises(ProtocolError):
        OWN.decode(frame)


def body(*fields: object) -> bytes:
    packed: bytes = msgpack.packb(fields)
    return packed


@pytest.mark.parametrize(
    ("frame", "words"),
    [
        (b"", "cut short"),
        (b"ZR\x01", "cut short"),
        (b"GET / HTTP/1.1", "does not speak zmreg"),
        (b"ZR\x02\xc9\x90", "version 2"),
        (b"ZR\x01\x07\x90", "kind 7"),
        (b"ZR\x01\xc9", "cut short or no msgpack"),
        (b"ZR\x01\xc9" + body(1), "1 fields, it has 0"),
        (b"ZR\x01\xc9\x05", "a int, it has 0 fields"),
        (b"ZR\x01\xc9" + body() + b"\x01", "no msgpack"),
        (b"ZR\x01\xca" + body("text"), "field blob of a Carrier is a str, not bytes"),
        (b"ZR\x01\xca" + body(None), "field blob of a Carrier is a NoneType, not bytes"),
        (b"ZR\x01\xca\x91\xc6\xff\xff\xff\xff", "no msgpack"),  # a promise of 4 GB in five bytes
        (b"ZR\x01\xca\xdd\xff\xff\xff\xff", "no msgpack"),
        (b"ZR\x01\xca\x91\xd4\x05\x00", "no msgpack"),  # an extension type
        (b"ZR\x01\xca\x91\xd6\xff\x00\x00\x00\x00", "no msgpack"),  # msgpack's own timestamp
        (b"ZR\x01\xca" + b"\x91" * 100_000, "no msgpack"),
    ],
)
def test_fault31_each_kind_of_wrong_is_named(frame: bytes, words: str) -> None:
    with pytest.raises(ProtocolError, match=words):
        OWN.decode(frame)


GOOD: dict[str, object] = {
    "whole": 1, "real": 1.0, "text": "", "raw": b"", "flag": True, "name": "", "perhaps": None, "either": None,
    "state": "on", "many": (), "pair": ("", 0.5), "nested": (), "table": {}, "deep": {},
}  # fmt: skip


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("whole", True), ("whole", 1.0), ("whole", None), ("real", "1"), ("real", True), ("text", b""), ("raw", ""),
        ("flag", 1), ("name", 1), ("perhaps", True), ("perhaps", "x"), ("either", 1.5), ("state", "neither"),
        ("state", []), ("many", 1), ("many", [1, "x"]), ("pair", ["x"]), ("pair", ["x", "y"]), ("pair", ["x", 1.0, 2]),
        ("nested", [["x"]]), ("nested", [["x", 1], 5]), ("table", []), ("table", {"x": 1}), ("table", {b"x": []}),
        ("deep", {"x": {"y": "z"}}),
    ],
)  # fmt: skip
def test_wrong_types_name_the_field(field: str, value: object) -> None:
    frame = b"ZR\x01\xc8" + body(*{**GOOD, field: value}.values())
    with pytest.raises(ProtocolError, match=f"field {field} of a Everything"):
        OWN.decode(frame)


def test_an_int_will_do_for_a_float() -> None:
    assert OWN.decode(b"ZR\x01\xc8" + body(*{**GOOD, "real": 2}.values())).real == 2.0


def test_fault33_over_the_limit_both_ways() -> None:
    small = Codec()

    @dataclass(frozen=True, slots=True)
    class Note:
        KIND: ClassVar[int] = 1
        text: str

    globals()["Note"] = Note
    small.register(Note)
    with pytest.raises(MessageTooLargeError, match="a Note of"):
        small.encode(Note("x" * MAX_ENVELOPE))
    with pytest.raises(ProtocolError, match="the limit is"):
        small.decode(b"ZR\x01\x01" + bytes(MAX_ENVELOPE))
    assert len(OWN.encode(Carrier(bytes(MAX_ENVELOPE)))) > MAX_ENVELOPE < MAX_CARRIER


def test_register_refuses_what_it_cannot_serve() -> None:
    @dataclass(frozen=True, slots=True)
    class Twin:
        KIND: ClassVar[int] = 201

    @dataclass(frozen=True, slots=True)
    class TooHigh:
        KIND: ClassVar[int] = 256

    @dataclass(frozen=True, slots=True)
    class Odd:
        KIND: ClassVar[int] = 203
        field: list[int]

    with pytest.raises(ValueError, match="belongs to Empty"):
        OWN.register(Twin)
    with pytest.raises(ValueError, match="does not fit"):
        OWN.register(TooHigh)
    with pytest.raises(TypeError, match="list"):
        OWN.register(Odd)
    OWN.register(Empty)
    with pytest.raises(TypeError, match="not a registered message"):
        OWN.encode(Twin())
