"""Letters between two nodes, one fault at a time (faults 18, 24, 26, 27). Time is what the test says."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from zmreg.core.courier import (
    ACK_BYTES,
    ACK_DUE,
    ACK_LETTERS,
    DELIVER,
    AskResend,
    Courier,
    CourierEffect,
    Deliver,
    Overflow,
    SendAck,
    Transmit,
)
from zmreg.core.outgoing import BURST_BYTES, BURST_LETTERS

KIB = 1024


def sent_by(effects: Iterable[CourierEffect]) -> list[int]:
    return [effect.seq for effect in effects if isinstance(effect, Transmit)]


def filled(letters: int, nbytes: int = 10) -> Courier:
    """A courier that has put `letters` on its link, and nobody has answered."""
    courier = Courier()
    for number in range(letters):
        assert courier.take_seq(f"letter {number + 1}", nbytes) == number + 1
    return courier


def having(letters: int) -> Courier:
    """A courier that got `letters` and has acknowledged them."""
    courier = Courier()
    for number in range(letters):
        assert courier.accept(number + 1, 0, 10)
    courier.take_ack()
    return courier


# -- the usual case ----------------------------------------------------------------------------------------------------


def test_an_ack_rides_on_a_letter_that_goes_the_other_way() -> None:
    ours, theirs = Courier(), Courier()
    assert theirs.accept(ours.take_seq("question", 8), ours.received, 8) == DELIVER
    assert ours.accept(theirs.take_seq("answer", 6), theirs.received, 6) == DELIVER
    assert ours.statistics().unacked == ours.unacked_bytes == 0
    theirs.tick(0.0)
    assert theirs.tick(10.0) != []  # our answer is not acknowledged: sent again, but no ack is owed any more
    assert not any(isinstance(effect, SendAck) for effect in theirs.tick(10.1))


def test_an_ack_of_its_own_after_64_letters() -> None:
    courier = Courier()
    verdicts = [courier.accept(number, 0, 1) for number in range(1, ACK_LETTERS + 1)]
    assert verdicts == [DELIVER] * (ACK_LETTERS - 1) + [ACK_DUE]
    assert courier.take_ack() == ACK_LETTERS
    assert courier.accept(ACK_LETTERS + 1, 0, 1) == DELIVER


def test_an_ack_of_its_own_after_half_a_burst_of_bytes() -> None:
    courier = Courier()
    assert courier.accept(1, 0, ACK_BYTES - 1) == DELIVER
    assert courier.accept(2, 0, 1) == ACK_DUE


def test_an_ack_of_its_own_after_20_ms() -> None:
    courier = Courier()
    assert courier.due() is None
    courier.accept(1, 0, 1)
    assert courier.tick(5.0) == []
    assert courier.due() == 5.02
    assert courier.tick(5.019) == []
    assert courier.tick(5.02) == [SendAck(1)]
    assert courier.tick(6.0) == [] and courier.due() is None


def test_an_ack_lets_go_of_everything_before_it() -> None:
    courier = filled(5, nbytes=7)
    assert courier.on_ack(3) == []
    assert (courier.statistics().unacked, courier.unacked_bytes) == (2, 14)
    assert courier.on_ack(2) == [] and courier.unacked_bytes == 14  # an older word that was overtaken


@pytest.mark.parametrize("ack", [6, 1_000])
def test_an_ack_of_what_was_never_sent_is_counted_and_ignored(ack: int) -> None:
    courier = filled(5)
    assert courier.on_ack(ack) == []
    assert courier.accept(1, ack, 1) == 0
    assert courier.on_letter(1, ack, "theirs", 1, 0.0) == [Deliver("theirs")]
    assert courier.on_resend(ack + 1, 0.0) == courier.on_resend(0, 0.0) == []
    assert courier.statistics().unacked == 5 and courier.statistics().nonsense == 4


def test_send_and_on_letter_say_the_same_in_effects() -> None:
    ours, theirs = Courier(), Courier()
    assert ours.send("hello", 5) == [Transmit(1, 0, "hello")]
    assert theirs.on_letter(1, 0, "hello", 5, 0.0) == [Deliver("hello")]
    assert theirs.send("hi", 2) == [Transmit(1, 1, "hi")]
    assert theirs.on_letter(0, 0, "nonsense", 5, 0.0) == []


# -- what goes wrong ---------------------------------------------------------------------------------------------------


def test_fault_24_a_duplicate_is_dropped_and_acknowledged_again_once_in_20_ms() -> None:
    courier = having(3)
    assert courier.accept(2, 0, 10) == 0
    assert [courier.on_letter(2, 0, "again", 10, 0.0) for _ in range(100)] == [[]] * 100
    assert courier.tick(0.0) == []
    assert courier.tick(0.02) == [SendAck(3)]
    assert courier.tick(1.0) == []
    assert courier.statistics().duplicates == 100 and courier.received == 3


def test_fault_26_a_gap_is_asked_about_at_most_every_50_ms_and_then_less_often() -> None:
    courier = having(3)
    assert courier.on_letter(6, 0, "early", 10, 1.0) == [AskResend(4)]
    assert courier.on_letter(7, 0, "early", 10, 1.04) == []
    assert courier.due() == 1.05
    asked = []
    while (due := courier.due()) is not None and due < 18.0:
        assert courier.tick(due - 0.001) == [] and courier.tick(due) == [AskResend(4)]
        asked.append(round(due, 3))
    assert asked == [1.05, 1.15, 1.35, 1.75, 2.55, 4.15, 7.35, 11.35, 15.35]
    assert courier.accept(4, 0, 10) == DELIVER  # it is there
    courier.take_ack()
    assert courier.tick(100.0) == [] and courier.due() is None


def test_a_second_gap_is_asked_about_at_once_when_50_ms_have_gone_by() -> None:
    courier = having(3)
    courier.on_letter(6, 0, "early", 10, 1.0)
    courier.accept(4, 0, 10)
    assert courier.on_letter(9, 0, "early", 10, 1.01) == []
    assert courier.on_letter(10, 0, "early", 10, 1.05) == [AskResend(5)]


def test_what_is_asked_for_is_sent_again_and_what_came_before_it_is_acknowledged() -> None:
    courier = filled(5)
    assert sent_by(courier.on_resend(3, 0.0)) == [3, 4, 5]
    assert courier.statistics().unacked == 3
    assert sent_by(courier.on_resend(3, 0.049)) == []
    assert sent_by(courier.on_resend(3, 0.05)) == [3, 4, 5]
    assert courier.on_resend(2, 1.0) == []  # overtaken by a later word
    assert courier.take_seq("new", 10) == 6  # all is on the link again


def test_sending_again_is_bursts_of_a_mebibyte_each_after_word_of_the_last() -> None:
    courier = filled(100, nbytes=100 * KIB)
    assert sent_by(courier.on_resend(1, 0.0)) == list(range(1, 11))
    assert courier.tick(0.0) == courier.tick(0.9) == []  # no word, no burst
    assert sent_by(courier.on_ack(5)) == list(range(11, 21))  # five arrived: what is under way may be 1.5 MiB
    assert sent_by(courier.on_ack(20)) == list(range(21, 31))
    assert sent_by(courier.on_ack(30)) == list(range(31, 41))


def test_a_letter_larger_than_a_burst_passes_alone() -> None:
    courier = filled(3, nbytes=4 * BURST_BYTES)
    assert sent_by(courier.on_resend(1, 0.0)) == [1]
    assert sent_by(courier.on_ack(1)) == [2]


def test_a_burst_of_tiny_letters_is_bounded_in_number() -> None:
    courier = filled(3 * BURST_LETTERS, nbytes=0)
    assert len(sent_by(courier.on_resend(1, 0.0))) == BURST_LETTERS
    assert len(sent_by(courier.on_ack(64))) == BURST_LETTERS


def test_new_letters_wait_while_old_ones_are_sent_again() -> None:
    courier = filled(20, nbytes=100 * KIB)
    courier.on_resend(1, 0.0)
    assert courier.take_seq("new", 100 * KIB) == 0
    assert courier.send("newer", 100 * KIB) == []
    assert courier.statistics().held_bytes == 200 * KIB
    assert sent_by(courier.on_ack(10)) == list(range(11, 21))
    assert sent_by(courier.on_ack(20)) == [21, 22]
    assert courier.statistics().held_bytes == 0 and courier.statistics().resent == 20
    assert courier.take_seq("usual", 10) == 23


def test_fault_18_when_the_link_is_back_all_that_is_unacknowledged_goes_again() -> None:
    courier = filled(3)
    courier.accept(1, 1, 10)
    assert courier.connected() == [SendAck(1), Transmit(2, 1, "letter 2"), Transmit(3, 1, "letter 3")]
    assert Courier().connected() == []


def test_what_had_arrived_before_the_cut_is_skipped_and_all_behind_it_goes_again() -> None:
    courier = filled(40, nbytes=100 * KIB)
    assert sent_by(courier.connected()) == list(range(1, 11))
    assert sent_by(courier.on_ack(20)) == list(range(21, 31))
    assert sent_by(courier.on_ack(30)) == list(range(31, 41))


def test_nothing_is_sent_while_the_link_is_known_to_be_down() -> None:
    courier = filled(2)
    courier.accept(1, 0, 10)
    courier.disconnected()
    courier.disconnected()
    assert courier.take_seq("letter 3", 10) == 0
    assert courier.tick(0.0) == courier.tick(100.0) == []
    assert courier.on_resend(1, 100.0) == [] and courier.on_ack(1) == [] and courier.due() is None
    assert courier.connected() == [SendAck(1), Transmit(2, 1, "letter 2"), Transmit(3, 1, "letter 3")]
    assert courier.statistics().resent == 1


def test_a_second_of_silence_sends_the_last_letter_again_then_two_then_every_four() -> None:
    courier = filled(100, nbytes=100 * KIB)
    probes = {tenth / 10: sent_by(courier.tick(tenth / 10)) for tenth in range(200)}
    assert {when: seqs for when, seqs in probes.items() if seqs} == dict.fromkeys([1, 3, 7, 11, 15, 19], [100])
    assert courier.statistics().probes == 6 and courier.take_seq("usual", 10) == 101


def test_silence_counts_from_the_first_tick_that_sees_a_letter_not_from_an_idle_one() -> None:
    courier = Courier()
    courier.tick(0.0)
    courier.take_seq("after a quiet hour", 10)
    assert courier.tick(3600.0) == [] and courier.due() == 3601.0
    courier.take_seq("more", 10)
    courier.on_ack(1)
    assert courier.tick(3601.0) == [] and courier.due() == 3602.0  # an ack is progress


def test_fault_8_a_slow_peer_is_not_sent_anything_twice_but_the_probes() -> None:
    """Stopped for 5 s with 10 MB under way; then it works through what it has."""
    courier = filled(100, nbytes=100 * KIB)
    for tenth in range(50):
        courier.tick(tenth / 10)
    for ack in range(5, 100, 5):
        assert courier.on_ack(ack) == courier.tick(5.0) == []
    assert courier.statistics().resent == 2  # at 1 s and at 3 s


def test_a_peer_that_lost_everything_sees_the_probe_asks_and_gets_everything() -> None:
    ours, theirs = filled(100, nbytes=100 * KIB), Courier()
    ours.tick(0.0)
    (probe,) = ours.tick(1.0)
    assert isinstance(probe, Transmit) and probe.seq == 100
    assert theirs.on_letter(probe.seq, probe.ack, probe.letter, 100 * KIB, 1.0) == [AskResend(1)]
    arrived = more = sent_by(ours.on_resend(1, 1.0))
    while more := sent_by(ours.on_ack(arrived[-1])):
        arrived += more
    assert arrived == list(range(1, 101)) and ours.statistics().unacked == 0


def test_silence_while_sending_again_probes_with_the_last_that_went_again() -> None:
    courier = filled(100, nbytes=100 * KIB)
    courier.on_resend(1, 0.0)
    courier.tick(0.0)
    assert sent_by(courier.tick(1.0)) == [10]
    assert sent_by(courier.on_resend(3, 1.0)) == list(range(3, 13))


def test_overflow_is_said_once_and_again_only_after_half_of_it_has_gone() -> None:
    courier = Courier(cap_bytes=100)
    assert courier.send("a", 100) == [Transmit(1, 0, "a")] and not courier.overflow
    assert courier.send("b", 1) == [Transmit(2, 0, "b"), Overflow(101)] and courier.overflow
    assert courier.send("c", 1) == [Transmit(3, 0, "c")]
    assert courier.tick(0.0) == []
    courier.on_ack(2)
    assert not courier.overflow and courier.tick(0.0) == []
    courier.take_seq("d", 100)
    assert courier.overflow and courier.tick(0.0) == [Overflow(101)]
    courier.disconnected()
    courier.take_seq("e", 1)
    assert courier.tick(0.0) == []


def test_repr_tells_how_it_stands() -> None:
    courier = filled(2)
    assert repr(courier) == "<Courier up | 2 sent, 2 unacked (20 bytes), 0 resent | 0 received>"
    courier.disconnected()
    assert "down" in repr(courier)
