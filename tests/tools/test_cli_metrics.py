"""Row 75: `zmreg metrics`, printed and served, by the command and by the process beside a node."""

from __future__ import annotations

import json
import os
import re
import select
import signal
import socket
import urllib.error
import urllib.request
import zipfile

import pytest

from tests import prometheus
from tests.processes.drivers import eventually
from tests.prometheus import total
from tests.tools.machines import free_port, machine

pytestmark = pytest.mark.timeout(120)


def fetched(url: str) -> str | None:
    """None while nobody listens."""
    try:
        with urllib.request.urlopen(url, timeout=20) as answer:
            return answer.read().decode()
    except urllib.error.HTTPError:
        raise
    except OSError:
        return None


@pytest.fixture(scope="module")
def here():
    port = free_port()
    with machine() as made:
        _, made.facts = made.up("--head", "--port", str(free_port()), "--num-cpus", "1", "--object-store-bytes", "64M",
                                ZMREG_METRICS_PORT=str(port))  # fmt: skip
        made.url = f"http://127.0.0.1:{port}/metrics"
        yield made


def test_row_75_metrics_are_printed_as_prometheus_reads_them_and_as_json(here):
    done = here.run("metrics")
    assert done.returncode == 0 and not done.stderr
    found = prometheus.read(done.stdout)
    assert total(found, "zmreg_nodes", state="alive") == 1 and total(found, "zmreg_resources", resource="CPU") == 1
    (info,) = [labels for _, labels in found["zmreg_node_info"].samples]
    assert {("node", here.facts["node"]), ("head", "yes")} <= info
    rows = {row["name"]: row for row in here.asks("metrics", "--node", here.facts["node"][:6])}
    assert rows.keys() == found.keys()
    assert (
        rows["zmreg_nodes"]["type"] == "gauge"
        and {"labels": {"state": "alive"}, "value": 1.0} in (rows["zmreg_nodes"]["samples"])
    )
    assert here.run("metrics", "--node", here.facts["name"]).returncode == 0


def test_row_75_what_makes_no_sense_is_refused_in_words(here, tmp_path):
    (here.here / "token").write_text("0123456789abcdef0123")
    (here.here / "token").chmod(0o644)
    for arguments, words in [
        (("--node", "nobody"), "no node is 'nobody'; there are"),
        (("--serve", "0.0.0.0:9750"), "--token-file"),
        (("--serve", "0.0.0.0:9750", "--token-file", "token"), "chmod 600"),
        (("--serve", "nowhere"), "is not HOST:PORT"),
        (("--token-file", "token"), "is for --serve"),
        (("--serve", "127.0.0.1:9750", "--json"), "prints once"),
    ]:
        done = here.run("metrics", *arguments)
        assert done.returncode == 2 and words in done.stderr and not done.stdout, (arguments, done.stderr)
    taken = socket.create_server(("127.0.0.1", 0))
    with taken:
        done = here.run("metrics", "--serve", f"127.0.0.1:{taken.getsockname()[1]}")
        assert done.returncode == 1 and "in use" in done.stderr and "Traceback" not in done.stderr


def test_row_75_a_node_serves_its_own_by_a_process_beside_it(here):
    text = eventually(lambda: fetched(here.url), 20, "nobody serves metrics")
    found = prometheus.read(text)
    assert total(found, "zmreg_node_info", node=here.facts["node"]) == 1
    with pytest.raises(urllib.error.HTTPError, match="403"):
        urllib.request.urlopen(urllib.request.Request(here.url, headers={"Host": "evil.example"}), timeout=20)


def test_row_75_C30_whatever_comes_to_that_port_the_cluster_has_no_part_in_it(here):
    """The process that serves stands still, with the port full of those who wait: the node answers as ever."""
    eventually(lambda: fetched(here.url), 20, "nobody serves metrics")
    port = int(here.url.rpartition(":")[2].partition("/")[0])
    (pid,) = [pid for pid in map(int, filter(str.isdigit, os.listdir("/proc"))) if _is_door(pid, port)]
    os.kill(pid, signal.SIGSTOP)
    waiting = []
    try:
        for _ in range(40):
            each = socket.socket()
            each.setblocking(False)
            each.connect_ex(("127.0.0.1", port))
            waiting.append(each)
        for command in ("health", "metrics"):
            assert here.run(command).returncode == 0
    finally:
        os.kill(pid, signal.SIGCONT)
        for each in waiting:
            each.close()
    assert eventually(lambda: fetched(here.url), 20, "it does not go on")


def _is_door(pid: int, port: int) -> bool:
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            words = file.read().split(b"\0")
    except OSError:
        return False
    return any(b"metrics_door" in word for word in words) and str(port).encode() in words


def test_row_75_the_command_serves_until_it_is_interrupted_with_a_token_to_other_machines(here):
    token = here.here / "secret"
    token.write_text("a-token-of-some-length\n")
    token.chmod(0o600)
    port = free_port()
    process = here.goes_on(f"zmreg metrics --serve 0.0.0.0:{port} --token-file secret")
    assert process.stderr is not None
    assert select.select([process.stderr], [], [], 40)[0] and f":{port}/metrics" in process.stderr.readline()
    url = f"http://127.0.0.1:{port}/metrics"
    with pytest.raises(urllib.error.HTTPError, match="401"):
        urllib.request.urlopen(url, timeout=20)
    asked = urllib.request.Request(url, headers={"Authorization": "Bearer a-token-of-some-length"})
    with urllib.request.urlopen(asked, timeout=20) as answer:
        assert total(prometheus.read(answer.read().decode()), "zmreg_nodes", state="alive") == 1
    process.send_signal(signal.SIGINT)
    assert process.wait(20) == 130
    assert fetched(url) is None


def test_row_75_a_program_with_a_node_of_its_own_may_have_a_port_and_leaves_nothing(here):
    port = free_port()
    done = here.program(f"""
import json, os, time, urllib.request, zmreg
zmreg.init("local", num_cpus=1, metrics_port={port})
zmreg.metrics.Counter("mine").inc(3)
for _ in range(400):
    try:
        text = urllib.request.urlopen("http://127.0.0.1:{port}/metrics", timeout=20).read().decode()
        break
    except OSError:
        time.sleep(0.05)
zmreg.shutdown()
print(json.dumps(text))
try:
    zmreg.init("local", num_cpus=1, metrics_port=70_000)
except ValueError as error:
    print(json.dumps(str(error)))
""")
    assert done.returncode == 0, done.stderr
    text, refused = map(json.loads, done.stdout.splitlines())
    assert total(prometheus.read(text), "mine_total") == 3 and "70000 is no port" in refused
    assert eventually(lambda: fetched(f"http://127.0.0.1:{port}/metrics") is None, 20, "somebody still serves")


def test_X20_a_dump_has_all_there_is_to_say_in_one_file_and_no_secrets(here, tmp_path):
    path = here.here / "report.zip"
    done = here.run("dump", "report.zip")
    assert done.returncode == 0 and "report.zip" in done.stdout and "without" not in done.stdout, done.stdout
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name).decode() for name in archive.namelist()}
    assert parts.keys() == {
        "versions.json", "settings.json", "environment.json", "health.json", "actors.json", "nodes.json",
        "objects.json", "tasks.json", "workers.json", "groups.json", "findings.json", "stacks.json", "metrics.txt",
        f"logs/{here.facts['node']}.log",
    }  # fmt: skip
    assert json.loads(parts["versions.json"])["python"] and prometheus.read(parts["metrics.txt"])
    assert [row["NodeID"] for row in json.loads(parts["nodes.json"])] == [here.facts["node"]]
    assert list(json.loads(parts["stacks.json"])) == [here.facts["node"]]
    halves = r'"(?:server|client)_(?:secret|public)": "([^"]+)"'
    secrets = [each for file in here.zmreg_home.rglob("*key*") if file.is_file()
               for each in re.findall(halves, file.read_text())]  # fmt: skip
    assert secrets and not any(secret in text for secret in secrets for text in parts.values())
    assert path.stat().st_mode & 0o777 == 0o600, "there are logs in it, which others may not read"
    again = here.run("dump", "report.zip", "--no-logs")
    assert again.returncode != 0 and "report.zip" in again.stderr and "Traceback" not in again.stderr
    assert path.stat().st_size, "what was there before stays"
    nobody = here.run("dump", "half.zip", "--address", f"127.0.0.1:{free_port()}", "--key", "none")
    assert nobody.returncode != 0 and not (here.here / "half.zip").exists(), "nor does half a one stay"
