"""`import` of the framework in a fresh interpreter, until every public name is there: some load them when used."""

from __future__ import annotations

import os
import subprocess
import sys

from benchmarks.measure import median
from benchmarks.peers.base import Peer
from benchmarks.workloads.base import Context, Figure, Figures, Target, Workload

REPEATS = 5
HEAVY = ("numpy", "pyarrow", "rich", "asyncio")
PROGRAM = """
import sys, time
before = time.perf_counter()
import {module}
for name in getattr({module}, "__all__", ()):
    getattr({module}, name, None)
print((time.perf_counter() - before) * 1e3, sum(name in sys.modules for name in {heavy}))
"""


def run(peer: Peer, context: Context) -> Figures:
    """Milliseconds, and how many of HEAVY were loaded by it; the first import (which may compile) is not counted."""
    del context
    program = PROGRAM.format(module=peer.module, heavy=HEAVY)
    # Installed packages have their compiled modules; ours must be allowed to, or each import would compile it anew.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    samples: list[tuple[float, float]] = []
    for _ in range(1 + REPEATS):
        command = [sys.executable, "-c", program]
        out = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
        milliseconds, heavy = out.split()[-2:]
        samples.append((float(milliseconds), float(heavy)))
    return {"import_ms": median([sample[0] for sample in samples[1:]]), "heavy_modules": samples[-1][1]}


WORKLOAD = Workload(
    name="import_time",
    title=f"import of all public names in a fresh interpreter; how many of {', '.join(HEAVY)} it loads",
    figures=(Figure("import_ms"), Figure("heavy_modules", digits=0)),
    run=run,
    targets=(Target("import_ms", 80), Target("heavy_modules", 0)),
    self_started=True,
    max_rounds=2,
)
