"""Notes about the machine, the interpreter and the peers, so that a table can be read years later."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.memory import meminfo_bytes
from benchmarks.peers import peer_class


def notes(peers: Sequence[str]) -> dict[str, Any]:
    """Cores, memory, kernel, Python, commit, and the version of each installed peer."""
    found = {name: peer_class(name) for name in peers}
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "commit": commit(),
        "cpu": _cpu_model(),
        "cores": len(os.sched_getaffinity(0)),
        "ram_gb": round(meminfo_bytes("MemTotal") / 1e9, 1),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "load": [round(load, 2) for load in os.getloadavg()],
        "versions": {name: peer.version() if peer.installed() else "absent" for name, peer in found.items()},
    }


def commit() -> str:
    """The short id of the commit, with a plus when the tree differs from it; "nocommit" outside a repository."""
    root = Path(__file__).resolve().parent.parent
    try:
        short = _git(root, "rev-parse", "--short", "HEAD")
        changed = _git(root, "status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.CalledProcessError):
        return "nocommit"
    return f"{short}+" if changed else short


def _git(root: Path, *arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()
