"""The arithmetic of leases: who is next, what fits, whose lease to call back. Decides nothing by itself."""

from __future__ import annotations

from bisect import bisect_left, insort_left
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from heapq import merge

from zmreg.core.effects import AtCap, LeaseEffect
from zmreg.core.racks import Racks, gpu_wish
from zmreg.core.seats import Claim, Seat, Seats, add
from zmreg.model.specs import Shape


class Queue:
    """The waiting claims, next served first.

    By priority first. Among equals those with nothing (of use: what is blocked does not count) come before those with
    something, so that nobody starves: first who never yielded, deeper ones ahead; then who yielded, longest ago first.
    Among those with something: deeper, then holding less.
    """

    __slots__ = ("_actors", "_some", "_starving")

    def __init__(self) -> None:
        # Kept sorted: a thousand actors may wait here. Those with something are few, one per busy owner and shape.
        self._starving: list[Claim] = []
        self._some: dict[Claim, None] = {}
        self._actors = 0

    @property
    def has_leases(self) -> bool:
        """Whether anybody but actors waits."""
        return len(self) > self._actors

    def update(self, claim: Claim) -> None:
        """To be said after every change of a claim."""
        if claim.queue_key is not None:
            at = bisect_left(self._starving, claim.queue_key, key=_key_of)
            del self._starving[at]
            claim.queue_key = None
            self._actors -= claim.owner is None
        self._some.pop(claim, None)
        if not claim.waiting:
            return
        if claim.starving:
            claim.queue_key = (-claim.priority, claim.yielded, -claim.depth, claim.arrived)
            insort_left(self._starving, claim, key=_key_of)
            self._actors += claim.owner is None
        else:
            self._some[claim] = None

    def __iter__(self) -> Iterator[Claim]:
        if not self._some:
            yield from self._starving
        else:
            held = Counter(claim.owner for claim in self._some for _ in claim.seats)
            some = sorted(
                self._some,
                key=lambda claim: (
                    -claim.priority,
                    -claim.depth,
                    len(claim.seats),
                    held[claim.owner],
                    claim.yielded,
                    claim.arrived,
                ),
            )
            yield from merge(self._starving, some, key=lambda claim: -claim.priority)

    def __len__(self) -> int:
        return len(self._starving) + len(self._some)

    def __repr__(self) -> str:
        return f"<Queue {len(self._starving)} with nothing, {len(self._some)} with something>"


def _key_of(claim: Claim) -> tuple[int, int, int, int]:
    return claim.queue_key or (0, 0, 0, 0)


class Outlook:
    """A scratch copy of what is left, to try decisions on before they are booked."""

    __slots__ = ("_admitted", "_kept_back", "_left", "_racks", "_seats")

    def __init__(self, seats: Seats, left: Mapping[str, int] | None = None, racks: Racks | None = None) -> None:
        self._left = dict(seats.available if left is None else left)
        self._racks = (seats.racks if racks is None else racks).copy()
        self._seats = seats
        self._kept_back: dict[str, int] | None = None
        # Verdicts by id of the shape (the book interns them): of a thousand alike that wait, one is looked at.
        self._admitted: dict[int, bool] = {}

    def copy(self) -> Outlook:
        return Outlook(self._seats, self._left, self._racks)

    def admits(self, claim: Claim) -> bool:
        place = claim.place
        verdict = self._admitted.get(id(place))
        if verdict is None:
            kept = self._kept_back or {}
            verdict = all(self._left.get(name, 0) - kept.get(name, 0) >= amount for name, amount in place.resources)
            verdict = verdict and (not self._racks or self._racks.fits(place))
            self._admitted[id(place)] = verdict
        return verdict

    def lacking(self, claim: Claim) -> set[str]:
        """What there is too little of; GPU also when enough is free, but in shares that lie on several devices."""
        lacking = {name for name, amount in claim.place.resources if self._left.get(name, 0) < amount}
        if self._racks and not self._racks.fits(claim.place):
            lacking.add(gpu_wish(claim.place)[0])
        return lacking

    def take(self, claim: Claim) -> None:
        if claim.hold.resources:
            add(self._left, claim.hold.resources, -1)
            if self._racks:
                self._racks.take(claim.hold)
            self._admitted.clear()

    def give(self, seat: Seat) -> None:
        add(self._left, seat.charge())
        self._racks.give_back(seat.lot, seat.devices, seat.gpu_units)
        self._admitted.clear()

    def keep_back(self, claim: Claim, workers_possible: bool) -> None:
        """Keep what is free for the first claim that has nothing, or small claims would for ever slip in ahead of it.

        Only when leases that will come back by themselves are enough: keeping resources for a claim that waits on a
        blocked task or an actor could stop the very task they wait for.
        """
        if self._kept_back is None and claim.starving and self._attainable(claim, workers_possible):
            self._kept_back = dict(claim.place.resources)
            self._admitted.clear()

    def _attainable(self, claim: Claim, workers_possible: bool) -> bool:
        most, racks = dict(self._left), self._racks.copy()
        for seat in self._seats.by_worker.values():
            if seat.yields:
                workers_possible = True
                add(most, seat.charge())
                racks.give_back(seat.lot, seat.devices, seat.gpu_units)
        attainable = claim.place.fits(most) and (not racks or racks.fits(claim.place))
        return workers_possible and attainable


class Supply:
    """The worker processes that those who wait can count on in one round of decisions, each once.

    An owner takes any idle one of its environment, else a new one. An actor takes only one that was never leased, so
    mostly a new one; at the cap it waits for one that is leaving, or an idle one that was leased leaves for it, coldest
    first. Not one that still owns unfinished tasks: it would stay until they are done, and be of no use to anybody.
    Where there are several environments, an owner at the cap does as an actor does. Who asks for a process by its name
    takes that one, or, where it is not there, a new one, as the first of all who do.
    """

    __slots__ = ("_leases", "_may_end", "_opening", "_reserve", "_seats", "_used", "ending", "needed", "room")

    def __init__(self, seats: Seats, room: int, may_end: bool, leases: Iterable[tuple[bytes, Shape]]) -> None:
        self._seats = seats
        self._may_end = may_end
        self._leases = leases
        self._reserve: tuple[int, list[Seat]] | None = None
        self._opening: set[str] = set()
        """The named processes that are counted on as new ones."""
        self.room = room + len(seats.fresh)
        self._used: dict[str, int] = {}
        """By environment, how many idle ones that were leased are left."""
        self.needed = 0
        """How much of `room` is taken."""
        self.ending: list[Seat] = []
        """Those that have to leave."""

    def has(self, claim: Claim) -> bool:
        """Whether there is one more for `claim`, now or soon."""
        if claim.named:
            if claim.env in self._seats.houses:
                return claim.owner is None or self.used_for(claim) > 0
            if self.is_opening(claim):
                return claim.owner is None
        if self.needed < self.room:
            return True
        if claim.owner is not None and (self.used_for(claim) > 0 or not self._seats.mixed):
            return self.used_for(claim) > 0
        leaving, willing = self._at_cap()
        return leaving > 0 or self._next_willing(willing) is not None

    def is_opening(self, claim: Claim) -> bool:
        """Whether the named process that it asks for is on its way for somebody else: nothing has to be done for it."""
        return claim.env in self._opening

    def used_for(self, claim: Claim) -> int:
        """How many idle ones that were leased before are left for an owner's claim."""
        env = claim.env
        if env not in self._used:
            self._used[env] = self._seats.used_in(env)
        return self._used[env]

    def _next_willing(self, willing: list[Seat]) -> Seat | None:
        """The coldest one that nobody else counts on in this round. Drops those that somebody does."""
        while willing:
            if self._used.setdefault(willing[-1].env, self._seats.used_in(willing[-1].env)) > 0:
                return willing[-1]
            willing.pop()
        return None

    def take(self, claim: Claim) -> None:
        """Count on it, for `claim` alone. Only after `has`."""
        if claim.named and (claim.env in self._seats.houses or claim.env in self._opening):
            if claim.owner is not None:
                self._used[claim.env] -= 1
            return
        if claim.named:
            self._opening.add(claim.env)
        if claim.owner is not None and self.used_for(claim) > 0:
            self._used[claim.env] -= 1
        elif self.needed < self.room:
            self.needed += 1
        else:
            leaving, willing = self._at_cap()
            if leaving > 0:
                self._reserve = leaving - 1, willing
            elif (seat := self._next_willing(willing)) is not None:
                willing.pop()
                self._used[seat.env] -= 1
                self.ending.append(seat)

    def comes_back(self, seat: Seat) -> None:
        """A lease of this worker ends soon."""
        if seat.is_house:
            self._used[seat.env] = self._used.get(seat.env, 0) + 1
        else:
            self.room += 1

    def plan(self, queue: Queue, outlook: Outlook) -> list[LeaseEffect]:
        """Take one for each seat that could be put to use at once; AtCap, once, for owners whom the cap leaves without.

        Books no worker: it is for the caller to start those `needed` and to stop those `ending`.
        """
        told: list[LeaseEffect] = []
        for claim in queue:
            for _ in range(claim.missing):
                if not outlook.admits(claim):
                    used = len(self._seats.used) if self._seats.mixed else self.used_for(claim)
                    outlook.keep_back(claim, workers_possible=self.room + used > 0)
                    break
                if not self.has(claim):
                    if claim.owner is not None and not claim.at_cap_told and self._may_help(claim):
                        claim.at_cap_told = True
                        told.append(AtCap(claim.owner, claim.place))
                    break
                outlook.take(claim)
                self.take(claim)
        return told

    def _may_help(self, claim: Claim) -> bool:
        """Whether its owner may run it by its own hands: of a named process that is this process alone."""
        house = self._seats.houses.get(claim.env)
        return not claim.named or (house is not None and house.worker == claim.owner)

    def _at_cap(self) -> tuple[int, list[Seat]]:
        """How many are leaving already, and the idle ones that could, warmest first."""
        if self._reserve is None:  # looked up late: it is rare, and there may be thousands of workers
            busy = {owner for owner, _ in self._leases}
            processes = [seat for seat in self._seats.by_worker.values() if seat.house is None]
            leaving = sum(seat.stopping and seat.worker not in busy for seat in processes)
            willing = [
                seat for seat in reversed(self._seats.used.values()) if seat.worker not in busy and not seat.lodgers
            ]
            willing.sort(key=lambda seat: not seat.is_house)  # those last: what they keep is of use to somebody
            self._reserve = (leaving, willing) if self._may_end else (0, [])
        return self._reserve


def without_hope(queue: Queue, seats: Seats) -> list[Claim]:
    """Those who wait in vain while no worker can be started.

    Workers that may come free are worth waiting for, but not for an actor that lacks nothing but a fresh one.
    """
    if not seats.pool():
        return list(queue)
    outlook = Outlook(seats)
    return [claim for claim in queue if claim.owner is None and not seats.fresh and outlook.admits(claim)]


class Lenders:
    """The leases that could be called back in one round of decisions, each once."""

    __slots__ = ("_all", "_hopeless", "_seats")

    def __init__(self, seats: Seats) -> None:
        self._all = seats.houses.values()
        self._seats = [seat for seat in seats.by_worker.values() if seat.yields and not seat.recalled]
        self._hopeless: set[int] = set()

    def __bool__(self) -> bool:
        return bool(self._seats)

    def call_back(self, claim: Claim, outlook: Outlook, spare_workers: int) -> list[Seat]:
        """Mark as recalled what `claim` needs for one seat more, and count on it in `outlook`; [] = no fair way."""
        # Nothing comes free within a round, so who has nothing and asks for the same gets the same answer.
        if claim.starving and id(claim.place) in self._hopeless:
            return []
        picked = self._pick(claim, outlook.copy(), spare_workers)
        if not picked and claim.starving:
            self._hopeless.add(id(claim.place))
        for seat in picked:
            seat.recalled = True
            self._seats.remove(seat)
            outlook.give(seat)
        return picked

    def _pick(self, claim: Claim, trial: Outlook, spare_workers: int) -> list[Seat]:
        candidates = [seat for seat in self._seats if seat.claim is not claim]
        holding = Counter(id(seat.claim) for seat in candidates)
        picked: list[Seat] = []
        if claim.named and spare_workers < 1:  # where there is such a process, no other will do
            homes = [seat for seat in self._all if seat.is_house and seat.env == claim.env]
            if homes and (homes[0] not in candidates or not _may_lose(homes[0], claim, holding)):
                return []
            for seat in homes:
                candidates.remove(seat)
                holding[id(seat.claim)] -= 1
                picked.append(seat)
                trial.give(seat)
        while (lacking := trial.lacking(claim)) or spare_workers + len(picked) < 1:
            useful = [seat for seat in candidates if _helps(seat, lacking) and _may_lose(seat, claim, holding)]
            if not useful:
                return []
            best = max(useful, key=lambda seat: holding[id(seat.claim)])
            candidates.remove(best)
            holding[id(best.claim)] -= 1
            picked.append(best)
            trial.give(best)
        return picked


def _helps(seat: Seat, lacking: set[str]) -> bool:
    return any(name in lacking for name, _ in seat.charge()) if lacking else not seat.is_house


def _may_lose(seat: Seat, waiter: Claim, holding: Mapping[int, int]) -> bool:
    """Who has a higher priority may take anything, who has a lower one only what is surplus. Among equals fairness:
    someone with nothing may ask anyone; else only take what is surplus, or what evens out.

    A difference of one is left alone, and so is a deeper claim that wants more: the lease would only come back.
    """
    victim = seat.claim
    if victim is None:
        return False
    held = holding[id(victim)]
    surplus = len(victim.seats) > victim.count
    if waiter.priority != victim.priority:
        return held >= 1 and (surplus or waiter.priority > victim.priority)
    if waiter.starving:
        return held >= 1
    return held >= 2 and (surplus or (held >= len(waiter.seats) + 2 and victim.depth <= waiter.depth))
