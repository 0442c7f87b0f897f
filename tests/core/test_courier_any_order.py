"""Two couriers over a net that drops, repeats, overtakes and cuts: exactly once, in order, and no storm."""

from __future__ import annotations

from random import Random
from typing import Final

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.effort import examples
from zmreg.core.courier import (
    ACK_DUE,
    AskResend,
    Courier,
    CourierEffect,
    Deliver,
    Overflow,
    SendAck,
    Transmit,
)
from zmreg.core.outgoing import BURST_BYTES

KIB: Final = 1024
SIZES: Final = [0, 1, 200, 64 * KIB, 400 * KIB, 3 * BURST_BYTES]
Letter = tuple[int, int]
"""(its place among those of its sender, nbytes)"""


class End:
    """One node: its courier, what it wrote, what it was handed, and what is on the way to it."""

    def __init__(self) -> None:
        self.courier = Courier()
        self.written = 0
        self.handed: list[int] = []
        self.coming: list[CourierEffect] = []
        self.linked = True
        self.asked_at: list[float] = []


class World:
    """Two ends and the net between them. Nothing is lost unless it is said so."""

    def __init__(self) -> None:
        self.ends = (End(), End())
        self.now = 0.0
        self.cut = False

    def write(self, side: int, nbytes: int, hot: bool) -> None:
        end = self.ends[side]
        letter: Letter = (end.written, nbytes)
        end.written += 1
        if not hot:
            self.perform(side, end.courier.send(letter, nbytes))
        elif seq := end.courier.take_seq(letter, nbytes):
            self.put(side, Transmit(seq, end.courier.received, letter))

    def put(self, side: int, message: CourierEffect) -> None:
        if not self.cut:
            self.ends[1 - side].coming.append(message)

    def perform(self, side: int, effects: list[CourierEffect]) -> None:
        end = self.ends[side]
        again = [effect.letter for effect in effects if isinstance(effect, Transmit)]
        sizes = [letter[1] for letter in again if isinstance(letter, tuple)]
        assert len(sizes) <= 1 or sum(sizes) <= BURST_BYTES, "one burst in one go, or one letter"
        for effect in effects:
            match effect:
                case Deliver(letter):
                    assert isinstance(letter, tuple)
                    end.handed.append(letter[0])
                case Overflow():
                    raise AssertionError("far from the cap")
                case AskResend():
                    end.asked_at.append(self.now)
                    self.put(side, effect)
                case Transmit() | SendAck():
                    self.put(side, effect)

    def arrive(self, side: int, message: CourierEffect, hot: bool) -> None:
        courier = self.ends[side].courier
        match message:
            case Transmit(seq, ack, letter):
                assert isinstance(letter, tuple)
                verdict = courier.accept(seq, ack, letter[1]) if hot else 0
                if not verdict:
                    self.perform(side, courier.on_letter(seq, ack, letter, letter[1], self.now))
                    return
                self.ends[side].handed.append(letter[0])
                if verdict == ACK_DUE:
                    self.put(side, SendAck(courier.take_ack()))
            case SendAck(ack):
                self.perform(side, courier.on_ack(ack))
            case AskResend(first):
                self.perform(side, courier.on_resend(first, self.now))

    def tick(self, seconds: float) -> None:
        self.now += seconds
        for side in (0, 1):
            self.perform(side, self.ends[side].courier.tick(self.now))

    def mend(self) -> None:
        self.cut = False
        for side in (0, 1):
            self.perform(side, self.ends[side].courier.connected())

    def drain(self, turns: int) -> None:
        """No fault any more: whatever was lost comes within a few pauses."""
        for _ in range(turns):
            for side in (0, 1):
                while self.ends[side].coming:
                    self.arrive(side, self.ends[side].coming.pop(0), hot=True)
            self.tick(0.02)
            if self.is_quiet():
                return

    def is_quiet(self) -> bool:
        return not any(end.coming or end.courier.statistics().unacked for end in self.ends)

    def check(self) -> None:
        for side, end in enumerate(self.ends):
            other = self.ends[1 - side]
            assert end.handed == list(range(len(end.handed))), "each once, in order"
            assert len(end.handed) <= other.written
            now = end.courier.statistics()
            assert now.unacked >= end.written - len(other.handed), "what has not arrived is kept"
            assert now.held_bytes >= 0 and now.unacked_bytes >= now.held_bytes
            assert now.sent == end.written and now.received == len(end.handed)
            assert now.nonsense == 0
            assert all(later - sooner >= 0.049 for sooner, later in zip(end.asked_at, end.asked_at[1:], strict=False))

    def check_all_arrived(self) -> None:
        self.check()
        for side, end in enumerate(self.ends):
            assert len(end.handed) == self.ends[1 - side].written
            now = end.courier.statistics()
            assert (now.unacked, now.unacked_bytes, now.held_bytes) == (0, 0, 0)


class AnyOrder(RuleBasedStateMachine):
    sides = st.integers(0, 1)

    @initialize()
    def start(self) -> None:
        self.world = World()

    @rule(side=sides, sizes=st.lists(st.sampled_from(SIZES), min_size=1, max_size=12), hot=st.booleans())
    def write(self, side: int, sizes: list[int], hot: bool) -> None:
        for nbytes in sizes:
            self.world.write(side, nbytes, hot)

    @rule(side=sides, letters=st.integers(60, 200))
    def write_many(self, side: int, letters: int) -> None:
        for _ in range(letters):
            self.world.write(side, 100, hot=True)

    @rule(side=sides, count=st.integers(1, 100), hot=st.booleans())
    def arrive(self, side: int, count: int, hot: bool) -> None:
        for _ in range(min(count, len(self.world.ends[side].coming))):
            self.world.arrive(side, self.world.ends[side].coming.pop(0), hot)

    @precondition(lambda self: any(end.coming for end in self.world.ends))
    @rule(side=sides, where=st.floats(0, 1), what=st.sampled_from(["drop", "repeat", "overtake"]), hot=st.booleans())
    def disturb(self, side: int, where: float, what: str, hot: bool) -> None:
        coming = self.world.ends[side].coming
        if not coming:
            return
        message = coming[int(where * (len(coming) - 1))]
        if what == "overtake":
            coming.remove(message)
            self.world.arrive(side, message, hot)
        elif what == "repeat":
            coming.append(message)
        else:
            coming.remove(message)

    @rule(side=sides)
    def lose_one_way(self, side: int) -> None:
        """Fault 20: what is on the way to one side is gone, and nobody is told."""
        self.world.ends[side].coming.clear()

    @rule(noticed=st.booleans())
    def cut(self, noticed: bool) -> None:
        self.world.cut = True
        for end in self.world.ends:
            end.coming.clear()
            if noticed:
                end.courier.disconnected()

    @precondition(lambda self: self.world.cut)
    @rule()
    def mend(self) -> None:
        self.world.mend()

    @rule(seconds=st.sampled_from([0.0, 0.01, 0.02, 0.05, 1.0, 10.0]))
    def tick(self, seconds: float) -> None:
        self.world.tick(seconds)

    @invariant()
    def holds(self) -> None:
        self.world.check()

    def teardown(self) -> None:
        """After quiet: everything has arrived, nothing is kept, nothing more is said."""
        if not hasattr(self, "world"):
            return
        if self.world.cut:
            self.world.mend()
        self.world.drain(turns=20_000)
        self.world.check_all_arrived()
        for _ in range(3):
            self.world.tick(1.0)
        self.world.drain(turns=5)
        assert self.world.is_quiet()
        self.world.tick(100.0)
        assert self.world.is_quiet() and [end.courier.due() for end in self.world.ends] == [None, None]


TestAnyOrder = AnyOrder.TestCase
TestAnyOrder.settings = settings(max_examples=examples(30), stateful_step_count=30, deadline=None)


@pytest.mark.parametrize("seed", range(4))
def test_fault_22_a_net_that_loses_a_fifth_of_everything_delivers_all_in_order(seed: int) -> None:
    chance = Random(seed)
    world = World()
    for turn in range(3_000):
        if turn < 500:
            for side in (0, 1):
                for _ in range(chance.randrange(8)):
                    world.write(side, chance.choice(SIZES[:-1]), hot=True)
        for side in (0, 1):
            coming, world.ends[side].coming = world.ends[side].coming, []
            for message in coming:
                fate = chance.random()
                if fate < 0.05:
                    world.arrive(side, message, hot=True)
                if fate < 0.8:
                    world.arrive(side, message, hot=True)
        world.tick(0.01)
    world.check()
    world.drain(turns=20_000)
    world.check_all_arrived()


def test_a_dead_link_costs_a_letter_every_four_seconds_however_much_is_kept() -> None:
    """Fault 27, half-open: an hour of silence with 100 MB kept."""
    world = World()
    world.cut = True
    for _ in range(1_000):
        world.write(0, 100 * KIB, hot=True)
    for _ in range(36_000):
        world.tick(0.1)
    now = world.ends[0].courier.statistics()
    assert now.probes == now.resent <= 902
    world.mend()
    world.drain(turns=20_000)
    world.check_all_arrived()


def test_after_a_cut_everything_goes_again_about_once() -> None:
    """The window grows with the acknowledgements, so that 100 MB take tens of round trips and not thousands."""
    world = World()
    for _ in range(1_000):
        world.write(0, 100 * KIB, hot=True)
    world.ends[1].coming.clear()
    world.mend()
    trips = 0
    while not world.is_quiet():
        trips += 1
        for side in (1, 0):
            coming, world.ends[side].coming = world.ends[side].coming, []
            for message in coming:
                world.arrive(side, message, hot=True)
        world.tick(0.02)
    world.check_all_arrived()
    assert world.ends[0].courier.statistics().resent == 1_000
    assert trips <= 30, trips
