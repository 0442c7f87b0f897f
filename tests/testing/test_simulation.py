"""The simulator itself: virtual time, and a network that does what the weather says."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from zmreg import testing
from zmreg.testing import Broadcast, Send, Simulation, Weather


class Echo:
    """Remembers what it hears, and when; answers what begins with "?"."""

    def __init__(self, says: str = "") -> None:
        self.heard: list[tuple[object, object]] = []
        self.times: list[float] = []
        self.ticks: list[float] = []
        self.says = says

    def on_message(self, sender: object, message: object, now: float) -> Iterable[object]:
        self.heard.append((sender, message))
        self.times.append(now)
        return [Send(sender, "!")] if str(message).startswith("?") else []

    def tick(self, now: float) -> Iterable[object]:
        self.ticks.append(now)
        said, self.says = self.says, ""
        return [Broadcast(said)] if said else []


def echoes(simulation: Simulation, *names: str) -> list[Echo]:
    machines = [Echo() for _ in names]
    for name, machine in zip(names, machines, strict=True):
        simulation.add(name, machine)
    return machines


def test_a_question_and_its_answer_take_two_delays() -> None:
    simulation = Simulation(1, Weather(least_s=0.1, most_s=0.1))
    a, b = echoes(simulation, "a", "b")
    simulation.send("a", "b", "?")
    simulation.run(1.0)
    assert b.heard == [("a", "?")] and b.times == [pytest.approx(0.1)]
    assert a.heard == [("b", "!")] and a.times == [pytest.approx(0.2)]
    assert simulation.now == 1.0


def test_machines_are_ticked_at_their_interval_each_at_its_own_moment() -> None:
    simulation = Simulation(1, tick_s=0.5)
    a, b = echoes(simulation, "a", "b")
    simulation.run(10.0)
    assert len(a.ticks) == len(b.ticks) == 20 and a.ticks[0] != b.ticks[0]
    assert a.ticks[1] - a.ticks[0] == pytest.approx(0.5)


def test_a_machine_that_says_when_is_ticked_then_and_an_hour_costs_nothing() -> None:
    class Alarm(Echo):
        def due(self) -> float:
            return self.ticks[-1] + 600.0 if self.ticks else float("-inf")

    simulation = Simulation(1)
    alarm = Alarm()
    simulation.add("alarm", alarm)
    simulation.run(3_600.0)
    assert 6 <= len(alarm.ticks) <= 7 and simulation.statistics().ticks == len(alarm.ticks)


def test_broadcasts_reach_everybody_or_the_audience() -> None:
    simulation = Simulation(1)
    a, b, c = echoes(simulation, "a", "b", "c")
    a.says = "all"
    simulation.run(0.1)
    assert b.heard == c.heard == [("a", "all")] and a.heard == []
    simulation.listen("a", ["a", "c"])
    a.says = "some"
    simulation.run(0.1)
    assert len(b.heard) == 1 and c.heard[-1] == ("a", "some")


def test_the_weather_does_what_it_says_and_calm_ends_it() -> None:
    simulation = Simulation(3, Weather(drop=0.2, duplicate=0.1, reorder=0.3), size_of=lambda message: 10)
    _, b = echoes(simulation, "a", "b")
    for number in range(1_000):
        simulation.send("a", "b", number)
        simulation.run(0.001)
    simulation.run(1.0)
    told = simulation.statistics()
    assert told.sent == 1_000 and told.nbytes == 10_000
    assert 150 < told.dropped < 250 and 50 < told.duplicated < 120
    assert told.delivered == len(b.heard) == 1_000 - told.dropped + told.duplicated
    numbers = [message for _, message in b.heard]
    assert numbers != sorted(numbers)
    simulation.calm()
    b.heard.clear()
    for number in range(1_000):
        simulation.send("a", "b", number)
    simulation.run(1.0)
    assert [message for _, message in b.heard] == list(range(1_000))


def test_a_partition_cuts_one_way_or_both_and_heals() -> None:
    simulation = Simulation(1)
    a, b = echoes(simulation, "a", "b")
    simulation.partition({"a"}, {"b"}, both_ways=False)
    simulation.send("a", "b", "lost")
    simulation.send("b", "a", "heard")
    simulation.run(0.1)
    assert a.heard == [("b", "heard")] and b.heard == [] and simulation.statistics().cut == 1
    simulation.heal()
    simulation.send("a", "b", "heard")
    simulation.run(0.1)
    assert b.heard == [("a", "heard")]


def test_what_is_under_way_to_a_former_life_is_lost() -> None:
    simulation = Simulation(1)
    echoes(simulation, "a", "b")
    simulation.send("a", "b", "to the first life")
    [again] = echoes(simulation, "b")
    simulation.run(0.1)
    assert again.heard == [] and simulation.statistics().cut == 1
    assert simulation["b"] is again
    simulation.remove("b")
    simulation.send("a", "b", "to nobody")
    simulation.run(0.1)
    assert "b" not in simulation and simulation.names() == ["a"] and simulation.statistics().cut == 2


def test_the_same_seed_is_the_same_run() -> None:
    def story(seed: int) -> list[float]:
        simulation = Simulation(seed, Weather(drop=0.3, reorder=0.3))
        _, b = echoes(simulation, "a", "b")
        for _ in range(50):
            simulation.send("a", "b", "x")
        simulation.run(1.0)
        return b.times

    assert story(4) == story(4) != story(5)


def test_effects_of_ones_own_need_perform() -> None:
    class Odd(Echo):
        def tick(self, now: float) -> Iterable[object]:
            return ["whatever"]

    simulation = Simulation(1)
    simulation.add("odd", Odd())
    with pytest.raises(TypeError, match="pass perform="):
        simulation.run(1.0)
    seen: list[object] = []
    simulation = Simulation(1, perform=lambda simulation, name, effect: seen.append((name, effect)))
    simulation.add("odd", Odd())
    simulation.run(0.1)
    assert set(seen) == {("odd", "whatever")}


def test_run_until_says_how_long_it_took_or_that_it_was_not_so() -> None:
    simulation = Simulation(1)
    [a] = echoes(simulation, "a")
    assert simulation.run_until(lambda: len(a.ticks) >= 10, limit_s=1.0) == pytest.approx(0.1, abs=0.011)
    with pytest.raises(AssertionError, match=r"not so within 0\.5 s"):
        simulation.run_until(lambda: False, limit_s=0.5)


def test_public_names_load_when_they_are_used() -> None:
    assert all(getattr(testing, name) is not None for name in testing.__all__)
    assert set(testing.__all__) <= set(dir(testing)) and set(testing.__all__) == set(testing._HOMES)
    with pytest.raises(AttributeError, match="has no attribute 'Simulatoin'"):
        testing.Simulatoin  # noqa: B018
    assert "1 machines at 0.000 s" in repr(_with_one())


def _with_one() -> Simulation:
    simulation = Simulation(1)
    echoes(simulation, "a")
    return simulation
