"""What is left of a run on the disk, its outputs for others, `zmreg runs` and `watch` (runs rows W11-W15, W25)."""

from __future__ import annotations

import json
import os
import re
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import zmreg
from tests.processes.drivers import eventually
from zmreg import Phase, Sink
from zmreg.flows.runs.journal import FILE, ITEM, Journal, Kept, RunSummary, is_running, read, summary_of
from zmreg.flows.runs.outputs import describe_outputs, read_file
from zmreg.model.errors import PhaseError
from zmreg.testing import LocalCluster
from zmreg.tools.cli import main

MIB = 1 << 20


@pytest.fixture(scope="module")
def nodes() -> Iterator[LocalCluster]:
    """Two nodes; the driver is at the first."""
    with LocalCluster(nodes=[{"num_cpus": 2}, {"num_cpus": 2, "locs": ["far"]}]) as made:
        zmreg.init(made.address)
        try:
            yield made
        finally:
            zmreg.shutdown()


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ZMREG_RUNS", str(tmp_path / "runs"))
    return tmp_path / "runs"


def files(folder: Path, run: str) -> list[Path]:
    return sorted((folder / run / "outputs").glob("*")) if (folder / run / "outputs").exists() else []


def counting(tmp_path: Path) -> list[Phase]:
    """Three phases that count how often each has run."""

    def count(name: str, value: Any) -> Any:
        with open(tmp_path / name, "a") as file:
            file.write("x")
        return value

    return [
        Phase("one", lambda: count("one", 1)),
        Phase("two", lambda one: count("two", bytes(2 * MIB) + bytes([one])), ["one"]),
        Phase("three", lambda two, k: count("three", len(two) * k), ["two"], config={"k": 1}),
    ]


def counts(tmp_path: Path) -> list[int]:
    return [len((tmp_path / name).read_text()) if (tmp_path / name).exists() else 0 for name in ("one", "two", "three")]


# -- outputs -----------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("nodes")
def test_W11_small_outputs_have_no_file_large_ones_one_and_both_come_back(folder: Path) -> None:
    small, large = {"x": "y" * 10_000}, bytes(5 * MIB)
    zmreg.store_phase_output("wf", "small", small, {"by": "me"})
    assert not files(folder, "wf")
    zmreg.store_phase_output("wf", "large", large)
    assert len(files(folder, "wf")) == 1 and zmreg.get_phase_outputs("wf") == {"small": small, "large": large}
    again = zmreg.store_phase_output("wf", "large", large + b"x")
    assert again.version == 2 and len(files(folder, "wf")) == 1 and len(zmreg.get_phase_output("wf", "large")) > 5 * MIB
    assert zmreg.store_phase_output("wf", "kept", 1, storage="disk").file is not None
    assert zmreg.store_phase_output("wf", "held", large, storage="memory").file is None
    assert describe_outputs("wf")["small"].metadata == {"by": "me"}
    with pytest.raises(KeyError, match="no output of a phase 'smal'; there are: small, large"):
        zmreg.get_phase_output("wf", "smal")
    zmreg.cleanup("wf")


@pytest.mark.usefixtures("nodes")
def test_W12_another_node_reads_it_and_W13_a_ref_loads_nothing(folder: Path) -> None:
    zmreg.store_phase_output("far", "large", bytes(5 * MIB))

    @zmreg.remote(locs=["far"])
    def there() -> tuple[str, int]:
        ref = zmreg.phase_ref("far", "large")
        before = ref.meta.holders
        return zmreg.get_runtime_context().get_node_id(), len(zmreg.get_phase_output("far", "large")) + len(before) * 0

    node, nbytes = there.remote().get(timeout=30)
    assert node != zmreg.get_runtime_context().get_node_id() and nbytes == 5 * MIB
    zmreg.cleanup("far")


@pytest.mark.usefixtures("nodes")
def test_W14_a_copy_is_another_name_and_outlives_its_source(folder: Path) -> None:
    value = bytes(8 * MIB)
    zmreg.store_phase_output("src", "a", value)
    copied = zmreg.copy_output("src", "a", "dst", "b")
    assert copied.file is not None and os.stat(copied.file.path).st_nlink == 2, "no byte was copied"
    assert zmreg.phase_ref("dst", "b") == zmreg.phase_ref("src", "a")
    with pytest.raises(ValueError, match="overwrite=True"):
        zmreg.copy_output("src", "a", "dst", "b")
    zmreg.copy_output("src", "a", "dst", "b", overwrite=True)
    zmreg.cleanup("src")
    assert zmreg.get_phase_output("dst", "b") == value and len(files(folder, "dst")) == 1
    zmreg.cleanup("dst")


@pytest.mark.usefixtures("nodes")
def test_W15_cleanup_leaves_nothing_and_may_be_repeated(folder: Path) -> None:
    zmreg.run([Phase("a", lambda: bytes(3 * MIB))], id="gone")
    assert len(files(folder, "gone")) == 1 and len(zmreg.get_phase_output("gone", "a")) == 3 * MIB
    zmreg.cleanup("gone")
    zmreg.cleanup("gone")
    assert not (folder / "gone").exists() and describe_outputs("gone") == {}
    result = zmreg.run([Phase("a", lambda: bytes(3 * MIB))], id="brief", keep=False)
    assert not (folder / "brief").exists() and len(result["a"]) == 3 * MIB


@pytest.mark.usefixtures("nodes")
def test_W24_phases_run_where_their_locs_are() -> None:
    def where() -> str:
        return zmreg.get_runtime_context().get_node_id()

    result = zmreg.run([Phase("here", where), Phase("far", where, locs=["far"])])
    far = next(node["NodeID"] for node in zmreg.nodes() if "far" in node["Locs"])
    assert result["far"] == far


@pytest.mark.usefixtures("nodes")
def test_W11_a_table_is_kept_as_parquet() -> None:
    arrow = pytest.importorskip("pyarrow")
    table = arrow.table({"a": list(range(1000))})
    file = zmreg.store_phase_output("tables", "t", table, storage="disk").file
    assert file is not None and file.form == "parquet"
    assert Path(file.path).read_bytes()[:4] == b"PAR1" and read_file(file) == table
    zmreg.cleanup("tables")


# -- resume ------------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("nodes")
def test_W25_done_phases_are_not_run_again_unless_code_configuration_or_inputs_changed(tmp_path: Path) -> None:
    phases = counting(tmp_path)
    first = zmreg.run(phases, id="wf")
    second = zmreg.run(counting(tmp_path), id="wf", resume=True)
    assert second.reused == ("one", "two", "three") and dict(second.outputs) == dict(first.outputs)
    assert counts(tmp_path) == [1, 1, 1]
    phases[2] = phases[2].but(config={"k": 2})
    assert zmreg.run(phases, id="wf", resume=True)["three"] == 2 * first["three"] and counts(tmp_path) == [1, 1, 2]
    phases[0] = Phase("one", lambda: 3)
    assert zmreg.run(phases, id="wf", resume=True).reused == () and counts(tmp_path) == [1, 2, 3]
    assert zmreg.run(phases, id="wf").reused == (), "only when it is wanted"
    zmreg.cleanup("wf")


@pytest.mark.usefixtures("nodes")
def test_W25_a_lost_or_damaged_output_is_made_again(tmp_path: Path, folder: Path) -> None:
    phases = counting(tmp_path)
    zmreg.run(phases, id="wf")
    (path,) = files(folder, "wf")
    path.write_bytes(b"\0" * path.stat().st_size)
    assert zmreg.run(phases, id="wf", resume=True).reused == ("one",) and counts(tmp_path) == [1, 2, 2]
    assert len(files(folder, "wf")) == 1, "the old file is gone"
    shutil.rmtree(folder / "wf" / "outputs")
    assert zmreg.run(phases, id="wf", resume=True).ok and counts(tmp_path) == [1, 3, 3]


@pytest.mark.usefixtures("nodes")
def test_W25_what_failed_runs_again_and_what_was_done_before_does_not(tmp_path: Path) -> None:
    phases = counting(tmp_path)
    bad = [*phases[:2], phases[2].but(config={"k": "x" * 3}, fn=lambda two, k: 1 // 0)]
    assert zmreg.run(bad, id="wf").status == "failed"
    result = zmreg.run(phases, id="wf", resume=True)
    assert result.ok and result.reused == ("one", "two") and counts(tmp_path) == [1, 1, 1]


PIPELINE = """
import zmreg
def double(x):
    return 2 * x
pipe = zmreg.Pipeline() | zmreg.stage(double, retries=1) | (lambda x: x + 1)
"""


@pytest.mark.usefixtures("nodes")
def test_W25_a_pipeline_is_the_same_after_it_was_run_and_with_other_lines_above_it() -> None:
    """Both had it run again: a plan that it remembers, and the place of its functions in their file."""
    reused = []
    for above in ("", "# a comment\n\n"):
        space: dict[str, Any] = {"__name__": "program"}
        exec(compile(above + PIPELINE, f"program{len(above)}.py", "exec"), space)
        phases = [Phase("flow", space["pipe"], foreach=range(3))]
        for _ in range(2):
            result = zmreg.run(phases, id="wf", resume=True)
            assert result["flow"] == [1, 3, 5]
            reused.append(result.reused)
    assert reused == [(), ("flow",), ("flow",), ("flow",)]
    changed = [Phase("flow", zmreg.Pipeline() | zmreg.stage(space["double"], retries=2) | abs, foreach=range(3))]
    assert zmreg.run(changed, id="wf", resume=True).reused == ()


@pytest.mark.usefixtures("nodes")
@pytest.mark.parametrize("writes", [False, True])
def test_W3_rows_of_a_phase_are_in_files_before_it_counts_as_done(tmp_path: Path, writes: bool) -> None:
    """It is not run again after that: rows that were not in files when the sink's process died were lost for ever."""

    def written(item: int, sink: Sink) -> int:
        sink.write({"n": item})
        return item

    counts = []

    def look(change: Any) -> None:
        if change.state == "done":
            counts.append((change.phase, len(list(Sink.read(tmp_path / "rows")))))

    phase = Phase("all", written if writes else lambda item: {"n": item}, foreach=range(20))
    told = Phase("told", lambda: {"no": "row"}, ["all"], record=False)
    sink = Sink(tmp_path / "rows", flush_interval=None)
    assert zmreg.run([phase, told], id="wf", sink=sink, on_phase=look).ok
    assert counts == [("all", 20), ("told", 20)]
    assert len(list(Sink.read(tmp_path / "rows"))) == 20


DRIVER = """
import sys, time, zmreg
from pathlib import Path
here = Path(sys.argv[1])

def count(name, value):
    with open(here / name, "a") as file:
        file.write("x")
    return value

def one():
    return count("one", 1)

def two(one):
    return count("two", bytes(2 << 20) + bytes([one]))

def three(two):
    while not (here / "go").exists():
        time.sleep(0.01)
    return count("three", len(two))

zmreg.init("local", num_cpus=1)
phases = [zmreg.Phase("one", one), zmreg.Phase("two", two, ["one"]), zmreg.Phase("three", three, ["two"])]
result = zmreg.run(phases, id="wf", resume=True, folder=here / "runs")
print(result.reused, result["three"])
zmreg.shutdown()
"""


def reached(path: Path, phase: str) -> RunSummary | None:
    found = summary_of(path)
    return found if found is not None and phase in found.phases else None


def test_W25_a_driver_killed_after_two_of_three_phases_goes_on_where_it_was(tmp_path: Path, folder: Path) -> None:
    script = tmp_path / "driver.py"
    script.write_text(DRIVER)
    command = [sys.executable, str(script), str(tmp_path)]
    first = subprocess.Popen(command)
    try:
        found: Any = eventually(lambda: reached(folder / "wf", "three"), 40, "phase three has not begun")
        assert found.status == "running" and found.phases["three"].state == "running"
    finally:
        first.send_signal(signal.SIGKILL)
        first.wait()
    after = summary_of(folder / "wf")
    assert after is not None and after.status == "interrupted" and not is_running(folder / "wf")
    outcome = CliRunner().invoke(main, ["watch", "wf", "--folder", str(folder)])
    assert outcome.exit_code == 1 and "wf interrupted, 2 of 3 phases done" in outcome.output
    (tmp_path / "go").touch()
    second = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert second.stdout.strip() == f"('one', 'two') {(2 << 20) + 1}"
    assert (tmp_path / "one").read_text() == (tmp_path / "two").read_text() == "x"
    assert (tmp_path / "three").read_text().startswith("x")


ITEMS = """
import os, sys, zmreg
from pathlib import Path
here, last = Path(sys.argv[1]), int(sys.argv[2])

def each(item):
    with open(here / f"ran-{item}", "a") as file:
        file.write("x")
    while not (here / "go").exists() and item >= last:
        os.sched_yield()
    return bytes([item]) * (2 << 20) if item == 3 else {"n": item}

zmreg.init("local", num_cpus=2)
sink = zmreg.Sink(here / "rows", key="n") if sys.argv[3] == "sink" else None
phases = [zmreg.Phase("each", each, foreach=range(20)), zmreg.Phase("after", lambda each: len(each), ["each"])]
def tell(result):
    if result["phase"] == "each":
        (here / f"told-{result['index']}").touch()

result = zmreg.run(phases, id="wf", resume=True, folder=here / "runs", sink=sink, on_result=tell)
values = result["each"]
assert values.pop(3) == bytes([3]) * (2 << 20) and [row["n"] for row in values] == [n for n in range(20) if n != 3]
print(result.status, result["after"])
zmreg.shutdown()
"""


def items_kept(folder: Path) -> int:
    return sum(row.state == ITEM for row in read(folder)[0])


def interruptible() -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_W25_a_phase_that_is_ended_in_the_midst_of_its_items_goes_on_with_those_that_are_left(
    tmp_path: Path, folder: Path, how: signal.Signals
) -> None:
    script = tmp_path / "driver.py"
    script.write_text(ITEMS)
    command = [sys.executable, str(script), str(tmp_path), "12", "-"]
    first = subprocess.Popen(command, preexec_fn=interruptible)
    try:
        if how == signal.SIGKILL:
            eventually(lambda: items_kept(folder / "wf") == 12, 40, "they are not kept")
        else:  # who is interrupted still writes down what is done
            eventually(lambda: len(list(tmp_path.glob("told-*"))) == 12, 40, "they are not done")
    finally:
        first.send_signal(how)
        first.wait()
    # The interrupt may come between the last one's news and its note.
    assert items_kept(folder / "wf") >= 11 + (how == signal.SIGKILL) and len(files(folder, "wf")) == 1, "of item 3"
    assert "each" in CliRunner().invoke(main, ["watch", "wf", "--folder", str(folder)]).output
    (tmp_path / "go").touch()
    second = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert second.stdout.strip() == "completed 20"
    ran = [(tmp_path / f"ran-{item}").read_text() for item in range(20)]
    assert ran[:12].count("x") >= 11 + (how == signal.SIGKILL) and all(ran)
    assert items_kept(folder / "wf") == 0 and len(files(folder, "wf")) == 1, "the phase as a whole is kept instead"


def test_W25_items_of_other_code_or_another_list_run_again_and_what_failed_does(tmp_path: Path, folder: Path) -> None:
    def each(item: int, factor: int) -> int:
        with open(tmp_path / f"ran-{item}", "a") as file:
            file.write("x")
        if item == 3 and not (tmp_path / "well").exists():
            raise ValueError("not well")
        return item * factor

    def go(items: list[int], factor: int) -> zmreg.RunResult:
        phase = Phase("each", each, foreach=items, config={"factor": factor}, concurrency=1)
        return zmreg.run([phase], id="wf", resume=True)

    def ran() -> list[int]:
        return [len((tmp_path / f"ran-{item}").read_text()) for item in range(5) if (tmp_path / f"ran-{item}").exists()]

    assert not go([0, 1, 2, 3, 4], 1).ok and ran() == [1, 1, 1, 1]
    assert not go([0, 1, 2, 3, 4], 1).ok and ran() == [1, 1, 1, 2]
    assert not go([0, 1, 2, 3, 4], 10).ok and ran() == [2, 2, 2, 3], "another configuration"
    (tmp_path / "well").touch()
    assert go([0, 1, 2, 3, 4], 10)["each"] == [0, 10, 20, 30, 40] and ran() == [2, 2, 2, 4, 1]
    assert go([1, 0, 2], 10)["each"] == [10, 0, 20] and ran() == [3, 3, 3, 4, 1]


def test_W25_rows_of_items_that_are_not_run_again_are_in_the_sink_once(tmp_path: Path, folder: Path) -> None:
    script = tmp_path / "driver.py"
    script.write_text(ITEMS)
    command = [sys.executable, str(script), str(tmp_path), "12", "sink"]
    first = subprocess.Popen(command, preexec_fn=interruptible)
    try:
        eventually(lambda: len(list(tmp_path.glob("told-*"))) == 12, 40, "they are not done")
    finally:
        first.send_signal(signal.SIGINT)
        first.wait()
    kept = items_kept(folder / "wf")
    assert kept >= 11 and len(list(Sink.read(tmp_path / "rows"))) >= kept - 1
    (tmp_path / "go").touch()
    subprocess.run(command, capture_output=True, timeout=60, check=True)
    assert sorted(row["n"] for row in Sink.read(tmp_path / "rows")) == [n for n in range(20) if n != 3]


# -- the journal -------------------------------------------------------------------------------------------------------


def written(folder: Path, count: int) -> Path:
    journal = Journal(folder)
    for number in range(count):
        journal.write(Kept(f"p{number}", "done", float(number), key="k", form="body", body=bytes(3000)))
    journal.close()
    return folder / FILE


def test_W25_a_damaged_row_ends_what_counts(tmp_path: Path) -> None:
    path = written(tmp_path, 5)
    with sqlite3.connect(path) as db:
        db.execute("update rows set body = x'00' where seq = 4")
    db.close()
    rows, sound = read(tmp_path)
    assert [row.phase for row in rows] == ["p0", "p1", "p2"] and not sound
    journal = Journal(tmp_path)  # puts the damaged one aside, and goes on with what is good
    journal.write(Kept("p9", "done", 9.0))
    journal.close()
    assert [row.phase for row in read(tmp_path)[0]] == ["p0", "p1", "p2", "p9"] and read(tmp_path)[1]
    assert list(tmp_path.glob("*.damaged-1"))


@pytest.mark.parametrize("cut", [0.3, 0.6, 0.95])
def test_W25_a_file_cut_short_never_gives_more_than_was_written(tmp_path: Path, cut: float) -> None:
    path = written(tmp_path, 20)
    os.truncate(path, int(path.stat().st_size * cut))
    journal = Journal(tmp_path)
    names = [row.phase for row in journal.past]
    journal.write(Kept("new", "done", 1.0))
    journal.close()
    assert names == [f"p{n}" for n in range(len(names))] and len(names) < 20
    assert read(tmp_path)[0][-1].phase == "new"


def test_W25_a_file_that_is_no_journal_is_put_aside(tmp_path: Path) -> None:
    (tmp_path / FILE).write_bytes(b"not a database" * 100)
    journal = Journal(tmp_path)
    assert journal.past == []
    with pytest.raises(PhaseError, match=f"goes on in process {os.getpid()}"):
        Journal(tmp_path)
    assert is_running(tmp_path)
    journal.close()
    assert not is_running(tmp_path)


def test_W25_a_journal_that_cannot_be_begun_says_which_and_why(tmp_path: Path) -> None:
    most = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000, most[1]))  # less than a page
    try:
        with pytest.raises(sqlite3.Error, match=f"the journal {re.escape(str(tmp_path / FILE))} cannot be written: "):
            Journal(tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, most)
    Journal(tmp_path).close()  # nobody has it locked


# -- the command line --------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("nodes")
def test_runs_and_watch_tell_what_was_and_exit_by_how_it_went(folder: Path) -> None:
    zmreg.run([Phase("a", lambda: 1)], id="good")
    zmreg.run([Phase("a", lambda: 1 // 0), Phase("b", lambda a: 1, ["a"])], id="bad")
    run = CliRunner().invoke
    listed = json.loads(run(main, ["runs", "--json"]).output)
    assert [(each["run"], each["status"], each["total"]) for each in listed] == [
        ("bad", "failed", 2), ("good", "completed", 1),
    ]  # fmt: skip
    table = run(main, ["runs", "--folder", str(folder)]).output.splitlines()
    assert table[0].split() == ["Run", "Status", "Done", "Started", "Seconds", "Failed"] and "0/2" in table[1]
    good, bad, none = (run(main, ["watch", name]) for name in ("good", "bad", "none"))
    assert (good.exit_code, bad.exit_code, none.exit_code) == (0, 1, 2)
    assert "a done in" in good.output and "good completed, 1 of 1 phases done" in good.output
    assert "b skipped: a failed: " in bad.output and "no run 'none'" in none.output
    assert run(main, ["watch", "../up"]).exit_code == 2
