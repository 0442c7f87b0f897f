"""Runs the cells: every (peer, workload, round) in a fresh process under a hard timeout, nothing left behind.

Rounds are interleaved, A B C A B C, so that a drift of the machine hits all peers alike. This process is the
subreaper of everything below it: what a framework detaches comes back here, is counted, and is ended. So the
process that runs cells must have no other children.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from benchmarks.memory import descendants
from benchmarks.peers import peer_class
from benchmarks.workloads import Workload

ROOT = Path(__file__).resolve().parent.parent
POLL_S = 0.05
# How long processes may outlive the driver that ended well before they count as left behind.
GRACE_S = 1.0


@dataclass(frozen=True, slots=True)
class Settings:
    """How to run: rounds of each cell, seconds of each timed loop, smaller sizes or not."""

    rounds: int = 3
    seconds: float = 1.0
    quick: bool = False


@dataclass(frozen=True, slots=True)
class Cell:
    """The outcome of one process: figures, or why there are none.

    `status` is "ok", "skipped" (the peer is absent or lacks a feature) or "failed". `left_behind` counts processes
    that outlived their driver by more than GRACE_S and had to be killed.
    """

    workload: str
    peer: str
    round: int
    status: str
    why: str = ""
    figures: dict[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    left_behind: int = 0


def reason_to_skip(work: Workload, peer_name: str) -> str:
    """Why this peer does not run this workload, or an empty string when it does."""
    peer = peer_class(peer_name)
    if not peer.installed():
        return f"{peer_name} is not installed"
    if peer_name == "bare":
        return "" if work.floor is not None else "nothing to measure without a framework"
    if work.run is None:
        return "only the floor is measured"
    missing = sorted(feature.value for feature in work.needs - peer.features)
    return f"has no {', '.join(missing)}" if missing else ""


def run_all(
    works: Sequence[Workload], peers: Sequence[str], settings: Settings, tell: Callable[[Cell], None]
) -> list[Cell]:
    """All cells, workload by workload; `tell` hears of each as it ends. A peer that failed is not tried again."""
    cells: list[Cell] = []
    for work in works:
        for cell in run_workload(work, peers, settings):
            tell(cell)
            cells.append(cell)
    return cells


def run_workload(work: Workload, peers: Sequence[str], settings: Settings) -> Iterator[Cell]:
    """The cells of one workload, rounds interleaved."""
    able: list[str] = []
    for peer in peers:
        why = reason_to_skip(work, peer)
        if why:
            yield Cell(work.name, peer, 0, "skipped", why)
        else:
            able.append(peer)
    for number in range(settings.rounds):
        for peer in [peer for peer in able if number < rounds_of(work, peer, settings)]:
            cell = run_cell(work, peer, number, settings)
            if cell.status == "failed":
                able.remove(peer)
            yield cell


def rounds_of(work: Workload, peer: str, settings: Settings) -> int:
    """How often this peer runs this workload."""
    limits = [settings.rounds, work.max_rounds, None if work.close_race else peer_class(peer).max_rounds]
    return min(limit for limit in limits if limit is not None)


def run_cell(work: Workload, peer: str, number: int, settings: Settings) -> Cell:
    """One process from start to the last of its descendants."""
    command = [sys.executable, "-m", "benchmarks.cell", peer, work.name]
    command += ["--seconds", str(settings.seconds), "--root", str(os.getpid())]
    command += ["--quick"] if settings.quick else []
    before = time.monotonic()
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        process = subprocess.Popen(command, stdout=out, stderr=err, env=_environment(), start_new_session=True)
        try:
            finished = _wait(process, work.timeout_s)
            seconds = time.monotonic() - before
            left_behind = _clean_up(GRACE_S if finished else 0.0)
        finally:
            _clean_up(0.0)  # an interrupt of the whole run must not leave a cluster behind
            process.wait()
        answer, errors = _read_json(out), _tail(err)
    figures = dict(answer.get("figures", {}))
    if figures:
        why = "" if finished else f"measured, but did not exit within {work.timeout_s:g} s"
        return Cell(work.name, peer, number, "ok", why, figures, seconds, left_behind)
    if errors:
        print(f"--- {work.name} / {peer}: end of its standard error\n{errors}\n---", file=sys.stderr)
    why = str(answer.get("why", f"exit code {process.returncode}, no answer"))
    if not finished:
        why = f"no result within {work.timeout_s:g} s"
    return Cell(work.name, peer, number, "failed", _without_paths(why), {}, seconds, left_behind)


def _environment() -> dict[str, str]:
    """This process's environment, with the repository importable in every worker."""
    path = os.environ.get("PYTHONPATH")
    return {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{path}" if path else str(ROOT)}


def _wait(process: subprocess.Popen[bytes], timeout_s: float) -> bool:
    """Until the cell exits (True) or its time is up (False); adopted orphans are reaped meanwhile."""
    end = time.monotonic() + timeout_s
    while process.poll() is None:
        if time.monotonic() > end:
            return False
        _reap_orphans(process.pid)
        time.sleep(POLL_S)
    return True


def _reap_orphans(spare: int = -1) -> None:
    """Collect ended children, except `spare`, whose exit code is subprocess's to collect."""
    while True:
        try:
            ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            if ended is None or ended.si_pid == spare:
                return
            os.waitpid(ended.si_pid, os.WNOHANG)
        except ChildProcessError:
            return


def _clean_up(grace_s: float) -> int:
    """Give what is left of the cell `grace_s` to end, then kill it, by id; returns how many had to be killed."""
    end = time.monotonic() + grace_s
    while (left := descendants(os.getpid())) and time.monotonic() < end:
        _reap_orphans()
        time.sleep(POLL_S)
    killed = len(left)
    while left:
        for pid in left:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue  # it ended by itself
        time.sleep(POLL_S)
        _reap_orphans()
        left = descendants(os.getpid())
    return killed


def _read_json(out: IO[bytes]) -> dict[str, Any]:
    out.seek(0)
    try:
        answer = json.loads(out.read() or b"{}")
    except ValueError:
        return {"why": "its answer is not JSON"}
    return answer if isinstance(answer, dict) else {"why": "its answer is not a JSON object"}


def _tail(err: IO[bytes], lines: int = 15) -> str:
    err.seek(0)
    return "\n".join(err.read().decode(errors="replace").splitlines()[-lines:])


def _without_paths(text: str) -> str:
    """The text without this machine's directories: results are published."""
    for directory in (str(ROOT), sys.prefix, sys.base_prefix, str(Path.home()), tempfile.gettempdir()):
        text = text.replace(directory, "...")
    return " ".join(text.split())[:200]
