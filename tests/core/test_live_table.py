"""The table of what is at work: what it makes of looks, on a clock of the test's own (issue 6, seen while running)."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tests.effort import examples
from zmreg.core.live_table import WINDOW_S, Line, LiveTable


def looked(*looks: tuple[float, Line]) -> LiveTable:
    table = LiveTable()
    for now, line in looks:
        table.look([line], now)
    return table


def test_a_rate_is_of_the_last_seconds_and_not_since_the_beginning() -> None:
    table = looked((0.0, Line("a")), (100.0, Line("a", "", 10, 10)), (101.0, Line("a", "", 30, 20)))
    assert table.rows[0].rate == 10
    assert looked((100.0, Line("a", "", 10, 10))).rows[0].rate == 0, "one look has nothing to be compared with"


def test_the_end_is_foretold_by_what_comes_in_and_only_where_the_total_is_known() -> None:
    line = Line("a", "", 50, 40, total=100)
    (row,) = looked((0.0, line.but(items_in=0)), (5.0, line)).rows
    assert row.eta_s == 5.0
    assert looked((0.0, line), (5.0, line)).rows[0].eta_s is None, "nothing moves"
    (row,) = looked((0.0, line.but(total=None, items_in=0)), (5.0, line.but(total=None))).rows
    assert row.eta_s is None
    assert looked((0.0, line.but(items_in=100))).rows[0].eta_s == 0


def test_as_text_names_begin_at_the_left_and_empty_columns_are_left_out() -> None:
    table = LiveTable()
    table.look([Line("parse", "", 0, 0, total=200), Line("a long name", "busiest")], 0.0)
    table.look([Line("parse", "", 150, 150, total=200), Line("a long name", "busiest", 90, 30, 16, 75.0)], 3.0)
    assert table.text() == [
        "             state         in  out  rate  waiting  blocked    eta",
        "parse                 150/200  150  50/s                    1.0 s",
        "a long name  busiest       90   30  10/s       16     1:15",
    ]
    table.look([Line("parse", "done")], 3601.0)
    assert table.text() == ["       state", "parse  done"]
    assert table.plain() == "1:00:01: parse done"


def test_as_html_what_users_call_things_is_escaped() -> None:
    assert "<b>" not in looked((0.0, Line("<b>x</b>", "a&b"))).to_html()


@given(st.lists(st.tuples(st.floats(0, 3), st.integers(0, 50)), min_size=2, max_size=examples(40)))
def test_a_rate_lies_between_the_slowest_and_the_fastest_pace(steps: list[tuple[float, int]]) -> None:
    table, now, out, paces = LiveTable(), 0.0, 0, [0.0]
    table.look([Line("a")], now)
    for passed, made in steps:
        now, out = now + passed + 0.01, out + made
        paces.append(made / (passed + 0.01))
        table.look([Line("a", "", out, out)], now)
        assert min(paces) - 1e-6 <= table.rows[0].rate <= max(paces) + 1e-6
    assert table.elapsed_s >= WINDOW_S or now < WINDOW_S
