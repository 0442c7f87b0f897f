"""`zmreg start --load module:setup`: a process that serves next to the node, watched over. Rows R21, R28, R33."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from typing import Any

import psutil
import pytest

from tests.tools.machines import PATIENCE_S, SMALL, Machine, free_port, machine, until

pytestmark = pytest.mark.timeout(120)

MODELS = """
import os, pathlib, zmreg

def setup():
    print("setup is called", flush=True)
    zmreg.register("model_pid", os.getpid, locs={"model-a"})
    zmreg.register("die", lambda: os._exit(3))

def broken():
    raise RuntimeError("no data here")
"""
CALL = """
import sys, zmreg
zmreg.init({address!r}, log_to_driver=False)
print(zmreg.call({name!r}, locs={locs!r}, queue_until=30))
"""


@pytest.fixture
def here() -> Iterator[Machine]:
    with machine() as found:
        (found.here / "mymodels.py").write_text(MODELS)
        yield found


def call(here: Machine, word: Any, name: str, locs: set[str]) -> Any:
    done = here.program(CALL.format(address=word["address"], name=name, locs=locs))
    return done.stdout.strip() or done.stderr


def findings(here: Machine) -> list[dict[str, Any]]:
    done = here.run("doctor", "--json")
    return [each for each in json.loads(done.stdout)["findings"] if each["check"] == "load"]


def test_R33_a_node_loads_what_it_is_told_and_takes_it_along_when_it_ends(here):
    process, word = here.up("--head", "--port", str(free_port()), *SMALL, "--locs", "gpu", "--load", "mymodels:setup")
    pid = int(call(here, word, "model_pid", {"model-a", "gpu"}))
    assert psutil.Process(pid).is_running()
    until(lambda: [each["verdict"] for each in findings(here)] == ["ok"])
    assert "setup is called" in here.run("logs", "load-0").stdout
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0
    assert f"mymodels:setup is loaded and serves, pid {pid}" in errors
    assert "ended" not in errors
    assert not psutil.pid_exists(pid)


def test_R33_what_a_node_loads_may_stand_in_a_file(here):
    (here.here / "zmreg.toml").write_text('load = ["mymodels:setup"]\nlocs = ["gpu"]')
    process, word = here.up("--head", "--port", str(free_port()), *SMALL)
    pid = int(call(here, word, "model_pid", {"model-a", "gpu"}))
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0
    assert f"mymodels:setup is loaded and serves, pid {pid}" in errors


def test_R28_what_dies_is_started_again(here):
    process, word = here.up("--head", "--port", str(free_port()), *SMALL, "--load", "mymodels:setup")
    first = call(here, word, "model_pid", set())
    assert "WorkerDiedError" in call(here, word, "die", set())
    assert int(call(here, word, "model_pid", set())) != int(first)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 130
    assert "the process that serves mymodels:setup ended, and is started again in 1 s: code 3" in errors


def test_R33_errors_of_setup_are_told_and_found_by_doctor(here):
    process, _ = here.up("--head", "--port", str(free_port()), *SMALL, "--load", "mymodels:broken")
    until(lambda: [each["verdict"] for each in findings(here)] == ["wrong"])
    (finding,) = findings(here)
    assert "RuntimeError: no data here" in finding["text"] and "zmreg logs load-0" in finding["text"]
    assert "in broken" in here.run("logs", "load-0").stdout
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=PATIENCE_S)
    assert "RuntimeError: no data here" in errors


@pytest.mark.parametrize(
    ("target", "text"),
    [("nowhere:setup", "No module named 'nowhere'"), ("mymodels:sutep", "has no attribute 'sutep'")],
)
def test_R33_what_cannot_be_found_is_told(here, target, text):
    process, _ = here.up("--head", "--port", str(free_port()), *SMALL, "--load", target)
    until(lambda: [each["verdict"] for each in findings(here)] == ["wrong"])
    process.send_signal(signal.SIGTERM)
    assert text in process.communicate(timeout=PATIENCE_S)[1]


def test_R33_it_ends_with_a_node_that_is_killed(here):
    process, word = here.up("--head", "--port", str(free_port()), *SMALL, "--load", "mymodels:setup")
    host = psutil.Process(int(call(here, word, "model_pid", set())))
    psutil.Process(word["pid"]).kill()
    process.communicate(timeout=PATIENCE_S)
    host.wait(PATIENCE_S)
