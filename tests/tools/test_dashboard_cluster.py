"""Row 75: the dashboard beside a real cluster: what it shows, and that whatever happens to it hurts nobody else."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.processes.drivers import eventually
from tests.tools.machines import PATIENCE_S, free_port, machine

pytestmark = pytest.mark.timeout(120)

EVIL = "<script>alert(1)</script>"
# A program that works when it is told to. One call runs as long as it lives, and one waits behind it.
PROGRAM = f"""
import sys, time, zmreg

@zmreg.remote
def forever(path):
    print("it has begun", flush=True)
    time.sleep(1e6)

@zmreg.remote
def fails():
    raise ValueError({EVIL!r})

@zmreg.remote(num_cpus=0)
def quick(number):
    return number

@zmreg.remote(num_cpus=0)
class Kept:
    def add(self, number):
        return number

if __name__ == "__main__":
    zmreg.init(address="auto")
    actor = Kept.options(name={EVIL!r}).remote()
    value = zmreg.put(b"x" * 3_000_000)
    try:
        fails.remote().get()
    except ValueError:
        pass
    running = forever.remote("")
    waits = forever.remote("")
    while zmreg.call_info(running).state != "sent":
        time.sleep(0.01)
    for line in sys.stdin:
        assert sum(zmreg.get([quick.remote(each) for each in range(50)])) == 1225
        assert sum(zmreg.get([actor.add.remote(each) for each in range(50)])) == 1225
        print(waits.hex(), flush=True)
"""


class Dashboard:
    """One that runs, as a browser reads it."""

    def __init__(self, here: Any, *arguments: str) -> None:
        self.process = here.goes_on(" ".join(["zmreg dashboard --port 0 --json", *arguments]))
        self.word = here.next_word(self.process)
        self.base = f"http://127.0.0.1:{self.word['port']}/"

    def asks(self, path: str) -> Any:
        """None when it does not answer."""
        asked = urllib.request.Request(
            f"{self.base}api/{path}", headers={"Authorization": f"Bearer {self.word['token']}"}
        )
        with contextlib.suppress(OSError), urllib.request.urlopen(asked, timeout=20) as answer:
            return json.loads(answer.read())
        return None

    def until(self, path: str, test: Any) -> Any:
        return eventually(
            lambda: (found := self.asks(path)) is not None and test(found) and found, PATIENCE_S, f"{path}: {test}"
        )


class Worker:
    """The program above."""

    def __init__(self, here: Any) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM], env=here.environment(), cwd=here.here, stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, text=True,
        )  # fmt: skip

    def works(self) -> str:
        """A hundred calls, there and back; the id of the call that waits."""
        self.process.stdin.write("go\n")
        self.process.stdin.flush()
        assert select.select([self.process.stdout], [], [], PATIENCE_S)[0], "the calls have not come back"
        return self.process.stdout.readline().strip()


def kept_by(session: str) -> set[str]:
    """Files of a session, but for what grows and goes with workers."""
    return {each.name for each in Path(session).iterdir() if not each.name.endswith((".now", ".log"))}


@pytest.fixture(scope="module")
def here():
    with machine() as made:
        made.facts = made.head()
        made.worker = Worker(made)
        made.waits = made.worker.works()
        try:
            yield made
        finally:
            made.worker.process.kill()
            made.worker.process.communicate()


@pytest.fixture
def dashboard(here):
    found = Dashboard(here)
    try:
        yield found
    finally:
        if found.process.poll() is None:
            found.process.send_signal(signal.SIGCONT)
            found.process.terminate()
        found.process.communicate(timeout=PATIENCE_S)


def test_row_75_dashboard_shows_what_a_cluster_does(here, dashboard):
    overview = dashboard.until("overview", lambda told: not told["Missing"])
    (node,) = overview["Nodes"]["Rows"]
    assert node["NodeID"] == here.facts["node"] and node["CPU"] == [1.0, 1.0] and node["MemoryBytes"][1] > 0
    assert overview["State"]["Answers"] and overview["Sums"]["Actors"] == 1 and not overview["Errors"]

    (actor,) = dashboard.until("actors", lambda told: told["Actors"]["Rows"])["Actors"]["Rows"]
    assert (actor["Class"], actor["Name"], actor["State"]) == ("Kept", EVIL, "ALIVE") and actor["Pid"]

    tasks = dashboard.until("tasks", lambda told: told["Queued"]["Rows"] and told["Recent"]["Rows"])
    assert [row["Name"] for row in tasks["Running"]["Rows"] if row["State"] == "RUNNING"] == ["forever"]
    (queued,) = tasks["Queued"]["Rows"]
    assert queued["Name"] == "forever" and "it needs 1 CPU" in queued["Why"] and queued["TaskID"] == here.waits
    failed = [row for row in tasks["Recent"]["Rows"] if row["State"] == "failed"]
    assert (
        failed
        and EVIL in failed[0]["Error"]
        and {"quick", "Kept.add"} <= {row["Name"] for row in tasks["ByFunction"]["Rows"]}
    )

    why = dashboard.until(f"why?id={here.waits}", lambda told: told["Found"])["Found"]
    assert "has not begun" in why["Lines"][0] and "submitted by" in why["Story"][0][1]
    why = dashboard.until(f"why?id={failed[0]['TaskID']}", lambda told: told["Found"])["Found"]
    assert EVIL in why["Lines"][0] and why["Info"]["State"] == "failed"

    (row,) = dashboard.until("objects", lambda told: told["Objects"]["Rows"])["Objects"]["Rows"]
    assert row["Bytes"] > 3_000_000 and row["Owner"].startswith("driver pid=") and row["Nodes"] == [here.facts["name"]]

    (running,) = [row for row in tasks["Running"]["Rows"] if row["State"] == "RUNNING"]
    logs = dashboard.until("logs", lambda told: told["Logs"]["Total"] > 1)["Logs"]["Rows"]
    assert running["WorkerID"] in {row["Log"] for row in logs}
    dashboard.until(f"log?node={running['NodeID']}&log={running['WorkerID']}",
                    lambda told: told["Found"] and told["Found"]["Text"] == "it has begun\n")  # fmt: skip
    found = dashboard.until(f"log?node={running['NodeID']}&log={'0' * 16}", lambda told: told["Errors"])
    assert "there is no log" in found["Errors"][0]
    assert dashboard.asks("flows")["Functions"]["Total"] == 0
    assert {"calls queued", "in the stores"} <= {line["Name"] for line in dashboard.asks("metrics")["Lines"]}


def test_row_75_dashboard_C30_a_flood_and_those_who_never_read_hold_up_no_call(here, dashboard):
    port = dashboard.word["port"]
    stalled = []
    request = (
        f"GET /api/tasks HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nAuthorization: Bearer {dashboard.word['token']}\r\n\r\n"
    )
    for _ in range(8):
        each = socket.socket()
        each.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        each.connect(("127.0.0.1", port))
        each.sendall(request.encode())
        stalled.append(each)
    questions = [("overview", "actors", "tasks", "objects", "metrics", f"why?id={each:032x}")[each % 6]
                 for each in range(240)]  # fmt: skip
    with ThreadPoolExecutor(20) as pool:
        answers = pool.map(dashboard.asks, questions)
        for _ in range(3):
            here.worker.works()
        assert any(each is not None for each in answers)
    for each in stalled:
        each.close()
    assert here.run("health").returncode == 0


def test_row_75_dashboard_C30_that_stands_still_or_is_killed_holds_up_no_call_and_leaves_nothing(here):
    before = kept_by(here.facts["session"])
    clients = here.asks("health")["Clients"]
    stands = Dashboard(here)
    stands.until("tasks", lambda told: told["Running"]["Rows"])
    os.kill(stands.process.pid, signal.SIGSTOP)
    try:
        for _ in range(3):
            here.worker.works()
        assert here.run("status").returncode == 0
    finally:
        os.kill(stands.process.pid, signal.SIGCONT)
    stands.until("overview", lambda told: told["State"]["Answers"])
    stands.process.kill()
    stands.process.communicate(timeout=PATIENCE_S)
    here.worker.works()
    eventually(lambda: kept_by(here.facts["session"]) <= before, PATIENCE_S, "the killed one has left files")

    ends = Dashboard(here)
    ends.until("overview", lambda told: told["State"]["Answers"])
    ends.process.send_signal(signal.SIGINT)
    assert ends.process.wait(PATIENCE_S) == 130
    assert not ends.process.stderr.read().count("Traceback")
    eventually(lambda: kept_by(here.facts["session"]) <= before, PATIENCE_S, "the other one has left files")
    assert here.asks("health")["Clients"] == clients


def test_row_75_dashboard_command_says_what_is_wrong(here):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = here.run("dashboard", "--port", str(taken.getsockname()[1]))
        assert done.returncode == 1 and "in use" in done.stderr and not done.stdout
    (here.here / "token").write_text("0123456789abcdef0123")
    (here.here / "token").chmod(0o644)
    done = here.run("dashboard", "--token-file", "token")
    assert done.returncode == 2 and "chmod 600" in done.stderr
    done = here.run("dashboard", "--port", "0", "--address", "nowhere")
    assert done.returncode == 2 and "is not HOST:PORT" in done.stderr


def test_row_75_dashboard_says_that_the_cluster_is_away_and_comes_back_with_it():
    """The cluster ends, and another one begins in its place."""
    with machine() as here:
        start = ("--head", "--port", str(free_port()), "--object-store-bytes", "64M", "--num-cpus")
        first, facts = here.up(*start, "1")
        dashboard = Dashboard(here)
        dashboard.until("overview", lambda told: told["State"]["Answers"] and told["Nodes"]["Rows"])
        first.send_signal(signal.SIGTERM)
        assert first.wait(PATIENCE_S) == 0
        lost = dashboard.until("overview", lambda told: not told["State"]["Answers"])
        assert lost["State"]["NodeName"] == facts["name"]
        dashboard.until("overview", lambda told: "no cluster of yours runs" in told["State"]["Trouble"])
        _, facts = here.up(*start, "2")
        back = dashboard.until("overview", lambda told: told["State"]["Answers"] and told["Nodes"]["Rows"])
        assert back["State"]["NodeID"] == facts["node"]
        dashboard.until("overview", lambda told: told["Nodes"]["Rows"][0]["CPU"] == [0.0, 2.0])
        dashboard.process.terminate()
        assert dashboard.process.wait(PATIENCE_S) == 0
