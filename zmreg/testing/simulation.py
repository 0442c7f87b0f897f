"""Many pure machines, a virtual clock and a network that loses, doubles, delays and reorders: no socket, no thread.

A machine is any object with two methods, both of which return what it wants done:

    on_message(sender, message, now) -> effects
    tick(now) -> effects

`Simulation` understands the effects `Send` and `Broadcast`; for a machine with effects of its own, pass `perform`. All
chance comes from the seed: the same seed is the same run, message by message. An hour takes as long as its events do.

    simulation = Simulation(seed=7, weather=Weather(drop=0.1, duplicate=0.05))
    simulation.add("a", Counter())
    simulation.add("b", Counter())
    simulation.run(10.0)              # seconds of the virtual clock
    simulation.partition({"a"}, {"b"})
    simulation.run(5.0)
    simulation.heal()
    simulation.calm()                 # from now on nothing is lost
    simulation.run(1.0)
    assert simulation["a"].total == simulation["b"].total

A machine may have a third method, `due() -> float`, the time at which it wants to be ticked next (-inf: at once); it is
asked after every event, and not ticked before. Others are ticked every `tick_s`.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Hashable, Iterable
from itertools import count
from random import Random
from typing import Final, Protocol

from zmreg.model.record import Record

Name = Hashable

# A delayed message arrives up to this many times later than others, so later ones overtake it.
_OVERTAKEN: Final = 10
# Ticks of a machine that says "at once" all the time would stop the clock.
_LEAST_TICK_S: Final = 0.001


class Send(Record):
    """Say it to one machine; to an unknown name it is lost."""

    to: Name
    message: object


class Broadcast(Record):
    """Say it to all other machines, or those of the sender's audience (`Simulation.listen`)."""

    message: object


class Machine(Protocol):
    """What can be simulated."""

    def on_message(self, sender: Name, message: object, now: float) -> Iterable[object]:
        """Somebody said something."""

    def tick(self, now: float) -> Iterable[object]:
        """Time has passed."""


class SimulationStatistics(Record):
    """Messages since the start. `nbytes` counts those sent, and is 0 without `size_of`."""

    sent: int
    delivered: int
    dropped: int
    duplicated: int
    overtaken: int
    cut: int
    """Lost at a partition, or said to or by a machine that is gone."""
    nbytes: int
    ticks: int


class Weather(Record):
    """How the network is. `drop`, `duplicate` and `reorder` are chances from 0 to 1; delays are in seconds."""

    drop: float = 0.0
    duplicate: float = 0.0
    reorder: float = 0.0
    least_s: float = 0.001
    most_s: float = 0.005


Perform = Callable[["Simulation", Name, object], None]


class _Seat:
    """A machine and when it is ticked next. Another `life` makes events of the former one void."""

    __slots__ = ("due", "life", "machine", "next_tick")

    def __init__(self, machine: Machine, life: int) -> None:
        self.machine = machine
        self.life = life
        due: Callable[[], float] | None = getattr(machine, "due", None)
        self.due = due
        self.next_tick = float("inf")


class Simulation:
    """Machines by name. `now` is the virtual time in seconds, from 0."""

    def __init__(
        self,
        seed: int,
        weather: Weather | None = None,
        *,
        tick_s: float = 0.01,
        perform: Perform | None = None,
        size_of: Callable[[object], int] | None = None,
    ) -> None:
        """`perform(simulation, name, effect)` does what machine `name` wants done, by `send`, `broadcast` or anything
        else; `size_of` gives a message's bytes, for the statistics."""
        self.now = 0.0
        self.random = Random(seed)
        """For the test's own chances, so that they follow from the seed as well."""
        self.weather = Weather() if weather is None else weather
        self._tick_s = tick_s
        self._perform = perform or _perform
        self._size_of = size_of
        self._seats: dict[Name, _Seat] = {}
        self._audience: dict[Name, tuple[Name, ...]] = {}
        self._events: list[tuple[float, int, Name, int, Name | None, object]] = []
        self._number = count()
        self._lives = count(1)
        self._links: dict[tuple[Name, Name], float] = {}
        self._cuts: list[tuple[frozenset[Name], frozenset[Name]]] = []
        self._counts = dict.fromkeys(SimulationStatistics.__match_args__, 0)

    # -- machines

    def add(self, name: Name, machine: Machine) -> None:
        """Begin to tick it, at a random moment of its first interval. A machine of that name there already is replaced:
        a restart, for which what is under way to the former one is lost."""
        seat = self._seats[name] = _Seat(machine, next(self._lives))
        self._arm(name, seat, self.now + self.random.random() * self._tick_s)

    def remove(self, name: Name) -> None:
        """It is gone, with all that is under way to it. KeyError when there is none."""
        del self._seats[name]

    def listen(self, name: Name, audience: Iterable[Name]) -> None:
        """What `name` broadcasts reaches these alone. At first a broadcast reaches everybody."""
        self._audience[name] = tuple(each for each in audience if each != name)

    def __getitem__(self, name: Name) -> Machine:
        return self._seats[name].machine

    def __contains__(self, name: Name) -> bool:
        return name in self._seats

    def names(self) -> list[Name]:
        return list(self._seats)

    # -- the network

    def partition(self, some: Iterable[Name], others: Iterable[Name], both_ways: bool = True) -> None:
        """Nothing gets from `some` to `others` any more, nor back if `both_ways`; on top of earlier partitions."""
        here, there = frozenset(some), frozenset(others)
        self._cuts.append((here, there))
        if both_ways:
            self._cuts.append((there, here))

    def heal(self) -> None:
        """End all partitions."""
        self._cuts.clear()

    def calm(self) -> None:
        """Nothing is lost, doubled or overtaken from now on, and there is no partition; delays stay as they are."""
        self.heal()
        self.weather = self.weather.but(drop=0.0, duplicate=0.0, reorder=0.0)

    def send(self, sender: Name, to: Name, message: object) -> None:
        """Put a message on its way."""
        counts, weather, chance = self._counts, self.weather, self.random.random
        counts["sent"] += 1
        if self._size_of is not None:
            counts["nbytes"] += self._size_of(message)
        if self._is_cut(sender, to):
            counts["cut"] += 1
            return
        if weather.drop and chance() < weather.drop:
            counts["dropped"] += 1
            return
        self._put(sender, to, message)
        if weather.duplicate and chance() < weather.duplicate:
            counts["duplicated"] += 1
            self._put(sender, to, message)

    def broadcast(self, sender: Name, message: object) -> None:
        """Send it to the sender's audience."""
        audience = self._audience.get(sender)
        for to in list(self._seats) if audience is None else audience:
            if to != sender:
                self.send(sender, to, message)

    def _put(self, sender: Name, to: Name, message: object) -> None:
        seat = self._seats.get(to)
        if seat is None:
            self._counts["cut"] += 1
            return
        weather, chance = self.weather, self.random.random
        delay = weather.least_s + (weather.most_s - weather.least_s) * chance()
        if weather.reorder and chance() < weather.reorder:
            self._counts["overtaken"] += 1
            arrival = self.now + delay * (1 + _OVERTAKEN * chance())
        else:
            # In order, as on one connection.
            arrival = self._links[sender, to] = max(self.now + delay, self._links.get((sender, to), 0.0))
        heapq.heappush(self._events, (arrival, next(self._number), to, seat.life, sender, message))

    def _is_cut(self, sender: Name, to: Name) -> bool:
        return any(sender in here and to in there for here, there in self._cuts)

    # -- the clock

    def run(self, seconds: float) -> None:
        """Let this much time pass."""
        until = self.now + seconds
        while self._events and self._events[0][0] <= until:
            self.now, _, to, life, sender, message = heapq.heappop(self._events)
            seat = self._seats.get(to)
            if seat is None or seat.life != life:
                self._counts["cut"] += sender is not None
            elif sender is not None:
                self._counts["delivered"] += 1
                self.perform(to, seat.machine.on_message(sender, message, self.now))
            elif self.now >= seat.next_tick:
                self._counts["ticks"] += 1
                seat.next_tick = float("inf")
                self.perform(to, seat.machine.tick(self.now))
                if seat.due is None:
                    self._arm(to, seat, self.now + self._tick_s)
        self.now = until

    def run_until(self, is_so: Callable[[], bool], limit_s: float, step_s: float = 0.01) -> float:
        """Let time pass until `is_so()`, which is asked every `step_s`; returns the seconds it took. Raises
        AssertionError after `limit_s`."""
        begin = self.now
        while not is_so():
            if self.now - begin >= limit_s:
                raise AssertionError(f"not so within {limit_s} s of the virtual clock, which stands at {self.now:.3f}")
            self.run(step_s)
        return self.now - begin

    def perform(self, name: Name, effects: Iterable[object]) -> None:
        """Do what machine `name` wants done: for effects of calls the test makes itself."""
        for effect in effects:
            self._perform(self, name, effect)
        seat = self._seats.get(name)
        if seat is not None and seat.due is not None:
            due = max(seat.due(), self.now + _LEAST_TICK_S)
            if due < seat.next_tick:
                self._arm(name, seat, due)

    def _arm(self, name: Name, seat: _Seat, due: float) -> None:
        seat.next_tick = due
        if due < float("inf"):
            heapq.heappush(self._events, (due, next(self._number), name, seat.life, None, None))

    def statistics(self) -> SimulationStatistics:
        return SimulationStatistics(**self._counts)

    def __repr__(self) -> str:
        return f"<Simulation of {len(self._seats)} machines at {self.now:.3f} s, {len(self._events)} events to come>"


def _perform(simulation: Simulation, name: Name, effect: object) -> None:
    match effect:
        case Send(to, message):
            simulation.send(name, to, message)
        case Broadcast(message):
            simulation.broadcast(name, message)
        case _:
            raise TypeError(
                f"machine {name!r} wants {type(effect).__name__} done, which Simulation does not know: return Send or "
                f"Broadcast, or pass perform=, a function of (simulation, name, effect)"
            )
