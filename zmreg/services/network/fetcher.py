"""Objects that move between nodes: what the machines of both ends decide (core/fetching.py, serving.py) is done here.

A reader's pin of an object that is not in the store waits here while the object comes; then it is a pin like any other.
The node is the creator of what it fetches and, in the name of each transfer, a reader of what it gives.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Literal, assert_never

from zmreg.core import fetch_effects as fx
from zmreg.core.fetching import Fetching
from zmreg.core.graves import Graves
from zmreg.core.serving import Serving, key_of
from zmreg.model.errors import ObjectStoreFullError
from zmreg.model.ids import NODE_BYTES, node_of
from zmreg.model.messages import (
    FetchCredit,
    FetchObject,
    FetchRefused,
    FetchStop,
    FetchWait,
    FreeObjects,
    Message,
    Pin,
    PinRefused,
    Prefetch,
    Replicate,
    Replicated,
    Revive,
    Sealed,
)
from zmreg.services.network.lending import Lending
from zmreg.store.objects import ALREADY_HERE
from zmreg.wire import chunks

if TYPE_CHECKING:
    from zmreg.services.node.node import Node

Wish = Pin | Prefetch | Replicate
Cause = Literal["lost", "silent", "room"]
FetchMessage = FetchObject | FetchCredit | FetchStop | FetchRefused | FetchWait

_TICK_S = 0.1
# What libzmq gives back wakes nobody up. Nearly always it has before the other end says that it has all.
_LENT_S = 0.01
# reliability.md 3.2, after Ray: about 10 MB. A fetch that takes longer than so many frees leaves a copy until its node
# needs the room.
_FREED_KEPT = 100_000
# Objects fetched ahead of which is remembered that nobody has read them: for counting only.
_UNREAD_KEPT = 10_000


class Fetcher:
    """One node's fetches from others, and what it gives them."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._store = node.store
        self.fetching = Fetching(node.me, random.Random(node.me))
        self.serving = Serving()
        self.lending = Lending(node.store)
        self._readers: dict[bytes, list[tuple[bytes, Wish]]] = {}
        """Who waits for an object to come: (client, what it has said)."""
        self._unread: set[bytes] = set()
        """Objects that were asked for ahead of their readers."""
        self._rooms: dict[bytes, tuple[int, bool]] = {}
        """Where an object that comes is written: (offset in the arena, pages claimed)."""
        self._freed = Graves(_FREED_KEPT)
        self._ticked = 0.0
        self.hits = 0
        """Reads of other nodes' objects that took no transfer of their own; `shared` of these joined one under way."""
        self.misses = 0
        self.shared = 0
        node.store.own = self
        self._now = 0.0

    # -- readers ----------------------------------------------------------------------------------------------------

    def brings(self, client: bytes, message: Pin, now: float) -> bool:
        """Whether the object has to come first; then the pin is answered when it is here, or cannot be had."""
        object_id = message.object_id
        coming = object_id in self.fetching
        if not coming and self._store.table.knows(object_id):
            if message.holder not in (b"", self._node.me):
                self._count(object_id, True)
            return False
        if not self._get(client, message, now):
            return False
        self._count(object_id, coming)
        self.shared += coming
        return True

    def _count(self, object_id: bytes, here: bool) -> None:
        if object_id in self._unread or not here:
            self._unread.discard(object_id)
            self.misses += 1
        else:
            self.hits += 1

    def on_wish(self, client: bytes, message: Prefetch | Replicate | Revive, now: float) -> None:
        """Have an object come that nobody reads yet. For a Replicate it stays, and the client is told how it went."""
        if isinstance(message, Revive):
            for each in message.object_ids:
                self._freed.exhume(each)
            return
        object_id = message.object_id
        coming = object_id in self.fetching
        if self._store.table.contains(object_id):
            self._grant(client, message)
        elif coming and isinstance(message, Prefetch):
            return
        elif not self._get(client, message, now):
            self._deny(client, message, "it is nowhere: it was freed, or its holders are gone", "lost")
        elif isinstance(message, Prefetch):
            if len(self._unread) > _UNREAD_KEPT:
                self._unread.clear()
            self._unread.add(object_id)

    def _get(self, client: bytes, message: Wish, now: float) -> bool:
        """Fetch it, unless that is under way; False when nobody is known to have it."""
        self._now = now
        object_id = message.object_id
        known = [(node, nbytes) for node, nbytes, _ in self._node.registry.holders(object_id) if node != self._node.me]
        nbytes = message.nbytes or max((nbytes for _, nbytes in known), default=0)
        holders = [node for node, _ in known]
        if message.holder and message.holder != self._node.me:
            holders.append(message.holder)
        if object_id not in self.fetching and (not nbytes or not holders):
            return False
        self._readers.setdefault(object_id, []).append((client, message))
        self._perform(self.fetching.want(object_id, nbytes, holders, now))
        return True

    def elsewhere(self, client: bytes, object_id: bytes) -> bool:
        """Our copy is spoilt: whether there is another one, which the reader gets then."""
        return self._get(client, Pin(object_id, 0, b""), self._now)

    def process_died(self, process: bytes) -> None:
        """It waits for nothing any more."""
        for object_id, waiting in list(self._readers.items()):
            left = [each for each in waiting if each[0] != process]
            if not left:
                del self._readers[object_id]
                self._perform(self.fetching.cancel(object_id, self._now))
            else:
                self._readers[object_id] = left

    def freed(self, object_ids: Iterable[bytes]) -> None:
        """Nobody needs these any more: what is under way is stopped."""
        for object_id in object_ids:
            self._freed.bury(object_id)
            self.serving.freed(object_id)
            self._unread.discard(object_id)
            if object_id in self.fetching:
                self._perform(self.fetching.cancel(object_id, self._now))
                self._refuse(object_id, "it was freed")

    @property
    def frees_kept(self) -> int:
        """How many freed objects are remembered."""
        return len(self._freed)

    def learned(self, node: bytes, object_ids: Sequence[bytes]) -> None:
        """`node` is said to have these. A copy that was finished after the object was freed goes, too."""
        freed = self._freed.among(object_ids)
        ours = [each for each in freed if each.startswith(self._node.me[:NODE_BYTES])]  # their owners are
        if ours:
            self._node.post(node, FreeObjects(tuple(ours)))
        for object_id in filter(self.fetching.__contains__, object_ids) if len(self.fetching) else ():
            if object_id not in ours:
                self._perform(self.fetching.learn(object_id, node, self._now))

    def node_gone(self, node: bytes) -> None:
        """Nothing comes from there, and nothing has to go there."""
        self._perform(self.fetching.node_gone(node, self._now))
        self._serve(self.serving.peer_gone(node))

    # -- what other nodes say ---------------------------------------------------------------------------------------

    def on_message(self, sender: bytes, message: FetchMessage, now: float) -> None:
        """A word about a transfer."""
        self._now = now
        match message:
            case FetchObject(transfer, object_id, offset, upto):
                self._serve(self.serving.on_request(sender, transfer, object_id, offset, upto, now))
            case FetchCredit(transfer, upto):
                self.serving.on_credit(sender, transfer, upto, now)
            case FetchStop(transfer):
                self._serve(self.serving.on_stop(sender, transfer))
            case FetchRefused(transfer, reason, others, nbytes):
                self._perform(self.fetching.on_refused(transfer, reason, others, nbytes, now))
            case FetchWait(transfer):
                self.fetching.on_wait(transfer, now)

    def on_chunk(self, header: bytes, data: Any, now: float) -> None:
        """A part of an object; `data` is bytes or a frame. ProtocolError for a header that is none."""
        self._now = now
        transfer, offset = chunks.unpack_chunk_header(header)
        view = memoryview(data if isinstance(data, bytes) else data.buffer)
        self._perform(self.fetching.on_chunk(transfer, offset, len(view), now), view)

    # -- getting ----------------------------------------------------------------------------------------------------

    def _perform(self, effects: Iterable[fx.FetchEffect], chunk: memoryview | None = None) -> None:
        for effect in effects:
            match effect:
                case fx.Write(object_id, offset, _):
                    assert chunk is not None
                    if not self._write(object_id, offset, chunk):
                        return
                case fx.Request(holder, transfer, object_id, offset, upto):
                    self._raw(holder, FetchObject(transfer, object_id, offset, upto))
                case fx.Credit(holder, transfer, upto):
                    self._raw(holder, FetchCredit(transfer, upto))
                case fx.Stop(holder, transfer):
                    self._raw(holder, FetchStop(transfer))
                case fx.Reserve(object_id, nbytes):
                    self._store.reserve(object_id, nbytes, self._now)
                case fx.Release(object_id):
                    self._rooms.pop(object_id, None)
                    self._store.on_sealed(self._node.me, Sealed(object_id, False))
                case fx.AskLocations(object_id):
                    for node, _, _ in self._node.registry.holders(object_id):
                        self._perform(self.fetching.learn(object_id, node, self._now))
                    self._perform(self.fetching.no_more(object_id, self._now))
                case fx.Completed(object_id):
                    self._complete(object_id)
                case fx.Failed(object_id, reason, tried, cause):
                    self._rooms.pop(object_id, None)
                    asked = "; ".join(f"node {node[:NODE_BYTES].hex()}: {why}" for node, why in tried)
                    self._refuse(object_id, f"{reason} (asked: {asked or 'nobody, no holder is known'})", cause)
                case _:
                    assert_never(effect)

    def granted(self, object_id: bytes, offset: int, claimed: bool) -> None:
        """The store has room for it."""
        self._rooms[object_id] = (offset, claimed)
        self._perform(self.fetching.reserved(object_id, True, "", self._now))

    def refused(self, object_id: bytes, reason: str) -> None:
        """The store has none, or somebody made the object here meanwhile."""
        if reason == ALREADY_HERE:
            self._perform(self.fetching.cancel(object_id, self._now))
            self._answer(object_id)
        else:
            self._perform(self.fetching.reserved(object_id, False, reason, self._now))

    def _write(self, object_id: bytes, offset: int, chunk: memoryview) -> bool:
        """Pages are claimed bit by bit: all at once would stop this loop for a second and more."""
        base, claimed = self._rooms[object_id]
        try:
            self._store.write(base + offset, chunk, claimed)
        except ObjectStoreFullError as error:
            self._perform(self.fetching.cancel(object_id, self._now))
            self._refuse(object_id, str(error), "room")
            return False
        return True

    def _complete(self, object_id: bytes) -> None:
        self._rooms.pop(object_id, None)
        self._store.on_sealed(self._node.me, Sealed(object_id, True))
        self._answer(object_id)

    def _answer(self, object_id: bytes) -> None:
        for client, wish in self._readers.pop(object_id, ()):
            self._grant(client, wish)

    def _refuse(self, object_id: bytes, reason: str, cause: Cause = "lost") -> None:
        self._unread.discard(object_id)
        for client, wish in self._readers.pop(object_id, ()):
            self._deny(client, wish, reason, cause)

    def _grant(self, client: bytes, wish: Wish) -> None:
        """It is here."""
        if isinstance(wish, Pin):
            self._store.on_pin(client, wish, self._now)
        elif isinstance(wish, Replicate):
            if client == node_of(client):  # a node that leaves: from now on this copy is the one
                self._node.registry.note_moved(wish.object_id)
            self._store.promote(wish.object_id)
            self._node.post(client, Replicated(wish.object_id, ""))

    def _deny(self, client: bytes, wish: Wish, reason: str, cause: Cause) -> None:
        if isinstance(wish, Pin):
            self._node.post(client, PinRefused(wish.object_id, reason, cause == "room", cause == "silent"))
        elif isinstance(wish, Replicate):
            self._node.post(client, Replicated(wish.object_id, reason))

    # -- giving -----------------------------------------------------------------------------------------------------

    def _serve(self, effects: Iterable[fx.ServeEffect]) -> None:
        for effect in effects:
            match effect:
                case fx.PinObject(object_id, key):
                    if self._store.table.contains(object_id):
                        self._store.on_pin(key, Pin(object_id, 0, b""), self._now)
                    else:
                        self._serve(self.serving.missing(key))
                case fx.UnpinObject(object_id, key):
                    self.lending.unpin(key, object_id)
                case fx.SendChunk(peer, transfer, offset, arena_offset, nbytes):
                    header = chunks.pack_chunk_header(transfer, offset)
                    part = self.lending.lend(key_of(peer, transfer), arena_offset, nbytes)
                    self._node.send_frames(peer, (header, part))
                case fx.Refuse(peer, transfer, reason, others, nbytes):
                    self._raw(peer, FetchRefused(transfer, reason, others, nbytes))
                case fx.SayWait(peer, transfer):
                    self._raw(peer, FetchWait(transfer))
                case _:
                    assert_never(effect)

    def pinned(self, key: bytes, offset: int, nbytes: int) -> None:
        """The store keeps it in place for a transfer."""
        self._serve(self.serving.pinned(key, offset, nbytes))

    def missing(self, key: bytes, full: bool) -> None:
        """The store does not have it for a transfer, or no memory to restore it to."""
        self._serve(self.serving.missing(key, "NO_MEMORY" if full else "NOT_HERE"))

    # -- turns and time ---------------------------------------------------------------------------------------------

    def turn(self, now: float) -> float | None:
        """A few chunks, and what time asks for. When to call again; None: when something comes."""
        self._now = now
        if self.serving.busy:
            self._serve(self.serving.step())
        if self.lending:
            self.lending.settle()
        if now - self._ticked >= _TICK_S and (len(self.fetching) or len(self.serving)):
            self._ticked = now
            self._perform(self.fetching.tick(now))
            self._serve(self.serving.tick(now))
        if self.serving.busy:
            return now
        if self.lending:
            return now + _LENT_S
        return now + _TICK_S if len(self.fetching) or len(self.serving) else None

    def _raw(self, node: bytes, message: Message) -> None:
        self._node.raw(node, message)
