"""Whose word that a node is dead counts (fault 9), and what becomes of a node that takes nothing (row C28)."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import zmreg
from tests.processes.clusters import PATIENCE_S, ask, log_of, states, until, until_state
from tests.processes.test_cluster_strangers import Member, letter, member
from tests.processes.test_head_restart import SILENCE_S, Restartable
from zmreg.model.messages import Fenced, Join, KnownDead, NodeGone, TakesNothing
from zmreg.services.network.verdicts import EXIT_FENCED
from zmreg.testing.cluster import LocalCluster, TestNode
from zmreg.wire import codec


@zmreg.remote(locs={"b"}, num_cpus=0)
def at_b():
    return "b"


@zmreg.remote(locs={"c"}, num_cpus=0, max_retries=0)
def stays_at_c(begun):
    begun.touch()
    time.sleep(600)


@pytest.fixture
def pair() -> Iterator[LocalCluster]:
    with LocalCluster([{"num_cpus": 1}, {"num_cpus": 1, "locs": {"b"}}]) as cluster:
        cluster.attach()
        yield cluster


def say(me: Member, node: TestNode, *frames: bytes) -> None:
    me.until(lambda: me.mesh.send(bytes.fromhex(node.node_id), frames))


def join(me: Member, cluster: LocalCluster) -> None:
    """Be one of them."""
    head, b = cluster.nodes
    say(me, head, codec.encode(Join(codec.encode(me.record(head)))))
    until(lambda: me.name.hex() in states(b), "it has not joined")


def test_fault9_a_holder_of_the_key_cannot_fence_a_node(pair: LocalCluster):
    """Neither a stranger nor a member: the head is asked, and says nothing of the kind."""
    head, b = pair.nodes
    target = bytes.fromhex(b.node_id)
    with member(pair) as me:
        say(me, b, codec.encode(Fenced("a lie", target, 0)))
        until(lambda: "the head is asked" in log_of(b), "the lie was not looked into")
        join(me, pair)
        say(me, b, codec.encode(Fenced("a lie", target, 0)))
        say(me, b, codec.encode(Fenced("for whoever was here before", bytes(8), 0)))
        until(lambda: log_of(b).count("the head is asked") == 2, "the second lie was not looked into")
        say(me, head, codec.encode(Fenced("a lie", bytes.fromhex(head.node_id), 0)))
        errors = ask(b, "network")["ProtocolErrors"]
        gone = NodeGone(bytes.fromhex(head.node_id), "a lie", False)
        say(me, b, *letter(1, target, me.name, gone))
        until(lambda: ask(b, "network")["ProtocolErrors"] == errors + 1, "a member declares others dead")
        assert at_b.remote().get(timeout=PATIENCE_S) == "b"
        assert states(b)[head.node_id] == states(head)[b.node_id] == "ALIVE"


def test_C28_whom_a_member_gives_up_the_head_ends_and_all_hear_of_it(pair: LocalCluster):
    head, b = pair.nodes
    word = TakesNothing(bytes.fromhex(b.node_id), "takes nothing for 10 s, and 1073741825 bytes wait for it")
    with member(pair) as me:
        join(me, pair)
        say(me, head, *letter(1, bytes.fromhex(head.node_id), me.name, word))
        until_state(head, b.node_id, "DEAD")
        assert pair.await_end(b.node_id, PATIENCE_S) == EXIT_FENCED
    row = next(row for row in zmreg.nodes() if row["NodeID"] == b.node_id)
    assert "1073741825 bytes" in row["Reason"] and me.name.hex() in row["Reason"]


def test_fault9_whom_a_member_knows_as_dead_the_head_it_comes_to_declares_dead_for_all(pair: LocalCluster):
    """A member had to decide while there was no head. Of the head, and of itself, it cannot say so."""
    head, b = pair.nodes
    with member(pair) as me:
        join(me, pair)
        nodes = (bytes.fromhex(head.node_id), me.name, bytes.fromhex(b.node_id))
        word = KnownDead(nodes, ("a lie", "a lie", "it took nothing while there was no head"))
        say(me, head, *letter(1, bytes.fromhex(head.node_id), me.name, word))
        until_state(head, b.node_id, "DEAD")
        assert pair.await_end(b.node_id, PATIENCE_S) == EXIT_FENCED
        assert states(head)[head.node_id] == states(head)[me.name.hex()] == "ALIVE"
    row = next(row for row in zmreg.nodes() if row["NodeID"] == b.node_id)
    assert "while there was no head" in row["Reason"]


def test_fault9_a_node_that_was_declared_dead_by_the_last_head_hears_it_from_the_next(tmp_path: Path):
    """They stand still while they are declared dead and while heads change; then they go on, and nobody takes them in.
    Of d's death the last head has told the others, and was killed before that was on its disk."""
    stopped = {"dead_after_s": SILENCE_S, "num_cpus": 0}
    made = Restartable(tmp_path, {"locs": {"c"}, **stopped}, {"locs": {"d"}, **stopped}, dead_after_s=SILENCE_S)
    with made.cluster:
        _, b, c, d = made.cluster.nodes
        for node in (c, d):
            made.cluster.signal_node(node.node_id, signal.SIGSTOP)
        for node in (c, d):
            until_state(made.head, node.node_id, "DEAD")
            until_state(b, node.node_id, "DEAD")
        made.kill()
        buried = bytes.fromhex(d.node_id)
        made.rewrite(
            ("DELETE FROM graves WHERE node = ?", buried), ("INSERT OR IGNORE INTO nodes VALUES (?)", buried)
        )  # fmt: skip
        made.start()
        made.until_followed()
        for node in (d, c):  # before they can speak to it, or it would take d for one that has come back
            until(lambda node=node: made.buried(node), "the next head does not know that it is dead")
            made.cluster.signal_node(node.node_id, signal.SIGCONT)
        for node in (d, c):
            assert made.cluster.await_end(node.node_id, PATIENCE_S) == EXIT_FENCED
            assert states(b)[node.node_id] == "DEAD" and node.node_id not in states(made.head)


def test_fault9_a_node_that_was_away_while_the_head_came_back_is_told_when_it_asks(tmp_path: Path):
    """The next head has never met it: it has no record of it but the one in the question to be let in."""
    silence = {"dead_after_s": SILENCE_S}
    made = Restartable(tmp_path, {"locs": {"c"}, **silence}, **silence)
    with made.cluster:
        _, _, c = made.cluster.nodes
        made.kill()
        made.cluster.signal_node(c.node_id, signal.SIGSTOP)
        head = made.start()
        until(lambda: c.node_id not in states(head) and ask(head, "health"), "the head is not up")
        until(lambda: "did not come back" in log_of(made.b), "it is not given up", PATIENCE_S)
        made.cluster.signal_node(c.node_id, signal.SIGCONT)
        assert made.cluster.await_end(c.node_id, PATIENCE_S) == EXIT_FENCED


def test_fault9_nodes_that_the_next_head_does_not_name_are_judged_because_others_name_them(tmp_path: Path):
    """c was let in, and the head was killed before that was on its disk. Of d's death it has written, and was killed
    before anybody heard of it. Both stand still: b waited for them for ever."""
    silence = {"dead_after_s": SILENCE_S}
    made = Restartable(tmp_path, {"locs": {"c"}, **silence}, {"locs": {"d"}, **silence}, **silence)
    with made.cluster:
        _, b, c, d = made.cluster.nodes
        for node in (c, d):
            made.cluster.signal_node(node.node_id, signal.SIGSTOP)
        made.kill()
        forget, bury = "DELETE FROM nodes WHERE node = ?", "INSERT INTO graves (node) VALUES (?)"
        buried = bytes.fromhex(d.node_id)
        made.rewrite((forget, bytes.fromhex(c.node_id)), (forget, buried), (bury, buried))
        made.start()
        for node in (c, d):
            until_state(b, node.node_id, "DEAD", PATIENCE_S)
            made.cluster.signal_node(node.node_id, signal.SIGCONT)
            assert made.cluster.await_end(node.node_id, PATIENCE_S) == EXIT_FENCED


def test_fault9_what_died_while_a_node_was_away_from_the_next_head_is_gone_for_it_when_it_is_let_in(tmp_path: Path):
    """It heard so in the answer that let it in, and nobody who waited there was told."""
    made = Restartable(tmp_path, {"locs": {"c"}})
    with made.cluster:
        _, b, c = made.cluster.nodes
        begun = tmp_path / "begun"
        call = stays_at_c.remote(begun)
        until(begun.exists, "it has not begun")
        made.kill()
        made.cluster.signal_node(b.node_id, signal.SIGSTOP)
        head = made.start()
        until_state(head, c.node_id, "ALIVE")
        made.cluster.kill_node(c.node_id)
        until_state(head, c.node_id, "DEAD")
        made.cluster.signal_node(b.node_id, signal.SIGCONT)
        with pytest.raises(zmreg.errors.WorkerDiedError):
            call.get(timeout=PATIENCE_S)
