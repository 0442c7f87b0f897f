"""The contiguous form: layout, alignment, and bytes that are cut short."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zmreg.model.errors import SerializationError
from zmreg.wire.packed import ALIGNMENT, RAW_BYTEARRAY, RAW_BYTES, Packed, open_packed


def written(packed: Packed) -> bytes:
    room = bytearray(packed.nbytes + 10)
    assert packed.write_into(memoryview(room)) == packed.nbytes
    return bytes(room[: packed.nbytes])


@given(st.binary(max_size=100), st.lists(st.integers(0, 9000), max_size=6))
def test_round_trip(body: bytes, sizes: list[int]) -> None:
    buffers = [bytes([n % 251]) * size for n, size in enumerate(sizes)]
    packed = Packed.of_buffers(body, [memoryview(b) for b in buffers])
    data = packed.inline()
    assert len(data) == packed.nbytes and written(packed) == data
    opened = open_packed(data)
    assert bytes(opened.body) == body and [bytes(b) for b in opened.buffers] == buffers
    assert all(buffer.readonly for buffer in opened.buffers)


def test_large_buffers_are_aligned() -> None:
    data = Packed.of_buffers(b"x", [memoryview(bytes(5)), memoryview(b"a" * 5000), memoryview(b"b" * 5000)]).inline()
    assert data.index(b"aaaa") % ALIGNMENT == 0 and data.index(b"bbbb") % ALIGNMENT == 0


@pytest.mark.parametrize("value", [b"abc" * 1000, bytearray(b"abc" * 1000), b""])
def test_raw(value: bytes | bytearray) -> None:
    opened = open_packed(written(Packed.of_raw(value)))
    assert opened.form == (RAW_BYTES if isinstance(value, bytes) else RAW_BYTEARRAY) and opened.body == value


@given(st.data())
def test_cut_or_changed_bytes_are_refused_or_read_within_bounds(data: st.DataObject) -> None:
    whole = bytearray(Packed.of_buffers(b"body", [memoryview(b"a" * 50), memoryview(b"b" * 5000)]).inline())
    end = data.draw(st.integers(0, len(whole)))
    for place in data.draw(st.lists(st.integers(0, 39), max_size=3)):
        whole[place] ^= 1 << data.draw(st.integers(0, 7))
    try:
        opened = open_packed(bytes(whole[:end]))
    except SerializationError:
        return
    assert sum(len(b) for b in opened.buffers) + len(opened.body) <= end


def test_write_into_refuses_what_does_not_fit() -> None:
    packed = Packed.of_raw(b"abc")
    with pytest.raises(ValueError, match="needs 67 bytes"):
        packed.write_into(memoryview(bytearray(10)))
    with pytest.raises(ValueError, match="read-only"):
        packed.write_into(memoryview(bytes(100)))
    assert repr(packed) == "<Packed 67 bytes in 2 parts>"
