"""The actor that looks after one job: it starts the job's program under a warden, says how it stands, and ends with it.

It is detached, named after the job, and runs its program at most once: one that is made again, because its node
is gone, says so and ends. When it is killed, its warden ends the program.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any, Final

from zmreg.api import submitting
from zmreg.api.context import exit_actor, get_runtime_context
from zmreg.flows.jobs.infos import JobStatus
from zmreg.model.errors import ZmregError

# Ended jobs whose logs a node keeps, of up to 8 MiB each (services/machine/job_logs.py).
LOGS_KEPT: Final = 32
TAIL_BYTES: Final = 16 * 1024
_DIRECTORY_MODE: Final = 0o700


class Supervisor:
    """One job. `order` has `facts`, what is told of it, and what its program needs (see client.py); `packages` are the
    zip files of its working directory, if it has one, and of its modules."""

    def __init__(self, order: dict[str, Any], *packages: bytes) -> None:
        context = get_runtime_context()
        self._order = order
        self._packages = list(packages)
        self._facts: dict[str, Any] = {**order["facts"], "node": context.get_node_id()}
        self._me = context.current_actor
        self._again = context.was_current_actor_reconstructed
        self._place = submitting.place_of(self._me._actor_id)
        self._lock = threading.Lock()
        self._warden: subprocess.Popen[bytes] | None = None
        self._grace: float | None = None
        """Of the shortest wish to stop."""
        # A call, so that a node that is drained waits for the job as for any other call.
        self._running = self._me.run.remote()

    async def run(self) -> None:
        """The life of the job; this actor ends with it."""
        if self._again:
            why = "the node that ran it is gone, and its program with it; a job is not run twice"
            self._end(JobStatus.FAILED, why, None)
        else:
            await asyncio.get_running_loop().run_in_executor(None, self._look_after)
        exit_actor()

    async def stop(self, grace_s: float) -> None:
        """Have the program ended: by SIGTERM, and after so many seconds by SIGKILL."""
        with self._lock:
            self._grace = grace_s if self._grace is None else min(grace_s, self._grace)
            self._ask_to_stop()

    def _ask_to_stop(self) -> None:
        if self._grace is not None and self._warden is not None and self._warden.stdin is not None:
            with contextlib.suppress(OSError, ValueError):  # it is over
                self._warden.stdin.write(f"stop {self._grace}\n".encode())
                self._warden.stdin.flush()

    # -- on a thread --------------------------------------------------------------------------------------------------

    def _look_after(self) -> None:
        try:
            variables, cwd = self._prepare()
        except (OSError, ValueError, ZmregError) as error:
            self._end(JobStatus.FAILED, f"what the job runs in could not be set up: {error}", None)
            return
        self._facts.update(status=JobStatus.RUNNING, started=time.time())
        self._note(submitting.RUNNING)
        command = {
            "command": self._order["command"], "directory": str(self._place), "cwd": str(cwd), "env": variables,
        }  # fmt: skip
        try:
            with self._open_warden(command) as warden:
                status, message, code = self._follow(warden)
        except OSError as error:
            status, message, code = JobStatus.FAILED, f"no process could be started for it: {error}", None
        self._end(status, message, code)

    def _prepare(self) -> tuple[dict[str, str], Path]:
        """(variables, working directory) of the program; its directory on this machine is made."""
        _forget_old(self._place.parent)
        self._place.mkdir(mode=_DIRECTORY_MODE, parents=True)
        cwd = self._place / "work"
        said = self._order["env"]
        env: dict[str, Any] = {"env_vars": said["env_vars"]}
        variables = submitting.clean_variables()
        packages, self._packages = self._packages, []
        if said["working_dir"] is not None:
            folder = packages.pop(0)
            submitting.unpacked(folder, cwd)
            # Whole, whatever the program writes beside its own files until it calls `zmreg.init`.
            env["working_dir"] = str(submitting.unpacked(folder, self._place / "packed"))
        else:
            cwd.mkdir(mode=_DIRECTORY_MODE)
        folders = [
            submitting.unpacked(module, self._place / f"modules-{number}") for number, module in enumerate(packages)
        ]
        if folders:
            env["py_modules"] = [str(path) for folder in folders for path in sorted(folder.iterdir())]
            before = [str(folder) for folder in folders]
            variables["PYTHONPATH"] = os.pathsep.join([*before, *filter(None, [variables.get("PYTHONPATH")])])
        variables.update(ZMREG_JOB_ID=self._order["job_id"], ZMREG_RUNTIME_ENV=json.dumps(env), PWD=str(cwd))
        return {**variables, **said["env_vars"]}, cwd

    def _open_warden(self, command: dict[str, Any]) -> subprocess.Popen[bytes]:
        home = str(Path(__file__).parents[3])
        # A session of its own: the group of a dead worker is killed, and the warden has something to do then.
        warden = subprocess.Popen(
            [sys.executable, "-P", "-c", submitting.job_logs.WARDEN], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            cwd="/", env={"PYTHONPATH": home}, start_new_session=True,
        )  # fmt: skip
        assert warden.stdin is not None
        with self._lock:
            try:
                warden.stdin.write(json.dumps(command).encode() + b"\n")
                warden.stdin.flush()
            except BrokenPipeError:  # what `_follow` reads says so, too
                return warden
            self._warden = warden
            self._ask_to_stop()
        return warden

    def _follow(self, warden: subprocess.Popen[bytes]) -> tuple[JobStatus, str, int | None]:
        """(how the job has ended, that for people, exit code)."""
        assert warden.stdout is not None
        pid = 0
        for line in warden.stdout:
            kind, _, rest = line.decode(errors="replace").rstrip("\n").partition(" ")
            if kind == "failed":
                code, _, why = rest.partition(" ")
                return JobStatus.FAILED, f"the program could not be started: {why}", int(code)
            if kind == "ended":
                status, _, why = rest.partition(" ")
                return _verdict(os.waitstatus_to_exitcode(int(status)), why == "stopped")
            pid = int(rest)
        if pid:  # the warden was killed: what it had started is the zygote's by now
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(pid, signal.SIGKILL)
        return JobStatus.FAILED, "the process that kept its log was killed, and the program with it", None

    # -- words --------------------------------------------------------------------------------------------------------

    def _end(self, status: JobStatus, message: str, code: int | None) -> None:
        page = submitting.job_logs.page(self._place, -TAIL_BYTES, TAIL_BYTES) or {"data": b""}
        self._facts.update(status=status, message=message, exit_code=code, ended=time.time())
        for name in ("work", "packed", *(path.name for path in self._place.glob("modules-*"))):
            shutil.rmtree(self._place / name, ignore_errors=True)
        self._note(submitting.ENDED, page["data"])

    def _note(self, stage: int, tail: bytes = b"") -> None:
        submitting.note(self._order["job_id"], self._me._actor_id, stage, self._facts, tail)


def _verdict(code: int, stopped: bool) -> tuple[JobStatus, str, int]:
    how = f"exit code {code}"
    if code < 0:
        names = {each.value: each.name for each in signal.Signals}
        how = f"signal {-code} ({names.get(-code, 'a real-time one')})"
    if stopped:
        return JobStatus.STOPPED, f"it was stopped on request; its program ended by {how}", code
    if code:
        return JobStatus.FAILED, f"its program ended by {how}; the log may say why", code
    return JobStatus.SUCCEEDED, "", code


def _forget_old(root: Path) -> None:
    """Jobs that have ended long ago lose their logs here; of what was killed nothing but the log is kept, either."""
    over = []
    for marker in root.glob(f"*/{submitting.job_logs.OVER}"):
        with contextlib.suppress(FileNotFoundError):
            over.append((marker.stat().st_mtime, marker.parent))
    for _, place in sorted(over)[: -LOGS_KEPT + 1]:
        shutil.rmtree(place, ignore_errors=True)
