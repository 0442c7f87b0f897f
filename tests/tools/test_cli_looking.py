"""`zmreg stack` and `zmreg memory`: what processes are in, and what is held by whom."""

from __future__ import annotations

import json
import os
import signal

import pytest

from tests.tools.machines import SMALL, free_port, machine
from zmreg.tools.cli.looking import _text

pytestmark = pytest.mark.timeout(120)

PROGRAM = """
import ctypes, json, os, pickle, subprocess, sys, time, numpy, zmreg
zmreg.init()
@zmreg.remote
def keeps_the_lock(path):
    open(path, "w").close()
    ctypes.PyDLL(None).read(os.pipe()[0], ctypes.create_string_buffer(1), 1)
@zmreg.remote(num_cpus=0)
class Reader:
    def read(self, ref):
        self.kept = ref[0].get()
        self.total = self.kept.sum()
        return os.getpid()
    def waits(self, path):
        open(path, "w").close()
        time.sleep(600)
big, small = zmreg.put(numpy.zeros(300_000, 'u1')), zmreg.put(numpy.zeros(200_000, 'u1'))
stray = pickle.dumps(small)
reader = Reader.remote()
pid = reader.read.remote([big]).get(timeout=20)
for path, call in (("held", keeps_the_lock), ("waits", reader.waits)):
    ref = call.remote(path)
    while not os.path.exists(path): time.sleep(0.01)
    setattr(zmreg, "kept_" + path, ref)
def ask(*arguments):
    done = subprocess.run([sys.executable, "-m", "zmreg", *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout
print(json.dumps({
    "me": os.getpid(), "reader": pid, "stack": json.loads(ask("stack", "--json")), "one": ask("stack", str(pid)),
    "memory": json.loads(ask("memory", "--json")), "oldest": json.loads(ask("memory", "--sort", "age", "--limit", "1",
    "--json")), "text": ask("memory"),
}))
"""


@pytest.fixture(scope="module")
def found():
    with machine() as here:
        here.head()
        done = here.program(PROGRAM)
        assert done.returncode == 0, done.stderr
        yield json.loads(done.stdout)


def functions(row: dict) -> list[str]:
    return [function for _, frames in row["Threads"][:1] for *_, function in frames]


def test_row74_stack_shows_nodes_programs_and_workers_busy_in_python_or_in_c(found):
    rows = found["stack"]
    assert sorted(row["Role"] for row in rows if row["Role"] != "worker") == ["driver", "node"]
    (held,) = [row for row in rows if "keeps_the_lock" in functions(row)]
    assert held["How"] == "signal" and not held["Why"]
    (waits,) = [row for row in rows if row["Pid"] == found["reader"]]
    assert waits["How"] == "asked" and functions(waits)[0] == "waits"
    (me,) = [row for row in rows if row["Pid"] == found["me"]]
    assert "ask" in functions(me)
    (node,) = [row for row in rows if row["Role"] == "node"]
    assert {"run", "main"} <= set(functions(node)) and "of_this_process" not in functions(node)


def test_row74_stack_of_one_process(found):
    assert found["one"].count("(worker, node") == 1 and f"pid={found['reader']}" in found["one"]
    assert "    waits  <string>:" in found["one"]


def test_row74_C28_memory_shows_whose_objects_these_are_and_who_reads_them(found):
    first, second = found["memory"]["objects"][:2]
    assert first["Bytes"] >= 300_000 > second["Bytes"] >= 200_000
    names = {row["ProcessID"]: row["Pid"] for row in found["memory"]["processes"]}
    assert names[first["OwnerID"]] == found["me"]
    (copy,) = first["Copies"]
    assert copy["Primary"] and {names[reader] for reader in copy["Pins"]} == {found["reader"]}
    assert not second["Pins"]
    (oldest,) = found["oldest"]["objects"]
    assert oldest["ObjectID"] == first["ObjectID"] and oldest["AgeSeconds"] > 0.0


def test_C11_memory_of_a_process_is_its_own_apart_from_what_it_shares(found):
    rows = {row["Pid"]: row for row in found["memory"]["processes"]}
    reader = rows[found["reader"]]
    assert reader["Answered"] and reader["SharedBytes"] > reader["OwnBytes"] > 0, "a fork shares most with the zygote"
    assert reader["StoreBytes"] >= 4096, "it has the array's pages mapped"
    (silent,) = [row for row in rows.values() if not row["Answered"]]
    assert silent["OwnBytes"] > 0, "it keeps Python's lock, and the kernel tells"


def test_row74_of_a_process_that_a_signal_has_shown_no_more_is_said_than_is_known():
    row = {"Name": "node", "Task": "", "Pid": 7, "Role": "node", "NodeID": "ab" * 16, "How": "signal", "Why": ""}
    heading, told, *_ = _text([{**row, "Threads": [("Main", [("pump.py", 3, "send")])]}]).splitlines()
    assert heading == "node pid=7  (node, node abababab)"
    assert told == "  it did not answer in time: it was at this when a signal asked"


def test_row21_refs_pickled_out_of_band_are_counted(found):
    (me,) = [row for row in found["memory"]["processes"] if row["Pid"] == found["me"]]
    assert me["Refs"]["out_of_band"] == 1
    assert "1 pickled by other ways" in found["text"]


def test_row74_a_node_that_says_nothing_is_shown_with_the_reason():
    with machine() as here:
        _, word = here.up("--head", "--port", str(free_port()), *SMALL)
        wrong = here.run("stack", "nobody")
        assert wrong.returncode == 2 and "zmreg list workers" in wrong.stderr
        os.kill(word["pid"], signal.SIGSTOP)
        try:
            done = here.run("stack")
        finally:
            os.kill(word["pid"], signal.SIGCONT)
        assert done.returncode == 0, done.stderr
        assert "it is stopped" in done.stdout
