"""Who wants what of a node: the standing wishes under `LeaseBook`, and which of them other nodes could serve."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from zmreg.core import houses, labels
from zmreg.core.devices import Devices
from zmreg.core.effects import Hosted, LeaseEffect, StopWorker
from zmreg.core.lease_plan import Queue
from zmreg.core.racks import Racks
from zmreg.core.seats import Claim, Seat, Seats
from zmreg.model.ids import PROCESS_ID_BYTES, owner_of
from zmreg.model.specs import CPU, ENV, GPU, NEAR, ON, PRIORITY, PROCESS, TRY, UNIT, Shape

# Distinct shapes remembered to recognise one seen before; a node sees a handful.
_SHAPES_KEPT: Final = 1_000
# What takes nothing of a node would get a process for each task, and 2,000 short ones would start hundreds. So an owner
# begins with this many leases of such a shape for each CPU, and gets twice as many whenever it says again what it has
# said, which it does when those it has do not get on (services/calling/pools.py): who only sleeps is not kept waiting
# for long, and those who wait for each other in ways that nobody knows of end. Blocked ones do not count.
_FREE_LEASES_A_CPU: Final = 2
# Workers that may be starting at a time, for each CPU: more would not be there sooner, and who has wanted them may be
# dead before they are.
_STARTS_A_CPU: Final = 4

Totals = tuple[Mapping[str, int], frozenset[str], Mapping[str, str]]
"""What a node has in all, in 1/10000 units, its locs, and its labels."""


class Claims:
    """The claims of one node's lease book, by owner and shape, and by actor."""

    def __init__(self, total: Mapping[str, int], locs: frozenset[str]) -> None:
        self._total = dict(total)
        self._locs = locs
        self._seats = Seats(total)
        self._most_starting = max(1, total.get(CPU, 0) // UNIT) * _STARTS_A_CPU
        self._leases: dict[tuple[bytes, Shape], Claim] = {}
        self._actors: dict[bytes, Claim] = {}
        self._queue = Queue()
        self._shapes: dict[Shape, Shape] = {}
        self._now = 0.0
        self.prefix = b""
        """How ids of this node's own owners begin."""
        self.tight = False
        """Memory is short (services/node/guard.py)."""
        self.labels: Mapping[str, str] = {}
        """Of this node."""
        self.others: list[Totals] = []
        """What other nodes have in total, and their locs: who can be served there is not refused here."""

    def name_devices(self, ids: Iterable[str]) -> None:
        """What this node's GPUs are called, before anything is granted; 0, 1, 2, ... otherwise. ValueError: too few."""
        self._seats.racks = Racks(Devices.of(self._total.get(GPU, 0), ids))

    # -- questions -----------------------------------------------------------------------------------------------

    def holder(self, worker: bytes) -> bytes:
        """Who has the worker's lease, or owns its actor; empty when nobody has."""
        seat = self._seats.by_worker.get(worker)
        claim = None if seat is None else seat.claim
        if claim is None:
            return b""
        return claim.owner or (owner_of(claim.actor_id) if claim.actor_id is not None else b"")

    def job_of(self, worker: bytes) -> bytes:
        """The program in whose environment the worker is for good; empty when it is in none that names one."""
        seat = self._seats.by_worker.get(worker)
        try:
            job = bytes.fromhex(seat.env[: 2 * PROCESS_ID_BYTES]) if seat is not None else b""
        except ValueError:
            return b""
        return job if len(job) == PROCESS_ID_BYTES else b""

    def hosts(self) -> dict[bytes, bytes]:
        """{actor: its worker, or b"" while it waits for one}."""
        there = {
            actor_id: next((each.worker for each in claim.seats.values() if not each.coming), b"")
            for actor_id, claim in self._actors.items()
        }
        return there

    def idle_for(self, worker: bytes) -> float:
        """Seconds, by the ticks, that the worker has had nothing to do; 0.0 when it has, or is unknown."""
        seat = self._seats.by_worker.get(worker)
        return 0.0 if seat is None or seat.idle_since is None else self._now - seat.idle_since

    def assigned(self, worker: bytes) -> dict[str, float]:
        """What the worker's lease or actor holds of each resource, as users type amounts; empty for an idle one."""
        seat = self._seats.by_worker.get(worker)
        return {} if seat is None or seat.claim is None else seat.claim.hold.to_floats()

    def use_of(self, worker: bytes) -> str:
        """What a worker is to the book: "idle", "leased", "actor", "blocked" or "stopping"; empty if it is unknown."""
        seat = self._seats.by_worker.get(worker)
        if seat is None:
            return ""
        if seat.stopping or seat.blocked:
            return "stopping" if seat.stopping else "blocked"
        if seat.claim is None:
            return "actor" if seat.lodgers else "idle"
        return "leased" if seat.leased else "actor"

    def unserved(self) -> list[tuple[bytes, Shape, int]]:
        """Who waits here for leases, of what, and how many are missing: others may have room for them."""
        found = [(claim.owner, claim.place, claim.count - len(claim.seats)) for claim in self._leases.values()]
        free = [each for each in found if not each[1].strategy.startswith((ON, TRY, NEAR))]
        return [(owner, place, missing) for owner, place, missing in free if owner is not None and missing > 0]

    def dismiss(self, worker: bytes) -> list[LeaseEffect]:
        """End a worker that nobody uses; nothing when somebody does. Another is started when one is needed."""
        seat = self._seats.by_worker.get(worker)
        if seat is None or seat.claim is not None or seat.stopping or seat.lodgers:
            return []
        self._seats.stop(seat)
        return [StopWorker(worker)]

    def idle_after_work(self) -> dict[bytes, float]:
        """Workers that have been leased and are nobody's now: since when, by the ticks."""
        return {each: seat.idle_since for each, seat in self._seats.used.items() if seat.idle_since is not None}

    def jobs_ended(self, prefix: bytes) -> list[LeaseEffect]:
        """No program whose id begins so lives any more: nobody else gets the idle workers that have served it. Whoever
        waits is served with the next input."""
        effects: list[LeaseEffect] = []
        for seat in [each for each in self._seats.houses.values() if each.env.startswith(prefix.hex())]:
            seat.deserted = True
            effects += self._leave_house(seat)
        for seat in self._seats.of_jobs(prefix.hex()):
            if not seat.is_house:
                self._seats.stop(seat)
                effects.append(StopWorker(seat.worker))
        return effects

    def _has_come(self, lodger: Seat) -> list[LeaseEffect]:
        lodger.coming = False
        claim = lodger.claim
        return [Hosted(claim.actor_id, lodger.worker, lodger.news())] if claim is not None and claim.actor_id else []

    def _leave_house(self, house: Seat | None) -> list[LeaseEffect]:
        """Somebody has left it, or its program has: it ends when it was the last one."""
        if house is None or not houses.is_deserted(house):
            return []
        self._seats.stop(house)
        return [StopWorker(house.worker)]

    def _held_up(self) -> bool:
        """Memory is short, and something runs that will end or be ended: who waits gets nothing before that."""
        return self.tight and any(seat.yields for seat in self._seats.by_worker.values())

    def free_devices(self) -> tuple[int, ...]:
        """What is free of each GPU here: others place shares by it, since no share lies across two."""
        return self._seats.racks.own.shares

    def owners(self) -> set[bytes]:
        """Everybody with a claim for leases."""
        return {owner for owner, _ in self._leases}

    def fits_node(self, shape: Shape) -> bool:
        """Whether this node could ever serve the shape."""
        return _serves((self._total, self._locs, self.labels), shape)

    def _may_go_elsewhere(self, owner: bytes, place: Shape) -> bool:
        """Owners of other nodes have been sent here, and some insist on this node: for the rest the others count."""
        bound = place.strategy.startswith((ON, TRY, NEAR)) or not owner.startswith(self.prefix)
        return not bound and any(_serves(other, place) for other in self.others)

    # -- booking -------------------------------------------------------------------------------------------------

    def _claims(self) -> list[Claim]:
        return [*self._leases.values(), *self._actors.values()]

    def _claim(self, owner: bytes | None, actor_id: bytes | None, place: Shape, hold: Shape) -> Claim:
        if len(self._shapes) > _SHAPES_KEPT:
            self._shapes.clear()
        place = self._shapes.setdefault(place, place)  # Outlook compares by identity: equal but two is only slower
        claim = Claim(owner, actor_id, place, hold, 0, 0, self.fits_node(place), self._seats.next_serial())
        if place.terms:
            claim.env, claim.priority = place.term(ENV), int(place.term(PRIORITY) or 0)
            claim.named = bool(place.term(PROCESS))
            self._seats.mixed = self._seats.mixed or bool(claim.env)
        if actor_id is None and not place.resources:
            claim.most_running = max(1, self._total.get(CPU, 0) // UNIT) * _FREE_LEASES_A_CPU
        return claim

    def _wish(self, claim: Claim, count: int) -> None:
        """The level is this now. Whoever repeats it, with all the leases that it may have of what takes nothing, gets
        no further with them."""
        if claim.most_running is not None and len(claim.seats) < count <= claim.count and not claim.missing:
            claim.most_running = min(2 * claim.most_running, count)
        claim.count = count

    def _close(self, claim: Claim) -> list[LeaseEffect]:
        """Nobody wants it any more. Its workers are stopped: they are busy with what nobody wants, or stateful. A house
        is stateful for others: it stays, and what it is busy with is done first."""
        claim.count = 0
        effects: list[LeaseEffect] = []
        for seat in list(claim.seats.values()):
            if seat.is_house:
                effects += self._come_home(seat)
            else:
                self._seats.stop(seat)
                effects.append(StopWorker(seat.worker))
        self._forget_if_done(claim)
        self._queue.update(claim)
        return effects

    def _come_home(self, seat: Seat) -> list[LeaseEffect]:
        """A worker is nobody's from now on, and can be given again."""
        self._seats.vacate(seat)
        self._seats.rest(seat)
        return self._leave_house(seat)

    def _drop(self, claim: Claim) -> None:
        """The claim was refused; what it holds, if anything, stays until returned."""
        claim.count = 0
        if claim.actor_id is not None:
            del self._actors[claim.actor_id]
        self._forget_if_done(claim)
        self._queue.update(claim)

    def _forget_if_done(self, claim: Claim) -> None:
        if claim.owner is not None and claim.count == 0 and not claim.seats:
            self._leases.pop((claim.owner, claim.place), None)


def _serves(node: Totals, shape: Shape) -> bool:
    total, locs, named = node
    return shape.fits(total) and locs.issuperset(shape.locs) and labels.fit(named, shape)
