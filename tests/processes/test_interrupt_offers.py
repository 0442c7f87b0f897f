"""Ctrl-C ends a wait and not the work; who presses it again, or has said so before, has the work cancelled."""

from __future__ import annotations

from tests.processes.drivers import Driver
from zmreg.api import interrupting

START = """
zmreg.init(num_cpus=2, address="local")

@zmreg.remote
def sleeps():
    time.sleep(600)

@zmreg.remote
def items():
    time.sleep(600)
    yield 1

def in_a_wait():
    # The main thread sleeps in the pump, so what comes now comes into the midst of a wait.
    while True:
        frame = sys._current_frames()[threading.main_thread().ident]
        while frame is not None:
            if frame.f_code.co_name == "wait" and frame.f_code.co_filename.endswith("net/pump.py"):
                return
            frame = frame.f_back
        time.sleep(0.005)

def struck(wait, strike=lambda: os.kill(os.getpid(), signal.SIGINT)):
    thread = threading.Thread(target=lambda: (in_a_wait(), strike()))
    thread.start()
    try:
        wait()
    except KeyboardInterrupt:
        thread.join()
        return
    raise AssertionError("it went on")

from zmreg.api import interrupting
def forget():
    interrupting._last = float("-inf")
"""

HINTS = (
    START
    + """
one, two = sleeps.remote(), sleeps.remote()
items = items.remote()
struck(lambda: zmreg.get([one, two]))
say("first", interrupting._last > 0)
interrupting._last = time.monotonic() + 60   # the second comes at once, however slow this machine is
struck(lambda: zmreg.wait([one, two], num_returns=2))
say("second")
for wait in (one.get, one.exception, lambda: next(items), lambda: zmreg.progress([one]),
             lambda: zmreg.get([one], return_exceptions=True)):
    interrupting._last = time.monotonic() + 60
    struck(wait)
say("hints")
forget()
struck(lambda: zmreg.get([one, two], cancel_on_interrupt=True))
say("ended", *(typed(ref.get) for ref in (one, two)))
three = sleeps.remote()
struck(lambda: three.get(cancel_on_interrupt=True))
say("ended", typed(three.get))
four = sleeps.remote()
struck(lambda: zmreg.get(four, return_exceptions=True, cancel_on_interrupt=True))
say("ended", typed(four.get))
zmreg.shutdown()
try:
    raise KeyboardInterrupt
except KeyboardInterrupt:
    interrupting.ended([four._entry], True)
say("over")
"""
)

TERMINAL = (
    """
import fcntl, os, pty, termios
os.setsid()
master, slave = os.openpty()
fcntl.ioctl(slave, termios.TIOCSCTTY, 0)
os.dup2(slave, 0)
os.dup2(slave, 2)
"""
    + START
    + """
shown, answers = [b""], []
def terminal():
    while True:
        shown[0] += os.read(master, 4096)
        if shown[0].endswith(b"[y/N] ") and answers:
            os.write(master, answers.pop(0))
threading.Thread(target=terminal, daemon=True).start()

def asked(answer):
    ref = sleeps.remote()
    shown[0] = b""
    answers[:] = [answer]
    interrupting._last = time.monotonic() + 60
    struck(lambda: ref.get(), lambda: os.write(master, b"\\x03"))
    assert not answers
    return ref

no = asked(b"\\n")
say("asked", "the call that this waited for goes on. Cancel it? [y/N]" in shown[0].decode())
refused = asked(b"n\\n")
third = asked(b"\\x03")
say("go", *(not ref.done() for ref in (no, refused, third)))
yes = asked(b"y\\n")
say("ended", typed(yes.get))
for ref in (no, refused, third):
    ref.cancel()
zmreg.shutdown()
say("over")
"""
)


def test_experience_1_2_a_second_ctrl_c_tells_how_to_cancel_and_the_option_cancels() -> None:
    with Driver(HINTS) as driver:
        assert driver.after("first") == "True"
        driver.after("second")
        assert driver.stderr().count("zmreg: 2 calls that this waited for go on. zmreg.cancel(ref)") == 1
        driver.after("hints")
        assert driver.stderr().count("zmreg: the call that this waited for goes on.") == 5
        assert driver.after("ended") == "TaskCancelledError TaskCancelledError"
        assert driver.after("ended") == driver.after("ended") == "TaskCancelledError"
        driver.after("over")
        assert driver.end() == 0
        assert driver.stderr().count("zmreg:") == 6, "who has said it before is told nothing"


def test_experience_1_2_in_a_terminal_a_second_ctrl_c_asks() -> None:
    with Driver(TERMINAL) as driver:
        assert driver.after("asked") == "True"
        assert driver.after("go") == "True True True", "no answer, n, and a third Ctrl-C are no"
        assert driver.after("ended") == "TaskCancelledError"
        driver.after("over")
        assert driver.end() == 0


def test_experience_1_2_only_the_second_within_two_seconds_is_one(monkeypatch) -> None:
    monkeypatch.setattr(interrupting, "_last", float("-inf"))
    pressed = (0.0, 1.9, 2.0, 4.1, 6.05, 6.1)
    assert [interrupting._is_second(now) for now in pressed] == [False, True, False, False, True, False]
