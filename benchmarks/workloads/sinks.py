"""Rows a second into JSONL, CSV and Parquet, through a sink, beside the libraries' own writers in the same process.

A row is a dict of nine values, four of them metrics. Timed from the first row to the return of `flush`: then all are
in a file. A thousand rows before them are not timed: another process loads pyarrow meanwhile. The sink flattens, keeps
figures of all metrics, checksums, and has another process write; the floor is `json.dumps` and `csv.DictWriter` into a
file, and `pyarrow` with a table for each 10,000 rows. `two_...`: two tasks write at once, half of the rows each, into
one sink, and are timed until it is closed.
"""

from __future__ import annotations

import csv
import json
import tempfile
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from time import perf_counter
from typing import Any

from benchmarks.measure import median
from benchmarks.peers.base import Feature, Peer
from benchmarks.workloads.base import Context, Figure, Figures, Target, Workload

ROWS, QUICK_ROWS = 60_000, 2_000
FLUSH = 10_000
FIRST = 1_000
FORMATS = ("jsonl", "csv", "parquet")
TURNS = 3


def rows(count: int, first: int = 0) -> Iterator[dict[str, Any]]:
    """As they come from a search over strategies."""
    for number in range(first, first + count):
        metrics = {"sharpe": number / 7, "drawdown": -number / 3, "trades": number % 400, "alpha": 0.5}
        yield {"phase": "search", "container_id": f"c{number % 20}", "id": number, "symbol": "ES", "metrics": metrics}


def write_rows(sink: Any, count: int, first: int) -> None:
    """What each of two tasks does."""
    for row in rows(count, first):
        sink.write(row)


def run(peer: Peer, context: Context) -> Figures:
    """All of it, each format in turn."""
    count = QUICK_ROWS if context.quick else ROWS
    made: dict[str, list[float]] = {}
    task = peer.lib.remote(write_rows)
    for turn in range(1 if context.quick else TURNS):
        for form in FORMATS:
            with tempfile.TemporaryDirectory(prefix="bench-sinks-") as directory:
                with peer.lib.Sink(f"{directory}/one", form, FLUSH) as sink:
                    each = list(rows(count))
                    write_rows(sink, FIRST, 0)
                    sink.flush()
                    began = perf_counter()
                    for row in each:
                        sink.write(row)
                    sink.flush()
                    made.setdefault(f"{form}_per_s", []).append(count / (perf_counter() - began))
                if form == "jsonl":
                    sink = peer.lib.Sink(f"{directory}/two", form, FLUSH)
                    began = perf_counter()
                    peer.lib.get([task.remote(sink, count // 2, first) for first in (0, count // 2)])
                    sink.close()
                    made.setdefault("two_jsonl_per_s", []).append(count / (perf_counter() - began))
                    assert sum(1 for _ in peer.lib.Sink.read(f"{directory}/two")) == count, f"rows are missing, {turn}"
    return {name: median(values) for name, values in made.items()}


def floor(context: Context) -> Figures:
    """The libraries by themselves."""
    count = QUICK_ROWS if context.quick else ROWS
    made: dict[str, list[float]] = {}
    for _ in range(1 if context.quick else TURNS):
        for form, write in (("jsonl", _jsonl), ("csv", _csv), ("parquet", _parquet)):
            each = list(rows(count))
            with tempfile.TemporaryDirectory(prefix="bench-sinks-") as directory:
                began = perf_counter()
                write(Path(directory) / "rows", each)
                made.setdefault(f"{form}_per_s", []).append(count / (perf_counter() - began))
    return {name: median(values) for name, values in made.items()}


def _jsonl(path: Path, each: list[dict[str, Any]]) -> None:
    dumps: Callable[[Any], str] = json.dumps
    with path.open("w") as file:
        for row in each:
            file.write(dumps(row) + "\n")


def _csv(path: Path, each: list[dict[str, Any]]) -> None:
    with path.open("w", newline="") as file:
        writer = None
        for row in each:
            flat = {name: value for name, value in row.items() if name != "metrics"}
            flat |= {f"metrics.{name}": value for name, value in row["metrics"].items()}
            if writer is None:
                writer = csv.DictWriter(file, list(flat))
                writer.writeheader()
            writer.writerow(flat)


def _parquet(path: Path, each: list[dict[str, Any]]) -> None:
    pyarrow, parquet = import_module("pyarrow"), import_module("pyarrow.parquet")
    writer = None
    for at in range(0, len(each), FLUSH):
        table = pyarrow.Table.from_pylist(each[at : at + FLUSH])
        if writer is None:
            writer = parquet.ParquetWriter(path, table.schema)
        writer.write_table(table)
    if writer is not None:
        writer.close()


WORKLOAD = Workload(
    name="sinks",
    title="rows a second into a file: one writer; two tasks at once (two_jsonl). The floor: json, csv, pyarrow by hand",
    figures=(
        Figure("jsonl_per_s", lower=False, digits=0),
        Figure("csv_per_s", lower=False, digits=0),
        Figure("parquet_per_s", lower=False, digits=0),
        Figure("two_jsonl_per_s", lower=False, digits=0),
    ),
    run=run,
    floor=floor,
    needs=frozenset({Feature.SINKS}),
    targets=tuple(Target(f"{form}_per_s", 0.1 if form == "parquet" else 0.25, "bare") for form in FORMATS),
    max_rounds=3,
    timeout_s=120.0,
)
