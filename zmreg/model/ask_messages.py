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
    """node -> client, client -> client: what `task` (an id, or empty) printed; `skipped` bytes were over the rate cap.

    A worker passes on what its calls have printed, as what the task has printed that made them.
    """

    KIND: ClassVar[int] = 72
    source: str
    text: str
    skipped: int
    task: bytes
