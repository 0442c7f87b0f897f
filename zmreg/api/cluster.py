"""init and shutdown; get, put, wait, cancel; what the cluster has."""

from __future__ import annotations

import atexit
import contextlib
import os
import threading
import types
from collections.abc import Iterable, Mapping, Sequence
from operator import methodcaller
from typing import TYPE_CHECKING, Any, TypeVar, overload

from zmreg.api.environments import of_program, prepared, with_post_mortem
from zmreg.api.locations import replicate
from zmreg.api.refs import ObjectRef, interrupted
from zmreg.api.streams import ObjectRefGenerator
from zmreg.model.arguments import check_amounts, check_count, check_seconds
from zmreg.model.errors import ClusterError, ZmregError
from zmreg.model.record import Record
from zmreg.services.seat import client as seats
from zmreg.services.seat.client import Client
from zmreg.services.seat.seats import client, on_first_use

if TYPE_CHECKING:
    from zmreg.model.settings import Settings
    from zmreg.services.setup.embedding import Attached, Embedded

T = TypeVar("T")
W = TypeVar("W", bound=ObjectRef[Any] | ObjectRefGenerator[Any])

__tracebackhide__ = methodcaller("errisinstance", ZmregError)  # as in api/refs.py

_guard = threading.RLock()
_embedded: Embedded | Attached | None = None
_ending = False


class ClusterInfo(Record):
    """What `init` returns: where the cluster is. A context manager that calls `shutdown` at the end."""

    address: str
    """HOST:PORT of a node, for other programs' `init`; "local" for a cluster of one's own, which nobody can join."""
    node_id: str
    session: str
    num_cpus: float
    """Of all nodes together, at the time of `init`."""

    def __enter__(self) -> ClusterInfo:
        return self

    def __exit__(self, *_: object) -> None:
        shutdown()

    def __repr__(self) -> str:
        return f"<Cluster {self.node_id[:8]} [{self.num_cpus:g} cpus]>"

    def _repr_html_(self) -> str:
        from zmreg.api.look import of_cluster  # late: for notebooks alone

        return of_cluster(self)


def init(  # noqa: PLR0913  the public face (design.md 11)
    address: str | None = None,
    *,
    num_cpus: float | None = None,
    num_gpus: float | None = None,
    resources: Mapping[str, float] | None = None,
    locs: Iterable[str] | None = None,
    object_store_bytes: int | None = None,
    namespace: str | None = None,
    log_to_driver: bool = True,
    ignore_reinit_error: bool = False,
    key: str | os.PathLike[str] | None = None,
    runtime_env: Mapping[str, Any] | None = None,
    post_mortem: bool | float | None = None,
    **more: Any,
) -> ClusterInfo:
    """Take a seat in a cluster: the one at `address`, one that runs on this machine, or a new one of one's own.

    `address`: None is what ZMREG_ADDRESS or zmreg.toml say, else a cluster of yours on this machine, else "local", a
    new node as a child of this program; "auto" as None, but an error without a cluster; or HOST:PORT of any node, with
    the cluster's key file `key` if this machine has no node of it. `runtime_env`: what this program's tasks and actors
    run in, {"env_vars": ..., "working_dir": ..., "py_modules": ...}. `post_mortem`: calls that raise are held for
    `zmreg debug`, ten minutes or so many seconds; None is what ZMREG_POST_MORTEM says. Further keywords are fields of
    `Settings`.
    Calling it again with the same arguments gives the same seat; with others it is an error unless
    `ignore_reinit_error`. Raises ClusterError when there is no such cluster or it cannot be reached,
    AuthenticationError for a wrong key, RuntimeError for a second, different init, ValueError for bad values.
    """
    global _embedded
    if _ending:
        raise ClusterError("no cluster can be started any more: the interpreter is ending")
    if resources is not None:
        check_amounts(resources, "resources")
    wanted = {
        "num_cpus": num_cpus, "num_gpus": num_gpus, "resources": resources and dict(resources),
        "locs": tuple(locs or ()) or None, "object_store_bytes": object_store_bytes, "namespace": namespace,
        "log_to_driver": log_to_driver, "address": address, "key": key and os.fspath(key),
        "runtime_env": with_post_mortem(of_program(runtime_env), post_mortem), **more,
    }  # fmt: skip
    _check(wanted)
    with _guard:
        seat = seats.current()
        if seat is not None and seat.pid == os.getpid() and seat.closed is None:
            info = _info(seat)
            if _embedded is None or ignore_reinit_error or not _different(_embedded.wanted, wanted, info):
                return info
            raise RuntimeError(
                f"zmreg.init() was called before, with other arguments: {_different(_embedded.wanted, wanted, info)}; "
                "call zmreg.shutdown() first, or pass ignore_reinit_error=True to keep the running cluster"
            )
        if _embedded is not None and _embedded.client.pid == os.getpid():
            _embedded.close()  # its node is gone: threads and sockets are still there
            _embedded = None
        _embedded = _come(wanted)
        if wanted["runtime_env"]:
            _equip(_embedded, wanted["runtime_env"])
        if log_to_driver:
            from zmreg.services.seat import screen  # late: for drivers

            screen.turn_on(_embedded.client, wanted.get("log_dedup_s"))
        return _info(_embedded.client)


def _come(wanted: Mapping[str, Any]) -> Embedded | Attached:
    """Take a seat where the arguments, the environment and the files say."""
    # Late: subprocess, tempfile, shutil and json are for those who start a node, not for all who import zmreg.
    from zmreg.services.setup import config
    from zmreg.services.setup.embedding import attach, embed
    from zmreg.services.setup.finding import find
    from zmreg.services.setup.sessions import Word

    known = config.values()
    found = find(wanted["address"], wanted["key"], known)
    given = {name: value for name, value in wanted.items() if value is not None and name not in _OF_A_DRIVER}
    if isinstance(found, Word):
        if given:
            raise ValueError(
                f"the cluster at {found.address} runs already, and {', '.join(given)} cannot be changed any more: "
                "leave it out, or pass address='local' for a cluster of your own"
            )
        return attach(found, dict(wanted))
    fields = _fields()
    defaults = {name: value for name, value in known.items() if name in fields}
    forward = wanted["log_to_driver"] and defaults.get("log_to_driver", True)
    if found is not None:  # a node that joins for this program alone offers nothing of this machine unless asked to
        defaults = {"num_cpus": 0.0, "num_gpus": 0.0}
    settings = _settings({**defaults, **given, "log_to_driver": forward})
    return embed(settings, dict(wanted), None if found is None else found.listening())


def _equip(embedded: Embedded | Attached, runtime_env: Mapping[str, Any]) -> None:
    try:
        embedded.client.environment = prepared(embedded.client, runtime_env)
    except BaseException:
        shutdown()
        raise


def _different(old: Mapping[str, Any], new: Mapping[str, Any], running: ClusterInfo) -> str:
    """What a second init wants otherwise, as text. No address is no wish for another cluster."""
    if old["address"] == "in-process":  # zmreg.testing: the program under test may call init as it always does
        return ""
    names = [name for name in {**old, **new} if old.get(name) != new.get(name)]
    if new["address"] in (None, running.address):
        names = [name for name in names if name != "address"]
    return ", ".join(f"{name}={old.get(name)!r} (now {new.get(name)!r})" for name in names)


_OF_A_DRIVER = ("address", "key", "log_to_driver", "log_dedup_s", "runtime_env")
"""Arguments that are for us, and not for a node that starts."""
_RAYS = ("_", "object_store_memory", "include_dashboard", "dashboard_", "logging_", "local_mode", "job_config")
"""How keywords begin that only Ray's `init` takes."""


def _check(wanted: Mapping[str, Any]) -> None:
    from zmreg.model.specs import to_units

    fields = _fields()
    for name, value in wanted.items():
        if name not in fields and name not in _OF_A_DRIVER:
            ray = "zmreg.integrations.ray.init takes Ray's; " if name.startswith(_RAYS) else ""
            known = ", ".join(sorted(fields))
            raise TypeError(f"init() got an unexpected keyword argument {name!r}; {ray}it takes {known}")
        kind = fields.get(name)
        if value is None or kind not in ("int", "float"):
            continue
        if kind == "int":
            check_count(value, name)
        elif name.endswith("_s"):
            check_seconds(value, name)
        elif name.startswith("num_"):
            to_units(name, value)


def _fields() -> dict[str, Any]:
    """{name: its type, as text} of what a node has settings for."""
    from zmreg.model.settings import Settings  # late, as in all that begins here: it takes milliseconds to define

    return {name: field.type for name, field in Settings.__dataclass_fields__.items()}


def _settings(values: Mapping[str, Any]) -> Settings:
    from zmreg.model.settings import Settings
    from zmreg.services.machine import accelerators

    found = {"num_cpus": float(os.cpu_count() or 1), "num_gpus": float(accelerators.count()), **values}
    return Settings(**{**found, "num_cpus": float(found["num_cpus"])})


def _info(seat: Client) -> ClusterInfo:
    from zmreg.services.setup.sessions import read_word

    assert seat.welcome is not None
    word = read_word(seat.session)
    address = word.address if word.attachable else word.contact
    return ClusterInfo(address or "local", seat.node.hex(), str(seat.session), seat.welcome.num_cpus)


def shutdown() -> None:
    """Leave. A cluster that `init` started ends, one that it found goes on.

    Idempotent; decorated functions work again after a new `init`.
    """
    global _embedded
    with _guard:
        embedded, _embedded = _embedded, None
        if embedded is not None and embedded.client.pid == os.getpid():
            embedded.close()
            if seats.current() is embedded.client:
                embedded.client.auto_restart = not _ending


def _at_exit() -> None:
    """A finalizer that runs later must not start a cluster in an interpreter that ends."""
    global _ending
    _ending = True
    shutdown()


def is_initialized() -> bool:
    """Whether this process has a seat in a living cluster."""
    seat = seats.current()
    return seat is not None and seat.closed is None and seat.pid == os.getpid()


on_first_use(init)
atexit.register(_at_exit)


# -- values -----------------------------------------------------------------------------------------------------------


@overload
def get(
    refs: ObjectRef[T], timeout: float | None = None, *, copy: bool = False, return_exceptions: bool = False,
    cancel_on_interrupt: bool = False,
) -> T: ...  # fmt: skip
@overload
def get(
    refs: Sequence[ObjectRef[T]], timeout: float | None = None, *, copy: bool = False, return_exceptions: bool = False,
    cancel_on_interrupt: bool = False,
) -> list[T]: ...  # fmt: skip
def get(
    refs: Any, timeout: float | None = None, *, copy: bool = False, return_exceptions: bool = False,
    cancel_on_interrupt: bool = False,
) -> Any:  # fmt: skip
    """The value of a ref, or the list of values of a sequence of refs, in order; one deadline for all.

    Raises the first failure found, without waiting for the rest; with `return_exceptions` errors stand in the list
    instead. GetTimeoutError after `timeout` seconds (0 polls); TypeError for anything but refs. Ctrl-C ends the wait,
    and what it was for goes on, unless `cancel_on_interrupt`.
    """
    if isinstance(refs, ObjectRef):
        if not return_exceptions:
            return refs.get(timeout, copy, cancel_on_interrupt)
        return get([refs], timeout, copy=copy, return_exceptions=True, cancel_on_interrupt=cancel_on_interrupt)[0]
    if isinstance(refs, ObjectRefGenerator):  # as Ray has it: its items are got one by one
        return refs
    entries = _entries(refs, "get")
    check_seconds(timeout, past=True)
    try:
        if return_exceptions:
            from zmreg.api.gathering import get_each  # late: few ask for errors as values

            return get_each(list(refs), timeout, copy)
        return client().get(entries, timeout, copy)
    except KeyboardInterrupt:
        interrupted(entries, cancel_on_interrupt)
        raise


def _entries(refs: Any, what: str, waits: bool = False) -> list[Any]:
    if isinstance(refs, (str, bytes)) or not isinstance(refs, Sequence):
        kinds = "a list of refs, not one" if waits else "a ref or a sequence of refs, not"
        raise TypeError(f"zmreg.{what} takes {kinds} {type(refs).__name__}")
    for ref in refs:
        if not isinstance(ref, ObjectRef) and not (waits and isinstance(ref, ObjectRefGenerator)):
            raise TypeError(f"zmreg.{what} takes refs, not {type(ref).__name__}: {ref!r:.80}")
    return [ref._entry for ref in refs]


def put(value: T, *, replicas: int = 1) -> ObjectRef[T]:
    """A ref to an immutable snapshot of `value`. TypeError for a ref; SerializationError, ObjectStoreFullError.

    `replicas`: at how many nodes the bytes are when this returns; see `zmreg.replicate`.
    """
    if isinstance(value, ObjectRef):
        raise TypeError("zmreg.put takes a value, not a ref: it is in the cluster already")
    if replicas != 1 or type(replicas) is not int:
        replicas = check_count(replicas, "replicas", 1)
    ref: ObjectRef[T] = ObjectRef(client().put(value))
    if replicas > 1:
        replicate(ref, replicas)
    return ref


def wait(
    refs: Sequence[W], num_returns: int = 1, timeout: float | None = None, fetch_local: bool = True
) -> tuple[list[W], list[W]]:
    """(ready, pending), both in input order; exactly `num_returns` ready unless `timeout` seconds are over first.

    A failed object counts as ready; errors are never raised. An ObjectRefGenerator is ready when `next` would not wait:
    its next item is there, or it has ended. `fetch_local`: ready values that are at another node start
    to come here, without being waited for. TypeError for anything but a sequence of refs; ValueError for repeated refs,
    counts out of range.
    """
    entries = _entries(refs, "wait", waits=True)
    if not entries:
        return [], []
    if len({entry.object_id for entry in entries}) != len(entries):
        raise ValueError("zmreg.wait takes each ref once; the list has repeated ones")
    if not 0 < (num_returns := check_count(num_returns, "num_returns", 1)) <= len(entries):
        raise ValueError(f"num_returns={num_returns} is out of range; there are {len(entries)} refs")
    check_seconds(timeout)
    try:
        order = client().first_settled(entries, num_returns, timeout)
    except KeyboardInterrupt:
        interrupted(entries)
        raise
    chosen = {id(entry) for entry in order[:num_returns]}
    if fetch_local:
        client().fetch_ahead(entry for entry in entries if id(entry) in chosen)
    pairs = list(zip(refs, entries, strict=True))
    return [ref for ref, entry in pairs if id(entry) in chosen], [
        ref for ref, entry in pairs if id(entry) not in chosen
    ]


def cancel(
    ref: ObjectRef[Any] | ObjectRefGenerator[Any],
    force: bool = False,
    recursive: bool = True,
    grace: float | None = None,
) -> None:
    """Cancel the task behind a ref, or a generator; nothing when it is finished.

    Queued: it never runs. Running: KeyboardInterrupt in the task; with `force` its process ends. With `grace` seconds
    the task has half of them to see `zmreg.cancelled()`, then comes KeyboardInterrupt, and at their end its process is
    killed; `TaskCancelledError.ended_by` says which it was. An actor's call that runs is told by `zmreg.cancelled()`
    (an async one is cancelled); `force` and `grace` are a ValueError there.
    `recursive` reaches the tasks it has submitted, with the same grace. TypeError for anything but a ref.
    """
    if not isinstance(ref, (ObjectRef, ObjectRefGenerator)):
        raise TypeError(f"zmreg.cancel takes a ref, not {type(ref).__name__}; use zmreg.kill for an actor")
    ref.cancel(force, recursive, grace)


# -- what there is ----------------------------------------------------------------------------------------------------


def nodes() -> list[dict[str, Any]]:
    """One dict a node: NodeID, Alive, Resources, Locs, ...; this machine's first, those that are gone last (Alive is
    False then, and Reason says why)."""
    from zmreg.api.look import NodeList  # late: html is for notebooks

    return NodeList(client().ask("nodes"))


def cluster_resources() -> dict[str, float]:
    """Everything all living nodes have."""
    total: dict[str, float] = {}
    for node in nodes():
        for name, amount in node["Resources"].items():
            total[name] = total.get(name, 0.0) + amount
    return total


def available_resources() -> dict[str, float]:
    """What is not reserved at this moment; may be old news by the time you read it."""
    available: dict[str, float] = client().ask("available")
    return available


def stats() -> dict[str, Any]:
    """Nested counters: `store`, `leases`, `actors`, `links`, `cache` of the node; `tasks`, `refs` of this process.

    `links`: {node id: objects and bytes of objects that came from there and went there, and of letters}. `cache`:
    `misses` are reads of other nodes' objects for which they were fetched, `hits` those that took no transfer of their
    own; `shared` of these joined one that was under way.
    """
    seat = client()
    answer: dict[str, Any] = seat.ask("stats")
    with seat.lock:
        answer["tasks"] = seat.tasks.statistics()
        answer["refs"] = seat.sharing.statistics()
        answer["errors"] = {"internal": seat.internal_errors, "protocol": seat.protocol_errors}
    return answer


__all__ = ["ClusterInfo", "contextlib", "types"]
