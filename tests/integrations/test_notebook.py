"""In a real kernel: logs under their cell, cells that run again, Ctrl-C, restarts, `%%zmreg`. One kernel for most."""

from __future__ import annotations

import queue
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import nbclient
import nbformat
import pytest
from jupyter_client.blocking import BlockingKernelClient
from jupyter_client.manager import KernelManager

from tests.footprint import Footprint

PATIENCE_S = 20.0
START = "import os, signal, sys, time\nimport zmreg\nzmreg.init(num_cpus=2, address='local', log_dedup_s=0.5)"


class Cell:
    """One run of a cell: what has come of it so far."""

    def __init__(self, number: str) -> None:
        self.number = number
        self.status = ""
        self.error = ""


class Kernel:
    """A kernel, and all that it says, by the run of the cell it belongs to."""

    def __init__(self) -> None:
        self.manager = KernelManager(kernel_name="python3")
        self.manager.start_kernel()
        self.client: BlockingKernelClient = self.manager.blocking_client()
        self.client.start_channels()
        self.client.wait_for_ready(timeout=PATIENCE_S)
        self.streams: dict[str, str] = defaultdict(str)
        self.shown: dict[str, list[dict[str, str]]] = defaultdict(list)
        self.idle: set[str] = set()
        self.errors: dict[str, str] = {}

    def begin(self, source: str) -> str:
        """Run a cell, and do not wait."""
        return str(self.client.execute(source))

    def run(self, source: str) -> str:
        """Run a cell to its end: its number. AssertionError when it fails."""
        number = self.begin(source)
        self.ends(number)
        assert number not in self.errors, self.errors[number]
        return number

    def fails(self, source: str) -> str:
        """The error of a cell."""
        number = self.begin(source)
        self.ends(number)
        return self.errors[number]

    def ends(self, number: str) -> None:
        """Until the cell is over."""
        self._until(lambda: number in self.idle, f"cell {number} did not end")

    def says(self, number: str, text: str) -> None:
        """Until this text stands below the cell."""
        self._until(lambda: text in self.streams[number], f"{text!r} is not below {number}")

    def _until(self, met, what: str) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while not met():
            try:
                self._take(self.client.get_iopub_msg(timeout=max(0.0, deadline - time.monotonic())))
            except queue.Empty:
                raise AssertionError(f"{what}: {dict(self.streams)} {self.errors}") from None

    def _take(self, message) -> None:
        number, content = message["parent_header"].get("msg_id", ""), message["content"]
        match message["msg_type"]:
            case "stream":
                self.streams[number] += content["text"]
            case "display_data" | "execute_result" | "update_display_data":
                self.shown[number].append(content["data"])
            case "error":
                self.errors[number] = f"{content['ename']}: {content['evalue']}"
            case "status" if content["execution_state"] == "idle":
                self.idle.add(number)

    def close(self) -> None:
        """The kernel's end."""
        self.client.stop_channels()
        self.manager.shutdown_kernel()


@pytest.fixture(scope="module")
def kernel() -> Iterator[Kernel]:
    before = Footprint.now()
    kernel = Kernel()
    kernel.run(START)
    yield kernel
    kernel.close()
    assert not before.leaks(), "what a notebook has started ends with its kernel"


TALK = """
@zmreg.remote
def talk(text, after_s=0.0):
    time.sleep(after_s)
    print(text)
    return text
@zmreg.remote
def asks(text):
    return talk.remote(text).get()
"""


def test_row73_what_a_call_prints_appears_below_the_cell_that_made_it(kernel: Kernel) -> None:
    kernel.run(TALK)
    first = kernel.run("ref, nested = talk.remote('from the first', 0.3), asks.remote('from a nested one')")
    second = kernel.run("print('mine'); zmreg.get([ref, nested, talk.remote('from the second')])")
    kernel.says(first, "from the first")
    kernel.says(first, "from a nested one")
    kernel.says(second, "from the second")
    assert "(talk pid=" in kernel.streams[first]
    assert "first" not in kernel.streams[second] and "mine" not in kernel.streams[first]


def test_row73_lines_that_are_alike_are_shown_once_and_counted(kernel: Kernel) -> None:
    cell = kernel.run(
        "def same():\n    print('the same for all')\n"
        "zmreg.run_on_all(lambda: None)\n"
        "@zmreg.remote\nclass Two:\n    def go(self): print('alike')\n    def __repr__(self): return 'Two()'\n"
        "two = [Two.remote() for _ in range(2)]\n"
        "zmreg.get([each.go.remote() for each in two]); del two"
    )
    kernel.says(cell, "(Two() pid=")
    kernel.says(cell, "alike [repeated 1x by others]")
    assert kernel.streams[cell].count("alike") == 2


def test_a_notebook_runs_with_nbclient_each_cell_twice(kernel: Kernel) -> None:
    sources = [
        START,
        "@zmreg.remote\ndef square(n):\n    return n * n\n\n"
        "@zmreg.remote\nclass Sum:\n    def __init__(self): self.all = 0\n"
        "    def add(self, n):\n        self.all += n\n        return self.all",
        "refs = [square.remote(n) for n in range(4)]\nrefs[0]",
        "assert zmreg.get(refs) == [0, 1, 4, 9]\nassert zmreg.progress(refs) == [0, 1, 4, 9]",
        "adder = Sum.remote()\nassert [adder.add.remote(n).get() for n in (1, 2)] == [1, 3]\nadder",
        "assert await square.remote(5) == 25\nsquare",
        "zmreg.nodes()",
    ]
    cells = [nbformat.v4.new_code_cell(source) for source in sources for _ in range(2)]
    client = nbclient.NotebookClient(
        nbformat.v4.new_notebook(cells=cells), km=kernel.manager, timeout=PATIENCE_S, allow_errors=False
    )
    client.start_new_kernel_client()
    try:
        for index, cell in enumerate(cells):
            client.execute_cell(cell, index)
    finally:
        client.kc.stop_channels()
    for cell in cells[4:6] + cells[8:10] + cells[11:]:
        forms = [output["data"] for output in cell.outputs if output["output_type"] == "execute_result"]
        assert forms and "<table>" in forms[0]["text/html"], cell.source


def test_a_cell_run_fifty_times_leaves_no_more_than_run_once(kernel: Kernel) -> None:
    cell = """
@zmreg.remote
def twice(x): return 2 * x
@zmreg.remote
class Keeps:
    def __init__(self, value): self.value = value
    def get(self): return self.value
keeper = Keeps.remote(zmreg.put(b"x" * 200_000))
refs = [twice.remote(n) for n in range(10)] + [zmreg.put(b"y" * 200_000), keeper.get.remote()]
assert zmreg.get(refs[:10]) == [2 * n for n in range(10)] and len(refs[-1].get()) == 200_000
"""
    count = """
from zmreg.services.seat.client import current
def figures():
    seat, stats = current(), zmreg.stats()
    return (len(seat.tasks.templates), len(seat.tasks.peers), len(seat.tasks.live), stats["store"]["sealed"],
            stats["leases"]["actors"])
def settled(wanted):
    until = time.monotonic() + 10
    while figures() != wanted and time.monotonic() < until: zmreg.wait([zmreg.put(0)])
    return figures()
"""
    kernel.run(count)
    for _ in range(2):
        kernel.run(cell)
    kernel.run("time.sleep(0.3); before = figures()")
    for _ in range(48):
        kernel.run(cell)
    kernel.run("after = settled(before)\nassert after == before, (before, after)")
    kernel.run("del keeper, refs")


def test_ctrl_c_ends_the_wait_and_the_next_cell_goes_on(kernel: Kernel) -> None:
    kernel.run(TALK + "\n@zmreg.remote\ndef sleeps():\n    time.sleep(60)\n")
    cell = kernel.begin("ref = sleeps.remote(); print('waits', flush=True); ref.get()")
    kernel.says(cell, "waits")
    start = time.monotonic()
    kernel.manager.interrupt_kernel()
    kernel.ends(cell)
    assert kernel.errors[cell].startswith("KeyboardInterrupt") and time.monotonic() - start < 5
    kernel.run("assert not ref.done(); ref.cancel(); assert talk.remote('on').get() == 'on'")


STRIKES = """
import threading
from zmreg.api import interrupting
def strikes():  # when the cell is in the midst of its wait
    def inside():
        frame = sys._current_frames()[threading.main_thread().ident]
        while frame is not None:
            if frame.f_code.co_name == "wait" and frame.f_code.co_filename.endswith("pump.py"):
                return True
            frame = frame.f_back
        return False
    while not inside(): time.sleep(0.01)
    os.kill(os.getpid(), signal.SIGINT)
def soon(): threading.Thread(target=strikes).start()
"""


def test_experience_1_2_a_second_interrupt_tells_how_to_cancel_below_its_cell_and_the_option_does_it(
    kernel: Kernel,
) -> None:
    kernel.run(STRIKES + "\n@zmreg.remote\ndef sleeps():\n    time.sleep(60)\nref = sleeps.remote()")
    for _ in range(2):  # every cell twice
        assert kernel.fails("soon(); ref.get()").startswith("KeyboardInterrupt")
        kernel.run("interrupting._last = time.monotonic() + 60  # as if it were just now, on any machine")
        cell = kernel.begin("soon(); ref.get()")
        kernel.ends(cell)
        kernel.says(cell, "zmreg: the call that this waited for goes on. zmreg.cancel(ref) cancels it")
        kernel.run("assert not ref.done()")
    kernel.run("interrupting._last = float('-inf')")
    cell = kernel.begin("soon(); zmreg.get([ref], cancel_on_interrupt=True)")
    kernel.ends(cell)
    assert kernel.errors[cell].startswith("KeyboardInterrupt") and not kernel.streams[cell]
    kernel.run("assert isinstance(ref.exception(20), zmreg.errors.TaskCancelledError); del ref")


def test_experience_1_2_a_ref_says_how_old_it_is_and_a_quiet_call_nothing(kernel: Kernel) -> None:
    kernel.run(TALK)
    for _ in range(2):
        cell = kernel.run("ref = talk.options(quiet=True).remote('hushed'); talk.remote('aloud').get(); ref.get(); ref")
        kernel.says(cell, "aloud")
        assert "age</th>" in kernel.shown[cell][0]["text/html"] and " s old" in kernel.shown[cell][0]["text/plain"]
        assert "hushed" not in kernel.streams[cell]
    kernel.run("del ref")


def test_experience_1_2_completion_help_and_the_lines_of_a_cell_in_its_errors(kernel: Kernel) -> None:
    kernel.run("""
@zmreg.remote
class Helped:
    def compute(self, amount: int) -> float:
        "Says what it does."
        return 1 / amount
helped = Helped.remote()
""")
    found = kernel.client.complete("helped.", reply=True, timeout=PATIENCE_S)["content"]["matches"]
    assert "compute" in found and "close" in found
    told = kernel.client.inspect("helped.compute", reply=True, timeout=PATIENCE_S)["content"]["data"]["text/plain"]
    assert "Helped.compute(amount: int) -> float" in told and "Says what it does." in told
    assert "    return 1 / amount\n" in kernel.fails("helped.compute.remote(0).get()"), "the worker has no such file"
    kernel.run("del helped")


def test_X22_a_cell_runs_on_every_worker_and_names_stay(kernel: Kernel) -> None:
    kernel.run("%load_ext zmreg")
    cell = kernel.run("%%zmreg\nx = 40\nprint('same for both')\nx + 2")
    assert "[0-1] same for both" in kernel.streams[cell]
    assert [form["text/plain"] for form in kernel.shown[cell]] == ["42"]
    cell = kernel.run("%%zmreg\nx += engine\nprint(x)\nawait __import__('asyncio').sleep(0, 'awaited')")
    assert "[0] 40" in kernel.streams[cell] and "[1] 41" in kernel.streams[cell]
    kernel.run("here = 5")
    kernel.run("%%zmreg --push here --as there\nx + here")
    kernel.run("assert there == [45, 46], there")
    error = kernel.fails("%%zmreg --targets 1\ndef fails():\n    return 1 / 0\nfails()")
    assert error == "RuntimeError: the cell failed on 1 of 2 workers (1): ZeroDivisionError: division by zero".replace(
        "of 2", "of 1"
    )
    assert "ValueError" in kernel.fails("%%zmreg --targets 7\n1")
    kernel.run("%unload_ext zmreg")


def test_a_pipeline_that_is_watched_is_a_table_below_its_cell_drawn_anew(kernel: Kernel) -> None:
    cell = kernel.run("outputs = (zmreg.Pipeline() | (lambda x: x)).collect(range(300), watch=True)")
    first, *_, last = kernel.shown[cell]
    assert "<table>" in first["text/html"] and "300/300" in last["text/html"] and "300/300" in last["text/plain"]
    kernel.run("assert outputs == list(range(300))")


def test_a_restart_leaves_nothing_and_the_next_init_works() -> None:
    kernel = Kernel()
    try:
        kernel.run(START)
        cell = kernel.run("print(zmreg.remote(abs).remote(-3).get(), zmreg.init(ignore_reinit_error=True).session)")
        session = Path(kernel.streams[cell].split()[1])
        assert session.exists()
        kernel.manager.restart_kernel(now=True)
        kernel.client.wait_for_ready(timeout=PATIENCE_S)
        kernel.run(START)
        kernel.run("assert zmreg.remote(abs).remote(-3).get() == 3")
        deadline = time.monotonic() + PATIENCE_S
        while session.exists() and time.monotonic() < deadline:
            kernel.run("pass")
        assert not session.exists(), "kill -9 of the kernel: its node ends with it, and removes the session"
    finally:
        kernel.close()
