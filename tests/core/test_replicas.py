"""One writer's part and its replica, state by state and gap by gap."""

from __future__ import annotations

import random

import pytest

from zmreg.core.index import SCOPES, LocationIndex, Rows, location
from zmreg.core.lifecycle import IllegalMove
from zmreg.core.publishing import BEACON_S, FLUSH_BYTES, FLUSH_S, Publisher
from zmreg.core.replica_effects import Learned, Publish, PublisherEffect, Replaced, ReplicaEffect, SendTo
from zmreg.core.replica_parts import MOVES, Part, PartMove, PartState
from zmreg.core.replicas import CREDIT_PARTS, RETRY_S, SILENT_S, WINDOW_PARTS, Replica
from zmreg.model.replica_messages import (
    AskReplay,
    AskSnapshot,
    Beacon,
    Delta,
    ReplicaTable,
    SnapshotPart,
)
from zmreg.wire import codec

WRITER, READER, OTHER = b"writer\0\0", b"reader\0\0", b"other-\0\0"
TABLE = int(ReplicaTable.LOCATIONS)


def key(number: int) -> bytes:
    return number.to_bytes(16, "big")


class Pair:
    """A writer and a reader with a wire between them that does as it is told."""

    def __init__(self, ring_ops: int = 65_536, held_ops: int = 65_536, incarnation: int = 0) -> None:
        self.writer = Publisher(WRITER, TABLE, incarnation=incarnation, ring_ops=ring_ops)
        self.rows = Rows()
        self.reader = Replica(READER, TABLE, self.rows, held_ops=held_ops)
        self.now = 0.0
        self.lost: list[object] = []
        self.seen: list[ReplicaEffect] = []
        self.asked: list[AskReplay | AskSnapshot] = []

    def publish(self, effects: list[PublisherEffect], lose: bool = False) -> None:
        """Deliver what the writer says, and answer what the reader asks, unless it is lost."""
        for effect in effects:
            assert isinstance(effect, Publish)
            if lose:
                self.lost.append(effect.message)
            else:
                self.deliver(effect.message)

    def deliver(self, message: Delta | Beacon | SnapshotPart, answer: bool = True) -> list[ReplicaEffect]:
        effects = self.reader.on_message(WRITER, codec.decode(codec.encode(message)), self.now)
        self.perform(effects, answer)
        return effects

    def perform(self, effects: list[ReplicaEffect], answer: bool = True) -> None:
        for effect in effects:
            if not isinstance(effect, SendTo):
                self.seen.append(effect)
                continue
            assert effect.node == WRITER and isinstance(effect.message, AskReplay | AskSnapshot)
            self.asked.append(effect.message)
            for said in self.writer.on_message(READER, effect.message, self.now) if answer else []:
                self.deliver(said.message)

    def write(self, *numbers: int, lose: bool = False) -> None:
        """One batch that adds these keys."""
        for number in numbers:
            assert self.writer.add(key(number), location(number, True)) == []
        self.now += FLUSH_S
        self.publish(self.writer.flush(self.now), lose)

    def beacon(self, lose: bool = False, answer: bool = True) -> None:
        self.publish(self.writer.flush(self.now), lose=lose)
        if not lose:
            self.deliver(self.writer.beacon(), answer)

    @property
    def state(self) -> PartState:
        return self.reader.state_of(WRITER)

    def equal(self) -> bool:
        mine = dict(self.rows.items(WRITER))
        return mine == dict(self.writer.rows.items(WRITER)) and not self.reader.audit()


def counts(pair: Pair) -> dict[str, int]:
    statistics = pair.reader.statistics()
    return {name: getattr(statistics, name) for name in type(statistics).__match_args__}


# -- the writer --------------------------------------------------------------------------------------------------------


def test_the_first_change_after_a_pause_leaves_at_the_next_tick_and_others_collect_for_10_ms() -> None:
    writer = Publisher(WRITER, TABLE)
    [beacon] = writer.tick(100.0)
    assert isinstance(beacon, Publish) and isinstance(beacon.message, Beacon)
    assert writer.due() == 100.0 + BEACON_S
    writer.add(b"a", b"1")
    [first] = writer.tick(100.1)
    assert isinstance(first, Publish) and isinstance(first.message, Delta) and first.message.first_seq == 1
    writer.add(b"b", b"1")
    writer.delete(b"a")
    assert writer.due() == pytest.approx(100.1 + FLUSH_S)
    assert writer.tick(100.105) == []
    [second] = writer.tick(100.111)
    assert isinstance(second, Publish)
    assert second.message == Delta(WRITER, TABLE, 0, 2, (b"b", b"a"), (b"1", b""))


def test_a_batch_of_32_kib_leaves_at_once() -> None:
    writer = Publisher(WRITER, TABLE)
    sizes, effects = [], []
    for number in range(5_000):
        effects += writer.add(key(number), location(number, True))
    for effect in effects:
        assert isinstance(effect, Publish)
        sizes.append(len(codec.encode(effect.message)))
    assert len(sizes) >= 3 and max(sizes) < FLUSH_BYTES + 100 and min(sizes) > FLUSH_BYTES * 0.8


def test_beacons_come_twice_a_second_also_when_idle_and_follow_what_is_pending() -> None:
    writer = Publisher(WRITER, TABLE)
    beacons, now = 0, 0.0
    while now < 10.0:
        beacons += sum(isinstance(effect.message, Beacon) for effect in writer.tick(now))
        now += 0.01
    assert 20 <= beacons <= 21
    writer.add(b"k", b"v")
    delta, beacon = [effect.message for effect in writer.tick(20.0)]
    assert isinstance(delta, Delta) and isinstance(beacon, Beacon)
    assert (beacon.last_seq, beacon.count) == (1, 1)


def test_adding_what_is_there_and_deleting_what_is_not_says_nothing() -> None:
    writer = Publisher(WRITER, TABLE)
    writer.add(b"k", b"v")
    writer.flush(0.0)
    writer.add(b"k", b"v")
    writer.delete(b"other")
    assert writer.flush(1.0) == []


@pytest.mark.parametrize("value", [b"", bytes(65_536)])
def test_rows_that_are_empty_or_large_are_refused_with_a_remedy(value: bytes) -> None:
    with pytest.raises(ValueError, match="put large things into the store"):
        Publisher(WRITER, TABLE).add(b"k", value)


def test_the_digest_does_not_depend_on_the_order_and_returns_to_what_it_was() -> None:
    one, other = Publisher(WRITER, TABLE), Publisher(WRITER, TABLE)
    for number in range(50):
        one.add(key(number), b"v")
        other.add(key(49 - number), b"v")
    one.flush(0.0)
    other.flush(0.0)
    before = one.beacon()
    assert before == other.beacon() and 0 < before.digest < 2**64
    one.add(key(7), b"w")
    one.delete(key(8))
    one.flush(1.0)
    assert one.beacon().digest != before.digest
    one.add(key(7), b"v")
    one.add(key(8), b"v")
    one.flush(2.0)
    assert one.beacon().digest == before.digest


def test_the_ring_is_bounded_by_operations_and_by_bytes() -> None:
    writer = Publisher(WRITER, TABLE, ring_ops=100)
    for number in range(1_000):
        writer.add(key(number), b"v")
        writer.flush(0.0)
    assert writer.statistics().ring_ops == 100
    large = Publisher(WRITER, TABLE)
    for number in range(1_000):
        large.add(key(number), bytes(60_000))
    assert large.statistics().ring_bytes <= 8 << 20


def test_every_part_of_a_snapshot_has_at_most_256_kib() -> None:
    writer = Publisher(WRITER, TABLE)
    for number in range(30_000):
        writer.add(key(number), location(number, True))
    for number in range(20):
        writer.add(key(1_000_000 + number), bytes(65_000))
    parts, number, last, cut = [], 0, 0, -1
    while number <= last:
        [*_, answer] = writer.on_message(READER, AskSnapshot(WRITER, TABLE, 0, cut, 0, number, 1), 0.0)
        assert isinstance(answer.message, SnapshotPart)
        cut, last = answer.message.cut, answer.message.last
        parts.append(answer.message)
        number += 1
    assert len(parts) > 7
    assert max(len(codec.encode(part)) for part in parts) <= 256 << 10
    assert sum(len(part.keys) for part in parts) == 30_020


def test_one_question_is_answered_with_at_most_16_parts() -> None:
    writer = Publisher(WRITER, TABLE)
    for number in range(100):
        writer.add(key(number), bytes(60_000))
    answers = writer.on_message(READER, AskSnapshot(WRITER, TABLE, 0, -1, 0, 0, 1_000_000), 0.0)
    assert sum(isinstance(answer, SendTo) for answer in answers) == 16


def test_who_begins_to_read_soon_after_another_gets_the_same_snapshot() -> None:
    pair = Pair()
    pair.write(*range(1_000))
    for _ in range(10):
        pair.writer.on_message(OTHER, AskSnapshot(WRITER, TABLE, 0, -1, 0, 0, 1), pair.now)
    assert pair.writer.statistics().snapshots == 1
    pair.write(*range(1_000, 2_000))
    pair.writer.on_message(OTHER, AskSnapshot(WRITER, TABLE, 0, -1, 0, 0, 1), pair.now)
    assert pair.writer.statistics().snapshots == 2


def test_questions_about_another_table_node_or_a_later_life_are_not_answered() -> None:
    writer = Publisher(WRITER, TABLE, incarnation=3)
    writer.add(b"k", b"v")
    assert writer.on_message(READER, AskReplay(OTHER, TABLE, 3, 1, 2), 0.0) == []
    assert writer.on_message(READER, AskReplay(WRITER, 9, 3, 1, 2), 0.0) == []
    assert writer.on_message(READER, AskReplay(WRITER, TABLE, 4, 1, 2), 0.0) == []


def test_a_question_about_a_former_life_is_answered_with_a_beacon_of_this_one() -> None:
    writer = Publisher(WRITER, TABLE, incarnation=3)
    writer.add(b"k", b"v")
    *_, told = writer.on_message(READER, AskSnapshot(WRITER, TABLE, 2, -1, 0, 0, 1), 0.0)
    assert isinstance(told, SendTo) and isinstance(told.message, Beacon)
    assert (told.message.incarnation, told.message.last_seq, told.message.count) == (3, 1, 1)


# -- UNKNOWN -----------------------------------------------------------------------------------------------------------


def test_nothing_is_known_of_a_node_before_it_is_heard() -> None:
    pair = Pair()
    assert pair.state is PartState.UNKNOWN and pair.reader.position_of(WRITER) == (-1, 0, 0, 0)


def test_unknown_becomes_live_at_the_first_operation_or_an_empty_beacon() -> None:
    pair = Pair()
    pair.write(1)
    assert pair.state is PartState.LIVE and pair.equal() and not pair.asked
    empty = Pair()
    empty.beacon()
    assert empty.state is PartState.LIVE and not empty.asked


@pytest.mark.parametrize("first_heard", ["beacon", "delta"])
def test_d2_unknown_reads_a_snapshot_when_it_joins_late(first_heard: str) -> None:
    pair = Pair()
    pair.write(*range(50), lose=True)
    if first_heard == "beacon":
        pair.beacon()
    else:
        pair.write(*range(50, 60))
    assert isinstance(pair.asked[0], AskSnapshot)
    assert pair.state is PartState.LIVE and pair.equal()
    assert counts(pair)["snapshots"] == 1 and counts(pair)["gaps"] == 0
    assert Replaced(WRITER) in pair.seen


# -- LIVE --------------------------------------------------------------------------------------------------------------


def test_live_learns_what_is_added_and_deleted_in_order() -> None:
    pair = Pair()
    pair.write(1, 2)
    pair.writer.delete(key(1))
    pair.writer.add(key(1), location(5, False))
    pair.publish(pair.writer.flush(pair.now))
    assert pair.seen[-1] == Learned(WRITER, (key(1), key(1)), (b"", location(5, False)))
    assert pair.equal()


def test_live_drops_duplicates() -> None:
    pair = Pair()
    pair.write(1)
    pair.write(2, lose=True)
    pair.deliver(pair.lost[0])
    before = dict(pair.rows.items(WRITER))
    for _ in range(3):
        pair.deliver(pair.lost[0])
    assert counts(pair)["duplicates"] == 3 and dict(pair.rows.items(WRITER)) == before and pair.equal()


def test_live_applies_the_new_half_of_a_batch_that_overlaps() -> None:
    pair = Pair()
    pair.write(1, 2)
    both = Delta(WRITER, TABLE, 0, 2, (key(2), key(3)), (location(2, True), location(3, True)))
    effects = pair.deliver(both)
    assert effects == [Learned(WRITER, (key(3),), (location(3, True),))]


def test_live_ignores_an_old_beacon() -> None:
    pair = Pair()
    pair.write(1)
    old = pair.writer.beacon()
    pair.write(2)
    assert pair.deliver(old) == [] and pair.state is PartState.LIVE and counts(pair)["digest_mismatches"] == 0


def test_live_reads_anew_when_the_digest_differs_and_counts_it() -> None:
    pair = Pair()
    pair.write(1, 2, 3)
    pair.rows.put(WRITER, key(9), b"not said by the writer")
    pair.reader._parts[WRITER].digest += 1
    pair.beacon(answer=False)
    assert pair.state is PartState.SYNCING and counts(pair)["digest_mismatches"] == 1
    pair.now += RETRY_S
    pair.beacon()
    assert pair.state is PartState.LIVE and pair.equal()


def test_a_digest_that_keeps_differing_does_not_become_a_storm_of_snapshots() -> None:
    pair = Pair()
    pair.write(1)
    for _ in range(20):
        pair.reader._parts[WRITER].digest += 1
        pair.now += BEACON_S
        pair.beacon()
    assert counts(pair)["digest_mismatches"] == 20 and counts(pair)["snapshots"] == 1


# -- GAP ---------------------------------------------------------------------------------------------------------------


def test_a_batch_that_is_missed_shows_by_the_next_and_is_replayed_from_the_ring() -> None:
    pair = Pair()
    pair.write(1)
    pair.write(2, 3, lose=True)
    pair.write(4)
    assert pair.asked == [AskReplay(WRITER, TABLE, 0, 2, 4)]
    assert pair.state is PartState.LIVE and pair.equal()
    assert counts(pair)["gaps"] == 1 and counts(pair)["replays"] == 1 and counts(pair)["snapshots"] == 0


def test_a_lost_tail_shows_by_the_next_beacon() -> None:
    pair = Pair()
    pair.write(1)
    pair.write(2, lose=True)
    assert pair.state is PartState.LIVE and not pair.equal()
    pair.beacon()
    assert pair.state is PartState.LIVE and pair.equal() and counts(pair)["gaps"] == 1


def test_batches_beyond_the_gap_wait_and_are_applied_in_order() -> None:
    pair = Pair()
    pair.write(1)
    for number in range(2, 8):
        pair.write(number, lose=True)
    missed = pair.lost
    for delta in (missed[5], missed[2], missed[3], missed[1]):
        pair.deliver(delta, answer=False)
    assert pair.state is PartState.GAP
    assert [effect.keys[0] for effect in pair.seen if isinstance(effect, Learned)] == [key(1)]
    pair.deliver(missed[0], answer=False)
    assert [effect.keys[0] for effect in pair.seen if isinstance(effect, Learned)] == [key(n) for n in range(1, 6)]
    assert pair.state is PartState.GAP, "number 6 is still missing"
    pair.deliver(missed[4], answer=False)
    assert pair.state is PartState.LIVE and pair.equal()


def test_two_holes_are_asked_for_one_after_the_other() -> None:
    pair = Pair()
    pair.write(1)
    pair.write(2, lose=True)
    pair.write(3, lose=True)
    pair.write(4, lose=True)
    two, three, four = pair.lost
    pair.deliver(three, answer=False)
    pair.write(5, lose=True)
    pair.deliver(pair.lost[-1], answer=False)
    assert pair.asked == [AskReplay(WRITER, TABLE, 0, 2, 3)]
    pair.deliver(two, answer=True)
    assert pair.asked[1:] == [AskReplay(WRITER, TABLE, 0, 4, 5)]
    assert pair.state is PartState.LIVE and pair.equal()


@pytest.mark.parametrize("lost", ["question", "answer"])
def test_a_lost_question_or_answer_is_asked_again_after_the_retry_time(lost: str) -> None:
    pair = Pair()
    pair.write(1)
    pair.write(2, lose=True)
    pair.beacon(answer=False)
    if lost == "answer":
        pair.writer.on_message(READER, pair.asked[-1], pair.now)
    assert pair.reader.tick(pair.now + RETRY_S / 2) == []
    pair.now += RETRY_S
    pair.perform(pair.reader.tick(pair.now))
    assert len(pair.asked) == 2 and pair.state is PartState.LIVE and pair.equal()


def test_a_silent_writer_is_not_asked_until_it_is_heard_again() -> None:
    pair = Pair()
    pair.write(1)
    pair.write(2, lose=True)
    pair.beacon(answer=False)
    asked = []
    for _ in range(100):
        pair.now += 0.1
        asked += pair.reader.tick(pair.now)
    assert len(asked) <= SILENT_S / RETRY_S
    pair.beacon()
    assert pair.state is PartState.LIVE and pair.equal()


def test_a_gap_beyond_the_ring_becomes_a_snapshot_without_another_question() -> None:
    pair = Pair(ring_ops=4)
    pair.write(1)
    for number in range(2, 20):
        pair.write(number, lose=True)
    pair.beacon()
    assert [type(ask) for ask in pair.asked] == [AskReplay]
    assert pair.state is PartState.LIVE and pair.equal()
    assert counts(pair)["snapshots"] == 1
    assert any("too far behind" in line for line in pair.reader.story_of(WRITER))


def test_a_long_gap_is_replayed_in_several_answers() -> None:
    pair = Pair()
    pair.write(0)
    for start in range(1, 20_000, 500):
        pair.write(*range(start, start + 500), lose=True)
    pair.beacon()
    assert pair.state is PartState.LIVE and pair.equal()
    assert [type(ask) for ask in pair.asked] == [AskReplay] * 3


# -- SYNCING -----------------------------------------------------------------------------------------------------------


def large_pair(parts: int = 10, **named: int) -> Pair:
    """A writer with a snapshot of `parts` parts, heard by nobody yet."""
    pair = Pair(**named)
    for number in range(parts * 4):
        pair.publish(pair.writer.add(key(number), bytes([number + 1]) * 64_000), lose=True)
    return pair


def test_a_snapshot_is_read_under_credit() -> None:
    pair = large_pair(10)
    pair.beacon(answer=False)
    under_way, most = list(pair.asked), 0
    parts: list[SnapshotPart] = []
    while under_way or parts:
        for ask in under_way:
            parts += [effect.message for effect in pair.writer.on_message(READER, ask, pair.now)]
        most = max(most, len(parts))
        pair.asked.clear()
        pair.deliver(parts.pop(0), answer=False)
        under_way = list(pair.asked)
    assert pair.state is PartState.LIVE and pair.equal()
    assert 2 <= most <= WINDOW_PARTS
    assert counts(pair)["duplicates"] == 0


def test_what_was_known_stays_readable_until_the_snapshot_is_whole() -> None:
    pair = Pair(ring_ops=2)
    pair.write(*range(5))
    for number in range(1_000, 1_040):
        pair.publish(pair.writer.add(key(number), bytes(64_000)), lose=True)
    pair.beacon(answer=False)
    [first] = pair.writer.on_message(READER, pair.asked[-1], pair.now)
    pair.deliver(first.message, answer=False)
    assert pair.state is PartState.SYNCING
    assert dict(pair.rows.items(WRITER)).keys() == {key(number) for number in range(5)}
    pair.now += RETRY_S
    pair.perform(pair.reader.tick(pair.now))
    assert pair.state is PartState.LIVE and pair.equal()


def test_operations_after_the_cut_wait_for_the_snapshot() -> None:
    pair = large_pair(3)
    pair.beacon(answer=False)
    [first] = pair.writer.on_message(READER, pair.asked[-1], pair.now)
    pair.deliver(first.message, answer=False)
    pair.writer.delete(key(0))
    pair.publish(pair.writer.flush(pair.now))
    pair.write(500)
    assert pair.state is PartState.SYNCING and not list(pair.rows.items(WRITER))
    pair.now += RETRY_S
    pair.perform(pair.reader.tick(pair.now))
    assert pair.state is PartState.LIVE and pair.equal()
    assert counts(pair)["gaps"] == 0, "what was held back follows the cut"


def test_parts_come_in_any_order_and_twice() -> None:
    pair = large_pair(6)
    pair.beacon(answer=False)
    parts = []
    for number in range(20):
        answers = pair.writer.on_message(READER, AskSnapshot(WRITER, TABLE, 0, 24, 0, number, 1), pair.now)
        parts += [answer.message for answer in answers]
    assert {part.cut for part in parts} == {24}
    parts *= 2
    random.Random(5).shuffle(parts)
    for part in parts:
        pair.deliver(part, answer=False)
    assert pair.state is PartState.LIVE and pair.equal()


def test_a_late_part_of_a_snapshot_given_up_does_not_replace_the_newer_one() -> None:
    pair = large_pair(3)
    pair.beacon(answer=False)
    old = pair.writer.on_message(READER, AskSnapshot(WRITER, TABLE, 0, -1, 0, 0, 3), pair.now)[1].message
    for number in range(100, 116):
        pair.publish(pair.writer.add(key(number), bytes(64_000)), lose=True)
    least = pair.writer.last_seq
    new = pair.writer.on_message(READER, AskSnapshot(WRITER, TABLE, 0, -1, least, 0, 9), pair.now)
    assert isinstance(old, SnapshotPart) and isinstance(new[0].message, SnapshotPart)
    assert old.cut < new[0].message.cut
    pair.deliver(new[0].message, answer=False)
    pair.deliver(old, answer=False)
    assert counts(pair)["late"] == 1 and counts(pair)["restarts"] == 0
    for answer in new[1:]:
        pair.deliver(answer.message, answer=False)
    assert pair.state is PartState.LIVE and pair.equal()


@pytest.mark.parametrize("ask", [AskSnapshot(WRITER, TABLE, 0, -1, 0, 0, 1), AskReplay(WRITER, TABLE, 0, 1, 2)])
def test_what_is_pending_is_published_before_a_snapshot_is_taken(ask: AskSnapshot | AskReplay) -> None:
    writer = Publisher(WRITER, TABLE, ring_ops=1)
    for number in range(3):
        writer.add(key(number), b"v")
        writer.flush(0.0)
    writer.add(b"pending", b"v")
    published, answer = writer.on_message(READER, ask, 0.0)
    assert isinstance(published, Publish) and isinstance(answer.message, SnapshotPart)
    assert answer.message.cut == writer.last_seq == 4 and b"pending" in answer.message.keys


def test_what_is_held_back_and_overtaken_by_a_replay_is_let_go() -> None:
    pair = Pair()
    for number in range(1, 7):
        pair.write(number, lose=True)
    one, two, three, four, five, six = pair.lost
    pair.deliver(one, answer=False)
    pair.deliver(four, answer=False)
    pair.deliver(Delta(WRITER, TABLE, 0, 2, two.keys + three.keys + four.keys, two.values + three.values + four.values))
    assert pair.state is PartState.LIVE
    pair.deliver(six, answer=False)
    assert pair.reader._parts[WRITER].held.ops == 1
    pair.deliver(five, answer=False)
    assert pair.state is PartState.LIVE and pair.equal() and pair.reader._parts[WRITER].held.ops == 0


def test_lost_parts_are_asked_for_again_and_only_they() -> None:
    pair = large_pair(9)
    pair.beacon(answer=False)
    [first] = pair.writer.on_message(READER, pair.asked[-1], pair.now)
    pair.deliver(first.message, answer=False)
    window = pair.asked[-1]
    assert isinstance(window, AskSnapshot) and (window.first, window.count) == (1, WINDOW_PARTS)
    answers = [answer.message for answer in pair.writer.on_message(READER, window, pair.now)]
    pair.deliver(answers[0], answer=False)
    pair.deliver(answers[3], answer=False)  # parts 2 and 3 are lost
    pair.asked.clear()
    pair.now += RETRY_S
    pair.perform(pair.reader.tick(pair.now), answer=False)
    again = pair.asked[0]
    assert isinstance(again, AskSnapshot) and (again.first, again.count) == (2, 2)
    pair.now += RETRY_S
    pair.perform(pair.reader.tick(pair.now))
    for _ in range(5):
        pair.now += RETRY_S
        pair.beacon()
    assert pair.state is PartState.LIVE and pair.equal()


def test_a_snapshot_the_writer_no_longer_keeps_is_begun_again() -> None:
    pair = large_pair(9)
    pair.beacon(answer=False)
    [first] = pair.writer.on_message(READER, pair.asked[-1], pair.now)
    pair.deliver(first.message, answer=False)
    pair.now += 60.0
    pair.writer.add(key(999), b"v")
    for each in range(1_000):
        pair.writer.add(key(2_000 + each), b"v")
    pair.publish(pair.writer.flush(pair.now), lose=True)
    pair.writer.on_message(OTHER, AskSnapshot(WRITER, TABLE, 0, -1, 0, 0, 1), pair.now)  # the old one is dropped
    pair.beacon()
    assert pair.state is PartState.LIVE and pair.equal() and counts(pair)["restarts"] == 1


def test_more_operations_than_can_be_held_back_begin_the_snapshot_again() -> None:
    pair = large_pair(5, held_ops=10)
    pair.beacon(answer=False)
    [first] = pair.writer.on_message(READER, pair.asked[-1], pair.now)
    pair.deliver(first.message, answer=False)
    for number in range(100, 112):
        pair.publish(pair.writer.add(key(number), b"v"))
        for effect in pair.writer.flush(pair.now):
            pair.deliver(effect.message, answer=False)
    assert counts(pair)["restarts"] >= 1 and pair.state is PartState.SYNCING
    pair.now += RETRY_S
    pair.beacon()
    assert pair.state is PartState.LIVE and pair.equal()


def test_one_batch_beyond_a_gap_that_is_too_large_to_hold_is_replayed() -> None:
    """Found by any order: a LIVE part took "too far behind", for which there is no row."""
    pair = Pair(held_ops=1)
    pair.write(1)
    pair.write(2, lose=True)
    pair.write(3, 4, 5)
    assert pair.state is PartState.LIVE and pair.equal() and counts(pair)["restarts"] == 0


def test_more_operations_beyond_a_gap_than_can_be_held_become_a_snapshot() -> None:
    pair = Pair(held_ops=10)
    pair.write(1)
    pair.write(2, lose=True)
    for number in range(3, 20):
        for effect in [*pair.writer.add(key(number), b"v"), *pair.writer.flush(pair.now)]:
            pair.deliver(effect.message, answer=False)
    assert pair.state is PartState.SYNCING
    pair.now += RETRY_S
    pair.beacon()
    assert pair.state is PartState.LIVE and pair.equal()


def test_credit_is_shared_by_all_writers_and_none_is_left_waiting() -> None:
    """A node that joins 200 others reads them by and by; those that fall silent give back their credit."""
    rows, now = Rows(), 0.0
    reader = Replica(READER, TABLE, rows)
    writers = {}
    for number in range(200):
        node = b"w%07d" % number
        writers[node] = Publisher(node, TABLE)
        writers[node].add(b"k", b"v")
        writers[node].flush(now)
    queue = []
    for node, writer in writers.items():
        queue += [effect.message for effect in reader.on_message(node, writer.beacon(), now)]
    assert len(queue) == CREDIT_PARTS and reader._credit == 0
    queue.clear()  # all of these are lost
    for _ in range(30):
        now += 0.1
        for node, writer in list(writers.items())[100:]:  # the others are not heard any more
            queue += [effect.message for effect in reader.on_message(node, writer.beacon(), now)]
        queue += [effect.message for effect in reader.tick(now)]
        while queue:
            ask = queue.pop()
            if isinstance(ask, AskSnapshot) and ask.node in list(writers)[100:]:
                for answer in writers[ask.node].on_message(READER, ask, now):
                    learned = reader.on_message(ask.node, answer.message, now)
                    queue += [effect.message for effect in learned if isinstance(effect, SendTo)]
    assert reader.statistics().live == 100
    assert reader._credit == CREDIT_PARTS


# -- DEAD, other lives, nonsense ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", ["UNKNOWN", "LIVE", "GAP", "SYNCING"])
def test_dead_drops_the_whole_part_and_what_comes_late(state: str) -> None:
    pair = large_pair(3) if state == "SYNCING" else Pair()
    if state in ("LIVE", "GAP"):
        pair.write(1, 2, 3)
    if state == "GAP":
        pair.write(4, lose=True)
    if state in ("GAP", "SYNCING"):
        pair.beacon(answer=False)
    assert pair.state.name == state
    pair.reader.forget(WRITER)
    assert pair.state is PartState.DEAD and not list(pair.rows.items(WRITER))
    pair.write(77)
    pair.beacon()
    assert pair.state is PartState.DEAD and not list(pair.rows.items(WRITER))
    assert counts(pair)["late"] == 2 and counts(pair)["parts"] == 0 and pair.reader._credit == CREDIT_PARTS
    assert pair.reader.tick(pair.now + 10) == []


def test_a_higher_incarnation_makes_all_that_was_said_before_void() -> None:
    pair = Pair()
    pair.write(1, 2, 3)
    pair.writer = Publisher(WRITER, TABLE, incarnation=1)
    pair.write(9)
    assert pair.state is PartState.LIVE and pair.equal() and Replaced(WRITER) in pair.seen
    assert dict(pair.rows.items(WRITER)).keys() == {key(9)}


def test_a_lower_incarnation_is_not_heard() -> None:
    pair = Pair(incarnation=2)
    pair.write(1)
    assert pair.deliver(Delta(WRITER, TABLE, 1, 2, (key(5),), (b"v",))) == []
    assert counts(pair)["late"] == 1 and pair.equal()


def test_the_dead_come_back_with_a_higher_incarnation_only() -> None:
    pair = Pair(incarnation=1)
    pair.write(1)
    pair.reader.forget(WRITER)
    pair.beacon()
    assert pair.state is PartState.DEAD
    pair.writer = Publisher(WRITER, TABLE, incarnation=2)
    pair.write(2)
    assert pair.state is PartState.LIVE and pair.equal()


@pytest.mark.parametrize(
    "message",
    [
        Delta(WRITER, TABLE, 0, 0, (b"k",), (b"v",)),
        Delta(WRITER, TABLE, 0, 1, (b"k",), ()),
        Delta(WRITER, TABLE, 0, 1, (), ()),
        Delta(WRITER, TABLE + 1, 0, 1, (b"k",), (b"v",)),
        Delta(OTHER, TABLE, 0, 1, (b"k",), (b"v",)),
        Beacon(WRITER, TABLE, 0, -1, 0, 0),
        SnapshotPart(WRITER, TABLE, 0, 5, 2, 1, (b"k",), (b"v",)),
        SnapshotPart(WRITER, TABLE, 0, 5, 0, 1, (b"k",), (b"",)),
        SnapshotPart(WRITER, TABLE, 0, 5, 0, 1, (b"k",), (b"v", b"w")),
    ],
)
def test_nonsense_and_other_nodes_parts_are_counted_and_dropped(message: Delta | Beacon | SnapshotPart) -> None:
    pair = Pair()
    assert pair.reader.on_message(WRITER, message, 0.0) == []
    assert counts(pair)["malformed"] == 1 and counts(pair)["parts"] == 0


def test_a_part_of_a_snapshot_nobody_reads_is_late() -> None:
    pair = Pair()
    pair.write(1)
    pair.deliver(SnapshotPart(WRITER, TABLE, 0, 1, 0, 0, (b"k",), (b"v",)))
    assert counts(pair)["late"] == 1 and pair.equal()


def test_states_follow_the_table() -> None:
    part = Part(WRITER, 0, 0.0)
    with pytest.raises(IllegalMove):
        part.life.move(PartMove.FILLED)
    assert {state for state, _ in MOVES} == set(PartState) - {PartState.DEAD}
    assert set(MOVES.values()) == set(PartState)


# -- scopes, and the own part ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scope", ["all", "large", "owner"])
def test_every_scope_converges_on_what_it_publishes_and_shows_all_of_its_own(scope: str) -> None:
    index, mirror = LocationIndex(), LocationIndex()
    writer = Publisher(WRITER, TABLE, index, ring_ops=8, admit=SCOPES[scope])
    reader = Replica(READER, TABLE, mirror)
    sizes = {key(number): number << 17 for number in range(40)}
    for object_id, nbytes in sizes.items():
        writer.add(object_id, location(nbytes, True))
    writer.delete(key(20))
    writer.delete(key(3))
    writer.flush(0.0)
    messages = [writer.beacon()]
    while messages:
        message = messages.pop(0)
        if isinstance(message, AskReplay | AskSnapshot):
            messages += [effect.message for effect in writer.on_message(READER, message, 0.0)]
        else:
            effects = reader.on_message(WRITER, message, 0.0)
            messages += [effect.message for effect in effects if isinstance(effect, SendTo)]
    limit = {"all": 0, "large": 1 << 20, "owner": 1 << 62}[scope]
    expected = {each for each, nbytes in sizes.items() if nbytes >= limit} - {key(20), key(3)}
    assert set(mirror.objects_of(WRITER)) == expected
    assert reader.state_of(WRITER) is PartState.LIVE and not reader.audit()
    assert len(index) == 38, "lookups on the writer's own node see all it holds"
    assert writer.beacon().count == len(expected)


def test_an_object_that_grows_past_the_border_of_a_scope_comes_and_goes() -> None:
    writer = Publisher(WRITER, TABLE, LocationIndex(), admit=SCOPES["large"])
    writer.add(key(1), location(5, True))
    assert writer.flush(0.0) == []
    writer.add(key(1), location(5 << 20, True))
    writer.add(key(1), location(5, True))
    [told] = writer.flush(1.0)
    assert isinstance(told, Publish) and isinstance(told.message, Delta)
    assert told.message.values == (location(5 << 20, True), b"")
    assert writer.beacon().count == 0 and writer.beacon().digest == 0


def test_reprs_say_where_things_stand() -> None:
    pair = Pair()
    pair.writer.add(b"k", b"v")
    assert repr(pair.writer) == "<Publisher of table 1: 0 rows, operation 0, 1 not yet published>"
    pair.write(2, lose=True)
    pair.beacon(answer=False)
    assert "1 behind" in repr(pair.reader) and "SYNCING" in repr(pair.reader)
    assert "operation 0 of 2" in repr(pair.reader._parts[WRITER])
    assert "LocationIndex 0 objects" in repr(LocationIndex()) and "Rows 0" in repr(Rows())
