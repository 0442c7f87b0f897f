"""The way between two nodes that cannot reach each other while others reach both: through one of these.

Two nodes may be cut off from each other alone: a firewall rule, a broken route. The head hears both, so none of them is
dead; without a way around, calls between them would wait for ever. What would go to such a node goes to a third one
with a header in front, and that one passes it on without looking inside:

    ZF  destination 8, origin 8; the frames as they are behind it

Letters are numbered and acknowledged from end to end (core/courier.py), so some may go straight and some around: each
counts once. Who is asked around answers around. A beat it is not: who is heard only so stays suspected, and no new work
is placed there. Between a node and the head there is no detour: the head decides who is dead by what it hears itself.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from typing import Any, Final, Protocol

from zmreg.core.nodes import Members, NodeState
from zmreg.model.record import Record

_FORWARD: Final = b"ZF\x01\x00"
_HEADER: Final = struct.Struct(">4s8s8s")
_REVIEW_S: Final = 0.5
# A way that has just broken is given so long before it is tried again: trying costs a silence of 3 s.
_LEAST_S: Final = 10.0


class Way(Protocol):
    """What sends frames to a node: the mesh, or this."""

    def send(self, node: bytes, frames: Sequence[Any]) -> bool:
        """False when there is no connection; True proves nothing."""


class Forwarded(Record):
    """Frames that came around: who said them."""

    origin: bytes
    frames: list[Any]


class _Detour:
    __slots__ = ("began", "relay")

    def __init__(self, relay: bytes, now: float) -> None:
        self.relay = relay
        self.began = now


class Detours:
    """The detours of one node, and its share in those of others."""

    def __init__(self, me: bytes, mesh: Way, members: Members) -> None:
        self._me = me
        self._mesh = mesh
        self._members = members
        self._by: dict[bytes, _Detour] = {}
        self._reviewed = float("-inf")
        self.passed_on = 0
        """Messages of others that went through here."""
        self.begun = 0

    def send(self, node: bytes, frames: Sequence[Any]) -> bool:
        """To the node, straight or around."""
        if node in self._by:
            header = _HEADER.pack(_FORWARD, node, self._me)
            return self._mesh.send(self._by[node].relay, (header, *frames))
        return self._mesh.send(node, frames)

    @staticmethod
    def is_forwarded(frame: bytes) -> bool:
        """Whether a message that begins so came around, or is to be passed on."""
        return frame[:4] == _FORWARD

    def hear(self, sender: bytes, frames: list[Any], now: float) -> Forwarded | None:
        """Pass on what is for somebody else; what is for us comes back. None, too, for what makes no sense."""
        if len(frames[0]) != _HEADER.size or len(frames) < 2:
            return None
        _, destination, origin = _HEADER.unpack(frames[0])
        if destination != self._me:
            # One step only: `sender` speaks for itself, and the destination has to be a node we know.
            if origin == sender and self._members.record(destination) is not None:
                self.passed_on += 1
                self._mesh.send(destination, [_plain(frame) for frame in frames])
            return None
        if self._members.record(origin) is None or origin == self._me:
            return None
        return Forwarded(origin, frames[1:])

    def came_around(self, node: bytes, relay: bytes, now: float) -> bool:
        """`node` was heard through `relay`: it is answered so. Whether that is new."""
        known = self._by.get(node)
        if known is not None:
            return False
        self._begin(node, relay, now)
        return True

    def review(self, stuck: Iterable[tuple[bytes, bool]], now: float) -> list[bytes]:
        """`stuck`: every other node, with whether it acknowledges nothing. Those whose way has changed."""
        if now - self._reviewed < _REVIEW_S:
            return []
        self._reviewed = now
        changed = []
        for node, is_stuck in stuck:
            detour = self._by.get(node)
            if detour is None:
                relay = self._relay(node) if is_stuck or self._members.state(node) is NodeState.SUSPECTED else None
                if relay is not None:
                    self._begin(node, relay, now)
                    changed.append(node)
            elif now - detour.began >= _LEAST_S and self._members.usable(node):
                del self._by[node]
                changed.append(node)
            elif not self._members.usable(detour.relay):
                del self._by[node]
        return changed

    def _begin(self, node: bytes, relay: bytes, now: float) -> None:
        self.begun += 1
        self._by[node] = _Detour(relay, now)

    def _relay(self, node: bytes) -> bytes | None:
        head = self._members.head
        if head in (None, node, self._me):
            return None
        others = [head, *self._members.alive()]
        return next((each for each in others if each not in (node, self._me) and self._members.usable(each)), None)

    def forget(self, node: bytes) -> None:
        """That node is gone."""
        self._by.pop(node, None)
        for other in [other for other, detour in self._by.items() if detour.relay == node]:
            del self._by[other]

    def around(self) -> dict[bytes, bytes]:
        """{node: the one it is reached through}."""
        return {node: detour.relay for node, detour in self._by.items()}


def _plain(frame: Any) -> bytes | memoryview:
    return frame if isinstance(frame, bytes) else memoryview(frame.buffer)
