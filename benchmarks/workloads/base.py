"""What a workload is: what it needs, what it measures, how to run it, and the targets it is held to."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from benchmarks.memory import descendants
from benchmarks.peers.base import Call, Feature, Peer

MB = 1_000_000
Figures = Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Context:
    """What the harness tells a workload.

    `seconds`: how long one timed loop should last. `root_pid`: the process below which everything belongs to this
    cell (also what a framework has detached from its parent). `quick`: a smoke run, sizes may shrink.
    """

    seconds: float
    quick: bool
    root_pid: int

    def cluster_pids(self) -> list[int]:
        """The driver (this process) and every process the framework has started."""
        return sorted({os.getpid(), *descendants(self.root_pid)})


@dataclass(frozen=True, slots=True)
class Figure:
    """A measured quantity. `digits` after the point in tables; `lower` says that less is better."""

    name: str
    lower: bool = True
    digits: int = 1


@dataclass(frozen=True, slots=True)
class Target:
    """What zmreg is held to.

    Its figure, divided by the same figure of peer `against` (or taken as it is, when that is None), must be at most
    `bound` if less is better, else at least `bound`.
    """

    figure: str
    bound: float
    against: str | None = None


@dataclass(frozen=True, slots=True)
class Workload:
    """One row group of the table. The first of `figures` is the one that ratios are made of.

    `run`: None when only the floor is measured. `floor`: the same work without any framework, run as peer "bare".
    `self_started`: the workload starts and stops the peer itself. `max_rounds`: fewer rounds than asked for, for the
    long ones. `close_race`: every peer gets all rounds, also those that are slow to start.
    """

    name: str
    title: str
    figures: tuple[Figure, ...]
    run: Callable[[Peer, Context], Figures] | None
    needs: frozenset[Feature] = frozenset()
    floor: Callable[[Context], Figures] | None = None
    targets: tuple[Target, ...] = ()
    workers: int = 2
    store_bytes: int | None = None
    self_started: bool = False
    max_rounds: int | None = None
    close_race: bool = False
    timeout_s: float = 60.0


def warm(peer: Peer, call: Call, seconds: float = 0.3, at_most: int = 200) -> None:
    """Call a few times untimed: workers start, definitions and connections settle."""
    peer.time_calls(call, seconds, at_most)
