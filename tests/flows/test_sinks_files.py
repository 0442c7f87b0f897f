"""What a sink does with files, without a cluster (runs W2-W5, W26, W27, faults 41, 64, 65)."""

from __future__ import annotations

import csv
import errno
import fcntl
import gzip
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.effort import examples
from zmreg.core.aggregates import measures_of
from zmreg.flows.results import recorder, result_dirs
from zmreg.flows.results.formats import Format
from zmreg.flows.results.recorder import Recorder, Terms, key_of
from zmreg.flows.results.result_dirs import checksum, read_manifest, read_rows, retain

ROOT = Path(__file__).parents[2]
KINDS = [("jsonl", None), ("jsonl", "gzip"), ("csv", None), ("csv", "gzip"), ("parquet", None), ("parquet", "zstd")]
Told = list[tuple[str, dict[str, Any]]]


def made(path: Path, told: Told | None = None, **terms: Any) -> Recorder:
    return Recorder(
        path, Terms(**terms), lambda topic, value: (told if told is not None else []).append((topic, value))
    )


def write(
    into: Recorder, rows: list[dict[str, Any]], form: Format | None = None, key: str | tuple[str, ...] | None = None
) -> tuple[bool, Any]:
    form = form or Format(into._terms.format, into._terms.compression, into._terms.strict)
    keys = [key_of(row, key, into.directory) for row in rows] if key else []
    return into.take([form.encode(row) for row in rows], [measures_of(row) for row in rows], keys)


def rows_in(path: Path) -> list[dict[str, Any]]:
    manifest = read_manifest(path)
    assert manifest is not None
    form = Format(manifest["format"], manifest["compression"])
    return list(read_rows(path, form, manifest.get("columns", [])))


@pytest.fixture
def crash() -> Callable[[Recorder], None]:
    """The end of a process, as far as files go: nothing is flushed any more, the lock is free."""

    def ended(victim: Recorder) -> None:
        victim._lock.release()
        if victim._open is not None:
            victim._open[0].close()

    return ended


@pytest.mark.parametrize(("name", "compression"), KINDS)
def test_W3_W4_W5_all_rows_come_back(tmp_path: Path, name: str, compression: str | None) -> None:
    sink = made(tmp_path / "r", format=name, compression=compression, buffer_size=10)
    rows = [{"a": number, "b": f'say "{number}",\r\n', "c": number / 4} for number in range(25)]
    write(sink, rows)
    assert sink.state()["buffered"] == 5 and sink.flush_count == 2
    sink.close(complete=True)
    assert sink.flush_count == 3
    manifest = read_manifest(tmp_path / "r")
    assert manifest is not None and manifest["complete"] is True and manifest["rows"] == 25
    (part,) = manifest["parts"]
    path = tmp_path / "r" / part["name"]
    assert (part["bytes"], part["sha256"]) == (path.stat().st_size, checksum(path))
    assert {each.name for each in (tmp_path / "r").iterdir()} == {path.name, "manifest.json", ".lock"}
    found = rows_in(tmp_path / "r")
    assert found == ([{key: str(value) for key, value in row.items()} for row in rows] if name == "csv" else rows)
    with pytest.raises(ValueError, match="closed"):
        write(sink, rows)


def test_W3_lines_of_json_in_plain_files(tmp_path: Path) -> None:
    sink = made(tmp_path, compression="gzip")
    write(sink, [{"a": 1, "when": date(2026, 1, 2), (1, 2): {3: "ü"}}])
    sink.close(complete=True)
    with gzip.open(tmp_path / "part-00000.jsonl.gz", "rt") as file:
        assert json.loads(file.read()) == {"a": 1, "when": "2026-01-02", "(1, 2)": {"3": "ü"}}
    for row in ({"a": date(2026, 1, 2)}, {(1, 2): 3}, {"a": float("nan")}):
        with pytest.raises((TypeError, ValueError)):
            Format("jsonl", strict=True).encode(row)


def test_W4_nested_rows_are_flat_and_late_columns_get_a_heading(tmp_path: Path) -> None:
    sink = made(tmp_path, format="csv", buffer_size=1)
    write(sink, [{"id": 1, "result": {"metrics": {"sharpe_ratio": 1.5}}}])
    write(sink, [{"id": 2, "late": [1, {"a": 2}], "result": {"metrics": {}}}, {"later": "x"}])
    sink.close(complete=True)
    with (tmp_path / "part-00000.csv").open(newline="") as file:
        assert list(csv.DictReader(file)) == [
            {"id": "1", "result.metrics.sharpe_ratio": "1.5", "late": "", "later": ""},
            {"id": "2", "result.metrics.sharpe_ratio": "", "late": '[1, {"a": 2}]', "later": ""},
            {"id": "", "result.metrics.sharpe_ratio": "", "late": "", "later": "x"},
        ]


def test_W5_a_row_group_for_each_flush_and_other_columns_in_another_part(tmp_path: Path) -> None:
    import pyarrow.parquet as parquet

    sink = made(tmp_path, format="parquet", buffer_size=100)
    write(sink, [{"n": number} for number in range(250)])
    write(sink, [{"n": None}] * 50)
    write(sink, [{"n": 1, "other": "x"}, {"n": "word", "other": 2.5}, {"n": 1, "mixed": 1}, {"mixed": 2.5}])
    sink.close(complete=True)
    first = parquet.ParquetFile(tmp_path / "part-00000.parquet")
    assert (first.num_row_groups, first.metadata.num_rows) == (3, 300)
    assert first.metadata.row_group(0).column(0).compression == "SNAPPY"
    first.close()
    assert rows_in(tmp_path)[300:] == [
        {"n": "1", "other": "x", "mixed": None},
        {"n": "word", "other": "2.5", "mixed": None},
        {"n": "1", "other": None, "mixed": 1},
        {"n": None, "other": None, "mixed": 2.5},
    ]


def test_W5_what_parquet_knows_stays_what_it_is_and_the_rest_is_words(tmp_path: Path) -> None:
    import numpy as np

    known = {
        "d": date(2026, 1, 2),
        "m": Decimal("1.5"),
        "b": b"x",
        "deep": {"list": [1, None], "at": datetime(2026, 1, 2)},
    }
    sink = made(tmp_path, format="parquet")
    write(sink, [{**known, "np": np.float32(0.5), "path": Path("/a"), "t": (1, 2)}])
    sink.close(complete=True)
    assert rows_in(tmp_path) == [{**known, "np": 0.5, "path": "/a", "t": [1, 2]}]
    with pytest.raises(TypeError, match="PosixPath"):
        Format("parquet", strict=True).encode({"path": Path("/a")})


def test_W5_what_there_is_not_is_said_before_anything_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="jsonl, csv, parquet"):
        Format("xml")
    with pytest.raises(ValueError, match="zstd"):
        Format("jsonl", "zstd")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(ImportError, match=r"zmreg\[parquet\]"):
        Format("parquet")


WRITER = """
import sys
from tests.flows.test_sinks_files import made, write
sink = made(sys.argv[1], format=sys.argv[2], compression=sys.argv[3] or None, buffer_size=1000, part_bytes=40_000)
for number in range(2500):
    write(sink, [{"n": number, "text": "two" + chr(10) + "lines"}])
sink.flush()
write(sink, [{"n": number} for number in range(2500, 2600)])
sink._open and sink._open[0].append(b'{"torn": "')
print("ready", flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize(("name", "compression"), KINDS[:5])
def test_fault_65_after_kill_9_what_was_flushed_is_there_and_nothing_torn(
    tmp_path: Path, name: str, compression: str | None
) -> None:
    """W3: the file of a writer that was killed; torn bytes are at its end."""
    where = tmp_path / "r"
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, str(where), name, compression or ""],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(ROOT)},
    ) as process:  # fmt: skip
        assert process.stdout is not None and process.stdout.readline() == b"ready\n"
        process.send_signal(signal.SIGKILL)
    manifest = read_manifest(where)
    assert manifest is not None and manifest["complete"] is False
    assert [int(row["n"]) for row in rows_in(where)] == [*range(2500)]
    again = made(where, format=name, compression=compression)
    manifest = read_manifest(where)
    assert manifest is not None and manifest["rows"] == 2500
    write(again, [{"n": 2500}])
    again.close(complete=True)
    assert [int(row["n"]) for row in rows_in(where)] == [*range(2501)]
    assert not [path for path in where.iterdir() if path.name.endswith(".open")]


@pytest.mark.parametrize("step", ["rename", "manifest", "rewritten"])
@pytest.mark.parametrize("name", ["jsonl", "csv", "parquet"])
def test_fault_65_a_crash_between_data_and_manifest_doubles_and_halves_nothing(
    tmp_path: Path, name: str, step: str, monkeypatch: pytest.MonkeyPatch, crash: Callable[[Recorder], None]
) -> None:
    sink = made(tmp_path, format=name, buffer_size=1)
    write(sink, [{"n": 1}, {"n": 2}] if name == "parquet" else [{"n": 1}, {"n": 2, "late": 3}])
    sink.flush(promise=False)

    def dies(*_: object) -> None:
        raise MemoryError("here it ends")

    with monkeypatch.context() as patched:
        if step == "rename":
            patched.setattr(result_dirs.os, "replace", dies)
        elif step == "manifest":
            patched.setattr(recorder, "write_manifest", dies)
        else:  # the finished file is there, and so is the open one
            patched.setattr(Path, "unlink", dies)
        with pytest.raises(MemoryError):
            sink.close(complete=True)
    crash(sink)
    if name != "parquet" or step != "rename":  # its end was written
        assert [int(row["n"]) for row in rows_in(tmp_path)] == [1, 2]
    manifest = read_manifest(tmp_path)
    assert manifest is not None and manifest["complete"] is False and manifest["parts"] == []
    made(tmp_path, format=name).close(complete=True)
    assert [int(row["n"]) for row in rows_in(tmp_path)] == [1, 2]
    manifest = read_manifest(tmp_path)
    assert manifest is not None and [part["rows"] for part in manifest["parts"]] == [2]
    assert {path.name for path in tmp_path.iterdir()} == {f"part-00000.{name}", "manifest.json", ".lock"}


@pytest.mark.parametrize("name", ["jsonl", "csv", "parquet"])
def test_fault_41_a_full_disk_keeps_what_was_taken_and_refuses_the_rest(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    sink = made(tmp_path, format=name, buffer_size=10, part_bytes=1)
    write(sink, [{"n": number} for number in range(10)])
    before = (tmp_path / f"part-00000.{name}").read_bytes()
    real, room = os.pwrite, [7]

    def full(fd: int, data: Any, offset: int) -> int:
        if not room[0]:
            raise OSError(errno.ENOSPC, "No space left on device")
        wrote, room[0] = real(fd, bytes(data)[: room[0]], offset), 0
        return wrote

    with monkeypatch.context() as patched:
        patched.setattr(result_dirs.os, "pwrite", full)
        taken, error = write(sink, [{"n": number} for number in range(10, 25)])
        assert taken and error.errno == errno.ENOSPC
        assert (tmp_path / f"part-00001.{name}.open").stat().st_size == 0  # no half row
        taken, error = write(sink, [{"n": -1}])
        assert not taken and error.errno == errno.ENOSPC
        with pytest.raises(OSError, match=f"No space left on device: '.*part-00001.{name}.open'"):
            sink.flush()
        with pytest.raises(OSError, match="No space"):
            sink.close(complete=True)
        assert sink.write_count == 25
    assert (tmp_path / f"part-00000.{name}").read_bytes() == before
    write(sink, [{"n": 25}])
    sink.close(complete=True)
    assert [int(row["n"]) for row in rows_in(tmp_path)] == [*range(26)]


@pytest.mark.parametrize("name", ["jsonl", "csv"])
def test_fault_41_a_full_disk_at_any_moment_loses_and_doubles_nothing(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each place where something is written fails once, one after the other."""
    for at in range(40):
        where, calls = tmp_path / str(at), [0]
        sink = made(where, format=name, buffer_size=2, part_bytes=30)

        def fails(real: Callable[..., Any], calls: list[int] = calls, at: int = at) -> Callable[..., Any]:
            def tries(*args: Any, **kwargs: Any) -> Any:
                calls[0] += 1
                if calls[0] == at + 1:
                    raise OSError(errno.ENOSPC, "No space left on device")
                return real(*args, **kwargs)

            return tries

        with monkeypatch.context() as patched:
            patched.setattr(result_dirs.os, "pwrite", fails(os.pwrite))
            patched.setattr(result_dirs.os, "replace", fails(os.replace))
            patched.setattr(recorder, "write_manifest", fails(recorder.write_manifest))
            for number in range(12):
                row = {"n": number, "more" if number > 7 else "x": number}
                while not write(sink, [row])[0]:
                    pass
            for _ in range(3):
                try:
                    sink.close(complete=True)
                except OSError:
                    continue
                break
        assert sink.closed
        assert [int(row["n"]) for row in rows_in(where)] == [*range(12)], at
        manifest = read_manifest(where)
        assert manifest is not None and manifest["complete"] and manifest["rows"] == 12
    assert calls[0] < 40, "more than 40 things are written: not all of them have failed"


def test_W27_a_disk_that_fills_up_is_told_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: Told = []
    sink = made(tmp_path, told, buffer_size=1, disk_warn=0.1)
    disk = os.statvfs(tmp_path)
    for free in (50, 5, 4, 50, 5):
        fake = os.statvfs_result((*disk[:2], 100, free, free, *disk[5:]))
        monkeypatch.setattr(recorder.os, "statvfs", lambda _, fake=fake: fake)
        write(sink, [{"n": 1}])
    low = [value for topic, value in told if topic == "result.disk_low"]
    assert [each["free_share"] for each in low] == [0.05, 0.05]
    assert [topic for topic, _ in told if topic != "result.disk_low"] == ["result.written", "result.flushed"] * 5
    sink.close(complete=True)


def test_W26_retention_keeps_the_last_and_never_touches_who_writes(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "precious").write_text("no results")
    (tmp_path / "alien").mkdir()
    (tmp_path / "alien" / "manifest.json").write_text("{}")
    running = made(tmp_path / "running")
    os.utime(tmp_path / "running" / "manifest.json", (0, 0))
    for number in range(5):
        sink = made(tmp_path / f"run{number}", keep_last=2)
        write(sink, [{"n": number}])
        sink.close(complete=True)
        os.utime(tmp_path / f"run{number}" / "manifest.json", (number + 10, number + 10))
    assert {path.name for path in tmp_path.iterdir()} == {"mine", "alien", "running", "run3", "run4"}
    assert retain(tmp_path, max_age=100, now=lambda: 113.5) == ["run3"]
    assert retain(tmp_path, max_bytes=0) == ["run4"]
    running.close(complete=True)
    assert retain(tmp_path, max_bytes=10_000) == []
    assert retain(tmp_path, keep_last=0) == ["running"]
    assert {path.name for path in tmp_path.iterdir()} == {"mine", "alien"}
    with pytest.raises(ValueError, match="keep_last"):
        retain(tmp_path, keep_last=-1)
    assert retain(tmp_path / "absent", keep_last=1) == []


def test_W8_one_writer_at_a_time_and_one_format(tmp_path: Path) -> None:
    first = made(tmp_path)
    with pytest.raises(OSError, match="another sink writes") as told:
        made(tmp_path)
    assert told.value.errno == errno.EWOULDBLOCK
    first.close(complete=True)
    with pytest.raises(ValueError, match="has results in jsonl"):
        made(tmp_path, format="csv")
    with (tmp_path / ".lock").open() as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # who was refused holds nothing
    second = made(tmp_path)
    assert second.state()["rows"] == 0 and not second.closed
    second.close(complete=True)


def test_W25_rows_known_by_a_key_are_written_once_also_by_the_next_run(
    tmp_path: Path, crash: Callable[[Recorder], None]
) -> None:
    first = made(tmp_path, key="task.id", buffer_size=2)
    write(first, [{"task": {"id": number % 5}, "x": 1.0} for number in range(10)], key="task.id")
    assert (first.write_count, first.duplicates) == (5, 5)
    assert first.aggregates.rows == 5
    crash(first)
    again = made(tmp_path, key="task.id")
    write(again, [{"task": {"id": number}} for number in range(8)], key="task.id")
    assert again.duplicates == 4  # one was in the buffer when it crashed
    again.close(complete=True)
    assert sorted(row["task"]["id"] for row in rows_in(tmp_path)) == [*range(8)]
    with pytest.raises(
        ValueError, match=r"without 'task\.id' for the sink in out, which has key='task\.id'; it has 'task'"
    ):
        key_of({"task": 3}, "task.id", "out")


@pytest.mark.parametrize(("form", "compression"), KINDS)
def test_W25_rows_of_an_earlier_program_are_known_by_several_fields(
    tmp_path: Path, form: str, compression: str | None
) -> None:
    key = ("task.id", "phase")
    rows = [{"task": {"id": number % 3}, "phase": f"p{number % 2}"} for number in range(12)]
    for earlier in (0, 6):
        into = made(tmp_path, format=form, compression=compression, key=key)
        write(into, rows, key=key)
        assert into.duplicates == 6 + earlier
        into.close(complete=True)
    assert len(rows_in(tmp_path)) == 6


VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**40), 2**40), st.text(max_size=5), st.lists(st.integers(0, 9))
)


@settings(max_examples=examples(40), deadline=None)
@given(
    st.sampled_from(KINDS[:5]),
    st.lists(st.dictionaries(st.sampled_from("abcd"), VALUES, min_size=1), max_size=25),
    st.integers(1, 7),
    st.integers(1, 400),
)
def test_W2_any_order_of_rows_and_any_sizes_give_all_rows_in_order(
    tmp_path_factory: pytest.TempPathFactory,
    kind: tuple[str, str | None],
    rows: list[dict[str, Any]],
    buffer_size: int,
    part_bytes: int,
) -> None:
    path = tmp_path_factory.mktemp("any")
    name, compression = kind
    sink = made(path, format=name, compression=compression, buffer_size=buffer_size, part_bytes=part_bytes)
    for number, row in enumerate(rows):
        write(sink, [{"n": number, **row}])
    sink.close(complete=True)
    found = rows_in(path)
    assert [int(row["n"]) for row in found] == [*range(len(rows))]
    if name == "jsonl":
        assert found == [{"n": number, **row} for number, row in enumerate(rows)]
    for part in (read_manifest(path) or {})["parts"]:
        assert checksum(path / part["name"]) == part["sha256"]


@settings(max_examples=examples(40), deadline=None)
@given(st.sampled_from(KINDS[:4]), st.integers(0, 400))
def test_fault_43_a_file_cut_at_any_length_ends_with_a_whole_row(
    tmp_path_factory: pytest.TempPathFactory, kind: tuple[str, str | None], cut: int
) -> None:
    path = tmp_path_factory.mktemp("cut")
    sink = made(path, format=kind[0], compression=kind[1], buffer_size=3)
    write(sink, [{"n": number, "text": 'a "b"\n\r\n,'} for number in range(12)])
    assert sink._open is not None
    whole = sink._open[0].path
    sink._open[0].close()
    sink._lock.release()
    os.truncate(whole, min(cut, whole.stat().st_size))
    found = [int(row["n"]) for row in rows_in(path)]
    assert found == [*range(len(found))]
    made(path, format=kind[0], compression=kind[1]).close(complete=True)
    assert [int(row["n"]) for row in rows_in(path)] == found
