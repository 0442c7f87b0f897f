"""Stacks by the signal: whoever has no handler for it is left alone, and what faulthandler writes is read back."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

from zmreg.services.machine import stacks

ROOT = Path(__file__).parents[2]
WRITTEN = """Thread 0x00007f0096e1d6c0 (most recent call first):
  File "/lib/threading.py", line 982 in run
  File "/lib/threading.py", line 1002 in _bootstrap

Current thread 0x00007f0097881b80 (most recent call first):
  File "/home/a file.py", line 8 in <module>
  File "/home/other.py", line ??? in inner

Extension modules: zmq.backend.cython._zmq (total: 1)
"""
LISTENING = """
import ctypes, os, sys
from zmreg.services.machine import stacks
stacks.listen(sys.argv[1])
def keeps_the_lock():
    print("up", flush=True)
    ctypes.PyDLL(None).read(os.pipe()[0], ctypes.create_string_buffer(1), 1)
keeps_the_lock()
"""


def test_what_faulthandler_writes_is_read_back():
    main, other = stacks.parse(WRITTEN)
    assert main == ["MainThread", [["/home/a file.py", 8, "<module>"], ["/home/other.py", 0, "inner"]]]
    assert other[0] == "0x00007f0096e1d6c0" and [function for *_, function in other[1]] == ["run", "_bootstrap"]
    assert stacks.parse("") == []


def test_own_threads_are_told_the_main_one_first_and_without_who_asks():
    found: list[list] = []
    going = threading.Event()

    def ask() -> None:
        found.append(stacks.of_this_process())
        going.set()

    asking = threading.Thread(target=ask, name="who asks")
    asking.start()
    assert going.wait(10)
    asking.join()
    (threads,) = found
    assert threads[0][0] == "MainThread" and "who asks" not in [name for name, _ in threads]
    assert any("own_threads_are_told" in function for *_, function in threads[0][1])


def test_row74_a_process_that_keeps_pythons_lock_shows_its_stack(tmp_path):
    command = [sys.executable, "-c", LISTENING, str(tmp_path)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)}
    ) as it:
        try:
            assert it.stdout.readline() == "up\n"
            for _ in range(3):  # again and again, each time only what is new
                ((name, frames),), why = stacks.by_signal(it.pid, tmp_path, 20.0)
                assert (name, why) == ("MainThread", "")
                assert [function for *_, function in frames] == ["keeps_the_lock", "<module>"]
            os.kill(it.pid, signal.SIGSTOP)
            os.waitid(os.P_PID, it.pid, os.WSTOPPED)
            assert stacks.by_signal(it.pid, tmp_path, 20.0) == ([], "it is stopped (SIGSTOP, or a debugger)")
        finally:
            it.kill()
    assert stacks.by_signal(it.pid, tmp_path, 20.0) == ([], "it has ended")


def test_who_has_no_handler_is_not_signalled(tmp_path):
    (tmp_path / "stacks").touch()
    with subprocess.Popen(["sleep", "600"]) as it:
        try:
            threads, why = stacks.by_signal(it.pid, tmp_path, 20.0)
            assert not threads and "no handler" in why and it.poll() is None
        finally:
            it.kill()
