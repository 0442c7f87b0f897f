"""Sinks: rows from any process into one directory of files (runs W1-W10)."""

from __future__ import annotations

import asyncio
import csv
import json
import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest

import zmreg
from tests.processes.drivers import Driver, eventually
from zmreg import ResultStreamer, Sink
from zmreg.flows.results import sink_lane
from zmreg.flows.results.result_dirs import read_manifest
from zmreg.model.errors import ActorDiedError

pytestmark = pytest.mark.usefixtures("cluster")
T = 30


def lines(path: Path) -> list[str]:
    """Of all files of results."""
    return [line for part in sorted(path.glob("part-*")) for line in part.read_text().splitlines()]


def manifest(path: Path) -> dict[str, Any]:
    found = read_manifest(path)
    assert found is not None
    return found


def test_W1_W2_a_streamer_flushes_full_buffers(tmp_path: Path) -> None:
    streamer = ResultStreamer("nightly", tmp_path / "new" / "dir", buffer_size=1000, flush_interval=None)
    for number in range(2500):
        streamer.write_result({"n": number})
    assert (streamer.write_count, streamer.flush_count) == (2500, 2)
    where = tmp_path / "new" / "dir" / "nightly"
    assert len(lines(where)) == 2000 and manifest(where)["complete"] is False
    streamer.close()
    streamer.close()
    assert streamer.closed and streamer.flush_count == 3
    assert [json.loads(line)["n"] for line in lines(where)] == [*range(2500)]
    said = manifest(where)
    assert (said["complete"], said["rows"], said["workflow_id"]) == (True, 2500, "nightly")
    for late in (lambda: streamer.write_result({}), streamer.flush):
        with pytest.raises(ValueError, match="closed"):
            late()


def test_W1_in_a_loop_nothing_blocks_it(tmp_path: Path) -> None:
    longest = [0.0]

    async def watch() -> None:
        while True:
            before = time.monotonic()
            await asyncio.sleep(0.001)
            longest[0] = max(longest[0], time.monotonic() - before)

    async def main() -> None:
        watching = asyncio.create_task(watch())
        streamer = ResultStreamer("w", tmp_path, fsync=True)
        for number in range(20):
            await asyncio.gather(*(streamer.write_result({"n": each, "of": number}) for each in range(125)))
            await asyncio.sleep(0)
        await streamer.flush()
        assert len(lines(tmp_path / "w")) == 2500
        await streamer.close()
        watching.cancel()

    async def plain() -> None:
        async with Sink(tmp_path / "plain") as sink:
            for number in range(10):
                await sink.awrite({"n": number})
            await sink.awrite({"n": 10}, durable=True)
            assert len(lines(tmp_path / "plain")) == 11

    asyncio.run(main())
    asyncio.run(plain())
    assert manifest(tmp_path / "plain")["complete"] is True
    assert longest[0] < 1, "something has waited for a disk on the loop"  # 50 ms on a quiet machine


def test_W2_what_makes_no_sense_is_said_at_once(tmp_path: Path) -> None:
    for wrong in ({"buffer_size": 0}, {"flush_interval": 0}, {"format": "xml"}, {"compression": "rar"}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            Sink(tmp_path / "wrong", **wrong)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="colour"):
        Sink(tmp_path / "wrong", colour="red")  # type: ignore[call-arg]
    for key in ([], ["n", 3], 3):
        with pytest.raises(TypeError, match="names of fields are needed, as key='task.id' or key="):
            Sink(tmp_path / "wrong", key=key)  # type: ignore[arg-type]
    for name in ("", "..", "a/b"):
        with pytest.raises(ValueError, match="workflow_id"):
            ResultStreamer(name, tmp_path)
    assert not (tmp_path / "wrong").exists()
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        Sink(tmp_path / "file" / "below")
    with Sink(tmp_path / "mine"), pytest.raises(OSError, match="another sink writes"):
        Sink(tmp_path / "mine")


def test_W2_few_rows_are_flushed_by_time(tmp_path: Path) -> None:
    with Sink(tmp_path, flush_interval=0.02) as sink:
        sink.write({"n": 1})
        eventually(lambda: len(lines(tmp_path)) == 1, T, "nobody has flushed")
        assert sink.flush_count == 1


def test_W4_csv_has_the_columns_of_all_rows(tmp_path: Path) -> None:
    with Sink(tmp_path, "csv", buffer_size=2) as sink:
        for number in range(5):
            sink.write({"n": number, "result": {"metrics": {"sharpe_ratio": number / 2}}})
        sink.write({"n": 5, "late": True})
    with (tmp_path / "part-00000.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows[4] == {"n": "4", "result.metrics.sharpe_ratio": "2.0", "late": ""}
    assert rows[5] == {"n": "5", "result.metrics.sharpe_ratio": "", "late": "True"}


def test_W5_parquet(tmp_path: Path) -> None:
    with Sink(tmp_path, "parquet") as sink:
        for number in range(2500):
            sink.write({"n": number, "nested": {"x": [number]}})
        sink.flush()
        assert sum(1 for _ in Sink.read(tmp_path)) == 2500  # what was flushed can be read, also after a crash
    assert [row["nested"] for row in Sink.read(tmp_path)][2499] == {"x": [2499]}


def test_W6_W7_figures_while_it_runs_and_at_the_end(tmp_path: Path) -> None:
    with ResultStreamer("w", tmp_path, flush_interval=None) as streamer:
        for number in range(1, 101):
            row = {"phase": f"p{number % 2}", "container_id": f"c{number % 10}", "result": {"metrics": {"m": number}}}
            streamer.write_result(row)
        assert streamer.flush_count == 0
        figures = streamer.metrics["m"]
        assert figures == {
            "count": 100, "mean": 50.5, "std": pytest.approx(29.011491975882016), "min": 1, "max": 100, "ignored": 0,
        }  # fmt: skip
    found = streamer.get_aggregated_results(n=3)
    assert [each["value"] for each in found["top_performers"]] == [100, 99, 98]
    assert [each["value"] for each in streamer.get_aggregated_results("m", 2, ascending=True)["top_performers"]] == [
        1,
        2,
    ]
    assert {name: phase["count"] for name, phase in found["phases"].items()} == {"p1": 50, "p0": 50}
    assert found["average_metrics"] == {"m": 50.5}
    assert found["best_containers"][0] == {"container": "c0", "mean": 55, "count": 10}
    assert streamer.metrics["m"]["count"] == 100  # also when it is closed


@zmreg.remote
def write_thousand(sink: Sink, worker: int) -> int:
    for number in range(1000):
        sink.write({"worker": worker, "n": number})
    return worker


@zmreg.remote
class Writer:
    def __init__(self, sink: Sink) -> None:
        self.sink = sink

    def write(self, count: int) -> None:
        for number in range(count):
            self.sink.write({"worker": "actor", "n": number})


def test_W8_rows_of_all_workers_are_there_when_it_is_closed(tmp_path: Path) -> None:
    """Nobody flushes in the workers; what they hand in late is waited for."""
    for turn in range(3):
        where = tmp_path / str(turn)
        with ResultStreamer("w", where) as sink:
            writer = Writer.remote(sink)
            done = [write_thousand.remote(sink, worker) for worker in range(4)]
            zmreg.get([*done, writer.write.remote(500)], timeout=T)
        rows = [json.loads(line) for line in lines(where / "w")]
        assert len(rows) == 4500
        for worker, count in [*((each, 1000) for each in range(4)), ("actor", 500)]:
            assert [row["n"] for row in rows if row["worker"] == worker] == [*range(count)]
        assert sink.write_count == 4500


def test_W9_an_error_leaves_what_there_is_and_says_that_it_is_not_all(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="stop here"), Sink(tmp_path) as sink:
        for number in range(1234):
            sink.write({"n": number})
        raise RuntimeError("stop here")
    assert len(lines(tmp_path)) == 1234
    assert manifest(tmp_path)["complete"] is False and manifest(tmp_path)["rows"] == 1234


def test_W9_a_sink_that_is_thrown_away_keeps_its_rows(tmp_path: Path) -> None:
    sink = Sink(tmp_path, flush_interval=None)
    for number in range(10):
        sink.write({"n": number})
    assert sink.write_count == 10
    del sink
    eventually(lambda: manifest(tmp_path)["rows"] == 10, T, "its rows are gone")
    assert manifest(tmp_path)["complete"] is False and len(lines(tmp_path)) == 10


def test_W10_it_can_be_watched_from_another_thread_and_by_events(tmp_path: Path) -> None:
    over, counts = threading.Event(), []
    with zmreg.subscribe("result.*") as told, ResultStreamer("watched", tmp_path, buffer_size=100) as streamer:

        def poll() -> None:
            while not over.is_set():
                counts.append((streamer.write_count, streamer.metrics.get("n", {}).get("count", 0)))

        polling = threading.Thread(target=poll)
        polling.start()
        for number in range(2000):
            streamer.write_result({"n": number})
            if number == 1000:
                eventually(lambda: bool(counts) and counts[-1][0] > 0, T, "nothing was seen")
        streamer.flush()
        over.set()
        polling.join()
        flushed = []
        seen: dict[str, Any] = {}
        while seen.get("write_count") != 2000:
            topic, seen = told.get(T)
            assert topic in ("result.written", "result.flushed") and seen["workflow_id"] == "watched"
            flushed.append(topic)
    assert "result.flushed" in flushed
    assert counts == sorted(counts) and counts[0][0] > 0 or counts[0][0] == 0


def test_W2_who_writes_faster_than_the_disk_waits(tmp_path: Path) -> None:
    """Bounded: rows here and on their way never exceed what is said."""
    with Sink(tmp_path) as sink:
        sink.flush()
        most = 0
        for number in range(20_000):
            sink.write({"n": number})
            most = max(most, len(sink._lane._pieces))
        assert most <= sink_lane.MOST_ROWS
    assert len(lines(tmp_path)) == 20_000


def test_W25_rows_by_key_count_once_however_often_they_are_written(tmp_path: Path) -> None:
    for _ in range(2):
        with Sink(tmp_path, key="n") as sink:
            zmreg.get([write_thousand.remote(sink, worker) for worker in range(2)], timeout=T)
    assert sorted(json.loads(line)["n"] for line in lines(tmp_path)) == [*range(1000)]


def test_W25_a_key_of_several_fields(tmp_path: Path) -> None:
    for _ in range(2):
        with Sink(tmp_path, key=["phase", "container"]) as sink:
            for phase, container in (("a", "b-c"), ("a-b", "c"), ("a", "b-c"), ("a", "c")):
                sink.write({"phase": phase, "container": container})
            with pytest.raises(ValueError, match=r"without 'container' for the sink in .*; it has 'phase', 'n'"):
                sink.write({"phase": "a", "n": 1})
    assert [tuple(json.loads(line).values()) for line in lines(tmp_path)] == [("a", "b-c"), ("a-b", "c"), ("a", "c")]


def test_fault_41_a_full_disk_raises_where_rows_are_written_and_they_are_kept(tmp_path: Path) -> None:
    with Sink(tmp_path, flush_interval=None, buffer_size=10) as sink:
        with pytest.raises(OSError, match="No space") as told:
            zmreg.run_on_all(_fill, True)
            for number in range(1_000_000):
                sink.write({"n": number})
        assert told.value.errno == 28
        kept = sink._lane._put
        with pytest.raises(OSError, match="No space"):
            sink.flush()
        zmreg.run_on_all(_fill, False)
        sink.flush()
        assert len(lines(tmp_path)) == kept == number
        sink.write({"n": "more"})
    assert [json.loads(line)["n"] for line in lines(tmp_path)] == [*range(number), "more"]


def _fill(full: bool) -> None:
    """Have the disk of this process full, or not."""
    import errno

    from zmreg.flows.results.result_dirs import Appender

    def append(self: Appender, piece: bytes, sync: bool = False) -> None:
        self.hold(piece)
        if self.waiting:
            raise OSError(errno.ENOSPC, "No space left on device")

    if full:
        Appender._real = Appender.append  # type: ignore[attr-defined]
        Appender.append = append  # type: ignore[method-assign]
    elif hasattr(Appender, "_real"):  # else a worker that has come since
        Appender.append = Appender._real  # type: ignore[attr-defined, method-assign]


def test_fault_65_a_sink_whose_process_is_killed_is_an_error_and_its_flushed_rows_stay(tmp_path: Path) -> None:
    sink = Sink(tmp_path, flush_interval=None)
    sink.write({"n": 0}, durable=True)
    sink.write({"n": 1})
    assert sink.write_count == 2
    (pid,) = {pid for pid in zmreg.run_on_all(_pid_if_sink, str(tmp_path)).values() if pid}
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(ActorDiedError):
        for number in range(1_000_000):
            sink.write({"n": number})
    for late in (sink.flush, sink.close):
        with pytest.raises(ActorDiedError):
            late()
    assert manifest(tmp_path)["complete"] is False
    with Sink(tmp_path) as again:
        again.write({"n": "again"})
    assert [row["n"] for row in Sink.read(tmp_path)] == [0, "again"]


def _pid_if_sink(path: str) -> int:
    import gc

    from zmreg.flows.results.recorder import Recorder

    found = any(isinstance(each, Recorder) and str(each.directory) == path for each in gc.get_objects())
    return os.getpid() if found else 0


PROGRAM = """
zmreg.init(num_cpus=1)
sink = zmreg.Sink(os.environ["WHERE"], flush_interval=None)
for number in range(500):
    sink.write({"n": number})
sink.flush()
for number in range(500, 600):
    sink.write({"n": number})
say("written", sink.write_count)
if os.environ["END"] == "wait":
    sys.stdin.read()
"""


@pytest.mark.parametrize("end", ["killed", "exit"])
def test_W9_the_end_of_a_program_leaves_what_was_flushed(tmp_path: Path, end: str) -> None:
    waits = "wait" if end == "killed" else "exit"
    with Driver(PROGRAM, env={"WHERE": str(tmp_path), "END": waits}) as program:
        assert program.after("written") == "600"
        if end == "killed":
            program.process.kill()
        program.process.wait(T)
        eventually(lambda: not _is_written(tmp_path), T, "the sink's process is still there")
    count = len(list(Sink.read(tmp_path)))
    assert 500 <= count <= 600 and manifest(tmp_path)["complete"] is False
    if end == "exit":
        assert count == 600


def _is_written(path: Path) -> bool:
    from zmreg.flows.results.result_dirs import is_written

    return is_written(path)


def test_W10_rows_of_another_format_and_no_results_are_told(tmp_path: Path) -> None:
    with Sink(tmp_path / "a"):
        pass
    with pytest.raises(ValueError, match="has results in jsonl"):
        Sink(tmp_path / "a", "csv")
    with pytest.raises(FileNotFoundError, match="no results"):
        Sink.read(tmp_path)
    assert list(Sink.read(tmp_path / "a")) == []
