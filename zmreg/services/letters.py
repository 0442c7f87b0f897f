"""What passes between two nodes: letters of processes, in order and exactly once, however often the link breaks.

A letter is a frame that nobody opens on its way, with its destination and origin in front. Each peer has a courier
(core/courier.py); this performs what the couriers say, on the mesh. On TCP, headers by their first four bytes:

    ZL  letter   number u64, acknowledged u64, destination 8, origin 8; a second frame behind it
    ZP  a part of a long one, as ZL; the rest of it follows
    ZA  acknowledged u64
    ZN  the first number that is missing, u64
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable
from typing import Final, assert_never, cast

from zmreg.core.courier import (
    ACK_DUE,
    AskResend,
    Courier,
    CourierEffect,
    Deliver,
    Overflow,
    SendAck,
    Transmit,
)
from zmreg.net.mesh import Mesh

Letter = tuple[bytes, bytes, bytes, bytes]
"""(kind, destination, origin, frame or part of one)."""

_LETTER: Final = b"ZL\x01\x00"
_PART: Final = b"ZP\x01\x00"
# A heartbeat cannot overtake a frame (reliability.md), and a gate takes 8 MiB at most (net/factory.py).
_PART_BYTES: Final = 1 << 20
_ACK: Final = b"ZA\x01\x00"
_RESEND: Final = b"ZN\x01\x00"
_HEADER: Final = struct.Struct(">4sQQ8s8s")
_NUMBER: Final = struct.Struct(">4sQ")
HEADER_BYTES: Final = _HEADER.size


class Letters:
    """The couriers of one node. `deliver(destination, origin, frame)` is called for each letter that arrives."""

    def __init__(
        self, mesh: Mesh, deliver: Callable[[bytes, bytes, bytes], None], gave_up: Callable[[bytes], None]
    ) -> None:
        """`gave_up(node)`: more waits for it than may."""
        self._mesh = mesh
        self._deliver = deliver
        self._gave_up = gave_up
        self.couriers: dict[bytes, Courier] = {}
        self._touched: set[bytes] = set()
        self._due: dict[bytes, float] = {}
        self._partial: dict[bytes, list[bytes]] = {}

    def open(self, node: bytes) -> None:
        """Letters go to and come from this node from now on."""
        self.couriers.setdefault(node, Courier())

    def close(self, node: bytes) -> None:
        """That node is gone: what was kept for it is dropped."""
        self.couriers.pop(node, None)
        self._partial.pop(node, None)

    def connected(self, node: bytes) -> None:
        """The link to a node is up again: what was on it may be lost."""
        courier = self.couriers.get(node)
        if courier is not None:
            self._touched.add(node)
            self._perform(node, courier.connected())

    def send(self, node: bytes, destination: bytes, origin: bytes, frame: bytes) -> None:
        """Send a letter to a process of `node`, for which letters are open."""
        courier = self.couriers[node]
        self._touched.add(node)
        at = 0
        while len(frame) - at > _PART_BYTES:
            self._put(node, courier, (_PART, destination, origin, frame[at : at + _PART_BYTES]))
            at += _PART_BYTES
        self._put(node, courier, (_LETTER, destination, origin, frame[at:] if at else frame))
        if courier.overflow:
            self._gave_up(node)

    def _put(self, node: bytes, courier: Courier, letter: Letter) -> None:
        kind, destination, origin, frame = letter
        number = courier.take_seq(letter, len(frame))
        if number:
            self._mesh.send(node, (_HEADER.pack(kind, number, courier.received, destination, origin), frame))

    def hear(self, node: bytes, frames: list[bytes], now: float) -> bool:
        """Act on what came from a node; False when it is something else, or for nobody."""
        kind = frames[0][:4]
        courier = self.couriers.get(node)
        self._touched.add(node)
        if kind in (_LETTER, _PART) and len(frames) == 2 and len(frames[0]) == HEADER_BYTES:
            if courier is not None:
                self._on_letter(node, courier, frames, now)
        elif kind in (_ACK, _RESEND) and len(frames) == 1 and len(frames[0]) == _NUMBER.size:
            number: int = _NUMBER.unpack(frames[0])[1]
            if courier is not None:
                self._perform(node, courier.on_ack(number) if kind == _ACK else courier.on_resend(number, now))
        else:
            return False
        return True

    def _on_letter(self, node: bytes, courier: Courier, frames: list[bytes], now: float) -> None:
        kind, number, ack, destination, origin = _HEADER.unpack(frames[0])
        frame = frames[1]
        verdict = courier.accept(number, ack, len(frame))
        if not verdict:
            letter = (kind, destination, origin, frame)
            self._perform(node, courier.on_letter(number, ack, letter, len(frame), now))
            return
        if verdict == ACK_DUE:
            self._mesh.send(node, (_NUMBER.pack(_ACK, courier.take_ack()),))
        if kind == _LETTER and node not in self._partial:
            self._deliver(destination, origin, frame)
        else:
            self._assemble(node, (kind, destination, origin, frame))

    def _assemble(self, node: bytes, letter: Letter) -> None:
        """Parts of one letter come one behind the other, so that there is one at a time from each node."""
        kind, destination, origin, frame = letter
        parts = self._partial.setdefault(node, [])
        parts.append(frame)
        if kind == _LETTER:
            del self._partial[node]
            self._deliver(destination, origin, b"".join(parts))

    def _perform(self, node: bytes, effects: Iterable[CourierEffect]) -> None:
        for effect in effects:
            match effect:
                case Transmit(number, ack, letter):
                    kind, destination, origin, frame = cast(Letter, letter)
                    self._mesh.send(node, (_HEADER.pack(kind, number, ack, destination, origin), frame))
                case SendAck(ack):
                    self._mesh.send(node, (_NUMBER.pack(_ACK, ack),))
                case AskResend(first):
                    self._mesh.send(node, (_NUMBER.pack(_RESEND, first),))
                case Deliver(letter):
                    self._assemble(node, cast(Letter, letter))
                case Overflow():
                    self._gave_up(node)
                case _:
                    assert_never(effect)

    def tick(self, now: float) -> float | None:
        """At the end of a turn: acknowledge and send again what is due. When to call at the latest; None: no need."""
        due = self._due
        for node in [*self._touched, *(node for node, at in due.items() if at <= now)]:
            courier = self.couriers.get(node)
            if courier is None:
                due.pop(node, None)
                continue
            self._perform(node, courier.tick(now))
            at = courier.due()
            if at is None:
                due.pop(node, None)
            else:
                due[node] = at
        self._touched.clear()
        return min(due.values(), default=None)
