"""Jobs, the head's restart, and a program that waits for room when its submitter is gone: row 76."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import zmreg
from tests.processes.clusters import PATIENCE_S
from tests.processes.test_head_restart import Restartable
from tests.processes.test_submitted_jobs import gone, words
from zmreg.testing.cluster import LocalCluster

pytestmark = pytest.mark.timeout(120)

SUBMITS = """
import os, signal, sys, zmreg
zmreg.init(sys.argv[1], log_to_driver=False)
env = {"working_dir": sys.argv[2]}
for name in ("one", "two"):
    zmreg.JobClient().submit_job("cat large | wc -c", submission_id=name, runtime_env=env, resources={"late": 1})
zmreg.shutdown()
"""


@zmreg.remote(num_cpus=0, resources={"late": 1})
class Holder:
    def is_there(self) -> bool:
        return True


def test_row_76_fault10_jobs_outlive_the_head_that_knew_them(tmp_path: Path) -> None:
    restartable = Restartable(tmp_path / "state")
    gate = tmp_path / "gate"
    with restartable.cluster:
        jobs = zmreg.JobClient()
        done = jobs.submit_job("echo done")
        assert jobs.wait_job(done, PATIENCE_S).status == "SUCCEEDED"
        beside = jobs.submit_job(f"echo x >> {tmp_path / 'begun'}; echo $$; exec sleep 600")
        far = jobs.submit_job(f"echo begun; while ! [ -e {gate} ]; do sleep 0.02; done", locs={"b"})
        pid, _ = int(words(jobs, beside, 1)[0]), words(jobs, far, 1)
        restartable.kill()
        restartable.start()
        restartable.until_followed()
        info = jobs.wait_job(beside, PATIENCE_S)
        assert info.status == "FAILED" and "not run twice" in info.message and gone(pid)
        assert (tmp_path / "begun").read_text() == "x\n", "a job is not run twice"
        assert jobs.get_job_status(done) == "SUCCEEDED" and jobs.get_job_logs(done) == "done\n"
        assert jobs.get_job_status(far) == "RUNNING"
        gate.touch()
        assert jobs.wait_job(far, PATIENCE_S).status == "SUCCEEDED" and jobs.get_job_logs(far) == "begun\n"


def test_row_76_a_job_waits_for_a_node_without_its_submitter(tmp_path: Path) -> None:
    """Its working directory, too large to ride in a message, is kept for it."""
    import random

    (tmp_path / "large").write_bytes(random.Random(7).randbytes(1 << 20))
    with LocalCluster([{"num_cpus": 1, "resources": {"late": 1}}]) as cluster:
        cluster.attach()
        holder = Holder.remote()  # were there none of it at all, they would wait for two seconds only
        assert holder.is_there.remote().get(timeout=PATIENCE_S)
        subprocess.run([sys.executable, "-c", SUBMITS, cluster.address, str(tmp_path)], check=True, timeout=PATIENCE_S)
        jobs = zmreg.JobClient()
        assert {info.job_id: str(info.status) for info in jobs.list_jobs()} == {"one": "PENDING", "two": "PENDING"}
        cluster.add_node(num_cpus=1, resources={"late": 1})
        for name in ("one", "two"):
            info = jobs.wait_job(name, PATIENCE_S)
            assert (info.status, jobs.get_job_logs(name).strip()) == ("SUCCEEDED", str(1 << 20)), info.message


def test_row_76_a_cluster_of_ones_own_takes_no_jobs() -> None:
    zmreg.init(address="local", num_cpus=1)
    try:
        with pytest.raises(zmreg.errors.ClusterError, match="zmreg start --head"):
            zmreg.JobClient().submit_job("true")
    finally:
        zmreg.shutdown()
