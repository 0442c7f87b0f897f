"""Members of whom a new head has not spoken.

A node that was let in a moment before the head was killed may not be on the disk that the next head reads. If it comes
back by itself, all is well. If it does not, that head knows nothing of it, and nobody else may declare it dead: whoever
waits for it would wait for ever. So what a head has not named within `patience_s`, it is told.
"""

from __future__ import annotations

from collections.abc import Iterable


class Unnamed:
    """One node's list of those that it knows, and whose names it has not heard from the head that it follows."""

    def __init__(self, patience_s: float) -> None:
        self._patience_s = patience_s
        self._nodes: dict[bytes, None] = {}
        self._due_at = 0.0

    def crowned(self, members: Iterable[bytes], now: float) -> None:
        """There is another head. `members`: all others that live."""
        self._nodes = dict.fromkeys(members)
        self._due_at = now + self._patience_s

    def named(self, node: bytes) -> None:
        """The head has said that this is one of us."""
        self._nodes.pop(node, None)

    def due(self, now: float) -> list[bytes]:
        """Whom to tell the head of, once for each head."""
        if not self._nodes or now < self._due_at:
            return []
        nodes, self._nodes = list(self._nodes), {}
        return nodes

    def __repr__(self) -> str:
        return f"<Unnamed {len(self._nodes)} nodes, to be told of at {self._due_at:.1f}>"
