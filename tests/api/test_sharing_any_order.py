"""The hand-over protocol with messages in any order: nothing that somebody holds is ever freed, all is in the end.

Three processes and a node without sockets: the real Sharing and Adoption, a queue per direction, and Hypothesis to
decide which message arrives next, who hands what to whom, who lets go, and who leaves in peace (rows 53, 54, C5).
"""

from __future__ import annotations

from collections import defaultdict, deque
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tests.effort import examples
from zmreg.model.ids import counter_of, owner_of
from zmreg.model.messages import Adopt, Borrow, BorrowSettled, Goodbye, Resolve, Resolved, Unborrow
from zmreg.services.node.adoption import Adoption
from zmreg.services.seat.entries import INLINE, Entry
from zmreg.services.seat.sharing import Sharing

NODE = b"proc" + bytes(4)  # ids carry their node: `node_of` of every process below
NAMES = [b"process%d" % number for number in range(3)]
names = st.sampled_from(NAMES)


class Process:
    """What a seat has of refs: its sharing, the handles of user code, and refs that only calls under way hold."""

    def __init__(self, world: World, name: bytes) -> None:
        self.name = name
        self.sharing = Sharing(name, NODE, lambda to, message: world.post(name, to, message), repr_error, deque())
        self.handles: dict[bytes, Entry] = {}
        self.pins: dict[int, Entry] = {}
        self.running: dict[int, tuple[bytes, Entry]] = {}
        self.made = 0

    def make(self, inside: list[Entry]) -> None:
        """Put a value that contains refs."""
        self.made += 1
        entry = Entry(self.name, self.made, INLINE, b"value")
        entry.contained = tuple(inside)
        self.sharing.show(entry)
        for each in inside:
            self.sharing.show(each)
        self.handles[entry.object_id] = entry

    def hear(self, sender: bytes, message: Any) -> None:
        """Route a message, as Station does."""
        sharing = self.sharing
        match message:
            case Borrow():
                sharing.on_borrow(sender, message)
            case BorrowSettled():
                sharing.on_settled(message)
            case Unborrow():
                sharing.on_unborrow(sender, message)
            case Resolve():
                sharing.on_resolve(sender, message)
            case Resolved():
                sharing.on_resolved(sender, message)
            case Goodbye():
                sharing.on_goodbye(sender)
            case ("died", name):
                sharing.process_died(name, "it left", NODE)
                sharing.settle_departed()
            case ("value", ids):
                self.handles |= {entry.object_id: entry for entry in sharing.receive(ids, sender)}
            case ("call", number, object_id):
                self.running[number] = sender, sharing.entry_for(object_id)
            case ("reply", number, held):
                sharing.worker_holds(held, sender)
                del self.pins[number]
            case _:
                raise AssertionError(message)


def repr_error(error: BaseException) -> bytes:
    return repr(error).encode()


class FakeStore:
    """Nothing of these tests is in the store."""

    def on_free(self, message: Any) -> None:
        raise AssertionError(message)


class World(RuleBasedStateMachine):
    """Which steps there are, and what must hold after each."""

    def __init__(self) -> None:
        super().__init__()
        self.queues: dict[tuple[bytes, bytes], deque[Any]] = defaultdict(deque)
        self.processes = {name: Process(self, name) for name in NAMES}
        self.node = Adoption(NODE, lambda to, message: self.post(NODE, to, message), FakeStore(), lambda _: None)  # type: ignore[arg-type]
        self.calls = 0

    def post(self, sender: bytes, to: bytes, message: Any) -> bool:
        if to != NODE and to not in self.processes:
            return False
        self.queues[sender, to].append(message)
        return True

    def living(self) -> list[Process]:
        return list(self.processes.values())

    # -- steps --------------------------------------------------------------------------------------------------------

    @rule(name=names, inside=st.integers(0, 2))
    def make(self, name: bytes, inside: int) -> None:
        if name in self.processes and len(self.processes[name].handles) < 5:
            process = self.processes[name]
            process.make(list(process.handles.values())[:inside])

    @rule(giver=names, taker=names, which=st.integers(0, 9))
    def give(self, giver: bytes, taker: bytes, which: int) -> None:
        """A result, or the answer to a Resolve: for good."""
        if entry := self.handle(giver, taker, which):
            ids = self.processes[giver].sharing.hand_out([entry], taker)
            self.post(giver, taker, ("value", ids))

    @rule(caller=names, worker=names, which=st.integers(0, 9))
    def call(self, caller: bytes, worker: bytes, which: int) -> None:
        """An argument: pinned by the caller until the reply."""
        if entry := self.handle(caller, worker, which):
            self.calls += 1
            self.processes[caller].sharing.show(entry)
            self.processes[caller].pins[self.calls] = entry
            self.post(caller, worker, ("call", self.calls, entry.object_id))

    def handle(self, giver: bytes, taker: bytes, which: int) -> Entry | None:
        if giver == taker or giver not in self.processes or taker not in self.processes:
            return None
        handles = list(self.processes[giver].handles.values())
        return handles[which % len(handles)] if handles else None

    @rule(worker=names, keeps=st.booleans())
    def reply(self, worker: bytes, keeps: bool) -> None:
        """A call ends; user code has kept its argument, or not."""
        process = self.processes.get(worker)
        if process is not None and process.running:
            number, (caller, entry) = process.running.popitem()
            if keeps:
                process.handles[entry.object_id] = entry
            if caller in self.processes:
                kept = [entry] if entry.object_id in process.handles else []
                self.post(worker, caller, ("reply", number, process.sharing.still_held(kept, caller)))

    @rule(name=names, which=st.integers(0, 9))
    def drop(self, name: bytes, which: int) -> None:
        if name in self.processes and (handles := self.processes[name].handles):
            del handles[list(handles)[which % len(handles)]]

    @rule(name=names)
    def turn(self, name: bytes) -> None:
        if name in self.processes:
            self.processes[name].sharing.turn()

    @rule(name=names, which=st.integers(0, 9))
    def want(self, name: bytes, which: int) -> None:
        """Ask for the value, and use the refs inside once it is there."""
        if name in self.processes and (handles := list(self.processes[name].handles.values())):
            entry = handles[which % len(handles)]
            self.processes[name].sharing.want(entry)
            self.processes[name].handles |= {inner.object_id: inner for inner in entry.contained}

    @rule(which=st.integers(0, 20))
    def deliver(self, which: int) -> None:
        waiting = [pair for pair, queue in self.queues.items() if queue]
        if waiting:
            self.deliver_one(waiting[which % len(waiting)])

    def deliver_one(self, pair: tuple[bytes, bytes]) -> None:
        sender, to = pair
        message = self.queues[pair].popleft()
        if to == NODE:
            if isinstance(message, Adopt):
                self.node.adopt(sender, message)
            else:
                self.node.on_message(sender, message)
        elif to in self.processes:
            self.processes[to].hear(sender, message)

    @precondition(lambda self: len(self.processes) > 1)
    @rule(name=names)
    def leave(self, name: bytes) -> None:
        """In peace, as Worker.leave: nothing of its own runs, and the node has read all that it said."""
        process = self.processes.get(name)
        if process is None or process.running or process.pins or len(process.sharing.custody):
            return
        coming = [message for pair, queue in self.queues.items() if pair[1] == name for message in queue]
        if any(isinstance(message, tuple) and message[0] == "call" for message in coming):
            return
        for entry, loans in process.sharing.heritage():
            for inner in entry.contained:
                if inner.owner != name:
                    process.sharing.hold_for(inner, NODE)
            inside, who, counts = tuple(i.object_id for i in entry.contained), tuple(loans), tuple(loans.values())
            self.post(name, NODE, Adopt(entry.object_id, "inline", b"value", 5, "", 0, inside, who, counts))
        process.sharing.turn()
        while self.queues[name, NODE]:
            self.deliver_one((name, NODE))
        while len(process.sharing.custody):
            moving = [pair for pair, queue in self.queues.items() if queue and (pair[0] == NODE or pair[1] == name)]
            for pair in moving:
                self.deliver_one(pair)
        del self.processes[name]
        for pair in [pair for pair in self.queues if pair[1] == name]:
            del self.queues[pair]
        self.node.owner_left(name)
        for other in self.processes:
            self.post(name, other, Goodbye())
            self.post(NODE, other, ("died", name))
        self.node.process_died(name)

    # -- what must hold -----------------------------------------------------------------------------------------------

    @invariant()
    def nothing_held_is_freed(self) -> None:
        for process in self.living():
            for object_id in process.handles:
                self.must_live(object_id)
            for _, entry in process.running.values():
                self.must_live(entry.object_id)

        for held in self.node._objects.values():
            for object_id in held.contained:
                self.must_live(object_id)

    def must_live(self, object_id: bytes) -> None:
        owner = self.processes.get(owner_of(object_id))
        if owner is not None:
            assert counter_of(object_id) in owner.sharing._shown, f"{object_id!r} was freed by its owner"
        else:
            assert object_id in self.node, f"{object_id!r} was dropped by the node"

    def teardown(self) -> None:
        """Calls end, everybody lets go, all is delivered: nothing is left in any book."""
        for _ in range(200):
            for process in self.living():
                while process.running:
                    self.reply(process.name, False)
                process.handles.clear()
                process.sharing.turn()
            waiting = [pair for pair, queue in self.queues.items() if queue]
            if not waiting:
                break
            for pair in waiting:
                self.deliver_one(pair)
        for process in self.living():
            numbers = process.sharing.statistics()
            assert numbers["lent"] == numbers["borrowed"] == 0, numbers
            if len(self.processes) == len(NAMES):  # else a word to one that left may be lost, and a hold stays
                assert numbers["held_for_others"] == 0
        if len(self.processes) == len(NAMES):
            assert len(self.node) == 0


TestWorld = World.TestCase
TestWorld.settings = settings(max_examples=examples(75), stateful_step_count=60, deadline=None)
