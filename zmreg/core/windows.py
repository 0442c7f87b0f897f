"""How much may be on its way to a receiver: so many items, and so many bytes, that it has not yet accepted."""

from __future__ import annotations

from collections import deque


class Window:
    """Sender's side of a stream. One item may always go when nothing is out, however large it is."""

    __slots__ = ("_out", "items", "nbytes", "out_bytes", "out_items", "stalls")

    def __init__(self, items: int, nbytes: int) -> None:
        """`items`, `nbytes`: the most that is on its way. ValueError for items under 1."""
        if items < 1:
            raise ValueError(f"a window of {items} items lets nothing through")
        self.items = items
        self.nbytes = nbytes
        self.out_items = self.out_bytes = 0
        self._out: deque[tuple[int, int]] = deque()
        self.stalls = 0
        """How often something had to wait."""

    def fits(self, nbytes: int) -> bool:
        """Whether one more item of that size may go now."""
        if not self.out_items:
            return True
        fit = self.out_items < self.items and self.out_bytes + nbytes <= self.nbytes
        self.stalls += not fit
        return fit

    def sent(self, items: int, nbytes: int) -> None:
        """A batch has left."""
        self._out.append((items, nbytes))
        self.out_items += items
        self.out_bytes += nbytes

    def accepted(self) -> None:
        """The oldest batch was."""
        items, nbytes = self._out.popleft()
        self.out_items -= items
        self.out_bytes -= nbytes

    def shrink(self, items: int, nbytes: int) -> None:
        """Allow another amount from now on; what is out stays out."""
        self.items, self.nbytes = max(1, items), nbytes

    def __repr__(self) -> str:
        return f"<Window {self.out_items}/{self.items} items, {self.out_bytes}/{self.nbytes} B>"
