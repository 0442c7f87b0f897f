"""Orders for copies that stay (services/seat/copying.py): whoever waits for one hears of it in any case. Pure."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from zmreg.core.graves import Graves
from zmreg.model.messages import Demote, Message, Replicate, Replicated
from zmreg.net.waiting import Waiter
from zmreg.services.seat.copying import Copying, _Order
from zmreg.services.seat.entries import FREED, STORED, Entry, Stored

ME, HERE, THERE, GONE = b"caller-1", b"node---1", b"node---2", b"node---3"


class Station:
    """What orders need of their process. Its nodes answer as soon as somebody waits, those that are gone never."""

    def __init__(self) -> None:
        self.tasks = self
        self.gone_nodes = Graves()
        self.gone_nodes.bury(GONE)
        self.posted: list[tuple[bytes, Message]] = []
        self.shielded = 0
        self.before_lock: Callable[[], object] = lambda: None
        self.copying = Copying(self)  # type: ignore[arg-type]
        self._lock = threading.RLock()

    @property
    def lock(self) -> contextlib.AbstractContextManager[object]:
        self.before_lock()
        return self._lock

    @contextlib.contextmanager
    def shield(self) -> Iterator[None]:
        self.shielded += 1
        try:
            yield
        finally:
            self.shielded -= 1

    def check(self) -> None: ...

    def post(self, peer: bytes, message: Message) -> bool:
        assert self.shielded
        self.posted.append((peer, message))
        return peer != GONE

    def wait(self, waiter: Waiter) -> None:
        for node, message in self.posted:
            ids = message.object_ids if isinstance(message, Demote) else (message.object_id,)  # type: ignore[attr-defined]
            for object_id in ids if node != GONE else ():
                self.copying.on_replicated(node, Replicated(object_id, ""))
        self.posted.clear()
        assert waiter.done, "nobody will ever answer what is waited for"


def stored(number: int) -> Entry:
    entry = Entry(ME, number)
    entry.settle(STORED, Stored(entry.object_id, 100, HERE, None))
    return entry


def copies(entry: Entry) -> tuple[bytes, ...]:
    assert isinstance(entry.value, Stored)
    return entry.value.copies


@pytest.fixture
def station() -> Station:
    return Station()


def test_copies_that_were_made_are_booked_and_moved_values_leave(station: Station):
    one, two = stored(1), stored(2)
    assert station.copying.copy([(one, THERE), (two, THERE)]) == {}
    assert copies(one) == copies(two) == (THERE,)
    station.copying.leave([(one, HERE, THERE)])
    assert isinstance(one.value, Stored) and one.value.holder == THERE and copies(one) == ()


def test_a_node_of_whose_end_we_were_told_before_is_not_waited_for(station: Station):
    one, two = stored(1), stored(2)
    refused = station.copying.copy([(one, THERE), (one, GONE), (two, GONE)])
    assert set(refused) == {(one.object_id, GONE), (two.object_id, GONE)}
    assert copies(one) == (THERE,) and copies(two) == ()


def test_a_value_that_is_freed_while_copies_are_ordered_is_not_waited_for(station: Station):
    one, two = stored(1), stored(2)

    def freed() -> None:
        two.state, two.value = FREED, b""

    station.before_lock = freed
    assert station.copying.copy([(one, THERE), (two, THERE)]) == {}
    assert copies(one) == (THERE,)


def test_an_order_that_is_taken_out_while_an_answer_comes_hides_none_behind_it(station: Station):
    first, second = _Order([(b"one", THERE)]), _Order([(b"two", THERE)])
    orders: list[Any] = station.copying._orders

    class Left(set[Any]):
        """Whoever has waited for the first order goes on at the moment when the answer to the second is looked up."""

        def __contains__(self, key: object) -> bool:
            if first in orders:
                orders.remove(first)
            return super().__contains__(key)

    first.left = Left(first.left)
    orders += [first, second]
    station.copying.on_replicated(THERE, Replicated(b"two", ""))
    assert second.waiter.done


def test_an_interrupt_waits_until_what_was_done_is_noted(station: Station):
    one = stored(1)
    station.before_lock = lambda: seen.append(station.shielded)
    seen: list[int] = []
    station.copying.copy([(one, THERE)])
    station.copying.leave([(one, HERE, THERE)])
    assert seen and all(seen)


def test_what_is_said_to_nodes(station: Station):
    one = stored(1)
    said: list[tuple[bytes, Message]] = []
    post = station.post
    station.post = lambda peer, message: said.append((peer, message)) or post(peer, message)  # type: ignore[func-returns-value,method-assign]
    station.copying.copy([(one, THERE)])
    station.copying.leave([(one, HERE, THERE)])
    assert said == [(THERE, Replicate(one.object_id, 100, HERE)), (HERE, Demote((one.object_id,)))]
