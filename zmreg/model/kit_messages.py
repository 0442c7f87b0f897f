"""What is run on a worker at once, beside whatever it does, and its answer."""

from __future__ import annotations

from typing import ClassVar

from zmreg.model.record import Sentence


class RunHere(Sentence):
    """client -> worker, wherever: run this now, on a thread of its own. Answered by `RanHere`."""

    KIND: ClassVar[int] = 165
    request: int
    call: bytes
    """(function, arguments, keywords), pickled."""


class RanHere(Sentence):
    """worker -> client: what it has returned, pickled, or its packed failure."""

    KIND: ClassVar[int] = 166
    request: int
    failed: bool
    value: bytes


class SetPlugin(Sentence):
    """client -> its node, answered by `Answer` -> all other nodes: workers that start from now on have this plugin.

    Of two with one name the later stamp counts. A node tells all that it has to a node that joins.
    """

    KIND: ClassVar[int] = 167
    request: int
    name: str
    stamp: int
    """Nanoseconds of the day, on the clock of whoever has registered it."""
    plugin: bytes
    """(name, stamp, plugin), pickled; empty: it is no more."""
