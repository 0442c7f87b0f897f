"""Dask's graphs on a cluster: a scheduler that leaves what lies between two tasks where it was made.

import zmreg.integrations.dask
zmreg.integrations.dask.register()          # dask.compute(...) uses it from now on
x.compute(scheduler=zmreg.integrations.dask.get)   # or for one computation
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import dask
from dask._task_spec import Alias, DataNode, GraphNode, convert_legacy_graph, cull
from dask.callbacks import local_callbacks, unpack_callbacks
from dask.core import flatten
from dask.local import finish_task, nested_get, start_state_from_dask
from dask.order import order

import zmreg

Graph = dict[Any, GraphNode]

# How many tasks are sent ahead for each CPU, at least LEAST in all. They go in Dask's order, which uses values soon
# after they were made: what is far from being needed is not begun, and memory stays small.
AHEAD_PER_CPU = 8
LEAST = 32
# Values of the graph itself: larger ones are put into the store once, smaller ones go with each task that takes them.
INLINE_BYTES = 4_096
_OWN_FRAMES = r"zmreg[\\\/](api|integrations|services)"


@zmreg.remote
def _run(task: GraphNode, given: dict[Any, Any], names: tuple[Any, ...], *values: Any) -> Any:
    return task({**given, **dict(zip(names, values, strict=True))})


def get(
    dsk: Mapping[Any, Any],
    keys: Any,
    num_workers: int | None = None,
    cache: Any = None,
    callbacks: Any = None,
    rerun_exceptions_locally: bool | None = None,
    **_options: Any,
) -> Any:
    """The values of `keys` (one, or nested lists of them) of a graph, as `dask.get` returns them.

    Linear chains become one task each, values between tasks stay in the nodes' stores, and only those of `keys` come
    here, as private copies. At most `num_workers` tasks are under way; None is as many as keep the cluster busy.
    Raises what a task raised. Dask's callbacks (progress bars, profilers) are called; then chains are not fused.
    """
    graph = convert_legacy_graph(dsk if isinstance(dsk, Mapping) else dsk.__dask_graph__())
    wanted = set(flatten(keys)) if isinstance(keys, list) else {keys}
    if cache:
        graph = {**graph, **{key: DataNode(key, value) for key, value in cache.items()}}
    with local_callbacks(callbacks) as active:
        if active:
            values = _watched(graph, wanted, list(active), num_workers)
        else:
            slim = cull(graph, wanted)
            rerun = rerun_exceptions_locally or dask.config.get("rerun_exceptions_locally", False)
            values = _compute(slim, wanted, num_workers, rerun)
    return nested_get(keys, values)


def _fused(graph: Graph, wanted: set[Any]) -> Graph:
    """Chains as one task each, under the name of their last one, so that nothing else in the graph has to change.

    Not Dask's own fusion: it invents names, which meet those it invented before when a graph comes optimized.
    """
    takers: dict[Any, list[Any]] = {}
    for key, node in graph.items():
        for each in node.dependencies:
            takers.setdefault(each, []).append(key)

    def goes_into_its_taker(key: Any) -> bool:
        node, by = graph[key], takers.get(key, ())
        if key in wanted or len(by) != 1 or isinstance(node, DataNode) or node.block_fusion:
            return False
        return len(graph[by[0]].dependencies) == 1 and not graph[by[0]].block_fusion

    inner = {key for key in graph if goes_into_its_taker(key)}
    fused: Graph = {}
    for key in graph:
        if key not in inner:
            chain = [_called(graph[key], key)]
            while len(chain[0].dependencies) == 1 and (below := next(iter(chain[0].dependencies))) in inner:
                chain.insert(0, _called(graph[below], below))
            fused[key] = chain[0] if len(chain) == 1 else GraphNode.fuse(*chain, key=key)
    return fused


def _called(node: GraphNode, key: Any) -> GraphNode:
    """By the name that others in the graph have for it: a graph that comes optimized may call it otherwise."""
    if node.key == key:
        return node
    return Alias(key, node.target) if isinstance(node, Alias) else node.substitute({}, key=key)


def _compute(graph: Graph, wanted: set[Any], num_workers: int | None, rerun: bool) -> dict[Any, Any]:
    places = order(graph)  # which tells of circles, too
    flow = _Flow(graph if rerun else _fused(graph, wanted), wanted, num_workers)
    try:
        for key, ref in flow.run(places):
            if rerun and ref.failed():
                graph[key]({each: flow.value(each) for each in graph[key].dependencies})
            _check(ref)
        return {key: flow.value(key) for key in wanted}
    finally:
        flow.cancel()


class _Flow:
    """One graph on its way: its tasks go out in order, with the refs of earlier ones as their inputs."""

    def __init__(self, graph: Graph, wanted: set[Any], num_workers: int | None, plain: bool = False) -> None:
        """`plain`: other names of values are tasks, as in Dask's own schedulers."""
        cpus = zmreg.cluster_resources().get("CPU", 1)
        self._window = num_workers or max(LEAST, int(cpus * AHEAD_PER_CPU))
        self._graph = graph
        self._plain = plain
        self._wanted = wanted
        self._takers = dict.fromkeys(graph, 0)
        for node in graph.values():
            for each in node.dependencies:
                self._takers[each] += 1
        self._refs: dict[Any, zmreg.ObjectRef[Any]] = {}
        self._here: dict[Any, Any] = {}
        self._under_way: dict[zmreg.ObjectRef[Any], Any] = {}

    def run(self, places: Mapping[Any, int], begun: Callable[[Any], object] | None = None) -> Iterator[Any]:
        """(key, ref) of each task that has ended, failed ones too."""
        done: zmreg.as_completed[Any] = zmreg.as_completed()
        for key in sorted(self._graph, key=places.__getitem__):
            if (ref := self._send(key, begun)) is None:
                continue
            self._under_way[ref] = key
            done.add(ref)
            while len(self._under_way) >= self._window:
                yield self._ended(next(done))
        while self._under_way:
            yield self._ended(next(done))

    def _ended(self, ref: zmreg.ObjectRef[Any]) -> tuple[Any, zmreg.ObjectRef[Any]]:
        return self._under_way.pop(ref), ref

    def _send(self, key: Any, begun: Callable[[Any], object] | None) -> zmreg.ObjectRef[Any] | None:
        """None when nothing has to run for it: it is a value of the graph, or another name of one."""
        node = self._graph[key]
        if isinstance(node, DataNode):
            self._here[key] = node.value
            return None
        if isinstance(node, Alias) and not self._plain:
            if node.target in self._refs:
                self._refs[key] = self._refs[node.target]
            else:
                self._here[key] = self._here[node.target]
            self._taken(node.dependencies)
            return None
        if begun is not None:
            begun(key)
        given = {each: value for each in node.dependencies if each not in self._refs for value in (self._here[each],)}
        for each, value in list(given.items()):
            if _is_large(value):
                self._refs[each] = zmreg.put(value)
                del given[each]
        names = tuple(each for each in node.dependencies if each not in given)
        ref: zmreg.ObjectRef[Any] = _run.remote(node, given, names, *(self._refs[each] for each in names))
        self._refs[key] = ref
        self._taken(node.dependencies)
        return ref

    def _taken(self, keys: Iterable[Any]) -> None:
        """Nobody takes it any more: its value is freed when those that were sent have run."""
        for key in keys:
            self._takers[key] -= 1
            if not self._takers[key] and key not in self._wanted:
                self._refs.pop(key, None)

    def value(self, key: Any) -> Any:
        """Of a key that was wanted, as a private copy."""
        return self._refs[key].get(copy=True) if key in self._refs else self._here[key]

    def cancel(self) -> None:
        """What is still under way, after an error."""
        for ref in self._under_way:
            ref.cancel()


def _is_large(value: Any) -> bool:
    nbytes = getattr(value, "nbytes", 0)
    return isinstance(nbytes, int) and nbytes > INLINE_BYTES


def _check(ref: zmreg.ObjectRef[Any]) -> None:
    """Raise what the task raised: the very exception, with the place as its cause."""
    if not ref.failed():
        return
    error = ref.exception()
    assert error is not None
    if isinstance(error, zmreg.errors.TaskError) and error.cause is not None:
        raise error.cause from zmreg.errors.TaskError(origin=error.origin)
    raise error


def _watched(graph: Graph, wanted: set[Any], active: list[Any], num_workers: int | None) -> dict[Any, Any]:
    """With Dask's callbacks: the same flow, and the state they look at is kept as Dask's own schedulers keep it."""
    _, _, pretask, posttask, _ = unpack_callbacks(active)
    started: list[Any] = []
    state: dict[str, Any] = {}
    succeeded = False
    flow: _Flow | None = None
    try:
        for each in active:
            if each[0]:
                each[0](graph)
            started.append(each)
        places = order(graph)
        state = start_state_from_dask(graph, keys=wanted, sortkey=places.get)
        for _, start_state, _, _, _ in active:
            if start_state:
                start_state(graph, state)
        flow = _Flow(graph, wanted, num_workers, plain=True)

        def begun(key: Any) -> None:
            state["ready"] = [each for each in state["ready"] if each != key]
            state["running"].add(key)
            for tell in pretask:
                tell(key, graph, state)

        for key, ref in flow.run(places, begun):
            _check(ref)
            value = ref.get() if posttask else None
            state["waiting"].pop(key, None)
            state["cache"][key] = value
            finish_task(graph, key, state, wanted, places.get)
            for tell in posttask:
                tell(key, value, graph, state, "zmreg")
        values = {key: flow.value(key) for key in wanted}
        succeeded = True
        return values
    finally:
        if flow is not None:
            flow.cancel()
        for _, _, _, _, finish in started:
            if finish:
                finish(graph, state, not succeeded)


def register() -> dask.config.set:
    """Use it for what follows, or, as a context manager, for the block. Data frames are shuffled by tasks then.

    Tracebacks leave out our frames as they leave out Dask's.
    """
    shorten = [*dask.config.get("admin.traceback.shorten", []), _OWN_FRAMES]
    return dask.config.set(
        {"scheduler": get, "dataframe.shuffle.method": "tasks", "admin.traceback.shorten": list(dict.fromkeys(shorten))}
    )
