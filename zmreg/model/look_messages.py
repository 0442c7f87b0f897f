"""How a node looks into the processes on its machine when somebody asks it to: stacks, memory, metrics."""

from __future__ import annotations

from typing import ClassVar

from zmreg.model.record import Sentence


class Look(Sentence):
    """node -> driver or worker of its machine: say how it is with you. Answered by `Looked`."""

    KIND: ClassVar[int] = 200
    request: int
    what: str
    """`stacks`, `memory`, `calls N` (the latest N that are over), `queued N` (the N oldest that have not left),
    `stopped` (at breakpoints), `why ID`, `profile TOKEN MICROSECONDS ASKER` (sample the stacks so often, for
    this program; 0: end), or `metrics`: answered by `Measured` first.
    `metered`: somebody asks for metrics at times, so tell them when you leave. That one is not answered."""


class Looked(Sentence):
    """driver or worker -> its node: the answer, plain containers packed (services/seat/looked.py says which)."""

    KIND: ClassVar[int] = 201
    request: int
    body: bytes


class Measured(Sentence):
    """driver or worker -> its node: totals of metrics that have changed since they were told last, packed as plain
    containers (telemetry/families.py). Many are told in parts, each with some of the series."""

    KIND: ClassVar[int] = 202
    body: bytes
