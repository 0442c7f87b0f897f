"""Named functions at a node (R21, R22, R36): who may register what, what is kept of others, and who hears of it.

Two nodes without a network: what one publishes is given to the other. Real ones: processes/test_named_functions.py.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from zmreg.core import functions as fn
from zmreg.model.messages import (
    Answer,
    AskReplay,
    AskSnapshot,
    FunctionNews,
    FunctionRow,
    Goodbye,
    Message,
    RegisterFunction,
    WatchFunctions,
    WithdrawFunction,
)
from zmreg.services.node import functions as service
from zmreg.services.node.functions import NamedFunctions
from zmreg.wire import batches, codec

A, B = b"aaaa" + bytes(4), b"bbbb" + bytes(4)


def process(node: bytes, number: int = 1) -> bytes:
    return node[:4] + number.to_bytes(4, "big")


class World:
    """Nodes that hear each other at once, or one node alone."""

    def __init__(self, *nodes: bytes, alone: bool = False) -> None:
        self.told: list[tuple[bytes, Message]] = []
        self.lost = False
        self.records: dict[bytes, Any] = {}
        self.nodes = {node: self._node(node, nodes) for node in nodes}
        self.functions = {node: NamedFunctions(each) for node, each in self.nodes.items()}
        if not alone:
            for node, each in self.functions.items():
                each.listen(
                    f"n-{node[:1].decode()}", lambda said, me=node: self._publish(me, said), self._send_from(node)
                )
        self.now = 0.0

    def _node(self, me: bytes, nodes: tuple[bytes, ...]) -> Any:
        clients = {process(me, number): None for number in range(1, 5)}
        self.records[me] = SimpleNamespace(draining=False, usable=True)
        members = SimpleNamespace(record=self.records.get, usable=lambda node: self.records[node].usable)
        return SimpleNamespace(
            me=me, clients=clients, leaving=set(), settings=SimpleNamespace(locs=("z", "y")),
            departure=self.records[me], neighbours=SimpleNamespace(members=members),
            post=lambda peer, message: self.told.append((peer, message)),
        )  # fmt: skip

    def _publish(self, sender: bytes, message: Any) -> None:
        message = codec.decode(codec.encode(message))
        for node, each in self.functions.items():
            if node != sender and each.table is not None and not self.lost:
                each.table.on_message(sender, message, self.now)

    def _send_from(self, sender: bytes) -> Any:
        def send(to: bytes, message: AskReplay | AskSnapshot) -> None:
            table = self.functions[to].table
            if table is not None:
                table.on_message(sender, message, self.now)

        return send

    def go_on(self, seconds: float = 1.0) -> None:
        """Let time pass, in steps of 50 ms."""
        for _ in range(round(seconds / 0.05)):
            self.now += 0.05
            for each in self.functions.values():
                if each.table is not None:
                    each.table.tick(self.now)
                each.turn(self.now)

    def say(self, node: bytes, message: Any, sender: bytes = b"") -> Any:
        """What the node answers."""
        sender = sender or process(node)
        self.told.clear()
        self.functions[node].hear(sender, message)
        ((to, answer),) = self.told
        assert isinstance(answer, Answer) and answer.found and to == sender
        return batches.unpack_plain(answer.body)

    def register(self, node: bytes, name: str, host: bytes = b"", replace: bool = False, **more: Any) -> Any:
        row = FunctionRow(name, more.pop("version", ""), host or process(node), **more)
        return self.say(node, RegisterFunction(7, codec.encode(row), replace))

    def withdraw(self, node: bytes, name: str, version: str = "", every: bool = False) -> Any:
        return self.say(node, WithdrawFunction(8, process(node), name, version, every))

    def rows(self, node: bytes, name: str = "") -> list[FunctionRow]:
        found = [codec.decode(data) for data in self.functions[node].rows_of(name)]
        assert all(isinstance(each, FunctionRow) for each in found)
        return found  # type: ignore[return-value]

    def news(self, client: bytes) -> list[FunctionNews]:
        """What that client was told since this was asked."""
        found = [message for peer, message in self.told if peer == client and isinstance(message, FunctionNews)]
        self.told.clear()
        return found


@pytest.fixture(params=[False, True], ids=["of two", "alone"])
def world(request: pytest.FixtureRequest) -> World:
    return World(A, alone=True) if request.param else World(A, B)


# -- registering -------------------------------------------------------------------------------------------------------


def test_R21_what_is_registered_is_known_with_what_its_node_adds(world: World) -> None:
    assert world.register(A, "f", version="2.10", locs=("m1",), signature="(x)", doc="It does.", definition=b"d") == ""
    (row,) = world.rows(A)
    assert (row.name, row.version, row.host, row.locs) == ("f", "2.10", process(A), ("m1",))
    assert (row.node_locs, row.signature, row.doc, row.definition) == (("y", "z"), "(x)", "It does.", b"d")
    assert not row.resting


def test_R21_twice_is_refused_unless_a_version_or_replace_says_otherwise(world: World) -> None:
    assert world.register(A, "f", doc="old") == ""
    assert "serves 'f' already; pass replace=True" in world.register(A, "f", doc="new")
    assert world.rows(A)[0].doc == "old"
    assert world.register(A, "f", doc="new", replace=True) == "" and world.rows(A)[0].doc == "new"
    assert world.register(A, "f", version="1") == ""
    assert world.register(A, "f", host=process(A, 2), locs=("copy-2",)) == ""
    assert len(world.rows(A, "f")) == 3


def test_R21_another_program_of_the_node_takes_the_place_of_one_only_when_it_says_so(world: World) -> None:
    second = process(A, 2)
    assert world.register(A, "f", locs=("m1",)) == world.register(A, "f", version="1", locs=("m1",)) == ""
    refusal = world.register(A, "f", host=second, locs=("m1",))
    assert "serves 'f' already, with the same locs; pass replace=True" in refusal
    assert world.register(A, "f", host=second, locs=("m1",), actor=b"a" * 16) == "", "an actor of many"
    assert world.register(A, "f", host=second, version="2", locs=("m1",)) == ""
    world.functions[A].process_gone(second)
    assert world.register(A, "f", host=second, locs=("m1",), replace=True) == ""
    assert {(row.host, row.version) for row in world.rows(A)} == {(second, ""), (process(A), "1")}


@pytest.mark.parametrize(
    ("name", "more", "why"),
    [
        ("", {}, "cannot name a function"),
        ("f", {"version": "new"}, "is no version"),
        ("f", {"host": process(B)}, "is not on this node"),
        ("f", {"host": process(A, 99)}, "is not on this node"),
        ("f", {"locs": tuple(f"{number:0100}" for number in range(400))}, "and may have"),
    ],
)
def test_R21_what_cannot_be_registered_is_told_why(world: World, name: str, more: dict[str, Any], why: str) -> None:
    assert why in world.register(A, name, **more)
    assert world.rows(A) == []


def test_R21_what_is_no_row_is_told_so(world: World) -> None:
    assert world.say(A, RegisterFunction(1, b"nonsense", False))
    assert "is a Goodbye" in world.say(A, RegisterFunction(1, codec.encode(Goodbye()), False))


def test_R21_who_leaves_registers_nothing_any_more(world: World) -> None:
    world.nodes[A].leaving.add(process(A))
    assert "not any more" in world.register(A, "f")


def test_R21_the_node_itself_may_serve(world: World) -> None:
    assert world.register(A, "echo", host=A) == "" and world.rows(A)[0].host == A


def test_R21_withdrawn_by_version_or_in_all_of_them(world: World) -> None:
    for version in ("", "1", "2"):
        world.register(A, "f", version=version)
    world.register(A, "f", host=process(A, 2), locs=("copy-2",))
    assert world.withdraw(A, "f", "2.0") == "" and len(world.rows(A)) == 3
    assert world.withdraw(A, "f", "2.0") == "", "what is not there is withdrawn already"
    assert "is no version" in world.withdraw(A, "f", "latest")
    assert world.withdraw(A, "f", every=True) == ""
    assert [row.host for row in world.rows(A)] == [process(A, 2)]


def test_R22_a_process_takes_its_functions_along(world: World) -> None:
    world.register(A, "f")
    world.register(A, "f", host=process(A, 2), locs=("copy-2",))
    world.functions[A].process_gone(process(A))
    assert [row.host for row in world.rows(A)] == [process(A, 2)]


# -- between nodes -----------------------------------------------------------------------------------------------------


def test_R21_the_other_node_knows_it_after_a_quantum_and_R22_forgets_it_as_soon() -> None:
    world = World(A, B)
    world.go_on(0.1)
    world.register(A, "f", doc="one")
    world.go_on(0.05)
    assert [(row.name, row.node_name, row.doc) for row in world.rows(B)] == [("f", "n-a", "one")]
    world.register(A, "f", doc="two", replace=True)
    world.go_on(0.05)
    assert [row.doc for row in world.rows(B)] == ["two"]
    world.functions[A].process_gone(process(A))
    world.go_on(0.05)
    assert world.rows(B) == []


def test_R21_what_was_missed_is_there_after_the_next_beacon() -> None:
    world = World(A, B)
    world.go_on(0.1)
    world.lost = True
    world.register(A, "f")
    world.go_on(0.1)
    world.lost = False
    world.go_on(0.6)
    assert [row.name for row in world.rows(B)] == ["f"]


def test_R22_a_node_that_is_gone_takes_all_of_its_part_along_and_leaves_the_others() -> None:
    world = World(A, B)
    world.register(A, "f")
    world.register(B, "f")
    world.go_on()
    table = world.functions[B].table
    assert table is not None and len(world.rows(B)) == 2
    table.forget(A)
    assert [row.host for row in world.rows(B)] == [process(B)]


@pytest.mark.parametrize(
    "value",
    [
        b"nonsense",
        codec.encode(Goodbye()),
        codec.encode(FunctionRow("f", "", process(B))),
        codec.encode(FunctionRow("g", "", process(A))),
        codec.encode(FunctionRow("f", "new", process(A))),
    ],
    ids=["bytes", "another message", "of another's process", "under another key", "no version"],
)
def test_R22_rows_that_make_no_sense_are_counted_and_not_believed_and_the_replicas_stay_equal(value: bytes) -> None:
    world = World(A, B)
    world.register(A, "f")
    world.go_on()
    mine, theirs = world.functions[A].table, world.functions[B].table
    assert mine is not None and theirs is not None and len(world.rows(B)) == 1
    host = process(B) if process(B) in value else process(A)
    key = fn.row_key(host, "f", "new" if b"new" in value else "")
    mine.perform(mine.publisher.add(key, value))
    world.go_on()
    assert world.functions[B].rows.malformed == 1
    assert theirs.replica.statistics().digest_mismatches == 0 and theirs.replica.audit() == []
    # Under the key of the row that was good, it takes that one's place; under another, it is nothing.
    assert [row.version for row in world.rows(B)] == ([""] if key != fn.row_key(process(A), "f", "") else [])
    mine.perform(mine.publisher.delete(key))
    world.go_on()
    assert theirs.replica.position_of(A)[2] == len(world.rows(B))


# -- who watches -------------------------------------------------------------------------------------------------------


def test_R36_who_watches_is_told_all_and_then_what_changes() -> None:
    world = World(A, B)
    watcher = process(B)
    world.register(A, "f")
    world.go_on()
    world.functions[B].hear(watcher, WatchFunctions())
    (first,) = world.news(watcher)
    assert first.whole and [codec.decode(row).name for row in first.rows] == ["f"] and not first.gone  # type: ignore[union-attr]
    world.go_on()
    assert world.news(watcher) == [], "nothing has changed"
    world.register(A, "g")
    world.go_on()
    (second,) = world.news(watcher)
    assert [codec.decode(row).name for row in second.rows] == ["g"]  # type: ignore[union-attr]
    world.functions[A].process_gone(process(A))
    world.go_on()
    gone = [key for each in world.news(watcher) for key in each.gone]
    assert sorted(gone) == sorted(fn.row_key(process(A), name, "") for name in "fg")


def test_R22_who_watches_is_told_of_silent_and_leaving_nodes_and_of_their_return() -> None:
    world = World(A, B)
    watcher = process(B)
    world.register(A, "f")
    world.go_on()
    world.functions[B].hear(watcher, WatchFunctions())
    world.news(watcher)
    for change, resting in (({"usable": False}, True), ({"usable": True}, False), ({"draining": True}, True)):
        vars(world.records[A]).update(change)
        world.go_on(0.1)
        (told,) = world.news(watcher)
        assert [codec.decode(row).resting for row in told.rows] == [resting]  # type: ignore[union-attr]
        assert world.rows(B)[0].resting is resting


def test_R36_who_is_gone_or_no_client_is_told_nothing() -> None:
    world = World(A, alone=True)
    world.functions[A].hear(process(A, 99), WatchFunctions())
    assert world.told == []
    world.functions[A].hear(process(A), WatchFunctions())
    world.functions[A].process_gone(process(A))
    world.told.clear()
    world.register(A, "f", host=process(A, 2))
    world.go_on()
    assert world.news(process(A)) == []


def test_R36_a_large_table_is_told_in_pieces_that_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "_NEWS_BYTES", 10_000)
    world = World(A, alone=True)
    for number in range(20):
        world.register(A, f"f{number}", doc="d" * 3_000)
    world.told.clear()
    world.functions[A].hear(process(A, 2), WatchFunctions())
    news = world.news(process(A, 2))
    assert len(news) > 3 and [each.whole for each in news] == [False] * (len(news) - 1) + [True]
    assert {codec.decode(row).name for each in news for row in each.rows} == {f"f{n}" for n in range(20)}  # type: ignore[union-attr]
    assert all(len(codec.encode(each)) < 15_000 for each in news)


def test_R22_no_row_of_a_dead_process_is_told_however_late_its_node_takes_it_back() -> None:
    """A caller that came after the death was sent to the dead by such a row, and never answered."""
    world = World(A, B)
    world.register(B, "f")
    world.go_on()
    assert [row.host for row in world.rows(A)] == [process(B)]
    world.functions[A].rows.process_gone(process(B))
    assert world.rows(A) == []
    world.register(B, "g")  # said by the dead, and heard behind the word of its death
    world.go_on()
    assert world.rows(A) == []
