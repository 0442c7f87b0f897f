"""What a worker hears of generators that have not begun there (services/worker/yielding.py). Pure."""

from __future__ import annotations

from typing import Any

import pytest

from zmreg.model.ids import object_id
from zmreg.model.stream_messages import StreamClosed, StreamCredit
from zmreg.services.worker import yielding
from zmreg.services.worker.yielding import Yielding

OWNER = b"caller-1"
CALL = object_id(OWNER, 7)


@pytest.fixture
def heard() -> Yielding:
    worker: Any = None
    return Yielding(worker)


def test_who_waits_for_an_item_is_not_forgotten_by_a_word_about_items_taken(heard: Yielding):
    """That one says 0 for what is wanted; without the wish, others' items could keep this one from being made."""
    heard.on_credit(OWNER, StreamCredit(7, 4, 6))
    heard.on_credit(OWNER, StreamCredit(7, 5, 0))
    assert heard.early == {CALL: (5, 6)}


def test_who_has_closed_a_generator_gets_nothing_whatever_comes_after_it(heard: Yielding):
    heard.on_closed(OWNER, StreamClosed(7))
    heard.on_credit(OWNER, StreamCredit(7, 5, 0))
    assert heard.early[CALL][0] == yielding._CLOSED
    heard.on_credit(OWNER, StreamCredit(8, 5, 0))
    heard.on_closed(OWNER, StreamClosed(8))
    assert heard.early[object_id(OWNER, 8)][0] == yielding._CLOSED


def test_such_words_are_bounded_and_the_oldest_go(heard: Yielding, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(yielding, "_EARLY", 3)
    for counter in (1, 2, 3, 1, 4):
        heard.on_credit(OWNER, StreamCredit(counter, 1, 0))
    assert list(heard.early) == [object_id(OWNER, counter) for counter in (3, 1, 4)]
