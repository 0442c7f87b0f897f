"""Functions whose calls are remembered: equal code and inputs give the ref that there is, anywhere in the cluster.

Opt-in: `@zmreg.remote(cache=True)`. The function must be one whose result follows from its arguments alone. Each call
asks an actor first, which is a round trip; calls of other functions know nothing of it.
"""

from __future__ import annotations

import inspect
import logging
import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from zmreg.api import options as opts
from zmreg.api.functions import RemoteFunction
from zmreg.api.refs import ObjectRef
from zmreg.model.errors import ClusterError
from zmreg.services.calling.memo import key_of

if TYPE_CHECKING:
    from zmreg.api.actors import ActorHandle

log = logging.getLogger("zmreg.cache")

_NAME: Final = "memo"
_NAMESPACE: Final = "zmreg"
# Results that are kept alive for nobody but callers to come.
MOST_RESULTS: Final = 10_000
MOST_BYTES: Final = 1 << 30
_guard = threading.Lock()
_handles: dict[str, ActorHandle[Any]] = {}
_making: dict[tuple[str, bytes], ObjectRef[Any]] = {}
"""By seat, of which a process may have several, and key: results of this process that the actor does not know yet."""


class Memo:
    """{key: ref}; the least recently asked for go first."""

    def __init__(self) -> None:
        self._refs: OrderedDict[bytes, tuple[ObjectRef[Any], int]] = OrderedDict()
        self._bytes = 0

    def find(self, key: bytes) -> list[ObjectRef[Any]]:
        """The ref, in a list; an empty one when there is none."""
        found = self._refs.get(key)
        if found is None:
            return []
        self._refs.move_to_end(key)
        return [found[0]]

    def keep(self, key: bytes, ref: list[ObjectRef[Any]], nbytes: int) -> None:
        """This is its result from now on."""
        self.forget(key)
        if nbytes > MOST_BYTES:
            return
        self._refs[key] = (ref[0], nbytes)
        self._bytes += nbytes
        while len(self._refs) > MOST_RESULTS or self._bytes > MOST_BYTES:
            _, (_, gone) = self._refs.popitem(last=False)
            self._bytes -= gone

    def forget(self, key: bytes) -> None:
        """There is no result of that, or it is no good."""
        found = self._refs.pop(key, None)
        if found is not None:
            self._bytes -= found[1]


class CachedFunction(RemoteFunction[..., Any]):
    """A remote function whose results are remembered."""

    def remote(self, /, *args: Any, **kwargs: Any) -> Any:
        """A ref at once, as of `RemoteFunction`: to the result of an equal call, when there is one."""
        self._signature.check(args, kwargs)
        key = key_of(self._function, args, kwargs)
        return remembered(key, lambda: RemoteFunction.remote(self, *args, **kwargs))

    def options(self, **options: Any) -> RemoteFunction[..., Any]:
        """The same function with other options; `cache=False` makes it a plain one."""
        remembers = options.pop("cache", True)
        plain = RemoteFunction.options(self, **options)
        if not remembers:
            return plain
        opts.check_cached(plain._options)
        return CachedFunction(self._function, plain._options, self._body)

    def __reduce__(self) -> tuple[Any, ...]:
        return cached, RemoteFunction.__reduce__(self)[1]

    def __repr__(self) -> str:
        return f"<CachedFunction {self._name}>"


def cached(function: Callable[..., Any], options: dict[str, Any]) -> CachedFunction:
    """Raises ValueError for a function that gives several values."""
    opts.check_cached(options)
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise ValueError(f"cache=True is for functions with one value, and {function.__name__} is a generator")
    return CachedFunction(function, options)


def remembered(key: bytes, make: Callable[[], ObjectRef[Any]]) -> ObjectRef[Any]:
    """The ref that is known under `key`; else what `make` gives, which is known to this process from now on, and to
    all once it is there.

    An error is no result: it is forgotten, and the next call runs. Two processes that ask at the same time both run.
    """
    from zmreg.api.watching import process_id

    memo, own = _memo(), (process_id(), key)
    with _guard:
        mine = _making.get(own)
    if mine is not None and not mine.failed():
        return mine
    found: list[ObjectRef[Any]] = memo.find.remote(key).get()
    if found and not found[0].failed():
        return found[0]
    ref = make()
    with _guard:
        _making[own] = ref

    def forget(_: object) -> None:
        with _guard:
            if _making.get(own) is ref:
                del _making[own]

    def note(done: ObjectRef[Any]) -> None:
        try:
            if not done.failed():
                memo.keep.remote(key, [done], done.meta.nbytes).add_done_callback(forget)
                return
        except ClusterError:  # it has ended meanwhile, and what it knew with it
            log.debug("a result is not remembered: the cluster has ended")
        forget(done)

    ref.add_done_callback(note)
    return ref


def _memo() -> ActorHandle[Any]:
    from zmreg.api.actors import ActorClass
    from zmreg.api.strategies import NodeAffinitySchedulingStrategy
    from zmreg.api.watching import head_node, process_id

    seat = process_id()
    with _guard:
        handle = _handles.get(seat)
        if handle is None:
            head = head_node()
            place = NodeAffinitySchedulingStrategy(head, soft=True) if head else None
            options = {
                "name": _NAME, "namespace": _NAMESPACE, "get_if_exists": True, "lifetime": "detached", "num_cpus": 0,
                "max_restarts": -1, "scheduling_strategy": place,
            }  # fmt: skip
            made: ActorClass[Any] = ActorClass(Memo, options)
            _handles.clear()
            _making.clear()
            handle = _handles[seat] = made.remote()
    return handle
