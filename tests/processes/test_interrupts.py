"""Ctrl-C at every place where it can land: whatever the program was calling, it is as usable afterwards as before.

CPython runs signal handlers when a function begins, after a call, and at the end of a loop's round. A trace function
finds those places in our code and raises SIGINT at the n-th of them, for one n after the other.
"""

from __future__ import annotations

import pytest

from tests.processes.drivers import Driver

# Strikes per way in, spread over all its places; and what no single wait after one of them may take.
STRIKES = 40
PATIENCE_S = 20

PROGRAM = """
import dis, os.path, weakref
import numpy

HOME = os.path.dirname(zmreg.__file__)
STRIKES, PATIENCE_S = {strikes}, {patience}
heard = []

class Strike:
    # Counts the places that are passed in our code, and raises SIGINT at one of them (0: at none).

    def __init__(self, at):
        self.at, self.places, self.where, self._before = at, 0, "", {{}}

    def __call__(self, frame, event, arg):
        if not frame.f_code.co_filename.startswith(HOME):
            return None
        frame.f_trace_opcodes = True
        frame.f_trace_lines = False
        return self._opcode

    def _opcode(self, frame, event, arg):
        if event == "return":
            self._before.pop(frame, None)
        if event != "opcode":
            return self._opcode
        now = dis.opname[frame.f_code.co_code[frame.f_lasti]]
        before = self._before.get(frame, "")
        self._before[frame] = now
        if (before.startswith("CALL") or before in ("RESUME", "JUMP_BACKWARD")) and not finalizes(frame):
            self.places += 1
            if self.places == self.at:
                sys.settrace(None)
                self.where = f"{{os.path.relpath(frame.f_code.co_filename, HOME)}}:{{frame.f_lineno}}"
                self._before.clear()
                arm()
                signal.raise_signal(signal.SIGINT)
        return self._opcode

def finalizes(frame):
    # Python prints what a finalizer raises, and goes on: docs/decisions/0006.
    while frame is not None:
        if frame.f_code.co_name == "__del__" or frame.f_code.co_filename == weakref.__file__:
            return True
        frame = frame.f_back
    return False

def struck(action, at):
    strike = Strike(at)
    heard.clear()
    sys.settrace(strike)
    try:
        action()
    except KeyboardInterrupt:
        heard.append("raised")
    finally:
        sys.settrace(None)
    assert heard == (ONCE if strike.where else []), f"the user's handler runs, once: {{heard}}"
    assert signal.getsignal(signal.SIGINT) == handler
    return strike

{where}
@zmreg.remote
def echo(x, *more):
    return x

@zmreg.remote
class Log:
    def __init__(self):
        self.seen = []
    def add(self, x, *more):
        self.seen.append(x)
        return x
    def all(self):
        seen, self.seen = self.seen, []
        return seen

LARGE = numpy.arange(100_000)
log = Log.remote()
log.all.remote().get(timeout=PATIENCE_S)
echo.remote(0).get(timeout=PATIENCE_S)
seat = current()
kept = []

def keep(ref):
    kept.append(ref)

# Each way in: what is done under the strike. What it keeps must be there afterwards.
def tasks():
    for number in range(70):
        keep(echo.remote(number))

def task_that_waits_for_another():
    keep(echo.remote(0))
    for _ in range(4):
        keep(echo.remote(kept[-1], zmreg.put(1)))

def calls():
    for number in range(40):
        keep(log.add.remote(number))

def calls_that_wait():
    keep(echo.remote(0))
    keep(log.add.remote(kept[-1]))
    keep(log.add.remote(1, kept[-1]))

def first_call_of_an_actor():
    other = Log.remote()
    keep(other.add.remote(1))
    keep(other.add.remote(2))

def first_call_of_a_function():
    mine = zmreg.remote(lambda x: x).options(num_cpus=0.5)
    keep(mine.remote(3))

def large_arguments():
    keep(echo.remote(1, LARGE))

def puts():
    keep(zmreg.put(1))
    keep(zmreg.put(LARGE))
    keep(zmreg.put([kept[0], LARGE]))

def done():
    refs = [echo.remote(number) for number in range(3)]
    kept.extend(refs)
    while not all(ref.done() for ref in refs):
        pass

def get():
    keep(echo.remote(5))
    kept[-1].get(timeout=PATIENCE_S)

def get_large():
    keep(zmreg.put(LARGE))
    keep(echo.remote(LARGE))
    zmreg.get([*kept, *kept], timeout=PATIENCE_S)
    kept[0].get(copy=True)

def waits():
    for number in range(4):
        keep(echo.remote(number))
    zmreg.wait(kept, num_returns=2, timeout=PATIENCE_S)
    for ref in zmreg.as_completed(kept):
        ref.get(timeout=PATIENCE_S)

def cancel():
    refs = [echo.remote(number) for number in range(3)]
    for ref in refs:
        ref.cancel()

def questions():
    zmreg.nodes()

def callbacks():
    keep(echo.remote(1))
    told = threading.Event()
    kept[-1].add_done_callback(lambda ref: told.set())
    kept[-1].future().result(PATIENCE_S)

def quiet(question, wanted, what):
    # Answers nobody waits for are under way, and so is what finalizers left: a bounded poll.
    deadline = time.monotonic() + PATIENCE_S
    while (found := question()) != wanted:
        assert time.monotonic() < deadline, f"{{what}}: {{found}}, not {{wanted}}"

def usable():
    for ref in kept:
        ref.get(timeout=PATIENCE_S)
    values = [ref.get(timeout=PATIENCE_S) for ref in kept]
    kept.clear()
    assert echo.remote(7).get(timeout=PATIENCE_S) == 7
    seen = log.all.remote().get(timeout=PATIENCE_S)
    assert len(set(seen)) == len(seen) and seen == sorted(seen), f"each call once and in order: {{seen}}"
    del values
    free = []
    thread = threading.Thread(target=lambda: free.append(seat.lock.acquire(timeout=5)) or seat.lock.release())
    thread.start()
    thread.join()
    assert free == [True], "the lock is free"
    assert seat.internal_errors == seat.protocol_errors == 0
    assert not seat.shelf._tickets and not seat.shelf._rooms and not seat.questions._open
    assert not seat.pump._callers and not seat.pump._followers
    quiet(under_way, 0, "under way")

def under_way():
    lanes, pools = list(seat.tasks.lanes.values()), list(seat.tasks.pools.values())
    calls = len(seat.tasks.live) - ALWAYS + sum(len(pool.queue) for pool in pools)
    sent = sum(len(lane.outstanding) + len(lane.buffer) + len(lane.parked) + (lane.load > 1e-6) for lane in lanes)
    return calls + sent

def store():
    counts = zmreg.stats()["store"]
    return {{name: counts[name] for name in ("objects", "pins") if name in counts}}

def sweep(action):
    struck(action, 0)
    usable()
    places = struck(action, 0).places
    usable()
    before = store()
    step = max(1, places // STRIKES)
    for at in range(1, places + 1, step):
        strike = struck(action, at)
        try:
            usable()
        except BaseException as error:
            error.add_note(f"{{action.__name__}}, place {{at}} of {{places}}: {{strike.where}}")
            raise
    quiet(store, before, "in the store")
    say("swept", action.__name__, places, len(range(1, places + 1, step)))
"""

IN_DRIVER = """
def handler(number, frame):
    heard.append(number)
    raise KeyboardInterrupt

def arm(): pass

ONCE, ALWAYS = [signal.SIGINT, "raised"], 0
signal.signal(signal.SIGINT, handler)
zmreg.init(num_cpus=1, object_store_bytes=64 << 20, log_to_driver=False)
"""

# A task that is cancelled where it calls zmreg itself, and goes on all the same.
IN_WORKER = """
handler = signal.getsignal(signal.SIGINT)
ONCE, ALWAYS = ["raised"], 0

def arm():
    signals = current().signals
    signals.target = signals.executing
"""

AROUND_WORKER = """
zmreg.init(num_cpus=2, object_store_bytes=64 << 20, log_to_driver=False)

@zmreg.remote
def inside(program, way):
    said = []
    names = {"__name__": "inside", "say": lambda *words: said.append(words)}
    exec(program, names)
    names["sweep"](names[way])
    return said[0]

say(*inside.remote(PROGRAM, WAY).get(timeout=55))
"""

WAYS_IN = (
    "tasks", "task_that_waits_for_another", "calls", "calls_that_wait", "first_call_of_an_actor",
    "first_call_of_a_function", "large_arguments", "puts", "done", "get", "get_large", "waits", "cancel", "questions",
    "callbacks",
)  # fmt: skip


def program(where):
    return PROGRAM.format(strikes=STRIKES, patience=PATIENCE_S, where=where)


@pytest.mark.parametrize("way", WAYS_IN)
def test_fault17_ctrl_c_at_any_place_of(way):
    with Driver(program(IN_DRIVER) + f"\nsweep({way})\n") as driver:
        driver.after("swept", timeout=55)
        assert driver.end() == 0
        assert "KeyboardInterrupt" not in driver.stderr() and "Error" not in driver.stderr()


@pytest.mark.parametrize("way", ("tasks", "calls_that_wait", "get", "get_large", "waits"))
def test_row24_a_task_cancelled_at_any_place_of(way):
    inner = "import os, signal, sys, threading, time, zmreg\nfrom zmreg.services.seat.client import current\n"
    inner += program(IN_WORKER)
    with Driver(f"PROGRAM, WAY = {inner!r}, {way!r}\n" + AROUND_WORKER) as driver:
        driver.after("swept", timeout=55)
        assert driver.end() == 0


def test_fault17_ctrl_c_hundreds_of_times_at_random():
    """Real signals, from outside the interpreter: they also land in C code, which a trace function does not see."""
    source = """
    import random
    armed, heard = [], []
    def handler(number, frame):
        if armed:
            armed.clear()
            heard.append(number)
            raise KeyboardInterrupt
    signal.signal(signal.SIGINT, handler)
    zmreg.init(num_cpus=1)
    @zmreg.remote
    def echo(x):
        return x
    stop = threading.Event()
    def press():
        pick = random.Random(17)
        while not stop.wait(pick.random() / 500):
            os.kill(os.getpid(), signal.SIGINT)
    thread = threading.Thread(target=press)
    thread.start()
    raised = 0
    while len(heard) < 500:
        kept = []
        try:
            armed.append(1)
            while True:
                kept.append(echo.remote(len(kept)))
                if len(kept) % 7 == 0:
                    kept[-1].done()
                if len(kept) % 50 == 0:
                    zmreg.get(kept[-3:], timeout=20)
        except KeyboardInterrupt:
            raised += 1
        assert zmreg.get(kept, timeout=20) == list(range(len(kept)))
    stop.set()
    thread.join()
    seat = current()
    say("errors", seat.internal_errors, seat.protocol_errors, raised == len(heard), echo.remote(1).get(timeout=20))
    """.replace("\n    ", "\n")
    with Driver(source) as driver:
        assert driver.after("errors", timeout=55) == "0 0 True 1"
        assert driver.end() == 0
