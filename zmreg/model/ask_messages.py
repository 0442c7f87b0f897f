"""Questions to a node and its answers; what workers have printed."""

from __future__ import annotations

from typing import ClassVar

from zmreg.model.record import Sentence


class Ask(Sentence):
    """client -> node: a question about state ("actor", "nodes", "stats", "workers", ...); `key` narrows it."""

    KIND: ClassVar[int] = 70
    request: int
    topic: str
    key: str


class Answer(Sentence):
    """node -> client: msgpack of plain containers; `found` False when there is no such thing."""

    KIND: ClassVar[int] = 71
    request: int
    found: bool
    body: bytes


class LogLines(Sentence):
    """node -> driver: what `task` (a call of the driver's, or empty) printed, or calls made in it; `skipped` bytes were
    over the rate cap."""

    KIND: ClassVar[int] = 72
    source: str
    text: str
    skipped: int
    task: bytes


class WhoseCalls(Sentence):
    """node -> worker: in which tasks have you made these calls, which have printed something? See `CallersOf`."""

    KIND: ClassVar[int] = 73
    tasks: tuple[bytes, ...]


class CallersOf(Sentence):
    """worker -> node, or node -> node when the worker is gone: the task in which each was made; empty: not known."""

    KIND: ClassVar[int] = 74
    tasks: tuple[bytes, ...]
    callers: tuple[bytes, ...]
