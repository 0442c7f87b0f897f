"""Named functions on a cluster of real nodes: registered on one, known on all, gone with whoever served them.

Rows of requests.md: R20, R21, R22, R36. Actors stand for the processes that serve; nobody is called yet.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import zmreg
from tests.processes.clusters import ask, until
from zmreg.model.messages import FunctionNews, FunctionRow, RegisterFunction, WatchFunctions, WithdrawFunction
from zmreg.services.seat.client import current
from zmreg.testing.cluster import LocalCluster, TestNode
from zmreg.wire import codec

# What R21 and R22 allow.
SEEN_S = 1.0
SILENT_S = 3.5
# Each look is a visit to a node, on a machine that does other things beside.
LOOK_S = 0.5
PATIENCE_S = 30.0


@zmreg.remote(num_cpus=0)
class Server:
    """A process that says what it serves."""

    def register(self, name: str, version: str = "", replace: bool = False, doc: str = "") -> str:
        seat = current()
        row = codec.encode(FunctionRow(name, version, seat.me, locs=("data",), signature="(x)", doc=doc))
        answer: str = seat.questions.say(lambda request: RegisterFunction(request, row, replace))
        return answer

    def withdraw(self, name: str) -> str:
        seat = current()
        answer: str = seat.questions.say(lambda request: WithdrawFunction(request, seat.me, name, "", True))
        return answer

    def end(self) -> None:
        zmreg.exit_actor()


@pytest.fixture
def cluster() -> Iterator[LocalCluster]:
    nodes: list[dict[str, Any]] = [{}, {"locs": {"m1"}}, {"locs": {"m2"}}]
    with LocalCluster(nodes) as cluster:
        cluster.attach()
        yield cluster


def server_on(loc: str) -> Any:
    return Server.options(locs={loc}).remote()


def served(node: TestNode, name: str = "") -> list[FunctionRow]:
    """What a node knows."""
    rows = [codec.decode(data) for data in ask(node, "functions", name)]
    assert all(isinstance(row, FunctionRow) for row in rows)
    return rows  # type: ignore[return-value]


def names(node: TestNode) -> list[str]:
    return [row.name for row in served(node)]


def seconds_until(is_so: Callable[[], bool]) -> float:
    began = time.monotonic()
    until(is_so, "it did not come to be", PATIENCE_S)
    return time.monotonic() - began


def test_R21_R22_registered_on_one_node_it_is_known_on_all_until_it_is_withdrawn(cluster: LocalCluster) -> None:
    m1, m2 = server_on("m1"), server_on("m2")
    assert zmreg.get([m1.register.remote("run_model", "2.1.0", doc="one"), m2.register.remote("run_model")]) == ["", ""]
    for node in cluster.nodes:
        assert seconds_until(lambda node=node: len(served(node, "run_model")) == 2) < SEEN_S + LOOK_S
        first, second = served(node, "run_model")
        assert (first.version, first.node_name, first.node_locs, first.doc) == ("2.1", "n2", ("m1",), "one")
        assert (second.version, second.node_name, second.node_locs, second.locs) == ("", "n3", ("m2",), ("data",))
    assert "already" in m1.register.remote("run_model", "2.1").get()
    assert m1.register.remote("run_model", "2.1", replace=True, doc="other").get() == ""
    head = cluster.nodes[0]
    assert seconds_until(lambda: served(head, "run_model")[0].doc == "other") < SEEN_S + LOOK_S
    assert m1.withdraw.remote("run_model").get() == ""
    for node in cluster.nodes:
        assert seconds_until(lambda node=node: len(served(node, "run_model")) == 1) < SEEN_S + LOOK_S
    for node in cluster.nodes:
        table = ask(node, "network")["Functions"]
        assert table["Replica"]["digest_mismatches"] == table["Replica"]["malformed"] == table["Malformed"] == 0


def test_R22_what_a_process_served_goes_with_it_however_it_ends(cluster: LocalCluster) -> None:
    head = cluster.nodes[0]
    killed, leaves = server_on("m1"), server_on("m2")
    zmreg.get([killed.register.remote("f"), killed.register.remote("g"), leaves.register.remote("h")])
    until(lambda: names(head) == ["f", "g", "h"], "the head does not know them")
    zmreg.kill(killed)
    assert seconds_until(lambda: names(head) == ["h"]) < SEEN_S + LOOK_S
    leaves.end.remote()
    assert seconds_until(lambda: names(head) == []) < SEEN_S + LOOK_S


def test_R20_R22_late_nodes_know_all_and_dead_ones_serve_nothing(cluster: LocalCluster) -> None:
    head, first, second = cluster.nodes
    servers = server_on("m1"), server_on("m2")  # an actor without a handle would end
    zmreg.get([server.register.remote(name) for server, name in zip(servers, "fg", strict=True)])
    late = cluster.add_node()
    assert seconds_until(lambda: names(late) == ["f", "g"]) < SEEN_S + LOOK_S
    cluster.kill_node(first.node_id)
    for node in (head, second, late):
        assert seconds_until(lambda node=node: names(node) == ["g"]) < SILENT_S + LOOK_S
    cluster.end_node(second.node_id)
    for node in (head, late):
        assert seconds_until(lambda node=node: names(node) == []) < SEEN_S + LOOK_S


def test_R22_R36_who_watches_hears_of_changes_and_of_a_node_that_is_silent_for_a_while(cluster: LocalCluster) -> None:
    seat = current()
    rows: dict[str, FunctionRow] = {}
    keys: list[bytes] = []

    def hear(_: bytes, news: FunctionNews) -> None:
        for data in news.rows:
            row = codec.decode(data)
            assert isinstance(row, FunctionRow)
            rows[row.name] = row
        keys.extend(news.gone)

    seat.handlers[FunctionNews] = hear
    seat.tell_node(WatchFunctions())
    server = server_on("m1")
    assert server.register.remote("f").get() == ""
    assert seconds_until(lambda: "f" in rows) < SEEN_S
    node_id = cluster.nodes[1].node_id
    cluster.signal_node(node_id, signal.SIGSTOP)
    assert seconds_until(lambda: rows["f"].resting) < SILENT_S + LOOK_S
    cluster.signal_node(node_id, signal.SIGCONT)
    until(lambda: not rows["f"].resting, "it is back, and nobody says so", PATIENCE_S)
    zmreg.kill(server)
    assert seconds_until(lambda: bool(keys)) < SEEN_S
    assert keys[0].endswith(b"\0f")
