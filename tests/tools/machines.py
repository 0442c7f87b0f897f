"""Pretended machines: each with its own session directories, keys and configuration, all on loopback."""

from __future__ import annotations

import json
import os
import select
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
PATIENCE_S = 40.0
# Nodes of tests are small: several stores share this machine's memory.
SMALL = ("--num-cpus", "1", "--object-store-bytes", "64M")


class Machine:
    """A user's account on a machine: `run` and `up` are what is typed there. Ends what it started."""

    def __init__(self, prefix: Sequence[str] = ()) -> None:
        """`prefix`: what comes before every command, to run it in another network (tests/processes/networks.py)."""
        self.prefix = prefix
        self.directory = Path(tempfile.mkdtemp(prefix="zm-"))  # short: a socket path holds 107 characters
        for name in ("run", "home", "here"):
            (self.directory / name).mkdir(mode=0o700)
        self.here = self.directory / "here"
        self.zmreg_home = self.directory / "home" / ".zmreg"
        self._up: list[subprocess.Popen[str]] = []

    @property
    def variables(self) -> dict[str, str]:
        """What differs from the environment of the test run."""
        return {
            "XDG_RUNTIME_DIR": str(self.directory / "run"),
            "XDG_CONFIG_HOME": str(self.directory / "home" / ".config"),
            "ZMREG_HOME": str(self.zmreg_home),
            "HOME": str(self.directory / "home"),
        }

    def environment(self, more: Mapping[str, str] | None = None) -> dict[str, str]:
        clean = {name: value for name, value in os.environ.items() if not name.startswith("ZMREG_") or "TEST" in name}
        return {**clean, **self.variables, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", **(more or {})}

    def run(self, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """A command to its end."""
        return self._python("-m", "zmreg", *arguments, variables=variables)

    def program(self, source: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """A user's program to its end."""
        return self._python("-c", source, variables=variables)

    def _python(self, *arguments: str, variables: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*self.prefix, sys.executable, *arguments], env=self.environment(variables), cwd=self.here,
            capture_output=True, text=True, timeout=PATIENCE_S, check=False,
        )  # fmt: skip

    def asks(self, *arguments: str) -> Any:
        """The JSON that a command prints; it must succeed and print nothing else."""
        done = self.run(*arguments, "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def up(self, *arguments: str, **variables: str) -> tuple[subprocess.Popen[str], dict[str, Any]]:
        """`zmreg start ...` in the foreground: (its process, what it says when the node is up)."""
        process = subprocess.Popen(
            [*self.prefix, sys.executable, "-m", "zmreg", "start", *arguments, "--json"],
            env=self.environment(variables), cwd=self.here, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        self._up.append(process)
        return process, self.next_word(process)

    def goes_on(self, command: str, **variables: str) -> subprocess.Popen[str]:
        """A line as it is typed, of a command that goes on; ended with the machine."""
        name, *arguments = shlex.split(command)
        assert name == "zmreg", command
        process = subprocess.Popen(
            [*self.prefix, sys.executable, "-m", "zmreg", *arguments], env=self.environment(variables), cwd=self.here,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        self._up.append(process)
        return process

    def head(self, *arguments: str) -> dict[str, Any]:
        return self.up("--head", "--port", str(free_port()), *SMALL, *arguments)[1]

    def worker(self, head: Mapping[str, Any], *arguments: str) -> dict[str, Any]:
        return self.up("--worker", "--address", head["address"], *SMALL, *arguments)[1]

    def next_word(self, process: subprocess.Popen[str]) -> dict[str, Any]:
        """The next line of JSON that a running command prints."""
        assert process.stdout is not None
        ready, _, _ = select.select([process.stdout], [], [], PATIENCE_S)
        line = process.stdout.readline() if ready else ""
        if not line:
            process.kill()
            raise AssertionError(f"it said nothing: {process.communicate()[1]}")
        said: dict[str, Any] = json.loads(line)
        return said

    def sessions(self) -> list[Path]:
        root = self.directory / "run" / "zmreg"
        return list(root.iterdir()) if root.exists() else []

    def close(self) -> None:
        for process in reversed(self._up):
            process.send_signal(signal.SIGTERM)
        for process in self._up:
            try:
                process.communicate(timeout=PATIENCE_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.communicate()
        self.run("stop", "--force")
        left = self.sessions()
        shutil.rmtree(self.directory, ignore_errors=True)
        assert not left, f"sessions were not removed: {left}"


@contextmanager
def machine(prefix: Sequence[str] = ()) -> Iterator[Machine]:
    found = Machine(prefix)
    try:
        yield found
    finally:
        found.close()


def free_port() -> int:
    """A port that nobody has, with a free one behind it (for the tables)."""
    import socket

    while True:
        with socket.socket() as first, socket.socket() as second:
            first.bind(("127.0.0.1", 0))
            port: int = first.getsockname()[1]
            try:
                second.bind(("127.0.0.1", port + 1))
            except (OSError, OverflowError):
                continue
            return port


def until(found: Any, seconds: float = PATIENCE_S) -> Any:
    """Ask a command until it says what is wanted: commands are asked, not told."""
    deadline = time.monotonic() + seconds
    while not (answer := found()):
        assert time.monotonic() < deadline, "it never came"
    return answer
