"""Jobs on real nodes: row 76, and C8 (nobody without the key has anything run)."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

import zmreg
from tests.processes.clusters import PATIENCE_S, until
from zmreg.flows.jobs.infos import NAMESPACE
from zmreg.testing.cluster import LocalCluster

pytestmark = pytest.mark.timeout(120)

FAR = {"locs": {"far"}}


@pytest.fixture(scope="module")
def pair() -> Iterator[LocalCluster]:
    with LocalCluster([{"num_cpus": 2}, {"num_cpus": 1, "locs": {"far"}}]) as made:
        made.attach()
        yield made


@pytest.fixture
def jobs(pair: LocalCluster) -> zmreg.JobClient:
    return zmreg.JobClient()


def python(source: str) -> list[str]:
    return [sys.executable, "-c", source]


def words(jobs: zmreg.JobClient, job: str, count: int) -> list[str]:
    """The first that it prints, as soon as it has."""
    return until(lambda: found if len(found := jobs.get_job_logs(job).split()) >= count else None, "it printed nothing")


def gone(pid: int) -> bool:
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def supervisor_pid(job: str) -> int:
    row = next(row for row in _rows("actors") if row["Name"] == job)
    return next(each["Pid"] for each in _rows("workers", row["NodeID"]) if each["WorkerID"] == row["WorkerID"])


def _rows(topic: str, key: str = "") -> list[dict]:
    from zmreg.services.seat.seats import client

    return client().ask(topic, key)


# -- what runs ---------------------------------------------------------------------------------------------------------


def test_row_76_a_job_has_its_directory_its_variables_and_the_cluster(
    jobs: zmreg.JobClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project, library = tmp_path / "project", tmp_path / "zt_job_library"
    for folder in (project, library):
        folder.mkdir()
    (project / "zt_job_part.py").write_text("def double(n):\n    return 2 * n\n")
    (library / "__init__.py").write_text("WORD = 'library'\n")
    (project / "main.py").write_text(
        "import json, os, sys, zmreg, zt_job_part, zt_job_library\n"
        "open('written.txt', 'w').write('x')\n"
        "info = zmreg.init(log_to_driver=False)\n"
        "double = zmreg.remote(zt_job_part.double)\n"  # a module that workers must have, too
        "seen = zmreg.remote(lambda: (os.environ['ZT_JOB'], zt_job_library.WORD, os.path.exists('written.txt')))\n"
        "context = zmreg.get_runtime_context()\n"
        "print(json.dumps([double.remote(21).get(), seen.remote().get(), info.num_cpus, sys.argv[1:],\n"
        "    os.environ['ZMREG_JOB_ID'], context.get_actor_id(), 'ZT_OURS' in os.environ, sorted(os.listdir())]))\n"
    )
    (project / "data.csv").write_text("left out")
    monkeypatch.setenv("ZT_OURS", "the driver's variables are its own")
    env = {
        "working_dir": str(project), "py_modules": [str(library)], "excludes": ["*.csv"],
        "env_vars": {"ZT_JOB": "set"},
    }  # fmt: skip
    command = [sys.executable, "main.py", "--epochs", "3 4"]
    job = jobs.submit_job(command, submission_id="with-all", runtime_env=env, metadata={"who": "me"}, **FAR)
    info = jobs.wait_job(job, PATIENCE_S)
    log = jobs.get_job_logs(job)
    assert (info.status, info.exit_code) == ("SUCCEEDED", 0), log
    assert job == "with-all" and info.metadata == {"who": "me"} and info.submitted <= info.started <= info.ended
    assert zmreg.JobClient().get_job_info(job).node_id == _node_of("far")
    assert info.runtime_env["env_vars"] == ["ZT_JOB"], "values may be secrets: names alone are told"
    double, seen, cpus, arguments, job_id, actor, ours, files = json.loads(log)
    assert (double, seen, cpus) == (42, ["set", "library", False], 3.0)
    assert (arguments, job_id, actor, ours) == (["--epochs", "3 4"], "with-all", None, False)
    assert [name for name in files if name != "__pycache__"] == ["main.py", "written.txt", "zt_job_part.py"]


def _node_of(loc: str) -> str:
    return next(row["NodeID"] for row in zmreg.nodes() if loc in row["Locs"])


def test_row_76_a_jobs_end_is_told_with_its_exit_code(jobs: zmreg.JobClient) -> None:
    code = jobs.submit_job("echo before; exit 3")
    killed = jobs.submit_job("kill -SEGV $$")
    missing = jobs.submit_job(["zt-no-such-command"])
    interrupted = jobs.submit_job(python("import os, signal; os.kill(os.getpid(), signal.SIGINT)"))
    infos = [jobs.wait_job(each, PATIENCE_S) for each in (code, killed, missing, interrupted)]
    assert [info.status for info in infos] == ["FAILED"] * 4
    assert [info.exit_code for info in infos] == [3, -signal.SIGSEGV, 127, -signal.SIGINT]
    assert "SIGSEGV" in infos[1].message and "zt-no-such-command" in infos[2].message
    assert jobs.get_job_logs(code) == "before\n" and "zt-no-such-command" in jobs.get_job_logs(missing)
    assert "KeyboardInterrupt" in jobs.get_job_logs(interrupted), "Ctrl-C is heard, though nodes ignore it"


def test_row_76_a_directory_that_is_no_directory_is_told_at_once(jobs: zmreg.JobClient, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="working_dir"):
        jobs.submit_job("true", runtime_env={"working_dir": str(tmp_path / "none")})
    for wrong in ({"submission_id": "../x"}, {"node": "nowhere"}):
        with pytest.raises(ValueError, match="submission_id|node"):
            jobs.submit_job("true", **wrong)
    with pytest.raises(TypeError, match="num_cpu"):
        jobs.submit_job("true", num_cpu=1)
    with pytest.raises(ValueError, match="entrypoint"):
        jobs.submit_job([])


# -- logs --------------------------------------------------------------------------------------------------------------


def test_row_76_logs_are_read_while_it_runs_and_later(jobs: zmreg.JobClient, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    job = jobs.submit_job(f"echo one; echo two >&2; while ! [ -e {gate} ]; do sleep 0.02; done; printf end", **FAR)
    lines = jobs.tail_job_logs(job)
    first = next(lines)
    while first.count("\n") < 2:
        first += next(lines)
    assert sorted(first.split()) == ["one", "two"] and jobs.get_job_status(job) == "RUNNING"
    assert jobs.get_job_logs(job) == first
    gate.touch()
    assert "".join(lines) == "end" and jobs.get_job_status(job) == "SUCCEEDED"
    assert jobs.get_job_logs(job) == first + "end" and list(jobs.tail_job_logs(job))


# -- stop --------------------------------------------------------------------------------------------------------------


def test_row_76_stop_ends_the_program_in_order_and_by_force(jobs: zmreg.JobClient) -> None:
    polite = jobs.submit_job("trap 'echo bye; exit 0' TERM; echo $$; while :; do sleep 0.02; done")
    deaf = jobs.submit_job("trap '' TERM; sleep 600 & echo $$ $!; wait; wait", **FAR)
    pids = [int(word) for word in words(jobs, polite, 1) + words(jobs, deaf, 2)]
    assert jobs.stop_job(polite) and jobs.stop_job(deaf, grace=0.3)
    infos = [jobs.wait_job(each, PATIENCE_S) for each in (polite, deaf)]
    assert [(info.status, info.exit_code) for info in infos] == [("STOPPED", 0), ("STOPPED", -signal.SIGKILL)]
    assert all(gone(pid) for pid in pids) and jobs.get_job_logs(polite).endswith("bye\n")
    assert not jobs.stop_job(polite)


def test_row_76_a_job_that_waits_for_room_is_pending_and_can_be_stopped(jobs: zmreg.JobClient) -> None:
    first = jobs.submit_job("echo $$; sleep 600", num_cpus=1, **FAR)
    words(jobs, first, 1)
    second = jobs.submit_job("echo never", num_cpus=1, **FAR)
    third = jobs.submit_job("echo later", num_cpus=1, **FAR)
    assert jobs.get_job_status(second) == "PENDING" and jobs.get_job_logs(second) == ""
    with pytest.raises(zmreg.errors.GetTimeoutError):
        jobs.wait_job(second, 0.1)
    assert jobs.stop_job(second)
    assert jobs.wait_job(second, PATIENCE_S).status == "STOPPED"
    assert jobs.stop_job(first)
    assert jobs.wait_job(third, PATIENCE_S).status == "SUCCEEDED" and jobs.get_job_logs(third) == "later\n"
    assert jobs.get_job_logs(second) == ""


# -- the list ----------------------------------------------------------------------------------------------------------


def test_row_76_jobs_are_listed_and_forgotten(jobs: zmreg.JobClient) -> None:
    runs = jobs.submit_job("sleep 600", submission_id="listed")
    with pytest.raises(ValueError, match="already"):
        jobs.submit_job("true", submission_id="listed")
    with pytest.raises(RuntimeError, match="not over"):
        jobs.delete_job(runs)
    assert "listed" in {info.job_id for info in jobs.list_jobs()}
    jobs.stop_job(runs, grace=0)
    jobs.wait_job(runs, PATIENCE_S)
    assert jobs.delete_job(runs)
    with pytest.raises(ValueError, match="no job 'listed'"):
        jobs.get_job_info(runs)
    again = jobs.submit_job("true", submission_id="listed")
    assert jobs.wait_job(again, PATIENCE_S).status == "SUCCEEDED"


def test_row_76_rays_client_for_jobs(pair: LocalCluster) -> None:
    from zmreg.integrations.ray.job_submission import JobStatus, JobSubmissionClient

    ray_jobs = JobSubmissionClient()
    job = ray_jobs.submit_job(entrypoint="echo $A", runtime_env={"env_vars": {"A": "b"}}, entrypoint_num_cpus=0.5)

    async def follow() -> str:
        return "".join([text async for text in ray_jobs.tail_job_logs(job)])

    assert asyncio.run(follow()) == "b\n" == ray_jobs.get_job_logs(job)
    info = ray_jobs.get_job_info(job)
    assert ray_jobs.get_job_status(job) == JobStatus.SUCCEEDED and info.driver_exit_code == 0
    assert info.end_time >= info.start_time > 10**12 and job in {each.submission_id for each in ray_jobs.list_jobs()}
    assert ray_jobs.stop_job(job) is False and ray_jobs.delete_job(job) is True
    with pytest.raises(RuntimeError, match="no job"):
        ray_jobs.get_job_status(job)


# -- who may -----------------------------------------------------------------------------------------------------------


def test_row_76_C8_there_is_no_way_over_http(pair: LocalCluster) -> None:
    from zmreg.integrations.ray.job_submission import JobSubmissionClient

    for kind in (zmreg.JobClient, JobSubmissionClient):
        with pytest.raises(ValueError, match="never over HTTP"):
            kind("http://127.0.0.1:8265")


# -- deaths ------------------------------------------------------------------------------------------------------------


def test_row_76_a_killed_supervisor_is_a_failure_with_a_reason_and_the_program_ends(jobs: zmreg.JobClient) -> None:
    job = jobs.submit_job("echo $$; echo kept; exec sleep 600", **FAR)
    pid = int(words(jobs, job, 2)[0])
    os.kill(supervisor_pid(job), signal.SIGKILL)
    info = jobs.wait_job(job, PATIENCE_S)
    assert info.status == "FAILED" and info.exit_code is None and "SIGKILL" in info.message and info.ended > 0
    until(lambda: gone(pid), "the program outlives who looked after it")
    assert "kept" in jobs.get_job_logs(job), "its node has the log still"


def test_row_76_a_killed_program_and_a_killed_warden_are_told(jobs: zmreg.JobClient) -> None:
    job = jobs.submit_job("echo $$; exec sleep 600")
    pid = int(words(jobs, job, 1)[0])
    warden = psutil.Process(pid).parent()
    assert warden is not None and warden.pid != supervisor_pid(job)
    warden.kill()
    info = jobs.wait_job(job, PATIENCE_S)
    assert info.status == "FAILED" and "killed" in info.message
    until(lambda: gone(pid), "the program outlives its warden")


def test_row_76_a_killed_node_is_a_failure_and_the_end_of_old_logs_stays(pair: LocalCluster) -> None:
    jobs = zmreg.JobClient()
    node = pair.add_node(name="doomed", num_cpus=1)
    old = jobs.submit_job("echo from an earlier job", node="doomed")
    jobs.wait_job(old, PATIENCE_S)
    job = jobs.submit_job("echo $$; exec sleep 600", node=node.node_id)
    pid = int(words(jobs, job, 1)[0])
    pair.kill_node(node.node_id)
    info = jobs.wait_job(job, PATIENCE_S)
    assert info.status == "FAILED" and info.message and info.node_id == node.node_id
    until(lambda: gone(pid), "the program outlives its node")
    assert jobs.get_job_logs(old) == "from an earlier job\n"


def test_row_76_nothing_is_left_of_jobs_that_are_over(pair: LocalCluster, jobs: zmreg.JobClient) -> None:
    job = jobs.submit_job("echo x > here", runtime_env={"working_dir": str(Path(__file__).parent)})
    assert jobs.wait_job(job, PATIENCE_S).status == "SUCCEEDED"
    left = {path.name for path in (pair.nodes[0].session / "jobs").glob("*/*")}
    assert left <= {"over", f"{0:015}.log"}
    until(lambda: not [row for row in _rows("actors") if row["Namespace"] == NAMESPACE], "a supervisor is left")
