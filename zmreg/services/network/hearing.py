"""What other nodes say, by the way it came: sorted, checked, and handed to whom it concerns. Nonsense is counted.

Whoever speaks here has the cluster's key, so nonsense is no attack but another version of us, or a fault of ours; it
must not end a node either way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from zmreg.core import nodes as fx
from zmreg.model.errors import ProtocolError
from zmreg.model.messages import (
    Admitted,
    AskHead,
    AskReplay,
    AskSnapshot,
    Beacon,
    Delta,
    Fenced,
    FetchCredit,
    FetchObject,
    FetchRefused,
    FetchStop,
    FetchWait,
    Join,
    Message,
    NodeRecord,
    NotAdmitted,
    SnapshotPart,
)
from zmreg.services.network.detours import Detours
from zmreg.services.network.letters import WHOLE
from zmreg.services.network.tables import TableMessage
from zmreg.wire import chunks, codec

if TYPE_CHECKING:
    from zmreg.services.network.neighbours import Neighbours
    from zmreg.services.node.node import Node


def _bytes(frame: Any) -> bytes:
    """Large frames come as `zmq.Frame`s, which cannot be sliced."""
    return frame if isinstance(frame, bytes) else bytes(frame.bytes)


class Hearing:
    """The ears of one node."""

    def __init__(self, neighbours: Neighbours, node: Node, perform: Callable[[Iterable[fx.NodeEffect]], None]) -> None:
        """`perform` does what the members table decides."""
        self._neighbours = neighbours
        self._node = node
        self._perform = perform

    def hear(self, sender: bytes, frames: list[Any], now: float) -> None:
        """A message at the gate."""
        back = self._neighbours.members.on_beat(sender, now)
        if back:
            self._perform(back)
        try:
            if self._neighbours.members.is_fenced(sender):
                self._neighbours.verdicts.hear_fenced(frames)
                return
            if len(frames) == 1 and frames[0][:4] == WHOLE:
                self._node.protocol_errors += not self._neighbours.letters.hear_whole(sender, frames[0], now)
                return
            self._node.turn_due = True
            if frames and Detours.is_forwarded(first := _bytes(frames[0])):
                self._hear_around(sender, [first, *frames[1:]], now)
            elif not self._hear_frames(sender, frames, now):
                self._node.protocol_errors += 1
        except ProtocolError:  # a member's, so not an attack: another version of us, or a fault of ours
            self._node.protocol_errors += 1

    def _hear_around(self, relay: bytes, frames: list[Any], now: float) -> None:
        heard = self._neighbours.detours.hear(relay, frames, now)
        if heard is not None:
            if self._neighbours.detours.came_around(heard.origin, relay, now):
                self._neighbours.letters.connected(heard.origin)
            if not self._hear_frames(heard.origin, heard.frames, now):
                self._node.protocol_errors += 1

    def _hear_frames(self, sender: bytes, frames: list[Any], now: float) -> bool:
        """Act on a message; False when it is none of ours. Raises ProtocolError for one that is malformed."""
        if not frames:
            return False
        first = _bytes(frames[0])
        if first[:2] == codec.MAGIC and len(frames) == 1:
            self._on_raw(sender, codec.decode(first), now)
            return True
        if chunks.is_chunk(first) and len(frames) == 2:
            self._neighbours.fetcher.on_chunk(first, frames[1], now)
            return True
        if first[:4] == WHOLE and len(frames) == 1:
            return self._neighbours.letters.hear_whole(sender, first, now)
        return self._neighbours.letters.hear(sender, [first, *map(_bytes, frames[1:])], now)

    def _on_raw(self, sender: bytes, message: Message, now: float) -> None:
        match message:
            case Join() | Admitted() | NotAdmitted() | AskHead():
                self._neighbours.admission.hear(sender, message, now)
            case NodeRecord(node):
                if node != sender:
                    raise ProtocolError("a node's record comes from itself, or by letter from the head")
                self._neighbours.learn(message, now)
            case Fenced():
                self._neighbours.verdicts.on_fenced(sender, message)
            case FetchObject() | FetchCredit() | FetchStop() | FetchRefused() | FetchWait():
                self._neighbours.fetcher.on_message(sender, message, now)
            case Delta() | Beacon() | AskReplay() | AskSnapshot() | SnapshotPart():
                self._on_table(sender, message, now)
            case _:
                self._node.protocol_errors += 1

    def _on_table(self, sender: bytes, message: TableMessage, now: float) -> None:
        """A word about one of the replicated tables."""
        table = self._neighbours.tables.get(message.table)
        if table is None:
            self._node.protocol_errors += 1
        else:
            table.on_message(sender, message, now)

    def overhear(self, frame: bytes, now: float) -> None:
        """What another node has published."""
        try:
            self._on_published(codec.decode(frame), now)
        except ProtocolError:
            self._node.protocol_errors += 1

    def _on_published(self, message: Message, now: float) -> None:
        if isinstance(message, NodeRecord):
            self._perform(self._neighbours.members.on_beat(message.node, now))
            self._neighbours.learn(message, now)
            self._node.placing.room_changed()
        elif isinstance(message, Delta | Beacon):
            self._perform(self._neighbours.members.on_beat(message.node, now))
            if self._neighbours.members.record(message.node) is not None:
                self._on_table(message.node, message, now)
        else:
            self._node.protocol_errors += 1
