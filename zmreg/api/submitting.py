"""What submitted jobs need of the engine: the head's list, logs at nodes, packages, and the place a job runs at."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from zmreg.api.cluster import init, is_initialized, put
from zmreg.api.environments import check_env
from zmreg.api.refs import ObjectRef
from zmreg.model.errors import ClusterError
from zmreg.model.job_messages import ENDED, GONE, JOB_ID, PENDING, RUNNING, JobNoted
from zmreg.services.calling.acting import MAX_COPIES_BYTES
from zmreg.services.machine import job_logs
from zmreg.services.seat.seats import client

# Of the variables of a node's process: what says where it joined is another cluster's business in a job that has its
# own address, and a job in a job is not the outer one.
_NOT_OURS: Final = ("ZMREG_JOB_ID", "ZMREG_RUNTIME_ENV", "ZMREG_ADDRESS", "ZMREG_KEY")
_VISIBLE: Final = "CUDA_VISIBLE_DEVICES"


def take_seat(address: str | None, key: str | os.PathLike[str] | None) -> None:
    """Be a program of the cluster that is meant, if this process is in none. Raises as `init`, and ClusterError when no
    cluster runs."""
    from zmreg.services.setup.finding import find  # late, as `init` has it

    if is_initialized():
        return
    if find(address, key) is None:
        raise ClusterError(
            "no cluster of yours runs on this machine: give the address of one, or start one with `zmreg start --head`"
        )
    init(address, key=key, log_to_driver=False)


def note(job_id: str, actor_id: bytes, stage: int, facts: Mapping[str, Any], tail: bytes = b"") -> None:
    """Have the head know how a job stands."""
    import json  # late, here and below: for those who have jobs

    client().tell_node(JobNoted(job_id, actor_id, stage, json.dumps(facts), tail))


def known(job_id: str) -> dict[str, Any] | None:
    """What the head knows of a job, `note` as it was given to `note`. None when there is no such job."""
    import json

    row: dict[str, Any] | None = client().ask("submission", job_id)
    return None if row is None else {**row, "note": json.loads(row["note"])}


def all_known() -> list[dict[str, Any]]:
    """Of all jobs, the oldest first, without the ends of their logs."""
    import json

    rows, start = [], 0
    while True:
        page = client().ask("submissions", str(start))
        rows += [{**row, "note": json.loads(row["note"])} for row in page["rows"]]
        start = page["next"]
        if not start:
            return rows


def log_page(node: str, supervisor: bytes, offset: int) -> dict[str, Any] | None:
    """A part of the log of that actor's job at the node of that id, or None when there is none, or no such node. See
    job_logs.page."""
    page: dict[str, Any] | None = client().ask("job_log", f"{node} {supervisor.hex()} {offset}")
    return page


def packages(runtime_env: Mapping[str, Any] | None) -> tuple[dict[str, Any], list[ObjectRef[bytes]]]:
    """What a `runtime_env` says: {"env_vars": variables, "working_dir": its path or None, "py_modules": paths}; and the
    zip files of these directories and modules, in this order, as inputs of an actor.

    ValueError, TypeError and OSError as there, and ValueError for what an actor's order cannot carry.
    """
    from zmreg.services.machine.packages import pack  # late: zipfile is for those who have packages

    checked = check_env(runtime_env) or {}
    assert isinstance(checked, dict)
    folder, modules, excludes = checked.get("working_dir"), checked.get("py_modules", ()), checked.get("excludes", ())
    packed = [] if folder is None else [pack(folder, excludes)[1]]
    packed += [pack(each, excludes, each.name if each.is_dir() else "")[1] for each in modules]
    if (size := sum(map(len, packed))) > MAX_COPIES_BYTES:
        raise ValueError(
            f"the job's directories have {size / 1e6:.0f} MB when packed, and {MAX_COPIES_BYTES / 1e6:.0f} MB are kept "
            "with a job: leave files out with excludes=[...], and have data where the job runs"
        )
    said = {
        "env_vars": dict(checked.get("env_vars", {})), "working_dir": None if folder is None else str(folder),
        "py_modules": [str(each) for each in modules],
    }  # fmt: skip
    return said, [put(each) for each in packed]


def unpacked(package: bytes, place: Path) -> Path:
    """The package, unpacked there. OSError, ValueError."""
    from zmreg.services.machine.packages import unpack  # late, as above

    unpack(package, place)
    return place


def place_of(supervisor: bytes) -> Path:
    """Where that actor has its job's log and directories, on its machine."""
    return client().session / job_logs.DIRECTORY / supervisor.hex()


def clean_variables() -> dict[str, str]:
    """The environment that this machine's node was started in, with what leads a program to it: nothing of this
    worker's, and nothing of what packages were put in front of Python's path."""
    import sysconfig  # late, both: for supervisors

    from zmreg.services.setup.sessions import read_word

    # The process's first environment is the node's: workers are forks of it, whatever was set in them since.
    first = Path("/proc/self/environ").read_bytes().split(b"\0")
    pairs = (os.fsdecode(each).partition("=") for each in first if b"=" in each)
    found = {name: value for name, _, value in pairs if name not in _NOT_OURS}
    own = {os.path.realpath(path) for path in sysconfig.get_paths().values()}
    own |= {os.path.dirname(path) for path in own} | {os.path.join(path, "lib-dynload") for path in own}
    # The node's launcher lists all of its own path there, and another Python must not meet our standard library.
    paths = found.pop("PYTHONPATH", "").split(os.pathsep)
    kept = [path for path in paths if path and not path.endswith(".zip") and os.path.realpath(path) not in own]
    if kept:
        found["PYTHONPATH"] = os.pathsep.join(kept)
    found["PATH"] = os.pathsep.join(filter(None, (os.path.dirname(sys.executable), found.get("PATH", os.defpath))))
    found.setdefault("PYTHONUNBUFFERED", "1")  # a log that is followed
    if _VISIBLE in os.environ:
        found[_VISIBLE] = os.environ[_VISIBLE]  # those of this actor
    word = read_word(client().session)
    found["ZMREG_ADDRESS"] = word.address if word.attachable else word.contact
    if word.key_file:
        found["ZMREG_KEY"] = word.key_file
    return found


__all__ = [
    "ENDED", "GONE", "JOB_ID", "PENDING", "RUNNING", "all_known", "clean_variables", "job_logs", "known",
    "log_page", "note", "packages", "place_of", "take_seat", "unpacked",
]  # fmt: skip
