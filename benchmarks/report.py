"""Cells -> medians -> the Markdown table with ratios and targets, and the JSON beside it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.harness import Cell
from benchmarks.measure import median
from benchmarks.workloads import Figure, Target, Workload

SUBJECT = "zmreg"
FLOOR = "bare"


@dataclass(frozen=True, slots=True)
class Spread:
    """Median, least and greatest of the rounds."""

    median: float
    least: float
    greatest: float


@dataclass(frozen=True, slots=True)
class Row:
    """One peer in one workload: figures, or the status and why there are none."""

    peer: str
    status: str
    why: str
    figures: Mapping[str, Spread]
    rounds: int
    left_behind: int


@dataclass(frozen=True, slots=True)
class Verdict:
    """A target beside what was measured. `met` is None when one of the two sides has no figure."""

    workload: str
    target: Target
    wanted: str
    got: str
    met: bool | None


def rows_of(work: Workload, cells: Sequence[Cell]) -> dict[str, Row]:
    """The workload's rows by peer, in the order in which the peers were first heard of."""
    rows: dict[str, Row] = {}
    own = [cell for cell in cells if cell.workload == work.name]
    for peer in dict.fromkeys(cell.peer for cell in own):
        mine = [cell for cell in own if cell.peer == peer]
        good = [cell for cell in mine if cell.status == "ok"]
        figures: dict[str, Spread] = {}
        for name in good[0].figures if good else ():
            values = [cell.figures[name] for cell in good]
            figures[name] = Spread(median(values), min(values), max(values))
        # A peer that failed in a later round keeps its earlier figures, and its row says so.
        last = mine[-1]
        why = next((cell.why for cell in mine if cell.why), "")
        status = "ok" if good and last.status == "ok" else last.status
        rows[peer] = Row(peer, status, why, figures, len(good), max(cell.left_behind for cell in mine))
    return rows


def advantage(rows: Mapping[str, Row], peer: str, figure: Figure) -> float | None:
    """How many times better zmreg's figure is than the peer's; below 1 it is worse. None when either is missing."""
    ours = _median(rows, SUBJECT, figure.name)
    theirs = _median(rows, peer, figure.name)
    if ours is None or theirs is None or min(ours, theirs) <= 0:
        return None
    return theirs / ours if figure.lower else ours / theirs


def verdict(work: Workload, target: Target, rows: Mapping[str, Row]) -> Verdict:
    """Whether zmreg reached the target."""
    figure = next(figure for figure in work.figures if figure.name == target.figure)
    sign = "at most" if figure.lower else "at least"
    ours = _median(rows, SUBJECT, figure.name)
    if target.against is None:
        wanted, value = f"{sign} {target.bound:g}", ours
        got = "-" if value is None else number(value, figure.digits)
    else:
        theirs = _median(rows, target.against, figure.name)
        wanted = f"{sign} {target.bound:g}x {target.against}"
        value = None if ours is None or not theirs else ours / theirs
        got = "-" if value is None else f"{value:.2f}x"
    met = None if value is None else (value <= target.bound if figure.lower else value >= target.bound)
    return Verdict(work.name, target, wanted, got, met)


def number(value: float, digits: int) -> str:
    """The value with thousands separated and a fixed number of digits after the point."""
    return f"{value:,.{digits}f}"


def markdown(works: Sequence[Workload], cells: Sequence[Cell], notes: Mapping[str, Any]) -> str:
    """The whole report."""
    parts = [f"# Benchmarks, {notes['date']}, commit {notes['commit']}", "", machine_text(notes), ""]
    parts += ["## Targets", "", "| workload | figure | wanted | zmreg | met |", "|---|---|---|---|---|"]
    tables: list[str] = []
    for work in works:
        rows = rows_of(work, cells)
        for target in work.targets:
            found = verdict(work, target, rows)
            met = {True: "yes", False: "**no**", None: "not measured"}[found.met]
            parts.append(f"| {work.name} | {target.figure} | {found.wanted} | {found.got} | {met} |")
        tables += ["", f"## {work.name}", "", f"{work.title}.", "", *table(work, rows)]
    return "\n".join([*parts, *tables]) + "\n"


def machine_text(notes: Mapping[str, Any]) -> str:
    """The machine in two lines."""
    versions = ", ".join(f"{name} {version}" for name, version in notes["versions"].items())
    return (
        f"{notes['cpu']}, {notes['cores']} cores, {notes['ram_gb']} GB, Linux {notes['kernel']}, "
        f"Python {notes['python']}, load {notes['load'][0]} at the start; medians (least to greatest).\n"
        f"Versions: {versions}."
    )


def table(work: Workload, rows: Mapping[str, Row]) -> list[str]:
    """The lines of one workload's table: figures, the primary one against the floor, and zmreg against the peer."""
    floored = work.floor is not None
    head = (
        ["peer", "rounds", *(figure.name for figure in work.figures)] + (["x bare"] if floored else []) + ["zmreg is"]
    )
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    notes: list[str] = []
    for row in rows.values():
        if row.figures:
            lines.append("| " + " | ".join(_cells(work, rows, row, floored)) + " |")
        if row.status != "ok" or row.why:
            notes.append(f"- {row.peer}: {row.status}: {row.why}")
        if row.left_behind:
            notes.append(f"- {row.peer}: left {row.left_behind} processes behind")
    return lines + (["", *notes] if notes else [])


def write(directory: Path, name: str, text: str, cells: Sequence[Cell], notes: Mapping[str, Any]) -> list[Path]:
    """Write `name`.md and `name`.json into the directory; returns both paths."""
    directory.mkdir(parents=True, exist_ok=True)
    page, data = directory / f"{name}.md", directory / f"{name}.json"
    page.write_text(text, encoding="utf-8")
    record = {"machine": dict(notes), "cells": [asdict(cell) for cell in cells]}
    data.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    return [page, data]


def _cells(work: Workload, rows: Mapping[str, Row], row: Row, floored: bool) -> list[str]:
    cells = [row.peer, str(row.rounds), *(_spread(row, figure) for figure in work.figures)]
    primary = work.figures[0]
    if floored:
        floor, own = _median(rows, FLOOR, primary.name), _median(rows, row.peer, primary.name)
        cells.append(f"{own / floor:.2f}" if floor and own is not None else "-")
    better = advantage(rows, row.peer, primary)
    cells.append("-" if better is None or row.peer == SUBJECT else f"{better:.2f}x")
    return cells


def _spread(row: Row, figure: Figure) -> str:
    spread = row.figures.get(figure.name)
    if spread is None:
        return "-"
    middle = number(spread.median, figure.digits)
    if spread.least == spread.greatest:
        return middle
    return f"{middle} ({number(spread.least, figure.digits)} to {number(spread.greatest, figure.digits)})"


def _median(rows: Mapping[str, Row], peer: str, figure: str) -> float | None:
    row = rows.get(peer)
    spread = row.figures.get(figure) if row else None
    return spread.median if spread else None
