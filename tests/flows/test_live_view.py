"""Pipelines and runs that are watched: what is drawn, where, and that it ends with them (issue 6, point 5)."""

from __future__ import annotations

import gc
import io
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

import zmreg
from zmreg import Phase, Pipeline
from zmreg.core.live_table import Line
from zmreg.flows.live.view import LiveView


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def twice(number: int) -> int:
    return 2 * number


def watching() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == "zmreg-live-view"]


def test_a_terminal_is_drawn_anew_in_place_and_a_log_gets_lines_only_when_something_moves() -> None:
    lines, looked = [Line("a", "running")], threading.Semaphore(0)

    def look() -> list[Line]:
        looked.release()
        return lines

    terminal, log = Terminal(), io.StringIO()
    with LiveView(look, 0.001, terminal), LiveView(lambda: lines, 0.001, log):
        for _ in range(4):
            assert looked.acquire(timeout=20)
        lines = [Line("a", "done", 3, 3)]
    assert terminal.getvalue().count("\x1b[2F") >= 3, "two lines up, each time"
    *_, last, end = terminal.getvalue().splitlines()
    assert last.startswith("a  done    3    3") and last.endswith("\x1b[K") and end == "\x1b[J"
    first, *_, last = moved = log.getvalue().splitlines()
    assert all("done" in line for line in moved[1:]), "what did not move was said once"
    assert first.endswith(": a running") and ": a done 3 in 3 out" in last
    assert not watching()


def test_a_pipeline_that_is_watched_says_how_it_went_and_the_view_ends_with_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    pipe = Pipeline() | twice | zmreg.stage(twice, name="again")
    assert pipe.collect(range(100), watch=True) == [4 * number for number in range(100)]
    last = capsys.readouterr().err.splitlines()[-1]
    assert "twice" in last and "100 in 100 out" in last and "again" in last
    assert pipe.run([1], watch=True).outputs == {"again": [4]}
    for output in pipe.stream(range(100)).watch():
        assert output == 0
        break
    assert not watching()


def test_a_run_that_is_dropped_takes_its_view_along() -> None:
    def endless() -> Iterator[int]:
        yield from iter(int, 1)

    run = Pipeline(endless).stream(buffer=1).watch()
    (view,) = [thread for thread in threading.enumerate() if thread.name == "zmreg-live-view"]
    del run
    gc.collect()
    view.join(20)
    assert not view.is_alive()


def test_a_pause_between_looks_that_is_none_is_refused() -> None:
    run = Pipeline([1]).stream()
    with run, pytest.raises(ValueError, match="every_s=0"):
        run.watch(0)


def test_phases_that_are_watched_show_items_and_stages(
    cluster: object, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    phases = [
        Phase("items", twice, foreach=range(10)), Phase("pipe", Pipeline() | twice, config={"items": range(5)}),
        Phase("bad", len, config={"obj": 3}, required=False),
    ]  # fmt: skip
    result = zmreg.run(phases, watch=True)
    assert result.ok
    *_, last = capsys.readouterr().err.splitlines()
    assert "items done 10 in 10 out" in last
    assert "pipe done" in last and "pipe/twice done 5 in 5 out" in last and "bad failed" in last
    assert not watching()


def test_a_pipeline_tells_those_who_listen_that_it_began_and_how_it_ended(cluster: object) -> None:
    with zmreg.subscribe("pipeline.#") as events:
        runs = [
            (Pipeline() | twice).stream([1, 2]),
            (Pipeline() | twice | zmreg.stage(twice, concurrency=2)).stream([1, 2]),
            (Pipeline() | (lambda x: 1 / x)).stream([0]), (Pipeline() | twice).stream(iter(int, 1)),
        ]  # fmt: skip
        assert list(runs[0]) == [2, 4] and list(runs[1]) == [4, 8]
        with pytest.raises(zmreg.errors.PipelineError):
            next(runs[2])
        assert next(runs[3]) == 0
        runs[3].close()
        heard = dict(events.get(timeout=20) for _ in range(8))
    assert heard[f"pipeline.{runs[1].id}.started"] == {"stages": ["twice", "twice_2"]}
    ends = [heard[f"pipeline.{run.id}.ended"] for run in runs]
    assert [end["status"] for end in ends] == ["completed", "completed", "failed", "stopped"]
    assert "division by zero" in ends[2]["error"] and not ends[0]["error"]
    assert [stage["items_out"] for stage in ends[1]["stages"]] == [2, 2]
