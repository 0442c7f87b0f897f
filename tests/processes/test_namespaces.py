"""Two machines with a cable between them: networks of their own, whose link is pulled and plugged in again.

The other tests of bad links do harm through a proxy, whose ends stay up on loopback. Here the kernel itself says that
there is no route, or nobody answers; and what users type is typed as the README and `zmreg start --head` say it.
"""

from __future__ import annotations

import os
import re
import select
import shutil
import subprocess
import sys
import textwrap
from ast import literal_eval
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.footprint import Footprint
from tests.processes.networks import ADDRESSES, Cable, NoNetworksError, cable
from tests.tools.machines import PATIENCE_S, ROOT, Machine, machine, until
from zmreg.services.setup.observer import Observer
from zmreg.services.setup.sessions import read_word

pytestmark = pytest.mark.timeout(120)

# Silent so long is dead, and a third of it suspected.
SMALL = {"ZMREG_NUM_CPUS": "1", "ZMREG_OBJECT_STORE_BYTES": str(64 << 20), "ZMREG_DEAD_AFTER_S": "5"}

PROGRAM = """
import sys, zmreg

@zmreg.remote(num_cpus=0, resources={"there": 0.1})
class Ledger:
    def __init__(self):
        self.numbers = []

    def add(self, number):
        self.numbers.append(number)
        return number

    def all(self):
        return self.numbers

@zmreg.remote(num_cpus=0, resources={"there": 0.1})
def large(fill):
    return bytes([fill]) * 2_000_000

@zmreg.remote(num_cpus=0, max_retries=1)
def slow(path):
    import pathlib, time
    me = zmreg.get_runtime_context().get_node_id()
    with open(path, "a") as file:
        file.write(me + "\\n")
    gate = pathlib.Path(path + ".gate")
    while not gate.exists():
        time.sleep(0.01)
    return me

def say(*words):
    print(*words, flush=True)

zmreg.init()
"""


class Two:
    """A head and a worker, each on a machine of its own, and the cable between them."""

    def __init__(self, cable: Cable, here: Machine, there: Machine) -> None:
        self.cable = cable
        self.here = here
        self.there = there
        head = here.goes_on(f"zmreg start --head --host {ADDRESSES[0]} --name alpha", **SMALL)
        self.said = "".join(lines_until(head, r"zmreg start --worker .*--key"))
        (command,) = re.findall(r"zmreg start --worker .*--key \S+", self.said)
        done = here.run("key", "export", "exported.key")
        assert done.returncode == 0, done.stderr
        shutil.copy(here.here / "exported.key", there.here / "cluster.key")  # as with scp
        self.worker = there.goes_on(f"{command} --name beta --resources there=1", **SMALL)
        self.node = self.next_life()

    def next_life(self) -> str:
        """How the id begins of the node that the worker says is up."""
        (line,) = lines_until(self.worker, "Worker beta")[-1:]
        lines_until(self.worker, "zmreg.init")
        return re.findall(r"\((\w{8})\)", line)[0]

    def states(self) -> dict[str, str]:
        """{how a node's id begins: its state}, as the head sees it."""
        (session,) = self.here.sessions()
        with Observer(read_word(session)) as observer:
            return {row["NodeID"][:8]: row["State"] for row in observer.ask("nodes")}

    def program(self, rest: str) -> subprocess.Popen[str]:
        """A program on the head's machine, to speak with."""
        return subprocess.Popen(
            [*self.here.prefix, sys.executable, "-c", PROGRAM + textwrap.dedent(rest)], env=self.here.environment(),
            cwd=self.here.here, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip


def lines_until(process: subprocess.Popen[str], pattern: str) -> list[str]:
    """What it prints, up to a line that has the pattern."""
    assert process.stdout is not None
    lines: list[str] = []
    while not (lines and re.search(pattern, lines[-1])):
        ready, _, _ = select.select([process.stdout], [], [], PATIENCE_S)
        # One byte after the other: what Python's buffer holds, select cannot see.
        line = read_line(process.stdout) if ready else ""
        if not line:
            process.kill()
            raise AssertionError(f"no {pattern!r} after {lines}: {process.communicate()[1]}")
        lines.append(line)
    return lines


def read_line(stream: Any) -> str:
    line = b""
    while not line.endswith(b"\n") and (byte := os.read(stream.fileno(), 1)):
        line += byte
    return line.decode()


def tell(process: subprocess.Popen[str], word: str) -> None:
    assert process.stdin is not None
    process.stdin.write(f"{word}\n")
    process.stdin.flush()


def end(process: subprocess.Popen[str]) -> None:
    _, errors = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0, errors


@pytest.fixture(scope="module")
def two() -> Iterator[Two]:
    before = Footprint.now()
    with ExitStack() as stack:
        try:
            link = stack.enter_context(cable())
        except NoNetworksError as error:
            pytest.skip(f"no networks of their own can be made here: {error}")
        here, there = (stack.enter_context(machine(prefix)) for prefix in link.prefixes)
        yield Two(link, here, there)
    if leaks := before.leaks():
        pytest.fail("two machines left behind:\n  " + "\n  ".join(leaks), pytrace=False)


def test_the_quick_start_of_two_nodes_as_it_is_written(two: Two):
    assert f"{ADDRESSES[0]}:7550 and {ADDRESSES[0]}:7551 (TCP, encrypted)" in two.said
    readme = (ROOT / "README.md").read_text()
    commands = re.findall(r"^\$ (zmreg start \S+(?: --address)?)", readme, re.M)
    assert commands == ["zmreg start --head", "zmreg start --worker --address"], "not what is typed above"
    (source,) = re.findall(r"A program finds the cluster:\n\n```python\n(.*?)```", readme, re.S)
    done = two.here.program(source)
    assert done.returncode == 0, done.stderr
    nodes, resources = done.stdout.splitlines()
    assert {each[:8] for each in literal_eval(nodes)} == set(two.states())
    assert literal_eval(resources)["CPU"] == 2.0


@pytest.mark.parametrize("end_of", [0, 1], ids=["at the head", "at the worker"])
def test_fault18_a_cable_that_is_pulled_for_a_while_costs_nothing(two: Two, end_of: int):
    """The one who has lost the interface is told by the kernel that there is no route: that is no death, either."""
    before = two.states()
    program = two.program("""
        ledger = Ledger.remote()
        kept = large.remote(7)
        zmreg.wait([kept], fetch_local=False)
        refs = [ledger.add.remote(number) for number in range(100)]
        say("numbers", zmreg.get(refs) == list(range(100)))
        input()
        refs = [ledger.add.remote(number) for number in range(100, 200)]
        value = kept.future()
        say("called")
        assert zmreg.get(refs) == list(range(100, 200)), "lost, or out of order"
        assert ledger.all.remote().get() == list(range(200)), "something ran twice"
        assert value.result() == bytes([7]) * 2_000_000
        assert zmreg.stats()["errors"] == {"internal": 0, "protocol": 0}
        say("whole")
        """)
    lines_until(program, "numbers True")
    two.cable.pull(end_of)
    try:
        tell(program, "go on")
        lines_until(program, "called")
        until(lambda: "SUSPECTED" in two.states().values())
    finally:
        two.cable.plug(end_of)
    lines_until(program, "whole")
    end(program)
    until(lambda: two.states() == before)
    assert set(before.values()) == {"ALIVE"} and two.worker.poll() is None


@pytest.mark.parametrize("end_of", [0, 1], ids=["at the head", "at the worker"])
def test_fault19_a_cable_that_is_pulled_for_too_long_ends_the_node_and_it_comes_back(
    two: Two, end_of: int, tmp_path: Path
):
    path, old = tmp_path / "calls", two.node
    program = two.program(f"""
        ledger = Ledger.remote()
        say(ledger.add.remote(1).get())
        (there,) = [row["NodeID"] for row in zmreg.nodes() if row["NodeID"].startswith({old!r})]
        near = zmreg.NodeAffinitySchedulingStrategy(there, soft=True)
        running = slow.options(scheduling_strategy=near).remote({str(path)!r})
        input()
        try:
            ledger.add.remote(2).get()
        except zmreg.errors.ActorDiedError:
            say("dead")
        assert running.get() != there
        say("elsewhere")
        input()
        assert large.remote(3).get() == bytes([3]) * 2_000_000
        say("back")
        """)
    until(path.exists)
    two.cable.pull(end_of)
    try:
        tell(program, "go on")
        lines_until(program, "dead")
        assert two.states()[old] == "DEAD"
        path.with_name("calls.gate").touch()
        lines_until(program, "elsewhere")
        assert [line[:8] == old for line in path.read_text().splitlines()] == [True, False]
    finally:
        two.cable.plug(end_of)
    two.node = two.next_life()
    assert two.node != old
    until(lambda: two.states().get(two.node) == "ALIVE")
    assert two.states()[old] == "DEAD"
    tell(program, "go on")
    lines_until(program, "back")
    end(program)
