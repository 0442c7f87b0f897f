"""A call that is stopped at a breakpoint and somebody's terminal: lines of text, and no more of them than is read.

`number` is the stop's, one of its worker's; `visit` is the terminal's, so that nothing of an earlier one is taken for
this one's.
"""

from __future__ import annotations

from typing import ClassVar, Final

from zmreg.model.record import Sentence

# A line of a person's, or of a script's.
LINE_CHARS: Final = 64 * 1024
# One message of output; so much of it may be under way that was not shown yet.
TEXT_CHARS: Final = 32 * 1024
WINDOW_CHARS: Final = 256 * 1024


class DebugAttach(Sentence):
    """terminal -> worker: I want that stop. Answered by `DebugText`, or by `DebugOver` when it cannot be had."""

    KIND: ClassVar[int] = 236
    number: int
    visit: int


class DebugLine(Sentence):
    """terminal -> worker: the line that was asked for, without its end."""

    KIND: ClassVar[int] = 237
    number: int
    visit: int
    text: str


class DebugTaken(Sentence):
    """terminal -> worker: so many characters of the output were shown since the last time; more may come."""

    KIND: ClassVar[int] = 238
    number: int
    visit: int
    chars: int


class DebugSign(Sentence):
    """terminal -> worker: Ctrl-C, if `interrupts`; else I leave, and the stop is open for others."""

    KIND: ClassVar[int] = 239
    number: int
    visit: int
    interrupts: bool


class DebugText(Sentence):
    """worker -> terminal: what the session prints, in order. With `asks` it is the prompt, and a line is awaited."""

    KIND: ClassVar[int] = 240
    number: int
    visit: int
    text: str
    asks: bool


class DebugOver(Sentence):
    """worker -> terminal: nothing more comes. `how`: `goes on`, `quit`, `ended` or `refused`; `text` says it."""

    KIND: ClassVar[int] = 241
    number: int
    visit: int
    how: str
    text: str


DebugWord = DebugAttach | DebugLine | DebugTaken | DebugSign | DebugText | DebugOver
