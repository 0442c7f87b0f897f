"""The header of a chunk: round trip, and every kind of wrong."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zmreg.model.errors import ProtocolError
from zmreg.model.messages import FetchStop
from zmreg.wire import codec
from zmreg.wire.chunks import CHUNK_HEADER_BYTES, is_chunk, pack_chunk_header, unpack_chunk_header

NUMBERS = st.integers(0, 2**64 - 1)


@given(NUMBERS, NUMBERS)
def test_round_trip(transfer: int, offset: int) -> None:
    header = pack_chunk_header(transfer, offset)
    assert len(header) == CHUNK_HEADER_BYTES == 19
    assert is_chunk(header) and is_chunk(memoryview(header))
    assert unpack_chunk_header(header) == (transfer, offset) == unpack_chunk_header(memoryview(header))


def test_the_layout_is_fixed() -> None:
    assert pack_chunk_header(1, 0x0203) == b"ZC\x01" + b"\0" * 7 + b"\x01" + b"\0" * 6 + b"\x02\x03"


@pytest.mark.parametrize(("transfer", "offset"), [(-1, 0), (0, -1), (2**64, 0), (0, 2**64)])
def test_numbers_that_do_not_fit(transfer: int, offset: int) -> None:
    with pytest.raises(ValueError, match="transfer"):
        pack_chunk_header(transfer, offset)


@given(st.binary(max_size=40))
def test_fault31_anything_else_is_a_protocol_error(frame: bytes) -> None:
    if len(frame) == CHUNK_HEADER_BYTES and frame.startswith(b"ZC\x01"):
        return
    with pytest.raises(ProtocolError, match="header"):
        unpack_chunk_header(frame)


def test_a_sentence_is_no_chunk() -> None:
    frame = codec.encode(FetchStop(1))
    assert not is_chunk(frame)
    with pytest.raises(ProtocolError):
        codec.decode(pack_chunk_header(1, 2))
