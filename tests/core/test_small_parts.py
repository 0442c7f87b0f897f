"""The small parts the machines are made of."""

from __future__ import annotations

from zmreg.core.backoff import Backoff
from zmreg.core.graves import Graves


def test_graves_forget_the_oldest_first() -> None:
    graves = Graves(kept=2)
    for process in (b"one", b"two", b"one", b"three"):
        graves.bury(process)
    assert len(graves) == 2
    assert b"three" in graves
    assert b"one" not in graves
    assert repr(graves) == "<Graves 2/2>"
    assert graves.among([b"four", b"three", b"one"]) == {b"three"}


def test_backoff_doubles_to_its_bound_and_ends_with_success() -> None:
    pause = Backoff(0.1, 5.0)
    assert not pause.pauses(0.0)
    for expected in (0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0):
        pause.failed(10.0)
        assert pause.pauses(10.0 + expected - 0.01)
        assert not pause.pauses(10.0 + expected)
    assert repr(pause) == "<Backoff 8 failures in a row>"
    pause.succeeded()
    assert not pause.pauses(10.0)
