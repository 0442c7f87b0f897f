"""What passes between two nodes: letters of processes, in order and exactly once, however often the link breaks.

A letter is a frame that nobody opens on its way, with its destination and origin in front. Each peer has a courier
(core/courier.py); this performs what the couriers say, on the mesh. On TCP, headers by their first four bytes:

    ZL  letter   number u64, acknowledged u64, destination 8, origin 8; a second frame behind it
    ZW  a short letter as a whole, in one frame: as ZL, and its content
    ZP  a part of a long one, as ZL; the rest of it follows
    ZA  acknowledged u64, life 4
    ZN  the first number that is missing, u64, life 4

The life is the first half of the id of the node that it is said to, as in every destination: what was meant for the
node that had this address before is dropped.

**A hot path.** Calls between machines are short letters, each on its own when one call waits for the other: from the
door to the mesh and back they are one `bytes`, cut and put together once.
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
from zmreg.model.ids import NODE_BYTES, PROCESS_ID_BYTES
from zmreg.net.sockets import WHOLE_BYTES
from zmreg.services.network.detours import Way

Letter = tuple[bytes, bytes, bytes, bytes]
"""(kind, destination, origin, frame or part of one)."""

_LETTER: Final = b"ZL\x01\x00"
_PART: Final = b"ZP\x01\x00"
WHOLE: Final = b"ZW\x01\x00"
# A heartbeat cannot overtake a frame (reliability.md), and a gate takes 8 MiB at most (net/factory.py).
_PART_BYTES: Final = 1 << 20
_ACK: Final = b"ZA\x01\x00"
_RESEND: Final = b"ZN\x01\x00"
_HEADER: Final = struct.Struct(">4sQQ8s8s")
_NUMBER: Final = struct.Struct(">4sQ4s")
_SEQUENCE: Final = struct.Struct(">4sQQ")
"""What stands before the destination."""
_BY: Final = slice(8, 8 + NODE_BYTES)
"""The origin's node, in a letter of one piece."""
_CONTENT: Final = 16
_DAEMON: Final = bytes(PROCESS_ID_BYTES - NODE_BYTES)
_LIFE: Final = slice(20, 20 + NODE_BYTES)
"""Of the destination, in a letter's header."""
HEADER_BYTES: Final = _HEADER.size
# What time asks of couriers is counted in 20 ms and more: not in each turn of a busy node.
_LOOK_S: Final = 0.01
_NEVER: Final = float("inf")

GIVE_UP_S: Final = 10.0
"""As long as a silent node has (core/nodes.py)."""


class Letters:
    """The couriers of one node. `deliver(destination, origin, frame)` is called for each letter that arrives."""

    def __init__(self, me: bytes, mesh: Way, deliver: Callable[[bytes, bytes, bytes], None]) -> None:
        self._life = me[:NODE_BYTES]
        self._mesh = mesh
        self._deliver = deliver
        self.deliver_whole: Callable[[bytes], object] = self._split
        """Called for one that came in one piece: destination, origin, content."""
        self._overfull: dict[bytes, tuple[float, int, float] | None] = {}
        """Nodes for which more waits than may: (since when nothing moves, what was acknowledged, when it was told)."""
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
        kept = map(_parted, courier.kept())
        return [(destination, origin, frame) for kind, destination, origin, frame in kept if kind in (_LETTER, WHOLE)]

    def connected(self, node: bytes) -> None:
        """The link to a node is up again: what was on it may be lost."""
        courier = self.couriers.get(node)
        if courier is not None:
            self._touched.add(node)
            self._perform(node, courier.connected())

    def stuck(self) -> list[tuple[bytes, bool]]:
        """Each node, with whether it has acknowledged nothing for a while of what waits for it."""
        return [(node, courier.stuck) for node, courier in self.couriers.items()]

    def _too_much(self, node: bytes) -> None:
        self._overfull.setdefault(node, None)

    def overfull(self, now: float) -> list[tuple[bytes, str]]:
        """Nodes to be given up, and why: a courier's cap (1 GiB) is exceeded, and nothing has been acknowledged for
        `GIVE_UP_S`; or twice the cap is, by one that is slower than what is sent. Said again if nothing comes of it.
        """
        found = []
        for node, mark in list(self._overfull.items()):
            courier = self.couriers.get(node)
            if courier is None or not courier.overflow:
                del self._overfull[node]
                continue
            since, acked, told = mark or (now, courier.acked, float("-inf"))
            since = now if acked != courier.acked else since
            due = (courier.hopeless or now - since >= GIVE_UP_S) and now - told >= GIVE_UP_S
            self._overfull[node] = (since, courier.acked, now if due else told)
            if due:
                how = "is slower than what is sent" if now - since < GIVE_UP_S else f"takes nothing for {GIVE_UP_S:g} s"
                found.append((node, f"{how}, and {courier.unacked_bytes} bytes wait for it"))
        return found

    def send(self, node: bytes, destination: bytes, origin: bytes, frame: bytes) -> None:
        """Send a letter to a process of `node`, for which letters are open."""
        if len(frame) <= WHOLE_BYTES:
            self.send_whole(destination + origin + frame)
            return
        courier = self.couriers[node]
        self._touched.add(node)
        self.sent_bytes[node] = self.sent_bytes.get(node, 0) + len(frame)
        at = 0
        while len(frame) - at > _PART_BYTES:
            self._put(node, courier, (_PART, destination, origin, frame[at : at + _PART_BYTES]))
            at += _PART_BYTES
        self._put(node, courier, (_LETTER, destination, origin, frame[at:] if at else frame))
        if courier.overflow:
            self._too_much(node)

    def send_whole(self, letter: bytes) -> bool:
        """Send a letter in one piece: destination, origin, content. False: its node is not open, or it is too long."""
        node = letter[:NODE_BYTES] + _DAEMON
        courier = self.couriers.get(node)
        nbytes = len(letter) - _CONTENT
        if courier is None or nbytes > WHOLE_BYTES:
            return False
        number = courier.take_seq(letter, nbytes)
        if number:
            self._mesh.send(node, (_SEQUENCE.pack(WHOLE, number, courier.received) + letter,))
        self._touched.add(node)
        self.sent_bytes[node] = self.sent_bytes.get(node, 0) + nbytes
        if courier.overflow:
            self._too_much(node)
        return True

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

    def hear_whole(self, node: bytes, frame: bytes, now: float) -> bool:
        """`hear` for one frame that begins with WHOLE."""
        if len(frame) < HEADER_BYTES:
            return False
        self._touched.add(node)
        courier = self.couriers.get(node)
        if self.deaf or courier is None or frame[_LIFE] != self._life:
            return True
        _, number, ack = _SEQUENCE.unpack_from(frame)
        nbytes = len(frame) - HEADER_BYTES
        verdict = courier.accept(number, ack, nbytes)
        if not verdict:
            self._perform(node, courier.on_letter(number, ack, frame[_SEQUENCE.size :], nbytes, now))
            return True
        if verdict == ACK_DUE:
            self._mesh.send(node, (_NUMBER.pack(_ACK, courier.take_ack(), node[:NODE_BYTES]),))
        self._hand_on_whole(node, frame[_SEQUENCE.size :])
        return True

    def _hand_on_whole(self, node: bytes, letter: bytes) -> None:
        if letter[_BY] != node[:NODE_BYTES] or node in self._partial:
            self._partial.pop(node, None)
            raise ProtocolError(f"node {node.hex()} brought a letter that is not its own, or amid the parts of another")
        self.deliver_whole(letter)

    def _split(self, letter: bytes) -> None:
        _, destination, origin, frame = _parted(letter)
        self._deliver(destination, origin, frame)

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
                case Transmit(number, ack, bytes(letter)):
                    self._mesh.send(node, (_SEQUENCE.pack(WHOLE, number, ack) + letter,))
                case Transmit(number, ack, letter):
                    kind, destination, origin, frame = cast(Letter, letter)
                    self._mesh.send(node, (_HEADER.pack(kind, number, ack, destination, origin), frame))
                case SendAck(ack):
                    self._mesh.send(node, (_NUMBER.pack(_ACK, ack, node[:NODE_BYTES]),))
                case AskResend(first):
                    self._mesh.send(node, (_NUMBER.pack(_RESEND, first, node[:NODE_BYTES]),))
                case Deliver(bytes(letter)):
                    self._hand_on_whole(node, letter)
                case Deliver(letter):
                    self._assemble(node, cast(Letter, letter))
                case Overflow():
                    self._too_much(node)
                case _:
                    assert_never(effect)

    def look_at(self) -> float:
        """When `tick` has to be called for what has passed since its last time; inf: nothing has."""
        return self._look_at if self._touched else _NEVER

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


def _parted(letter: object) -> Letter:
    """What a courier keeps: a letter in one piece as bytes, any other as its parts."""
    if isinstance(letter, bytes):
        return WHOLE, letter[:8], letter[8:_CONTENT], letter[_CONTENT:]
    return cast(Letter, letter)
