"""Any pipeline on real actors equals its plain evaluation (P3 to P6, P11, P12, P16 of spec/streams.md).

Every stage is forced into a process of its own. The machines alone are tried in many more ways in
core/test_pipelines_any_shape.py; here it is that nothing is lost between processes, and nobody waits for ever.
"""

from __future__ import annotations

import threading
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import zmreg
from tests.effort import examples
from zmreg.model.record import Record

pytestmark = [pytest.mark.usefixtures("cluster"), pytest.mark.timeout(180)]

# Much more than any of these takes on a busy machine: what is not through by then stands still.
STANDS_STILL_S = 40.0
INTERLEAVE, CONCAT, ZIP = "interleave", "concat", "zip"
# How much is known of the order of what a stage makes: none of it, that of all that came the same way, all.
NONE, BY_WAY, ALL = range(3)


def same(name: str, item: Any) -> Any:
    return name, item


def some(name: str, item: Any) -> Any:
    """About half of them; None is dropped."""
    return (name, item) if sum(map(ord, repr((name, item)))) % 2 else None


def spread(name: str, item: Any) -> Iterator[Any]:
    """None, one or two."""
    yield from [(name, item)] * (sum(map(ord, repr(item))) % 3)


def stream(name: str, items: Iterable[Any]) -> Iterator[Any]:
    for item in items:
        yield name, item


KINDS: dict[str, Callable[..., Any]] = {"same": same, "some": some, "spread": spread, "stream": stream}


class Told(Record):
    """What is drawn for a stage."""

    kind: str
    merge: str
    lanes: int
    ordered: bool
    before: tuple[str, ...]


def plainly(stages: dict[str, Told], items: list[int]) -> dict[str, list[Any]]:
    made: dict[str, list[Any]] = {}
    for name, told in stages.items():
        streams = [made[each] for each in told.before] or [items]
        joined = told.merge == ZIP
        came: list[Any] = list(zip(*streams, strict=False)) if joined else [x for each in streams for x in each]
        if told.kind == "stream":
            made[name] = list(stream(name, came))
        elif told.kind == "spread":
            made[name] = [out for item in came for out in spread(name, item)]
        else:
            outs = (KINDS[told.kind](name, item) for item in came)
            made[name] = [out for out in outs if out is not None]
    return made


@st.composite
def pipelines(draw: st.DrawFn) -> tuple[dict[str, Told], dict[str, int]]:
    """(stages, how much order each promises). What zips needs to know what it gets: all before it is in order."""
    names = list("abcdef"[: draw(st.integers(2, 6))])
    stages: dict[str, Told] = {}
    order: dict[str, int] = {}
    for at, name in enumerate(names):
        known = names[:at]
        # Mostly behind the one before; sometimes a source of its own, a branch, a merge of two or three.
        before = sorted(draw(st.sets(st.sampled_from(known[-3:]), max_size=3))) if at > 1 else known
        least = min((order[each] for each in before), default=ALL)
        merges = [INTERLEAVE, CONCAT, ZIP] if least == ALL else [INTERLEAVE, CONCAT]
        merge = draw(st.sampled_from(merges)) if len(before) > 1 else INTERLEAVE
        kind = draw(st.sampled_from(sorted(KINDS)))
        lanes = draw(st.sampled_from([1, 1, 1, 1, 1, 2])) if kind != "stream" else 1
        ordered = lanes == 1 or draw(st.booleans())
        order[name] = min(least, BY_WAY if merge == INTERLEAVE and len(before) > 1 else ALL, ALL if ordered else NONE)
        stages[name] = Told(kind, merge, lanes, ordered, tuple(before))
    return stages, order


def by_way(made: list[Any]) -> dict[Any, list[Any]]:
    """What came through the same stages. Through `zip` none of it goes where only that is known."""
    found: dict[Any, list[Any]] = defaultdict(list)
    for item in made:
        way, inner = [], item
        while isinstance(inner, tuple) and len(inner) == 2 and isinstance(inner[0], str):
            way.append(inner[0])
            inner = inner[1]
        found[tuple(way)].append(item)
    return found


@settings(
    max_examples=examples(8), deadline=None, database=None, suppress_health_check=list(HealthCheck),
)  # fmt: skip
@given(drawn=pipelines(), items=st.lists(st.integers(0, 99), max_size=24), buffer=st.sampled_from([1, 1, 2, 16]))
def test_P3_P4_P5_P6_P11_any_shape_of_real_stages_gives_what_its_plain_evaluation_gives(
    drawn: tuple[dict[str, Told], dict[str, int]], items: list[int], buffer: int
) -> None:
    stages, order = drawn
    wishes = {}
    for name, told in stages.items():
        wish: Any = partial(KINDS[told.kind], name)
        options: dict[str, Any] = {"stream": True} if told.kind == "stream" else {}
        wishes[name] = zmreg.stage(
            wish, merge=told.merge, concurrency=told.lanes, ordered=told.ordered, **options
        )  # fmt: skip
    edges = [(before, name) for name, told in stages.items() for before in told.before]
    pipe = zmreg.Pipeline.graph(wishes, edges)
    assert len(pipe.plan(buffer, fuse=False).segments) == len(stages)
    wanted = plainly(stages, items)

    run = pipe.stream(items, buffer=buffer, fuse=False)
    stands_still = threading.Event()
    watch = threading.Timer(STANDS_STILL_S, lambda: (stands_still.set(), run.close()))
    watch.start()
    try:
        made = run.outputs
    finally:
        watch.cancel()
        run.close()
    assert not stands_still.is_set(), f"nothing goes on: {run.metrics().to_json()}"
    assert made.keys() == set(stages) - {before for before, _ in edges}
    for sink, got in made.items():
        if order[sink] == ALL:
            assert got == wanted[sink]
        elif order[sink] == BY_WAY:
            assert by_way(got) == by_way(wanted[sink])
        else:
            assert Counter(got) == Counter(wanted[sink])
