"""Row 75: `GET /metrics`, read only, by programs of this machine or with a token; whatever else comes is refused."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from contextlib import AbstractContextManager, suppress
from pathlib import Path

import pytest

from tests.doors import asked, serving
from zmreg.model.errors import ClusterError
from zmreg.services.setup import metrics_door
from zmreg.services.setup.metrics_door import MOST_AT_ONCE, MetricsDoor, read_token, serve

TEXT = "# TYPE x gauge\nx 1\n"
TOKEN = "0123456789abcdef"


def opened(scrape=lambda: TEXT, host: str = "127.0.0.1", token: str = "") -> AbstractContextManager[MetricsDoor]:
    return serving(MetricsDoor(host, 0, scrape, token))


def ask(door: MetricsDoor, method: str = "GET", path: str = "/metrics", **headers: str) -> tuple[int, str, dict]:
    return asked(door, method, path, headers)


def test_row_75_metrics_are_served_to_this_machine_and_nothing_else_is():
    with opened() as door:
        status, body, headers = ask(door)
        assert (status, body) == (200, TEXT) and headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
        assert headers["Cache-Control"] == "no-store" and headers["X-Content-Type-Options"] == "nosniff"
        assert door.url == f"http://127.0.0.1:{door.server_port}/metrics"
        for name in ("localhost", "LOCALHOST", "[::1]"):
            assert ask(door, Host=f"{name}:{door.server_port}")[0] == 200
        assert ask(door, path="/metrics?name=x")[0] == 200
        status, body, headers = ask(door, "HEAD")
        assert (status, body) == (200, "") and headers["Content-Length"] == str(len(TEXT))
        for path in ("/", "/metrics/", "/metrics/../etc/passwd"):
            assert ask(door, path=path)[0] == 404, path
        for method in ("POST", "PUT", "DELETE", "PATCH", "OPTIONS"):
            assert ask(door, method)[0] == 405, method


def test_row_75_a_page_that_has_a_browser_ask_gets_nothing():
    with opened() as door:
        for host in (
            "evil.example",
            f"evil.example:{door.server_port}",
            "127.0.0.1",
            "",
            f"10.0.0.1:{door.server_port}",
        ):
            status, body, _ = ask(door, Host=host)
            assert status == 403 and "x 1" not in body, host
        assert ask(door, Origin="http://evil.example")[0] == 403


def test_row_75_an_address_that_others_reach_needs_a_token():
    for host in ("0.0.0.0", "::", "192.0.2.1"):
        with pytest.raises(ValueError, match="--token-file"):
            MetricsDoor(host, 0, lambda: TEXT)
    with opened(host="0.0.0.0", token=TOKEN) as door:
        assert ask(door, Authorization=f"Bearer {TOKEN}", Host="any.name")[:2] == (200, TEXT)
        for given in ("", "Bearer", f"Bearer {TOKEN}x", f"Basic {TOKEN}", TOKEN, "Bearer \xff"):
            status, body, headers = ask(door, Authorization=given)
            assert (status, headers["WWW-Authenticate"]) == (401, "Bearer") and "x 1" not in body, given
        assert ask(door)[0] == 401


def test_row_75_a_token_that_others_may_read_or_guess_is_refused(tmp_path: Path):
    path = tmp_path / "token"
    path.write_text(TOKEN + "\n")
    path.chmod(0o644)
    with pytest.raises(ValueError, match="chmod 600"):
        read_token(path)
    path.chmod(0o600)
    assert read_token(path) == TOKEN
    for wrong in ("", "short", "sp ace" * 9 + "\x07", "ä" * 20):
        path.write_text(wrong)
        with pytest.raises(ValueError, match="no token"):
            read_token(path)


def test_row_75_who_asks_often_is_no_load_on_the_nodes(monkeypatch):
    monkeypatch.setattr(metrics_door, "FRESH_S", 600.0)
    asked = []

    def scrape() -> str:
        asked.append(1)
        return TEXT

    with opened(scrape) as door:
        assert {ask(door)[:2] for _ in range(10)} == {(200, TEXT)} and len(asked) == 1


def test_row_75_a_cluster_that_does_not_answer_is_an_error_of_the_moment():
    trouble = [ClusterError("node A did not answer")]

    def scrape() -> str:
        if trouble:
            raise trouble.pop()
        return TEXT

    with opened(scrape) as door:
        assert ask(door)[:2] == (503, "node A did not answer\n")
        assert ask(door)[:2] == (200, TEXT)


def test_row_75_whatever_goes_wrong_is_an_answer_and_a_line_in_the_log(caplog):
    def scrape() -> str:
        raise KeyError("a node of another version")

    with opened(scrape) as door:
        status, body, _ = ask(door)
        assert status == 503 and "KeyError" in body and "another version" not in body
        assert ask(door, "HEAD")[0] == 503
    assert [each.getMessage() for each in caplog.records] == ["metrics could not be told"] * 2
    assert "another version" in caplog.text


def test_row_75_those_who_ask_slowly_hold_up_nobody_for_long(monkeypatch):
    """The limit is for a whole request, not for each byte of it."""
    monkeypatch.setattr(metrics_door._Handler, "timeout", 0.3)
    with opened() as door:
        slow = [socket.create_connection(("127.0.0.1", door.server_port)) for _ in range(MOST_AT_ONCE)]
        tick, begun = threading.Event(), time.monotonic()
        for each in slow:
            each.sendall(b"GET /metrics HTTP/1.0\r\n")
        while slow and time.monotonic() < begun + 10:
            tick.wait(0.05)
            for each in list(slow):
                try:
                    each.sendall(b"x")
                except ConnectionError:
                    slow.remove(each)
                    each.close()
        assert not slow
        assert ask(door)[:2] == (200, TEXT)


def test_row_75_those_who_connect_and_say_nothing_hold_up_nobody_for_long(monkeypatch):
    monkeypatch.setattr(metrics_door._Handler, "timeout", 0.2)
    with opened() as door:
        silent = [socket.create_connection(("127.0.0.1", door.server_port)) for _ in range(MOST_AT_ONCE)]
        for each in silent:  # hung up on, each in its time
            each.settimeout(20)
            assert each.recv(1) == b""
            each.close()
        noise = socket.create_connection(("127.0.0.1", door.server_port))
        noise.sendall(b"\x00" * 70_000)
        noise.settimeout(20)
        while True:
            try:
                if not noise.recv(65_536):
                    break
            except ConnectionError:
                break
        noise.close()
        assert ask(door)[:2] == (200, TEXT)


def test_row_75_who_gets_no_thread_takes_nobodys_place():
    def none(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with opened() as door, pytest.MonkeyPatch.context() as patch:
        patch.setattr(threading.Thread, "start", none)
        for _ in range(MOST_AT_ONCE + 1):
            with socket.create_connection(("127.0.0.1", door.server_port), timeout=20) as there:
                there.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
                with suppress(ConnectionResetError):
                    assert there.recv(1) == b""
        patch.undo()
        assert ask(door)[0] == 200


def test_row_75_it_ends_with_the_node_whose_metrics_it_serves():
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    door = MetricsDoor("127.0.0.1", 0, lambda: TEXT)
    ended: list[str] = []

    def go() -> None:
        try:
            serve(door, child.pid)
        except ClusterError as error:
            ended.append(str(error))

    thread = threading.Thread(target=go)
    thread.start()
    try:
        assert ask(door)[0] == 200
    finally:
        child.communicate(b"\n")
        thread.join(20)
    assert ended == ["the node whose metrics were served has ended"]
    with pytest.raises(OSError):
        socket.create_connection(("127.0.0.1", door.server_port)).close()
    with pytest.raises(ClusterError, match="is gone"):
        serve(MetricsDoor("127.0.0.1", 0, lambda: TEXT), _dead_pid())


def _dead_pid() -> int:
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
    return pid
