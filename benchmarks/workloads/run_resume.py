"""Runs that are resumed: what was done is found again instead of being done.

A phase of 10,000 items, and a chain of 200 phases. `first_...`: what doing it takes. `again_...`: from
`run(..., resume=True)` to its return when all of it had been done, the best of three. `half_items_ms`: the phase again,
of which half the items had been done when one failed; the other half is done now.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

from benchmarks.peers.base import Feature, Peer
from benchmarks.workloads.base import Context, Figure, Figures, Target, Workload

ITEMS, QUICK_ITEMS = 10_000, 200
PHASES, QUICK_PHASES = 200, 20
TURNS = 3


def item_of(item: int, stop: str, half: int) -> int:
    """The item; an error from the middle on while that file is there."""
    if item >= half and Path(stop).exists():
        raise RuntimeError("stopped in the middle")
    return item


def first() -> int:
    """The first phase of the chain."""
    return 0


def later(context: Any) -> int:
    """The others; they look at nothing."""
    del context
    return 1


def run(peer: Peer, context: Context) -> Figures:
    """Milliseconds. A run that reuses something else than it should raises AssertionError."""
    lib = peer.lib
    many = QUICK_ITEMS if context.quick else ITEMS
    chain = [lib.Phase("p0", first)]
    for number in range(1, QUICK_PHASES if context.quick else PHASES):
        chain.append(lib.Phase(f"p{number}", later, [f"p{number - 1}"]))
    made: dict[str, float] = {}
    with tempfile.TemporaryDirectory(prefix="bench-runs-") as folder:
        stop = Path(folder) / "stop"
        terms = {"stop": str(stop), "half": many // 2}
        items = [lib.Phase("items", item_of, foreach=range(many), config=terms)]
        for name, phases in (("items", items), ("phases", chain)):
            made[f"again_{name}_ms"] = 0.0
            made[f"first_{name}_ms"] = timed(lib, phases, name, folder)
            turns = [timed(lib, phases, name, folder, resume=True) for _ in range(1 if context.quick else TURNS)]
            made[f"again_{name}_ms"] = min(turns)
        stop.touch()
        assert not lib.run(items, id="half", folder=folder).ok, "nothing has stopped it in the middle"
        stop.unlink()
        began = perf_counter()
        result = lib.run(items, id="half", folder=folder, resume=True)
        made["half_items_ms"] = 1e3 * (perf_counter() - began)
        assert result["items"] == list(range(many)), "the second half gave something else"
    return made


def timed(lib: Any, phases: Sequence[Any], name: str, folder: str, resume: bool = False) -> float:
    """Milliseconds of one run."""
    began = perf_counter()
    result = lib.run(phases, id=name, folder=folder, resume=resume)
    took = 1e3 * (perf_counter() - began)
    assert result.ok, f"{name}: {result}"
    assert len(result.reused) == (len(phases) if resume else 0), f"{name}: {len(result.reused)} phases were reused"
    return took


WORKLOAD = Workload(
    name="run_resume",
    title="a run of 10,000 items in one phase, and one of 200 phases: done, and resumed when all of it was done; and "
    "the items resumed when half were done, ms",
    figures=(
        Figure("again_items_ms", digits=0),
        Figure("first_items_ms", digits=0),
        Figure("again_phases_ms", digits=0),
        Figure("first_phases_ms", digits=0),
        Figure("half_items_ms", digits=0),
    ),
    run=run,
    needs=frozenset({Feature.RUNS}),
    targets=(Target("again_items_ms", 500.0), Target("again_phases_ms", 500.0)),
    max_rounds=3,
    timeout_s=120.0,
)
