"""The replicated registry: entries a second that one node applies to its replica, decoding included."""

from __future__ import annotations

from importlib import import_module

from benchmarks.measure import rate
from benchmarks.peers.base import Feature, Peer
from benchmarks.workloads.base import Context, Figure, Figures, Target, Workload

ENTRIES = 200_000
QUICK_ENTRIES = 20_000
BATCH = 100
WRITER, READER = b"writer\0\0", b"reader\0\0"


def run(peer: Peer, context: Context) -> Figures:
    """What a node does with each batch that it hears from another one: decode, check, apply."""
    del peer
    publishing, replicas, index = (import_module(f"zmreg.core.{name}") for name in ("publishing", "replicas", "index"))
    messages, codec = import_module("zmreg.model.replica_messages"), import_module("zmreg.wire.codec")
    table = messages.ReplicaTable.LOCATIONS
    entries = QUICK_ENTRIES if context.quick else ENTRIES
    writer = publishing.Publisher(WRITER, table, index.LocationIndex())
    frames: list[bytes] = []
    for number in range(entries):
        effects = writer.add(number.to_bytes(16, "big"), index.location(1 << 20, True))
        if (number + 1) % BATCH == 0:
            effects = [*effects, *writer.flush(0.0)]
        frames += [codec.encode(effect.message) for effect in effects]

    def apply(count: int) -> None:
        for _ in range(-(-count // entries)):
            rows = index.LocationIndex()
            replica = replicas.Replica(READER, table, rows)
            for frame in frames:
                replica.on_message(WRITER, codec.decode(frame), 0.0)
            assert len(rows) == entries, f"{len(rows)} of {entries} entries were applied"

    return {"entries_per_s": rate(apply, context.seconds, start=entries, at_most=entries)}


def floor(context: Context) -> Figures:
    """The same keys in batches of 100 into a plain dict, decoding included."""
    msgpack = import_module("msgpack")
    value = bytes(9)
    keys = [number.to_bytes(16, "big") for number in range(ENTRIES)]
    frames = [
        msgpack.packb([keys[first : first + BATCH], [value] * BATCH]) for first in range(0, ENTRIES, BATCH)
    ]  # fmt: skip

    def apply(count: int) -> None:
        for _ in range(-(-count // ENTRIES)):
            rows: dict[bytes, bytes] = {}
            for frame in frames:
                for key, row in zip(*msgpack.unpackb(frame), strict=True):
                    rows[key] = row

    return {"entries_per_s": rate(apply, context.seconds, start=ENTRIES, at_most=ENTRIES)}


WORKLOAD = Workload(
    name="registry",
    title="registry entries applied to a replica per second, batches of 100, decoding included (bare: a plain dict)",
    figures=(Figure("entries_per_s", lower=False, digits=0),),
    run=run,
    needs=frozenset({Feature.REGISTRY}),
    floor=floor,
    targets=(Target("entries_per_s", 1.2e6),),
    self_started=True,
)
