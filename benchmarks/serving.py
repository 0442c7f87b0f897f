"""A program that serves functions by name, for the workloads of calls by name and of graphs.

Run as `python -m benchmarks.serving ADDRESS KEY_FILE NODE FUNCTION...`: the functions are those of benchmarks.jobs.
Each is served under its own name, as by every such program, and as `named(FUNCTION, NODE)`, as by this one alone.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib import import_module


def named(function: str, node: int | None) -> str:
    """The name under which the program on that node serves it; None: any of them."""
    return function if node is None else f"{function}-at-{node}"


@contextmanager
def program(address: str, key: str, node: int, functions: Iterable[str]) -> Iterator[None]:
    """One such program, which serves from here on. RuntimeError when it does not come up."""
    command = [sys.executable, "-m", "benchmarks.serving", address, key, str(node), *functions]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        if process.stdout.readline() != "serving\n":
            raise RuntimeError(f"the program that was to serve on node {node} ended with code {process.wait(10)}")
        yield
    finally:
        process.terminate()
        process.communicate(timeout=10)


def main(address: str, key: str, node: str, functions: list[str]) -> None:
    """Serve until SIGTERM."""
    zmreg, jobs = import_module("zmreg"), import_module("benchmarks.jobs")
    zmreg.init(address, key=key)
    for function in functions:
        for name in (function, named(function, int(node))):
            zmreg.register(name, getattr(jobs, function))
    print("serving", flush=True)
    zmreg.serve()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], sys.argv[4:])
