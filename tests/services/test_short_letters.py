"""Short letters go as one piece from door to door: nothing about order, loss or forgery is different for them."""

from __future__ import annotations

import os
import select
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from zmreg.model.errors import ProtocolError
from zmreg.model.ids import ProcessId, worker_id
from zmreg.net.sockets import WHOLE_BYTES, Ends
from zmreg.services.network.letters import WHOLE, Letters
from zmreg.services.node.loop import Loop

HERE, THERE = b"aaaa\0\0\0\0", b"bbbb\0\0\0\0"
CALLER, CALLED = b"aaaa\0\0\0\1", b"bbbb\0\0\0\1"


class Mesh:
    """What one node says to the other waits here."""

    def __init__(self) -> None:
        self.sent: list[list[Any]] = []

    def send(self, node: bytes, frames: Sequence[Any]) -> bool:
        self.sent.append(list(frames))
        return True


class Two:
    """Two nodes; `pass_all` lets what is under way arrive, but for the first `lost`."""

    def __init__(self) -> None:
        self.mesh, self.back = Mesh(), Mesh()
        self.came: list[tuple[bytes, bytes, bytes]] = []
        self.here = Letters(HERE, self.mesh, lambda *_: None)
        self.there = Letters(THERE, self.back, lambda *letter: self.came.append(letter))
        self.here.open(THERE)
        self.there.open(HERE)

    def pass_all(self, now: float = 0.0, lost: int = 0) -> None:
        frames, self.mesh.sent = self.mesh.sent[lost:], []
        for each in frames:
            assert hear(self.there, HERE, each, now)

    def answer_all(self, now: float = 0.0) -> None:
        frames, self.back.sent = self.back.sent, []
        for each in frames:
            assert hear(self.here, THERE, each, now)


def hear(letters: Letters, node: bytes, frames: list[bytes], now: float) -> bool:
    if frames[0][:4] == WHOLE:
        return letters.hear_whole(node, frames[0], now)
    return letters.hear(node, frames, now)


def test_a_short_letter_is_one_frame_and_a_long_one_two() -> None:
    two = Two()
    two.here.send(THERE, CALLED, CALLER, bytes(WHOLE_BYTES))
    two.here.send(THERE, CALLED, CALLER, bytes(WHOLE_BYTES + 1))
    two.here.send(THERE, CALLED, CALLER, b"")
    assert [len(frames) for frames in two.mesh.sent] == [1, 2, 1]
    two.pass_all()
    assert two.came == [(CALLED, CALLER, bytes(size)) for size in (WHOLE_BYTES, WHOLE_BYTES + 1, 0)]
    assert two.here.sent_bytes == {THERE: 2 * WHOLE_BYTES + 1}


def test_too_long_for_one_piece_is_left_to_the_other_way() -> None:
    two = Two()
    assert not two.here.send_whole(CALLED + CALLER + bytes(WHOLE_BYTES + 1))
    assert not two.here.send_whole(b"cccc\0\0\0\1" + CALLER + b"to a node that is not open")
    assert two.mesh.sent == []


def test_a_short_letter_that_was_lost_is_sent_again_in_its_place() -> None:
    two = Two()
    for number in range(3):
        two.here.send(THERE, CALLED, CALLER, b"%d" % number)
    two.here.send(THERE, CALLED, CALLER, bytes(WHOLE_BYTES + 1))
    two.pass_all(lost=1)
    assert two.came == []
    two.answer_all(1.0)  # it asks for the first
    two.pass_all(2.0)
    assert [frame for *_, frame in two.came] == [b"0", b"1", b"2", bytes(WHOLE_BYTES + 1)]


def test_what_a_dead_node_has_not_read_is_told_whatever_its_length() -> None:
    two = Two()
    two.here.send(THERE, CALLED, CALLER, b"short")
    two.here.send(THERE, CALLED, CALLER, bytes(WHOLE_BYTES + 1))
    assert two.here.close(THERE) == [(CALLED, CALLER, b"short"), (CALLED, CALLER, bytes(WHOLE_BYTES + 1))]


def test_a_node_speaks_for_no_process_of_others_in_a_short_letter() -> None:
    two = Two()
    two.here.send(THERE, CALLED, b"cccc\0\0\0\1", b"forged")
    with pytest.raises(ProtocolError, match="not its own"):
        two.pass_all()
    assert two.came == []


def test_a_short_letter_for_the_life_before_is_dropped_and_half_a_header_is_none() -> None:
    two = Two()
    two.here.send(THERE, CALLED, CALLER, b"x")
    [[frame]] = two.mesh.sent
    assert two.there.hear_whole(HERE, frame[:20] + b"cccc" + frame[24:], 0.0)
    assert two.came == []
    assert not two.there.hear_whole(HERE, frame[:35], 0.0)


def test_passing_on_asks_for_a_look_at_the_couriers_soon() -> None:
    two = Two()
    assert two.here.look_at() == float("inf")
    two.here.tick(0.0)
    two.here.send_whole(CALLED + CALLER + b"x")
    assert 0.0 < two.here.look_at() <= 0.02, "an acknowledgement is due after 20 ms"
    two.here.tick(two.here.look_at())
    assert two.here.look_at() == float("inf")


@pytest.fixture
def ends(tmp_path: Path) -> Iterator[tuple[Ends, Ends]]:
    node = Ends(tmp_path, ProcessId(HERE))
    process = Ends(tmp_path, worker_id(HERE, 1))
    yield node, process
    process.close(clean=False)
    node.close(clean=False)


def received(ends: Ends) -> tuple[bytes, bytes]:
    poller = select.poll()
    poller.register(ends.door_fd, select.POLLIN)
    while not ends.pending():
        assert poller.poll(10_000), "nothing came"
    return ends.receive()


def test_a_short_letter_passes_the_doors_in_one_piece(ends: tuple[Ends, Ends]) -> None:
    node, process = ends
    passed: list[bytes] = []
    node.pass_on = passed.append
    assert process.send(CALLED, b"ZR...")
    assert received(node) == (b"", b"")
    assert passed == [CALLED + process.me + b"ZR..."]
    assert node.hand_in_whole(process.me, process.me + CALLED + b"an answer")
    assert received(process) == (CALLED, b"an answer")


def test_a_process_speaks_for_nobody_else_in_a_short_letter(ends: tuple[Ends, Ends]) -> None:
    node, process = ends
    node.pass_on = lambda letter: pytest.fail("it was passed on")
    for letter in (CALLED + CALLED + b"forged", CALLED + process.me[:4], b""):
        process.hand_in_whole(node.me, letter)
        assert received(node) == (process.me, b""), "counted as nonsense"


def test_what_only_passes_through_asks_for_no_turn() -> None:
    loop = Loop()
    fds = [os.eventfd(0) for _ in range(2)]
    loop.watch(fds[0], lambda: os.eventfd_read(fds[0]), passing=True)
    loop.watch(fds[1], lambda: os.eventfd_read(fds[1]))
    seen = []
    for fd in fds:
        os.eventfd_write(fd, 1)
        loop.turn_due = False
        loop.sleep(10.0)
        seen.append(loop.turn_due)
        loop.unwatch(fd)
        os.close(fd)
    assert seen == [False, True]
