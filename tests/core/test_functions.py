"""R12, R14-R17, R21, R22, R35, R36: the table of named functions, and whom a call goes to."""

from __future__ import annotations

from collections import Counter
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zmreg.core import functions as fn
from zmreg.core.functions import Functions, Router, Wanted
from zmreg.core.versions import read_constraint, read_version
from zmreg.model.errors import FunctionNotFoundError, NoRouteError
from zmreg.model.function_messages import FunctionRow
from zmreg.model.ids import NODE_BYTES


def host_of(node: int, process: int = 1) -> bytes:
    return bytes((node,)) * 4 + process.to_bytes(4, "big")


def row(name: str, node: int, *node_locs: str, process: int = 1, **more: object) -> FunctionRow:
    fields: dict[str, object] = {"version": "", "node_name": f"n{node}", "node_locs": node_locs, **more}
    return fn.checked(FunctionRow(name, host=host_of(node, process), **fields))  # type: ignore[arg-type]


def table(*rows: FunctionRow) -> Functions:
    made = Functions()
    for each in rows:
        made.put(fn.key_of(each), each)
    return made


def router(*rows: FunctionRow, seed: int = 0) -> Router:
    return Router(table(*rows), Random(seed))


# -- R12: unknown names ------------------------------------------------------------------------------------------------


def test_R12_an_unknown_name_is_told_with_those_that_come_near() -> None:
    with pytest.raises(FunctionNotFoundError, match=r"'ecoh'; did you mean 'echo'"):
        router(row("echo", 1), row("run", 1)).take(Wanted("ecoh"))


def test_R12_when_nothing_comes_near_what_there_is_is_listed() -> None:
    with pytest.raises(FunctionNotFoundError, match=r"there are 'echo', 'run'"):
        router(row("run", 1), row("echo", 1), row("echo", 2)).take(Wanted("quite else"))
    with pytest.raises(FunctionNotFoundError, match="no function has been registered"):
        router().take(Wanted("echo"))
    many = [row(f"a{number}", 1) for number in range(30)]
    with pytest.raises(FunctionNotFoundError, match="and 22 more"):
        router(*many).take(Wanted("zzzzzzz"))


def test_R12_looking_before_a_graph_runs_books_nothing() -> None:
    routes = router(row("echo", 1))
    assert [each.name for each in routes.check(Wanted("echo"))] == ["echo"]
    assert routes.under_way(host_of(1)) == 0
    with pytest.raises(FunctionNotFoundError):
        routes.check(Wanted("ecoh"))


# -- R14, R15, R16: locs -----------------------------------------------------------------------------------------------


def test_R14_a_node_with_all_locs_and_more_serves_and_one_with_fewer_does_not() -> None:
    routes = router(row("f", 1, "A", "B", "C"), row("f", 2, "A"))
    assert [each.node_name for each in routes.candidates(Wanted("f", ("A", "B")))] == ["n1"]


def test_R14_the_functions_own_locs_count_beside_its_nodes() -> None:
    routes = router(row("f", 1, "A", locs=("B",)), row("f", 2, "A"))
    assert [each.node_name for each in routes.candidates(Wanted("f", ("A", "B")))] == ["n1"]


def test_R14_no_locs_asked_for_is_any_node_that_has_the_function_and_no_other() -> None:
    routes = router(row("f", 1, "A"), row("g", 2), row("f", 3))
    assert {each.node_name for each in routes.candidates(Wanted("f"))} == {"n1", "n3"}


def test_R15_the_data_asked_for_decides_which_node_runs_it() -> None:
    routes = router(row("run_model", 1, "m1"), row("run_model", 2, "m2"))
    for loc, node in (("m1", "n1"), ("m2", "n2")):
        assert {routes.take(Wanted("run_model", (loc,))).node_name for _ in range(50)} == {node}


def test_R16_no_route_says_who_has_it_and_what_each_lacks() -> None:
    routes = router(row("train", 1, "gpu"), row("train", 2), row("other", 3, "tpu"))
    with pytest.raises(NoRouteError) as caught:
        routes.take(Wanted("train", ("gpu", "tpu")))
    assert "'train' with locs 'gpu', 'tpu'" in str(caught.value)
    assert "node n1 lacks 'tpu'; node n2 lacks 'gpu', 'tpu'" in str(caught.value)
    assert "n3" not in str(caught.value)
    assert not isinstance(caught.value, FunctionNotFoundError)


def test_R16_a_hundred_hosts_are_not_all_listed() -> None:
    routes = router(*(row("train", number) for number in range(1, 101)))
    with pytest.raises(NoRouteError, match="and 92 more"):
        routes.take(Wanted("train", ("tpu",)))


# -- R17: balance ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(20))
def test_R17_two_equal_nodes_share_200_calls(seed: int) -> None:
    routes = router(row("f", 1), row("f", 2), seed=seed)
    got: Counter[str] = Counter()
    for _ in range(200):
        chosen = routes.take(Wanted("f"))
        got[chosen.node_name] += 1
        routes.ended(chosen.host)
    assert all(60 <= count <= 140 for count in got.values()) and len(got) == 2


def test_R17_who_is_busy_gets_no_new_calls_while_another_is_idle() -> None:
    routes = router(row("f", 1), row("f", 2))
    busy = routes.take(Wanted("f"))
    for _ in range(50):
        chosen = routes.take(Wanted("f"))
        assert chosen.host != busy.host
        routes.ended(chosen.host)


def test_R17_of_idle_ones_the_one_with_the_fewest_other_locs_is_taken() -> None:
    routes = router(row("f", 1, "A", "B", "C"), row("f", 2, "A"))
    for _ in range(20):
        chosen = routes.take(Wanted("f", ("A",)))
        assert chosen.node_name == "n2"
        routes.ended(chosen.host)


def test_R17_ten_hosts_under_a_thousand_calls_that_do_not_end_are_nearly_even() -> None:
    routes = router(*(row("f", number) for number in range(1, 11)))
    for _ in range(1_000):
        routes.take(Wanted("f"))
    counts = [routes.under_way(host_of(number)) for number in range(1, 11)]
    assert sum(counts) == 1_000 and max(counts) - min(counts) <= 10


def test_R17_an_end_after_a_death_does_no_harm() -> None:
    routes = router(row("f", 1))
    chosen = routes.take(Wanted("f"))
    routes.forget(chosen.host)
    routes.ended(chosen.host)
    assert routes.under_way(chosen.host) == 0


@given(
    st.lists(st.tuples(st.integers(1, 5), st.sets(st.sampled_from("ABC")), st.sampled_from(["", "1", "2.0", "2.1"]))),
    st.sets(st.sampled_from("ABC")),
    st.sampled_from(["", "1", ">=2", "<2", ">=3"]),
    st.sets(st.integers(1, 5)),
    st.integers(),
)
def test_R17_routing_picks_a_candidate_or_says_why_there_is_none(
    hosts: list[tuple[int, set[str], str]], locs: set[str], version: str, silent: set[int], seed: int
) -> None:
    rows = [
        row("f", node, *sorted(has), process=n, version=v, resting=node in silent)
        for n, (node, has, v) in enumerate(hosts, 1)
    ]
    routes = router(*rows, seed=seed)
    constraint = read_constraint(version)
    able = [
        each
        for each in rows
        if locs <= set(each.node_locs) and constraint.met_by(read_version(each.version)) and not each.resting
    ]
    if able:
        chosen = routes.take(Wanted("f", tuple(locs), version))
        assert chosen in able and routes.under_way(chosen.host) == 1
        assert read_version(chosen.version) == max(read_version(each.version) for each in able)
    else:
        with pytest.raises(NoRouteError if rows else FunctionNotFoundError):
            routes.take(Wanted("f", tuple(locs), version))


# -- R21, R22 ----------------------------------------------------------------------------------------------------------


def test_R21_the_same_name_twice_on_one_host_is_an_error_unless_something_differs() -> None:
    known = table(row("f", 1, version="2.1"))
    with pytest.raises(ValueError, match=r"serves 'f' in version 2.1 already.*replace=True"):
        known.check_new(row("f", 1, version="2.1.0"), False)
    known.check_new(row("f", 1, version="2.1.0"), True)
    known.check_new(row("f", 1, version="2.2"), False)
    known.check_new(row("f", 1), False)
    with pytest.raises(ValueError, match=r"serves 'f' in version 2.1 already, with the same locs.*replace=True"):
        known.check_new(row("f", 1, process=2, version="2.1"), False)
    known.check_new(row("f", 1, process=2, version="2.1"), True)
    known.check_new(row("f", 1, process=2, version="2.2"), False)
    known.check_new(row("f", 1, process=2, version="2.1", locs=("m1",)), False)
    known.check_new(row("f", 1, process=2, version="2.1", actor=b"a" * 16), False)
    known.check_new(row("f", 2, version="2.1"), False)


def test_R21_a_node_has_so_many_functions_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fn, "MOST_ROWS", 2)
    known = table(row("f", 1), row("g", 1, process=2))
    with pytest.raises(ValueError, match="the most a node may have"):
        known.check_new(row("h", 1), False)
    known.check_new(row("g", 1, process=2), True)
    known.check_new(row("h", 2), False)


@pytest.mark.parametrize("name", ["", "x" * 256, "a\0b"])
def test_R21_what_cannot_be_a_name_says_so(name: str) -> None:
    with pytest.raises(ValueError, match="cannot name a function"):
        row(name, 1)


def test_R21_long_texts_are_cut_and_locs_are_a_set() -> None:
    made = row("f", 1, doc="d" * 10_000, signature="s" * 10_000, locs=("b", "a", "b"))
    assert len(made.doc) == fn.MAX_DOC_CHARS and made.doc.endswith("…")
    assert len(made.signature) == fn.MAX_SIGNATURE_CHARS and made.locs == ("a", "b")


def test_R22_a_process_and_a_node_take_their_rows_along() -> None:
    known = table(row("f", 1), row("f", 1, process=2), row("f", 2), row("g", 1))
    assert len(known.drop(host_of(1, 2))) == 1
    assert len(known.drop(host_of(1)[:NODE_BYTES])) == 2
    assert [each.node_name for each in known.rows()] == ["n2"]
    assert known.drop(host_of(2)) and not known.rows() and not known.near("f")


def test_R22_a_route_that_was_taken_is_not_remembered_beyond_a_change() -> None:
    known = table(row("f", 1), row("f", 2))
    routes = Router(known, Random(0))
    routes.take(Wanted("f"))
    known.drop(host_of(1))
    assert {routes.take(Wanted("f")).node_name for _ in range(20)} == {"n2"}
    late = row("f", 3, version="2")
    known.put(fn.key_of(late), late)
    assert routes.take(Wanted("f")).node_name == "n3"


def test_R22_a_silent_node_gets_no_new_calls_and_is_named_when_there_is_no_other() -> None:
    routes = router(row("f", 1, resting=True), row("f", 2))
    assert {routes.take(Wanted("f")).node_name for _ in range(20)} == {"n2"}
    routes = router(row("f", 1, resting=True), row("f", 2, resting=True))
    with pytest.raises(NoRouteError, match="node n1 is silent or about to leave; node n2 is silent"):
        routes.take(Wanted("f"))


# -- R35, R36 ----------------------------------------------------------------------------------------------------------


def test_R35_the_highest_version_that_is_wanted_is_called() -> None:
    routes = router(*(row("f", node, version=v) for node, v in enumerate(["1.9", "2.1.0", "2.10", "3", ""], 1)))
    for version, node in ((">=2,<3", "n3"), ("2.1.0", "n2"), ("", "n4"), ("<2", "n1")):
        assert routes.take(Wanted("f", version=version)).node_name == node


def test_R35_none_that_is_wanted_lists_those_there_are() -> None:
    routes = router(row("f", 1, version="2.1.0"), row("f", 2))
    with pytest.raises(NoRouteError, match=r"version '>=3.0': node n1 has version 2.1; node n2 has it without a vers"):
        routes.take(Wanted("f", version=">=3.0"))
    with pytest.raises(ValueError, match="no constraint"):
        routes.take(Wanted("f", version="new"))


def test_R36_rows_are_listed_by_name_and_the_highest_version_first() -> None:
    known = table(row("g", 1), row("f", 2, version="2.9"), row("f", 1, version="2.10"), row("f", 3, version="2.9"))
    listed = [(each.name, each.version, each.node_name) for each in known.rows()]
    assert listed == [("f", "2.10", "n1"), ("f", "2.9", "n2"), ("f", "2.9", "n3"), ("g", "", "n1")]
    assert [each.node_name for each in known.rows("f")] == ["n1", "n2", "n3"]
    assert known.versions_of(host_of(1), "f") == ["2.10"]
    assert repr(known) == "<Functions 2 names, 4 rows>"
