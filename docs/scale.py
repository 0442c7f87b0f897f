"""The arithmetic of docs/scale.md: what a replicated registry costs, from the size of real messages.

`docs/generate.py` makes the page's tables of it; tests/test_scale.py holds it against the simulator's own counts.
"""

from __future__ import annotations

from itertools import count

from zmreg.core.index import location
from zmreg.core.publishing import BEACON_S, FLUSH_S
from zmreg.model.replica_messages import Beacon, Delta, ReplicaTable
from zmreg.testing.registry import BAD_WEATHER, Plan, Registry
from zmreg.testing.simulation import SimulationStatistics, Weather
from zmreg.wire import codec

NODES = (16, 64, 256, 1_000)
# An entry of the index all in: tests/core/test_index.py measures 142.
ENTRY_BYTES = 160
# Of one node: what it holds, and how often it makes or lets go of an object.
OBJECTS = 10_000
CHANGES_PER_S = 200
# One in a hundred objects has 1 MiB or more.
LARGE_SHARE = 0.01
# Decoding a batch, and hashing and storing each of its operations, on one core of 2 GHz: measured 7.7 us for a batch
# of one, 4.3 us an operation for two, 1.4 for ten, 0.56 for a hundred.
BATCH_S, APPLY_S = 8e-6, 0.5e-6
CALM = Weather()


def delta_bytes(operations: int, first_seq: int = 1_000_000) -> int:
    """A batch of additions of some megabytes each."""
    keys = tuple(number.to_bytes(16, "big") for number in range(operations))
    value = location(5_000_000, True)
    return len(codec.encode(Delta(b"node\0\0\0\0", 1, 0, first_seq, keys, (value,) * operations)))


def beacon_bytes(last_seq: int = 1_000_000, count: int = OBJECTS) -> int:
    return len(codec.encode(Beacon(b"node\0\0\0\0", 1, 0, last_seq, count, 1 << 63)))


def batches_per_s(changes_per_s: float) -> float:
    return min(changes_per_s, 1 / FLUSH_S)


def spoken_bytes_per_s(changes_per_s: float) -> float:
    """What one node says to one other about its locations, and its beacons of all tables; without TCP's own."""
    batches = batches_per_s(changes_per_s)
    in_batches = batches * delta_bytes(max(round(changes_per_s / batches), 1)) if batches else 0.0
    return in_batches + len(ReplicaTable) * beacon_bytes() / BEACON_S


def cost(nodes: int, scope: str) -> tuple[str, ...]:
    """One row: nodes, scope, entries, memory, traffic each way, CPU, connections of one node."""
    share = {"all": 1.0, "large": LARGE_SHARE, "owner": 0.0}[scope]
    entries = int(nodes * OBJECTS * share)
    traffic = (nodes - 1) * spoken_bytes_per_s(CHANGES_PER_S * share)
    changes = CHANGES_PER_S * share
    busy = (nodes - 1) * (batches_per_s(changes) * BATCH_S + changes * APPLY_S)
    return (
        f"{nodes:,}",
        f"`{scope}`",
        f"{entries:,}",
        _amount(entries * ENTRY_BYTES),
        _amount(traffic) + "/s",
        f"{busy:.1%}",
        f"{4 * (nodes - 1):,}",
    )


def _amount(nbytes: float) -> str:
    for size, unit in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if nbytes >= size:
            return f"{nbytes / size:,.1f} {unit}"
    return f"{nbytes:,.0f} B"


# -- the same by simulation --------------------------------------------------------------------------------------------

SIMULATED = (4, 8, 16)
SIMULATED_S = 4.0
SIMULATED_CHANGES_PER_S = 25.0


def simulated(nodes: int, weather: Weather = CALM) -> SimulationStatistics:
    """Nodes that all listen to each other, each changing something 25 times a second, at even intervals: too far apart
    for a batch, so that messages can be counted beforehand. The first second, in which they meet, is not counted."""
    registry = Registry(nodes, Plan(nodes=nodes, readers=nodes, objects=0, weather=CALM))
    simulation = registry.simulation
    simulation.run(1.0)
    simulation.weather = weather
    before = simulation.statistics()
    names = list(registry.living)
    numbers = count(1)
    for _ in range(round(SIMULATED_S * SIMULATED_CHANGES_PER_S)):
        for name in names:
            effects = registry.living[name].publisher.add(next(numbers).to_bytes(16, "big"), location(5_000_000, True))
            simulation.perform(name, effects)
        simulation.run(1 / SIMULATED_CHANGES_PER_S)
    after = simulation.statistics()
    return SimulationStatistics(
        *(getattr(after, name) - getattr(before, name) for name in SimulationStatistics.__match_args__)
    )


def predicted(nodes: int) -> tuple[float, float]:
    """(messages, bytes) of the same by arithmetic."""
    links, seconds = nodes * (nodes - 1), SIMULATED_S
    deltas, beacons = links * seconds * SIMULATED_CHANGES_PER_S, links * seconds / BEACON_S
    return deltas + beacons, deltas * delta_bytes(1, 50) + beacons * beacon_bytes(50, 50)


def comparison() -> list[tuple[str, ...]]:
    """Rows: nodes, messages and bytes by arithmetic, the same by simulation, and with a tenth of all lost."""
    rows = []
    for nodes in SIMULATED:
        messages, nbytes = predicted(nodes)
        calm, bad = simulated(nodes), simulated(nodes, BAD_WEATHER)
        pairs = ((messages, nbytes), (calm.sent, calm.nbytes), (bad.sent, bad.nbytes))
        rows.append((str(nodes), *(f"{sent:,.0f}; {_amount(size)}" for sent, size in pairs)))
    return rows
