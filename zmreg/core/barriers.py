"""A meeting point: whoever comes waits until enough are there, then all go on, and the next ones meet anew."""

from __future__ import annotations


class Meeting:
    """Who waits at one point. Invariant: between two calls fewer than `parties` wait."""

    def __init__(self, parties: int) -> None:
        self.parties = parties
        self.round = 0
        """How often it was complete."""
        self._here: dict[str, str] = {}

    def arrive(self, request: str, holder: str, parties: int) -> tuple[str, ...]:
        """Somebody comes; all who go on now, in the order in which they came, or nobody yet.

        Raises ValueError when somebody waits for another number of parties.
        """
        if self._here and parties != self.parties:
            raise ValueError(f"{len(self._here)} wait here for {self.parties} parties, and not for {parties}")
        self.parties = parties
        self._here[request] = holder
        if len(self._here) < parties:
            return ()
        going, self._here = tuple(self._here), {}
        self.round += 1
        return going

    def leave(self, request: str) -> None:
        """Somebody does not wait any more."""
        self._here.pop(request, None)

    def gone(self, holder: str) -> None:
        """A process, or all whose ids begin so, is dead."""
        self._here = {request: each for request, each in self._here.items() if not each.startswith(holder)}

    def __len__(self) -> int:
        return len(self._here)
