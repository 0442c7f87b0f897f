"""What the workers of one process (X33) keep apart."""

from __future__ import annotations

import threading
from types import SimpleNamespace
from typing import Any

import pytest

from zmreg.model.lodging_messages import Lodge
from zmreg.services.worker import lodging
from zmreg.services.worker.lodging import Lodgers
from zmreg.services.worker.threaded import ThreadWorker
from zmreg.services.worker.voice import QUIET, Speech

NOBODY: Any = SimpleNamespace(parent=None)
ACTOR = bytes(16)


def test_X33_what_a_lodger_prints_is_labelled_and_hushed_as_its_own() -> None:
    house, lodger = Speech(NOBODY), Speech(NOBODY)
    lodger.label, lodger.at_rest, lodger.quiet = "Session", (ACTOR, "Session"), True
    assert house.who() is None
    house.guest = lambda: lodger
    assert house.who() == (ACTOR, "Session")
    assert QUIET.encode() in house.mark_of((ACTOR, "Session"))
    house.guest = lambda: None
    assert QUIET.encode() not in house.mark_of((ACTOR, "Session"))


def test_X33_the_node_hears_of_a_lodger_that_cannot_come_whatever_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    """There were threads enough for the first of its four only. Its actor waited for ever."""
    told: list[Any] = []
    house: Any = SimpleNamespace(tell_node=told.append)
    lodgers = object.__new__(Lodgers)
    lodgers._house, lodgers._guard, lodgers._there = house, threading.Lock(), {}
    lodgers._evicted, lodgers._threads = set(), {}

    def fails(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(lodging, "Lodger", fails)
    monkeypatch.setattr(threading, "excepthook", lambda _: None)
    lodgers.take_in(Lodge(ACTOR))
    lodgers.wait()
    assert [(each.worker, each.status, each.reason) for each in told] == [
        (ACTOR, 256, "RuntimeError: can't start new thread")
    ]
    assert not lodgers._threads


def test_X33_a_lodger_that_breaks_has_ended_like_a_process_that_does(capfd: pytest.CaptureFixture[str]) -> None:
    ended: list[int] = []
    worker = object.__new__(ThreadWorker)
    worker.dead = False

    def fails(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    worker.connect, worker._end = fails, ended.append  # type: ignore[assignment,method-assign]
    worker.live()
    assert ended == [1 << 8]
    assert "can't start new thread" in capfd.readouterr().err
