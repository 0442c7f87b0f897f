"""The benchmark harness: arithmetic, report, and one real run with the peers every Python has."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import measure, peers, workloads
from benchmarks.harness import Cell, Settings, reason_to_skip, rounds_of
from benchmarks.jobs import noop
from benchmarks.peers.base import Feature, bind
from benchmarks.report import advantage, markdown, rows_of, verdict
from benchmarks.workloads import Target, request_chain, request_fanout, request_many, request_tracing, workload
from zmreg.core import graphs

ROOT = Path(__file__).resolve().parents[2]
NOTES = {
    "date": "2026-01-01 00:00 UTC",
    "commit": "abc1234",
    "cpu": "some cpu",
    "cores": 2,
    "ram_gb": 8.0,
    "kernel": "6.1",
    "python": "3.11",
    "load": [0.1, 0.1, 0.1],
    "versions": {"bare": "27"},
}
# A run with a timeout far below what its task needs, in a process of its own: the harness ends all its children.
OVERDUE = """
import dataclasses
from benchmarks.harness import Settings, run_cell
from benchmarks.memory import become_subreaper, descendants
from benchmarks.workloads import workload
import os
become_subreaper()
cell = run_cell(dataclasses.replace(workload("skew"), timeout_s=0.5), "processpool", 0, Settings())
print(cell.status, cell.why, descendants(os.getpid()))
"""


def run_python(*arguments: str) -> subprocess.CompletedProcess[str]:
    """This interpreter, from the repository's root."""
    return subprocess.run([sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, check=False)


def latency_cells() -> list[Cell]:
    """Two rounds of three peers, and one absent."""
    figures = {"bare": (100.0, 102.0), "zmreg": (150.0, 160.0), "ray": (1500.0, 1600.0)}
    cells = [Cell("task_latency", "dask", 0, "skipped", "dask is not installed")]
    for peer, values in figures.items():
        cells += [Cell("task_latency", peer, n, "ok", "", {"p50_us": v, "p99_us": 2 * v}) for n, v in enumerate(values)]
    return cells


def test_percentile_is_the_nearest_rank() -> None:
    samples = [float(number) for number in range(100, 0, -1)]
    assert (measure.percentile(samples, 0.5), measure.percentile(samples, 0.99)) == (51.0, 100.0)
    with pytest.raises(ValueError, match="no samples"):
        measure.percentile([], 0.5)


def test_median_of_an_even_number_is_the_mean_of_the_middle_two() -> None:
    assert (measure.median([4.0, 1.0, 3.0]), measure.median([4.0, 1.0, 2.0, 3.0])) == (3.0, 2.5)


def test_rate_grows_the_batch_and_stops_at_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    batches: list[int] = []

    def run(count: int) -> None:
        nonlocal now
        batches.append(count)
        now += count * 0.001

    monkeypatch.setattr(measure, "perf_counter", lambda: now)
    assert measure.rate(run, seconds=1.0) == pytest.approx(1000.0)
    assert batches[0] == 64 and batches[-1] >= 1000 and batches == sorted(batches)
    batches.clear()
    assert measure.rate(run, seconds=1.0, at_most=300) == pytest.approx(1000.0)
    assert max(batches) == 300 and batches.count(300) == 4


@pytest.mark.parametrize("name", workloads.NAMES)
def test_every_workload_declares_what_its_targets_and_ratios_need(name: str) -> None:
    work = workload(name)
    figures = {figure.name for figure in work.figures}
    assert work.name == name and work.figures and (work.run or work.floor)
    assert {target.figure for target in work.targets} <= figures
    assert {target.against for target in work.targets} - {None} <= set(peers.NAMES)


def test_zmreg_is_asked_for_every_workload() -> None:
    skipped = {name: reason_to_skip(workload(name), "zmreg") for name in workloads.NAMES}
    assert {name for name, why in skipped.items() if why} == {"bare_echo", "bare_relay"}


def test_a_peer_without_the_feature_is_skipped_by_name() -> None:
    assert reason_to_skip(workload("chain"), "processpool") == "has no results as arguments of later calls"
    assert reason_to_skip(workload("chain"), "bare") == "nothing to measure without a framework"


def test_slow_starters_get_fewer_rounds_except_in_a_close_race() -> None:
    settings = Settings(rounds=3)
    assert rounds_of(workload("task_latency"), "zmreg", settings) == 3
    assert rounds_of(workload("task_latency"), "ray", settings) == 2
    assert rounds_of(workload("fanout_100mb"), "ray", settings) == 3
    assert rounds_of(workload("many_actors"), "zmreg", settings) == 1


def test_unknown_names_list_the_known_ones() -> None:
    with pytest.raises(KeyError, match="task_latency"):
        workload("task_latencies")
    with pytest.raises(KeyError, match="processpool"):
        peers.peer_class("celery")
    done = run_python("-m", "benchmarks", "task_latencies")
    assert done.returncode == 2 and "no workload 'task_latencies'" in done.stderr


def test_ratios_and_verdicts_are_made_of_medians() -> None:
    work = workload("task_latency")
    rows = rows_of(work, latency_cells())
    assert advantage(rows, "ray", work.figures[0]) == pytest.approx(10.0)
    assert advantage(rows, "dask", work.figures[0]) is None
    met = verdict(work, Target("p50_us", 1.7, "bare"), rows)
    assert (met.got, met.wanted, met.met) == ("1.53x", "at most 1.7x bare", True)
    assert verdict(work, Target("p50_us", 1.0, "dask"), rows).met is None
    assert verdict(work, Target("p50_us", 100.0), rows).met is False


def test_the_page_has_targets_ratios_and_who_was_skipped() -> None:
    page = markdown([workload("task_latency")], latency_cells(), NOTES)
    assert "| task_latency | p50_us | at most 1.7x bare | 1.53x | yes |" in page
    assert "| ray | 2 | 1,550.0 (1,500.0 to 1,600.0) | 3,100.0 (3,000.0 to 3,200.0) | 15.35 | 10.00x |" in page
    assert "- dask: skipped: dask is not installed" in page


def test_a_run_measures_prints_and_writes(tmp_path: Path) -> None:
    done = run_python(
        *("-m", "benchmarks", "task_latency", "import_time", "--peers", "processpool"),
        *("--rounds", "2", "--seconds", "0.05", "--out", str(tmp_path)),
    )
    assert done.returncode == 0, done.stderr
    assert "| processpool | 2 |" in done.stdout and "| bare | 2 |" in done.stdout
    assert "left " not in done.stdout
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".json", ".md"]


def test_a_cell_that_takes_too_long_is_ended_with_all_its_processes() -> None:
    done = run_python("-c", OVERDUE)
    assert done.stdout.split("\n")[0] == "failed no result within 0.5 s []", done.stderr


def test_a_graph_of_objects_is_bound_in_order_and_its_ends_are_given() -> None:
    steps = [("a", noop, (1,), None), ("b", noop, ("a", 2), 0), ("c", noop, ("a",), 1), ("d", noop, ("b",), None)]
    made = bind(steps, lambda step, args: (step[0], args))
    assert made == [("c", [("a", [1])]), ("d", [("b", [("a", [1]), 2])])]


def test_graphs_of_the_request_workloads_are_what_their_titles_say() -> None:
    chain, fan = request_chain.steps_of(5), request_fanout.steps_of(5)
    assert [step[2] for step in chain] == [(0,), ("step0",), ("step1",), ("step2",), ("step3",)]
    assert all(not isinstance(arg, str) for step in fan for arg in step[2])
    plan = graphs.plan([(name, function.__name__, args) for name, function, args, _ in request_many.steps_of(1)])
    assert (len(plan.steps), len(plan.levels), len(plan.outputs)) == (10, 6, 5)
    traced = graphs.plan(request_tracing.steps_of())
    assert (len(traced.steps), len(traced.levels)) == (200, 10)


def test_only_a_framework_with_names_and_switches_is_asked_for_them() -> None:
    why = "has no functions called by name, several nodes on one machine"
    assert reason_to_skip(workload("named_call"), "processpool") == why
    assert not workload("request_chain").needs & {Feature.NAMES, Feature.TRACING, Feature.LEDGER}
    for peer in ("ray", "dask"):
        features = peers.peer_class(peer).features
        assert Feature.GRAPHS in features and not features & {Feature.NAMES, Feature.TRACING, Feature.LEDGER}


def test_a_quick_run_of_a_request_reaches_the_programs_that_serve() -> None:
    done = run_python("-m", "benchmarks", "request_chain", "--quick", "--seconds", "0.05")
    assert done.returncode == 0, done.stderr
    assert "| zmreg | 1 |" in done.stdout and "left " not in done.stdout
