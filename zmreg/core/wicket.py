"""A stopped call and who has come to look at it: whose turn it is, and how much output is under way.

Pure. One visitor at a time; a stop without one waits. What is said by anybody but the visitor, or about an earlier
visit, changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterator

Visitor = tuple[bytes, int]
"""(process, its number for this visit)."""


class Wicket:
    """One stop's: whoever comes is served there, one at a time."""

    def __init__(self, window: int) -> None:
        """`window`: so many characters of output may be on their way to the visitor."""
        self.visitor: Visitor | None = None
        self.greeted = False
        """The visitor was shown where the call stands."""
        self.asked = False
        """The visitor was asked for a line, and has not given it."""
        self._window = window
        self._out = 0
        self._line: str | None = None

    # -- what the visitor says -----------------------------------------------------------------------------------------

    def comes(self, visitor: Visitor) -> bool:
        """Somebody wants this stop; False when somebody has it."""
        if self.visitor is not None:
            return False
        self.visitor = visitor
        self.greeted = self.asked = False
        self._out, self._line = 0, None
        return True

    def says(self, visitor: Visitor, line: str) -> bool:
        """The line that was asked for. False, and nothing happens, when none was."""
        if visitor != self.visitor or not self.asked:
            return False
        self.asked, self._line = False, line
        return True

    def took(self, visitor: Visitor, chars: int) -> bool:
        """So much of the output was shown."""
        if visitor != self.visitor or chars < 0:
            return False
        self._out = max(0, self._out - chars)
        return True

    def leaves(self, visitor: Visitor) -> bool:
        """The visitor goes. What it has said and was not read is gone with it."""
        if visitor != self.visitor:
            return False
        self.visitor, self._line, self.asked = None, None, False
        return True

    def gone(self, prefix: bytes) -> bool:
        """A process has ended, or all whose ids begin so."""
        return self.visitor is not None and self.visitor[0].startswith(prefix) and self.leaves(self.visitor)

    # -- what the stopped call does ------------------------------------------------------------------------------------

    def line(self) -> str | None:
        """What was answered, once."""
        line, self._line = self._line, None
        return line

    def fits(self, chars: int) -> bool:
        """Whether this may leave now. A piece larger than the window goes alone."""
        return not self._out or self._out + chars <= self._window

    def sent(self, chars: int) -> None:
        """It has left."""
        self._out += chars


def pieces(text: str, most: int) -> Iterator[str]:
    """`text` in pieces of at most so many characters."""
    for start in range(0, len(text), most):
        yield text[start : start + most]
