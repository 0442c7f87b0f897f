"""Leases on one node: who may send tasks of which shape to which worker, and which worker hosts which actor.

Owners state a level ("I would like to hold 8 of these in total"), so a repeated or reordered statement does no harm.
Every input ends in `_settle`, which grants what fits, starts the workers that are missing and calls leases back from
those who have most when somebody who has less cannot be served.

Invariants:
- available = total - what the seats take; below zero only after `unblocked` took a CPU back.
- workers + starting <= max_workers, stopping ones included, lodgers (core/houses.py) aside.
- a lease is called back at most once; a stopped worker is never given again.
- an actor gets a worker that was never leased: whoever kills it ends nothing else, no value that tasks have put either.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from zmreg.core import houses
from zmreg.core.backoff import Backoff
from zmreg.core.effects import (
    CannotStart,
    Granted,
    Hosted,
    Infeasible,
    LeaseEffect,
    Recall,
    StartLodger,
    StartWorker,
    StopWorker,
)
from zmreg.core.graves import Graves
from zmreg.core.holdings import Holdings
from zmreg.core.lease_plan import Lenders, Supply, without_hope
from zmreg.core.seats import Claim
from zmreg.model.specs import CPU, GPU, GROUP, Shape, to_amount

# After a failed start: 0.1 s, doubled up to 5 s. A pids limit or full memory does not end within milliseconds.
_BACKOFF_S: Final = 0.1
_MAX_BACKOFF_S: Final = 5.0
# Failures in a row after which those who wait are told, when no worker is left that could come free.
_GIVE_UP_STARTS: Final = 3


@dataclass(frozen=True, slots=True)
class LeaseStatistics:
    """Counts of this moment. `available` is in 1/10000 units, sorted by name."""

    workers: int
    idle: int
    starting: int
    leased: int
    blocked: int
    actors: int
    stopping: int
    waiting: int
    available: tuple[tuple[str, int], ...]


class LeaseBook(Holdings):
    """The node's side of leasing. `total` is in 1/10000 units; times are in seconds of whatever clock `tick` gets."""

    def __init__(
        self,
        total: Mapping[str, int],
        locs: frozenset[str],
        max_workers: int,
        keep_idle: int = 0,
        idle_s: float = 30.0,
        infeasible_grace_s: float = 2.0,
    ) -> None:
        if max_workers < 1:
            raise ValueError(f"max_workers={max_workers}: a node needs at least one worker to run anything")
        super().__init__(total, locs)
        self._max_workers = max_workers
        self._keep_idle = min(keep_idle, max_workers)
        self._idle_s = idle_s
        self._grace_s = infeasible_grace_s
        self._starting = 0
        self._starts = Backoff(_BACKOFF_S, _MAX_BACKOFF_S)
        self._gone = Graves()
        self.draining = False
        """The node leaves (see `drain`)."""

    def want(self, owner: bytes, shape: Shape, count: int, depth: int = 0) -> list[LeaseEffect]:
        """`owner` would like `count` leases of `shape` in total; 0 = none waiting, those held stay until returned."""
        if count < 0:
            raise ValueError(f"want(count={count}): a number of leases is 0 or more")
        if owner in self._gone:
            return []
        claim = self._leases.get((owner, shape))
        if claim is None and count == 0:
            return []
        if claim is None:
            claim = self._leases[owner, shape] = self._claim(owner, None, shape, shape)
        self._wish(claim, count)
        claim.depth = depth
        claim.at_cap_told = False
        if self._of_removed(claim):
            self._drop(claim)
            return [self._refusal(claim)]
        self._forget_if_done(claim)
        return self._settle(claim)

    def host(self, actor_id: bytes, place: Shape, hold: Shape, depth: int = 0) -> list[LeaseEffect]:
        """Dedicate a worker to the actor once `place` fits; it then takes `hold` until `unhost` or its death."""
        if actor_id not in self._actors:
            claim = self._actors[actor_id] = self._claim(None, actor_id, place, hold)
            claim.count = 1
            claim.depth = depth
        return self._settle(self._actors[actor_id])

    def unhost(self, actor_id: bytes) -> list[LeaseEffect]:
        """The actor needs no place any more. Its worker, if still there, is stopped: nobody else can use its state."""
        claim = self._actors.pop(actor_id, None)
        if claim is None:
            return []
        return self._close(claim) + self._settle()

    def returned(self, owner: bytes, worker: bytes) -> list[LeaseEffect]:
        """`owner` has nothing unfinished on `worker` and gives the lease back. A lease it does not hold is ignored."""
        seat = self._seats.by_worker.get(worker)
        if seat is None or seat.claim is None or seat.claim.owner != owner:
            return []
        claim = seat.claim
        left = self._come_home(seat)
        self._forget_if_done(claim)
        return left + self._settle(claim)

    def prestart(self, count: int) -> list[LeaseEffect]:
        """Start `count` workers, as far as the cap allows, before anybody asks: the first call finds one."""
        count = max(0, min(count, self._room() - self._starting))
        self._starting += count
        return [StartWorker()] * count

    def worker_started(self, worker: bytes) -> list[LeaseEffect]:
        known = self._seats.by_worker.get(worker)
        if known is not None and not known.coming:
            return []
        self._starts.succeeded()
        if known is not None:
            return self._has_come(known)
        self._starting = max(0, self._starting - 1)
        self._seats.admit(worker)
        return self._settle()

    def worker_start_failed(self, reason: str) -> list[LeaseEffect]:
        """One start came to nothing. Tries again after a growing pause; tells those who wait when that is hopeless."""
        self._starting = max(0, self._starting - 1)
        self._starts.failed(self._now)
        if self._starts.failures < _GIVE_UP_STARTS or self._starting:
            return self._settle()
        text = f"no worker process could be started, {self._starts.failures} attempts failed; the last: {reason}"
        refused: list[LeaseEffect] = []
        for claim in without_hope(self._queue, self._seats):
            refused.append(CannotStart(claim.owner, claim.actor_id, claim.place, text))
            self._drop(claim)
        return refused + self._settle()

    def lodger_failed(self, worker: bytes, reason: str) -> list[LeaseEffect]:
        """It never came. As `worker_start_failed`: its actor still waits."""
        seat = self._seats.by_worker.get(worker)
        if seat is None:
            return []
        claim, house = seat.claim, seat.house
        self._seats.remove(seat)
        left = self._leave_house(house)
        if claim is None:  # nobody waits for it any more
            return left + self._settle()
        self._queue.update(claim)
        self._starting += 1  # it was none of them, and is taken off below
        return left + self.worker_start_failed(reason)

    def worker_died(self, worker: bytes) -> list[LeaseEffect]:
        """The process is gone, for whatever reason. What was wanted of it is still wanted, except by an actor."""
        seat = self._seats.by_worker.get(worker)
        if seat is None:
            return []
        claim = seat.claim
        self._seats.remove(seat)
        left = self._leave_house(seat.house)
        if claim is None:
            return left + self._settle()
        if claim.actor_id is not None:
            self._actors.pop(claim.actor_id, None)
            claim.count = 0
        self._forget_if_done(claim)
        return left + self._settle(claim)

    def owner_died(self, owner: bytes) -> list[LeaseEffect]:
        """Every lease of the process is free at once. Its workers are stopped: they may be deep in its tasks."""
        self._gone.bury(owner)
        effects: list[LeaseEffect] = []
        for claim in [claim for claim in self._leases.values() if claim.owner == owner]:
            effects += self._close(claim)
        return effects + self.jobs_ended(owner) + self._settle()

    def drain(self) -> list[LeaseEffect]:
        """Give nothing any more: what is lent is called back, who is idle ends. Owners who wait go elsewhere."""
        self.draining = True
        return self._settle()

    def blocked(self, worker: bytes) -> list[LeaseEffect]:
        """The worker's task waits in get or wait: its CPU is free for others, its GPU and the rest stay taken."""
        return self._set_blocked(worker, True)

    def unblocked(self, worker: bytes) -> list[LeaseEffect]:
        """The task goes on at once, even if its CPU was given away meanwhile: oversubscribed for a while, not stuck."""
        return self._set_blocked(worker, False)

    def tick(self, now: float) -> list[LeaseEffect]:
        """Grace times, pauses after failed starts, and trimming of idle workers over the floor."""
        self._now = now
        self._widen(now)
        trimmed = self._seats.trim(now, self._idle_s, self._keep_idle)
        return [*self._give_up_infeasible(), *(StopWorker(worker) for worker in trimmed), *self._settle()]

    def statistics(self) -> LeaseStatistics:
        seats, idle = self._seats.by_worker.values(), self._seats.idle
        leased, blocked = sum(seat.leased for seat in seats), sum(seat.blocked for seat in seats)
        return LeaseStatistics(
            workers=len(seats), idle=idle, starting=self._starting, leased=leased, blocked=blocked,
            actors=sum(len(claim.seats) for claim in self._actors.values()),
            stopping=sum(seat.stopping for seat in seats),
            waiting=sum(claim.missing for claim in self._claims()),
            available=tuple(sorted(self._seats.available.items())),
        )  # fmt: skip

    def __repr__(self) -> str:
        now = self.statistics()
        return (
            f"<LeaseBook [{_amounts(self._seats.available, self._total)} free | {now.leased} leased, "
            f"{now.actors} actors, {now.idle} idle, {now.starting} starting, {now.blocked} blocked | "
            f"{now.waiting} waiting]>"
        )

    # -- deciding ------------------------------------------------------------------------------------------------

    def _settle(self, touched: Claim | None = None) -> list[LeaseEffect]:
        if touched is not None:
            self._queue.update(touched)
        if self.draining:
            return self._wind_up()
        return self._grant() + self._start_missing() + self._call_back()

    def _wind_up(self) -> list[LeaseEffect]:
        effects: list[LeaseEffect] = []
        for seat in self._seats.by_worker.values():
            if seat.claim is None and not seat.stopping and not seat.lodgers:
                self._seats.stop(seat)
                effects.append(StopWorker(seat.worker))
            elif seat.leased and not seat.recalled:
                seat.recalled = True
                effects.append(Recall(seat.owner, seat.worker))
        return effects

    def _grant(self) -> list[LeaseEffect]:
        effects: list[LeaseEffect] = []
        while (claim := self._next_served()) is not None:
            if claim.named:
                seat = houses.occupy(self._seats, claim, self.prefix)
            else:
                seat = self._seats.occupy(claim)
            self._queue.update(claim)
            if seat.coming and seat.house is not None:
                effects.append(StartLodger(seat.worker, seat.house.worker))
            elif claim.owner is not None:
                effects.append(Granted(claim.owner, claim.hold, seat.worker, seat.news()))
            elif claim.actor_id is not None:
                effects.append(Hosted(claim.actor_id, seat.worker, seat.news()))
        return effects

    def _next_served(self) -> Claim | None:
        seats = self._seats
        if not (seats.fresh or seats.houses or (seats.used and self._queue.has_leases)) or self._held_up():
            return None  # no worker is free, or only such as no actor gets
        outlook, supply = self._outlook(), self._supply()
        for claim in self._queue:
            if not outlook.admits(claim):
                outlook.keep_back(claim, workers_possible=True)
            elif claim.named and houses.is_ready(seats, claim):
                if claim.owner is not None or not self._starts.pauses(self._now):
                    return claim
            elif not claim.named and (seats.fresh or (claim.owner is not None and supply.used_for(claim))):
                return claim
            elif supply.has(claim):  # an actor's worker has to be started; a used one may have to make room for it
                supply.take(claim)
                outlook.keep_back(claim, workers_possible=bool(supply.needed or supply.ending))
        return None

    def _room(self) -> int:
        """How many workers may be under way at most, those starting included; only these during a pause."""
        room = self._max_workers - self._seats.processes()
        return min(room, self._starting) if self._starts.pauses(self._now) else room

    def _supply(self) -> Supply:
        return Supply(self._seats, self._room(), not self._starts.pauses(self._now), self._leases)

    def _start_missing(self) -> list[LeaseEffect]:
        """Workers that could be put to use at once; beyond the cap AtCap for owners, and room made for actors."""
        room, supply = self._room(), self._supply()
        # With a fresh worker idle, nobody who fits is waiting: _grant has served them all.
        told = [] if self._seats.fresh else supply.plan(self._queue, self._outlook())
        most = min(room, self._most_starting)
        missing = max(0, min(max(supply.needed, self._keep_idle - self._seats.pool()), most) - self._starting)
        self._starting += missing
        for seat in supply.ending:
            self._seats.stop(seat)
            told.append(StopWorker(seat.worker))
        return [*(StartWorker() for _ in range(missing)), *told]

    def _call_back(self) -> list[LeaseEffect]:
        """One seat more for each who waits: from what is free, from what is coming back, else called back now."""
        effects: list[LeaseEffect] = []
        lenders = Lenders(self._seats)
        if not lenders or not self._queue:
            return effects
        outlook, supply = self._outlook(), self._supply()
        for seat in self._seats.by_worker.values():
            if seat.recalled:
                outlook.give(seat)
                supply.comes_back(seat)
        for claim in self._queue:
            has_worker = supply.has(claim)
            if not has_worker and supply.is_opening(claim):
                continue
            if not (outlook.admits(claim) and has_worker):
                called = lenders.call_back(claim, outlook, int(has_worker))
                if not called:
                    continue
                for seat in called:
                    supply.comes_back(seat)
                effects += [Recall(seat.owner, seat.worker) for seat in called]
            outlook.take(claim)
            supply.take(claim)
        return effects

    def _give_up_infeasible(self) -> list[LeaseEffect]:
        effects: list[LeaseEffect] = []
        for claim in [claim for claim in self._claims() if not claim.feasible]:
            if claim.owner is not None and self._may_go_elsewhere(claim.owner, claim.place):
                claim.infeasible_since = None
                continue
            if claim.infeasible_since is None:
                claim.infeasible_since = self._now
            elif self._now - claim.infeasible_since >= self._grace_s and claim.place.term(GROUP):
                effects += self._ask_about(claim)
            elif self._now - claim.infeasible_since >= self._grace_s:
                has = Shape.of_units(self._total, self._locs)
                reason = f"asked for [{claim.place}], but this node has only [{has}] in total"
                effects.append(Infeasible(claim.owner, claim.actor_id, claim.place, reason))
                self._drop(claim)
        return effects

    def _set_blocked(self, worker: bytes, blocked: bool) -> list[LeaseEffect]:
        if not self._seats.set_blocked(worker, blocked):
            return []
        return self._settle(self._seats.by_worker[worker].claim)


def _amounts(available: Mapping[str, int], total: Mapping[str, int]) -> str:
    """`6/8 cpu, 1/1 gpu`"""
    named = [name for name in (CPU, GPU) if name in total]
    return ", ".join(f"{to_amount(available[name]):g}/{to_amount(total[name]):g} {name.lower()}" for name in named)
