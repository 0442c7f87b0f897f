"""The node asks its zygote for workers, and never waits for it."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from zmreg.model.lodging_messages import Evict, Lodge, LodgerGone
from zmreg.services.node import zygote as zygotes
from zmreg.services.node.nursery import END_GRACE_S, Death, Nursery

WORKERS = 3_000
"""More than the channel has room for, both ways (some 280 packets each)."""
BOUND_S = 30.0
LODGER = b"\0\0\0\0\x40\0\0\1"


def test_a_thousand_starts_at_once_and_a_zygote_that_answers_each_do_not_wait_for_each_other(tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    nursery = Nursery(ours, 0, {"session": str(tmp_path), "node": "00" * 8}, lambda death: None)
    asked = []

    def zygote() -> None:  # as `Zygote.run`: one request after the other, and each is answered before the next
        while packet := theirs.recv(zygotes.PACKET_BYTES):
            worker = json.loads(packet)["fork"]
            asked.append(bytes.fromhex(worker))
            theirs.send(json.dumps({"forked": worker, "pid": len(asked)}).encode())

    def node() -> None:
        for _ in range(WORKERS):
            nursery.start()
        while any(not child.pid for child in nursery.children.values()):
            assert nursery.hear()

    sides = [threading.Thread(target=side, daemon=True) for side in (zygote, node)]
    for side in sides:
        side.start()
    sides[1].join(BOUND_S)
    assert not sides[1].is_alive(), "the node waits for room in a channel whose reader waits for the node"
    assert asked == list(nursery.children) and len(asked) == WORKERS
    ours.shutdown(socket.SHUT_RDWR)
    sides[0].join(BOUND_S)
    for each in (ours, theirs):
        each.close()


@contextlib.contextmanager
def lodging(tmp_path: Path) -> Iterator[tuple[Nursery, list[Death], list[object], socket.socket]]:
    """A nursery with a worker of pid 7 in which `LODGER` is to live; its deaths, what it posts, the zygote's end."""
    (tmp_path / "logs").mkdir()
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    deaths: list[Death] = []
    posted: list[object] = []
    nursery = Nursery(ours, 0, {"session": str(tmp_path), "node": "00" * 8}, deaths.append)
    nursery.post = lambda worker, message: posted.append((worker, message))
    nursery.start()
    (house,) = nursery.children
    theirs.send(json.dumps({"forked": house.hex(), "pid": 7}).encode())
    assert nursery.hear()
    nursery.lodge(LODGER, house)
    assert posted.pop() == (house, Lodge(LODGER)) and nursery.children[LODGER].pid == 7
    with ours, theirs:
        yield nursery, deaths, posted, theirs


def test_X33_a_process_takes_along_whoever_lodges_in_it(tmp_path: Path) -> None:
    with lodging(tmp_path) as (nursery, deaths, _, theirs):
        house = nursery.children[LODGER].house
        nursery.children[house].ready = True
        theirs.send(json.dumps({"exited": house.hex(), "pid": 7, "status": 9}).encode())
        assert nursery.hear() and not nursery.children
        assert [(each.worker, each.signal, each.was_ready) for each in deaths] == [(house, 9, True), (LODGER, 9, False)]
        assert [each.house for each in deaths] == [b"", house]


def test_X33_one_lodger_is_ended_by_its_process_and_is_dead_all_the_same_when_that_does_not_answer(
    tmp_path: Path,
) -> None:
    with lodging(tmp_path) as (nursery, deaths, posted, theirs):
        house = nursery.children[LODGER].house
        theirs.setblocking(False)
        theirs.recv(zygotes.PACKET_BYTES)
        nursery.kill(LODGER, "on request")
        nursery.kill(LODGER, "again")
        assert posted == [(house, Evict(LODGER))] * 2
        with pytest.raises(BlockingIOError):
            theirs.recv(zygotes.PACKET_BYTES)  # nobody kills pid 7
        evicted_at = nursery.children[LODGER].evicted_at
        nursery.tick(evicted_at)
        assert not deaths
        nursery.tick(evicted_at + END_GRACE_S)
        assert [(each.worker, each.reason) for each in deaths] == [(LODGER, "on request")]
        nursery.lodger_gone(house, LodgerGone(LODGER, 9, ""))
        assert len(deaths) == 1 and list(nursery.children) == [house]


def test_X33_a_lodger_that_ended_by_itself_is_believed_to_its_own_process_alone(tmp_path: Path) -> None:
    with lodging(tmp_path) as (nursery, deaths, _, _):
        nursery.lodger_gone(b"somebody", LodgerGone(LODGER, 0, ""))
        assert not deaths
        nursery.lodger_gone(nursery.children[LODGER].house, LodgerGone(LODGER, 256, "no thread"))
        assert [(each.worker, each.exit_code, each.reason) for each in deaths] == [(LODGER, 1, "no thread")]
