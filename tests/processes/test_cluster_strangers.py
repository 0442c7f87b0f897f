"""What comes to the ports of a running cluster: from strangers, from members that talk nonsense, of other versions."""

from __future__ import annotations

import json
import os
import select
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import msgpack
import psutil
import pytest

import zmreg
from tests.net.gates import Raw, all_ended, servers_greeting
from tests.net.test_gate import INTRUDERS
from tests.processes.clusters import PATIENCE_S, ask, log_of, states, until, until_agreed
from zmreg.model.ids import new_node_id
from zmreg.model.messages import Admitted, Join, NodeGone, NodeRecord, NotAdmitted
from zmreg.net.curve import CurveKeys, new_keys
from zmreg.net.mesh import Mesh
from zmreg.services.network.letters import _HEADER, _LETTER
from zmreg.services.setup import keys
from zmreg.testing.cluster import LocalCluster, TestNode
from zmreg.wire import chunks, codec

HOST = "127.0.0.1"
# Handshakes are given 3 s; the rest is for a busy machine.
HUNG_UP_S = 10.0


@zmreg.remote(locs={"b"}, num_cpus=0)
def make(nbytes):
    return bytes(nbytes)


@pytest.fixture(scope="module")
def pair() -> Iterator[LocalCluster]:
    with LocalCluster([{"num_cpus": 1}, {"num_cpus": 1, "locs": {"b"}}]) as cluster:
        cluster.attach()
        yield cluster


def works() -> bool:
    """A value comes from the other node."""
    return len(make.remote(300_000).get(timeout=PATIENCE_S)) == 300_000


def ports(node: TestNode) -> dict[str, int]:
    row = next(row for row in ask(node, "nodes") if row["NodeID"] == node.node_id)
    return {"gate": row["NodeManagerPort"], "shout": row["PubPort"]}


# -- strangers ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["gate", "shout"])
@pytest.mark.parametrize("place", [0, 1], ids=["head", "other"])
def test_fault30_strangers_at_the_ports_of_a_running_node_get_nothing(pair: LocalCluster, place: int, where: str):
    node = pair.nodes[place]
    until_agreed(pair)  # each has reached the other: from now on the only newcomers are the strangers
    assert works()
    before = ask(node, "network")["Gate"]["Accepted"]
    fds = psutil.Process(node.pid).num_fds()
    raws = {name: Raw(ports(node)[where], said) for name, said in INTRUDERS.items()}
    try:
        until(lambda: all_ended(list(raws.values())), "somebody was not hung up on", HUNG_UP_S)
        name = bytes.fromhex(node.node_id) if where == "gate" else b""
        for who, raw in raws.items():
            assert servers_greeting(name).startswith(raw.heard), f"{who} was told {raw.heard!r}"
    finally:
        for raw in raws.values():
            raw.close()
    assert ask(node, "network")["Gate"]["Accepted"] == before
    until(lambda: psutil.Process(node.pid).num_fds() <= fds + 2, "descriptors are kept", HUNG_UP_S)
    assert works()


def test_every_socket_that_listens_is_a_node_s_port_or_private(pair: LocalCluster):
    expected = {port for node in pair.nodes for port in ports(node).values()}
    listening: dict[str, set[Any]] = {"tcp": set(), "unix": set()}
    for node in pair.nodes:
        daemon = psutil.Process(node.pid)
        for process in [daemon, *daemon.children(recursive=True)]:
            mine = socket_inodes(process.pid)
            for table in ("tcp", "tcp6"):
                for row in Path(f"/proc/{process.pid}/net/{table}").read_text().splitlines()[1:]:
                    fields = row.split()
                    if fields[9] in mine and fields[3] == "0A":
                        assert process.pid == node.pid, "only the daemon listens on a network"
                        assert fields[1].partition(":")[0] == "0100007F", "on loopback, unless told otherwise"
                        listening["tcp"].add(int(fields[1].partition(":")[2], 16))
            for row in Path(f"/proc/{process.pid}/net/unix").read_text().splitlines()[1:]:
                fields = row.split()
                if fields[6] in mine and int(fields[3], 16) & 0x10000:
                    listening["unix"].add(fields[7] if len(fields) > 7 else "")
    assert listening["tcp"] == expected
    assert len(listening["unix"]) >= 4
    for path in map(Path, listening["unix"]):
        assert path.is_socket(), f"{path} is abstract, or gone: no permissions guard it"
        assert path.stat().st_mode & 0o077 == 0 and path.parent.stat().st_mode & 0o077 == 0


def socket_inodes(pid: int) -> set[str]:
    found = set()
    for fd in Path(f"/proc/{pid}/fd").iterdir():
        try:
            target = os.readlink(fd)
        except OSError:
            continue  # closed meanwhile
        if target.startswith("socket:["):
            found.add(target[8:-1])
    return found


# -- with another key --------------------------------------------------------------------------------------------------


def changed_key(cluster: LocalCluster, directory: Path, *halves: str) -> Path:
    """A copy of the cluster's key file with other keys in place of some."""
    directory.mkdir(mode=0o700)
    other = keys.create(directory / "other")
    text = json.loads(Path(cluster.key_file).read_text())
    fresh = json.loads((directory / "other" / keys.KEY_FILE).read_text())
    assert other.cluster_id
    for half in halves:
        text["sets"][0][half] = fresh["sets"][0][half]
    path = directory / keys.KEY_FILE
    path.touch(0o600)
    path.write_text(json.dumps(text))
    return path


@pytest.mark.parametrize("end", ["server", "client"])
def test_fault34_fault35_a_node_with_another_key_is_told_so_in_time(pair: LocalCluster, tmp_path: Path, end: str):
    path = changed_key(pair, tmp_path / "keys", f"{end}_public", f"{end}_secret")
    began = time.monotonic()
    with pytest.raises(zmreg.errors.AuthenticationError, match="key"):
        pair.add_node(key_file=str(path))
    assert time.monotonic() - began < 3.0 + 2.0  # what a start takes on a busy machine
    assert len(states(pair.nodes[0])) == 2
    rejected = ask(pair.nodes[0], "network")["Gate"]["Rejected"]
    assert rejected >= 1 if end == "client" else rejected >= 0
    assert works()


# -- members that talk nonsense ----------------------------------------------------------------------------------------


class Member:
    """Somebody with the cluster's key, who says what he likes."""

    def __init__(self, mesh_keys: CurveKeys, name: bytes) -> None:
        self.name = name
        self.mesh = Mesh(name, mesh_keys, HOST, 0, 0)
        self.heard: list[Any] = []

    def record(self, node: TestNode) -> NodeRecord:
        """A record for himself, made from a true one."""
        row = next(row for row in ask(node, "nodes") if row["NodeID"] == node.node_id)
        return NodeRecord(
            self.name, "stranger", HOST, self.mesh.port, self.mesh.pub_port, False, row["Python"], row["Version"],
            os.getpid(), (("CPU", 10_000),), (), (), 1 << 20, 0, 0, 0,
        )  # fmt: skip

    def until(self, done: Callable[[], bool], timeout: float = PATIENCE_S) -> None:
        """Serve the sockets until then."""
        poller = select.poll()
        for fd in self.mesh.fds:
            poller.register(fd, select.POLLIN)
        deadline = time.monotonic() + timeout
        while not done():
            assert time.monotonic() < deadline, "it did not happen in time"
            self.mesh.gatekeeper.serve()
            while (message := self.mesh.receive()) is not None:
                self.heard += [codec.decode(bytes(frame)) for frame in message[1] if bytes(frame)[:2] == b"ZR"]
            self.mesh.happenings(time.monotonic())
            poller.poll(20)


@contextmanager
def member(cluster: LocalCluster, name: bytes = b"") -> Iterator[Member]:
    made = Member(keys.load(Path(cluster.key_file)).keys, name or new_node_id())
    try:
        for node in cluster.nodes:
            made.mesh.connect(bytes.fromhex(node.node_id), HOST, ports(node)["gate"])
        yield made
    finally:
        made.mesh.close()


def letter(number: int, destination: bytes, origin: bytes, message: Any) -> list[bytes]:
    return [_HEADER.pack(_LETTER, number, 0, destination, origin), codec.encode(message)]


def nonsense(me: Member, node: TestNode) -> dict[str, list[bytes]]:
    true = me.record(node)
    its_id = bytes.fromhex(node.node_id)
    header = codec.encode(Join(b""))[:4]
    return {
        "an empty frame": [b""],
        "no kind of ours": [b"hello"],
        "a sentence of no kind": [b"ZR\x01\xff\x90"],
        "another protocol version": [b"ZR\x63" + header[3:] + b"\x90"],
        "not msgpack": [header + b"\xc1\xff\xff"],
        "too few fields": [header + msgpack.packb([])],
        "wrong types": [header + msgpack.packb([7])],
        "a bomb of empty lists": [header + msgpack.packb([[[] for _ in range(50_000)]])],
        "nested too deep": [header + b"\x91" * 5_000],
        "100 kB of zeros": [bytes(100_000)],
        "5 MiB of zeros behind a good head": [header + bytes(5 << 20)],
        "a Join without a record": [codec.encode(Join(b"junk"))],
        "a Join that is a Join": [codec.encode(Join(codec.encode(Join(b""))))],
        "a Join of somebody else": [codec.encode(Join(codec.encode(true.but(node=new_node_id()))))],
        "a Join from nowhere": [codec.encode(Join(codec.encode(true.but(host="no such host!"))))],
        "a Join from port 99999": [codec.encode(Join(codec.encode(true.but(port=99_999))))],
        "the record of somebody else": [codec.encode(true.but(node=new_node_id()))],
        "half a letter": [_LETTER + bytes(3), b"x"],
        "a letter without a body": [_HEADER.pack(_LETTER, 1, 0, its_id, me.name)],
        "half a chunk": [chunks.pack_chunk_header(1, 0)[:9], b"x"],
        "a sentence with a frame more": [codec.encode(NodeGone(its_id, "a lie", False)), b"x"],
        "a sentence that goes by letter": [codec.encode(NodeGone(its_id, "a lie", False))],
        "10,000 frames": [b"ZR\x01"] * 10_000,
    }


@pytest.mark.parametrize("place", [0, 1], ids=["head", "other"])
def test_fault31_fault32_a_member_that_talks_nonsense_is_counted_and_not_believed(pair: LocalCluster, place: int):
    node = pair.nodes[place]
    target = bytes.fromhex(node.node_id)
    errors = ask(node, "network")["ProtocolErrors"]
    members = states(node)
    with member(pair) as me:
        for what, frames in nonsense(me, node).items():
            me.until(partial(me.mesh.send, target, frames))
            errors += 1

            def counted(so_many: int = errors) -> bool:
                return bool(ask(node, "network")["ProtocolErrors"] >= so_many)

            until(counted, f"{what!r} was not counted", 10)
    assert states(node) == members
    assert "Traceback" not in log_of(node)
    assert works()
    until_agreed(pair)


def test_fault31_one_node_cannot_speak_for_the_processes_of_another(pair: LocalCluster):
    """A joined member brings a letter of the head: it is dropped, and the next letter is heard."""
    head, b = pair.nodes
    target = bytes.fromhex(b.node_id)
    with member(pair) as me:
        joined = me.record(head)
        me.until(lambda: me.mesh.send(bytes.fromhex(head.node_id), [codec.encode(Join(codec.encode(joined)))]))
        until(lambda: me.name.hex() in states(b), "it has not joined")
        errors = ask(b, "network")["ProtocolErrors"]
        gone = NodeGone(bytes.fromhex(head.node_id), "a lie", False)
        me.mesh.send(target, letter(1, target, bytes.fromhex(head.node_id), gone))
        until(lambda: ask(b, "network")["ProtocolErrors"] == errors + 1, "the lie was not counted")
        assert states(b)[head.node_id] == "ALIVE"
        me.mesh.send(target, letter(2, target, me.name, joined))
        until(lambda: ask(b, "network")["Letters"][me.name.hex()]["received"] == 2, "letters stopped")
    until(lambda: states(b).get(me.name.hex()) == "DEAD", "a member that is gone is not declared dead")
    assert works()


@pytest.mark.parametrize(
    ("change", "kind", "named"),
    [({"version": "99.0.0"}, "version", "99.0.0"), ({"python": "3.99.1"}, "python", "3.99.1")],
    ids=["fault37 another version of zmreg", "fault38 another minor version of Python"],
)
def test_fault37_fault38_skew_is_refused_at_the_door(pair: LocalCluster, change: dict[str, str], kind: str, named: str):
    head = pair.nodes[0]
    with member(pair) as me:
        record = me.record(head).but(**change)
        me.until(lambda: me.mesh.send(bytes.fromhex(head.node_id), [codec.encode(Join(codec.encode(record)))]))
        me.until(lambda: bool(me.heard))
    answer = me.heard[0]
    assert isinstance(answer, NotAdmitted) and answer.kind == kind and named in answer.reason
    assert len([state for state in states(head).values() if state == "ALIVE"]) == 2


def test_fault38_another_patch_version_of_python_is_welcome(pair: LocalCluster):
    head = pair.nodes[0]
    with member(pair) as me:
        record = me.record(head)
        record = record.but(python=record.python.rpartition(".")[0] + ".99")
        me.until(lambda: me.mesh.send(bytes.fromhex(head.node_id), [codec.encode(Join(codec.encode(record)))]))
        me.until(lambda: any(isinstance(each, Admitted) for each in me.heard))


def test_fault35_keys_of_no_cluster_do_not_get_in(pair: LocalCluster):
    with_other = Member(new_keys(), new_node_id())
    try:
        head = pair.nodes[0]
        with_other.mesh.connect(b"contact!", HOST, ports(head)["gate"])
        told: list[str] = []

        def refused() -> bool:
            told.extend(happening.event for _, happening in with_other.mesh.happenings(time.monotonic()))
            return "wrong_key" in told or "denied" in told

        until(refused, "it was not told", 5)
    finally:
        with_other.mesh.close()
    assert works()
