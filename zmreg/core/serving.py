"""Giving objects to other nodes: chunks as far as credit allows, many transfers in turn, one object in a tree.

A pure machine: each input returns what is to be done, in that order. While it is `busy` the node's loop calls `step`
once a turn, which hands a few chunks to the socket and returns, so that the loop stays with everybody else as well.

Promises:
- Each PinObject that was answered with `pinned` ends in one UnpinObject: when the peer has said that it has all, or
  wants no more, or died, or has said nothing for `idle_s` while nothing could be sent.
- No byte is sent that was not asked for, none twice within a transfer, and they go in order.
- What was handed to sockets and has not arrived, as far as credits tell, stays within `handed_bytes` and a chunk.
- Of one object, `copies` transfers at most go to different nodes at a time. Others are told BUSY and who got it from
  here: later ones fetch from earlier ones, and what leaves here grows with the logarithm of their number. Requests for
  no more than `small_bytes` are always served: asking around would take longer.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Final

from zmreg.core.fetch_effects import PinObject, Refuse, SayWait, SendChunk, ServeEffect, UnpinObject
from zmreg.core.graves import Graves
from zmreg.model.fetch_messages import CHUNK_BYTES, WINDOW_BYTES, Refusal

# Who waits for bytes from disk is told so after half a second, and then once a second: well within a peer's patience.
_FIRST_WAIT_S: Final = 0.5
_NEXT_WAIT_S: Final = 1.0
# Remembered of those who got an object: enough to send latecomers to, and 8 bytes each in a refusal.
_OTHERS_KEPT: Final = 64
_OBJECTS_KEPT: Final = 1_024


@dataclass(frozen=True, slots=True)
class ServeLimits:
    """Bounds of what one node gives. Sizes in bytes, times in seconds."""

    chunk_bytes: int = CHUNK_BYTES
    large_chunk_bytes: int = 2 * CHUNK_BYTES
    """For who takes half a window in `quick_s`: each chunk costs both nodes some 0.1 ms, whatever its size."""
    least_chunk_bytes: int = CHUNK_BYTES // 4
    """The first chunks are small, and the last: nobody can do anything before the first is there and after the last
    has left. Smaller ones the mesh would copy."""
    quick_s: float = 0.1
    copies: int = 2
    """Transfers of one object to different nodes at a time."""
    small_bytes: int = CHUNK_BYTES
    transfers: int = 64
    """Transfers in all; more are told BUSY."""
    turn_chunks: int = 8
    """Chunks handed to the socket in one `step`: a MiB takes about a millisecond under CURVE."""
    handed_bytes: int = 256 << 20
    idle_s: float = 10.0


@dataclass(slots=True)
class GivenStatistics:
    """What went to one node since the start; `objects` counts those it has confirmed."""

    objects: int = 0
    nbytes: int = 0
    refused: int = 0


@dataclass(frozen=True, slots=True)
class ServeStatistics:
    """`transfers` to `handed_bytes` are of this moment, the rest counts from the start."""

    transfers: int
    pinning: int
    handed_bytes: int
    ignored: int
    """Requests and credits that made no sense, or came late."""
    gave_up: int
    """Transfers ended because their peer was silent."""
    links: dict[bytes, GivenStatistics]


@dataclass(slots=True, eq=False)
class _Outgoing:
    """One transfer. Invariant: acked <= sent <= upto <= nbytes once it is pinned."""

    key: bytes
    peer: bytes
    transfer: int
    object_id: bytes
    sent: int
    upto: int
    small: bool
    word_at: float
    wait_at: float
    acked: int
    """Everything before has arrived, as far as credits tell."""
    arena_offset: int = -1
    nbytes: int = -1
    """-1 until it is pinned."""
    in_line: bool = False
    begun: int = 0
    """The first byte that was asked for."""
    quick: bool = False
    """Its last credit came soon."""

    @property
    def sendable(self) -> bool:
        return self.sent < min(self.upto, self.nbytes)


@dataclass(slots=True)
class _Counts:
    ignored: int = 0
    gave_up: int = 0
    links: dict[bytes, GivenStatistics] = field(default_factory=dict)

    def link(self, node: bytes) -> GivenStatistics:
        found = self.links.get(node)
        if found is None:
            found = self.links[node] = GivenStatistics()
        return found


class Serving:
    """See the module. `now` is seconds of any clock that does not go back."""

    def __init__(self, limits: ServeLimits | None = None) -> None:
        self.limits = limits or ServeLimits()
        self._transfers: dict[bytes, _Outgoing] = {}
        self._takers: dict[bytes, dict[bytes, _Outgoing]] = {}  # object -> peer -> its transfer
        self._line: deque[_Outgoing] = deque()  # those who can send, in turn; some of them may be over
        self._unwanted: dict[bytes, bytes] = {}  # key -> object whose PinObject is still to be answered, to no use
        self._given: dict[bytes, dict[bytes, None]] = {}  # object -> who has got it from here, oldest first
        self._over = Graves()  # transfers that have ended: a request of theirs that comes again is an echo
        self._handed = 0
        self._counts = _Counts()

    def __repr__(self) -> str:
        return f"<Serving [{len(self._transfers)}/{self.limits.transfers} transfers | {len(self._line)} can send]>"

    def __len__(self) -> int:
        """How many transfers there are; while there are any, `tick` has to be called."""
        return len(self._transfers)

    @property
    def busy(self) -> bool:
        """Whether `step` may have something to send."""
        return bool(self._line) and self._handed < self.limits.handed_bytes

    # -- what peers say -----------------------------------------------------------------------------------------------

    def on_request(
        self, peer: bytes, transfer: int, object_id: bytes, offset: int, upto: int, now: float
    ) -> list[ServeEffect]:
        """FetchObject. A newer transfer of the same object to the same peer takes the place of an older one."""
        key = key_of(peer, transfer)
        takers = self._takers.get(object_id, {})
        before = takers.get(peer)
        echo = key in self._transfers or key in self._over or (before is not None and before.transfer > transfer)
        if echo or not 0 <= offset < upto:
            self._counts.ignored += 1
            return []
        effects = self._drop(before) if before is not None else []
        small = upto - offset <= self.limits.small_bytes
        large = sum(not other.small for other in takers.values())
        if len(self._transfers) >= self.limits.transfers or (not small and large >= self.limits.copies):
            return [*effects, self._refusal(peer, transfer, object_id, "BUSY", -1)]
        upto = min(upto, offset + WINDOW_BYTES)
        out = _Outgoing(
            key, peer, transfer, object_id, offset, upto, small, now, now + _FIRST_WAIT_S, offset, begun=offset
        )
        self._transfers[key] = out
        self._takers.setdefault(object_id, {})[peer] = out
        return [PinObject(object_id, key), *effects]  # in this order, lest the object leaves between the two

    def on_credit(self, peer: bytes, transfer: int, upto: int, now: float) -> None:
        """FetchCredit: it has consumed all but a window before `upto`."""
        out = self._transfers.get(key_of(peer, transfer))
        if out is None:
            self._counts.ignored += 1
            return
        out.quick = now - out.word_at <= self.limits.quick_s
        out.word_at = now
        if out.nbytes >= 0:
            self._acknowledge(out, min(upto - WINDOW_BYTES, out.sent))
        out.upto = max(out.upto, min(upto, out.sent + WINDOW_BYTES))
        self._line_up(out)

    def on_stop(self, peer: bytes, transfer: int) -> list[ServeEffect]:
        """FetchStop: it has all, or needs no more."""
        out = self._transfers.get(key_of(peer, transfer))
        if out is None:
            self._counts.ignored += 1
            return []
        if out.sent == out.nbytes:
            self._counts.link(peer).objects += 1
            self._remember(out.object_id, peer)
        return self._drop(out)

    def peer_gone(self, node: bytes) -> list[ServeEffect]:
        """`node` is dead: all its transfers end."""
        for given in self._given.values():
            given.pop(node, None)
        outs = [out for out in self._transfers.values() if out.peer == node]
        return [effect for out in outs for effect in self._drop(out)]

    # -- what the own store says --------------------------------------------------------------------------------------

    def pinned(self, key: bytes, arena_offset: int, nbytes: int) -> list[ServeEffect]:
        """The object lies at `arena_offset` until it is unpinned."""
        unwanted = self._unwanted.pop(key, None)
        if unwanted is not None:
            return [UnpinObject(unwanted, key)]
        out = self._transfers.get(key)
        if out is None or out.nbytes >= 0:
            self._counts.ignored += 1
            return []
        if out.upto > nbytes:
            refusal = self._refusal(out.peer, out.transfer, out.object_id, "WRONG_SIZE", nbytes)
            self._forget(out)
            return [refusal, UnpinObject(out.object_id, key)]
        out.arena_offset, out.nbytes = arena_offset, nbytes
        self._line_up(out)
        return []

    def missing(self, key: bytes, reason: Refusal = "NOT_HERE", nbytes: int = -1) -> list[ServeEffect]:
        """The object cannot be read here, or not any more."""
        if self._unwanted.pop(key, None) is not None:
            return []
        out = self._transfers.get(key)
        if out is None or out.nbytes >= 0:
            self._counts.ignored += 1
            return []
        self._forget(out)
        return [self._refusal(out.peer, out.transfer, out.object_id, reason, nbytes)]

    def freed(self, object_id: bytes) -> None:
        """It is gone from here for good: nobody will ask who got it. Transfers under way have their pins and go on."""
        self._given.pop(object_id, None)

    # -- turns and time -----------------------------------------------------------------------------------------------

    def step(self) -> list[ServeEffect]:
        """The next few chunks, one of each transfer in turn."""
        effects: list[ServeEffect] = []
        while len(effects) < self.limits.turn_chunks and self.busy:
            out = self._line.popleft()
            out.in_line = False
            if out.key not in self._transfers or not out.sendable:
                continue
            nbytes = min(self._chunk_bytes(out), min(out.upto, out.nbytes) - out.sent)
            effects.append(SendChunk(out.peer, out.transfer, out.sent, out.arena_offset + out.sent, nbytes))
            out.sent += nbytes
            self._handed += nbytes
            self._counts.link(out.peer).nbytes += nbytes
            self._line_up(out)
        return effects

    def tick(self, now: float) -> list[ServeEffect]:
        """Time passes; to be called some ten times a second while there are transfers."""
        effects: list[ServeEffect] = []
        for out in list(self._transfers.values()):
            if out.nbytes < 0:
                # The store answers every pin, also one that finds no memory: this ends without our help.
                out.word_at = now
                if now >= out.wait_at:
                    out.wait_at = now + _NEXT_WAIT_S
                    effects.append(SayWait(out.peer, out.transfer))
            elif out.in_line:
                out.word_at = now
            elif now - out.word_at >= self.limits.idle_s:
                self._counts.gave_up += 1
                effects += self._drop(out)
        return effects

    def statistics(self) -> ServeStatistics:
        """What is under way, and what was."""
        return ServeStatistics(
            transfers=len(self._transfers),
            pinning=sum(out.nbytes < 0 for out in self._transfers.values()) + len(self._unwanted),
            handed_bytes=self._handed,
            ignored=self._counts.ignored,
            gave_up=self._counts.gave_up,
            links={
                node: GivenStatistics(link.objects, link.nbytes, link.refused)
                for node, link in self._counts.links.items()
            },
        )

    # -- inside -------------------------------------------------------------------------------------------------------

    def _line_up(self, out: _Outgoing) -> None:
        if out.sendable and not out.in_line:
            out.in_line = True
            self._line.append(out)

    def _chunk_bytes(self, out: _Outgoing) -> int:
        """At most as much as has gone before, and half of what is left."""
        limits = self.limits
        least = min(limits.least_chunk_bytes, limits.chunk_bytes)
        most = limits.large_chunk_bytes if out.quick else limits.chunk_bytes
        even = min(out.sent - out.begun, (out.nbytes - out.sent) // 2) // least * least
        return max(least, min(most, even))

    def _acknowledge(self, out: _Outgoing, upto: int) -> None:
        if upto > out.acked:
            self._handed -= upto - out.acked
            out.acked = upto

    def _forget(self, out: _Outgoing) -> None:
        self._acknowledge(out, out.sent)
        self._over.bury(out.key)
        del self._transfers[out.key]
        takers = self._takers[out.object_id]
        del takers[out.peer]
        if not takers:
            del self._takers[out.object_id]

    def _drop(self, out: _Outgoing) -> list[ServeEffect]:
        self._forget(out)
        if out.nbytes < 0:
            self._unwanted[out.key] = out.object_id
            return []
        return [UnpinObject(out.object_id, out.key)]

    def _refusal(self, peer: bytes, transfer: int, object_id: bytes, reason: Refusal, nbytes: int) -> Refuse:
        self._counts.link(peer).refused += 1
        self._over.bury(key_of(peer, transfer))
        # Who has it whole comes first, the last of them foremost: he has been asked least.
        known = [*reversed(self._given.get(object_id, {})), *self._takers.get(object_id, {})]
        others = tuple(dict.fromkeys(other for other in known if other != peer))
        return Refuse(peer, transfer, reason, others, nbytes)

    def _remember(self, object_id: bytes, peer: bytes) -> None:
        given = self._given.pop(object_id, {})
        given.pop(peer, None)
        given[peer] = None
        if len(given) > _OTHERS_KEPT:
            del given[next(iter(given))]
        self._given[object_id] = given
        if len(self._given) > _OBJECTS_KEPT:
            del self._given[next(iter(self._given))]


def key_of(peer: bytes, transfer: int) -> bytes:
    """16 bytes that name a transfer on this node; transfers are numbered by the peer."""
    return peer + transfer.to_bytes(8, "big")
