"""`zmreg timeline`, `zmreg summary` and `zmreg why`: row 74 of the specs."""

from __future__ import annotations

import json

import pytest

from tests.tools.machines import machine

pytestmark = pytest.mark.timeout(120)

PROGRAM = """
import json, os, subprocess, sys, time, zmreg
zmreg.init()
@zmreg.remote
def quick(x): return x
@zmreg.remote
def long(path):
    open(path, "w").close()
    while not os.path.exists("end"): time.sleep(0.01)
assert zmreg.get([quick.remote(n) for n in range(50)], timeout=20) == list(range(50))
runs = long.remote("begun")
waits = quick.remote(runs)
waits.done()
while not os.path.exists("begun"): time.sleep(0.01)
def ask(*arguments):
    done = subprocess.run([sys.executable, "-m", "zmreg", *arguments], capture_output=True, text=True)
    return done.returncode, done.stdout, done.stderr
found = {
    "file": ask("timeline", "-o", "t.json"), "out": ask("timeline", "-o", "-"), "summary": ask("summary", "--json"),
    "table": ask("summary"), "why": ask("why", waits.hex()), "short": ask("why", runs.hex()[-8:], "--json"),
    "none": ask("why", "ffffffff"), "wrong": ask("why", "nonsense"), "runs": runs.hex(),
}
found["document"] = json.load(open("t.json"))
open("end", "w").close()
waits.get(timeout=20)
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def found():
    with machine() as here:
        here.head()
        done = here.program(PROGRAM)
        assert done.returncode == 0, done.stderr
        yield json.loads(done.stdout)


def test_row74_the_timeline_is_written_for_a_trace_viewer(found: dict):
    code, out, err = found["file"]
    assert code == 0 and not out and "t.json" in err, err
    names = [event["name"] for event in found["document"]["traceEvents"] if event["ph"] == "X"]
    assert names.count("quick") == 50 and "long" not in names, "what still runs is not over"
    assert found["out"][0] == 0 and json.loads(found["out"][1])["traceEvents"]


def test_row74_the_summary_counts_by_function(found: dict):
    (row,) = json.loads(found["summary"][1])
    assert (row["Name"], row["Calls"], row["Failed"]) == ("quick", 50, 0)
    assert found["table"][0] == 0 and "MeanSeconds" in found["table"][1] and "quick" in found["table"][1]


def test_row74_why_says_what_a_call_waits_for(found: dict):
    code, out, err = found["why"]
    assert code == 0, err
    assert out.index("quick (task") < out.index("long (task") < out.index("runs there"), out
    assert "so far:" in out
    code, out, err = found["short"]
    assert code == 0, err
    assert json.loads(out)["Info"]["TaskID"] == found["runs"] and json.loads(out)["Why"]


def test_row74_why_of_what_nobody_knows_is_a_usage_error(found: dict):
    assert found["none"][0] == 2 and "knows a call" in found["none"][2]
    assert found["wrong"][0] == 2 and "is no id" in found["wrong"][2]
