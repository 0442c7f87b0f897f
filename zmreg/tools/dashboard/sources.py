"""What is asked of the cluster for the pages: the same questions as the command line's, with bounds of their own.

Nodes are asked all at once, and those that are silent not at all: a page does not wait for them.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from zmreg.model.errors import ClusterError
from zmreg.tools.dashboard.copies import Copies
from zmreg.tools.dashboard.figures import Figures
from zmreg.tools.gathering import memory_of, nodes_of

if TYPE_CHECKING:
    from zmreg.flows.runs.journal import RunSummary
    from zmreg.services.setup.observer import Observer
    from zmreg.tools.dashboard.watch import Source

# Seconds from one question to the next. Memory is dear: each process reads its page tables.
EVERY_S: Final = {
    "nodes": 2.0, "stats": 2.0, "health": 2.0, "actors": 2.0, "workers": 2.0, "tasks": 2.0, "queued": 2.0, "calls": 2.0,
    "metrics": 2.0, "memory": 10.0, "functions": 5.0, "jobs": 5.0, "runs": 5.0, "log": 2.0, "why": 4.0,
}  # fmt: skip
# So that there are some minutes to be seen when somebody looks.
ALWAYS_S: Final = {"metrics": 10.0}
# A node gives its processes a second to answer (services/node/looks.py); to a signal nobody is driven here.
ANSWER_S: Final = 3.0
MOST_ROWS: Final = 1_000
# Of each process.
MOST_CALLS: Final = 200
MOST_OBJECTS: Final = 1_000
MOST_RUNS: Final = 50
LOG_BYTES: Final = 64 * 1024
# Of the ones that answer: asked anew after so long.
_ALIVE_S: Final = 2.0
_ASKED: Final = ("ALIVE", "DRAINING")


class Sources:
    """For the one thread that asks."""

    def __init__(self, copies: Copies, runs: str | None = None) -> None:
        """`runs`: the folder of runs, as `zmreg runs --folder`."""
        self._copies = copies
        self._runs = runs
        self._figures = Figures()
        self._alive: list[str] = []
        self._told_by = ""
        self._until = 0.0

    def table(self) -> dict[str, Source]:
        """By name, as `EVERY_S`."""
        return {
            "nodes": self._nodes, "stats": self._stats, "health": self._health, "actors": _actors,
            "workers": self._workers, "tasks": self._tasks, "queued": self._queued, "calls": self._calls,
            "metrics": self._metrics, "memory": self._memory, "functions": _functions, "jobs": _jobs,
            "runs": self._summaries, "log": self._log, "why": self._why,
        }  # fmt: skip

    # -- nodes ---------------------------------------------------------------------------------------------------------

    def _nodes(self, observer: Observer) -> list[dict[str, Any]]:
        rows = nodes_of(observer)
        mine = observer.word.node  # first, and asked whatever others say of it
        self._alive = [row["NodeID"] for row in rows if row["State"] in _ASKED or row["NodeID"] == mine]
        self._copies.nodes = len(self._alive)
        self._told_by = mine
        self._until = time.monotonic() + _ALIVE_S
        return rows

    def _there(self, observer: Observer) -> list[str]:
        if time.monotonic() >= self._until or observer.word.node != self._told_by:
            self._nodes(observer)
        return self._alive

    def _each(self, observer: Observer, topic: str) -> dict[str, Any]:
        found = observer.ask_all(self._there(observer), topic, "", ANSWER_S)
        return {node: answer for node, answer in found.items() if answer is not None}

    def _stats(self, observer: Observer) -> dict[str, Any]:
        return self._each(observer, "stats")

    def _health(self, observer: Observer) -> dict[str, Any]:
        asked, there = time.time(), {*self._there(observer), observer.word.node}  # a visitor knows of the head, too
        found = observer.ask_all(there, "health", "", ANSWER_S)
        return {node: {**facts, "Asked": asked} for node, facts in found.items() if facts is not None}

    def _workers(self, observer: Observer) -> list[dict[str, Any]]:
        return [row for rows in self._each(observer, "workers").values() for row in rows]

    def _tasks(self, observer: Observer) -> list[dict[str, Any]]:
        return [row for rows in self._each(observer, "tasks").values() for row in rows]

    def _memory(self, observer: Observer) -> dict[str, Any]:
        told = observer.ask_much(self._there(observer), "memory", f"size {MOST_OBJECTS}", ANSWER_S)
        return memory_of(told, MOST_ROWS)

    # -- processes -----------------------------------------------------------------------------------------------------

    def _queued(self, observer: Observer) -> list[dict[str, Any]]:
        told = observer.ask_much(self._there(observer), "queued", f" {MOST_CALLS}", ANSWER_S)
        return [row for rows in told.values() for row in rows]

    def _calls(self, observer: Observer) -> dict[str, Any]:
        from zmreg.services.seat.timelines import gather, summary

        told = observer.ask_much(self._there(observer), "calls", f" {MOST_CALLS}", ANSWER_S)
        now = time.monotonic()
        found = gather(lambda node, topic, key: told.get(node), told, MOST_CALLS)
        rows: list[dict[str, Any]] = [
            {
                "TaskID": f"{each.owner.hex()}{fact.counter:016x}", "Name": fact.name, "State": fact.state,
                "RunSeconds": fact.run_us * 1e-6, "WaitSeconds": fact.waited_s, "AgeSeconds": now - fact.answered,
                "Attempts": fact.attempt + 1, "Error": fact.error, "WorkerID": fact.worker.hex(),
                "Owner": found.names.get(each.owner.hex(), each.owner.hex()),
            }
            for each in found.owned
            for fact in each.facts
        ]  # fmt: skip
        rows.sort(key=lambda row: row["AgeSeconds"])
        return {"Recent": rows, "ByFunction": summary(found), "Silent": found.silent}

    def _metrics(self, observer: Observer) -> dict[str, Any]:
        from zmreg.services.setup import scraping

        found = scraping.as_plain(scraping.told_by(observer, self._there(observer), ANSWER_S))
        self._figures.take(found, time.time())
        return {"Families": found, "Lines": self._figures.lines()}

    # -- others --------------------------------------------------------------------------------------------------------

    def _summaries(self, observer: Observer) -> list[dict[str, Any]]:
        from zmreg.flows.runs.folders import runs_folder
        from zmreg.flows.runs.journal import summary_of

        found = [summary_of(folder) for folder in _latest(runs_folder(self._runs), MOST_RUNS)]
        return [_run(each) for each in found if each is not None]

    # -- by a click ----------------------------------------------------------------------------------------------------

    def _log(self, observer: Observer, node: str, name: str) -> dict[str, Any]:
        """The end of a log. `node`: an id, hex; `name`: a worker's id, or `node`."""
        page = None
        if node in self._there(observer):
            page = observer.ask_all([node], "log", f"{name} {-LOG_BYTES}", ANSWER_S).get(node)
        if page is None:
            raise ClusterError(f"there is no log of {name!r} at node {node[:8]}, or that does not answer")
        data: bytes = page["data"]
        if page["start"] > 0:  # it begins in the midst of a line
            data = data[data.find(b"\n") + 1 :]
        return {"Text": data.decode(errors="replace"), "Bytes": page["size"], "Whole": page["start"] == 0}

    def _why(self, observer: Observer, task: str) -> dict[str, Any]:
        """What is known of a call: what it waits for, its facts, and its story. `task`: its id, 32 hex digits."""
        from zmreg.services.seat.asking import chain, made_by

        told: dict[tuple[str, str], Any] = {}
        there = self._there(observer)
        deadline = time.monotonic() + ANSWER_S  # of all its links together: others wait meanwhile

        def ask(node: str, topic: str, key: str) -> list[dict[str, Any]] | None:
            if (node, key) not in told and node in there:
                left = max(0.0, deadline - time.monotonic())
                told[node, key] = observer.ask_much([node], topic, f"{node} {key}", left).get(node)
            found: list[dict[str, Any]] | None = told.get((node, key))
            return found

        lines = chain(ask, observer.ask("nodes"), task)
        made: Mapping[str, Any] = made_by(ask, task) or {"Info": None, "Story": []}
        return {"Lines": lines, "Info": made["Info"], "Story": [list(line) for line in made["Story"]]}


def _latest(folder: Path, most: int) -> list[Path]:
    """The folders of those runs that were written last."""
    found = []
    for each in os.scandir(folder) if folder.is_dir() else ():
        if each.is_dir():
            found.append((each.stat().st_mtime, each.path))
    return [Path(path) for _, path in sorted(found, reverse=True)[:most]]


def _run(found: RunSummary) -> dict[str, Any]:
    states = [row.state for row in found.phases.values()]
    return {
        "Run": found.run_id, "Status": found.status, "Done": sum(state in ("done", "reused") for state in states),
        "Phases": found.total, "Started": found.started, "Seconds": found.seconds,
        "Now": [name for name, row in found.phases.items() if row.state in ("running", "failed")],
    }  # fmt: skip


def _actors(observer: Observer) -> list[dict[str, Any]]:
    return list(observer.ask("actors", str(MOST_ROWS), ANSWER_S) or ())


def _functions(observer: Observer) -> list[dict[str, Any]]:
    from zmreg.services.setup.served import served

    return served(observer)


def _jobs(observer: Observer) -> list[dict[str, Any]]:
    from zmreg.flows.jobs.infos import info_of

    rows: list[dict[str, Any]] = []
    start = 0
    while True:  # the head keeps a thousand, and tells a page at a time
        page = observer.ask("submissions", str(start), ANSWER_S)
        if page is None:
            return rows
        for row in page["rows"]:
            info = info_of({**row, "note": json.loads(row["note"])})
            rows.insert(0, {
                "JobID": info.job_id, "Status": str(info.status), "Exit": info.exit_code, "NodeID": info.node_id,
                "Submitted": info.submitted, "Started": info.started, "Ended": info.ended,
                "Command": info.entrypoint, "Message": info.message,
            })  # fmt: skip
        start = page["next"]
        if not start:
            return rows
