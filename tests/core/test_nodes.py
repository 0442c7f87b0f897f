"""Who is alive, one fault at a time (faults 7 to 10, 12, 18 to 20). Time is what the test says."""

from __future__ import annotations

import pytest

from zmreg.core.nodes import (
    Appeal,
    DeclareDead,
    Departed,
    Fence,
    FormerHead,
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
from zmreg.model.mesh_messages import NodeRecord
from zmreg.model.specs import CPU, UNIT

HEAD, A, B, C = (name + bytes(7) for name in (b"H", b"A", b"B", b"C"))


def record(node: bytes, is_head: bool = False, free: int = 4) -> NodeRecord:
    return NodeRecord(
        node=node,
        name=node[:1].decode().lower(),
        host="10.0.0.1",
        port=7000,
        pub_port=7001,
        is_head=is_head,
        python="3.11.4",
        version="0.1.0",
        pid=1,
        total=((CPU, 4 * UNIT),),
        available=((CPU, free * UNIT),),
        locs=(),
        store_bytes=0,
        store_used_bytes=0,
        workers=0,
        waiting=0,
    )


def seen_by(me: bytes) -> Members:
    """A cluster of four at time 0, as `me` sees it."""
    members = Members(me, is_head=me == HEAD)
    for node in (HEAD, A, B, C):
        members.on_record(record(node, is_head=node == HEAD), 0.0)
    assert members.tick(0.0) == []
    return members


def run(members: Members, seconds: float, beating: tuple[bytes, ...] = (), start: float = 0.0) -> list[NodeEffect]:
    """Ticks twice a second, beats of `beating` before each; what was said."""
    said: list[NodeEffect] = []
    for turn in range(1, int(2 * seconds) + 1):
        now = start + turn / 2
        for node in beating:
            said += members.on_beat(node, now)
        said += members.tick(now)
    return said


def kinds(effects: list[NodeEffect]) -> list[tuple[type[NodeEffect], bytes]]:
    return [(type(effect), effect.node) for effect in effects if not isinstance(effect, FormerHead)]


def test_a_node_joins_once_and_its_record_is_renewed() -> None:
    members = Members(A, is_head=False)
    assert members.on_record(record(A), 0.0) == []
    assert members.on_record(record(HEAD, is_head=True), 0.0) == [Joined(HEAD)]
    assert members.on_record(record(B), 0.0) == [Joined(B)]
    assert members.on_record(record(B, free=1), 0.0) == []
    assert members.record(B) == record(B, free=1) and members.record(C) is None
    assert members.records() == (record(A), record(HEAD, is_head=True), record(B, free=1))
    assert members.alive() == (A, HEAD, B) and members.head == HEAD
    assert members.usable(A) and members.usable(B) and not members.usable(C) and members.state(C) is None


def test_silence_is_suspected_after_3_s_and_any_message_takes_it_back() -> None:
    members = seen_by(A)
    assert run(members, 2.5, beating=(HEAD, C)) == []
    assert run(members, 1.0, beating=(HEAD, C), start=2.5) == [Suspected(B, "silent for 3.0 s")]
    assert members.state(B) is NodeState.SUSPECTED and not members.usable(B) and B not in members.alive()
    assert record(B) in members.records()  # what is there stays
    assert members.on_beat(B, 3.6) == [Recovered(B)] and members.usable(B)
    assert members.on_beat(B, 3.7) == []
    assert members.story(B) == (
        "ALIVE -> SUSPECTED  doubted: silent for 3.0 s",
        "SUSPECTED -> ALIVE  heard",
    )


def test_a_record_that_somebody_passes_on_is_no_sign_of_life() -> None:
    members = seen_by(A)
    for turn in range(1, 8):
        members.on_record(record(B, free=turn % 4), turn / 2)
        members.on_beat(HEAD, turn / 2)
        members.on_beat(C, turn / 2)
        said = members.tick(turn / 2)
    assert members.state(B) is NodeState.SUSPECTED and said == []


def test_fault_7_the_head_declares_a_node_dead_after_10_s_of_silence() -> None:
    members = seen_by(HEAD)
    reason = "silent for 10.0 s"
    said = run(members, 12.0, beating=(A, C))
    assert said == [Suspected(B, "silent for 3.0 s"), DeclareDead(B, reason), NodeGone(B, reason, False)]
    assert members.departed() == (Departed(record(B), NodeState.DEAD, reason),)
    assert members.state(B) is NodeState.DEAD and members.record(B) is None


def test_fault_8_a_node_stopped_for_5_s_is_suspected_and_not_dead() -> None:
    members = seen_by(HEAD)
    said = run(members, 5.0, beating=(A, C)) + run(members, 5.0, beating=(A, B, C), start=5.0)
    assert kinds(said) == [(Suspected, B), (Recovered, B)]


def test_fault_9_who_comes_back_after_it_was_declared_dead_is_fenced() -> None:
    members = seen_by(HEAD)
    run(members, 11.0, beating=(A, C))
    assert members.is_fenced(B)
    assert members.on_beat(B, 60.0) == [Fence(B)]
    assert members.on_beat(B, 60.5) == members.on_record(record(B), 60.9) == []  # told once a second
    assert members.on_record(record(B), 61.0) == [Fence(B)]
    assert members.on_leave(B) == members.on_refused(B, 61.0) == members.on_declared_dead(B, "again") == []
    assert members.state(B) is NodeState.DEAD and members.statistics().fenced == 2
    new_life = b"b" + bytes(7)
    assert members.on_record(record(new_life), 62.0) == [Joined(new_life)]


def test_fault_9_who_was_stopped_itself_declares_nobody_dead() -> None:
    members = seen_by(HEAD)
    run(members, 2.0, beating=(A, B, C))
    assert members.tick(62.0) == []
    assert members.statistics().pauses == 1
    assert run(members, 9.0, beating=(A,), start=62.0) == [
        Suspected(B, "silent for 3.0 s"),
        Suspected(C, "silent for 3.0 s"),
    ]
    assert kinds(run(members, 1.0, beating=(A,), start=71.0)) == [
        (DeclareDead, B),
        (NodeGone, B),
        (DeclareDead, C),
        (NodeGone, C),
    ]


def test_a_process_that_is_gone_is_declared_dead_at_once_by_the_head() -> None:
    members = seen_by(HEAD)
    said = members.on_refused(B, 0.5)
    assert kinds(said) == [(DeclareDead, B), (NodeGone, B)]
    assert members.on_refused(B, 0.6) == members.on_refused(HEAD, 0.6) == members.on_refused(b"unknown!", 0.6) == []


def test_others_only_suspect_whom_they_cannot_reach() -> None:
    """Fault 21: the head may see what we do not."""
    members = seen_by(A)
    assert kinds(members.on_refused(B, 0.5)) == [(Suspected, B)]
    assert members.on_refused(B, 0.6) == []
    assert run(members, 600.0, beating=(HEAD, C), start=1.0) == []
    assert members.state(B) is NodeState.SUSPECTED
    assert members.on_declared_dead(B, "silent for 10.0 s") == [NodeGone(B, "silent for 10.0 s", False)]


def test_fault_12_without_a_head_the_others_go_on_and_nobody_is_declared_dead() -> None:
    members = seen_by(A)
    said = run(members, 600.0, beating=(B,))
    assert said == [
        Suspected(HEAD, "silent for 3.0 s"),
        Suspected(C, "silent for 3.0 s"),
        HeadLost(HEAD, "silent for 10.0 s"),
    ]
    assert members.usable(B) and not members.usable(C) and members.head_lost
    assert members.on_beat(C, 600.5) == [Recovered(C)] and members.head_lost
    assert members.on_beat(HEAD, 601.0) == [Recovered(HEAD), HeadBack(HEAD)]
    assert not members.head_lost


def test_fault_18_five_seconds_without_the_head_are_no_loss() -> None:
    members = seen_by(A)
    said = run(members, 5.0, beating=(B, C)) + run(members, 5.0, beating=(HEAD, B, C), start=5.0)
    assert kinds(said) == [(Suspected, HEAD), (Recovered, HEAD)]


def test_fault_10_a_head_that_was_killed_is_lost_at_once_and_back_with_a_new_life() -> None:
    members = seen_by(A)
    assert kinds(members.on_refused(HEAD, 1.0)) == [(Suspected, HEAD), (HeadLost, HEAD)]
    new_life = b"h" + bytes(7)
    said = members.on_record(record(new_life, is_head=True), 3.0)
    assert said == [
        Joined(new_life),
        NodeGone(HEAD, "another head, h (68000000)", False),
        HeadBack(new_life),
    ]
    assert members.head == new_life and not members.head_lost
    assert members.on_beat(HEAD, 4.0) == [Fence(HEAD)]


def test_fault_13_a_head_knows_no_other_head() -> None:
    members = Members(HEAD, is_head=True)
    assert members.on_record(record(A, is_head=True), 0.0) == [Fence(A)]
    assert members.head == HEAD and members.state(A) is None


def test_who_leaves_in_peace_is_gone_and_not_fenced() -> None:
    members = seen_by(A)
    assert members.on_leave(B) == [NodeGone(B, "left", True)]
    assert members.on_beat(B, 1.0) == members.on_record(record(B), 1.0) == members.on_leave(B) == []
    assert members.on_declared_dead(B, "late") == [] and members.state(B) is NodeState.LEFT
    assert members.on_leave(HEAD) == [NodeGone(HEAD, "left", True), HeadLost(HEAD, "left")]
    assert members.head is None and members.head_lost
    assert members.on_record(record(C, is_head=True), 2.0) == []  # a record changes, who is head does not
    assert members.on_record(record(b"h" * 8, is_head=True), 2.0) == [Joined(b"h" * 8), HeadBack(b"h" * 8)]


@pytest.mark.parametrize("word", ["declared", "left"])
def test_a_word_that_is_here_before_the_record_counts(word: str) -> None:
    members = seen_by(A)
    late = b"late-one"
    if word == "declared":
        assert members.on_declared_dead(late, "gone") == []
        assert members.on_record(record(late), 1.0) == [Fence(late)]
    else:
        assert members.on_leave(late) == []
        assert members.on_record(record(late), 1.0) == []
    assert members.record(late) is None


def test_who_is_declared_dead_itself_hears_it_and_judges_nobody_any_more() -> None:
    members = seen_by(A)
    assert members.on_declared_dead(A, "silent for 10.0 s") == [NodeGone(A, "silent for 10.0 s", False)]
    assert not members.usable(A) and members.is_fenced(A)
    assert run(members, 60.0) == [] and members.on_refused(B, 60.0) == [] and members.on_beat(A, 60.0) == []
    early = Members(A, is_head=False)
    assert early.on_declared_dead(A, "refused") == [NodeGone(A, "refused", False)]
    assert early.on_declared_dead(A, "refused") == early.on_record(record(A), 0.0) == []


def test_reprs_are_lines_of_a_table() -> None:
    members = seen_by(A)
    run(members, 10.0, beating=(B,))
    assert repr(members) == "<Members 2 alive, 2 suspected, 0 dead, 0 left | head 48000000 lost>"
    assert members.table().splitlines() == [
        "<Node h (48000000) [4/4 CPU] SUSPECTED, head>",
        "<Node a (41000000) [4/4 CPU] ALIVE>",
        "<Node b (42000000) [4/4 CPU] ALIVE>",
        "<Node c (43000000) [4/4 CPU] SUSPECTED>",
    ]


# -- one head after the other: fault 14 --------------------------------------------------------------------------------

NEXT = b"N" + bytes(7)


def head_record(node: bytes, epoch: int) -> NodeRecord:
    return record(node, is_head=True).but(epoch=epoch)


def test_a_later_head_takes_the_place_of_the_one_before() -> None:
    members = Members(A, is_head=False)
    members.on_record(head_record(HEAD, 1), 0.0)
    assert members.epoch == 1
    said = members.on_record(head_record(NEXT, 2), 1.0)
    assert kinds(said) == [(Joined, NEXT), (NodeGone, HEAD), (HeadBack, NEXT)]
    assert (members.head, members.epoch, members.is_fenced(HEAD)) == (NEXT, 2, True)


def test_fault_14_a_head_from_a_copy_of_the_state_is_not_listened_to_and_told_so() -> None:
    members = Members(A, is_head=False)
    members.on_record(head_record(HEAD, 3), 0.0)
    for epoch in (0, 2, 3):
        copied = head_record(NEXT, epoch)
        assert members.on_record(copied, 10.0 * epoch) == [FormerHead(copied, 3)]
        assert members.on_record(copied, 10.0 * epoch + 0.5) == [], "once a second is enough"
    assert members.head == HEAD and members.record(NEXT) is None


def test_a_member_that_follows_a_later_head_does_not_make_that_one_a_former_one() -> None:
    members = Members(A, is_head=False)
    members.on_record(head_record(HEAD, 1), 0.0)
    members.on_record(record(B).but(epoch=2), 1.0)  # it has found the next head before us
    assert (HeadBack, NEXT) in kinds(members.on_record(head_record(NEXT, 2), 2.0))


def test_fault_14_a_head_that_hears_of_a_later_epoch_ends() -> None:
    for later in (record(B).but(epoch=6), head_record(NEXT, 6)):
        members = Members(HEAD, is_head=True)
        members.epoch = 5
        (end,) = members.on_record(later, 0.0)
        assert isinstance(end, NodeGone) and end.node == HEAD and "old copy" in end.reason
    members = Members(HEAD, is_head=True)
    members.epoch = 5
    assert kinds(members.on_record(record(B).but(epoch=4), 0.0)) == [(Joined, B)]
    former = head_record(A, 4)
    assert members.on_record(former, 0.0) == [FormerHead(former, 5)]


def test_of_two_heads_of_one_epoch_one_ends() -> None:
    low, high = sorted((HEAD, NEXT))
    ended = []
    for me, other in ((low, high), (high, low)):
        members = Members(me, is_head=True)
        members.epoch = 2
        said = members.on_record(head_record(other, 2), 0.0)
        ended += [me for effect in said if isinstance(effect, NodeGone)]
    assert ended == [low]


# -- who may say that one is dead: fault 9 -----------------------------------------------------------------------------


def follower(epoch: int = 3) -> Members:
    members = Members(A, is_head=False)
    members.on_record(head_record(HEAD, epoch), 0.0)
    members.on_record(record(B), 0.0)
    return members


def test_fault_9_the_head_that_one_follows_is_believed() -> None:
    members = follower()
    assert members.on_fenced(HEAD, "was silent", 3) == [NodeGone(A, "was silent", False)]
    assert members.on_fenced(HEAD, "was silent", 3) == [], "told once"


def test_fault_9_anybody_elses_word_is_looked_into_by_the_head() -> None:
    members = follower()
    for stranger in (B, NEXT):
        assert members.on_fenced(stranger, "was silent", 3) == [Appeal(HEAD, stranger)]
    assert members.state(HEAD) is NodeState.ALIVE


def test_fault_9_an_earlier_heads_word_is_no_word_whoever_says_it() -> None:
    members = follower(epoch=3)
    assert members.on_fenced(B, "by the last head", 2) == members.on_fenced(HEAD, "by the last head", 2) == []


def test_fault_9_without_a_head_a_member_is_believed_and_a_stranger_is_not() -> None:
    members = follower()
    assert (HeadLost, HEAD) in kinds(members.on_refused(HEAD, 1.0))
    assert members.on_fenced(NEXT, "was silent", 3) == []
    assert members.on_fenced(B, "by the last head but one", 2) == []
    assert members.on_fenced(B, "was silent", 3) == [NodeGone(A, "was silent", False)]


def test_fault_14_a_head_believes_only_that_there_was_a_later_one() -> None:
    members = Members(HEAD, is_head=True)
    members.epoch = 4
    members.on_record(record(B).but(epoch=4), 0.0)
    for epoch in (0, 3, 4):
        assert members.on_fenced(B, "was silent", epoch) == []
    assert members.on_fenced(B, "an old copy", 5) == [NodeGone(HEAD, "an old copy", False)]
