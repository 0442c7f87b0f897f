"""The node that has an object: what it sends, to how many, and when it lets go."""

from __future__ import annotations

import pytest

from zmreg.core.fetch_effects import PinObject, Refuse, SayWait, SendChunk, ServeEffect, UnpinObject
from zmreg.core.serving import ServeLimits, Serving, key_of

MIB = 1 << 20
A, B, C, D = (name * 8 for name in (b"a", b"b", b"c", b"d"))
X, Y = b"x" * 16, b"y" * 16
BASE = 1 << 30


def machine(**limits: float) -> Serving:
    """With chunks of one size, if nothing else is said."""
    even = {"large_chunk_bytes": MIB, "least_chunk_bytes": MIB}
    return Serving(ServeLimits(**even | limits))  # type: ignore[arg-type]


def begun(serving: Serving, peer: bytes, transfer: int = 1, object_id: bytes = X, nbytes: int = 40 * MIB) -> bytes:
    """A transfer whose object is pinned; its key."""
    key = key_of(peer, transfer)
    upto = min(nbytes, 16 * MIB)
    assert serving.on_request(peer, transfer, object_id, 0, upto, 0.0) == [PinObject(object_id, key)]
    assert serving.pinned(key, BASE, nbytes) == []
    return key


def all_sent(serving: Serving) -> list[SendChunk]:
    sent: list[ServeEffect] = []
    while serving.busy:
        sent += serving.step()
    return [effect for effect in sent if isinstance(effect, SendChunk)]


def test_d12_chunks_go_in_order_as_far_as_there_is_credit() -> None:
    serving = machine()
    key = begun(serving, A)
    first = serving.step()
    assert first == [SendChunk(A, 1, number * MIB, BASE + number * MIB, MIB) for number in range(8)]
    assert len(all_sent(serving)) == 8 and serving.step() == []
    serving.on_credit(A, 1, 24 * MIB, 0.1)
    serving.on_credit(A, 1, 20 * MIB, 0.1)
    assert [chunk.offset for chunk in all_sent(serving)] == [number * MIB for number in range(16, 24)]
    serving.on_credit(A, 1, 40 * MIB, 0.2)
    assert all_sent(serving)[-1].offset == 39 * MIB
    assert serving.statistics().handed_bytes == 16 * MIB
    assert serving.on_stop(A, 1) == [UnpinObject(X, key)]
    statistics = serving.statistics()
    assert (statistics.transfers, statistics.handed_bytes) == (0, 0)
    assert (statistics.links[A].objects, statistics.links[A].nbytes) == (1, 40 * MIB)


def test_d16_a_transfer_may_begin_anywhere_and_end_in_a_part_of_a_chunk() -> None:
    serving = machine()
    key = key_of(A, 1)
    serving.on_request(A, 1, X, 3 * MIB, 5 * MIB + 7, 0.0)
    serving.pinned(key, BASE, 5 * MIB + 7)
    assert [(chunk.offset, chunk.nbytes) for chunk in all_sent(serving)] == [
        (3 * MIB, MIB),
        (4 * MIB, MIB),
        (5 * MIB, 7),
    ]


def test_the_first_chunks_are_small_and_the_last() -> None:
    """The reader begins early, and has little left to do when all has come."""
    serving = Serving()
    begun(serving, A, nbytes=6 * MIB + 5)
    sent = all_sent(serving)
    assert [chunk.nbytes / MIB for chunk in sent[:5]] == [0.25, 0.25, 0.5, 1, 1]
    assert [chunk.nbytes for chunk in sent[-5:]] == [MIB, MIB // 2, MIB // 4, MIB // 4, 5]
    offsets = [chunk.offset for chunk in sent]
    assert offsets == [sum(chunk.nbytes for chunk in sent[:place]) for place in range(len(sent))]


def test_a_transfer_that_goes_on_elsewhere_begins_small_there() -> None:
    serving = Serving()
    serving.on_request(A, 1, X, 7 * MIB + 3, 20 * MIB, 0.0)
    serving.pinned(key_of(A, 1), BASE, 20 * MIB)
    sent = all_sent(serving)
    assert [chunk.nbytes / MIB for chunk in sent[:3]] == [0.25, 0.25, 0.5]
    assert sum(chunk.nbytes for chunk in sent) == 13 * MIB - 3 and sent[0].offset == 7 * MIB + 3


def test_who_takes_them_quickly_gets_larger_chunks_until_it_is_slow() -> None:
    serving = Serving()
    begun(serving, A, nbytes=400 * MIB)
    assert max(chunk.nbytes for chunk in all_sent(serving)) == MIB
    serving.on_credit(A, 1, 24 * MIB, 0.05)
    assert {chunk.nbytes for chunk in all_sent(serving)} == {2 * MIB}
    serving.on_credit(A, 1, 32 * MIB, 0.25)
    assert {chunk.nbytes for chunk in all_sent(serving)} == {MIB}


def test_no_more_credit_is_taken_than_one_window() -> None:
    serving = machine()
    serving.on_request(A, 1, X, 0, 1 << 40, 0.0)
    serving.pinned(key_of(A, 1), BASE, 1 << 40)
    assert len(all_sent(serving)) == 16


def test_transfers_take_turns() -> None:
    serving = machine()
    begun(serving, A)
    begun(serving, B, object_id=Y)
    assert [chunk.peer for chunk in serving.step() if isinstance(chunk, SendChunk)] == [A, B] * 4


def test_what_was_handed_out_and_has_not_arrived_is_bounded() -> None:
    serving = machine(handed_bytes=20 * MIB)
    begun(serving, A)
    begun(serving, B, object_id=Y)
    assert len(all_sent(serving)) == 20 and not serving.busy
    serving.on_credit(A, 1, 20 * MIB, 0.0)
    assert len(all_sent(serving)) == 4, "four of A's have arrived"
    serving.peer_gone(A)
    assert serving.busy and len(all_sent(serving)) == 4, "B's window ends"


def test_d4_two_nodes_at_a_time_get_an_object_and_others_hear_of_them() -> None:
    serving = machine()
    begun(serving, A)
    begun(serving, B)
    assert serving.on_request(C, 1, X, 0, 16 * MIB, 0.0) == [Refuse(C, 1, "BUSY", (A, B), -1)]
    begun(serving, C, transfer=2, object_id=Y)
    all_sent(serving)
    for upto in (24, 32, 40):
        serving.on_credit(A, 1, upto * MIB, 0.0)
        all_sent(serving)
    assert serving.on_stop(A, 1) == [UnpinObject(X, key_of(A, 1))]
    begun(serving, D)
    assert serving.on_request(C, 3, X, 0, 16 * MIB, 0.0) == [Refuse(C, 3, "BUSY", (A, B, D), -1)]
    assert serving.peer_gone(A) == []
    assert serving.on_request(C, 4, X, 0, 16 * MIB, 0.0) == [Refuse(C, 4, "BUSY", (B, D), -1)]
    assert serving.statistics().links[C].refused == 3


def test_d4_small_requests_are_always_served() -> None:
    serving = machine(copies=1)
    begun(serving, A)
    begun(serving, B, nbytes=MIB)
    begun(serving, C, nbytes=MIB)
    assert isinstance(serving.on_request(D, 1, X, 0, 2 * MIB, 0.0)[0], Refuse)


def test_who_stops_before_the_end_does_not_have_it() -> None:
    serving = machine(copies=1)
    key = begun(serving, A)
    assert serving.on_stop(A, 1) == [UnpinObject(X, key)]
    begun(serving, B)
    assert serving.on_request(C, 1, X, 0, 16 * MIB, 0.0) == [Refuse(C, 1, "BUSY", (B,), -1)]
    assert all(chunk.peer == B for chunk in all_sent(serving))


def test_no_more_transfers_than_the_limit() -> None:
    serving = machine(transfers=2)
    begun(serving, A)
    begun(serving, B, object_id=Y)
    assert serving.on_request(C, 1, b"z" * 16, 0, MIB, 0.0) == [Refuse(C, 1, "BUSY", (), -1)]


def test_d18_what_is_not_here_is_refused_with_those_who_got_it() -> None:
    serving = machine()
    begun(serving, A, nbytes=MIB)
    all_sent(serving)
    serving.on_stop(A, 1)
    serving.on_request(B, 1, X, 0, MIB, 0.0)
    assert serving.missing(key_of(B, 1)) == [Refuse(B, 1, "NOT_HERE", (A,), -1)]
    serving.freed(X)
    serving.on_request(B, 2, X, 0, MIB, 0.0)
    assert serving.missing(key_of(B, 2), "GONE") == [Refuse(B, 2, "GONE", (), -1)]
    assert len(serving) == 0 and serving.statistics().pinning == 0


def test_another_size_is_refused() -> None:
    serving = machine()
    key = key_of(A, 1)
    serving.on_request(A, 1, X, 0, 2 * MIB, 0.0)
    assert serving.pinned(key, BASE, MIB) == [Refuse(A, 1, "WRONG_SIZE", (), MIB), UnpinObject(X, key)]


@pytest.mark.parametrize("stop_first", [True, False])
def test_a_pin_that_comes_when_nobody_wants_it_any_more_is_given_back(stop_first: bool) -> None:
    serving = machine()
    key = key_of(A, 1)
    serving.on_request(A, 1, X, 0, MIB, 0.0)
    assert (serving.on_stop(A, 1) if stop_first else serving.peer_gone(A)) == []
    assert serving.statistics().pinning == 1
    assert serving.pinned(key, BASE, MIB) == [UnpinObject(X, key)]
    assert serving.statistics().pinning == 0
    assert serving.pinned(key, BASE, MIB) == [] and serving.missing(key) == []


def test_a_newer_transfer_takes_the_place_of_an_older_one_without_letting_go_of_the_object() -> None:
    serving = machine(copies=1)
    old = begun(serving, A)
    new = key_of(A, 2)
    assert serving.on_request(A, 2, X, 3 * MIB, 9 * MIB, 0.0) == [PinObject(X, new), UnpinObject(X, old)]
    serving.pinned(new, BASE, 40 * MIB)
    assert [chunk.transfer for chunk in all_sent(serving)] == [2] * 6


def test_requests_that_come_twice_or_late_or_make_no_sense_change_nothing() -> None:
    serving = machine()
    begun(serving, A, transfer=5)
    for transfer, offset, upto in ((5, 0, MIB), (4, 0, MIB), (6, 5, 5), (7, -1, MIB)):
        assert serving.on_request(A, transfer, X, offset, upto, 0.0) == []
    assert len(all_sent(serving)) == 16
    serving.on_stop(A, 5)
    assert serving.on_request(A, 5, X, 0, MIB, 0.0) == [], "an echo of what is over"
    assert serving.on_stop(A, 5) == []
    serving.on_credit(A, 5, 30 * MIB, 0.0)
    assert serving.statistics().ignored == 7
    assert repr(serving) == "<Serving [0/64 transfers | 0 can send]>"


def test_a_silent_peer_is_given_up_when_nothing_can_be_sent_to_it() -> None:
    serving = machine(idle_s=10.0)
    key = begun(serving, A)
    assert serving.tick(50.0) == [], "it is our turn to send"
    all_sent(serving)
    assert serving.tick(59.0) == []
    serving.on_credit(A, 1, 17 * MIB, 60.0)
    all_sent(serving)
    assert serving.tick(69.9) == []
    assert serving.tick(70.0) == [UnpinObject(X, key)]
    assert serving.statistics().gave_up == 1 and serving.statistics().handed_bytes == 0


def test_who_waits_for_the_disk_is_told_so() -> None:
    serving = machine()
    serving.on_request(A, 1, X, 0, MIB, 0.0)
    told = [tenth for tenth in range(1, 41) if serving.tick(tenth / 10) == [SayWait(A, 1)]]
    assert told == [5, 15, 25, 35]
    serving.pinned(key_of(A, 1), BASE, MIB)
    assert serving.tick(6.0) == []
