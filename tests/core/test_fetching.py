"""The node that wants an object: whom it asks, what it writes, and when it gives up."""

from __future__ import annotations

from random import Random

import pytest

from zmreg.core.fetch_effects import (
    AskLocations,
    Completed,
    Credit,
    Failed,
    FetchEffect,
    Release,
    Request,
    Reserve,
    Stop,
    Write,
)
from zmreg.core.fetching import Fetching, FetchLimits
from zmreg.core.wants import MAX_DENIALS

MIB = 1 << 20
ME, A, B, C = (name * 8 for name in (b"m", b"a", b"b", b"c"))
X = b"x" * 16


def oid(number: int) -> bytes:
    return b"OWNER---" + number.to_bytes(8, "big")


def machine(**limits: float) -> Fetching:
    return Fetching(ME, Random(1), FetchLimits(**limits))  # type: ignore[arg-type]


def begun(fetching: Fetching, *holders: bytes, nbytes: int = 40 * MIB, now: float = 0.0) -> Request:
    """X is wanted, has its room, and somebody was asked."""
    assert fetching.want(X, nbytes, holders, now) == [Reserve(X, nbytes)]
    return only_request(fetching.reserved(X, True, "", now))


def only_request(effects: list[FetchEffect]) -> Request:
    (request,) = [effect for effect in effects if isinstance(effect, Request)]
    return request


def chunks(fetching: Fetching, transfer: int, first: int, last: int, now: float = 0.0) -> list[FetchEffect]:
    """The chunks from number `first` to before `last`; everything asked for but the writes."""
    asked: list[FetchEffect] = []
    for number in range(first, last):
        write, *more = fetching.on_chunk(transfer, number * MIB, MIB, now)
        assert write == Write(X, number * MIB, MIB)
        asked += more
    return asked


def later(fetching: Fetching, since: float, seconds: float) -> list[FetchEffect]:
    """Ticks, ten a second."""
    effects: list[FetchEffect] = []
    for tenth in range(1, round(seconds * 10) + 1):
        effects += fetching.tick(since + tenth / 10)
    return effects


# -- one transfer, from its beginning to its end -----------------------------------------------------------------------


def test_d12_credit_follows_when_half_the_window_is_consumed() -> None:
    fetching = machine()
    request = begun(fetching, A)
    assert request == Request(A, request.transfer, X, 0, 16 * MIB)
    assert chunks(fetching, request.transfer, 0, 7) == []
    assert chunks(fetching, request.transfer, 7, 8) == [Credit(A, request.transfer, 24 * MIB)]
    assert chunks(fetching, request.transfer, 8, 16) == [Credit(A, request.transfer, 32 * MIB)]
    assert chunks(fetching, request.transfer, 16, 24) == [Credit(A, request.transfer, 40 * MIB)]
    assert chunks(fetching, request.transfer, 24, 39) == [], "there is nothing more to ask for"
    assert chunks(fetching, request.transfer, 39, 40) == [Stop(A, request.transfer), Completed(X, A, 40 * MIB)]
    assert X not in fetching and len(fetching) == 0


def test_d21_every_transfer_is_counted_for_its_link() -> None:
    fetching = machine()
    request = begun(fetching, A, nbytes=3 * MIB)
    chunks(fetching, request.transfer, 0, 3)
    statistics = fetching.statistics()
    link = statistics.links[A]
    assert (link.objects, link.nbytes, link.retries, link.refused) == (1, 3 * MIB, 0, 0)
    assert (statistics.completed, statistics.failed, statistics.in_flight_bytes) == (1, 0, 0)
    assert repr(fetching) == "<Fetching [0/8 under way | 0 wanted]>"


def test_d7_wants_of_one_object_share_one_transfer() -> None:
    fetching = machine()
    request = begun(fetching, A)
    for _ in range(20):
        assert fetching.want(X, 40 * MIB, [A, B], 0.0) == []
    assert fetching.statistics().joined == 20
    assert only_request(fetching.node_gone(A, 0.0)).holder == B, "and who came later brought another holder"
    assert fetching.on_chunk(request.transfer, 0, MIB, 0.0) == []


def test_an_object_of_no_bytes_is_there_as_soon_as_there_is_room() -> None:
    fetching = machine()
    assert fetching.want(X, 0, [A], 0.0) == [Reserve(X, 0)]
    assert fetching.reserved(X, True, "", 0.0) == [Completed(X, b"", 0)]


def test_a_size_below_zero_is_a_mistake_of_the_caller() -> None:
    with pytest.raises(ValueError, match="cannot have -1 bytes"):
        machine().want(X, -1, [A], 0.0)


def test_without_room_it_fails_with_the_stores_own_words() -> None:
    fetching = machine()
    fetching.want(X, MIB, [A], 0.0)
    assert fetching.reserved(X, False, "the object is in this store already", 0.0) == [
        Failed(X, "the object is in this store already", (), "room")
    ]
    assert fetching.reserved(X, True, "", 0.0) == [], "an answer too many does nothing"


def test_cancel_gives_back_the_room_and_stops_the_holder() -> None:
    fetching = machine()
    request = begun(fetching, A)
    assert fetching.cancel(X, 0.0) == [Stop(A, request.transfer), Release(X)]
    assert fetching.on_chunk(request.transfer, 0, MIB, 0.0) == []
    assert fetching.cancel(X, 0.0) == []
    fetching.want(X, MIB, [A], 0.0)
    assert fetching.cancel(X, 0.0) == [Release(X)], "the wish for room too"
    assert fetching.statistics().late_chunks == 1


# -- what goes wrong ---------------------------------------------------------------------------------------------------


def test_d16_a_dead_holders_transfer_goes_on_elsewhere_at_the_byte_it_had_reached() -> None:
    fetching = machine()
    first = begun(fetching, A, B)
    chunks(fetching, first.transfer, 0, 3)
    second = only_request(fetching.node_gone(first.holder, 1.0))
    assert second.holder == ({A, B} - {first.holder}).pop()
    assert second.transfer != first.transfer and second.offset == 3 * MIB
    assert fetching.on_chunk(first.transfer, 3 * MIB, MIB, 1.0) == [], "late"
    assert chunks(fetching, second.transfer, 3, 40)[-1] == Completed(X, second.holder, 40 * MIB)
    statistics = fetching.statistics()
    assert statistics.links[first.holder].retries == 1 and statistics.late_chunks == 1


def test_d16_when_nobody_is_left_the_locations_are_asked_once_and_the_failure_names_who_was_tried() -> None:
    fetching = machine()
    request = begun(fetching, A)
    assert fetching.node_gone(A, 0.1) == [AskLocations(X)]
    assert later(fetching, 0.1, 1.0) == []
    assert fetching.learn(X, A, 1.2) == [], "old news of a dead node"
    assert fetching.no_more(X, 1.2) == [Release(X), Failed(X, "no node has it", ((A, "its node died"),))]
    assert fetching.no_more(X, 1.2) == []
    assert fetching.on_refused(request.transfer, "NOT_HERE", (), -1, 1.3) == []


def test_d18_a_stale_location_costs_a_round_trip() -> None:
    fetching = machine()
    request = begun(fetching, A)
    assert fetching.on_refused(request.transfer, "NOT_HERE", (), -1, 0.0) == [AskLocations(X)]
    request = only_request(fetching.learn(X, B, 0.1))
    assert request.holder == B
    chunks(fetching, request.transfer, 0, 1, 0.2)
    assert fetching.on_refused(request.transfer, "GONE", (), -1, 0.3) == [AskLocations(X)], "once for each progress"
    assert fetching.no_more(X, 0.4)[-1] == Failed(
        X, "no node has it", ((A, "it does not have it"), (B, "it was freed there"))
    )


def test_d18_news_that_stay_wrong_end_somewhere() -> None:
    fetching = machine()
    request = begun(fetching, A)
    for _ in range(MAX_DENIALS - 1):
        fetching.on_refused(request.transfer, "NOT_HERE", (), -1, 0.0)
        request = only_request(fetching.learn(X, A, 0.0))
    fetching.on_refused(request.transfer, "NOT_HERE", (), -1, 0.0)
    assert fetching.learn(X, A, 0.0) == []
    assert isinstance(fetching.no_more(X, 0.0)[-1], Failed)


def test_d4_what_nobody_is_known_to_have_takes_no_room_before_somebody_is_found() -> None:
    fetching = machine()
    assert fetching.want(X, MIB, [ME], 0.0) == [AskLocations(X)], "this node itself is none"
    assert fetching.learn(X, A, 0.1) == [Reserve(X, MIB)]
    assert fetching.no_more(X, 0.1) == []
    assert only_request(fetching.reserved(X, True, "", 0.1)).holder == A


def test_an_unanswered_question_for_locations_ends_with_patience() -> None:
    fetching = machine()
    fetching.want(X, MIB, [], 0.0)
    assert later(fetching, 0.0, 9.9) == []
    assert later(fetching, 9.9, 0.2) == [Failed(X, "no node has it", ())]


def test_a_silent_holder_is_left_for_another_one() -> None:
    fetching = machine()
    first = begun(fetching, A, B)
    chunks(fetching, first.transfer, 0, 2, now=0.5)
    assert later(fetching, 0.5, 1.9) == []
    stop, second = later(fetching, 2.4, 0.1)
    assert stop == Stop(first.holder, first.transfer)
    assert isinstance(second, Request) and second.holder != first.holder and second.offset == 2 * MIB
    assert second.upto == 4 * MIB, "with little credit after a silence"
    credit = chunks(fetching, second.transfer, 2, 3, now=2.6)
    assert credit == [Credit(second.holder, second.transfer, 7 * MIB)], "and more as it goes"


def test_the_only_holder_is_asked_again_after_a_pause_and_given_up_when_nothing_has_come_for_ten_seconds() -> None:
    fetching = machine()
    first = begun(fetching, A)
    assert later(fetching, 0.0, 2.0) == [Stop(A, first.transfer), AskLocations(X)]
    assert fetching.no_more(X, 2.1) == [], "it may come back"
    again = later(fetching, 2.1, 1.0)
    assert isinstance(again[0], Request) and again[0].transfer != first.transfer
    rest = later(fetching, 3.1, 7.0)
    assert isinstance(rest[-1], Failed) and rest[-1].reason == "nobody has sent any of it for 10 s"
    assert rest[-2] == Release(X)
    ((node, why),) = rest[-1].tried
    assert node == A and why.startswith("it was silent for")
    assert later(fetching, 10.1, 5.0) == []


def test_each_byte_is_progress() -> None:
    fetching = machine(stall_s=2.0, patience_s=10.0)
    request = begun(fetching, A)
    for number in range(20):
        chunks(fetching, request.transfer, number, number + 1, now=number * 1.5)
        assert later(fetching, number * 1.5, 1.4) == []


def test_who_reads_it_from_disk_is_not_silent() -> None:
    fetching = machine()
    request = begun(fetching, A)
    for second in range(30):
        fetching.on_wait(request.transfer, float(second))
        assert later(fetching, float(second), 1.0) == []
    assert chunks(fetching, request.transfer, 0, 1, now=30.5) == []


def test_fault_paused_process_our_own_sleep_is_nobodys_silence() -> None:
    fetching = machine()
    request = begun(fetching, A)
    later(fetching, 0.0, 1.0)
    assert fetching.tick(61.0) == []
    assert chunks(fetching, request.transfer, 0, 1, now=61.1) == []


def test_a_lost_chunk_is_asked_for_again_at_once_but_not_for_ever() -> None:
    fetching = machine()
    first = begun(fetching, A)
    chunks(fetching, first.transfer, 0, 1)
    stop, second = fetching.on_chunk(first.transfer, 2 * MIB, MIB, 0.1)
    assert stop == Stop(A, first.transfer)
    assert isinstance(second, Request) and second.offset == MIB
    assert fetching.on_chunk(first.transfer, 3 * MIB, MIB, 0.1) == []
    nothing_came = fetching.on_chunk(second.transfer, 2 * MIB, MIB, 0.1)
    assert nothing_came == [Stop(A, second.transfer), AskLocations(X)], "a pause"
    assert only_request(later(fetching, 0.1, 0.3)).offset == MIB


def test_a_doubled_chunk_is_written_once() -> None:
    fetching = machine()
    request = begun(fetching, A)
    chunks(fetching, request.transfer, 0, 2)
    assert fetching.on_chunk(request.transfer, 0, MIB, 0.0) == []
    assert fetching.statistics().doubled_chunks == 1
    chunks(fetching, request.transfer, 2, 3)


@pytest.mark.parametrize("nbytes", [0, 17 * MIB])
def test_who_sends_what_was_not_asked_for_is_asked_no_more(nbytes: int) -> None:
    fetching = machine()
    request = begun(fetching, A)
    assert fetching.on_chunk(request.transfer, 0, nbytes, 0.0) == [Stop(A, request.transfer), AskLocations(X)]
    failed = fetching.no_more(X, 0.0)[-1]
    assert failed == Failed(X, "no node has it", ((A, f"it sent {nbytes} bytes where {16 * MIB} were asked for"),))


def test_another_size_than_was_promised_is_a_refusal() -> None:
    fetching = machine()
    request = begun(fetching, A)
    fetching.on_refused(request.transfer, "WRONG_SIZE", (), 7, 0.0)
    failed = fetching.no_more(X, 0.0)[-1]
    assert failed == Failed(X, "no node has it", ((A, "it has it with another size (7 bytes)"),))


# -- whom it asks ------------------------------------------------------------------------------------------------------


def test_d6_the_holder_with_the_fewest_of_our_transfers_is_asked() -> None:
    fetching = machine()
    asked = []
    for number in range(6):
        fetching.want(oid(number), MIB, [A, B, C], 0.0)
        asked.append(only_request(fetching.reserved(oid(number), True, "", 0.0)).holder)
    assert sorted(asked) == [A, A, B, B, C, C]


def test_d6_by_chance_when_all_are_equal() -> None:
    firsts = {begun(Fetching(ME, Random(seed)), A, B, C).holder for seed in range(30)}
    assert firsts == {A, B, C}


def test_a_busy_holder_is_asked_again_soon_and_its_takers_first() -> None:
    fetching = machine()
    request = begun(fetching, A)
    other = only_request(fetching.on_refused(request.transfer, "BUSY", (B, ME), -1, 0.0))
    assert other.holder == B, "who got it from there"
    assert fetching.on_refused(other.transfer, "NOT_HERE", (), -1, 0.0) == []
    again = only_request(later(fetching, 0.0, 0.2))
    assert again.holder == A
    assert fetching.statistics().links[A].refused == 1


def test_news_end_the_pause_of_busy_holders() -> None:
    fetching = machine()
    request = begun(fetching, A)
    fetching.on_refused(request.transfer, "BUSY", (), -1, 0.0)
    other = only_request(fetching.learn(X, B, 0.001))
    assert other.holder == B, "who is new has least to do"
    assert only_request(fetching.on_refused(other.transfer, "BUSY", (), -1, 0.002)).holder == A


def test_denials_of_those_who_were_just_getting_it_do_not_count() -> None:
    fetching = machine()
    request = begun(fetching, A)
    now = 0.0
    for _ in range(MAX_DENIALS + 2):
        unsure = only_request(fetching.on_refused(request.transfer, "BUSY", (B,), -1, now))
        fetching.on_refused(unsure.transfer, "NOT_HERE", (), -1, now)
        request = only_request(later(fetching, now, 2.0))
        now += 2.0
    fetching.on_refused(request.transfer, "BUSY", (), -1, now)
    assert only_request(fetching.learn(X, B, now)).holder == B, "now it has it"


def test_being_told_to_wait_is_hope_and_silence_afterwards_is_not() -> None:
    fetching = machine()
    request = begun(fetching, A)
    for second in range(20):
        (request, *_) = [
            effect
            for effect in [*fetching.on_refused(request.transfer, "BUSY", (), -1, 2.0 * second)]
            + later(fetching, 2.0 * second, 2.0)
            if isinstance(effect, Request)
        ]
    rest = later(fetching, 40.0, 11.0)
    assert isinstance(rest[-1], Failed)


# -- bounds ------------------------------------------------------------------------------------------------------------


def reserves(effects: list[FetchEffect]) -> list[bytes]:
    return [effect.object_id for effect in effects if isinstance(effect, Reserve)]


def test_eight_at_a_time_first_in_first_out() -> None:
    fetching = machine()
    started = [each for number in range(12) for each in reserves(fetching.want(oid(number), MIB, [A], 0.0))]
    assert started == [oid(number) for number in range(8)]
    assert fetching.statistics().queued == 4
    assert reserves(fetching.cancel(oid(9), 0.0)) == [], "it was in the queue"
    assert reserves(fetching.cancel(oid(3), 0.0)) == [oid(8)]
    assert reserves(fetching.reserved(oid(0), False, "full", 0.0)) == [oid(10)]


def test_the_sum_of_sizes_is_bounded_and_giants_count_half_of_it() -> None:
    fetching = machine()
    assert reserves(fetching.want(oid(0), 200 * MIB, [A], 0.0)) == [oid(0)]
    assert reserves(fetching.want(oid(1), 100 * MIB, [A], 0.0)) == [oid(1)]
    assert reserves(fetching.want(oid(2), 100 * MIB, [A], 0.0)) == []
    assert fetching.statistics().in_flight_bytes == 228 * MIB
    assert reserves(fetching.cancel(oid(1), 0.0)) == [oid(2)]


def test_one_object_above_every_bound_goes_alone() -> None:
    fetching = machine(in_flight_bytes=1, transfers=1)
    assert reserves(fetching.want(oid(0), 10 << 30, [A], 0.0)) == [oid(0)]


def test_who_waits_for_a_holder_takes_no_place_and_comes_before_the_queue() -> None:
    fetching = machine(transfers=1)
    request = begun(fetching, A)
    assert fetching.want(oid(1), MIB, [A], 0.0) == []
    assert fetching.want(oid(2), MIB, [A], 0.0) == []
    assert reserves(fetching.on_refused(request.transfer, "BUSY", (), -1, 0.0)) == [oid(1)]
    assert later(fetching, 0.0, 0.5) == [], "its pause is over, but the slot is taken"
    assert only_request(fetching.cancel(oid(1), 0.5)).object_id == X


def test_time_in_the_queue_is_nobodys_silence() -> None:
    fetching = machine(transfers=1)
    request = begun(fetching, A)
    fetching.want(oid(1), MIB, [B], 0.0)
    assert fetching.on_refused(request.transfer, "BUSY", (), -1, 0.0) == [Reserve(oid(1), MIB)]
    assert later(fetching, 0.0, 30.0) == [], "a store may take its time"
    assert only_request(fetching.cancel(oid(1), 30.0)).object_id == X
