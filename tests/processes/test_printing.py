"""What workers print, and who gets it: only the program whose call it was, from any node, up to the last line."""

from __future__ import annotations

import re

from tests.processes.drivers import Driver
from zmreg.testing import LocalCluster

PROGRAM = """
import os, sys
@zmreg.remote(num_cpus=1, max_retries=0)
def talk(text, and_dies=False):
    print(text, "of", {me!r})
    os.system("echo past python of {me}")
    if and_dies:
        os._exit(1)
@zmreg.remote(num_cpus=1)
def asks(text):
    zmreg.get([talk.remote(f"{{text}} {{number}}") for number in range(4)])
@zmreg.remote(num_cpus=1, max_retries=0)
def asks_and_dies():
    talk.remote("orphan").get()
    os._exit(1)
@zmreg.remote
class Counter:
    def __init__(self):
        self.count = 0
    def __repr__(self):
        return f"Counter({me})"
    def add(self):
        self.count += 1
        print("counts", self.count)
zmreg.init({address!r})
counter = Counter.options(num_cpus=0).remote()
for number in range(3):
    zmreg.get([talk.remote(f"plain {{number}}"), counter.add.remote()])
zmreg.get(asks.remote("nested"))
say("gone", typed(lambda: asks_and_dies.remote().get()))
say("died", typed(lambda: talk.remote("last words", True).get()))
"""


def test_row73_only_the_program_whose_call_it_was_hears_it_from_any_node_up_to_its_last_line() -> None:
    with LocalCluster(nodes=[{"num_cpus": 1}, {"num_cpus": 1}, {"num_cpus": 1}]) as cluster:
        sources = {me: PROGRAM.format(me=me, address=cluster.address) for me in ("one", "two")}
        with Driver(sources["one"]) as one, Driver(sources["two"]) as two:
            for me, other, driver in (("one", "two", one), ("two", "one", two)):
                assert driver.after("gone") == "WorkerDiedError"
                assert driver.after("died") == "WorkerDiedError"
                assert driver.end() == 0
                lines = driver.stderr().splitlines()
                told = [re.split(r" pid=[^)]*\) ", line)[-1] for line in lines]
                assert {f"plain {number} of {me}" for number in range(3)} <= set(told)
                assert {f"nested {number} of {me}" for number in range(4)} <= set(told), "what its tasks have called"
                assert f"orphan of {me}" in told, "the worker in between is dead by the time the log is read"
                assert f"last words of {me}" in told, "nobody waits between it and the end of either"
                assert f"(Counter({me})" in driver.stderr() and "counts 3" in told
                assert f"past python of {me}" in driver.stderr()
                assert not any(line.endswith(f" of {other}") for line in lines), "the other program's"
                assert all(re.match(r"\((talk|Counter.*) pid=\d+( node=[0-9a-f]{8})?\) ", line) for line in lines)


def test_C36_row73_a_program_that_ends_at_once_has_shown_everything() -> None:
    source = """
zmreg.init(num_cpus=2)
@zmreg.remote
def talk(number):
    print("line", number)
zmreg.get([talk.remote(number) for number in range(500)])
"""
    with Driver(source) as driver:
        assert driver.end() == 0
        told = sorted(line.partition(") ")[2] for line in driver.stderr().splitlines())
        assert told == sorted(f"line {number}" for number in range(500))
