"""The shape of pipelines, and the machines between stages. P rows of streams.md."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zmreg.core.merging import CONCAT, INTERLEAVE, MODES, ZIP, Merge
from zmreg.core.pipelines import topology
from zmreg.core.reorder import Reorder
from zmreg.core.windows import Window
from zmreg.model.errors import CycleError, DuplicateStepError, GraphError

DIAMOND = (("s", "a"), ("s", "b"), ("a", "m"), ("b", "m"))


def test_P2_two_chains_beside_each_other_are_not_one():
    two = topology("abcd", [("a", "b"), ("c", "d")])
    assert not two.is_linear and two.info().strategy == "graph"
    assert [each.stages for each in two.segments(dict.fromkeys("abcd", 0))] == [("a", "b"), ("c", "d")]
    one = topology("abc", [("a", "b"), ("b", "c")])
    assert one.is_linear and [each.stages for each in one.segments(dict.fromkeys("abc", 0))] == [("a", "b", "c")]


def test_P2_a_stretch_ends_where_the_place_changes_and_at_branches():
    chain = topology("abcd", [("a", "b"), ("b", "c"), ("c", "d")])
    homes = {"a": 0, "b": 1, "c": 1, "d": None}
    assert [each.stages for each in chain.segments(homes)] == [("a",), ("b", "c"), ("d",)]
    diamond = topology("sabm", DIAMOND)
    parts = diamond.segments(dict.fromkeys("sabm", 0))
    assert [each.name for each in parts] == ["s", "a", "b", "m"]
    assert [edge.source for edge in parts[-1].inputs] == ["a", "b"] and len(parts[0].outputs) == 2


def test_P23_what_a_pipeline_looks_like_is_known_before_it_runs():
    info = topology("msab", DIAMOND).info()
    assert (info.nodes, info.sources, info.sinks, info.strategy) == (4, ("s",), ("m",), "graph")
    assert info.execution_order == ("s", "a", "b", "m")


def test_P23_what_makes_no_sense_is_told_when_it_is_built():
    with pytest.raises(GraphError, match="without stages"):
        topology("", [])
    with pytest.raises(GraphError, match="there is no stage 'x'; there are 'a', 'b'"):
        topology("ab", [("a", "x")])
    with pytest.raises(DuplicateStepError, match="two stages are called 'a'"):
        topology("aba", [])
    with pytest.raises(GraphError, match="listed twice"):
        topology("ab", [("a", "b"), ("a", "b")])
    with pytest.raises(CycleError) as cycle:
        topology("abcd", [("a", "b"), ("b", "c"), ("c", "b"), ("c", "d")])
    assert cycle.value.path in (("b", "c", "b"), ("c", "b", "c"))


@given(
    st.sampled_from(MODES),
    st.integers(1, 4),
    st.lists(st.lists(st.integers(), max_size=8), min_size=1, max_size=4),
    st.randoms(),
)
def test_P4_each_way_to_merge_gives_what_it_says_whatever_comes_first(mode, buffer, streams, chance):
    merge: Merge[tuple[int, int]] = Merge(mode, len(streams), buffer)
    left = [[(edge, item) for item in stream] for edge, stream in enumerate(streams)]
    open_edges = set(range(len(streams)))
    got = []
    while open_edges or not merge.is_over:
        able = [edge for edge in open_edges if not left[edge] or merge.room(edge)]
        if able and (chance.random() < 0.6):
            edge = chance.choice(able)
            if left[edge]:
                count = min(merge.room(edge), len(left[edge]), chance.randint(1, 3))
                merge.take(edge, left[edge][:count])
                del left[edge][:count]
            else:
                merge.end(edge)
                open_edges.discard(edge)
        elif (item := merge.next()) is not None:
            got.append(item)
        else:
            assert able or merge.is_over, f"nothing can go on: {merge}"
        assert mode != INTERLEAVE or not merge.spilled
    whole = [[(edge, item) for item in stream] for edge, stream in enumerate(streams)]
    if mode == ZIP:
        assert got == list(zip(*whole, strict=False))
    elif mode == CONCAT:
        assert got == [(item,) for stream in whole for item in stream]
    else:
        for edge, stream in enumerate(whole):
            assert [item for (item,) in got if item[0] == edge] == stream
        assert len(got) == sum(map(len, whole))


def test_P4_an_unknown_merge_or_no_room_at_all_is_an_error():
    with pytest.raises(ValueError, match="merge='mix'"):
        Merge("mix", 2, 1)
    with pytest.raises(ValueError, match="buffer=0"):
        Merge(ZIP, 2, 0)
    merge = Merge(ZIP, 1, 1)
    merge.end(0)
    with pytest.raises(ValueError, match="has ended"):
        merge.take(0, [1])


@given(st.integers(1, 6), st.booleans(), st.integers(0, 30), st.randoms())
def test_P11_what_is_done_in_any_order_is_given_on_in_order(window, ordered, count, chance):
    reorder: Reorder[int] = Reorder(window, ordered)
    out, got, begun = [], [], 0
    while len(got) < count:
        if begun < count and reorder.room and chance.random() < 0.6:
            out.append(reorder.begin())
            begun += 1
        elif out:
            number = out.pop(chance.randrange(len(out)))
            got += reorder.finish(number, number)
        assert len(out) <= window and begun - len(got) <= window
    assert reorder.is_idle
    assert (got if ordered else sorted(got)) == list(range(count))


def test_P11_numbers_that_are_not_out_and_no_room_are_errors():
    reorder: Reorder[int] = Reorder(1)
    assert reorder.begin() == 0
    with pytest.raises(ValueError, match="1 are out"):
        reorder.begin()
    with pytest.raises(ValueError, match="3 is not out"):
        reorder.finish(3, 0)
    with pytest.raises(ValueError, match="window=0"):
        Reorder(0)


@given(st.integers(1, 5), st.integers(0, 100), st.lists(st.integers(0, 80), max_size=30), st.randoms())
def test_P12_no_more_is_on_its_way_than_was_allowed_but_for_one_large_item(items, nbytes, sizes, chance):
    window = Window(items, nbytes)
    out: list[int] = []
    for size in sizes:
        while not window.fits(size):
            out.pop(0)
            window.accepted()
        window.sent(1, size)
        out.append(size)
        assert (window.out_items, window.out_bytes) == (len(out), sum(out))
        assert len(out) <= items and (sum(out) <= nbytes or len(out) == 1)
        if out and chance.random() < 0.3:
            out.pop(0)
            window.accepted()
    window.shrink(0, 10)
    assert window.items == 1
    with pytest.raises(ValueError, match="lets nothing through"):
        Window(0, 10)
