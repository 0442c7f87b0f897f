"""What the rows of a replicated table are kept in."""

from __future__ import annotations

import os
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zmreg.core.index import SCOPES, LocationIndex, Rows, RowStore, location, read_location, row_hash, rows_hash
from zmreg.model.errors import InternalError

A, B, C = b"node-A\0\0", b"node-B\0\0", b"node-C\0\0"


def oid(number: int) -> bytes:
    return number.to_bytes(16, "big")


@given(st.integers(0, 2**63), st.booleans())
def test_a_location_is_read_as_it_was_written_and_never_empty(nbytes: int, primary: bool) -> None:
    value = location(nbytes, primary)
    assert value and read_location(value) == (nbytes, primary)


def test_a_size_below_zero_is_refused() -> None:
    with pytest.raises(ValueError, match="0 or more"):
        location(-1, True)


def test_row_hashes_are_the_same_in_every_process() -> None:
    assert row_hash(b"key", b"value") == 431368647692631056
    assert rows_hash([b"key", b"gone", b""], [b"value", b"", b"1"]) == 431368647692631056 + row_hash(b"", b"1")


@given(st.lists(st.tuples(st.binary(max_size=20), st.binary(max_size=9)), max_size=30))
def test_the_hash_of_rows_is_the_sum_of_theirs_without_the_empty(rows: list[tuple[bytes, bytes]]) -> None:
    keys, values = [key for key, _ in rows], [value for _, value in rows]
    assert rows_hash(keys, values) == sum(row_hash(key, value) for key, value in rows if value)


@pytest.mark.parametrize("first", [0, 1 << 20, 1 << 127])
def test_mistakes_that_a_sum_of_checksums_would_not_see_change_the_digest(first: int) -> None:
    """CRCs are linear: for a sum of them, neighbours taken for neighbours are often the same, and values exchanged."""
    for number in range(first, first + 20_000, 4):
        a, b, c, d = map(oid, range(number, number + 4))
        small, large = location(number % 1000 << 10, True), location(1 << 20, False)
        assert rows_hash([a, d], [small, small]) != rows_hash([b, c], [small, small])
        assert rows_hash([a, b], [small, large]) != rows_hash([a, b], [large, small])
        assert row_hash(a, small) != row_hash(b, small)


def test_d1_register_on_two_nodes_and_unregister_one_after_the_other() -> None:
    index = LocationIndex()
    index.put(A, oid(1), location(100, True))
    index.put(B, oid(1), location(100, False))
    assert index.holders(oid(1)) == [(A, 100, True), (B, 100, False)]
    assert index.where_primary(oid(1)) == A
    assert index.remove(A, oid(1)) == location(100, True)
    assert index.holders(oid(1)) == [(B, 100, False)]
    assert index.where_primary(oid(1)) is None
    assert index.remove(B, oid(1)) == location(100, False)
    assert index.holders(oid(1)) == [] and oid(1) not in index and len(index) == 0


def test_a_row_of_one_node_is_not_taken_by_another() -> None:
    index = LocationIndex()
    index.put(A, oid(1), location(5, True))
    index.put(B, oid(2), location(5, True))
    assert index.remove(B, oid(1)) is None and index.remove(C, oid(1)) is None
    index.drop(B)
    assert index.holders(oid(1)) == [(A, 5, True)] and oid(2) not in index


def test_putting_again_changes_the_value_and_returns_the_old_one() -> None:
    index = LocationIndex()
    index.put(A, oid(1), location(5, False))
    index.put(B, oid(1), location(5, False))
    assert index.put(A, oid(1), location(5, True)) == location(5, False)
    assert index.where_primary(oid(1)) == A and index.count_of(A) == 1


def test_sizes_beyond_the_small_form_are_kept() -> None:
    index = LocationIndex()
    index.put(A, oid(1), location(1 << 60, True))
    assert index.holders(oid(1)) == [(A, 1 << 60, True)]


def test_a_dropped_node_leaves_nothing_and_its_number_serves_another() -> None:
    index = LocationIndex()
    for number in range(100):
        index.put(A, oid(number), location(number, True))
        index.put(B, oid(number), location(number, False))
    index.drop(A)
    assert index.objects_of(A) == [] and index.nodes() == [B]
    index.put(C, oid(7), location(7, False))
    assert index.holders(oid(7)) == [(B, 7, False), (C, 7, False)]
    index.drop(B)
    assert len(index) == 1


def test_more_nodes_than_numbers_is_an_internal_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zmreg.core.index._NUMBER_MASK", 1)
    index = LocationIndex()
    index.put(A, oid(1), b"\0")
    index.put(B, oid(1), b"\0")
    with pytest.raises(InternalError):
        index.put(C, oid(1), b"\0")


def test_keys_of_removed_objects_do_not_pile_up() -> None:
    index = LocationIndex()
    for number in range(50_000):
        index.put(A, oid(number), location(1, True))
        if number >= 100:
            index.remove(A, oid(number - 100))
    assert len(index._parts[A].keys) <= 200
    assert sorted(index.objects_of(A)) == [oid(number) for number in range(49_900, 50_000)]


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["put", "put", "remove", "drop"]),
        st.sampled_from([A, B, C]),
        st.integers(0, 5),
        st.integers(0, 3),
    ),
    max_size=60,
)


CHANGES = st.lists(
    st.tuples(st.sampled_from([A, B]), st.lists(st.tuples(st.integers(0, 9), st.integers(-2, 3)), max_size=12)),
    max_size=12,
)


@pytest.mark.parametrize("store", [Rows, LocationIndex])
@given(changes=CHANGES)
def test_a_change_of_many_rows_is_as_if_they_changed_one_after_the_other(
    store: type[RowStore], changes: list[tuple[bytes, list[tuple[int, int]]]]
) -> None:
    together, single = store(), store()
    for node, steps in changes:
        keys = tuple(oid(key) for key, _ in steps)
        values = tuple(location(size, True) if size >= 0 else b"" for _, size in steps)
        found = []
        for key, value in zip(keys, values, strict=True):
            old = single.put(node, key, value) if value else single.remove(node, key)
            found += [(key, old)] if old is not None else []
        assert sorted(zip(*together.change(node, keys, values), strict=True)) == sorted(found)
        for each in (A, B):
            assert sorted(together.items(each)) == sorted(single.items(each))
        if isinstance(together, LocationIndex) and isinstance(single, LocationIndex):
            assert len(together) == len(single)
            assert [together.count_of(each) for each in (A, B)] == [single.count_of(each) for each in (A, B)]


@pytest.mark.parametrize("store", [Rows, LocationIndex])
@given(steps=STEPS)
def test_both_forms_do_what_a_plain_dict_does(store: type[RowStore], steps: list[tuple[str, bytes, int, int]]) -> None:
    rows, plain = store(), {}
    for what, node, key, size in steps:
        if what == "put":
            old = plain.get((node, oid(key)))
            assert rows.put(node, oid(key), location(size, size % 2 == 0)) == old
            plain[node, oid(key)] = location(size, size % 2 == 0)
        elif what == "remove":
            assert rows.remove(node, oid(key)) == plain.pop((node, oid(key)), None)
        else:
            rows.drop(node)
            plain = {(other, key): value for (other, key), value in plain.items() if other != node}
        for each in (A, B, C):
            expected = {key: value for (other, key), value in plain.items() if other == each}
            items = list(rows.items(each))
            assert len(items) == len(expected) and dict(items) == expected
    if isinstance(rows, LocationIndex):
        assert len(rows) == len({key for _, key in plain})
        for key in range(6):
            assert len(rows.holders(oid(key))) == sum(found == oid(key) for _, found in plain)


def test_rows_are_found_by_key_across_nodes() -> None:
    rows = Rows()
    rows.put(A, b"f", b"1")
    rows.put(B, b"f", b"2")
    rows.put(B, b"g", b"3")
    assert rows.find(b"f") == [(A, b"1"), (B, b"2")] and rows.find(b"h") == []
    assert dict(rows.part(B)) == {b"f": b"2", b"g": b"3"} and rows.nodes() == [A, B] and len(rows) == 3


def test_what_each_scope_lets_through() -> None:
    small, large = location((1 << 20) - 1, True), location(1 << 20, True)
    assert [SCOPES[scope](b"", small) for scope in ("all", "large", "owner")] == [True, False, False]
    assert [SCOPES[scope](b"", large) for scope in ("all", "large", "owner")] == [True, True, False]


@pytest.mark.parametrize("batch", [1, 100])
def test_an_entry_takes_at_most_160_bytes_all_in(batch: int) -> None:
    """Design 6: 200,000 objects of 64 nodes, ids included, as they come from the wire: none is shared with anything."""
    count = 200_000
    nodes = [os.urandom(8) for _ in range(64)]
    index = LocationIndex()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for number in range(0, count, batch):
            keys = [os.urandom(16) for _ in range(batch)]
            values = [location((number + each) * 997, True) for each in range(batch)]
            index.change(nodes[number // batch % 64], keys, values)
        each = (tracemalloc.get_traced_memory()[0] - before) / count
    finally:
        tracemalloc.stop()
    print(f"{each:.1f} bytes for each entry")
    assert len(index) == count
    assert each <= 160
