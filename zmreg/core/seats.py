"""The workers of one node and what each is held for: the bookkeeping under `LeaseBook`. Decides nothing by itself."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, MutableMapping
from dataclasses import dataclass, field
from typing import Final

from zmreg.core.devices import Devices
from zmreg.core.racks import OWN, Lot, Racks, gpu_wish
from zmreg.model.specs import CPU, GPU, Shape

_GROUPS_CPU: Final = f"{CPU}_group_"
"""How the CPUs of placement groups begin (core/holdings.py)."""


@dataclass(slots=True, eq=False)
class Claim:
    """A standing wish: an owner's for leases of one shape, or an actor's (`count` 1) for a worker for life."""

    owner: bytes | None
    actor_id: bytes | None
    place: Shape
    """Must fit for a seat to be given."""
    hold: Shape
    """What a seat takes while it is held."""
    depth: int
    count: int
    """Seats wanted in total, held ones included; never an increment."""
    feasible: bool
    arrived: int
    seats: dict[bytes, Seat] = field(default_factory=dict)
    yielded: int = 0
    """When it last gave a seat back (a running number), 0 if never: who yielded waits behind who did not."""
    infeasible_since: float | None = None
    at_cap_told: bool = False
    queue_key: tuple[int, int, int, int] | None = None
    """Its place in the queue while it waits with nothing of use; the queue's own."""

    env: str = ""
    """The environment that its workers have to be in."""
    priority: int = 0
    most_running: int | None = None
    """How many of its seats may be in use at a time, blocked ones aside."""
    named: bool = False
    """Of the one process that its environment's key stands for: see core/houses.py."""

    @property
    def missing(self) -> int:
        """Seats that it would be given now if there were no end of workers and resources."""
        missing = (min(self.count, 1) if self.named else self.count) - len(self.seats)
        if self.most_running is not None:
            running = sum(not seat.blocked for seat in self.seats.values())
            missing = min(missing, self.most_running - running)
        return max(0, missing)

    @property
    def waiting(self) -> bool:
        return self.feasible and self.missing > 0

    @property
    def starving(self) -> bool:
        """Nothing it holds is of use to it: a blocked worker, which may be the owner itself, waits for others."""
        return all(seat.blocked for seat in self.seats.values())


@dataclass(slots=True, eq=False)
class Seat:
    """One worker process: idle (no claim), held by a claim, or stopping."""

    worker: bytes
    claim: Claim | None = None
    blocked: bool = False
    recalled: bool = False
    stopping: bool = False
    used: bool = False
    """It has been leased: values that its tasks have put may be its own, and would be lost by the kill of an actor."""
    env: str = ""
    """The environment that it has come into with its first lease, for good."""
    idle_since: float | None = None
    devices: tuple[str, ...] = ()
    """The GPUs that go with what it holds."""
    lot: Lot = OWN
    """Where these are from."""
    told: bool = False
    """It was given GPUs once, and has to hear when it has none."""
    is_house: bool = False
    """Its process has a name, and stays: core/houses.py."""
    lodgers: int = 0
    """Of a house: how many live in its process, those included that are about to."""
    house: Seat | None = None
    """Whose process it lives in."""
    coming: bool = False
    """A lodger that has not said yet that it is there."""
    deserted: bool = False
    """A house whose program has ended: it stays no longer than its lodgers."""
    group: str = ""
    """Of a house: the placement group (hex) that it belongs to, and ends with."""

    @property
    def leased(self) -> bool:
        return self.claim is not None and self.claim.actor_id is None

    @property
    def owner(self) -> bytes:
        """Who holds the lease; b"" when nobody does."""
        return (self.claim.owner or b"") if self.claim is not None else b""

    @property
    def yields(self) -> bool:
        """Its lease will come back without anybody else's help: a blocked one may wait for the very claim at hand."""
        return self.leased and not self.blocked

    def charge(self) -> tuple[tuple[str, int], ...]:
        """What it takes from the node now. A blocked worker has given back its CPU and keeps all else."""
        if self.claim is None:
            return ()
        resources = self.claim.hold.resources
        return tuple(pair for pair in resources if not _is_cpu(pair[0])) if self.blocked else resources

    @property
    def gpu_units(self) -> int:
        """What it takes of its devices, blocked or not."""
        return gpu_wish(self.claim.hold)[1] if self.claim is not None and self.devices else 0

    def news(self) -> tuple[str, ...] | None:
        """What its process has to be told of GPUs before it runs anything; None: it knows."""
        self.told = self.told or bool(self.devices)
        return self.devices if self.told else None


def _is_cpu(name: str) -> bool:
    return name == CPU or name.startswith(_GROUPS_CPU)


def add(amounts: MutableMapping[str, int], resources: Iterable[tuple[str, int]], sign: int = 1) -> None:
    for name, amount in resources:
        amounts[name] = amounts.get(name, 0) + sign * amount


class Seats:
    """Workers by id, the idle ones among them, and what is left of the node's resources.

    Invariants:
    - available = total - the sum of all charges; below zero only after `set_blocked(worker, False)`.
    - what is free of the node's own devices is what is available of GPU: both are booked in the same breath.
    - an actor gets only a worker that was never leased, an owner also one that was leased in the same environment;
    - an idle worker is in `fresh` or in `used`, never in both.
    """

    __slots__ = (
        "_serial",
        "available",
        "by_worker",
        "fresh",
        "houses",
        "lodgers",
        "lodgers_born",
        "mixed",
        "racks",
        "used",
    )

    def __init__(self, total: Mapping[str, int]) -> None:
        self.available = dict(total)
        self.racks = Racks(Devices.of(total.get(GPU, 0)))
        self.by_worker: dict[bytes, Seat] = {}
        self.fresh: dict[bytes, Seat] = {}  # idle ones that were never leased
        self.used: dict[bytes, Seat] = {}  # other idle ones; the last one is given first: its caches are the warmest
        self.mixed = False
        """Somebody has asked for an environment: not everybody can have every used worker from now on."""
        self.houses: dict[str, Seat] = {}
        """By environment: the processes that have a name."""
        self.lodgers = self.lodgers_born = 0
        self._serial = 0

    def __len__(self) -> int:
        return len(self.by_worker)

    def __repr__(self) -> str:
        return f"<Seats {self.idle} idle of {len(self.by_worker)}>"

    @property
    def idle(self) -> int:
        """How many workers are nobody's and can be given."""
        return len(self.fresh) + len(self.used)

    def next_serial(self) -> int:
        """A running number: the only notion of before and after in here."""
        self._serial += 1
        return self._serial

    def pool(self) -> int:
        """Workers that serve tasks now or are free to serve anybody's."""
        return sum(
            seat.leased or (seat.claim is None and not seat.is_house)
            for seat in self.by_worker.values()
            if not seat.stopping
        )

    def processes(self) -> int:
        """How many there are. Lodgers have none of their own."""
        return len(self.by_worker) - self.lodgers

    def used_in(self, env: str) -> int:
        """How many idle workers that were leased before serve calls in this environment."""
        return sum(seat.env == env for seat in self.used.values()) if self.mixed else len(self.used) if not env else 0

    def of_jobs(self, prefix: str) -> list[Seat]:
        """The idle workers that have served programs whose id (hex) begins so."""
        return [seat for seat in self.used.values() if seat.env.startswith(prefix)] if self.mixed else []

    def _of_env(self, env: str) -> bytes:
        """The warmest of them; empty when there is none."""
        return next((worker for worker, seat in reversed(self.used.items()) if seat.env == env), b"")

    def admit(self, worker: bytes) -> None:
        seat = self.by_worker[worker] = Seat(worker)
        self.rest(seat)

    def occupy(self, claim: Claim) -> Seat:
        """Give an idle worker to `claim` and book what it takes: the warmest in its environment to an owner, else a
        fresh one; to an actor always a fresh one.

        Raises KeyError when there is none of that kind, ValueError when no device has room.
        """
        used = self.used if claim.owner is not None else None
        if used and self.mixed:
            worker = self._of_env(claim.env) or self.fresh.popitem()[0]
            seat = self.by_worker[worker]
            used.pop(worker, None)
        else:
            worker, seat = (used or self.fresh).popitem()
        return self.seat(seat, claim)

    def seat(self, seat: Seat, claim: Claim) -> Seat:
        """Give `claim` this worker, which is nobody's and among the idle ones no more. ValueError as above."""
        worker = seat.worker
        seat.env = claim.env
        seat.idle_since = None
        seat.claim = claim
        seat.used = seat.used or seat.leased
        claim.seats[worker] = seat
        claim.at_cap_told = False
        add(self.available, seat.charge(), -1)
        if self.racks:
            seat.lot, seat.devices = self.racks.take(claim.hold)
        return seat

    def vacate(self, seat: Seat) -> None:
        """Give back what the seat takes; the worker is nobody's then, and not idle before `rest`."""
        if seat.claim is None:
            return
        add(self.available, seat.charge())
        self.racks.give_back(seat.lot, seat.devices, seat.gpu_units)
        seat.devices = ()
        del seat.claim.seats[seat.worker]
        seat.claim.yielded = self.next_serial()
        seat.claim = None
        seat.blocked = seat.recalled = False

    def rest(self, seat: Seat) -> None:
        seat.idle_since = None  # the next tick says when
        (self.used if seat.used else self.fresh)[seat.worker] = seat

    def stop(self, seat: Seat) -> None:
        """Never to be given again; it counts against the worker cap until it is gone."""
        self.vacate(seat)
        seat.stopping = True
        seat.idle_since = None
        self._forget_idle(seat)
        self._close_house(seat)

    def trim(self, now: float, idle_s: float, keep: int) -> list[bytes]:
        """Stop those idle for `idle_s` while the pool is over `keep`; a first look only notes `now`.

        Those that have run tasks go first, as they are of no use to actors; among each kind the longest idle.
        """
        spare = self.pool() - keep
        stopped: list[bytes] = []
        for seat in [*self.used.values(), *self.fresh.values()]:
            if seat.idle_since is None:
                seat.idle_since = now
            elif seat.is_house:
                continue
            elif spare > len(stopped) and now - seat.idle_since >= idle_s:
                self.stop(seat)
                stopped.append(seat.worker)
        return stopped

    def set_blocked(self, worker: bytes, blocked: bool) -> bool:
        """Charge a worker for what it holds while it waits, or while it runs; whether that changes anything."""
        seat = self.by_worker.get(worker)
        if seat is None or seat.claim is None or seat.blocked == blocked:
            return False
        add(self.available, seat.charge())
        seat.blocked = blocked
        add(self.available, seat.charge(), -1)
        return True

    def remove(self, seat: Seat) -> None:
        self.vacate(seat)
        self._forget_idle(seat)
        self._close_house(seat)
        seat.stopping = True
        if seat.house is not None:
            seat.house.lodgers -= 1
            self.lodgers -= 1
        del self.by_worker[seat.worker]

    def _close_house(self, seat: Seat) -> None:
        if self.houses.get(seat.env) is seat:
            del self.houses[seat.env]

    def _forget_idle(self, seat: Seat) -> None:
        (self.used if seat.used else self.fresh).pop(seat.worker, None)
