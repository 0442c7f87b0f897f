"""Serving processes that `zmreg start --load` runs next to a node: each is started again when it ends.

They are programs with a seat at the node, like any other (zmreg/api/loading.py); the node itself runs no code of users.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from zmreg.model.errors import ClusterError
from zmreg.services.setup.sessions import Word

_AGAIN_S: Final = 1.0
_AGAIN_MOST_S: Final = 30.0
# Whoever has lived so long did not end for a reason that is still there.
_SOUND_S: Final = 60.0
# Calls that have come are finished within ten seconds (api/named.py).
END_S: Final = 15.0
_TAIL_BYTES: Final = 2_000
_PROGRAM: Final = "zmreg.api.loading"


def state_file(session: Path, number: int) -> Path:
    """Where it stands how the `number`-th of them is: JSON with `target`, `pid`, `state`, `text`."""
    return session / f"load-{number}.json"


def states(session: Path) -> Iterator[dict[str, Any]]:
    """How those of a node of this machine are: `state` "starting", "serves" or "ended"; `text`: how it ended last, when
    it does not serve."""
    for path in sorted(session.glob("load-*.json")):
        with contextlib.suppress(OSError, ValueError):  # it is just written, or gone
            yield json.loads(path.read_text())


class Load:
    """One of them."""

    def __init__(self, number: int, target: str, word: Word, tell: Callable[[str], None]) -> None:
        self._number = number
        self._target = target
        self._word = word
        self._tell = tell
        self._session = Path(word.session)
        self._log = self._session / "logs" / f"load-{number}.log"
        self._over = threading.Event()
        self._settled = threading.Event()
        """It serves, or has failed, for the first time."""
        self._guard = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._how = ""
        """It ended last, if it does not serve."""
        self._told = ""
        self._thread = threading.Thread(target=self._watch, name=f"zmreg-load-{number}", daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        failures = 0
        while True:
            began = time.monotonic()
            try:
                how = self._live()
            except OSError as error:
                how = f"could not be started: {error}"
            if self._over.is_set():
                return
            failures = 0 if time.monotonic() - began > _SOUND_S else failures
            pause = min(_AGAIN_MOST_S, _AGAIN_S * 2 ** min(failures, 10))
            failures += 1
            self._how = how.strip()
            self._settled.set()
            self._note("ended", 0, self._how)
            again = "as before" if self._how == self._told else self._how
            self._told = self._how
            self._tell(f"the process that serves {self._target} ended, and is started again in {pause:g} s: {again}")
            if self._over.wait(pause):
                return

    def _live(self) -> str:
        """One process's life; how it ended."""
        read, write = os.pipe2(os.O_CLOEXEC)
        with open(read, "rb") as ready, self._log.open("ab") as log:
            start = log.tell()
            try:
                with self._guard:
                    if self._over.is_set():
                        return ""
                    process = self._process = self._spawn(log.fileno(), write)
            finally:
                os.close(write)
            self._note("starting", process.pid, self._how)
            if ready.read(1):
                self._how = self._told = ""
                self._settled.set()
                self._note("serves", process.pid, "")
                self._tell(f"{self._target} is loaded and serves, pid {process.pid}")
            code = process.wait()
            return f"{f'code {code}' if code >= 0 else f'signal {-code}'}{self._tail(start)}"

    def _spawn(self, log: int, ready: int) -> subprocess.Popen[bytes]:
        # The working directory comes first on sys.path, as with `python -m`: what is loaded is the user's.
        return subprocess.Popen(
            [sys.executable, "-m", _PROGRAM, self._target, self._word.address, str(ready)],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, pass_fds=[ready],
            start_new_session=True,  # Ctrl-C is for `zmreg start`, which ends us in order
            env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        )  # fmt: skip

    def _tail(self, start: int) -> str:
        with self._log.open("rb") as log:
            log.seek(max(start, self._log.stat().st_size - _TAIL_BYTES))
            text = log.read().decode(errors="replace").strip()
        return f"; its log ends:\n{text}" if text else ""

    def _note(self, state: str, pid: int, text: str) -> None:
        path = state_file(self._session, self._number)
        fresh = path.with_suffix(".new")
        with contextlib.suppress(OSError):  # the session is removed already
            fresh.write_text(json.dumps({"target": self._target, "pid": pid, "state": state, "text": text}))
            fresh.rename(path)

    def await_up(self, deadline: float) -> None:
        """Until it serves. ClusterError when it has ended instead, or does not by the deadline (time.monotonic())."""
        if not self._settled.wait(max(0.0, deadline - time.monotonic())):
            raise ClusterError(f"{self._target} was not loaded in time; its log is {self._log}")
        if self._how:
            raise ClusterError(f"{self._target} was not loaded: {self._how}")

    def ask_to_end(self) -> None:
        """It withdraws what it serves, finishes what has come, and is not started again."""
        self._over.set()
        with self._guard:
            if self._process is not None and self._process.poll() is None:
                self._process.terminate()

    def await_end(self, deadline: float) -> None:
        """Kill it at the deadline, a time of time.monotonic()."""
        self._thread.join(max(0.0, deadline - time.monotonic()))
        if self._thread.is_alive():
            with self._guard:
                if self._process is not None:
                    self._process.kill()
            self._thread.join()


class Loads:
    """All of them at one node."""

    def __init__(self, targets: Sequence[str], word: Word, tell: Callable[[str], None]) -> None:
        self._loads = [Load(number, target, word, tell) for number, target in enumerate(targets)]

    def await_up(self, timeout: float) -> None:
        """Until all serve. ClusterError when one does not, within `timeout` seconds."""
        deadline = time.monotonic() + timeout
        for load in self._loads:
            load.await_up(deadline)

    def stop(self, timeout: float = END_S) -> None:
        """End them in peace, and by force after `timeout` seconds. Idempotent."""
        deadline = time.monotonic() + timeout
        for load in self._loads:
            load.ask_to_end()
        while self._loads:
            self._loads[-1].await_end(deadline)
            self._loads.pop()
