"""Failures as bytes that every process can read as text, whatever classes it can import.

A msgpack array [type, text, function, traceback, pid, node, notes, blob]; `blob` is the exception as wire.payload
packed it, or empty. Nodes and the command line read the text here and never look into the blob.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterable
from typing import Final

import msgpack

from zmreg.model.errors import FailureOrigin, ProtocolError, TaskError
from zmreg.model.exceptions import with_sources
from zmreg.wire.explain import type_label

# Failures ride inside messages. 1 MiB holds any exception but one that drags its data along; that one goes as text.
MAX_BLOB_BYTES: Final = 1 << 20

# Texts keep both ends: the start says where it began, the end says what it was.
MAX_TRACEBACK_CHARS: Final = 64 * 1024
MAX_TEXT_CHARS: Final = 16 * 1024

# Notes of a failure that went down a long chain: the first ones and the last one tell the way.
MAX_NOTES: Final = 4
MAX_NOTE_CHARS: Final = 1024
_GAP: Final = "(and so on down the chain)"

_LIMITS: Final = (256, MAX_TEXT_CHARS, 1024, MAX_TRACEBACK_CHARS)  # type, text, function, traceback
_FIELDS: Final = (str, str, str, str, int, str, list, bytes)
# 4: the longest character in UTF-8
_MAX_PACKED: Final = MAX_BLOB_BYTES + 4 * (sum(_LIMITS) + MAX_NOTES * MAX_NOTE_CHARS + 4096)


def encode_failure(origin: FailureOrigin, blob: bytes = b"") -> bytes:
    """The failure as bytes; texts over the limits are shortened in the middle, a blob over the limit is dropped."""
    texts = (origin.type_name, origin.text, origin.function, origin.remote_traceback)
    short = [shorten(text, limit) for text, limit in zip(texts, _LIMITS, strict=True)]
    notes = [shorten(note, MAX_NOTE_CHARS) for note in origin.notes]
    fields = [*short, origin.pid, origin.node_id[:1024], notes, blob if len(blob) <= MAX_BLOB_BYTES else b""]
    # surrogatepass: file names and broken input put lone surrogates into messages, and the error must still be told.
    packed: bytes = msgpack.packb(fields, use_bin_type=True, unicode_errors="surrogatepass")
    return packed


def decode_failure(data: bytes | memoryview) -> tuple[FailureOrigin, bytes]:
    """The textual facts and the blob. Raises ProtocolError when `data` is no failure."""
    if len(data) > _MAX_PACKED:
        raise ProtocolError(f"a failure of {len(data)} bytes came in, the limit is {_MAX_PACKED}")
    try:
        fields = msgpack.unpackb(data, raw=False, unicode_errors="surrogatepass")
    except (ValueError, TypeError, RecursionError) as error:
        raise ProtocolError(f"a failure of {len(data)} bytes is no msgpack: {error}") from error
    if type(fields) is not list or tuple(map(type, fields)) != _FIELDS or not _are_notes(fields[-2]):
        raise ProtocolError(f"a failure of {len(data)} bytes has other fields than [type, text, function, ...]")
    type_name, text, function, trace, pid, node, notes, blob = fields
    return FailureOrigin(type_name, text, function, trace, pid, node, tuple(notes)), blob


def _are_notes(notes: list[object]) -> bool:
    return len(notes) <= MAX_NOTES and all(type(note) is str for note in notes)


def with_notes(data: bytes, notes: Iterable[str]) -> bytes:
    """The same failure with more notes; of too many, those in the middle go. Raises ProtocolError when it is none."""
    origin, blob = decode_failure(data)
    return encode_failure(origin.but(notes=few_notes((*origin.notes, *notes))), blob)


def few_notes(notes: tuple[str, ...]) -> tuple[str, ...]:
    """At most MAX_NOTES: the first ones, a sign that some are left out, the last."""
    return notes if len(notes) <= MAX_NOTES else (*notes[: MAX_NOTES - 2], _GAP, notes[-1])


def failure_text(data: bytes | memoryview) -> str:
    """The failure for a human: type, text, function, place, traceback, notes. ProtocolError when `data` is none."""
    origin, _ = decode_failure(data)
    text = f"{origin.headline()}\n\n{with_sources(origin.remote_traceback)}".rstrip()
    return "\n".join([text, *origin.notes])


def describe(error: BaseException, function: str, pid: int, node_id: str) -> FailureOrigin:
    """The textual facts of an exception just caught. A TaskError that passes through keeps the user's type and text."""
    return FailureOrigin(
        type_name=error.type_name if isinstance(error, TaskError) else type_label(type(error)),
        text=error.message if isinstance(error, TaskError) else _text_of(error),
        function=function,
        remote_traceback=_traceback_text(error),
        pid=pid,
        node_id=node_id,
    )


def _text_of(error: BaseException) -> str:
    try:
        return str(error)
    except Exception as reason:  # noqa: BLE001  a foreign __str__ may raise anything
        return f"<its __str__ raised {type(reason).__name__}>"


def _traceback_text(error: BaseException) -> str:
    _trim(error)
    try:
        return "".join(traceback.format_exception(error))
    except Exception as reason:  # noqa: BLE001  formatting calls foreign __str__ and __repr__ of the whole chain
        return f"{type_label(type(error))}: <its traceback could not be formatted: {type(reason).__name__}>"


def _trim(error: BaseException) -> None:
    """Drop the worker's own frames at the top: the story begins in the user's code."""
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_globals.get("__name__", "").startswith("zmreg.services."):
        trace = trace.tb_next
    if trace is not None:
        error.__traceback__ = trace


def shorten(text: str, limit: int) -> str:
    """`text`, or its two ends when it is longer than `limit` characters."""
    if len(text) <= limit:
        return text
    half = limit // 2 - 32
    return f"{text[:half]}\n... {len(text) - 2 * half} characters left out ...\n{text[-half:]}"
