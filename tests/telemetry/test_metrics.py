"""Row 75, what needs no process: what is told of metrics, how a node adds it up, and the text that is made of it."""

from __future__ import annotations

import json
import math
from collections import Counter as Count

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests import prometheus
from zmreg.telemetry import exposition
from zmreg.telemetry.families import (
    ACROSS,
    Family,
    added,
    check_bounds,
    check_labels,
    check_name,
    clean,
    dropped_values,
    read,
    told_by_nodes,
)
from zmreg.telemetry.meters import MOST_SERIES, Meters, total_name
from zmreg.telemetry.tally import MOST_NAMES, Tally

A, B, C = b"process1", b"process2", b"process3"
HITS = Family("hits_total", "counter", "Hits.", ("path",))
DEPTH = Family("depth", "gauge")
TOOK = Family("took_seconds", "histogram", "Took.", ("path",), (0.1, 1.0))


def travelled(families: list[Family]) -> list[Family]:
    """As they arrive."""
    return read(json.loads(json.dumps([family.as_row() for family in families])))


def told(tally: Tally, name: str) -> dict:
    return dict(next((family.series for family in tally.families() if family.name == name), {}))


# -- text --------------------------------------------------------------------------------------------------------------

VALUES = st.floats() | st.integers(-(10**18), 10**18).map(float)
TEXTS = st.text(max_size=20).map(clean)


@st.composite
def families(draw: st.DrawFn) -> Family:
    kind = draw(st.sampled_from(["counter", "gauge", "histogram"]))
    name = draw(st.from_regex(r"[a-zA-Z_:][a-zA-Z0-9_:]{0,8}", fullmatch=True))
    labels = draw(st.lists(st.sampled_from(["a", "node", "B_2", "_x"]), unique=True, max_size=3))
    bounds = tuple(sorted(draw(st.sets(st.floats(-1e6, 1e6), min_size=1, max_size=4)))) if kind == "histogram" else ()
    one = st.lists(st.integers(0, 99).map(float), min_size=len(bounds) + 1, max_size=len(bounds) + 1)
    value = st.tuples(one, VALUES).map(lambda pair: (*pair[0], pair[1])) if bounds else VALUES
    series = draw(st.dictionaries(st.tuples(*[TEXTS for _ in labels]), value, min_size=1, max_size=4))
    shown = total_name(name) if kind == "counter" else f"{name}_g" if name.endswith("_total") else name
    return Family(shown, kind, draw(st.text(max_size=30)), tuple(labels), bounds, series=series)


@given(st.lists(families(), max_size=5, unique_by=lambda family: family.name), st.booleans())
def test_row_75_any_metrics_are_text_that_reads_back_equal(found, by_node):
    shown = told_by_nodes({"n1": found, "n2": found}) if by_node else found
    if not shown:
        assert exposition.text(shown) == ""
        return
    if any(f"{one.name}{part}" == other.name for one in shown for part in prometheus.PARTS for other in shown):
        return  # what a process refuses (test_row_75_a_name_that_is_taken)
    back = prometheus.read(exposition.text(shown))
    assert list(back) == [family.name for family in shown]
    for family in shown:
        assert back[family.name].kind == family.kind
        for labels, value in family.series.items():
            pairs = frozenset(zip(family.labels, labels, strict=True))
            if isinstance(value, tuple):
                assert back[family.name].samples[f"{family.name}_count", pairs] == sum(value[:-1])
            else:
                read_back = back[family.name].samples[family.name, pairs]
                assert read_back == value or (math.isnan(read_back) and math.isnan(value))


@given(st.lists(families(), max_size=3, unique_by=lambda family: family.name))
def test_row_75_what_travels_is_what_was_said(found):
    assert [family.as_row()[:7] for family in travelled(found)] == [family.as_row()[:7] for family in found]
    assert [repr(family.series) for family in travelled(found)] == [repr(dict(family.series)) for family in found]


def test_row_75_help_and_labels_are_escaped_and_numbers_are_prometheus():
    family = Family("x", "gauge", 'a\\b\n"c"', ("path",), series={('C:\\a\n"b"',): math.inf, ("ä",): math.nan})
    assert exposition.text([family]).splitlines() == [
        '# HELP x a\\\\b\\n"c"', "# TYPE x gauge", 'x{path="C:\\\\a\\n\\"b\\""} +Inf', 'x{path="ä"} NaN',
    ]  # fmt: skip
    assert [exposition.number(value) for value in (1.0, 0.1, -2.5e-9, 1e20)] == ["1", "0.1", "-2.5e-09", "1e+20"]
    (plain,) = exposition.plain([family])
    assert {sample["value"] for sample in plain["samples"]} == {"+Inf", "NaN"} and json.dumps(plain)


def test_row_75_what_is_the_clusters_has_no_node_and_a_users_node_is_exported():
    users = Family("x", "gauge", "", ("node",), series={("mine",): 1.0})
    whole = Family("zmreg_nodes", "gauge", "", ("state",), whole=True, series={("alive",): 2.0})
    text = exposition.text(told_by_nodes({"n1": [users, whole]}))
    assert 'x{node="n1",exported_node="mine"} 1' in text and 'zmreg_nodes{state="alive"} 2' in text


def test_row_75_what_two_nodes_call_differently_is_told_as_by_the_first():
    shown = told_by_nodes({"n1": [DEPTH.but(series={(): 1.0})], "n2": [HITS.but(name="depth", series={("a",): 1.0})]})
    assert [dict(family.series) for family in shown] == [{("n1",): 1.0}]


# -- what a process counts ---------------------------------------------------------------------------------------------


def test_row_75_only_what_has_changed_is_told_and_always_as_a_total():
    meters = Meters()
    hits, took = meters.meter(HITS), meters.meter(TOOK)
    assert hits.add(("/a",), 1.0) and hits.add(("/b",), 2.0) and took.observe(("/a",), 0.1) and took.observe(("/a",), 5)
    assert {family.name: dict(family.series) for family in meters.changes()} == {
        "hits_total": {("/a",): 1.0, ("/b",): 2.0}, "took_seconds": {("/a",): (1.0, 0.0, 1.0, 5.1)},
    }  # fmt: skip
    assert not list(meters.changes()) and not meters.has_changes()
    hits.add(("/a",), 1.0)
    assert meters.has_changes() and [dict(family.series) for family in meters.changes()] == [{("/a",): 2.0}]


def test_row_75_series_of_one_name_are_bounded_and_what_is_refused_is_counted():
    meters = Meters()
    hits = meters.meter(HITS)
    assert all(hits.add((str(user),), 1.0) for user in range(MOST_SERIES))
    assert not hits.add(("one more",), 1.0) and not hits.add(("and one",), 1.0) and hits.add(("0",), 1.0)
    assert meters.refused() == {"hits_total": 2}


def test_row_75_a_name_that_is_taken_by_another_metric_is_refused():
    meters = Meters()
    assert meters.meter(HITS) is meters.meter(HITS.but(text="Other words."))
    meters.meter(TOOK)
    for other in (HITS.but(labels=()), HITS.but(kind="gauge"), TOOK.but(bounds=(0.5,)),
                  Family("took_seconds_count", "gauge")):  # fmt: skip
        with pytest.raises(ValueError, match="take another name|would be shown under"):
            meters.meter(other)


def test_row_75_what_makes_no_sense_is_refused_in_words():
    for wrong in ("", "1a", "a b", "ä", "a-b"):
        with pytest.raises(ValueError, match="no name of a metric"):
            check_name(wrong)
    for labels in (["le"], ["__a"], ["a", "a"], ["a-b"], [f"l{n}" for n in range(11)]):
        with pytest.raises(ValueError, match="tag"):
            check_labels(labels)
    for bounds in ([], [1, 1], [2, 1], [math.inf], [math.nan], range(101)):
        with pytest.raises(ValueError, match="boundaries"):
            check_bounds(bounds)
    assert len(clean("x" * 500)) == 200 and clean("a\ud800b") == "a?b"


ROW = HITS.but(series={("/a",): 1.0}).as_row()
NONSENSE = [
    7, [7], [[]], [ROW[:-1]], [[*ROW[:1], "timer", *ROW[2:]]], [["1x", *ROW[1:]]], [[*ROW[:7], [[["/a", "b"], 1.0]]]],
    [[*ROW[:7], [[["x" * 201], 1.0]]]], [[*ROW[:7], [[[7], 1.0]]]], [[*ROW[:7], [[["/a"], "many"]]]],
    [[*ROW[:7], [["/a"]]]], [[*ROW[:7], 3]], [[*ROW[:3], ["le"], *ROW[4:]]], [[*ROW[:3], None, *ROW[4:]]],
    [[*ROW[:5], "product", *ROW[6:]]], [[*ROW[:2], 5, *ROW[3:]]],
    [TOOK.but(series={("/a",): (1.0, 1.0)}).as_row()], [TOOK.but(bounds=(2.0, 1.0)).as_row()],
]  # fmt: skip


@pytest.mark.parametrize("rows", NONSENSE, ids=range(len(NONSENSE)))
def test_row_75_what_somebody_sends_is_checked_before_it_is_kept(rows):
    with pytest.raises((ValueError, TypeError)):
        read(rows)


# -- what a node keeps -------------------------------------------------------------------------------------------------


def test_row_75_a_worker_that_ends_keeps_its_counters_sum_and_its_gauges_go():
    tally = Tally()
    tally.hear(A, travelled([HITS.but(series={("/a",): 3.0}), DEPTH.but(series={(): 5.0})]))
    tally.hear(B, travelled([HITS.but(series={("/a",): 4.0, ("/b",): 1.0}), DEPTH.but(series={(): 6.0})]))
    assert told(tally, "hits_total") == {("/a",): 7.0, ("/b",): 1.0} and told(tally, "depth") == {(): 11.0}
    tally.gone(A)
    tally.hear(B, travelled([HITS.but(series={("/a",): 5.0})]))
    assert told(tally, "hits_total") == {("/a",): 8.0, ("/b",): 1.0} and told(tally, "depth") == {(): 6.0}
    tally.gone(B)
    tally.gone(B)
    assert told(tally, "hits_total") == {("/a",): 8.0, ("/b",): 1.0} and not told(tally, "depth")


def test_row_75_gauges_of_several_processes_by_what_they_ask_for():
    for across, expected in zip(ACROSS, (6.0, 3.0, 1.0, 2.0), strict=True):
        tally, depth = Tally(), DEPTH.but(across=across)
        for process, value in ((A, 9.0), (B, 3.0), (A, 1.0), (C, 2.0)):
            tally.hear(process, [depth.but(series={(): value})])
        assert told(tally, "depth") == {(): expected}, across


def test_row_75_a_node_takes_so_many_series_and_bytes_and_says_what_it_did_not_take():
    tally = Tally(most_series=3)
    assert tally.hear(A, [HITS.but(series={("1",): 1.0, ("2",): 1.0})]) == []
    assert tally.hear(B, [HITS.but(series={("2",): 1.0, ("3",): 1.0, ("4",): 1.0, ("5",): 1.0})]) == ["hits_total"]
    assert tally.hear(B, [HITS.but(series={("4",): 2.0})]) == []  # said once
    assert told(tally, "hits_total") == {("1",): 1.0, ("2",): 2.0, ("3",): 1.0}
    assert told(tally, "zmreg_metrics_dropped_total") == {("hits_total",): 3.0}
    assert tally.hear(C, [HITS.but(kind="gauge", series={("1",): 1.0})]) == []
    assert tally.hear(C, [dropped_values({("hits_total",): 5.0})]) == []  # what a process has refused itself
    assert told(tally, "zmreg_metrics_dropped_total") == {("hits_total",): 9.0}
    small = Tally(most_bytes=1_000)
    assert small.hear(A, [HITS.but(series={("x" * 200,): 1.0})]) == ["hits_total"]
    assert small.hear(A, [DEPTH.but(series={(): 1.0})]) == []
    small.gone(A)
    small.hear(B, [DEPTH.but(series={(): 2.0})])
    assert told(small, "depth") == {(): 2.0}


def test_row_75_a_node_takes_so_many_names():
    tally = Tally()
    many = [HITS.but(name=f"hits{number}_total", series={("a",): 1.0}) for number in range(MOST_NAMES + 3)]
    assert tally.hear(A, many) == [f"hits{MOST_NAMES}_total"] and tally.hear(A, many) == []
    assert len(tally.families()) == MOST_NAMES + 1
    assert told(tally, "zmreg_metrics_dropped_total") == {("(others)",): 6.0}


def test_row_75_gauges_that_come_and_go_leave_room_for_others():
    tally = Tally(most_series=2)
    levels = DEPTH.but(labels=("who",))
    for number in range(50):
        process = f"p{number:07}".encode()
        assert tally.hear(process, [levels.but(series={(f"{number}",): 1.0})]) == []
        tally.gone(process)
    assert not tally.families()


STEPS = st.lists(
    st.tuples(st.sampled_from([A, B, C]), st.sampled_from(["count", "tell", "lose", "die"]), st.sampled_from("xy")),
    max_size=60,
)


@given(STEPS)
def test_row_75_in_any_order_of_telling_losing_and_dying_totals_are_exact_and_never_go_back(steps):
    """What a process has told counts; a telling that is lost is made up for by the next one of that series."""
    tally, expected = Tally(), Count()
    counts: dict[bytes, Count] = {process: Count() for process in (A, B, C)}
    known: dict[bytes, Count] = {process: Count() for process in (A, B, C)}
    before = 0.0
    for process, step, label in steps:
        if step == "count":
            counts[process][label] += 1
        elif step == "tell":
            tally.hear(process, [HITS.but(series={(key,): float(n) for key, n in counts[process].items()})])
            known[process] = counts[process].copy()
        elif step == "die":
            tally.gone(process)
            expected += known[process]
            counts[process], known[process] = Count(), Count()
        now = told(tally, "hits_total")
        assert sum(now.values()) >= before
        before = sum(now.values())
        assert {labels[0]: n for labels, n in now.items()} == {
            key: float(n) for key, n in (expected + sum(known.values(), Count())).items()
        }


def test_row_75_equal_names_are_added_and_unlike_ones_left_out():
    found = added([HITS.but(series={("a",): 1.0}), HITS.but(series={("a",): 2.0, ("b",): 1.0}), HITS.but(kind="gauge")])
    assert dict(found["hits_total"].series) == {("a",): 3.0, ("b",): 1.0}
