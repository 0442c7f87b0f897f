"""X33, between nodes and programs: a process with a name is one for each node and program."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import time

import zmreg
from zmreg.testing import LocalCluster

T = 30


@zmreg.remote(process="model", num_cpus=0)
class Member:
    def pid(self) -> int:
        return os.getpid()


PROGRAM = """
    import zmreg
    zmreg.init(address={address!r})

    @zmreg.remote(process="model", lifetime="detached", num_cpus=0)
    class Here:
        def pid(self):
            import os
            return os.getpid()

    kept = Here.options(name="kept", namespace="x33").remote()
    other = Here.options(lifetime=None).remote()
    print(*zmreg.get([kept.pid.remote(), other.pid.remote()], timeout=30))
"""


def test_X33_a_name_is_a_program_s_own_on_each_node_and_a_detached_actor_keeps_its_process() -> None:
    with LocalCluster(nodes=[{"num_cpus": 1}, {"num_cpus": 1}]) as cluster:
        zmreg.init(address=cluster.address)
        try:
            nodes = [zmreg.NodeAffinitySchedulingStrategy(row["NodeID"], soft=False) for row in zmreg.nodes()]
            there = [{zmreg.get(Member.options(scheduling_strategy=node).remote().pid.remote())} for node in nodes]
            for node, found in zip(nodes, there, strict=True):
                found.add(zmreg.get(Member.options(scheduling_strategy=node).remote().pid.remote(), timeout=T))
            assert [len(each) for each in there] == [1, 1], "one on each node"
            assert len(set.union(*there)) == 2
            program = textwrap.dedent(PROGRAM.format(address=cluster.address))
            said = subprocess.run(
                [sys.executable, "-c", program], capture_output=True, text=True, timeout=T, check=True
            ).stdout.split()
            assert not set.union(*there) & set(map(int, said)), "another program's"
            kept = zmreg.get_actor("kept", namespace="x33")
            assert zmreg.get(kept.pid.remote(), timeout=T) == int(said[0]), "its program has ended"
            zmreg.kill(kept)
            deadline = time.monotonic() + T
            while os.path.exists(f"/proc/{said[0]}"):
                assert time.monotonic() < deadline, "nobody lives there any more, and its program is over"
                time.sleep(0.01)
        finally:
            zmreg.shutdown()
