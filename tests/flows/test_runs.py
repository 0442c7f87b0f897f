"""Runs of phases on a cluster (runs rows W16-W20, W24, W28, and the cache)."""

from __future__ import annotations

import json
import os
import threading
import time
from pathlib import Path
from typing import Any

import pytest

import zmreg
from zmreg import Graph, Phase, Step
from zmreg.flows.runs.journal import summaries
from zmreg.model.errors import PhaseError

pytestmark = pytest.mark.usefixtures("cluster")


@pytest.fixture(autouse=True)
def runs_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ZMREG_RUNS", str(tmp_path / "runs"))
    return tmp_path / "runs"


def signals() -> dict[str, Any]:
    return {"sharpe": 2.0, "output": [1, 2, 3]}


def whole(ctx: Any) -> dict[str, Any]:
    return {key: ctx[key] for key in ctx}


def fails() -> None:
    raise ValueError("no luck")


def test_W17_a_phase_sees_results_and_what_it_inherits() -> None:
    def best(signals_results: Any, inherited_data: Any, factor: int) -> Any:
        return sum(inherited_data) * factor, signals_results["sharpe"]

    def named(signals: Any, best: Any) -> Any:
        return signals["output"], best

    result = zmreg.run(
        [Phase("last", whole, ["signals", "best"], inherit_from="signals", config={"x": 1}), Phase("named", named,
         ["best", "signals"]), Phase("best", best, inherit_from="signals"), Phase("signals", signals)],
        config={"factor": 10, "x": 0},
    )  # fmt: skip
    assert result.ok and result["best"] == (60, 2.0) and result["named"] == ([1, 2, 3], (60, 2.0))
    assert result["last"] == {
        "factor": 10, "x": 1, "inherited_data": [1, 2, 3], "best_results": (60, 2.0), "signals_results": signals(),
    }  # fmt: skip


def test_W17_results_are_refs_until_they_are_read() -> None:
    def looks(ctx: Any) -> tuple[bool, int]:
        return isinstance(ctx.ref("big"), zmreg.ObjectRef), len(ctx["big_results"])

    made = zmreg.run([Phase("big", lambda: bytes(2 << 20)), Phase("looks", looks, ["big"])])["looks"]
    assert made == (True, 2 << 20)


def test_W17_without_an_output_nothing_is_inherited() -> None:
    result = zmreg.run([Phase("a", lambda: {"x": 1}), Phase("b", whole, inherit_from="a")])
    assert result["b"] == {"a_results": {"x": 1}, "inherited_data": {}}


def test_W16_independent_phases_run_beside_each_other() -> None:
    queue: zmreg.Queue[str] = zmreg.Queue()

    def meet(me: str, other: str) -> str:
        queue.put(me)
        while (found := queue.get(timeout=20)) != other:
            queue.put(found)
        return found

    phases = [Phase("a", meet, config={"me": "a", "other": "b"}), Phase("b", meet, config={"me": "b", "other": "a"})]
    assert dict(zmreg.run(phases).outputs) == {"a": "b", "b": "a"}


@pytest.mark.parametrize(
    ("phases", "words"),
    [
        ([Phase("a", signals), Phase("b", signals, ["c"])], "depends on 'c'"),
        ([Phase("a", whole, ["b"]), Phase("b", whole, ["a"])], "wait for each other"),
        ([Phase("a", signals), Phase("a", signals)], "two phases"),
        ([Phase("a", lambda x, y: 0)], "'x', 'y'"),
        ([Phase("a", 7)], "no function"),
        ([Phase("a", whole, "b")], "write a list"),
        ([Phase("a", signals, foreach={"k_folds": {}})], "k_fold"),
        ([Phase("a", signals, when="x > 1")], "not evaluated"),  # type: ignore[arg-type]
        ([Phase("a", signals, storage="cloud")], "storage"),
    ],
)
def test_W16_what_makes_no_sense_runs_nothing(phases: list[Phase], words: str, tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    with pytest.raises(PhaseError, match=words):
        zmreg.run([Phase("first", mark.touch), *phases], id="wrong")
    assert not mark.exists() and not (tmp_path / "runs").exists()


def test_W18_dependants_of_a_failure_are_skipped_and_the_rest_is_finished() -> None:
    result = zmreg.run([Phase("A", fails), Phase("B", whole, ["A"]), Phase("C", signals), Phase("D", whole, ["B"])])
    assert result.status == "failed" and not result.ok
    assert result.states == {"A": "failed", "B": "skipped", "C": "done", "D": "skipped"}
    assert "A failed" in result.skipped["B"] and "no luck" in result.reasons["A"]
    assert isinstance(result.errors["A"], ValueError)
    with pytest.raises(PhaseError, match="phase 'A' of run .* failed.*no luck") as caught:
        result.raise_for_status()
    assert caught.value.phase == "A" and isinstance(caught.value.__cause__, ValueError)
    with pytest.raises(PhaseError, match="'B' .* was skipped: A failed"):
        result["B"]
    with pytest.raises(KeyError, match="no phase 'E'"):
        result["E"]


def test_W18_what_is_not_required_is_tolerated() -> None:
    result = zmreg.run([Phase("a", fails, required=False), Phase("b", whole, inherit_from="a")])
    assert result.ok and result["b"] == {"a_results": None, "inherited_data": {}}


def test_W18_results_of_items_before_the_failure_are_kept() -> None:
    def third_fails(item: int) -> int:
        return 10 // (2 - item)

    phase = Phase("a", third_fails, foreach=range(4), concurrency=1)
    result = zmreg.run([phase])
    assert result.status == "failed" and {n: ref.get() for n, ref in result.partial["a"].items()} == {0: 5, 1: 10}
    skipping = zmreg.run([phase.but(on_error="skip")])
    assert skipping.ok and skipping["a"] == [5, 10, -10] and list(skipping.item_errors["a"]) == [2]


@pytest.mark.parametrize(("bound", "state"), [(1, "done"), (3, "skipped")])
def test_W19_conditions_gate_both_ways(bound: int, state: str) -> None:
    result = zmreg.run(
        [Phase("s", signals), Phase("by_call", whole, ["s"], when=lambda ctx: ctx["s_results"]["sharpe"] > bound),
         Phase("by_bounds", whole, ["s"], when={"s.sharpe": {">": bound}}), Phase("after", whole, ["by_call"])]
    )  # fmt: skip
    assert result.ok and {result.states[name] for name in ("by_call", "by_bounds", "after")} == {state}
    if state == "skipped":
        assert result.skipped["by_bounds"] == "s.sharpe is 2.0, and not > 3"
        assert result.skipped["after"] == "by_call was skipped: its condition does not hold"


def test_W19_an_error_in_a_condition_fails_the_phase() -> None:
    result = zmreg.run([Phase("s", signals), Phase("g", whole, ["s"], when=lambda ctx: ctx["nothing"])])
    assert result.failed.keys() == {"g"} and "nothing" in result.reasons["g"]


def test_W20_a_grid_of_sixty_and_a_function_for_the_items() -> None:
    def point(a: int, b: int, c: int) -> int:
        return a * 100 + b * 10 + c

    result = zmreg.run(
        [Phase("grid", point, foreach={"grid": {"a": range(5), "b": range(4), "c": range(3)}}),
         Phase("best", lambda item, index: (index, item), ["grid"], foreach=lambda ctx: ctx["grid_results"][-2:]),
         Phase("direct", lambda item: item, ["best"], foreach="best")]
    )  # fmt: skip
    assert result["grid"] == [a * 100 + b * 10 + c for a in range(5) for b in range(4) for c in range(3)]
    assert result["best"] == result["direct"] == [(0, 431), (1, 432)]
    assert zmreg.run([Phase("none", lambda item: item, foreach=[])])["none"] == []


def test_W20_large_results_of_items_become_one_output() -> None:
    made = zmreg.run([Phase("big", lambda item: bytes([item]) * (1 << 20), foreach=range(3))])["big"]
    assert [each[:1] for each in made] == [b"\0", b"\1", b"\2"]


def test_a_phase_may_be_tried_again_and_a_generator_is_a_list(tmp_path: Path) -> None:
    def shaky(where: str) -> Any:
        with open(where, "a") as file:
            file.write("x")
        if len(Path(where).read_text()) < 3:
            raise OSError("not yet")
        yield from (1, 2)

    where = {"where": str(tmp_path / "tries")}
    assert zmreg.run([Phase("a", shaky, config=where, retries=2, retry_on=OSError, backoff=0.01)])["a"] == [1, 2]
    os.unlink(tmp_path / "tries")
    assert zmreg.run([Phase("a", shaky, config=where, retries=2, retry_on=KeyError)]).status == "failed"


def test_too_late_is_a_failure_of_the_phase_or_the_end_of_the_run() -> None:
    def waits() -> None:
        threading.Event().wait(60) if not zmreg.cancelled() else None

    one = zmreg.run([Phase("a", waits, timeout=0.2), Phase("b", signals)])
    assert one.status == "failed" and isinstance(one.errors["a"], TimeoutError) and one.states["b"] == "done"
    all_of_it = zmreg.run([Phase("a", waits)], timeout=0.2)
    assert all_of_it.status == "cancelled" and "0.2 s" in all_of_it.reasons["a"]


def test_W16_a_request_is_a_phase_and_its_steps_name_what_it_depends_on() -> None:
    graph = Graph([Step("all", "echos", ("signals.output", "config.k")), Step("last", "echo", ("all",))])
    bound = zmreg.remote(lambda: 7).bind()
    result = zmreg.run(
        [Phase("signals", signals), Phase("g", graph, ["signals"], config={"k": 5}),
         Phase("steps", [("x", "echo", ("g",))], ["g"]), Phase("b", bound)]
    )  # fmt: skip
    assert result["g"] == {"last": [[1, 2, 3], 5]}
    assert result["steps"] == {"x": {"last": [[1, 2, 3], 5]}} and list(result["b"].values()) == [7]


class Doubling:
    """As a pipeline: it has `collect`."""

    def collect(self, items: Any) -> list[int]:
        return [2 * item for item in items]


def test_W16_a_pipeline_is_a_phase() -> None:
    result = zmreg.run([Phase("s", signals), Phase("p", Doubling(), inherit_from="s"), Phase("q", Doubling(), ["p"])])
    assert result["p"] == [2, 4, 6] and result["q"] == [4, 8, 12]


class Rows(list[Any]):
    """As a sink: it has `write` and `close`."""

    complete: bool | None = None

    def write(self, row: Any) -> None:
        self.append(row)

    def close(self, complete: bool = True) -> None:
        self.complete = complete

    def get_aggregated_results(self) -> int:
        return len(self)


def test_W21_results_that_are_mappings_reach_the_sink_and_each_one_the_callback() -> None:
    rows, heard = Rows(), []
    phases = [Phase("a", lambda item: {"v": item}, foreach=range(3)), Phase("b", lambda: 7, ["a"])]

    def hear(result: dict[str, Any]) -> None:
        heard.append(result)
        raise RuntimeError("the run goes on")

    result = zmreg.run(phases, sink=rows, on_result=hear)
    assert sorted(rows, key=lambda row: row["v"]) == [{"phase": "a", "container": str(n), "v": n} for n in range(3)]
    assert len(heard) == 4 and rows.complete is True and result.aggregated_results == 3
    large = Rows()
    zmreg.run([Phase("row", lambda: {"v": bytes(1 << 20)}), Phase("none", lambda: bytes(1 << 20))], sink=large)
    assert [row["phase"] for row in large] == ["row"]
    failing = Rows()
    zmreg.run([*phases, Phase("c", fails)], sink=failing)
    assert len(failing) == 3 and failing.complete is False


def test_W21_a_result_without_the_key_of_the_sink_fails_its_phase_and_no_more(tmp_path: Path) -> None:
    def some(item: int) -> dict[str, Any]:
        return {"n": item, "x": item} if item < 2 else {"x": item}

    sink = zmreg.Sink(tmp_path, key=("phase", "n"))
    result = zmreg.run(
        [Phase("items", some, foreach=[2], on_error="skip"), Phase("one", some, config={"item": 3}),
         Phase("two", some, config={"item": 1}), Phase("request", [Step("a", "echo", (1,))]),
         Phase("after", signals, ["one"])], sink=sink,
    )  # fmt: skip
    assert result.status == "failed" and not result.partial
    assert result.states == {
        "items": "failed", "one": "failed", "two": "done", "request": "failed", "after": "skipped",
    }  # fmt: skip
    for phase in ("items", "one", "request"):
        with pytest.raises(PhaseError, match="'n'") as told:
            result[phase]
        cause = told.value.__cause__
        assert isinstance(cause, ValueError) and f"phase {phase!r}" in str(cause)
        assert f"without 'n' for the sink in {tmp_path}, which has key=('phase', 'n')" in str(cause)
    assert [row["phase"] for row in zmreg.Sink.read(tmp_path)] == ["two"]


def test_changes_are_told_and_published() -> None:
    heard: list[Any] = []
    with zmreg.subscribe("run.told.#") as events:
        zmreg.run([Phase("a", signals)], id="told", on_phase=lambda change: heard.append(change.state))
        topics = [events.get(timeout=10).topic for _ in range(4)]
    assert heard == ["ready", "running", "done"]
    assert topics == [*(f"run.told.phase.a.{state}" for state in heard), "run.told.done"]


def test_W24_phases_are_spread_and_locs_are_told(cluster: object) -> None:
    placed = zmreg.distribute_phases([f"p{n}" for n in range(16)], [f"w{n}" for n in range(8)])
    assert all(len(phases) == 2 for phases in placed.values())
    workers: list[str | dict[str, Any]] = [{"name": "a", "locs": ["gpu"], "load": 3}, {"name": "b"}]
    assert zmreg.distribute_phases([Phase("x", signals, locs=["gpu"]), "y"], workers) == {"a": ["x"], "b": ["y"]}


def test_what_interrupts_a_run_cancels_it_and_goes_through(runs_in: Path) -> None:
    def interrupts(change: Any) -> None:
        if change.state == "running":
            raise KeyboardInterrupt

    rows = Rows()
    with pytest.raises(KeyboardInterrupt):
        zmreg.run([Phase("a", signals), Phase("b", whole, ["a"])], id="cut", sink=rows, on_phase=interrupts)
    (found,) = summaries(runs_in)
    assert found.status == "cancelled" and rows.complete is False
    assert {name: row.state for name, row in found.phases.items()} == {"a": "cancelled", "b": "cancelled"}


def test_an_option_that_is_none_is_an_error() -> None:
    with pytest.raises(TypeError, match="zmreg.run has no argument 'resme'; did you mean 'resume'"):
        zmreg.run([Phase("a", signals)], resme=True)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="Phase has no argument 'depend_on'; did you mean 'depends_on'"):
        Phase("a", signals, depend_on=["b"])  # type: ignore[call-arg]
    with pytest.raises(ValueError, match="id="):
        zmreg.run([Phase("a", signals)], id="../up")
    with pytest.raises(TypeError, match=r"a list of phases, not one: write \[Phase\('a'"):
        zmreg.run(Phase("a", signals))  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"sink='out' cannot be written to: give a zmreg\.Sink"):
        zmreg.run([Phase("a", signals)], sink="out")


# -- declarations ------------------------------------------------------------------------------------------------------

DECLARED: dict[str, Any] = {
    "config": {"k": 2},
    "phases": [
        {"name": "signals", "fn": f"{__name__}:signals"},
        {"name": "grid", "fn": "point", "depends_on": ["signals"], "foreach": {"grid": {"a": [1, 2]}},
         "when": {"signals.sharpe": {">=": 2}}},
        {"name": "last", "fn": "json:dumps", "depends_on": ["grid"], "foreach": "grid"},
    ],
}  # fmt: skip


def point(a: int, k: int) -> int:
    return a * k


def test_W28_the_same_from_a_mapping_and_from_files(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text(json.dumps(DECLARED))
    (tmp_path / "run.toml").write_text(
        f'[config]\nk = 2\n[[phases]]\nname = "signals"\nfn = "{__name__}:signals"\n'
        '[[phases]]\nname = "grid"\nfn = "point"\ndepends_on = ["signals"]\n[phases.foreach.grid]\na = [1, 2]\n'
        '[phases.when."signals.sharpe"]\n">=" = 2\n'
        '[[phases]]\nname = "last"\nfn = "json:dumps"\ndepends_on = ["grid"]\nforeach = "grid"\n'
    )
    for given in (DECLARED, tmp_path / "run.json", str(tmp_path / "run.toml")):
        result = zmreg.run(given, functions={"point": point})
        assert result.raise_for_status()["grid"] == [2, 4] and result["last"] == ["2", "4"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"depend_on": ["x"]}, r"phases\[1\].depend_on: there is no such key; did you mean depends_on\?"),
        ({"retries": "two"}, r"phases\[1\].retries: 'two' is not a number"),
        ({"fn": "no_module_of_that_name:f"}, r"phases\[1\].fn: 'no_module_of_that_name:f' cannot be had"),
        ({"fn": "point_"}, r"phases\[1\].fn: 'point_' is none of"),
        ({"required": 1}, r"phases\[1\].required: 1 is not true or false"),
    ],
)
def test_W28_each_slip_is_told_with_its_path(change: dict[str, Any], words: str) -> None:
    phases = [dict(phase) for phase in DECLARED["phases"]]
    phases[1].update(change)
    with pytest.raises(PhaseError, match=words):
        zmreg.run({**DECLARED, "phases": phases}, functions={"point": point})
    with pytest.raises(PhaseError, match=r"phases\[0\].fn: missing"):
        zmreg.run({"phases": [{"name": "a"}]})


# -- the cache ---------------------------------------------------------------------------------------------------------


def test_cache_equal_calls_give_the_ref_that_there_is() -> None:
    @zmreg.remote(cache=True)
    def made(x: Any) -> tuple[Any, float]:
        if x == "bad":
            raise ValueError(time.time())
        return x, time.time()

    first = made.remote([1, {"a": 2}])
    assert made.remote([1, {"a": 2}]) == first and made.remote([1, {"a": 3}]) != first
    assert made.options(cache=False).remote([1, {"a": 2}]) != first
    texts = set()
    for _ in range(2):
        ref = made.remote("bad")
        texts.add(str(ref.exception()))
    assert len(texts) == 2, "an error is no result"
    with pytest.raises(ValueError, match="num_returns"):
        zmreg.remote(cache=True, num_returns=2)(whole)


def test_cache_of_phases_goes_by_content() -> None:
    def inputs(k: int) -> int:
        return k % 10

    def dear(inputs: int) -> tuple[int, float]:
        return inputs, time.time()

    def go(k: int) -> Any:
        return zmreg.run([Phase("inputs", inputs, config={"k": k}), Phase("dear", dear, ["inputs"], cache=True)])

    first = go(3)
    assert go(13)["dear"] == first["dear"], "another input with the same content"
    assert go(4)["dear"] != first["dear"]


def test_two_runs_of_one_name_at_once_are_refused() -> None:
    gate: zmreg.Queue[int] = zmreg.Queue()
    began: zmreg.Queue[int] = zmreg.Queue()

    def waits() -> int:
        began.put(1)
        return gate.get(timeout=30)

    first = threading.Thread(target=lambda: zmreg.run([Phase("a", waits)], id="same"))
    first.start()
    began.get(timeout=30)
    with pytest.raises(PhaseError, match=f"run 'same' goes on in process {os.getpid()}"):
        zmreg.run([Phase("a", signals)], id="same")
    with pytest.raises(PhaseError, match="goes on"):
        zmreg.cleanup("same")
    gate.put(1)
    first.join()
    assert [run.status for run in summaries(Path(os.environ["ZMREG_RUNS"]))] == ["completed"]
