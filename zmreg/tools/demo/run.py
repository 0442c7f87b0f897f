"""The whole demo: find the files, start a cluster, index, answer, compare with one process, report."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import zmreg
from zmreg.tools.demo.files import Group, grouped, python_files
from zmreg.tools.demo.report import Asked, ProgressLine, Report
from zmreg.tools.demo.search import Engine, OneProcess


@dataclass(frozen=True, slots=True)
class Options:
    """What the user chose. `files`: index only so many; `top`: hits for each query."""

    root: Path
    workers: int
    files: int | None = None
    top: int = 5


def run(options: Options, queries: Iterable[str], show: Callable[[Asked], None]) -> Report:
    """Index, then answer each of `queries` as it comes (`show` is called with each answer), then compare.

    Raises FileNotFoundError when there is nothing to index, and zmreg.errors.ZmregError when the cluster fails.
    """
    files = python_files(options.root, options.files)
    groups = grouped(files, options.workers)
    report = Report(
        root=str(options.root),
        files=len(files),
        source_bytes=sum(size for _, size in files),
        workers=options.workers,
        shards=min(options.workers, len(groups)),
    )
    # Both sides should find the files in the page cache: the first to read them must not pay for the other.
    for path, _ in files:
        Path(options.root, path).read_bytes()
    _in_the_cluster(options, groups, queries, show, report)
    _in_one_process(options, groups, report)
    return report


def _in_the_cluster(
    options: Options, groups: list[Group], queries: Iterable[str], show: Callable[[Asked], None], report: Report
) -> None:
    began = time.perf_counter()
    zmreg.init(num_cpus=options.workers)
    try:
        report.start_s = time.perf_counter() - began
        engine = Engine(options.root, report.shards)
        report.index_s = _index(engine, groups, "indexing", report)
        report.kept_bytes = engine.kept_bytes
        for query in queries:
            began = time.perf_counter()
            answer = engine.ask(query, options.top)
            asked = Asked(query, answer, time.perf_counter() - began)
            report.asked.append(asked)
            show(asked)
        report.moved_bytes = engine.moved_bytes
    finally:
        zmreg.shutdown()


def _in_one_process(options: Options, groups: list[Group], report: Report) -> None:
    """The same groups, the same code, the same queries, after the cluster is gone: nothing else is running."""
    engine = OneProcess(options.root, report.shards)
    report.single_index_s = _index(engine, groups, "one process", report)
    for place, asked in enumerate(report.asked):
        began = time.perf_counter()
        answer = engine.ask(asked.query, options.top)
        seconds = time.perf_counter() - began
        report.asked[place] = replace(asked, single_seconds=seconds, same=answer == asked.answer)


def _index(engine: Engine | OneProcess, groups: list[Group], label: str, report: Report) -> float:
    """Index everything under a progress line; the seconds it took."""
    progress = ProgressLine(label, report)
    passages = words = 0
    began = time.perf_counter()
    try:
        for group, added in engine.index(groups):
            passages += added.passages
            words += added.words
            progress.advance(added.files, group.nbytes)
    finally:
        progress.close()
    report.passages, report.words = passages, words
    return time.perf_counter() - began
