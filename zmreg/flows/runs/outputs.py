"""Outputs of phases under the names of run and phase, for the whole cluster: large ones in a file as well.

An output is a ref, which costs nothing to hand on, and whose bytes stay where they were made until somebody reads them.
From 1 MiB (storage="hybrid", the usual) or always ("disk") a file on the machine that stored it keeps it too, and it
outlives the cluster; with "memory" there is no file. `cleanup` ends all of it.
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
from _blake2 import blake2b
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from zmreg.api.cluster import put
from zmreg.api.filing import from_bytes, to_bytes
from zmreg.api.refs import ObjectRef
from zmreg.flows.kit.system import Way
from zmreg.flows.runs.folders import runs_folder
from zmreg.model.errors import PhaseError, SerializationError
from zmreg.model.record import Record

if TYPE_CHECKING:
    from zmreg.api.actors import ActorHandle
    from zmreg.flows.runs.output_actor import OutputActor

STORAGES: Final = ("memory", "disk", "hybrid")
IN_MEMORY_BYTES: Final = 1 << 20
PICKLE: Final = "pickle"
PARQUET: Final = "parquet"
_SAFE: Final = re.compile(r"[A-Za-z0-9_.-]{1,100}")


class Filed(Record):
    """A file with an output. `digest`: blake2b of its bytes, hex."""

    path: str
    nbytes: int
    digest: str
    form: str = PICKLE


class StoredOutput(Record):
    """What is known of an output, without its value."""

    phase: str
    version: int
    nbytes: int
    metadata: Mapping[str, Any]
    file: Filed | None = None


def _find() -> ActorHandle[OutputActor]:
    from zmreg.flows.kit.system import system_actor
    from zmreg.flows.runs.output_actor import OutputActor

    return system_actor(OutputActor, "outputs")


_way = Way(_find)


def run_folder(workflow_id: str, folder: str | os.PathLike[str] | None = None) -> Path:
    """The folder of one run. ValueError for an id that is no name of a folder."""
    if not isinstance(workflow_id, str) or not _SAFE.fullmatch(workflow_id) or workflow_id.startswith("."):
        raise ValueError(f"id={workflow_id!r}: write up to 100 letters, digits, and any of . _ -, not beginning with .")
    return runs_folder(folder) / workflow_id


# -- the face ----------------------------------------------------------------------------------------------------------


def store_phase_output(
    workflow_id: str, phase: str, output: Any, metadata: Mapping[str, Any] | None = None, *, storage: str = "hybrid"
) -> StoredOutput:
    """Keep `output`, a value or a ref to one, for everybody in the cluster. What was there is replaced at once and
    whole, under the next version. `storage`: "memory", "disk", or "hybrid", a file from 1 MiB.

    Raises ValueError, SerializationError, OSError when the file cannot be written.
    """
    if storage not in STORAGES:
        raise ValueError(f"storage={storage!r}: write one of {', '.join(map(repr, STORAGES))}")
    target = run_folder(workflow_id)
    ref = output if isinstance(output, ObjectRef) else put(output)
    nbytes = size_of(ref)
    file = None
    if storage == "disk" or (storage == "hybrid" and nbytes >= IN_MEMORY_BYTES):
        file = write_file(target, phase, ref.get() if output is ref else output)
    return publish(workflow_id, phase, ref, file, metadata or {})


def get_phase_output(workflow_id: str, phase: str) -> Any:
    """Its value, fetched to this node once. KeyError, with what there is, when it is not known."""
    return phase_ref(workflow_id, phase).get()


def get_phase_outputs(workflow_id: str, phases: Iterable[str] | None = None) -> dict[str, Any]:
    """{phase: value} of these, or of all there are. KeyError for one that is not known."""
    names = list(describe_outputs(workflow_id)) if phases is None else list(phases)
    refs = {name: phase_ref(workflow_id, name) for name in names}
    return {name: ref.get() for name, ref in refs.items()}


def phase_ref(workflow_id: str, phase: str) -> ObjectRef[Any]:
    """A ref to it; nothing is loaded or moved. KeyError, with what there is, when it is not known."""
    found: list[ObjectRef[Any]] = _way.ask("ref", workflow_id, phase)
    if not found:
        known = ", ".join(describe_outputs(workflow_id)) or "none at all"
        raise KeyError(f"run {workflow_id!r} has no output of a phase {phase!r}; there are: {known}")
    return found[0]


def describe_outputs(workflow_id: str) -> dict[str, StoredOutput]:
    """{phase: what is known of its output} of one run; {} of one that is not known."""
    found: dict[str, StoredOutput] = _way.ask("described", workflow_id)
    return found


def copy_output(src: str, phase: str, dst: str, name: str | None = None, *, overwrite: bool = False) -> StoredOutput:
    """Run `dst` has it too, as the output of `name` (by default the same phase). No byte is copied, and what happens to
    the source afterwards does not matter. KeyError when it is not known, ValueError when `dst` has one already, unless
    `overwrite`."""
    ref, known = phase_ref(src, phase), describe_outputs(src)[phase]
    there = name or phase
    if not overwrite and there in describe_outputs(dst):
        raise ValueError(f"run {dst!r} has an output of {there!r} already; overwrite=True puts this one in its place")
    file = known.file
    if file is not None:
        linked = _fresh(run_folder(dst), there)
        try:
            os.link(file.path, linked)
            file = file.but(path=str(linked))
        except OSError:  # the file is on another machine or file system: the value is reached by its ref alone
            file = None
    return publish(dst, there, ref, file, known.metadata)


def cleanup(workflow_id: str, folder: str | os.PathLike[str] | None = None) -> None:
    """Forget all outputs of a run: its folder with journal and files is gone, and the store has the room back once
    nobody else holds a ref. Idempotent. PhaseError when the run still goes on."""
    import shutil  # late: it brings all kinds of compression along  # late: for this alone

    from zmreg.flows.runs.journal import is_running

    target = run_folder(workflow_id, folder)
    if is_running(target):
        raise PhaseError(f"run {workflow_id!r} goes on: its outputs cannot be removed under it")
    _way.ask("drop", workflow_id)
    shutil.rmtree(target, ignore_errors=True)


# -- the parts ---------------------------------------------------------------------------------------------------------


def publish(
    workflow_id: str, phase: str, ref: ObjectRef[Any], file: Filed | None, metadata: Mapping[str, Any]
) -> StoredOutput:
    """Put it where everybody finds it; the file of what was there before goes."""
    old: Filed | None
    stored: StoredOutput
    stored, old = _way.ask("store", workflow_id, phase, [ref], size_of(ref), file, dict(metadata))
    if old is not None and (file is None or old.path != file.path):
        with contextlib.suppress(OSError):  # on another machine
            os.unlink(old.path)
    return stored


def size_of(ref: ObjectRef[Any]) -> int:
    """Bytes of the value; waits until it is there. Raises what made it fail."""
    if (error := ref.exception()) is not None:
        raise error
    return ref.meta.nbytes


def write_file(folder: Path, phase: str, value: Any) -> Filed:
    """The value in a new file, on the disk and whole when this returns. Raises SerializationError, OSError."""
    form, data = _encoded(value, phase)
    path = _fresh(folder, phase)
    part = path.with_name(path.name + ".part")
    try:
        with open(part, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.rename(part, path)
        _sync_folder(path.parent)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(part)
        raise
    return Filed(str(path), len(data), blake2b(data, digest_size=16).hexdigest(), form)


def read_file(file: Filed) -> Any:
    """Raises OSError, and SerializationError when its bytes are not those that were written."""
    data = Path(file.path).read_bytes()
    if len(data) != file.nbytes or blake2b(data, digest_size=16).hexdigest() != file.digest:
        raise SerializationError(f"{file.path} has {len(data)} bytes that are not what was written ({file.nbytes})")
    if file.form == PARQUET:
        import pyarrow as pa
        import pyarrow.parquet as pq

        return pq.read_table(pa.BufferReader(data))
    return from_bytes(data)


def unlink(path: str) -> None:
    """Remove a file that is of no use any more, if there is one: "" is none, and another machine's is left to it."""
    if path:
        with contextlib.suppress(OSError):
            os.unlink(path)


def is_intact(file: Filed) -> bool:
    """Whether it is there, as long as it was. What is in it is checked when it is read."""
    try:
        return os.stat(file.path).st_size == file.nbytes
    except OSError:
        return False


def _encoded(value: Any, phase: str) -> tuple[str, bytes]:
    """Tables of pyarrow as parquet, which other programs read too; all else as a pickle."""
    arrow = sys.modules.get("pyarrow")  # who has a table of it has imported it
    if arrow is not None and isinstance(value, arrow.Table):
        import pyarrow.parquet as pq

        sink = arrow.BufferOutputStream()
        pq.write_table(value, sink)
        return PARQUET, sink.getvalue().to_pybytes()
    return PICKLE, to_bytes(value, f"the output of phase {phase!r}")


def _fresh(folder: Path, phase: str) -> Path:
    """A path that no file has."""
    outputs = folder / "outputs"
    outputs.mkdir(parents=True, exist_ok=True)
    name = phase if _SAFE.fullmatch(phase) else blake2b(phase.encode(), digest_size=8).hexdigest()
    return outputs / f"{name}-{os.urandom(6).hex()}.out"


def _sync_folder(folder: Path) -> None:
    """So that the name is on the disk as well."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
