"""Where results are written: any process of the cluster writes rows, one process owns the files.

with zmreg.Sink("results/today", format="parquet") as sink:
    zmreg.get([evaluate.remote(sink, each) for each in candidates])
"""

from __future__ import annotations

import os
import sys
from collections.abc import Awaitable, Generator, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Literal, Self, TypedDict, Unpack, cast

from zmreg.api.actors import ActorClass, ActorHandle
from zmreg.api.context import get_runtime_context
from zmreg.api.everywhere import run_on_all
from zmreg.api.strategies import NodeAffinitySchedulingStrategy
from zmreg.core.aggregates import Aggregates, measures_of
from zmreg.flows.results.formats import Format
from zmreg.flows.results.recorder import Terms, key_of
from zmreg.flows.results.result_dirs import MANIFEST, read_manifest, read_rows
from zmreg.flows.results.sink_lane import COUNTED, drain_here, lane_of
from zmreg.model.arguments import check_count, check_seconds
from zmreg.model.errors import ActorDiedError

if TYPE_CHECKING:
    from zmreg.flows.results.sink_actor import SinkActor

FormatName = Literal["jsonl", "csv", "parquet"]
# Of rows that other processes write, when a sink is closed. They wait for a disk at most.
_DRAIN_S: Final = 60.0


class StreamerOptions(TypedDict, total=False):
    """What a sink takes beside where it writes, and how."""

    flush_interval: float | None
    """Seconds between flushes, however few rows there are; 1 unless given. None: only when the buffer is full."""
    strict: bool
    """Whether values that the format does not know are errors, and not words."""
    fsync: bool
    """Whether each flush waits for the disk itself: results outlive the machine, too."""
    key: str | Sequence[str] | None
    """A field, "task.id", say, or several, ("phase", "container"): of rows with the same values there the first one
    counts, also over several runs."""
    aggregate: bool
    """Whether figures are kept of all metrics; True unless given."""
    part_bytes: int
    """How large a file grows before the next one is begun; 256 MiB unless given."""
    disk_warn: float
    """The share of free space below which an event says so; 0.05 unless given."""
    keep_last: int | None
    """When it is closed: of all results beside it, so many stay."""
    max_age: float | None
    """The same: none that was last written so many seconds ago stays."""
    max_bytes: int | None
    """The same: the youngest stay, as many as have so many bytes together."""


class SinkOptions(StreamerOptions, total=False):
    """All of it."""

    compression: str | None
    """"gzip" for JSONL and CSV; what pyarrow knows for Parquet, "snappy" unless given."""
    workflow_id: str | None
    """Stands in the manifest and in events."""


class Sink:
    """Rows, which are dicts, go into a directory of files. Pickled, it is the same sink: pass it to tasks and actors.

    A row that `write` has returned for is on its way; one that `flush` has returned for is in a file. `close`, or the
    end of a `with` block, gathers what all workers have written and says in the manifest that this is all; an error
    that leaves the block, that it is not.
    """

    def __init__(
        self, path: str | Path, format: FormatName = "jsonl", buffer_size: int = 1000, **options: Unpack[SinkOptions]
    ) -> None:
        """`path`: a directory, of this machine; what is there already is continued. `buffer_size`: rows.

        Raises ValueError for what there is not, ImportError for Parquet without pyarrow, OSError when the directory
        cannot be written or another sink does.
        """
        given: dict[str, Any] = dict(options)
        interval = given.pop("flush_interval", 1.0)
        self._aggregate = given.pop("aggregate", True)
        unknown = given.keys() - SinkOptions.__optional_keys__
        if unknown:
            known = ", ".join(sorted(SinkOptions.__optional_keys__))
            raise TypeError(f"a sink has no option {', '.join(sorted(unknown))}; there are {known}")
        _check(buffer_size, interval, given)
        given["key"] = _key(given.get("key"))
        terms = Terms(format=format, buffer_size=buffer_size, **given)
        self.path = Path(path).absolute()
        self._key = terms.key
        self._format = Format(terms.format, terms.compression, terms.strict)
        self._id = os.urandom(8).hex()
        self._shared = False
        """Whether others may write into it."""
        self._ended: tuple[dict[str, Any], Aggregates] | None = None
        self._by_columns = terms.format == "parquet" and terms.key is None
        self._lane = lane_of(self._id, _start(self.path, terms, interval), self._by_columns)

    # -- writing ------------------------------------------------------------------------------------------------------

    def write(self, row: Mapping[str, Any], *, durable: bool = False) -> None:
        """Write a row. `durable`: it is in a file when this returns.

        Waits when thousands of rows are on their way. Raises what the disk said to earlier rows (OSError): they are
        kept and tried again, this one is not taken; ValueError when the sink is closed, and for a row without a field
        of its `key`; ActorDiedError when its process is gone; what cannot be written as this format, at once.
        """
        if self._put(row):
            self._lane.wait_for_room()
        if durable:
            self.flush()

    async def awrite(self, row: Mapping[str, Any], *, durable: bool = False) -> None:
        """`write` in an event loop."""
        if self._put(row):
            await _aside(self._lane.wait_for_room)
        if durable:
            await self.aflush()

    def flush(self) -> None:
        """All that was written here before is in a file when this returns (of Parquet: in a finished one).

        OSError when the disk does not take it; the rows are kept.
        """
        self._check_open()
        self._lane.drain()
        self._lane.actor.flush.remote().get()

    async def aflush(self) -> None:
        """`flush` in an event loop."""
        await _aside(self.flush)

    def drain(self) -> None:
        """All that was written here before has left this process when this returns: a `flush` by anybody includes it.

        Raises as `write` does.
        """
        self._check_open()
        self._lane.drain()

    def close(self, complete: bool = True) -> None:
        """Have all that was written, by any worker, in files, and end. Idempotent.

        `complete`: what the manifest says. OSError when the disk does not take it: it is not closed then.
        """
        if self._ended is not None:
            return
        self._lane.drain()
        if self._shared:
            for worker, error in run_on_all(drain_here, self._id, timeout=_DRAIN_S, return_exceptions=True).items():
                _raise_unless_gone(worker, error)
        self._ended = self._lane.actor.close.remote(complete).get()

    async def aclose(self, complete: bool = True) -> None:
        """`close` in an event loop."""
        await _aside(self.close, complete)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close(complete=error is None)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        await self.aclose(complete=error is None)

    # -- looking ------------------------------------------------------------------------------------------------------

    @property
    def closed(self) -> bool:
        """Whether it was closed here."""
        return self._ended is not None

    @property
    def write_count(self) -> int:
        """Rows written, by all, as far as they have come; all that were written here."""
        return int(self.state()["write_count"])

    @property
    def flush_count(self) -> int:
        """How often rows were put into the file."""
        return int(self.state()["flush_count"])

    @property
    def metrics(self) -> dict[str, dict[str, float | int | None]]:
        """{metric: {"count", "mean", "std", "min", "max", "ignored"}} so far, over all rows."""
        return cast("dict[str, dict[str, float | int | None]]", self._counted("metrics"))

    def state(self) -> dict[str, Any]:
        """write_count, flush_count, duplicates, rows (in the directory), buffered, parts, closed. From any thread."""
        if self._ended is not None:
            return dict(self._ended[0])
        self._lane.hand_over()
        return dict(self._lane.actor.state.remote().get())

    def get_aggregated_results(self, metric: str | None = None, n: int = 10, ascending: bool = False) -> dict[str, Any]:
        """{"count", "phases", "ranked_by", "top_performers", "average_metrics", "best_containers"} so far.

        The `n` best rows and containers by `metric`; the first that was written, unless given. At most 100 rows.
        """
        return cast("dict[str, Any]", self._counted("summary", metric, n, ascending))

    @staticmethod
    def read(path: str | Path) -> Iterator[dict[str, Any]]:
        """All rows of a directory of results, in the order of writing; also while it is written, or after a crash.

        Of CSV everything is words, and what was nested stays flat. FileNotFoundError when there are none.
        """
        directory = Path(path)
        manifest = read_manifest(directory)
        if manifest is None:
            raise FileNotFoundError(f"there are no results in {directory}: it has no {MANIFEST} of a sink")
        form = Format(manifest["format"], manifest["compression"])
        return read_rows(directory, form, manifest.get("columns", []))

    def __reduce__(self) -> tuple[Any, ...]:
        self._shared = True
        form = self._format
        said = form.name, form.compression, form.strict
        return _same, (self._id, self.path, self._lane.actor, said, self._key, self._aggregate)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._format.name} in {self.path}{' [closed]' if self.closed else ''}>"

    # -- inside -------------------------------------------------------------------------------------------------------

    def _put(self, row: Mapping[str, Any]) -> bool:
        if self._ended is not None:
            self._check_open()
        if self._by_columns:
            return self._put_whole(row)
        key = None if self._key is None else key_of(row, self._key, self.path)
        return self._lane.put((self._format.encode(row), measures_of(row) if self._aggregate else None, key))

    def _put_whole(self, row: Mapping[str, Any]) -> bool:
        whole = self._format.encode(row)
        counted = None if not self._aggregate else measures_of(row) if self._format.is_odd else COUNTED
        return self._lane.put((whole, counted, None))

    def _check_open(self) -> None:
        if self._ended is not None:
            raise ValueError(f"the sink in {self.path} is closed: nothing more can be written; open another one")

    def _counted(self, method: str, *args: Any) -> object:
        if self._ended is not None:
            return getattr(self._ended[1], method)(*args)
        self._lane.hand_over()
        return self._lane.actor.counted.remote(method, *args).get()


class ResultStreamer(Sink):
    """A sink by the names of a workflow: the directory is `output_dir/workflow_id`.

    `write_result`, `flush` and `close` may be called or awaited: in an event loop they have to be awaited, and never
    block it.
    """

    def __init__(
        self,
        workflow_id: str,
        output_dir: str | Path,
        buffer_size: int = 1000,
        format: FormatName = "jsonl",
        compression: str | None = None,
        **options: Unpack[StreamerOptions],
    ) -> None:
        """See `Sink`. ValueError when the id is no name for a directory."""
        if not workflow_id or workflow_id in (".", "..") or "/" in workflow_id:
            raise ValueError(f"workflow_id={workflow_id!r}: it names a directory, so it is not empty and has no '/'")
        self.workflow_id = workflow_id
        said: SinkOptions = {**options, "workflow_id": workflow_id, "compression": compression}
        super().__init__(Path(output_dir) / workflow_id, format, buffer_size, **said)

    def write_result(self, result: Mapping[str, Any]) -> Awaitable[None]:
        """Write a row; awaited, it waits while too many are on their way. Outside of a loop it does anyway."""
        if not self._put(result):
            return _DONE
        if _in_loop():
            return _aside(self._lane.wait_for_room)
        self._lane.wait_for_room()
        return _DONE

    def flush(self) -> Awaitable[None]:  # type: ignore[override]
        """See `Sink.flush`."""
        if _in_loop():
            return _aside(super().flush)
        super().flush()
        return _DONE

    async def aflush(self) -> None:
        """`flush` in an event loop."""
        await _aside(super().flush)

    def close(self, complete: bool = True) -> Awaitable[None]:  # type: ignore[override]
        """See `Sink.close`."""
        if _in_loop():
            return _aside(super().close, complete)
        super().close(complete)
        return _DONE

    async def aclose(self, complete: bool = True) -> None:
        """`close` in an event loop."""
        await _aside(super().close, complete)

    def __reduce__(self) -> tuple[Any, ...]:
        make, told = super().__reduce__()
        return _same_streamer, (self.workflow_id, *told)


class _Done:
    """Over already: awaited or not, it makes no difference."""

    def __await__(self) -> Generator[Any, None, None]:
        return
        yield


_DONE: Final = _Done()


def _same(*told: Any) -> Sink:
    return _again(Sink.__new__(Sink), *told)


def _same_streamer(workflow_id: str, *told: Any) -> ResultStreamer:
    made = ResultStreamer.__new__(ResultStreamer)
    made.workflow_id = workflow_id
    return cast("ResultStreamer", _again(made, *told))


def _again(
    made: Sink,
    sink: str,
    path: Path,
    actor: ActorHandle[SinkActor],
    form: tuple[str, str | None, bool],
    key: str | tuple[str, ...] | None,
    aggregate: bool,
) -> Sink:
    made.path, made._id, made._format, made._key = path, sink, Format(*form), key
    made._aggregate, made._shared, made._ended = aggregate, True, None
    made._by_columns = made._format.name == "parquet" and key is None
    made._lane = lane_of(sink, actor, made._by_columns)
    return made


def _start(path: Path, terms: Terms, interval: float | None) -> ActorHandle[SinkActor]:
    from zmreg.flows.results.sink_actor import SinkActor  # late: nobody needs it here but to name it

    here = NodeAffinitySchedulingStrategy(get_runtime_context().get_node_id())
    made: ActorClass[SinkActor] = ActorClass(SinkActor, {"num_cpus": 0, "scheduling_strategy": here})
    actor = made.remote(str(path), terms, interval)
    try:
        actor.state.remote().get()
    except ActorDiedError as error:
        cause = error.cause
        if isinstance(cause, (OSError, ValueError, ImportError)):
            raise cause from None
        raise
    return actor


def _check(buffer_size: int, interval: float | None, given: Mapping[str, Any]) -> None:
    check_count(buffer_size, "buffer_size", 1)
    check_seconds(interval, "flush_interval")
    if interval is not None and not interval > 0:
        raise ValueError(f"flush_interval={interval}: seconds above 0 are needed, or None")
    for name in ("part_bytes", "keep_last", "max_age", "max_bytes"):
        check_seconds(given.get(name), name)


def _key(given: Any) -> str | tuple[str, ...] | None:
    """As it is compared and sent: one name, or several. TypeError for what names no field."""
    if given is None or isinstance(given, str):
        return given
    if isinstance(given, list | tuple) and given and all(isinstance(each, str) for each in given):
        return tuple(given)
    raise TypeError(f"key={given!r}: names of fields are needed, as key='task.id' or key=('phase', 'container')")


def _raise_unless_gone(worker: str, error: object) -> None:
    """What keeps a worker from handing in its rows. Who is gone has none any more: its tasks are run again."""
    from zmreg.model.errors import WorkerDiedError

    if isinstance(error, BaseException) and not isinstance(error, WorkerDiedError):
        error.add_note(f"on worker {worker}, which has rows for a sink that is to be closed")
        raise error


def _in_loop() -> bool:
    asyncio = sys.modules.get("asyncio")
    return asyncio is not None and asyncio._get_running_loop() is not None


async def _aside(call: Any, *args: Any) -> None:
    """Run it in a thread: it waits."""
    import asyncio

    await asyncio.to_thread(call, *args)


__all__ = ["ResultStreamer", "Sink", "SinkOptions"]
