"""Letters that nobody takes: whoever has sent them hears of it, and the memory they take is bounded."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from zmreg.core.courier import Courier
from zmreg.services.network.letters import GIVE_UP_S, Letters

ME, PEER = b"aaaa\0\0\0\0", b"bbbb\0\0\0\0"
CAP = 1_000


class Mesh:
    def __init__(self) -> None:
        self.sent: list[tuple[bytes, tuple[Any, ...]]] = []

    def send(self, node: bytes, frames: Sequence[Any]) -> bool:
        self.sent.append((node, tuple(frames)))
        return True


@pytest.fixture
def letters() -> Letters:
    made = Letters(ME, Mesh(), lambda *_: None)
    made.couriers[PEER] = Courier(cap_bytes=CAP)
    return made


def fill(letters: Letters, nbytes: int) -> None:
    for _ in range(nbytes // 100):
        letters.send(PEER, PEER, ME, bytes(100))


def acknowledge(letters: Letters, number: int) -> None:
    letters.couriers[PEER].on_ack(number)


def test_C28_who_takes_nothing_while_too_much_waits_is_given_up(letters: Letters) -> None:
    fill(letters, CAP)
    assert letters.overfull(0.0) == []
    letters.send(PEER, PEER, ME, b"one more")
    assert letters.overfull(1.0) == []
    assert letters.overfull(0.9 + GIVE_UP_S) == []
    [(node, reason)] = letters.overfull(1.0 + GIVE_UP_S)
    assert node == PEER and "takes nothing" in reason and str(CAP + 8) in reason
    assert letters.overfull(1.1 + GIVE_UP_S) == [], "said once, and again only if nothing came of it"
    assert letters.overfull(1.0 + 2 * GIVE_UP_S) != []


def test_C28_who_is_slow_and_takes_letters_is_not_given_up(letters: Letters) -> None:
    fill(letters, CAP + 500)
    for second in range(100):
        assert letters.overfull(float(second)) == []
        acknowledge(letters, second + 1)
        letters.send(PEER, PEER, ME, bytes(100))


def test_C28_who_has_caught_up_begins_anew(letters: Letters) -> None:
    fill(letters, CAP + 100)
    assert letters.overfull(0.0) == []
    acknowledge(letters, 5)
    assert letters.overfull(5.0) == []
    fill(letters, 500)
    assert letters.overfull(GIVE_UP_S + 1.0) == []
    assert letters.overfull(2 * GIVE_UP_S + 2.0) != []


def test_C28_twice_as_much_is_too_much_for_a_slow_one_too(letters: Letters) -> None:
    fill(letters, 2 * CAP + 100)
    [(node, reason)] = letters.overfull(0.0)
    assert node == PEER and "slower" in reason


def test_C28_of_a_node_that_is_gone_nothing_is_said(letters: Letters) -> None:
    fill(letters, 2 * CAP + 100)
    letters.close(PEER)
    assert letters.overfull(0.0) == []
