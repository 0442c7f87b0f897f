"""A node as the two fetch machines see it: performs their effects on a model of a store, and checks each of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from random import Random
from typing import assert_never

from zmreg.core.fetch_effects import (
    AskLocations,
    Completed,
    Credit,
    Failed,
    FetchEffect,
    PinObject,
    Refuse,
    Release,
    Request,
    Reserve,
    SayWait,
    SendChunk,
    ServeEffect,
    Stop,
    UnpinObject,
    Write,
)
from zmreg.core.fetching import Fetching, FetchLimits
from zmreg.core.serving import ServeLimits, Serving

Packet = tuple[object, ...]
"""("request", transfer, object_id, offset, upto) and the like: a message without its class."""


def node_id(number: int) -> bytes:
    return b"N" + number.to_bytes(3, "big") + bytes(4)


class Node:
    """`post(to, packet)` is the way out; `receive` is the way in. `announce(object_id)` is called when it has one."""

    def __init__(
        self,
        me: bytes,
        sizes: dict[bytes, int],
        post: Callable[[bytes, Packet], None],
        fetch_limits: FetchLimits | None = None,
        serve_limits: ServeLimits | None = None,
    ) -> None:
        self.me = me
        self.sizes = sizes
        self.post = post
        self.fetching = Fetching(me, Random(me), fetch_limits)
        self.serving = Serving(serve_limits)
        self.has: dict[bytes, int] = {}  # object -> where in the arena
        self.placed = 0
        self.rooms: dict[bytes, int] = {}  # object being written -> bytes written, all of them from its beginning
        self.pins: Counter[tuple[bytes, bytes]] = Counter()
        self.asked_locations: list[bytes] = []
        self.asked_room: list[bytes] = []
        self.asked_pins: list[tuple[bytes, bytes]] = []
        self.credit: dict[int, int] = {}  # our transfer -> how far the holder may go
        self.reached: dict[tuple[bytes, int], int] = {}  # other's transfer -> the next byte we send
        self.allowed: dict[tuple[bytes, int], int] = {}
        self.requested: dict[bytes, set[bytes]] = {}
        self.completed: dict[bytes, bytes] = {}
        self.failed: dict[bytes, Failed] = {}
        self.sent_bytes = 0
        self.full = False

    def put(self, object_id: bytes) -> None:
        self.has[object_id] = self.placed << 40
        self.placed += 1

    # -- what happens -------------------------------------------------------------------------------------------------

    def want(self, object_id: bytes, holders: list[bytes], now: float) -> None:
        if object_id not in self.fetching:
            self.requested[object_id] = set()
        self.completed.pop(object_id, None)
        self.failed.pop(object_id, None)
        self.perform(self.fetching.want(object_id, self.sizes[object_id], holders, now))

    def answer_room(self, object_id: bytes, now: float) -> None:
        self.asked_room.remove(object_id)
        if not self.full:
            self.rooms[object_id] = 0
        self.perform(self.fetching.reserved(object_id, not self.full, "the store is full" if self.full else "", now))

    def answer_pin(self, object_id: bytes, key: bytes) -> None:
        self.asked_pins.remove((object_id, key))
        if object_id in self.has:
            self.pins[object_id, key] += 1
            self.obey(self.serving.pinned(key, self.has[object_id], self.sizes[object_id]))
        else:
            self.obey(self.serving.missing(key))

    def receive(self, sender: bytes, packet: Packet, now: float) -> None:
        match packet:
            case ("request", int(transfer), bytes(object_id), int(offset), int(upto)):
                seen = (sender, transfer)
                self.reached.setdefault(seen, offset)
                self.allowed[seen] = max(self.allowed.get(seen, 0), upto)
                self.obey(self.serving.on_request(sender, transfer, object_id, offset, upto, now))
            case ("credit", int(transfer), int(upto)):
                self.allowed[sender, transfer] = max(self.allowed.get((sender, transfer), 0), upto)
                self.serving.on_credit(sender, transfer, upto, now)
            case ("stop", int(transfer)):
                self.obey(self.serving.on_stop(sender, transfer))
            case ("chunk", int(transfer), int(offset), int(nbytes)):
                self.perform(self.fetching.on_chunk(transfer, offset, nbytes, now), (offset, nbytes))
            case ("refused", int(transfer), reason, others, int(nbytes)):
                self.perform(self.fetching.on_refused(transfer, reason, others, nbytes, now))  # type: ignore[arg-type]
            case ("wait", int(transfer)):
                self.fetching.on_wait(transfer, now)
            case _:
                raise AssertionError(f"what is {packet}?")

    # -- what is to be done -------------------------------------------------------------------------------------------

    def perform(self, effects: list[FetchEffect], chunk: tuple[int, int] | None = None) -> None:
        for effect in effects:
            match effect:
                case Reserve(object_id, nbytes):
                    assert nbytes == self.sizes[object_id]
                    assert object_id not in self.rooms and object_id not in self.asked_room
                    self.asked_room.append(object_id)
                case Release(object_id):
                    if object_id in self.asked_room:
                        self.asked_room.remove(object_id)
                    else:
                        del self.rooms[object_id]
                case Request(holder, transfer, object_id, offset, upto):
                    assert holder != self.me and transfer not in self.credit, "a number is used once"
                    assert offset == self.rooms[object_id], "it goes on where it was"
                    assert 0 < upto - offset <= self.fetching.limits.window_bytes and upto <= self.sizes[object_id]
                    self.credit[transfer] = upto
                    self.requested[object_id].add(holder)
                    self.post(holder, ("request", transfer, object_id, offset, upto))
                case Write(object_id, offset, nbytes):
                    assert chunk == (offset, nbytes) and effect is effects[0]
                    assert self.rooms[object_id] == offset, "in order, nothing twice"
                    self.rooms[object_id] += nbytes
                    assert self.rooms[object_id] <= self.sizes[object_id]
                case Credit(holder, transfer, upto):
                    assert upto > self.credit[transfer]
                    self.credit[transfer] = upto
                    self.post(holder, ("credit", transfer, upto))
                case Stop(holder, transfer):
                    self.post(holder, ("stop", transfer))
                case AskLocations(object_id):
                    self.asked_locations.append(object_id)
                case Completed(object_id, holder, nbytes):
                    assert self.rooms.pop(object_id) == nbytes == self.sizes[object_id]
                    self.completed[object_id] = holder
                    self.put(object_id)
                case Failed(object_id, reason, tried):
                    assert object_id not in self.rooms and object_id not in self.asked_room, "given back before"
                    assert reason and self.requested[object_id] <= {node for node, why in tried if why}
                    self.failed[object_id] = effect
                case _:
                    assert_never(effect)

    def obey(self, effects: list[ServeEffect]) -> None:
        for effect in effects:
            match effect:
                case PinObject(object_id, key):
                    self.asked_pins.append((object_id, key))
                case UnpinObject(object_id, key):
                    assert self.pins[object_id, key] == 1
                    del self.pins[object_id, key]
                case SendChunk(peer, transfer, offset, arena_offset, nbytes):
                    seen = (peer, transfer)
                    assert offset == self.reached[seen], "in order, nothing twice"
                    assert offset + nbytes <= self.allowed[seen], "no more than there is credit for"
                    assert (arena_offset - offset) & ((1 << 40) - 1) == 0
                    self.reached[seen] = offset + nbytes
                    self.sent_bytes += nbytes
                    self.post(peer, ("chunk", transfer, offset, nbytes))
                case Refuse(peer, transfer, reason, others, nbytes):
                    assert peer not in others
                    self.post(peer, ("refused", transfer, reason, others, nbytes))
                case SayWait(peer, transfer):
                    self.post(peer, ("wait", transfer))
                case _:
                    assert_never(effect)
