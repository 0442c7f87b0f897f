"""The replicated registry under bad weather, simulated: `python -m zmreg.testing.registry --seeds 1000`.

Nodes publish and delete locations while the network loses a tenth of all messages, doubles some, reorders others and
falls into parts, and while nodes die and begin anew. Checked all the time: what is known of a node is what that node
had published at some operation. Checked at the end: after a quiet time and two beacons everybody knows exactly what
every living node holds, and nothing of the dead.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable
from random import Random
from typing import Final

from zmreg.core.index import LocationIndex, location
from zmreg.core.publishing import BEACON_S, Publisher
from zmreg.core.replica_effects import Publish, SendTo
from zmreg.core.replica_parts import PartState
from zmreg.core.replicas import Replica
from zmreg.model.record import Record
from zmreg.model.replica_messages import AskReplay, AskSnapshot, Beacon, Delta, ReplicaTable, SnapshotPart
from zmreg.testing.simulation import Name, Simulation, SimulationStatistics, Weather
from zmreg.wire import codec

TABLE: Final = int(ReplicaTable.LOCATIONS)
BAD_WEATHER: Final = Weather(drop=0.1, duplicate=0.05, reorder=0.1)
# A round trip of the default weather is 10 ms; joining a thousand others takes some of them.
ROUND_TRIPS_S: Final = 0.1
_TOTALS: Final = ("gaps", "replays", "snapshots", "restarts", "duplicates", "late", "digest_mismatches")
# A death is known everywhere within this time, and no sooner than the last words have arrived or not.
_NEWS_S: Final = 1.0


class Plan(Record):
    """One simulated cluster. `readers` of the `nodes` keep a replica of all; the others only publish. A `ring` of few
    operations makes snapshots of long gaps."""

    nodes: int = 6
    readers: int = 6
    seconds: float = 4.0
    objects: int = 30
    """Held by a node at the beginning."""
    changes_per_s: float = 20.0
    """By each node."""
    ring: int = 65_536
    held: int = 65_536
    restarts: int = 2
    partitions: int = 2
    weather: Weather = BAD_WEATHER


class Outcome(Record):
    """What became of it. `wrong`: violations in words, at most ten."""

    seed: int
    wrong: tuple[str, ...]
    converged_s: float
    """After the weather became calm."""
    gaps: int
    replays: int
    snapshots: int
    restarts: int
    duplicates: int
    late: int
    digest_mismatches: int
    network: SimulationStatistics


def nbytes_of(message: object) -> int:
    """On the wire."""
    assert isinstance(message, Delta | Beacon | AskReplay | AskSnapshot | SnapshotPart)
    return len(codec.encode(message))


class RegistryNode:
    """One node's part and, for a reader, its replica of all others, in one index: a machine for `Simulation`."""

    def __init__(self, node: bytes, plan: Plan, reads: bool, incarnation: int = 0) -> None:
        self.index = LocationIndex()
        self.publisher = Publisher(node, TABLE, self.index, incarnation=incarnation, ring_ops=plan.ring)
        self.replica = Replica(node, TABLE, self.index, held_ops=plan.held) if reads else None
        self._now = 0.0
        self.history: dict[int, tuple[int, int]] = {0: (0, 0)}
        """{operation: (rows, digest) after it} of all that was published."""

    def on_message(self, sender: Name, message: object, now: float) -> Iterable[object]:
        assert isinstance(sender, bytes)
        self._now = now
        if isinstance(message, AskReplay | AskSnapshot):
            return self.publisher.on_message(sender, message, now)
        if self.replica is None:
            return []
        return self.replica.on_message(sender, message, now)  # type: ignore[arg-type]

    def tick(self, now: float) -> Iterable[object]:
        self._now = now
        return [*self.publisher.tick(now), *(self.replica.tick(now) if self.replica is not None else ())]

    def due(self) -> float:
        replicas = self.replica.due(self._now) if self.replica is not None else None
        return min(self.publisher.due(), replicas if replicas is not None else float("inf"))

    def noted(self) -> None:
        """Remember what the part adds up to after the operation just published."""
        beacon = self.publisher.beacon()
        self.history[beacon.last_seq] = (beacon.count, beacon.digest)


class Registry:
    """A cluster of `RegistryNode`s in a `Simulation`, with what is true of it."""

    def __init__(self, seed: int, plan: Plan) -> None:
        self.plan = plan
        self.chance = Random(~seed)
        self.simulation = Simulation(seed, plan.weather, perform=self._perform, size_of=nbytes_of)
        self.living: dict[bytes, RegistryNode] = {}
        self.readers: dict[bytes, RegistryNode] = {}
        self.dead: set[bytes] = set()
        self.histories: dict[tuple[bytes, int], dict[int, tuple[int, int]]] = {}
        self.wrong: list[str] = []
        self._born = 0
        self._objects = 0
        self._news: list[tuple[float, bytes]] = []
        self._former: list[Replica] = []
        for number in range(plan.nodes):
            self.begin(self.new_name(), reads=number < plan.readers)

    # -- the cluster

    def new_name(self) -> bytes:
        self._born += 1
        return b"n%03d" % (self._born % 1000) + self._born.to_bytes(4, "big")

    def begin(self, name: bytes, reads: bool, incarnation: int = 0) -> None:
        """A node comes with some objects."""
        node = RegistryNode(name, self.plan, reads, incarnation)
        self.living[name] = node
        self.histories[name, incarnation] = node.history
        if reads:
            self.readers[name] = node
        self.simulation.add(name, node)
        for each in self.living:
            self.simulation.listen(each, self.readers)
        for _ in range(self.plan.objects):
            self.change(name, 0.0)

    def change(self, name: bytes, deleting: float = 0.4) -> None:
        """A node makes an object, or with this chance lets go of one."""
        node = self.living[name]
        held = node.index.objects_of(name) if self.chance.random() < deleting else []
        if held:
            effects = node.publisher.delete(self.chance.choice(held))
        elif self.chance.random() < 0.2 and self._objects:
            # A copy of what another made, perhaps.
            copied = self.chance.randrange(self._objects).to_bytes(16, "big")
            effects = node.publisher.add(copied, location(self.chance.randrange(1 << 24), False))
        else:
            self._objects += 1
            size = self.chance.randrange(1 << 24)
            effects = node.publisher.add(self._objects.to_bytes(16, "big"), location(size, True))
        self.simulation.perform(name, effects)

    def restart(self, name: bytes) -> None:
        """It dies, and comes back as another node, or under its name with a higher incarnation."""
        node = self.living.pop(name)
        reads = self.readers.pop(name, None) is not None
        if node.replica is not None:
            self._former.append(node.replica)
        self.simulation.remove(name)
        if self.chance.random() < 0.7:
            self.dead.add(name)
            self._news += [(self.simulation.now + self.chance.random() * _NEWS_S, name)]
            self.begin(self.new_name(), reads)
        else:
            self.begin(name, reads, node.publisher.incarnation + 1)

    def tell(self) -> None:
        """Who has died is told by the head, over a way that loses nothing."""
        due = [name for when, name in self._news if when <= self.simulation.now]
        self._news = [(when, name) for when, name in self._news if name not in due]
        for name in due:
            for node in self.readers.values():
                if node.replica is not None:
                    node.replica.forget(name)

    def _perform(self, simulation: Simulation, name: Name, effect: object) -> None:
        assert isinstance(name, bytes)
        node = self.living.get(name)
        if node is None:
            return
        match effect:
            case Publish(message):
                node.noted()
                simulation.broadcast(name, message)
            case SendTo(to, message):
                simulation.send(name, to, message)

    # -- what must be true

    def check(self) -> None:
        """What is known of a node is what it had published at some operation."""
        for me, node in self.readers.items():
            assert node.replica is not None
            for writer in [*self.living, *self.dead]:
                incarnation, applied, rows, digest = node.replica.position_of(writer)
                if incarnation >= 0 and self.histories[writer, incarnation].get(applied) != (rows, digest):
                    self._say(f"{me!r} has rows of {writer!r} that were never published, at operation {applied}")

    def equal(self) -> bool:
        """Everybody knows all that is, and nothing else."""
        return all(node.replica is not None and self._knows_all(me, node.replica) for me, node in self.readers.items())

    def _knows_all(self, me: bytes, replica: Replica) -> bool:
        for name, node in self.living.items():
            own = node.publisher
            beacon = own.beacon()
            if name != me and (
                replica.state_of(name) is not PartState.LIVE
                or replica.position_of(name) != (own.incarnation, beacon.last_seq, beacon.count, beacon.digest)
            ):
                return False
        return True

    def compare(self) -> None:
        """Row by row, with nothing taken on trust."""
        for me, node in self.readers.items():
            assert node.replica is not None
            if node.replica.audit():
                self._say(f"{me!r} has rows that do not add up")
            for name in {*self.living, *self.dead} - {me}:
                mine = dict(node.index.items(name))
                theirs = dict(self.living[name].index.items(name)) if name in self.living else {}
                if mine != theirs:
                    self._say(f"{me!r} knows {len(mine)} rows of {name!r}, which has {len(theirs)}")

    def _say(self, text: str) -> None:
        if len(self.wrong) < 10:
            self.wrong.append(f"at {self.simulation.now:.3f} s: {text}")

    def total(self, what: str) -> int:
        """A counter of all replicas there were."""
        replicas = [*self._former, *(node.replica for node in self.readers.values() if node.replica is not None)]
        return sum(int(getattr(replica.statistics(), what)) for replica in replicas)


def play(seed: int, plan: Plan) -> Outcome:
    """One run: bad weather for `plan.seconds`, then a calm in which all must become equal."""
    registry = Registry(seed, plan)
    simulation, chance = registry.simulation, registry.chance
    turns = 40
    restarts = {chance.randrange(turns) for _ in range(plan.restarts)}
    partitions = {chance.randrange(turns): chance.randrange(1, turns // 2) for _ in range(plan.partitions)}
    heal_at = -1
    changes = plan.changes_per_s * plan.seconds / turns
    for turn in range(turns):
        for name in registry.living:
            for _ in range(int(changes + chance.random())):
                registry.change(name)
        if turn in restarts:
            registry.restart(chance.choice(list(registry.living)))
        if turn in partitions:
            names = simulation.names()
            chance.shuffle(names)
            half = chance.randrange(len(names) + 1)
            simulation.partition(names[:half], names[half:], both_ways=chance.random() < 0.6)
            heal_at = turn + partitions[turn]
        if turn == heal_at:
            simulation.heal()
        simulation.run(plan.seconds / turns)
        registry.tell()
        registry.check()
    simulation.run(_NEWS_S)
    registry.tell()
    simulation.calm()
    begin = simulation.now
    try:
        simulation.run_until(registry.equal, 2 * BEACON_S + ROUND_TRIPS_S)
    except AssertionError as error:
        registry._say(str(error))
    converged_s = simulation.now - begin
    registry.check()
    registry.compare()
    return Outcome(
        seed=seed,
        wrong=tuple(registry.wrong),
        converged_s=converged_s,
        **{name: registry.total(name) for name in _TOTALS},
        network=simulation.statistics(),
    )


def plan_for(seed: int) -> Plan:
    """Another kind of cluster for each seed: few nodes and many, long rings and short ones."""
    chance = Random(seed * 7919)
    return Plan(
        nodes=(nodes := chance.randrange(2, 8)),
        readers=chance.randrange(1, nodes + 1),
        seconds=chance.choice([1.0, 3.0]),
        objects=chance.choice([0, 5, 100]),
        changes_per_s=chance.choice([2.0, 20.0, 100.0]),
        ring=chance.choice([10, 100, 65_536]),
        held=chance.choice([20, 65_536]),
        restarts=chance.randrange(4),
        partitions=chance.randrange(3),
    )


def main(arguments: list[str] | None = None) -> int:
    """Play many seeds. 0: nothing was wrong; 1: something was, and the seed is named; 3: the weather was too good."""
    parser = argparse.ArgumentParser(
        prog="python -m zmreg.testing.registry", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--seeds", type=int, default=1_000, help="how many runs (1,000)")
    parser.add_argument("--first", type=int, default=0, help="the first seed: to play one again, with --seeds 1")
    parser.add_argument("--nodes", type=int, default=0, help="so many nodes with 3 readers, instead of 2 to 7")
    given = parser.parse_args(arguments)
    failed, gaps, snapshots, mismatches, slowest = 0, 0, 0, 0, 0.0
    for seed in range(given.first, given.first + given.seeds):
        plan = plan_for(seed) if not given.nodes else Plan(nodes=given.nodes, readers=3, objects=5, changes_per_s=2.0)
        outcome = play(seed, plan)
        gaps, snapshots = gaps + outcome.gaps, snapshots + outcome.snapshots
        mismatches += outcome.digest_mismatches
        slowest = max(slowest, outcome.converged_s)
        if outcome.wrong or outcome.digest_mismatches:
            failed += 1
            print(f"seed {seed}: {plan}", *outcome.wrong, sep="\n  ")
    print(
        f"{given.seeds} seeds: {failed} with violations, {mismatches} digest mismatches, {gaps} gaps, "
        f"{snapshots} snapshots, equal again after at most {slowest:.3f} s"
    )
    return 1 if failed else 0 if gaps else 3


if __name__ == "__main__":
    sys.exit(main())
