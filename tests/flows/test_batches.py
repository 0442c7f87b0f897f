"""What travels many at a time: entries between stages, rows on their way into a table."""

from __future__ import annotations

import io
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.effort import examples
from zmreg.core.columns import Columns, columned
from zmreg.flows.pipelines.batches import Entry, Last, columns, fresh
from zmreg.flows.results.waiting import Waiting


@given(
    st.lists(st.tuples(st.integers(0, 2), st.integers(0, 6), st.integers(0, 2)), max_size=30, unique=True),
    st.lists(st.integers(1, 5), min_size=30, max_size=30),
)
@settings(max_examples=examples(200))
def test_P24_of_entries_that_come_twice_each_is_taken_once(
    origins: list[tuple[int, int, int]], sizes: list[int]
) -> None:
    """In any batches; whoever starts anew begins before what has come."""
    origins.sort(key=lambda each: each[1:])  # of each edge in order, the edges mixed
    entries: list[Entry] = [(*origin, str(origin)) for origin in origins]
    last: Last = {}
    taken: list[Any] = []
    at = 0
    for turn, size in enumerate(sizes):
        if turn % 4 == 3:
            at = max(0, at - 7)
        batch = columns(entries[at : at + size])
        if batch is None:
            break
        new = fresh(batch, last)
        taken += batch[3] if new is None else [batch[3][place] for place in new]
        at += size
    assert taken == [str(origin) for origin in origins][: len(taken)]
    assert len(set(taken)) == len(taken)


def test_most_entries_say_where_they_come_from_in_three_numbers() -> None:
    assert columns([]) is None
    assert columns([(3, number, 0, "x") for number in range(5, 9)]) == (3, range(5, 9), 0, ("x",) * 4)
    assert columns([(3, 1, 0, "x"), (3, 1, 1, "y"), (3, 4, 0, "z")]) == (3, (1, 1, 4), (0, 1, 0), ("x", "y", "z"))


def rows(first: int, count: int, **more: Any) -> list[dict[str, Any]]:
    return [{"id": number, "m": {"x": number / 2}, **more} for number in range(first, first + count)]


@given(st.lists(st.tuples(st.booleans(), st.integers(1, 5)), max_size=8), st.lists(st.integers(1, 9), min_size=8))
@settings(max_examples=examples(100))
def test_W4_rows_leave_in_order_however_they_came(pieces: list[tuple[bool, int]], counts: list[int]) -> None:
    waiting = Waiting()
    expected: list[dict[str, Any]] = []
    left: list[dict[str, Any]] = []
    for by_columns, count in pieces:
        some = rows(len(expected), count)
        expected += some
        batch = columned(some)
        waiting.add(batch if by_columns and batch is not None else some)
    assert len(waiting) == len(expected)
    for count in counts:
        first = waiting.first(count)
        left += first.rows() if isinstance(first, Columns) else first
        waiting.drop(count)
    assert left == expected[: sum(counts)]
    assert len(waiting) == len(expected) - len(left)


@pytest.mark.parametrize("by_columns", [True, False])
def test_W4_a_row_group_of_columns_is_that_of_the_rows(by_columns: bool) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    from zmreg.flows.results.parquet import DifferentColumnsError, Groups

    form = Groups(None)
    made = b""
    parts: list[list[dict[str, Any]]] = [
        rows(0, 5, note="a", none=None), rows(5, 3, note="b"), [{"id": 8, "m": {"x": None}}],
    ]  # fmt: skip
    for some in parts:
        made += form.more(columned(some) if by_columns else some)
    misfits: list[list[dict[str, Any]]] = [[{"id": "words"}], [{"other": 1}]]
    if by_columns:
        misfits.append([{"id": 1, "m": {"x": 1.0, "y": 1.0}}])
    for wrong in misfits:
        with pytest.raises(DifferentColumnsError):
            form.more(columned(wrong) if by_columns else wrong)
    made += form.end()
    read = parquet.ParquetFile(io.BytesIO(made)).read().to_pylist()
    whole = [{"note": None, "none": None} | row for row in (*rows(0, 5, note="a"), *rows(5, 3, note="b"))]
    assert read == [*whole, {"id": 8, "m": {"x": None}, "note": None, "none": None}]
    mixed = Groups(None)
    several: list[dict[str, Any]] = [{"a": 1}, {"a": "one"}]
    assert mixed.more(columned(several) if by_columns else several) + mixed.end()
