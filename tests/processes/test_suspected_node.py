"""A node that has been silent for a while may be back: what only it can run waits, and is not refused."""

from __future__ import annotations

import signal
from typing import Any

import zmreg
from tests.processes.clusters import PATIENCE_S, states, until
from zmreg.testing.cluster import LocalCluster

# Longer than the lease book's grace for what nobody can run (2 s).
SOME_TIME_S = 4.0


@zmreg.remote(resources={"far": 0.01})
def there() -> str:
    return "there"


def test_what_only_a_suspected_node_can_run_waits_for_it() -> None:
    """Under a load of 12, a node was suspected, and its tasks ended with "can never run"."""
    nodes: list[dict[str, Any]] = [{"num_cpus": 0}, {"resources": {"far": 1}}, {}]
    with LocalCluster(nodes) as cluster:
        cluster.attach()
        head, far, _ = cluster.nodes
        cluster.signal_node(far.node_id, signal.SIGSTOP)
        until(lambda: states(head)[far.node_id] == "SUSPECTED", "it is not suspected")
        ref = there.remote()
        assert zmreg.wait([ref], timeout=SOME_TIME_S)[0] == []
        cluster.signal_node(far.node_id, signal.SIGCONT)
        assert ref.get(timeout=PATIENCE_S) == "there"
