"""One measurement in a process of its own: one peer, one workload, one JSON object on standard output.

`python -m benchmarks.cell PEER WORKLOAD [--seconds S] [--quick] [--root PID]`. Whatever the framework prints goes
to standard error. A failure is printed as JSON too (`{"why": ...}`), with exit code 1 and the traceback on stderr.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import traceback

from benchmarks.peers import peer_class
from benchmarks.workloads import Context, Figures, Workload, workload


def measure(peer_name: str, work: Workload, context: Context) -> Figures:
    """Start the peer, run the workload, stop the peer; whatever they raise goes through."""
    if peer_name == "bare":
        if work.floor is None:
            raise ValueError(f"{work.name} has no floor to measure without a framework")
        return work.floor(context)
    if work.run is None:
        raise ValueError(f"{work.name} measures only its floor: run it with peer bare")
    peer = peer_class(peer_name)()
    if work.self_started:
        if work.name != "import_time":  # that one imports in interpreters of its own
            peer.load()
        return work.run(peer, context)
    peer.load()
    peer.start(work.workers, work.store_bytes)
    figures = work.run(peer, context)
    peer.stop()
    return figures


def parse(arguments: list[str]) -> argparse.Namespace:
    """The command line above."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cell", description="one peer, one workload")
    parser.add_argument("peer")
    parser.add_argument("workload")
    parser.add_argument("--seconds", type=float, default=1.0, help="how long one timed loop lasts")
    parser.add_argument("--quick", action="store_true", help="smaller sizes where the workload allows it")
    parser.add_argument("--root", type=int, default=os.getpid(), help="process below which all belong to this cell")
    return parser.parse_args(arguments)


def main(arguments: list[str]) -> None:
    """Measure and print; on a failure leave at once, because a half-stopped framework may hang at a normal exit."""
    options = parse(arguments)
    answer = os.dup(1)
    os.dup2(2, 1)
    context = Context(options.seconds, options.quick, options.root)
    try:
        figures = measure(options.peer, workload(options.workload), context)
    except Exception as error:  # noqa: BLE001  the top of this process: any failure is a row of the table
        traceback.print_exc()
        os.write(answer, json.dumps({"why": f"{type(error).__name__}: {error}"[:500]}).encode())
        sys.stderr.flush()
        os._exit(1)
    os.write(answer, json.dumps({"figures": dict(figures)}).encode())
    os.close(answer)


if __name__ == "__main__":
    main(sys.argv[1:])
