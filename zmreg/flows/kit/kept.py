"""Going away and coming back: results under names that stay when the program that wanted them has ended."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from zmreg.api.actors import ActorClass, ActorHandle
from zmreg.api.cluster import nodes
from zmreg.api.functions import RemoteFunction
from zmreg.api.refs import ObjectRef
from zmreg.api.strategies import NodeAffinitySchedulingStrategy
from zmreg.api.watching import head_node, process_id
from zmreg.flows.kit.system import MOST_WAITING, NAMESPACE, Way
from zmreg.model.arguments import check_count, check_name, check_seconds
from zmreg.model.errors import ActorDiedError, ClusterError, ObjectLostError

if TYPE_CHECKING:
    from zmreg.flows.kit.keeper_actor import Keeper

WEEK_S: Final = 7 * 24 * 3600.0


def _find() -> ActorHandle[Keeper]:
    from zmreg.flows.kit.keeper_actor import find_keeper  # late: it brings asyncio

    return find_keeper()


def _make_host() -> ActorHandle[Any]:
    from zmreg.flows.kit.keeper_actor import Host  # late, as above

    head = head_node()
    options = {
        "name": f"host {process_id()}", "namespace": NAMESPACE, "get_if_exists": True, "lifetime": "detached",
        "num_cpus": 0, "max_concurrency": MOST_WAITING,
        "scheduling_strategy": NodeAffinitySchedulingStrategy(head, soft=True) if head else None,
    }  # fmt: skip
    made: ActorClass[Any] = ActorClass(Host, options)
    return made.remote()


_way = Way(_find)
_host = Way(_make_host)


class KeptResult:
    """A result under its name. May be made from the name alone, in any program of the cluster."""

    def __init__(self, name: str) -> None:
        if not isinstance(name, str) or not name:
            raise ValueError(f"a result has a name, a string that is not empty, and not {name!r}")
        self.name = name

    def get(self, timeout: float | None = None) -> Any:
        """The value, as soon as it is there, or the error that the call has raised; it stays until it is forgotten.

        KeyError when there is none of that name, ObjectLostError when its keeper has died; GetTimeoutError.
        """
        check_seconds(timeout, past=True)
        return self.ref().get(timeout)

    def ref(self) -> ObjectRef[Any]:
        """A ref to it, also while the call runs. KeyError and ObjectLostError as above."""
        refs = self._ask("refs")
        if not refs:
            raise KeyError(f"there is no result {self.name!r} any more")
        found: ObjectRef[Any] = refs[0]
        return found

    def done(self) -> bool:
        """Whether it is there, or has failed. KeyError and ObjectLostError as above."""
        return bool(self._ask("state") != "running")

    def retry(self) -> None:
        """Call it once more, after it has failed. ValueError when it has not."""
        self._ask("retry")

    def cancel(self) -> None:
        """Cancel the call: TaskCancelledError is its result then."""
        self._ask("cancel")

    def forget(self) -> None:
        """Keep it no more; a call under way is cancelled. KeyError when there is none of that name."""
        forget_result(self.name)

    def _host(self) -> ActorHandle[Any]:
        handle, why, lost = _way.ask("find", self.name)
        if handle is not None:
            found: ActorHandle[Any] = handle
            return found
        if lost:
            raise ObjectLostError(f"the result {self.name!r} is lost: {why}")
        known = ", ".join(row["name"] for row in list_results()[:20]) or "none at all"
        reason = f"there is none any more: {why}" if why else f"there is none; there are: {known}"
        raise KeyError(f"result {self.name!r}: {reason}")

    def _ask(self, method: str) -> Any:
        try:
            return getattr(self._host(), method).remote(self.name).get()
        except ActorDiedError as error:
            text = f"the result {self.name!r} is lost: the process that kept it has died, or its machine"
            raise ObjectLostError(text) from error

    def __reduce__(self) -> tuple[Any, ...]:
        return KeptResult, (self.name,)

    def __repr__(self) -> str:
        return f"<KeptResult {self.name}>"


def submit_detached(
    function: Callable[..., Any] | RemoteFunction[..., Any],
    /,
    *args: Any,
    name: str,
    ttl: float = WEEK_S,
    replace: bool = False,
    **kwargs: Any,
) -> KeptResult:
    """Call a function, remote or plain, so that neither call nor result ends with this program.

    Another program of the cluster, later, has it by `zmreg.get_result(name)`. Refs directly among the arguments are
    waited for, and their values copied, as this program may be gone; refs inside of arguments are not. The result is
    kept for `ttl` seconds once it is there, or until it is forgotten, or until younger ones need the room (see
    `limit_results`). It is lost when the process that keeps it dies, which is on the head's machine, or as any value
    when the nodes that have it do. ClusterError in a cluster of this program's own, which ends with it; ValueError
    when the name is taken, unless `replace`.
    """
    return _submit(function, (*args, *kwargs.values()), tuple(kwargs), name, ttl, replace)


def keep(value: Any, name: str, *, ttl: float = WEEK_S, replace: bool = False) -> KeptResult:
    """Keep a value, or what a ref stands for, as `submit_detached` keeps results. A ref is waited for: until this
    returns it is this program's alone. Raises its error, if it has one."""
    return _submit(None, (value,), (), name, ttl, replace)


def get_result(name: str, timeout: float | None = None) -> Any:
    """The value of a kept result: see `KeptResult.get`."""
    return KeptResult(name).get(timeout)


def list_results() -> list[dict[str, Any]]:
    """All kept results by name: `state` (running, done, failed), `function`, `nbytes`, `age_s`, `ttl_s`. What the last
    two seconds have brought may be missing."""
    found: list[dict[str, Any]] = _way.ask("rows")
    return found


def forget_result(name: str) -> None:
    """Keep it no more; a call under way is cancelled. KeyError when there is none of that name."""
    check_name(name)
    if not _way.ask("forget", name):
        raise KeyError(f"there is no result {name!r} to forget; zmreg.list_results() has those that there are")


def limit_results(max_bytes: int) -> None:
    """How many bytes of results the cluster keeps: when there are more, the oldest go. By default a quarter of all
    stores. The youngest stays, were it larger alone. ValueError below 1."""
    _way.ask("limit", check_count(max_bytes, "max_bytes", 1))


def _submit(
    function: Any, values: tuple[Any, ...], named: tuple[str, ...], name: str, ttl: float, replace: bool
) -> KeptResult:
    kept = KeptResult(name)
    check_seconds(ttl, "ttl", needed=True)
    if function is not None and not callable(getattr(function, "_function", function)):
        raise TypeError(f"function={function!r:.80}: zmreg.submit_detached calls it, so give a function")
    if not ttl > 0:
        raise ValueError(f"ttl={ttl}: a number of seconds above 0 is needed")
    if not any(row["Address"] for row in nodes()):
        raise ClusterError(
            "this cluster ends with this program, and all results with it: start one by `zmreg start --head` before"
        )
    request = os.urandom(8).hex()
    refused = _host.ask("submit", name, request, ttl, replace, function, named, *values)
    if refused:
        raise ValueError(f"there is a result {name!r} ({refused}); replace=True puts this one in its place")
    return kept
