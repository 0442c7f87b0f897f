"""The check itself is checked: it sees what is left, and blames nobody for what was there before."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import psutil
import pytest

from tests import footprint
from tests.footprint import Footprint

pytestmark = pytest.mark.alone  # with next to no grace, what other tests are just removing would count

WAIT_FOR_STDIN = [sys.executable, "-c", "input()"]
# Prints the pid of a grandchild, which then has no parent in this test run (and must not keep our pipes open).
ORPHAN = """
import subprocess, sys
code = "import signal; signal.pause()"
print(subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).pid)
"""


def test_a_child_process_left_is_named_and_killed() -> None:
    before = Footprint.now()
    with subprocess.Popen(WAIT_FOR_STDIN, stdin=subprocess.PIPE) as child:
        (leak,) = before.leaks(grace_s=0.05)
        assert str(child.pid) in leak and "input()" in leak
        assert child.wait(5) is not None
    assert before.leaks() == []


def test_an_orphan_is_found_by_its_mark() -> None:
    before = Footprint.now()
    orphan = int(subprocess.run([sys.executable, "-c", ORPHAN], check=True, capture_output=True, timeout=30).stdout)
    (leak,) = before.leaks(grace_s=0.05)
    assert str(orphan) in leak


def test_who_has_thrown_its_environment_away_is_found_by_its_parents() -> None:
    code = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'print(flush=True); input()'])"
    before = Footprint.now()
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={"LANG": "C"}
    ) as child:
        assert child.stdout is not None and child.stdout.readline() == b"\n"
        assert len(before._new_processes()) == len(before._new_processes()) == 2
        child.communicate(b"\n", timeout=10)
    assert before.leaks() == []


def test_processes_below_a_wider_fixture_are_its_own_affair() -> None:
    code = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'print(flush=True); input()'])"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as fixture:
        older = psutil.Process(fixture.pid)
        before = Footprint(frozenset({older}), frozenset(threading.enumerate()), frozenset(), frozenset(), pure=False)
        assert fixture.stdout is not None and fixture.stdout.readline() == b"\n"
        assert before._new_processes() == []
        fixture.communicate(b"\n", timeout=10)


@pytest.mark.parametrize(("daemon", "name"), [(False, "user"), (True, "zmreg-io")])
def test_a_thread_left_is_named(daemon: bool, name: str) -> None:
    before = Footprint.now(pure=True)
    done = threading.Event()
    thread = threading.Thread(target=done.wait, name=name, daemon=daemon)
    thread.start()
    assert before.leaks(grace_s=0.05) == [f"thread {name!r} is still running"]
    done.set()
    assert before.leaks() == []


def test_shared_memory_left_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(footprint, "SHARED_MEMORY", tmp_path)
    before = Footprint.now(pure=True)
    (tmp_path / "zmreg-1234").touch()
    (leak,) = before.leaks(grace_s=0.05)
    assert "zmreg-1234" in leak
