"""What it costs to look at a request: not at all, and with its levels kept, published, or told to a callback.

`off_cpu` is the price of tracing that is switched off. Compared are `zmreg.request(steps)` and the same request by a
`Drive` from which all of tracing is taken out: it makes no `Teller`, asks nobody whether somebody listens, and looks at
no switch as events pass. Measured is the CPU time of the thread that drives, plan and values included; the two are run
in turn, in changing order, and the figure is the median of the ratios of neighbours. Wall time on two cores would vary
by more than what is to be seen. The other figures are ratios of wall times to those with tracing off, of the same
turns.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from importlib import import_module
from time import perf_counter, thread_time
from typing import Any

from benchmarks.jobs import increment
from benchmarks.measure import median
from benchmarks.peers.base import Feature, Peer
from benchmarks.workloads.base import Context, Figure, Figures, Target, Workload

LEVELS, WIDTH = 10, 20
TURNS, QUICK_TURNS = 60, 4
# Times longer than the timed loops of other workloads: many short turns.
PATIENCE = 10


def steps_of() -> list[tuple[str, str, tuple[object, ...]]]:
    """Ten levels of twenty steps, each of which takes a value of the level before."""
    first: list[tuple[str, str, tuple[object, ...]]] = [(f"0-{place}", "increment", (place,)) for place in range(WIDTH)]
    return first + [
        (f"{level}-{place}", "increment", (f"{level - 1}-{(place + 1) % WIDTH}",))
        for level in range(1, LEVELS)
        for place in range(WIDTH)
    ]


class _Nobody:
    """In the place of a Teller."""

    trace = None

    def __init__(self) -> None:
        self.arg_previews: dict[str, Any] = {}

    def end(self, *_: object) -> None:
        """Nobody waits."""


def without_tracing() -> Callable[[list[Any]], Any]:
    """`zmreg.request` without any of it."""
    modules: list[Any] = [
        import_module(f"zmreg.{name}")
        for name in (
            "flows.requests.driving",
            "flows.requests.request",
            "flows.requests.lowering",
            "flows.requests.options",
            "model.graph_events",
        )
    ]
    driving, request, lowering, options, events = modules

    class Untold(driving.Drive):  # type: ignore[name-defined,misc]
        def _act(self, happened: Iterable[Any]) -> None:
            todo = deque(happened)
            while todo:
                event = todo.popleft()
                if isinstance(event, events.StepQueued):
                    todo.extend(self._start(event.step))
                elif isinstance(event, events.StepCancelled | events.StepFailed):
                    self._homeless.pop(event.step, None)
                    self._flight.drop(event.step)

    def run(steps: list[Any]) -> Any:
        chosen = options.options_of({})
        plan, local = lowering.lowered(steps, chosen.keep)
        teller, driving.Teller = driving.Teller, lambda *_: _Nobody()
        try:
            drive = Untold(plan, chosen, local)
        finally:
            driving.Teller = teller
        drive.go()
        return request.GraphResult(drive.values(), drive)

    return run


def run(peer: Peer, context: Context) -> Figures:
    """See the module; `off_us` is the driving thread's CPU for one step with tracing off."""
    steps = steps_of()
    heard: list[object] = []
    peer.start_nodes(1)
    try:
        peer.serve([increment], [0])
        lib, bare = peer.lib, without_tracing()
        ways: dict[str, Callable[[], Any]] = {
            "none": lambda: bare(steps),
            "off": lambda: lib.request(steps),
            "levels": lambda: lib.request(steps, return_intermediate_results=True),
            "topic": lambda: lib.request(steps, intermediate_result_callback_topic="traced.{request_id}"),
            "on_level": lambda: lib.request(steps, on_level=heard.append),
        }
        expected = ways["off"]()
        turns = QUICK_TURNS if context.quick else TURNS
        with lib.subscribe("traced.#") as listener:
            wall, cpu = _turns(ways, turns, PATIENCE * context.seconds, dict(expected))
            assert listener.get(10) is not None
    finally:
        peer.stop()
    assert len(heard) == LEVELS * len(wall["off"]), f"{len(heard)} levels were told"
    figures = {f"{name}_x": median([a / b for a, b in zip(wall[name], wall["off"], strict=True)]) for name in wall}
    ratios = [off / none for off, none in zip(cpu["off"], cpu["none"], strict=True)]
    return {
        "off_cpu": median(ratios),
        "off_us": 1e6 * median(cpu["off"]) / len(steps),
        **{name: figures[name] for name in ("levels_x", "topic_x", "on_level_x")},
    }


def _turns(
    ways: dict[str, Callable[[], Any]], turns: int, seconds: float, expected: object
) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """({way: seconds of each turn}, the same of this thread's CPU); fewer turns when the time is up."""
    wall: dict[str, list[float]] = {name: [] for name in ways}
    cpu: dict[str, list[float]] = {name: [] for name in ways}
    end = perf_counter() + seconds
    for turn in range(turns):
        if turn >= QUICK_TURNS and perf_counter() > end:
            break
        order = list(ways) if turn % 2 else list(reversed(ways))
        for name in order:
            began, began_cpu = perf_counter(), thread_time()
            values = ways[name]()
            cpu[name].append(thread_time() - began_cpu)
            wall[name].append(perf_counter() - began)
            assert dict(values) == expected, f"{name} gave other values"
    return wall, cpu


WORKLOAD = Workload(
    name="request_tracing",
    title=(
        "200 steps in ten levels: driver's CPU with tracing off against none of its code (off_cpu), and times as long "
        "with levels kept, published to a listener, told to a callback"
    ),
    figures=(
        Figure("off_cpu", digits=3),
        Figure("off_us"),
        Figure("levels_x", digits=2),
        Figure("topic_x", digits=2),
        Figure("on_level_x", digits=2),
    ),
    run=run,
    needs=frozenset({Feature.NODES, Feature.GRAPHS, Feature.TRACING}),
    targets=(Target("off_cpu", 1.02),),
    self_started=True,
    timeout_s=120.0,
)
