"""What a workload may ask of a framework: the small common protocol the adapters implement.

Calls handed out by an adapter are the framework's own bound callables wherever possible (`f.remote`, a partial of
`submit`), so that no adapter frame is timed with them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from enum import Enum
from functools import partial
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from time import perf_counter
from typing import Any, ClassVar

from benchmarks.jobs import size_of
from benchmarks.measure import latencies

Handle = Any  # a framework's own future, ref or coroutine
Call = Callable[..., Handle]
GraphStep = tuple[str, Callable[..., object], tuple[Any, ...], int | None]
"""A step of a graph: its name, the function, its arguments (a step's name stands for its value), and the node to run
on, or None for any."""


class Feature(Enum):
    """What a framework has; a workload that needs more is skipped by name."""

    TASKS = "tasks"
    ACTORS = "actors"
    MAP = "map"
    STREAMS = "generators whose items are taken while they run"
    PUT = "shared objects (put)"
    REFS = "results as arguments of later calls"
    NODES = "several nodes on one machine"
    ONCE = "tasks that are not tried again"
    REGISTRY = "a replicated table of what is where"
    NAMES = "functions called by name"
    GRAPHS = "graphs of calls that are handed over as one"
    TRACING = "a switch for tracing such graphs"
    LEDGER = "a head with or without a state directory"
    PIPELINES = "streams that pass through stages"
    SINKS = "files of results that any process writes into"
    RUNS = "runs of phases that are resumed"


class Peer:
    """A framework under test. Subclasses fill in what their `features` promise."""

    name: ClassVar[str]
    module: ClassVar[str]  # what a user imports
    distribution: ClassVar[str | None] = None  # whose version is noted; None: part of Python
    features: ClassVar[frozenset[Feature]] = frozenset()
    # Fewer rounds for those that take seconds to start, unless the workload is a close race with them.
    max_rounds: ClassVar[int | None] = None

    def __init__(self) -> None:
        self.lib: Any = None

    @classmethod
    def installed(cls) -> bool:
        """Whether the framework can be imported here (looked up, not imported)."""
        return find_spec(cls.module.partition(".")[0]) is not None

    @classmethod
    def version(cls) -> str:
        """The installed version, or "standard library", or "unknown"."""
        if cls.distribution is None:
            return "standard library"
        try:
            return version(cls.distribution)
        except PackageNotFoundError:
            return "unknown"

    def load(self) -> None:
        """Import the framework: kept apart from `start`, so that starting is timed without it."""
        self.lib = import_module(self.module)

    def start(self, workers: int, store_bytes: int | None = None) -> None:
        """Start `workers` worker processes of one CPU each; `store_bytes` caps the object store where there is one."""
        raise self._lacks("start")

    def start_nodes(self, count: int, store_bytes: int | None = None) -> None:
        """Start `count` nodes of one CPU each on this machine, the driver at the first, number 0 (Feature.NODES)."""
        raise self._lacks("start_nodes")

    def stop(self) -> None:
        """Stop everything that was started; returns when it is gone, as far as the framework's own call tells."""
        raise self._lacks("stop")

    def task(self, function: Callable[..., object]) -> Call:
        """A callable that submits the function with its arguments and returns a handle at once."""
        raise self._lacks("task")

    def far_task(self, function: Callable[..., object], node: int | None = None, retry: bool = True) -> Call:
        """As `task`, but run on that node, or on any but the driver's. `retry`: elsewhere, if that node dies; without
        it the handle fails (Feature.ONCE)."""
        raise self._lacks("far_task")

    def far_actor(self) -> Call:
        """The `inc` method of an actor on another node than the driver's."""
        raise self._lacks("far_actor")

    def bring(self, handle: Handle) -> int:
        """Have the array of a handle that has settled elsewhere in the first node's memory; its size in bytes."""
        return size_of(self.fetch(handle))

    def kill_node(self, worker_pid: int) -> None:
        """kill -9 of the node on which that worker runs; it returns when that is done."""
        raise self._lacks("kill_node")

    def received_bytes(self) -> float | None:
        """Bytes that other nodes have sent to the driver's node so far; None as below."""
        return None

    def sent_bytes(self) -> float | None:
        """Bytes that the driver's node has sent to other nodes so far; None when the framework does not count them."""
        return None

    def settle(self, handle: Handle) -> None:
        """Wait until the handle's value exists, without fetching it (Feature.NODES)."""
        raise self._lacks("settle")

    def fetch(self, handle: Handle) -> Any:
        """The value of one handle; blocks."""
        raise self._lacks("fetch")

    def fetch_all(self, handles: Sequence[Handle]) -> list[Any]:
        """The values of many handles, in order; blocks."""
        return [self.fetch(handle) for handle in handles]

    def put(self, value: object) -> Handle:
        """Store a value; the handle may be an argument of tasks."""
        raise self._lacks("put")

    def map(self, function: Callable[[Any], object], items: Sequence[Any]) -> list[Any]:
        """The results for all items, in order, with the framework's own automatic chunks where it has them."""
        raise self._lacks("map")

    def stream(self, function: Callable[[int], object], count: int, bound: int | None) -> Iterable[Handle]:
        """The handles of what a generator yields, as they come; at most `bound` lie there untaken (Feature.STREAMS)."""
        raise self._lacks("stream")

    def pipeline(
        self, functions: Sequence[Callable[[Any], object]], items: Iterable[Any], apart: bool
    ) -> Iterable[Any]:
        """What comes out of these stages, all in one process or each in one of its own (Feature.PIPELINES)."""
        raise self._lacks("pipeline")

    def actors(self, count: int) -> list[Call]:
        """Create `count` actors (jobs.Counter) spread over the workers; returns their `inc` methods."""
        raise self._lacks("actors")

    def serve(self, functions: Sequence[Callable[..., object]], nodes: Sequence[int]) -> None:
        """Have programs on the nodes serve these functions of jobs.py, where `graph` needs it (Feature.GRAPHS)."""

    def named(self, function: Callable[..., object], node: int) -> Callable[..., Any]:
        """A blocking call, by its name, of a function that a program on that node serves (Feature.NAMES)."""
        raise self._lacks("named")

    def graph(self, steps: Sequence[GraphStep]) -> list[Any]:
        """Hand over all steps as one and wait; the values that no other step takes, in their order (Feature.GRAPHS)."""
        raise self._lacks("graph")

    def time_calls(self, call: Call, seconds: float, at_most: int) -> list[float]:
        """Microseconds of single calls, each fetched before the next is made."""
        fetch = self.fetch
        return latencies(lambda: fetch(call()), seconds, at_most)

    def run_calls(self, calls: Sequence[Call], count: int) -> float:
        """Seconds for `count` calls, taken from `calls` in turn, all submitted before the first is fetched."""
        turns = len(calls)
        before = perf_counter()
        handles = [calls[index % turns]() for index in range(count)]
        self.fetch_all(handles)
        return perf_counter() - before

    def _lacks(self, what: str) -> TypeError:
        """The error of a method that the peer's `features` do not promise."""
        return TypeError(
            f"{self.name} has no {what}: check the workload's needs against {type(self).__name__}.features"
        )


class FuturesPeer(Peer):
    """A peer whose handles have `.result()` and whose pool has `.submit` and `.map`, as concurrent.futures does."""

    def __init__(self) -> None:
        super().__init__()
        self.pool: Any = None
        self.workers = 0

    def task(self, function: Callable[..., object]) -> Call:
        return partial(self.pool.submit, function)

    def fetch(self, handle: Handle) -> Any:
        return handle.result()

    def map(self, function: Callable[[Any], object], items: Sequence[Any]) -> list[Any]:
        # No automatic chunks here: four per worker, as multiprocessing.Pool.map takes.
        return list(self.pool.map(function, items, chunksize=max(1, len(items) // (4 * self.workers))))

    def stop(self) -> None:
        self.pool.shutdown(wait=True)


def bind(steps: Sequence[GraphStep], make: Callable[[GraphStep, list[Any]], Any]) -> list[Any]:
    """What `make(step, arguments)` gives for those steps whose value no other takes: for frameworks whose graphs are
    made of objects. Steps come after those whose values they take."""
    made: dict[str, Any] = {}
    taken: set[str] = set()
    for step in steps:
        names = [arg for arg in step[2] if isinstance(arg, str)]
        taken.update(names)
        made[step[0]] = make(step, [made[arg] if isinstance(arg, str) else arg for arg in step[2]])
    return [value for name, value in made.items() if name not in taken]
