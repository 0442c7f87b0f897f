"""Lines between processes of one node: what is asked is answered, or the line is lost, and nobody waits for ever."""

from __future__ import annotations

import errno
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import zmreg
from zmreg.api.lines import line_to
from zmreg.services.calling.lines import HasRefsError, Line, LineLostError, LineServer


class Desk:
    """What serves in these tests."""

    def __init__(self) -> None:
        self.asked = threading.Event()
        self.goes_on = threading.Event()

    def __call__(self, name: str, *args: Any) -> Any:
        if name == "wait":
            self.asked.set()
            self.goes_on.wait()
        if name == "fail":
            raise zmreg.errors.ZmregError("no")
        if name == "missing":
            Path(args[0]).read_bytes()
        if name == "wrong":
            raise KeyError(args[0])
        return args


@pytest.fixture
def desk() -> Iterator[Desk]:
    made = Desk()
    yield made
    made.goes_on.set()


@pytest.fixture
def server(tmp_path: Path, desk: Desk) -> Iterator[LineServer]:
    made = LineServer(tmp_path, b"node", desk)
    yield made
    made.close()


@pytest.fixture
def line(server: LineServer) -> Iterator[Line]:
    made = Line(server.address)
    yield made
    made.close()


@pytest.mark.parametrize("size", [0, 1, 1000, 100_000, 5_000_000])
def test_questions_of_any_size_are_answered_in_turn(line: Line, size: int) -> None:
    for number in range(3):
        assert line.ask("echo", number, bytes(size)) == (number, bytes(size))


def test_a_server_that_fails_loses_the_line(line: Line) -> None:
    with pytest.raises(LineLostError):
        line.ask("fail")
    with pytest.raises(LineLostError):
        line.ask("echo")


def test_what_is_served_may_raise_and_the_line_stays(line: Line, tmp_path: Path) -> None:
    """An OSError of what is served says nothing of the socket: it is the answer, and nobody asks again for it."""
    with pytest.raises(FileNotFoundError, match="nothing-here") as raised:
        line.ask("missing", str(tmp_path / "nothing-here"))
    assert isinstance(raised.value, zmreg.errors.TaskError) and "test_lines.py" in raised.value.remote_traceback
    with pytest.raises(KeyError, match="far"):
        line.ask("wrong", "far")
    assert line.ask("echo", 1) == (1,)


def test_a_cut_line_lets_go_of_who_waits(line: Line, desk: Desk) -> None:
    def cut() -> None:
        desk.asked.wait()
        line.cut()

    thread = threading.Thread(target=cut)
    thread.start()
    with pytest.raises(LineLostError):
        line.ask("wait")
    thread.join()


def test_a_closed_server_takes_no_more_lines_and_leaves_no_file(line: Line, server: LineServer) -> None:
    assert line.ask("echo", 0) == (0,)  # so it is admitted
    server.close()
    server.close()
    assert not Path(server.address[1]).exists()
    assert line.ask("echo", 1) == (1,)  # those there are go on
    with pytest.raises(LineLostError):
        Line(server.address)


def test_a_server_that_can_admit_nobody_more_lets_nobody_wait(
    server: LineServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none_left(_door: socket.socket) -> Any:
        raise OSError(errno.EMFILE, "too many open files")

    monkeypatch.setattr(socket.socket, "accept", none_left)
    Line(server.address).close()  # by the accept that is under way; there is none after it
    while Path(server.address[1]).exists():
        threading.Event().wait(0.005)
    with pytest.raises(LineLostError):
        Line(server.address)


def test_refs_do_not_travel_on_lines(cluster: object, line: Line) -> None:
    ref = zmreg.put(1)
    with pytest.raises(HasRefsError):
        line.ask("echo", ref)
    assert line.ask("echo", 2) == (2,)
    assert line_to((b"another", "")) is None
