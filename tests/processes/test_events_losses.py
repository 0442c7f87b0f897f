"""Events (I9) when a node goes, and when one comes."""

from __future__ import annotations

import signal
import threading

import pytest

import zmreg
from tests.processes.clusters import ask, until
from tests.processes.event_peers import PATIENCE_S, peer_on, until_known
from zmreg import errors
from zmreg.testing.cluster import LocalCluster


def test_I9_with_its_node_a_subscription_ends_and_nobody_waits() -> None:
    with LocalCluster([{}]) as cluster:
        cluster.attach()
        subscription = zmreg.subscribe("x")
        failed: list[BaseException] = []

        def read() -> None:
            try:
                subscription.get(timeout=PATIENCE_S)
            except errors.ClusterError as error:
                failed.append(error)

        reader = threading.Thread(target=read)
        reader.start()
        until(lambda: subscription._channel._listeners, "it does not wait")
        cluster.kill_node(cluster.nodes[0].node_id)
        reader.join(PATIENCE_S)
        assert failed and "the node process is gone" in str(failed[0])
        with pytest.raises(errors.ClusterError):
            subscription.get(timeout=1)
        subscription.close()


def test_I9_a_killed_node_takes_its_listeners_with_it_and_a_late_one_knows_the_others() -> None:
    with LocalCluster([{}, {"locs": {"m1"}}]) as cluster:
        cluster.attach()
        peer = peer_on("m1")
        peer.subscribe.remote("gone").get()
        with zmreg.subscribe("late") as subscription:
            until_known(cluster, "gone", "late")
            late = cluster.add_node(locs={"m2"})
            until_known(cluster, "gone", "late")
            cluster.kill_node(cluster.nodes[1].node_id)
            for node in (cluster.nodes[0], late):
                until(lambda node=node: "gone" not in ask(node, "network")["Topics"]["Patterns"], "it listens on")
            peer_on("m2").publish.remote("late", [1, 2]).get()
            assert [subscription.get(timeout=PATIENCE_S).value for _ in range(2)] == [1, 2]


def test_I12_a_node_that_stands_still_holds_up_no_publisher_and_what_it_missed_is_counted() -> None:
    total = 40_000
    with LocalCluster([{}, {"locs": {"m1"}}]) as cluster:
        cluster.attach()
        peer = peer_on("m1")
        peer.subscribe.remote("flood", 100_000).get()
        with zmreg.subscribe("flood", backlog=100_000) as here:
            until_known(cluster, "flood")
            node_id = cluster.nodes[1].node_id
            cluster.signal_node(node_id, signal.SIGSTOP)
            for number in range(total):
                zmreg.publish("flood", number)
            zmreg.publish("flood", "end")
            read = 1
            while here.get(timeout=PATIENCE_S).value != "end":
                read += 1
            assert read + here.dropped == total + 1
            waits = ask(cluster.nodes[0], "network")["Topics"]["Ways"][node_id]
            assert waits["under_way"] < 512 and waits["waiting"] <= 10_000
            cluster.signal_node(node_id, signal.SIGCONT)
            read, dropped = peer.until_last.remote("end").get()
            assert read + dropped == total + 1 and dropped > 0


def test_I9_a_broken_link_between_nodes_loses_no_event() -> None:
    with LocalCluster([{}, {"locs": {"m1"}}], wired=True) as cluster:
        cluster.attach()
        link = cluster.link(cluster.nodes[0].node_id, cluster.nodes[1].node_id)
        peer = peer_on("m1")
        with zmreg.subscribe("link") as subscription:
            until_known(cluster, "link")
            publishing, read = [], []
            for start in range(0, 500, 50):
                publishing.append(peer.publish.remote("link", list(range(start, start + 50))))
                read += [subscription.get(timeout=PATIENCE_S).value for _ in range(40)]
                link.cut()
            read += [subscription.get(timeout=PATIENCE_S).value for _ in range(100)]
            assert read == list(range(500)) and subscription.dropped == 0
            zmreg.get(publishing)
