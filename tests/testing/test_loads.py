"""`LocalCluster(nodes=[{"load": "module:setup"}])`: nodes with processes that serve. Rows R33, R34 of requests.md."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest

import zmreg
from tests.processes.clusters import until
from zmreg import errors
from zmreg.testing import LocalCluster

MODELS = """
import os, zmreg

def setup():
    zmreg.register("model_pid", os.getpid, locs={"model-a"})

def other():
    zmreg.register("other_pid", os.getpid)

def broken():
    raise RuntimeError("no data here")
"""


@pytest.fixture(autouse=True)
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mymodels.py").write_text(MODELS)
    monkeypatch.syspath_prepend(tmp_path)


def test_R33_R34_nodes_of_a_test_load_what_they_are_told_and_take_it_along() -> None:
    nodes = [{}, {"load": ["mymodels:setup", "mymodels:other"], "locs": {"m1"}}, {"load": "mymodels:setup"}]
    with LocalCluster(nodes=nodes) as cluster:
        cluster.attach()
        pid = zmreg.call("model_pid", locs={"m1", "model-a"})
        pids = {pid, zmreg.call("other_pid", locs={"m1"})}
        assert len({host.process for host in zmreg.describe("model_pid").hosts}) == 2 and len(pids) == 2
        cluster.end_node(cluster.nodes[1].node_id)
        assert not any(psutil.pid_exists(each) for each in pids)
        cluster.kill_node(cluster.nodes[1].node_id)
        until(lambda: not [each for each in zmreg.functions() if each.name == "model_pid"], "it is still known")


def test_R33_what_cannot_be_loaded_fails_the_start_and_leaves_nothing() -> None:
    with pytest.raises(errors.ClusterError, match="(?s)mymodels:broken was not loaded: code 1.*no data here"):
        LocalCluster(nodes=[{"load": "mymodels:broken"}])
