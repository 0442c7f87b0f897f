"""The two hot sentences, as rows: a batch of calls and a batch of results.

Rows instead of records, because a batch of 64 calls is packed and unpacked by msgpack in one step (0.15 us a row,
where a dataclass a call costs 1.5 us). The layouts, short form first; the short form is the common case:

call    [counter, target, payload]
        [counter, target, payload, nreturns, attempt, depth, deps]
        [counter, target, payload, -1, attempt, depth, deps, [limit, skip, taken]] of a generator (core/streams.py)
            target    16-byte digest of a function, or the name of an actor's method
            payload   pickled arguments; empty when they are the dependency with where = -1
dep     [where, kind, data, nbytes]; with STORED also the node where it was made
            where     position, or keyword name; -1 = the arguments as a whole
            kind      INLINE (data = payload), STORED (data = object id), CHAINED (data = counter of an earlier call),
                      FAILED_INPUT (data = packed failure; only for constructors, which are told by the node)
result  [counter, microseconds, payload]
        [counter, microseconds, returns, held]
        [number, 0, payload] or [number, 0, returns, ()] for an item of a generator: behind its call's counter
            returns   one [status, data, nbytes, type name, contained ids] a return value;
                      SENT_AHEAD for one that came before, in a PartReady;
                      INPUT_LOST (data = object id, type name = why) when no node gave an input: it has not run;
                      REFUSED (data = packed failure) by a host that does not serve it: it has not run
            held      ids of borrowed refs that the worker still holds after the call
"""

from __future__ import annotations

from typing import Any

import msgpack

from zmreg.model.errors import ProtocolError
from zmreg.model.messages import CALLS_KIND, RESULTS_KIND

INLINE, STORED, CHAINED, FAILED_INPUT = 0, 1, 2, 3
OK_INLINE, OK_STORED, FAILED, CANCELLED, SENT_AHEAD, INPUT_LOST, REFUSED = 0, 1, 2, 3, 4, 5, 6

Row = list[Any]

CALLS_HEADER = b"ZR\x01" + bytes([CALLS_KIND])
RESULTS_HEADER = b"ZR\x01" + bytes([RESULTS_KIND])
HEADER_BYTES = 4
_COMMON = CALLS_HEADER[:3]
SHORT_ROW = 3
# 128 calls with inline arguments of 64 KiB each is 8 MiB; four inline dependencies each make it 40 MiB. Above that
# somebody is not speaking our language.
MAX_BATCH_BYTES = 64 << 20
# Below this a copy is cheaper than a view.
_COPIED_BYTES = 1_024

# One packer for all: packing plain rows runs no Python code, so the interpreter lock makes it one step.
_pack = msgpack.Packer().pack
_unpack = msgpack.unpackb


def encode_calls(rows: list[Row]) -> bytes:
    """Rows of calls to one frame."""
    packed: bytes = CALLS_HEADER + _pack(rows)
    return packed


def encode_results(rows: list[Row]) -> bytes:
    """Rows of results to one frame."""
    packed: bytes = RESULTS_HEADER + _pack(rows)
    return packed


def decode_rows(frame: bytes) -> list[Row]:
    """The rows of a batch. ProtocolError if it is not a list of lists."""
    if frame[:3] != _COMMON:
        raise ProtocolError(f"batch of another version: {frame[:4].hex()}")
    nbytes = len(frame)
    if nbytes > MAX_BATCH_BYTES:
        raise ProtocolError(f"batch of {nbytes} bytes is over the limit of {MAX_BATCH_BYTES}")
    try:
        rows = _unpack(frame[HEADER_BYTES:] if nbytes < _COPIED_BYTES else memoryview(frame)[HEADER_BYTES:])
    except (ValueError, msgpack.UnpackException) as error:
        raise ProtocolError(f"batch is not msgpack: {error}") from None
    if type(rows) is not list:
        raise ProtocolError("batch is not a list of rows")
    for row in rows:
        if type(row) is not list or len(row) < SHORT_ROW:
            raise ProtocolError("batch is not a list of rows")
    return rows


def pack_deps(deps: list[Row]) -> bytes:
    """Dependency rows as bytes, for messages in which they are opaque."""
    packed: bytes = _pack(deps)
    return packed


def unpack_deps(data: bytes) -> list[Row]:
    """The rows of `pack_deps`; empty bytes are no rows."""
    rows: list[Row] = _unpack(data) if data else []
    return rows


def pack_plain(value: object) -> bytes:
    """Plain containers to msgpack, for answers about state."""
    packed: bytes = _pack(value)
    return packed


def unpack_plain(data: bytes) -> Any:  # noqa: ANN401  whatever was packed
    """What `pack_plain` packed."""
    return _unpack(data, strict_map_key=False)
