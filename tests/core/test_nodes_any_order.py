"""A cluster of four under every order of cuts, pauses, deaths and farewells: one verdict in the end, and a fair one."""

from __future__ import annotations

from collections import Counter, defaultdict

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.core.test_nodes import record
from tests.effort import examples
from zmreg.core.nodes import (
    DEAD_S,
    SUSPECT_S,
    DeclareDead,
    Fence,
    HeadBack,
    HeadLost,
    Joined,
    Members,
    NodeEffect,
    NodeGone,
    NodeState,
    Recovered,
    Suspected,
)

HEAD = b"H" * 8
STEP_S = 0.5


class AnyOrder(RuleBasedStateMachine):
    """Beats are lost on a cut way; words of the head and records wait for it to mend, as letters do.

    A process that is paused finds everything in its buffers when it goes on.
    """

    @initialize()
    def start(self) -> None:
        self.now = 0.0
        self.born = 0
        self.seats: dict[bytes, Members] = {}
        self.paused: set[bytes] = set()
        self.killed: set[bytes] = set()
        self.cuts: set[tuple[bytes, bytes]] = set()
        self.inboxes: dict[bytes, list[tuple[str, bytes, str]]] = defaultdict(list)
        self.letters: list[tuple[bytes, bytes, str, bytes, str]] = []
        self.heard: dict[tuple[bytes, bytes], float] = {}
        self.said: dict[bytes, list[NodeEffect]] = defaultdict(list)
        self.refused: set[bytes] = set()
        self.join(HEAD)
        for _ in range(3):
            self.join()
        self.step()

    def join(self, node: bytes = b"") -> None:
        """A new life, admitted by the head, which tells the records of all whom it knows to live."""
        if not node:
            self.born += 1
            node = b"%08d" % self.born
        self.seats[node] = Members(node, is_head=node == HEAD)
        for one in self.seats:
            self.letters.append((HEAD, one, "record", node, ""))
            if one != node and not self.seats[HEAD].is_fenced(one):
                self.letters.append((HEAD, node, "record", one, ""))

    def leave_seat(self, node: bytes) -> None:
        self.seats.pop(node, None)
        self.paused.discard(node)
        self.inboxes.pop(node, None)
        self.letters = [letter for letter in self.letters if letter[1] != node]

    def passes(self, sender: bytes, receiver: bytes) -> bool:
        return (sender, receiver) not in self.cuts

    def step(self) -> None:
        self.now += STEP_S
        waiting, self.letters = self.letters, []
        for letter in waiting:
            sender, receiver, kind, about, reason = letter
            if receiver in self.seats and self.passes(sender, receiver):
                self.inboxes[receiver].append((kind, about, reason))
            elif receiver in self.seats:
                self.letters.append(letter)
        running = [node for node in self.seats if node not in self.paused]
        for sender in running:
            for receiver in self.seats:
                if sender != receiver and self.passes(sender, receiver):
                    self.inboxes[receiver].append(("beat", sender, ""))
        for node in running:
            inbox, self.inboxes[node] = self.inboxes[node], []
            for kind, about, reason in inbox:
                if node in self.seats:
                    self.perform(node, self.hear(node, kind, about, reason))
            if node in self.seats:
                self.perform(node, self.seats[node].tick(self.now))
            if node in self.seats:
                self.check_suspicions(node)

    def check_suspicions(self, node: bytes) -> None:
        """After a tick: who was heard is trusted, who was silent is not, unless we have ourselves been away."""
        members = self.seats[node]
        for about in (one.node for one in members.records() if one.node != node):
            silent = self.now - self.heard[node, about]
            if members.usable(about):
                assert silent < SUSPECT_S or members.statistics().pauses
            else:
                assert silent > 0 or about in self.refused

    def hear(self, node: bytes, kind: str, about: bytes, reason: str) -> list[NodeEffect]:
        members = self.seats[node]
        match kind:
            case "record":
                if members.record(about) is None:
                    self.heard[node, about] = self.now
                return members.on_record(record(about, is_head=about == HEAD), self.now)
            case "beat":
                self.heard[node, about] = self.now
                return members.on_beat(about, self.now)
            case "dead":
                return members.on_declared_dead(about, reason)
            case _:
                return members.on_leave(about)

    def perform(self, node: bytes, effects: list[NodeEffect]) -> None:
        for effect in effects:
            self.said[node].append(effect)
            match effect:
                case DeclareDead(about, reason):
                    assert node == HEAD and about != HEAD
                    silent = self.now - self.heard[HEAD, about]
                    assert silent >= DEAD_S or about in self.refused, "a node that was heard is not dead"
                    self.letters += [(HEAD, other, "dead", about, reason) for other in self.seats if other != HEAD]
                case NodeGone(about, _, _) if about == node:
                    self.leave_seat(node)
                case Fence(about):
                    self.letters.append((node, about, "dead", about, "fenced"))
                case _:
                    pass

    def some(self) -> list[bytes]:
        return sorted(self.seats)

    @rule(steps=st.sampled_from([1, 3, 7, 21, 30]))
    def time_goes_by(self, steps: int) -> None:
        for _ in range(steps):
            self.step()

    @rule(data=st.data(), both=st.booleans())
    def cut(self, data: st.DataObject, both: bool) -> None:
        one, other = data.draw(st.sampled_from(self.some())), data.draw(st.sampled_from(self.some()))
        if one != other:
            self.cuts |= {(one, other), (other, one)} if both else {(one, other)}

    @precondition(lambda self: self.cuts)
    @rule()
    def mend(self) -> None:
        self.cuts.clear()

    @rule(data=st.data())
    def pause_or_go_on(self, data: st.DataObject) -> None:
        self.paused ^= {data.draw(st.sampled_from(self.some()))}

    @precondition(lambda self: len(self.seats) > 1)
    @rule(data=st.data(), seen_by=st.sampled_from(["head", "all", "none"]))
    def kill(self, data: st.DataObject, seen_by: str) -> None:
        node = data.draw(st.sampled_from(self.some()[: len(self.seats)]))
        if node == HEAD:
            return
        self.leave_seat(node)
        self.killed.add(node)
        for other in self.some():
            told = seen_by == "all" or (seen_by == "head" and other == HEAD)
            if told and other not in self.paused:
                self.refused.add(node)
                self.perform(other, self.seats[other].on_refused(node, self.now))

    @precondition(lambda self: len(self.seats) > 1)
    @rule(data=st.data())
    def say_goodbye(self, data: st.DataObject) -> None:
        node = data.draw(st.sampled_from(self.some()))
        if node != HEAD and node not in self.paused:
            self.letters += [(node, other, "left", node, "") for other in self.seats if other != node]
            self.leave_seat(node)

    @precondition(lambda self: len(self.seats) < 6)
    @rule()
    def newcomer(self) -> None:
        self.join()

    @invariant()
    def each_story_makes_sense(self) -> None:
        for node, effects in self.said.items():
            counts = Counter((type(effect), effect.node) for effect in effects)
            assert all(counts[kind, about] <= 1 for kind, about in counts if kind in (Joined, NodeGone, DeclareDead))
            gone: set[bytes] = set()
            suspected: set[bytes] = set()
            lost = False
            for effect in effects:
                assert effect.node not in gone or isinstance(effect, Fence | HeadLost)
                match effect:
                    case NodeGone(about):
                        gone.add(about)
                        suspected.discard(about)
                    case Suspected(about, _):
                        assert about not in suspected and about != node
                        suspected.add(about)
                    case Recovered(about):
                        suspected.remove(about)
                    case HeadLost():
                        assert not lost and node != HEAD
                        lost = True
                    case HeadBack():
                        assert lost
                        lost = False
                    case _:
                        pass
            if node in self.seats:
                members = self.seats[node]
                assert {one.node for one in members.records() if not members.usable(one.node)} == suspected
                assert members.head_lost == lost and not gone & set(members.alive())

    def teardown(self) -> None:
        """All is mended: who lives is in, under whatever id; who does not is out; and everybody says the same."""
        if not hasattr(self, "seats"):
            return
        self.cuts.clear()
        self.paused.clear()
        for _ in range(60):
            self.step()
        living = set(self.seats)
        assert HEAD in living
        for node, members in self.seats.items():
            assert set(members.alive()) == {one.node for one in members.records()} == living, node
            assert not members.head_lost and members.head == HEAD
            assert all(members.state(about) in (NodeState.DEAD, NodeState.LEFT, None) for about in self.killed)


TestAnyOrder = AnyOrder.TestCase
TestAnyOrder.settings = settings(max_examples=examples(20), stateful_step_count=25, deadline=None)
