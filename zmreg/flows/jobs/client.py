"""Submitting jobs and asking for them: from any program of the cluster, which holds its key or sits beside a node."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from zmreg.api import submitting
from zmreg.api.actors import ActorClass, ActorHandle, get_actor_or_none, kill
from zmreg.api.cluster import nodes
from zmreg.api.context import get_runtime_context
from zmreg.api.strategies import NodeAffinitySchedulingStrategy
from zmreg.api.watching import head_node
from zmreg.flows.jobs.infos import NAMESPACE, JobInfo, JobStatus, info_of
from zmreg.model.arguments import check_seconds
from zmreg.model.errors import ActorDiedError, ClusterError, GetTimeoutError

STOP_GRACE_S: Final = 5.0
# Asked so often at most: a state that changes once, and a log that grows.
_LONGEST_PAUSE_S: Final = 0.25
_FIRST_PAUSE_S: Final = 0.02
_PLACEMENT: Final = ("num_cpus", "num_gpus", "memory", "resources", "locs", "label_selector", "node")
# What the head keeps of each job, all in all (services/head/submissions.py).
_TEXT_CHARS: Final = 32 * 1024


class JobClient:
    """Jobs of a cluster: programs that one of its nodes runs and looks after.

    A job outlives whoever has submitted it; its state and the end of its log outlive its node, and the head. Made in a
    program that is in a cluster, it is for that one; else it takes a seat, at `address` with the file `key`, as
    `zmreg.init` does.

        jobs = zmreg.JobClient()
        job = jobs.submit_job("python train.py --epochs 3", runtime_env={"working_dir": "."})
        assert jobs.wait_job(job).status == "SUCCEEDED", jobs.get_job_logs(job)
    """

    def __init__(self, address: str | None = None, *, key: str | os.PathLike[str] | None = None) -> None:
        """Raises as `zmreg.init`, and ClusterError where there is no cluster; ValueError for an URL."""
        if address is not None and "://" in address:
            raise ValueError(
                f"address={address!r}: jobs are submitted over the cluster's own authenticated connection and never "
                "over HTTP; give HOST:PORT of any node, and its key file where no node of it runs"
            )
        submitting.take_seat(address, key)

    # -- submit -------------------------------------------------------------------------------------------------------

    def submit_job(
        self,
        entrypoint: str | Sequence[str],
        *,
        submission_id: str | None = None,
        runtime_env: Mapping[str, Any] | None = None,
        metadata: Mapping[str, str] | None = None,
        **placement: Any,
    ) -> str:
        """Have a node run the command; returns the job's id when the head has it.

        `entrypoint`: a text is for /bin/sh, a list is a program and its arguments. It runs in a directory of its own,
        with the content of `runtime_env["working_dir"]` if that is given, and `zmreg.init()` in it finds the cluster.
        `placement`: `num_cpus`, `num_gpus`, `memory`, `resources` are taken while it runs; `locs`, `label_selector` and
        `node` (id or name) say where. By default it runs beside the head, and takes nothing.

        Raises ValueError for an id that is taken, or for what is no command, environment or placement; TypeError;
        ClusterError in a cluster that ends with this program.
        """
        for name in placement:
            if name not in _PLACEMENT:
                raise TypeError(f"submit_job() has no {name}=; where a job runs is said by {', '.join(_PLACEMENT)}")
        if get_runtime_context().gcs_address == "local":
            raise ClusterError(
                "this cluster is the program's own and ends with it, and a job would, too: start one with "
                "`zmreg start --head` for jobs"
            )
        job_id = submission_id or f"job-{os.urandom(6).hex()}"
        if not re.fullmatch(submitting.JOB_ID, job_id):
            raise ValueError(
                f"submission_id={job_id!r}: up to 64 letters, digits, `_`, `.` and `-`, of which the first is a letter "
                "or a digit"
            )
        if submitting.known(job_id) is not None:
            raise ValueError(f"there is a job {job_id!r} already; choose another submission_id, or delete that one")
        env, inputs = submitting.packages(runtime_env)
        order = _order(job_id, entrypoint, env, metadata)
        made: ActorClass[Any] = _supervisor().options(name=job_id, **_where(placement))
        actor = made.remote(order, *inputs)
        submitting.note(job_id, actor._actor_id, submitting.PENDING, order["facts"])
        self._row(job_id)  # the head has it now, and has written it down
        return job_id

    # -- ask ----------------------------------------------------------------------------------------------------------

    def get_job_info(self, job_id: str) -> JobInfo:
        """How the job stands. ValueError when there is none of that id, or it ended so long ago that it is forgotten
        (a thousand ended jobs are kept)."""
        return info_of(self._row(job_id))

    def get_job_status(self, job_id: str) -> JobStatus:
        """Of the same the status alone."""
        return self.get_job_info(job_id).status

    def list_jobs(self) -> list[JobInfo]:
        """All jobs that are known, the oldest first."""
        return [info_of(row) for row in submitting.all_known()]

    def wait_job(self, job_id: str, timeout: float | None = None) -> JobInfo:
        """Wait until the job is over. GetTimeoutError after `timeout` seconds, and it goes on; ValueError as above."""
        check_seconds(timeout, past=True)
        deadline, pause = None if timeout is None else time.monotonic() + timeout, _FIRST_PAUSE_S
        while not (info := self.get_job_info(job_id)).status.is_terminal():
            left = pause if deadline is None else deadline - time.monotonic()
            if left <= 0:
                raise GetTimeoutError(f"job {job_id} is {info.status} still after {timeout} s; it goes on", timeout)
            time.sleep(min(pause, left))
            pause = min(2 * pause, _LONGEST_PAUSE_S)
        return info

    def _row(self, job_id: str) -> dict[str, Any]:
        row = submitting.known(job_id)
        if row is None:
            raise ValueError(f"there is no job {job_id!r} in this cluster; `zmreg job list` shows those that are known")
        return row

    # -- logs ---------------------------------------------------------------------------------------------------------

    def get_job_logs(self, job_id: str) -> str:
        """What the job has printed: of much the last 4 to 8 MiB, and when its node is gone the last 16 KiB.

        ValueError as `get_job_info`.
        """
        return "".join(self._log(job_id, follow=False))

    def tail_job_logs(self, job_id: str) -> Iterator[str]:
        """The same, and what is printed from now on, until the job is over."""
        return self._log(job_id, follow=True)

    def _log(self, job_id: str, follow: bool) -> Iterator[str]:
        offset, rest, pause = 0, b"", _FIRST_PAUSE_S
        while True:
            row = self._row(job_id)  # before the page: what a job that is over printed last is in that
            info = info_of(row)
            page = submitting.log_page(info.node_id, row["actor_id"], offset) if info.node_id else None
            if page is None and info.status.is_terminal() and info.node_id and not offset:
                yield row["tail"].decode(errors="replace")
            data = rest + page["data"] if page is not None else rest
            offset, more = (page["next"], page["next"] < page["size"]) if page is not None else (offset, False)
            is_over = not more and (not follow or info.status.is_terminal())
            whole = len(data) if is_over else data.rfind(b"\n") + 1
            if whole:
                yield data[:whole].decode(errors="replace")
                pause = _FIRST_PAUSE_S
            rest = data[whole:]
            if is_over:
                return
            if not more:
                time.sleep(pause)
                pause = min(2 * pause, _LONGEST_PAUSE_S)

    # -- end ----------------------------------------------------------------------------------------------------------

    def stop_job(self, job_id: str, grace: float = STOP_GRACE_S) -> bool:
        """Have the job ended: SIGTERM to its processes, SIGKILL to what is left of them `grace` seconds later.

        Returns at once (see `wait_job`): whether it was not over before. One that has not begun never does.
        ValueError as `get_job_info`, and for a grace below 0.
        """
        check_seconds(grace, "grace", needed=True)
        row = self._row(job_id)
        if info_of(row).status.is_terminal():
            return False
        actor = get_actor_or_none(job_id, NAMESPACE)
        if actor is None:
            return not info_of(self._row(job_id)).status.is_terminal()
        if row["stage"] == submitting.PENDING:
            self._stop_pending(job_id, row, actor)
            return True
        try:
            actor.stop.remote(float(grace)).get()
        except ActorDiedError:
            return self.wait_job(job_id).status == JobStatus.STOPPED
        return True

    def _stop_pending(self, job_id: str, row: Mapping[str, Any], actor: ActorHandle[Any]) -> None:
        now = time.time()
        facts = {**row["note"], "status": JobStatus.STOPPED, "message": "it was stopped before it began", "ended": now}
        submitting.note(job_id, row["actor_id"], submitting.ENDED, facts)
        kill(actor)

    def delete_job(self, job_id: str) -> bool:
        """Forget a job that is over. ValueError as `get_job_info`; RuntimeError for one that is not over."""
        row = self._row(job_id)
        if not info_of(row).status.is_terminal():
            raise RuntimeError(f"job {job_id} is not over: stop_job({job_id!r}) ends it")
        submitting.note(job_id, row["actor_id"], submitting.GONE, {})
        return submitting.known(job_id) is None


def _order(job_id: str, entrypoint: str | Sequence[str], env: Mapping[str, Any], metadata: Any) -> dict[str, Any]:
    """What the supervisor is told; the packages come beside it."""
    import shlex  # late: for those who submit

    command = ["/bin/sh", "-c", entrypoint] if isinstance(entrypoint, str) else list(entrypoint)
    if not command or not all(isinstance(word, str) for word in command) or not command[-1]:
        raise ValueError(f"entrypoint={entrypoint!r}: a command as a text, or a program and its arguments")
    text = entrypoint if isinstance(entrypoint, str) else shlex.join(command)
    metadata = dict(metadata or {})
    if not all(isinstance(each, str) for pair in metadata.items() for each in pair):
        raise TypeError(f"metadata={metadata!r}: names and values are texts")
    shown: dict[str, Any] = {name: value for name, value in env.items() if value}
    if env["env_vars"]:
        shown["env_vars"] = sorted(env["env_vars"])  # values may be secrets
    if len(text) + len(str(metadata)) + len(str(shown)) > _TEXT_CHARS:
        raise ValueError(
            f"a job's command, metadata and names of variables have {_TEXT_CHARS} characters at most; put what is "
            "large into a file of its working_dir"
        )
    facts = {
        "status": JobStatus.PENDING, "entrypoint": text, "message": "", "exit_code": None, "metadata": metadata,
        "submitted": time.time(), "started": 0.0, "ended": 0.0, "node": "", "runtime_env": shown,
    }  # fmt: skip
    return {"job_id": job_id, "command": command, "env": env, "facts": facts}


def _supervisor() -> ActorClass[Any]:
    from zmreg.flows.jobs.supervisor import Supervisor  # late: asyncio and subprocess are the actor's

    return ActorClass(Supervisor, {"lifetime": "detached", "namespace": NAMESPACE})


def _where(placement: Mapping[str, Any]) -> dict[str, Any]:
    """Options of the supervisor, which holds what its job takes."""
    options = {name: value for name, value in placement.items() if name != "node" and value is not None}
    options.setdefault("num_cpus", 0)
    node = placement.get("node")
    if node is not None:
        rows = [row for row in nodes() if row["Alive"]]
        found = [row for row in rows if row["NodeName"] == node or (len(node) > 3 and row["NodeID"].startswith(node))]
        if len(found) != 1:
            names = ", ".join(f"{row['NodeName']} ({row['NodeID'][:8]})" for row in rows)
            raise ValueError(f"node={node!r} is {'no' if not found else 'more than one'} node; there are {names}")
        options["scheduling_strategy"] = NodeAffinitySchedulingStrategy(found[0]["NodeID"], soft=False)
    elif options == {"num_cpus": 0} and (head := head_node()):
        options["scheduling_strategy"] = NodeAffinitySchedulingStrategy(head, soft=True)
    return options
