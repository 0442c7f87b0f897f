"""Starting, joining, watching and ending nodes from the command line: real processes, each machine on its own."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.tools.machines import PATIENCE_S, ROOT, SMALL, Machine, free_port, machine, until

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
def here() -> Iterator[Machine]:
    with machine() as found:
        yield found


@pytest.fixture
def there() -> Iterator[Machine]:
    """Another machine: no session and no key of `here` is known there."""
    with machine() as found:
        yield found


# -- start -------------------------------------------------------------------------------------------------------------


def test_start_says_what_it_bound_and_how_to_join(here):
    port = free_port()
    done = here.run("start", "--head", "--detach", "--port", str(port), *SMALL, "--name", "alpha")
    assert done.returncode == 0, done.stderr
    assert f"127.0.0.1:{port} and 127.0.0.1:{port + 1} (TCP, encrypted)" in done.stdout
    assert f"zmreg start --worker --address 127.0.0.1:{port}" in done.stdout
    assert f'zmreg.init(address="127.0.0.1:{port}")' in done.stdout
    key = Path(re.search(r"key file +(\S+)", done.stdout)[1])
    assert key.stat().st_mode & 0o777 == 0o600
    assert here.asks("nodes")[0]["NodeName"] == "alpha"
    assert here.asks("stop")["stopped"][0]["fate"] == "ended"


def test_a_head_is_the_same_cluster_after_a_restart(here):
    first, word = here.up("--head", "--port", str(free_port()), *SMALL)
    first.send_signal(signal.SIGTERM)
    assert first.wait(PATIENCE_S) == 0
    again = here.head()
    assert (again["cluster"], again["fingerprint"]) == (word["cluster"], word["fingerprint"])
    assert again["node"] != word["node"]


def test_a_second_head_of_a_cluster_is_refused_with_3(here):
    word = here.head()
    done = here.run("start", "--head", "--port", str(free_port()))
    assert done.returncode == 3
    assert word["cluster"] in done.stderr and "--state-dir" in done.stderr


def test_a_worker_joins_with_a_copied_key_from_another_machine(here, there):
    head = here.head()
    copied = there.here / "cluster.key"
    shutil.copy(head["key_file"], copied)
    copied.chmod(0o600)
    worker = there.worker(head, "--key", str(copied), "--locs", "b", "--resources", "licence=2", "--name", "beta")
    assert worker["cluster"] == head["cluster"] and not worker["head"]
    rows = {row["NodeID"]: row for row in here.asks("nodes")}
    assert rows[worker["node"]]["Resources"]["licence"] == 2.0
    assert rows[worker["node"]]["Locs"] == ["b"]
    assert {row["NodeID"] for row in there.asks("nodes")} == set(rows)


def test_a_worker_that_has_one_key_finds_it(here):
    head = here.head()
    assert here.worker(head)["cluster"] == head["cluster"]


def test_a_worker_without_a_key_is_told_where_to_get_it(here, there):
    done = there.run("start", "--worker", "--address", here.head()["address"])
    assert done.returncode == 5
    assert "--key" in done.stderr and "Traceback" not in done.stderr


def test_a_wrong_key_is_told_with_its_file_and_5(here, there):
    wrong = there.here / "wrong"
    there.program(f"from zmreg.services.setup import keys; from pathlib import Path; keys.create(Path({str(wrong)!r}))")
    done = there.run("start", "--worker", "--address", here.head()["address"], "--key", str(wrong))
    assert done.returncode == 5
    assert str(wrong / "cluster.key") in done.stderr


def test_an_open_key_file_is_refused_with_2(here):
    state = here.here / "state"
    here.program(f"from zmreg.services.setup import keys; from pathlib import Path; keys.create(Path({str(state)!r}))")
    (state / "cluster.key").chmod(0o644)
    done = here.run("start", "--head", "--host", "0.0.0.0", "--state-dir", str(state))
    assert done.returncode == 2
    assert "chmod 600" in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--head", "--worker"],
        ["--worker"],
        ["--head", "--address", "127.0.0.1:1"],
        ["--worker", "--address", "nonsense"],
        ["--head", "--no-key"],
        ["--head", "--resources", "licence"],
        ["--head", "--object-store-bytes", "plenty"],
    ],
    ids=" ".join,
)
def test_wrong_usage_of_start_exits_2(here, arguments):
    done = here.run("start", *arguments)
    assert done.returncode == 2
    assert "Usage:" in done.stderr and done.stdout == ""


def test_the_address_file_brings_head_and_worker_together(here):
    file = here.here / "address"
    head = here.head("--address-file", str(file))
    assert file.read_text().strip() == head["address"]
    worker = here.up("--worker", "--address-file", str(file), *SMALL)[1]
    assert worker["cluster"] == head["cluster"]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130), (signal.SIGHUP, 0)])
def test_a_signal_ends_the_node_in_order(here, number, code):
    process, word = here.up("--head", "--port", str(free_port()), *SMALL)
    process.send_signal(number)
    assert process.wait(PATIENCE_S) == code
    assert not psutil.pid_exists(word["pid"])
    assert not here.sessions()


def test_a_node_ends_with_its_killed_supervisor(here):
    process, word = here.up("--head", "--port", str(free_port()), *SMALL)
    node = psutil.Process(word["pid"])
    process.kill()
    node.wait(PATIENCE_S)
    until(lambda: not here.sessions())


def test_a_node_that_dies_is_told_with_the_end_of_its_log(here):
    process, word = here.up("--head", "--port", str(free_port()), *SMALL)
    os.kill(word["pid"], signal.SIGKILL)
    _, errors = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 128 + signal.SIGKILL
    assert "signal 9" in errors


def test_a_fenced_node_is_started_anew_under_another_id(here):
    """Fault: a worker's node was stopped for longer than the head waits. It comes back, as another.

    It has nothing to say, and its connections have not been cut (that takes 8 s): it has to ask by itself.
    """
    head = here.up("--head", "--port", str(free_port()), *SMALL, ZMREG_DEAD_AFTER_S="3")[1]
    process, worker = here.up("--worker", "--address", head["address"], *SMALL, "--name", "w")
    os.kill(worker["pid"], signal.SIGSTOP)

    def dead() -> bool:
        return any(row["NodeID"] == worker["node"] and row["State"] == "DEAD" for row in here.asks("nodes"))

    try:
        until(dead)
    finally:
        os.kill(worker["pid"], signal.SIGCONT)
    again = here.next_word(process)
    assert again["node"] != worker["node"] and again["cluster"] == worker["cluster"]
    alive = {row["NodeID"] for row in here.asks("nodes") if row["Alive"]}
    assert alive == {head["node"], again["node"]}


def test_a_taken_port_is_told(here, there):
    head = here.head()
    done = there.run("start", "--head", "--port", head["address"].rpartition(":")[2])
    assert done.returncode == 4
    assert "in use" in done.stderr and "Traceback" not in done.stderr


# -- stop --------------------------------------------------------------------------------------------------------------


def test_row68_who_leaves_in_peace_is_listed_not_alive_at_once(here):
    head = here.head()
    process, worker = here.up("--worker", "--address", head["address"], *SMALL, "--name", "w")
    stopped = here.asks("stop", "w")["stopped"]
    assert [(each["node"], each["fate"]) for each in stopped] == [(worker["node"], "ended")]
    assert process.wait(PATIENCE_S) == 0

    def gone() -> dict[str, dict] | None:
        rows = {row["NodeID"]: row for row in here.asks("nodes")}
        return None if rows[worker["node"]]["Alive"] else rows

    rows = until(gone, seconds=3.0)  # silence would take ten
    assert rows[worker["node"]]["State"] == "LEFT" and rows[worker["node"]]["Resources"] == {}
    assert rows[head["node"]]["Alive"]


def test_stop_force_kills_and_leaves_nothing(here):
    process, word = here.up("--head", "--port", str(free_port()), *SMALL)
    assert here.asks("stop", "--force")["stopped"][0]["fate"] == "killed"
    assert process.wait(PATIENCE_S) == 128 + signal.SIGKILL
    assert not psutil.pid_exists(word["pid"]) and not here.sessions()


def test_stop_kills_what_does_not_end_within_the_grace(here):
    process, word = here.up("--head", "--port", str(free_port()), *SMALL)
    os.kill(word["pid"], signal.SIGSTOP)
    assert here.asks("stop", "--grace", "0.5")["stopped"][0]["fate"] == "killed"
    process.wait(PATIENCE_S)


OF_ITS_OWN = """
import sys, zmreg
@zmreg.remote
def one():
    return 1
zmreg.init(num_cpus=1)
print("up", flush=True)
sys.stdin.read()
assert zmreg.get(one.remote(), timeout=20) == 1
"""


def test_stop_leaves_programs_with_nodes_of_their_own_alone(here):
    with subprocess.Popen(
        [sys.executable, "-c", OF_ITS_OWN], env=here.environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        text=True,
    ) as program:  # fmt: skip
        assert program.stdout.readline() == "up\n"
        assert [row["role"] for row in here.asks("clusters")["nodes"]] == ["of a program"]
        assert here.asks("stop")["stopped"] == []
        assert here.asks("status")["alive"] == 1  # it can be looked at
        program.communicate("", timeout=PATIENCE_S)
    assert program.returncode == 0


def test_stop_of_an_unknown_node_exits_2(here):
    head = here.head()
    done = here.run("stop", "nobody")
    assert done.returncode == 2 and head["address"] in done.stderr


# -- looking -----------------------------------------------------------------------------------------------------------


def test_every_kind_is_listed_from_all_nodes(here):
    head = here.head()
    worker = here.worker(head, "--locs", "b")
    done = here.program(
        """
import json, subprocess, sys, zmreg
zmreg.init()
@zmreg.remote
class Counter:
    def say(self):
        print("a line of the actor", flush=True)
@zmreg.remote(locs={"b"})
def hold(path):
    open(path, "w").close()
    import signal; signal.pause()
big = zmreg.put(bytes(300_000))
counter = Counter.options(name="hits").remote()
counter.say.remote().get(timeout=20)
hold.remote("begun")
import os, time
while not os.path.exists("begun"): time.sleep(0.01)
def ask(*arguments):
    done = subprocess.run([sys.executable, "-m", "zmreg", *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout
found = {kind: json.loads(ask("list", kind, "--json")) for kind in ("actors", "nodes", "objects", "tasks", "workers")}
found["log"] = ask("logs", "hits")
found["table"] = ask("list", "tasks", "-f", "state=RUNNING")
found["filtered"] = json.loads(ask("list", "workers", "-f", "State=actor", "--json"))
print(json.dumps(found))
"""
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert [row["Name"] for row in found["actors"]] == ["hits"]
    assert {row["NodeID"] for row in found["nodes"]} == {head["node"], worker["node"]}
    assert found["objects"][0]["Bytes"] >= 300_000
    running = [row for row in found["tasks"] if row["State"] == "RUNNING"]
    assert [row["NodeID"] for row in running] == [worker["node"]]
    assert {row["NodeID"] for row in found["workers"]} == {head["node"], worker["node"]}
    assert [row["WorkerID"] for row in found["filtered"]] == [found["actors"][0]["WorkerID"]]
    assert "a line of the actor" in found["log"]
    assert found["table"].count("\n") == 2 and "RUNNING" in found["table"]


def test_status_health_and_doctor_agree_that_all_is_well(here):
    head = here.head()
    worker = here.worker(head)
    status = here.asks("status")
    assert status["alive"] == 2 and status["total"]["CPU"] == 2.0 and not status["head_lost"]
    text = here.run("status").stdout
    assert head["node"][:8] in text and worker["node"][:8] in text and "2 alive" in text
    assert here.asks("health")["healthy"]
    findings = here.asks("doctor")["findings"]
    assert not [each for each in findings if each["verdict"] == "wrong"]
    checks = {each["check"] for each in findings}
    assert {"open files", "shared memory", "key", "port", "pub port", "answers", "clock", "versions"} <= checks


def test_a_command_on_a_machine_without_a_node_joins_for_so_long(here, there):
    head = here.head()
    status = there.run("status", "--address", head["address"], "--key", head["key_file"], "--json")
    assert status.returncode == 0, status.stderr
    assert [row["NodeID"] for row in json.loads(status.stdout)["nodes"]] == [head["node"]]
    assert not there.sessions()
    assert [row["NodeID"] for row in here.asks("nodes")] == [head["node"]]


def test_nothing_runs_is_told_with_4_and_unhealthy_with_1(here):
    for arguments in (["status"], ["nodes"], ["list", "tasks"], ["logs", "node"]):
        done = here.run(*arguments)
        assert done.returncode == 4, arguments
        assert "zmreg start --head" in done.stderr and "Traceback" not in done.stderr
    done = here.run("health", "--json")
    assert done.returncode == 1 and json.loads(done.stdout)["healthy"] is False
    assert here.run("doctor").returncode == 0


def test_a_dead_address_is_told_with_4(here):
    head = here.head()
    done = here.run("status", "--address", f"127.0.0.1:{free_port()}", "--key", head["key_file"])
    assert done.returncode == 4 and "nothing answers" in done.stderr


def test_a_stopped_node_is_unhealthy_in_time(here):
    process, word = here.up("--head", "--port", str(free_port()), *SMALL)
    os.kill(word["pid"], signal.SIGSTOP)
    try:
        done = here.run("health", "--timeout", "0.5")
    finally:
        os.kill(word["pid"], signal.SIGCONT)
    assert done.returncode == 1 and "did not answer" in done.stderr


def test_watching_ends_with_130_on_ctrl_c(here):
    here.head()
    with subprocess.Popen(
        [sys.executable, "-m", "zmreg", "status", "-w"], env=here.environment(), stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stdout.readline().startswith("cluster")
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 130, errors
    assert "Traceback" not in errors


def test_a_visit_leaves_no_trace_at_the_node(here):
    """An observer is no driver: nothing of it stays, whether it says goodbye or is killed."""
    word = here.head()
    for _ in range(3):
        here.asks("nodes")
    node = psutil.Process(word["pid"])
    before = node.num_fds()
    for _ in range(5):
        here.asks("nodes")
    until(lambda: node.num_fds() <= before + 1)
    assert here.asks("health")["Clients"] <= 1  # the worker


# -- configuration -----------------------------------------------------------------------------------------------------


def test_the_configuration_is_read_in_order(here):
    user = here.directory / "home" / ".config" / "zmreg" / "config.toml"
    user.parent.mkdir(parents=True)
    user.write_text('num_cpus = 1\nlocs = ["user"]\nobject_store_bytes = 50_000_000\nname = "from-the-user-file"\n')
    (here.here / "zmreg.toml").write_text('locs = ["project"]\nnum_cpus = 2\n')
    here.up("--head", "--port", str(free_port()), "--num-cpus", "4", ZMREG_NAME="from-the-environment")
    row = here.asks("nodes")[0]
    assert row["NodeName"] == "from-the-environment"
    assert row["Locs"] == ["project"]
    assert row["Resources"]["CPU"] == 4.0
    assert row["ObjectStoreBytes"] == 50_000_000


def test_an_unknown_setting_is_an_error_with_a_suggestion(here):
    (here.here / "zmreg.toml").write_text("num_cpu = 2\n")
    done = here.run("start", "--head")
    assert done.returncode == 2
    assert "did you mean 'num_cpus'" in done.stderr and "zmreg.toml" in done.stderr


# -- the pages ---------------------------------------------------------------------------------------------------------


def test_the_two_terminals_of_the_readme_work_as_written(here):
    """With another port in place of 7550, which somebody may have here."""
    page = (ROOT / "README.md").read_text()
    console = page[page.index("```console") : page.index("```", page.index("```console") + 3)]
    commands = re.findall(r"^\$ zmreg (.*?) +#", console, re.MULTILINE)
    assert len(commands) == 2
    port = str(free_port())
    first, second = [command.replace("7550", port).split() for command in commands]
    head = here.up(*first[1:], ZMREG_PORT=port, ZMREG_OBJECT_STORE_BYTES="100000000")[1]
    worker = here.up(*second[1:], ZMREG_OBJECT_STORE_BYTES="100000000")[1]
    program = page[page.index("```python", page.index("```console")) :].removeprefix("```python")
    done = here.program(program[: program.index("```")])
    assert done.returncode == 0, done.stderr
    assert head["node"] in done.stdout
    assert f"'CPU': {2.0 * (os.cpu_count() or 1)}" in done.stdout
    assert here.asks("status")["alive"] == 2 and worker["node"]
