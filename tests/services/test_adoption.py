"""A node in the role of an owner, and how it gives that role to another (row 53, C5): machines alone."""

from __future__ import annotations

from collections import deque

from zmreg.model.ids import node_of
from zmreg.model.messages import (
    Adopt,
    AskKept,
    Borrow,
    BorrowSettled,
    FreeObjects,
    Message,
    Passed,
    Resolve,
    Resolved,
    Unborrow,
)
from zmreg.services.network.heirs import stand_in
from zmreg.services.node.adoption import Adoption
from zmreg.services.seat.sharing import Sharing

HERE, THERE, OWNER, LIVING, READER = b"aaaa\0\0\0\0", b"bbbb\0\0\0\0", b"aaaa\0\0\0\1", b"cccc\0\0\0\1", b"cccc\0\0\0\2"
INNER, BOX, FOREIGN = OWNER + b"00000001", OWNER + b"00000002", LIVING + b"00000003"


class Store:
    def __init__(self) -> None:
        self.freed: list[bytes] = []

    def on_free(self, message: FreeObjects) -> None:
        self.freed += message.object_ids


class Nodes:
    """Two nodes that answer for others; what they say to anybody else is kept in `said`."""

    def __init__(self) -> None:
        self.said: list[tuple[bytes, bytes, Message]] = []
        self._mail: deque[tuple[bytes, bytes, Message]] = deque()
        self.stores = {HERE: Store(), THERE: Store()}
        self.adoptions = {me: self._made(me) for me in (HERE, THERE)}

    def _made(self, me: bytes) -> Adoption:
        return Adoption(me, lambda to, message: self._mail.append((me, to, message)), self.stores[me], lambda _: None)  # type: ignore[arg-type]

    def say(self, sender: bytes, to: bytes, message: Message) -> None:
        self._mail.append((sender, to, message))
        self.settle()

    def settle(self) -> None:
        while self._mail:
            sender, to, message = self._mail.popleft()
            adoption = self.adoptions.get(to)
            if adoption is None:
                self.said.append((sender, to, message))
            elif isinstance(message, Adopt):
                adoption.adopt(sender, message)
            elif isinstance(message, Passed):
                node = type("Node", (), {"adoption": adoption})()
                stand_in(node, message.origin, message.payload)
            elif not isinstance(message, FreeObjects):
                adoption.on_message(sender, message)  # type: ignore[arg-type]


def adopt(object_id: bytes, contained: tuple[bytes, ...] = (), readers: tuple[bytes, ...] = ()) -> Adopt:
    return Adopt(object_id, "inline", b"v", 1, "int", 0, contained, readers, (1,) * len(readers))


def inherited() -> Nodes:
    """HERE answers for a box that READER holds, with an object of its own owner and one of a living owner in it."""
    nodes = Nodes()
    nodes.say(OWNER, HERE, adopt(BOX, (INNER, FOREIGN), (READER,)))
    nodes.say(OWNER, HERE, adopt(INNER))
    nodes.adoptions[HERE].owner_left(OWNER)
    assert nodes.said == [(HERE, LIVING, Borrow(FOREIGN, OWNER))]
    nodes.said.clear()
    return nodes


def test_C5_the_heir_answers_for_all_and_lets_go_of_it_when_nobody_holds_it():
    nodes = inherited()
    nodes.adoptions[HERE].bequeath(THERE, {})
    assert not nodes.adoptions[HERE].is_settled(), "it leaves before the living owner knows the heir"
    nodes.settle()
    assert nodes.said == [(THERE, LIVING, Borrow(FOREIGN, HERE))]
    assert not nodes.adoptions[HERE].is_settled()
    nodes.say(LIVING, HERE, BorrowSettled(FOREIGN, THERE))
    assert nodes.adoptions[HERE].is_settled()
    assert len(nodes.adoptions[THERE]) == 2
    nodes.said.clear()
    nodes.say(READER, HERE, Unborrow((BOX,), (1,)))  # said to the one who leaves, and passed on
    assert len(nodes.adoptions[THERE]) == 0
    assert nodes.said == [(THERE, LIVING, Unborrow((FOREIGN,), (1,)))]


def test_C5_what_an_heir_hands_over_before_it_reads_what_was_held_stays_booked():
    """The owner's last word crosses a question to it, which the node answers in its place: what is held is said without
    what is under way, and that said to be all."""
    nodes = inherited()
    asked: list[Message] = []

    def post(_: bytes, message: Message) -> bool:
        asked.append(message)
        return True

    def heard() -> None:
        reader.turn()
        while asked:
            nodes.say(READER, HERE, asked.pop(0))

    reader = Sharing(READER, node_of(READER), post, repr_error, deque())
    (box,) = reader.receive([BOX], OWNER)
    reader.want(box)
    reader.on_goodbye(OWNER)
    heard()
    (answer,) = [message for _, to, message in nodes.said if to == READER]
    assert isinstance(answer, Resolved)
    reader.on_resolved(HERE, answer)
    inner = box.contained[0]
    del box
    heard()
    assert BOX not in nodes.adoptions[HERE] and inner.object_id in nodes.adoptions[HERE]
    del inner
    heard()
    assert len(nodes.adoptions[HERE]) == 0


def repr_error(error: BaseException) -> bytes:
    return repr(error).encode()


def test_C5_a_borrow_of_what_was_booked_when_it_was_handed_over_is_not_booked_twice():
    """A reader that has not heard of the owner's leave, or of its node's, tells the owner of what the heir gave it."""
    nodes = inherited()
    nodes.say(READER, HERE, Resolve(BOX))  # lends what is inside
    nodes.adoptions[HERE].bequeath(THERE, {})
    nodes.settle()
    nodes.say(READER, HERE, Borrow(INNER, HERE))
    nodes.say(READER, THERE, Borrow(INNER, HERE))
    nodes.say(READER, HERE, Resolve(BOX))
    assert [message.state for _, to, message in nodes.said if to == READER and isinstance(message, Resolved)] == [
        "inline"
    ] * 2
    nodes.say(READER, THERE, Borrow(INNER, THERE))
    nodes.say(READER, THERE, Unborrow((INNER, BOX), (2, 1)))
    assert len(nodes.adoptions[THERE]) == 0


def test_row53_what_is_inside_goes_before_what_contains_it():
    nodes = inherited()
    nodes.adoptions[HERE].bequeath(THERE, {INNER: READER})
    given = [message for _, _, message in nodes._mail if isinstance(message, Adopt)]
    assert [each.object_id for each in given] == [INNER, BOX]
    assert given[0].holder == READER and given[0].borrowers == (), "our own holds are the heir's to make"


def test_row53_who_asks_what_is_still_needed_is_told_to_free_the_rest():
    nodes = inherited()
    nodes.say(LIVING, HERE, AskKept((INNER, OWNER + b"00000009")))
    assert nodes.said == [(HERE, LIVING, FreeObjects((OWNER + b"00000009",)))]


def test_C5_when_the_first_heir_dies_the_next_one_gets_all_and_what_was_said_since():
    nodes = inherited()
    nodes.say(READER, HERE, Resolve(BOX))  # lends what is inside
    lost = []
    here = nodes.adoptions[HERE]
    here._post = lambda to, message: lost.append((to, message))
    here.bequeath(THERE, {})
    here.on_message(READER, Unborrow((BOX,), (1,)))
    assert {to for to, _ in lost} == {THERE} and nodes.adoptions[THERE]._objects == {}
    next_one = b"dddd\0\0\0\0"
    nodes.stores[next_one] = Store()
    nodes.adoptions[next_one] = nodes._made(next_one)
    here._post = lambda to, message: nodes._mail.append((HERE, to, message))
    here.bequeath(next_one, {})
    nodes.settle()
    assert set(nodes.adoptions[next_one]._objects) == {INNER}, "the box is nobody's, what was in it is the reader's"
    nodes.say(READER, HERE, Unborrow((INNER,), (1,)))
    assert len(nodes.adoptions[next_one]) == 0
