"""`zmreg job` and `zmreg run`, as they are typed: row 76, and C8."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
from typing import Any

import pytest

from tests.tools.machines import PATIENCE_S, Machine, machine, until

pytestmark = pytest.mark.timeout(120)

TWICE = """
import os, sys, zmreg
info = zmreg.init(log_to_driver=False)
print(zmreg.remote(lambda n: 2 * n).remote(int(sys.argv[1])).get(), os.environ.get("WORD"), info.address)
sys.exit(int(sys.argv[2]))
"""


@pytest.fixture(scope="module")
def here() -> Iterator[Machine]:
    with machine() as found:
        yield found


@pytest.fixture(scope="module")
def head(here: Machine) -> dict[str, Any]:
    (here.here / "twice.py").write_text(TWICE)
    return here.head()


@pytest.fixture
def there() -> Iterator[Machine]:
    """Another machine: no session and no key of `here` is known there."""
    with machine() as found:
        yield found


@pytest.mark.usefixtures("head")
def test_row_76_submit_shows_what_the_command_prints_and_exits_as_it_does(here: Machine) -> None:
    done = here.run("job", "submit", "--working-dir", ".", "--env", "WORD=a=b", "--name", "twice",
                    "--metadata", "by=me", "--", "python", "twice.py", "21", "7")  # fmt: skip
    assert done.returncode == 7, done.stderr
    assert done.stdout.startswith("42 a=b 127.0.0.1:")
    assert "job twice" in done.stderr and "FAILED: its program ended by exit code 7" in done.stderr
    assert here.run("job", "submit", "--", "true").returncode == 0
    assert here.run("job", "submit", "--", "sh", "-c", "kill -TERM $$").returncode == 128 + signal.SIGTERM
    stands = here.asks("job", "status", "twice")
    assert (stands["status"], stands["exit_code"], stands["metadata"]) == ("FAILED", 7, {"by": "me"})
    assert "twice" in here.run("job", "list").stdout and "exit code 7" in here.run("job", "status", "twice").stdout
    assert here.run("job", "logs", "twice").stdout == done.stdout


@pytest.mark.usefixtures("head")
def test_row_76_a_job_goes_on_without_its_submitter_until_it_is_stopped(here: Machine) -> None:
    sent = here.run("job", "submit", "--no-wait", "--num-cpus", "0.5", "--", "sh", "-c", "echo up; exec sleep 600")
    assert sent.returncode == 0, sent.stderr
    job = sent.stdout.strip()
    until(lambda: here.run("job", "logs", job).stdout == "up\n")
    follows = here.goes_on(f"zmreg job logs -f {job}")
    assert {row["job_id"]: row["status"] for row in here.asks("job", "list")}[job] == "RUNNING"
    stopped = here.run("job", "stop", job)
    assert stopped.stdout == f"{job} STOPPED\n"
    assert follows.wait(PATIENCE_S) == 0
    assert "was over: STOPPED" in here.run("job", "stop", job).stdout


@pytest.mark.usefixtures("head")
def test_row_76_a_long_command_is_shown_as_cut(here: Machine) -> None:
    here.run("job", "submit", "--", "true", "x" * 90)
    (line,) = [line for line in here.run("job", "list").stdout.splitlines() if "xxx" in line]
    assert line.endswith("true " + "x" * 52 + "...")


def test_row_76_slips_are_usage_errors(here: Machine) -> None:
    for words in (
        ("submit", "--env", "nonsense", "--", "true"),
        ("submit", "--working-dir", "nowhere", "--", "true"),
        ("submit",),
        ("status", "nowhere"),
    ):
        done = here.run("job", *words)
        assert done.returncode == 2 and "Traceback" not in done.stderr, (words, done.stderr)


def test_row_76_run_is_the_script_itself_in_the_cluster(here: Machine, head: dict[str, Any]) -> None:
    done = here.run("run", "--address", head["address"], "twice.py", "4", "9", WORD="given")
    assert (done.returncode, done.stdout) == (9, f"8 given {head['address']}\n"), done.stderr
    assert here.run("run", "none.py").returncode == 2


def test_row_76_C8_nobody_without_the_key_has_anything_run(here: Machine, there: Machine, head: dict[str, Any]) -> None:
    mark = here.here / "ran"
    command = ("job", "submit", "--address", head["address"], "--", "touch", str(mark))
    without = there.run(*command)
    assert without.returncode == 5 and "--key" in without.stderr, without.stderr
    wrong = there.here / "wrong"
    there.program(f"from zmreg.services.setup import keys; from pathlib import Path; keys.create(Path({str(wrong)!r}))")
    refused = there.run(*command[:2], "--key", str(wrong), *command[2:])
    assert refused.returncode == 5 and "Traceback" not in refused.stderr, refused.stderr
    assert there.run("job", "list", "--address", head["address"], ZMREG_KEY=str(wrong)).returncode == 5
    web = there.program(f"import zmreg; zmreg.JobClient('http://{head['address']}')")
    assert web.returncode == 1 and "never over HTTP" in web.stderr
    assert not mark.exists()
    known = there.here / "cluster.key"
    shutil.copy(head["key_file"], known)
    os.chmod(known, 0o600)
    assert there.run(*command[:2], "--key", str(known), *command[2:]).returncode == 0
    assert mark.exists(), "the same command, with the key"


def test_row_76_without_a_cluster_it_is_said_how_to_have_one(there: Machine) -> None:
    for words in (("job", "list"), ("job", "submit", "--", "true"), ("run", "x.py")):
        (there.here / "x.py").write_text("")
        done = there.run(*words)
        assert done.returncode == 4 and "no cluster" in done.stderr, done.stderr
