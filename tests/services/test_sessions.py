"""Words in session directories: which of them are believed."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from zmreg.model.errors import ClusterError
from zmreg.services.setup import sessions
from zmreg.services.setup.addresses import same_place, split_address
from zmreg.services.setup.finding import only_one
from zmreg.services.setup.sessions import Word, start_time


@pytest.fixture
def root(monkeypatch):
    directory = tempfile.mkdtemp(prefix="zs-")
    monkeypatch.setenv("XDG_RUNTIME_DIR", directory)
    (Path(directory) / "zmreg").mkdir(mode=0o700)
    yield Path(directory) / "zmreg"
    shutil.rmtree(directory)


def leave(root: Path, name: str = "00000001", **facts) -> Word:
    session = root / name
    session.mkdir()
    me = os.getpid()
    word = Word(str(session), "ab" * 4 + "0" * 8, me, start_time(me), "n1", True, True, address="127.0.0.1:7550")
    word = word.but(**facts)
    sessions.leave_word(word)
    return word


def hold(session: str) -> int:
    fd = os.open(session, os.O_RDONLY)
    fcntl.flock(fd, fcntl.LOCK_EX)
    return fd


def test_a_held_session_with_a_living_node_is_running(root):
    word = leave(root)
    assert sessions.running() == []  # nobody holds it
    assert sessions.leftovers() == [Path(word.session)]
    fd = hold(word.session)
    try:
        assert sessions.running() == [word]
        assert sessions.leftovers() == []
    finally:
        os.close(fd)


def test_a_pid_that_another_process_has_got_is_not_the_node(root):
    word = leave(root, started=start_time(os.getpid()) - 1)
    fd = hold(word.session)
    try:
        assert sessions.running() == []
        assert sessions.end([word], 1.0) == {word.node: "gone already"}  # and we are still here
    finally:
        os.close(fd)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"node": "x"}'])
def test_a_word_that_is_none_is_an_error_that_names_the_session(root, text):
    word = leave(root)
    (Path(word.session) / sessions.NODE_FILE).write_text(text)
    with pytest.raises(ClusterError, match="00000001"):
        sessions.read_word(Path(word.session))
    fd = hold(word.session)
    try:
        assert sessions.running() == []
    finally:
        os.close(fd)


def test_end_kills_what_does_not_listen(root):
    deaf = "import signal, sys; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(1, flush=True); signal.pause()"
    with subprocess.Popen([sys.executable, "-c", deaf], stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        word = leave(root, pid=process.pid, started=start_time(process.pid))
        assert sessions.end([word], 0.2) == {word.node: "killed"}
        assert process.wait(10) == -signal.SIGKILL
    assert not Path(word.session).exists()


def test_heads_come_first_and_several_clusters_are_not_chosen_from():
    def word(cluster: str, node: str, is_head: bool = False) -> Word:
        return Word("/s", node, 1, 1, node, is_head, True, cluster=cluster, address=f"127.0.0.1:{7000 + int(node)}")

    assert only_one([]) is None
    assert only_one([word("a", "1", True), word("a", "2")]).node == "1"
    with pytest.raises(ClusterError, match=r"127.0.0.1:7001.*127.0.0.1:7002"):
        only_one([word("a", "1"), word("b", "2")])


@pytest.mark.parametrize(
    ("text", "parts"),
    [("a:1", ("a", 1)), ("tcp://10.0.0.1:7550", ("10.0.0.1", 7550)), ("[::1]:7550", ("::1", 7550))],
)
def test_addresses(text, parts):
    assert split_address(text) == parts


@pytest.mark.parametrize("text", ["", "a", "a:", ":1", "a:b", "a:0", "a:65536", "a:-1"])
def test_what_is_no_address(text):
    with pytest.raises(ValueError, match="HOST:PORT"):
        split_address(text)


def test_one_place_by_name_and_by_number():
    assert same_place("localhost:7550", "127.0.0.1:7550")
    assert not same_place("localhost:7550", "127.0.0.1:7551")
    assert not same_place("", "127.0.0.1:7551")
