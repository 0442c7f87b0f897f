"""What libzmq has not sent yet lies in the arena: its object stays pinned, whatever has become of the transfer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from zmreg.services.network.lending import Lending
from zmreg.services.node.storekeeper import Storekeeper

KEY = b"node-two" + bytes(8)
OTHER = b"node-two" + bytes(7) + b"\x01"
OBJECT = b"object" * 3


class Store:
    """Remembers what was lent, and what was unpinned."""

    def __init__(self) -> None:
        self.lent: list[Callable[[], object]] = []
        self.unpinned: list[tuple[bytes, bytes]] = []

    def lend(self, offset: int, nbytes: int, back: Callable[[], object]) -> memoryview:
        self.lent.append(back)
        return memoryview(bytes(nbytes))[offset:]

    def unpin(self, key: bytes, object_id: bytes) -> None:
        self.unpinned.append((key, object_id))


def lending() -> tuple[Lending, Store]:
    store = Store()
    return Lending(cast(Storekeeper, cast(Any, store))), store


def test_an_object_stays_pinned_until_every_part_of_it_is_back() -> None:
    ours, store = lending()
    for _ in range(2):
        ours.lend(KEY, 0, 8)
    store.lent[0]()
    ours.unpin(KEY, OBJECT)
    assert not store.unpinned and len(ours) == 1
    store.lent[1]()
    ours.settle()
    assert store.unpinned == [(KEY, OBJECT)] and not ours


def test_a_transfer_whose_parts_are_back_is_unpinned_at_once() -> None:
    ours, store = lending()
    ours.lend(KEY, 0, 8)
    store.lent[0]()
    ours.unpin(KEY, OBJECT)
    assert store.unpinned == [(KEY, OBJECT)]


def test_a_transfer_that_sent_nothing_is_unpinned_at_once() -> None:
    ours, store = lending()
    ours.unpin(KEY, OBJECT)
    assert store.unpinned == [(KEY, OBJECT)]


def test_one_transfer_that_stands_still_holds_up_no_other() -> None:
    ours, store = lending()
    ours.lend(KEY, 0, 8)
    ours.lend(OTHER, 0, 8)
    ours.unpin(KEY, OBJECT)
    store.lent[1]()
    ours.unpin(OTHER, OBJECT)
    assert store.unpinned == [(OTHER, OBJECT)] and len(ours) == 1
