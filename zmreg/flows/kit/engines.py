"""Processes with named globals, driven together: `view = zmreg.engines()`, `view["x"] = 1`, `view.execute(code)`."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Self

from zmreg.api.actors import ActorClass, kill
from zmreg.api.cluster import get, init, nodes, put
from zmreg.api.functions import RemoteFunction
from zmreg.api.refs import ObjectRef
from zmreg.api.strategies import NodeAffinitySchedulingStrategy
from zmreg.model.arguments import check_count, check_seconds
from zmreg.model.errors import ActorDiedError, ClusterError, EngineError, GetTimeoutError, TaskError

# On a machine with many CPUs; more by hand would be a task's business.
MOST_A_NODE: Final = 64

Outcome = dict[str, Any]
"""{"text": printed, "forms": [{mime type: data}], "error": traceback or "", "value": ...} of a cell."""


class _Group:
    """The engines that were made together, by number."""

    def __init__(self, count: int | None, wanted: frozenset[str] | None, locs: frozenset[str]) -> None:
        self._count = count
        self._wanted = wanted
        self._locs = locs
        self._of: dict[int, tuple[str, Any]] = {}
        """{number: (node id, handle)}. A number is never given to another node."""
        self.session = ""

    def renew(self) -> None:
        """One for each CPU of each living node, or as many as were asked for; new ones where engines have died."""
        session = init(ignore_reinit_error=True).session
        if session != self.session:
            self.session, self._of = session, {}
        rows = [row for row in nodes() if row["Alive"] and self._locs <= set(row["Locs"])]
        cpus = {
            row["NodeID"]: min(MOST_A_NODE, int(row["Resources"].get("CPU", 0)))
            for row in rows
            if self._wanted is None or row["NodeID"] in self._wanted
        }
        self._of = {number: pair for number, pair in self._of.items() if pair[0] in cpus}
        for node, count in self._places(cpus).items():
            for _ in range(count - sum(each == node for each, _ in self._of.values())):
                self._start(node)

    def _places(self, cpus: Mapping[str, int]) -> dict[str, int]:
        """How many each node is to have."""
        if self._count is None:
            return dict(cpus)
        if not cpus:
            raise ClusterError("no living node may have engines: see `nodes` and `locs`, and zmreg.nodes()")
        have = dict.fromkeys(cpus, 0)
        for node, _ in self._of.values():
            have[node] += 1
        for _ in range(self._count - sum(have.values())):  # to where most CPUs have none yet
            have[max(have, key=lambda node: (cpus[node] - have[node], node))] += 1
        return have

    def _start(self, node: str) -> None:
        from zmreg.flows.kit.engine_actor import Engine  # late: it brings what shows tracebacks

        number = next(each for each in range(len(self._of) + 1) if each not in self._of)
        there = NodeAffinitySchedulingStrategy(node, soft=False)
        made: ActorClass[Any] = ActorClass(Engine, {"num_cpus": 0, "scheduling_strategy": there})
        self._of[number] = node, made.remote(number)

    @property
    def numbers(self) -> tuple[int, ...]:
        return tuple(sorted(self._of))

    def handle(self, number: int) -> Any:
        if number not in self._of:
            raise ClusterError(f"engine {number} is gone, and its names with it: `refresh()` starts another")
        return self._of[number][1]

    def drop(self, number: int) -> None:
        """It is dead: `renew` makes another one, with an empty namespace."""
        self._of.pop(number, None)

    def end(self) -> None:
        for _, handle in self._of.values():
            kill(handle)
        self._of.clear()


class EngineView:
    """All or some of the engines that `zmreg.engines` has made. What it does, it does on all of its engines at once.

    Each engine is a process with global names of its own, which stay from call to call; `engine` is its number. They
    take no CPU from tasks, and end with the program, or with the last view of them, or by `close`. When something fails
    on some engines, the others go on to their end, and EngineError says which have failed and how. Waits end after
    `timeout` seconds with GetTimeoutError, or by Ctrl-C, and interrupt what runs.
    """

    def __init__(self, group: _Group, ids: tuple[int, ...], single: bool = False, timeout: float | None = None) -> None:
        self._group = group
        self._single = single
        self.ids = ids
        """The numbers of its engines."""
        self.timeout = timeout

    def __len__(self) -> int:
        return len(self.ids)

    def __repr__(self) -> str:
        return f"<EngineView of engines {spans(self.ids) or 'none'}>"

    # -- which ------------------------------------------------------------------------------------------------------

    def __getitem__(self, which: Any) -> Any:
        """By a name: its values, one for each engine. By a place, a slice or a list of places: a view of these engines.

        Of a view made by one place, `pull`, `gather` and `apply` give the value itself, and not a list with one.
        """
        if isinstance(which, str):
            return self.pull(which)
        if isinstance(which, slice):
            return EngineView(self._group, self.ids[which], timeout=self.timeout)
        if isinstance(which, int):
            if not -len(self.ids) <= which < len(self.ids):
                raise IndexError(f"there is no engine at place {which}: this view has {len(self.ids)}")
            return EngineView(self._group, (self.ids[which],), True, self.timeout)
        return EngineView(self._group, tuple(self.ids[each] for each in which), timeout=self.timeout)

    def __setitem__(self, name: str, value: Any) -> None:
        self.push({name: value})

    def __delitem__(self, name: str) -> None:
        self._on_all(f"del {name}", lambda engine: engine.delete.remote(name))

    def select(self, text: str) -> EngineView:
        """By numbers: `"0,2-4"`; all for `""`. ValueError for those that are not there."""
        return EngineView(self._group, tuple(numbers(text, self.ids)), timeout=self.timeout)

    def refresh(self) -> EngineView:
        """A view of all engines, after new ones were started where nodes have come or engines have died."""
        self._group.renew()
        return EngineView(self._group, self._group.numbers, timeout=self.timeout)

    def close(self) -> None:
        """End all engines of the group, also those of other views."""
        self._group.end()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- names ------------------------------------------------------------------------------------------------------

    def push(self, names: Mapping[str, Any]) -> None:
        """Set names. A value goes once to each node, and not to each engine: its engines read it in place.

        So arrays are read-only there (`x = x.copy()` before writing). A ref stands for its value.
        """
        for name in names:
            if not isinstance(name, str) or not name.isidentifier():
                raise ValueError(f"{name!r} cannot be the name of a variable")
        sent = _sent(names.values())
        self._on_all("push", lambda engine: engine.push.remote(tuple(names), *sent))

    update = push

    def pull(self, names: str | Sequence[str]) -> Any:
        """The values of a name, one for each engine; of several names a list of values for each engine."""
        one = isinstance(names, str)
        wanted = [names] if isinstance(names, str) else list(names)
        found = self._on_all(f"pull {', '.join(wanted)}", lambda engine: engine.pull.remote(wanted))
        return self._given([values[0] if one else values for values in found.values()])

    def scatter(self, name: str, values: Any) -> None:
        """Set `name` to a part of a sequence or an array on each engine, in order; parts differ by one item at most."""
        count, rest = divmod(len(values), max(1, len(self.ids)))
        begin, parts = 0, dict[int, Any]()
        for place, number in enumerate(self.ids):
            end = begin + count + (place < rest)
            parts[number] = put(values[begin:end])
            begin = end
        self._on_each(f"scatter {name}", lambda number, engine: engine.push.remote((name,), parts[number]))

    def gather(self, name: str) -> Any:
        """The parts of `scatter`, one behind the other: an array if they are arrays, else a list."""
        parts = [
            values[0] for values in self._on_all(f"gather {name}", lambda engine: engine.pull.remote([name])).values()
        ]
        if parts and all(hasattr(part, "__array__") for part in parts):
            import numpy  # late: only who has arrays has it

            return numpy.concatenate(parts)
        return [item for part in parts for item in part]

    @contextlib.contextmanager
    def sync_imports(self) -> Iterator[None]:
        """What is imported in the `with` block here is imported by all engines at its end, under the same names."""
        from zmreg.flows.kit.engine_imports import Watched  # late, as all that few need

        with Watched(sys._getframe(2)) as watched:
            yield
        found = watched.found()
        self._on_all("sync_imports", lambda engine: engine.imports.remote(found))

    # -- code -------------------------------------------------------------------------------------------------------

    def execute(self, source: str, *, show: bool = True) -> dict[int, str]:
        """Run code among the names: {engine: what it has printed}, which is shown here, too, engines that have printed
        the same together. `await` may stand at its top."""
        return self._execute(source, "", show)

    def run(self, path: str | Path, *, show: bool = True) -> dict[int, str]:
        """`execute` a file of this machine."""
        return self._execute(Path(path).read_text(encoding="utf-8"), str(path), show)

    def apply(self, function: Callable[..., Any] | RemoteFunction[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        """Call a function on all engines: the results, in their order. Refs among the arguments stand for their values.

        A function that this program has defined in its main module, or a notebook in a cell, finds the engine's names
        among its globals, before those that came along from here.
        """
        called = getattr(function, "_function", function)
        what, sent = put(called), _sent([*args, *kwargs.values()])
        named = tuple(kwargs)
        label = getattr(called, "__name__", repr(called))
        found = self._on_all(label, lambda engine: engine.apply.remote(what, named, *sent))
        return self._given(list(found.values()))

    def cell(self, source: str, keep_value: bool = False) -> dict[int, Outcome]:
        """Run code as `%%zmreg` does: {engine: what has come of it}. Errors are among that, and not raised."""
        refs = {number: self._group.handle(number).cell.remote(source, keep_value) for number in self.ids}
        outcomes = {}
        for number, value in self._waited(refs).items():
            if isinstance(value, BaseException):
                value = {"text": "", "forms": [], "error": f"{type(value).__name__}: {value}", "value": None}
            outcomes[number] = value
        return outcomes

    def grouped(self, outcomes: Mapping[int, Outcome]) -> list[tuple[str, Outcome]]:
        """What `cell` gave, engines with the same together: [("0-3, 5", outcome)]."""
        return [(spans(group), outcome) for group, outcome in grouped(outcomes)]

    def label(self, engines: Iterable[int]) -> str:
        """Numbers for people: 0-3, 5."""
        return spans(engines)

    def _execute(self, source: str, name: str, show: bool) -> dict[int, str]:
        printed: dict[int, str] = {}
        try:
            printed = self._on_all(name or "execute", lambda engine: engine.execute.remote(source, name))
        except EngineError as error:
            printed = {number: str(text) for number, text in error.results.items()}
            lost = {n: self._group.handle(n).printed.remote() for n in error.errors if n in self._group.numbers}
            printed |= {n: text for n, text in self._waited(lost).items() if isinstance(text, str)}
            raise
        finally:
            if show:
                _show(printed)
        return printed

    # -- on all -----------------------------------------------------------------------------------------------------

    def _given(self, values: list[Any]) -> Any:
        return values[0] if self._single else values

    def _on_all(self, what: str, call: Callable[[Any], ObjectRef[Any]]) -> dict[int, Any]:
        return self._on_each(what, lambda _, engine: call(engine))

    def _on_each(self, what: str, call: Callable[[int, Any], ObjectRef[Any]]) -> dict[int, Any]:
        found = self._waited({number: call(number, self._group.handle(number)) for number in self.ids})
        errors = {number: value for number, value in found.items() if isinstance(value, BaseException)}
        if errors:
            raise _collected(what, errors, found)
        return found

    def _waited(self, refs: Mapping[int, ObjectRef[Any]]) -> dict[int, Any]:
        """Values, and errors in their places."""
        try:
            values: Sequence[Any] = get(list(refs.values()), self.timeout, return_exceptions=True)
        except (KeyboardInterrupt, GetTimeoutError):
            for ref in refs.values():
                ref.cancel()
            raise
        for number, value in zip(refs, values, strict=True):
            if isinstance(value, ActorDiedError):
                self._group.drop(number)
        return dict(zip(refs, values, strict=True))


def engines(
    n: int | None = None,
    *,
    nodes: str | Iterable[str] | None = None,
    locs: Iterable[str] = (),
    timeout: float | None = None,
) -> EngineView:
    """Start processes with named globals, `n` in all or one for each CPU, 64 on a node at most: a view of them.

    `nodes`: ids as in `zmreg.nodes()`, by default all that live; `locs`: only nodes that have all of these. `timeout`:
    seconds for each call of the view, which may be changed there. Raises ValueError for n < 1, ClusterError when no
    node may have any.
    """
    if n is not None:
        n = check_count(n, "n", 1)
    check_seconds(timeout)
    wanted = None if nodes is None else frozenset([nodes] if isinstance(nodes, str) else nodes)
    group = _Group(n, wanted, frozenset(locs))
    group.renew()
    return EngineView(group, group.numbers, timeout=timeout)


def _sent(values: Iterable[Any]) -> list[Any]:
    """Stored once for all engines; what is small rides in each message."""
    return [value if isinstance(value, ObjectRef) else put(value) for value in values]


def _collected(what: str, errors: Mapping[int, BaseException], found: Mapping[int, Any]) -> EngineError:
    """One error for all of them, those that are alike in one line."""
    alike: dict[str, list[int]] = {}
    for number, error in errors.items():
        first = next(iter(str(error).strip().splitlines()), "")
        kind = "" if isinstance(error, TaskError) else f"{type(error).__name__}: "
        alike.setdefault(kind + first, []).append(number)
    lines = [f"  [{spans(group)}] {text}" for text, group in alike.items()]
    whole = EngineError("\n".join([f"{what} failed on {len(errors)} of {len(found)} engines:", *lines]))
    whole.errors = dict(errors)
    whole.results = {number: value for number, value in found.items() if number not in errors}
    whole.__cause__ = next(iter(errors.values()))
    return whole


def _show(printed: Mapping[int, str]) -> None:
    for group, outcome in grouped({n: {"text": text, "forms": [], "error": ""} for n, text in printed.items()}):
        text = outcome["text"].rstrip("\n")
        if text:
            print(f"[{spans(group)}]", text, sep="\n" if "\n" in text else " ")


def numbers(text: str, known: Iterable[int]) -> list[int]:
    """`0,2-4` as numbers. ValueError for those that are not there."""
    wanted = list(known)
    if not text:
        return wanted
    found: dict[int, None] = {}
    for part in text.split(","):
        first, _, last = part.strip().partition("-")
        found |= dict.fromkeys(range(int(first), int(last or first) + 1))
    if missing := [each for each in found if each not in wanted]:
        raise ValueError(f"there is no worker {missing[0]}; they are {spans(wanted)}")
    return list(found)


def spans(wanted: Iterable[int]) -> str:
    """Numbers for people: 0-3, 5."""
    runs: list[list[int]] = []
    for number in sorted(wanted):
        if runs and runs[-1][1] == number - 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ", ".join(str(first) if first == last else f"{first}-{last}" for first, last in runs)


def grouped(outcomes: Mapping[int, Outcome]) -> list[tuple[list[int], Outcome]]:
    """Engines with the same output together, in the order of their first."""
    groups: dict[str, tuple[list[int], Outcome]] = {}
    for number, outcome in outcomes.items():
        key = repr((outcome["text"], outcome["error"], outcome["forms"]))
        groups.setdefault(key, ([], outcome))[0].append(number)
    return list(groups.values())
