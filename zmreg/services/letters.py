"""What passes between two nodes: letters of processes, in order and exactly once, however often the link breaks.

A letter is a frame that nobody opens on its way, with its destination and origin in front. Each peer has a courier
(core/courier.py); this performs what the couriers say, on the mesh. On TCP, headers by their first four bytes:

    ZL  letter   number u64, acknowledged u64, destination 8, origin 8; a second frame behind it
    ZP  a part of a long one, as ZL; the rest of it follows
    ZA  acknowledged u64, life 4
    ZN  the first number that is missing, u64, life 4

The life is the first half of the id of the node that it is said to, as in every destination: what was meant for the
node that had this address before is dropped.
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
from zmreg.model.errors import ProtocolError
from zmreg.model.ids import NODE_BYTES
from zmreg.services.detours import Way

Letter = tuple[bytes, bytes, bytes, bytes]
"""(kind, destination, origin, frame or part of one)."""

_LETTER: Final = b"ZL\x01\x00"
_PART: Final = b"ZP\x01\x00"
# A heartbeat cannot overtake a frame (reliability.md), and a gate takes 8 MiB at most (net/factory.py).
_PART_BYTES: Final = 1 << 20
_ACK: Final = b"ZA\x01\x00"
_RESEND: Final = b"ZN\x01\x00"
_HEADER: Final = struct.Struct(">4sQQ8s8s")
_NUMBER: Final = struct.Struct(">4sQ4s")
_LIFE: Final = slice(20, 20 + NODE_BYTES)
"""Of the destination, in a letter's header."""
HEADER_BYTES: Final = _HEADER.size
# What time asks of couriers is counted in 20 ms and more: not in each turn of a busy node.
_LOOK_S: Final = 0.005


class Letters:
    """The couriers of one node. `deliver(destination, origin, frame)` is called for each letter that arrives."""

    def __init__(
        self, me: bytes, mesh: Way, deliver: Callable[[bytes, bytes, bytes], None], gave_up: Callable[[bytes], None]
    ) -> None:
        """`gave_up(node)`: more waits for it than may."""
        self._life = me[:NODE_BYTES]
        self._mesh = mesh
        self._deliver = deliver
        self._gave_up = gave_up
        self.couriers: dict[bytes, Courier] = {}
        self._touched: set[bytes] = set()
        self._look_at = float("-inf")
        self._due: dict[bytes, float] = {}
        self._partial: dict[bytes, list[bytes]] = {}
        self.deaf = False
        """We are about to leave: letters are not read any more, and not acknowledged."""
        self.sent_bytes: dict[bytes, int] = {}
        """Of letters' contents, to each node so far; what came is counted by the couriers."""

    def open(self, node: bytes) -> None:
        """Letters go to and come from this node from now on."""
        self.couriers.setdefault(node, Courier())

    def unread(self, node: bytes) -> int:
        """Letters that it has not acknowledged."""
        courier = self.couriers.get(node)
        return courier.statistics().unacked if courier is not None else 0

    def close(self, node: bytes) -> list[tuple[bytes, bytes, bytes]]:
        """That node is gone. What it has not read: (destination, origin, frame), without what came in parts."""
        courier = self.couriers.pop(node, None)
        self._partial.pop(node, None)
        if courier is None:
            return []
        self._mesh.send(node, (_NUMBER.pack(_ACK, courier.take_ack(), node[:NODE_BYTES]),))  # if it leaves in peace
        kept = cast(list[Letter], courier.kept())
        return [(destination, origin, frame) for kind, destination, origin, frame in kept if kind == _LETTER]

    def connected(self, node: bytes) -> None:
        """The link to a node is up again: what was on it may be lost."""
        courier = self.couriers.get(node)
        if courier is not None:
            self._touched.add(node)
            self._perform(node, courier.connected())

    def stuck(self) -> list[tuple[bytes, bool]]:
        """Each node, with whether it has acknowledged nothing for a while of what waits for it."""
        return [(node, courier.stuck) for node, courier in self.couriers.items()]

    def send(self, node: bytes, destination: bytes, origin: bytes, frame: bytes) -> None:
        """Send a letter to a process of `node`, for which letters are open."""
        courier = self.couriers[node]
        self._touched.add(node)
        self.sent_bytes[node] = self.sent_bytes.get(node, 0) + len(frame)
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
        """Act on what came from a node; False when it is something else. ProtocolError for a letter that is forged."""
        kind = frames[0][:4]
        courier = self.couriers.get(node)
        self._touched.add(node)
        if kind in (_LETTER, _PART) and len(frames) == 2 and len(frames[0]) == HEADER_BYTES:
            if not self.deaf and courier is not None and frames[0][_LIFE] == self._life:
                self._on_letter(node, courier, frames, now)
        elif kind in (_ACK, _RESEND) and len(frames) == 1 and len(frames[0]) == _NUMBER.size:
            _, number, life = _NUMBER.unpack(frames[0])
            if courier is not None and life == self._life:
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
            self._mesh.send(node, (_NUMBER.pack(_ACK, courier.take_ack(), node[:NODE_BYTES]),))
        if kind == _LETTER and node not in self._partial:
            self._hand_on(node, destination, origin, frame)
        else:
            self._assemble(node, (kind, destination, origin, frame))

    def _hand_on(self, node: bytes, destination: bytes, origin: bytes, frame: bytes) -> None:
        """A node speaks for its own processes and for nobody else's."""
        if origin[:NODE_BYTES] != node[:NODE_BYTES]:
            raise ProtocolError(f"node {node.hex()} brought a letter of {origin.hex()}, which is not its own")
        self._deliver(destination, origin, frame)

    def _assemble(self, node: bytes, letter: Letter) -> None:
        """Parts of one letter come one behind the other, so that there is one at a time from each node."""
        kind, destination, origin, frame = letter
        parts = self._partial.setdefault(node, [])
        parts.append(frame)
        if kind == _LETTER:
            del self._partial[node]
            self._hand_on(node, destination, origin, b"".join(parts))

    def _perform(self, node: bytes, effects: Iterable[CourierEffect]) -> None:
        for effect in effects:
            match effect:
                case Transmit(number, ack, letter):
                    kind, destination, origin, frame = cast(Letter, letter)
                    self._mesh.send(node, (_HEADER.pack(kind, number, ack, destination, origin), frame))
                case SendAck(ack):
                    self._mesh.send(node, (_NUMBER.pack(_ACK, ack, node[:NODE_BYTES]),))
                case AskResend(first):
                    self._mesh.send(node, (_NUMBER.pack(_RESEND, first, node[:NODE_BYTES]),))
                case Deliver(letter):
                    self._assemble(node, cast(Letter, letter))
                case Overflow():
                    self._gave_up(node)
                case _:
                    assert_never(effect)

    def tick(self, now: float) -> float | None:
        """At the end of a turn: acknowledge and send again what is due. When to call at the latest; None: no need."""
        due = self._due
        if now < self._look_at:
            return self._look_at if self._touched else min(due.values(), default=None)
        self._look_at = now + _LOOK_S
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
