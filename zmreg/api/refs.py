"""ObjectRef: a handle to a value that exists, or will, somewhere in the cluster."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from operator import methodcaller
from typing import TYPE_CHECKING, Any, Generic, NoReturn, TypeVar, cast

from zmreg.model.arguments import check_seconds
from zmreg.model.errors import ZmregError
from zmreg.model.record import Record
from zmreg.services.calling.submit import resubmit
from zmreg.services.seat import arrivals, sites
from zmreg.services.seat.client import EntryRef
from zmreg.services.seat.client import current as current_client
from zmreg.services.seat.entries import FAILED, PENDING, STATE_NAMES, Entry, Stored, error_line
from zmreg.services.seat.seats import client, note_reference
from zmreg.services.seat.ticks import old

if TYPE_CHECKING:
    # At run time in the methods that need them: asyncio alone is a fifth of what `import zmreg` may cost.
    import asyncio
    import concurrent.futures

T = TypeVar("T")
B = TypeVar("B")

# pytest shows the line that asked, and not ours behind it: of errors that are told, and of no others.
__tracebackhide__ = methodcaller("errisinstance", ZmregError)

# As long as a get() waits before it tells (services/seat/client.py).
_BLOCKED_AFTER_S = 0.001


class ObjectMeta(Record):
    """What is known of an object without fetching it. Sizes in bytes, durations in seconds."""

    state: str
    """pending, inline, stored, failed or freed."""
    nbytes: int
    type_name: str
    holders: tuple[str, ...]
    """Node ids (hex) that have the bytes; empty for inline values, which the owner keeps."""
    owner: str
    task_s: float
    """How long the task that made it ran."""
    age_s: float | None
    """Since the call that makes it, or the put, as far as that is known; None for refs of other processes."""


class ObjectRef(EntryRef, Generic[T]):
    """A value by reference: immutable, hashable, equal by id, to be passed, stored and sent like any value.

    Awaitable on any event loop. As a direct argument of `.remote()` it arrives as its value; inside a container it
    stays a ref. Dropping the last handle anywhere frees the value.
    """

    __slots__ = ()

    def __init__(self, entry: Entry) -> None:
        self._entry = entry

    # -- values -----------------------------------------------------------------------------------------------------

    def get(self, timeout: float | None = None, copy: bool = False, cancel_on_interrupt: bool = False) -> T:
        """The value; waits for it, at most `timeout` seconds (0 polls).

        Arrays come as read-only views of shared memory; `copy=True` gives private, writable ones. Ctrl-C ends the wait;
        with `cancel_on_interrupt` it cancels what was waited for, too.
        Raises GetTimeoutError, TaskError (also an instance of the user's class), WorkerDiedError, ObjectLostError, ...
        """
        if timeout is not None:
            check_seconds(timeout, past=True)
        try:
            value: T = client().get_one(self._entry, timeout, copy)
        except KeyboardInterrupt:
            interrupted((self._entry,), cancel_on_interrupt)
            raise
        return value

    def get_into(self, out: B, timeout: float | None = None) -> B:
        """Copy the value, an array or bytes, into `out`: an array of the same shape and dtype, or memory of that size.
        Returns `out`.

        TypeError, ValueError when it does not fit (nothing is written then), and what `get` raises.
        """
        from zmreg.api.into import copy_into  # late: few ask for it

        return copy_into(self.get(timeout), out)

    def result(self, timeout: float | None = None) -> T:
        """`get` under the name that concurrent.futures has for it."""
        return self.get(timeout)

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """The error `get` would raise, or None. Raises GetTimeoutError when it is not known in time."""
        check_seconds(timeout, past=True)
        seat = client()
        try:
            seat.settled(self._entry, timeout)
        except KeyboardInterrupt:
            interrupted((self._entry,))
            raise
        return seat.error_of(self._entry) if self._entry.state >= FAILED else None

    def done(self) -> bool:
        """Whether the value, or its error, is there. Never waits."""
        return client().is_done(self._entry)

    def failed(self) -> bool:
        """Whether it is done, and by an error. Never waits, and does not count as reading the error."""
        return self.done() and self._entry.state >= FAILED

    def retry(self) -> ObjectRef[T]:
        """A new ref: the failed task is submitted once more, and those of its inputs that failed too.

        ValueError when it has not failed, is no task of this process, or was an actor's call.
        """
        return ObjectRef(resubmit(client(), self._entry))

    def cancel(self, force: bool = False, recursive: bool = True, grace: float | None = None) -> None:
        """See `zmreg.cancel`."""
        client().cancel(self._entry, force, recursive, grace)

    def cancelled(self) -> bool:
        """Whether the task was cancelled."""
        from zmreg.model.errors import TaskCancelledError

        return self.done() and isinstance(self.exception(0), TaskCancelledError)

    @property
    def arg(self) -> T:
        """This ref, typed as its value: for type checkers, where a parameter wants a `T` and gets a ref of one."""
        return cast(T, self)

    @property
    def meta(self) -> ObjectMeta:
        """State, size, type, holders and duration; nothing is fetched."""
        entry = self._entry
        client().look_at(entry)
        holders = (entry.value.holder,) if isinstance(entry.value, Stored) else ()
        return ObjectMeta(
            state=STATE_NAMES[entry.state],
            nbytes=entry.nbytes,
            type_name=entry.type_name,
            holders=tuple(node.hex() for node in holders),
            owner=entry.owner.hex(),
            task_s=entry.took_us / 1e6,
            age_s=age_of(entry),
        )

    def __getitem__(self, key: Any) -> ObjectRef[Any]:
        """A ref to `value[key]`, evaluated where the value is: only the field travels."""
        from zmreg.api.functions import project

        return project(self, "item", key)

    def __iter__(self) -> NoReturn:
        # Without it Python would ask for item after item, each of them a ref, and never come to an end.
        raise TypeError(
            f"{self!r} is a ref to one value, and that is not here: iterate over ref.get(); "
            "num_returns=N gives N refs, and a function that yields a ref for each item"
        )

    def attr(self, name: str) -> ObjectRef[Any]:
        """A ref to `value.name`, evaluated where the value is."""
        from zmreg.api.functions import project

        return project(self, "attr", name)

    # -- callbacks and other worlds ---------------------------------------------------------------------------------

    def add_done_callback(self, callback: Callable[[ObjectRef[T]], object]) -> None:
        """Call `callback(ref)` when it is done, on a thread kept for callbacks; at once if it is done already."""
        client().when_done(self._entry, lambda: callback(self))

    def future(self) -> concurrent.futures.Future[T]:
        """A concurrent.futures.Future with the same outcome. Cancelling it does not cancel the task."""
        import concurrent.futures

        future: concurrent.futures.Future[T] = concurrent.futures.Future()
        if client().on_wait is not None:
            from zmreg.api.executor import Patient  # late: a task's wait for it gives its CPU back

            future = Patient()
        future.set_running_or_notify_cancel()

        def copy_outcome() -> None:
            try:
                value = self.get()
            except BaseException as error:  # noqa: BLE001  whatever the task raised is the future's outcome
                future.set_exception(error)
            else:
                future.set_result(value)

        client().when_done(self._entry, copy_outcome)
        return future

    def __await__(self) -> Generator[Any, None, T]:
        return self._awaited().__await__()

    async def _awaited(self) -> T:
        import asyncio

        if self._entry.state == PENDING:
            await notified(lambda wake: client().when_settled(self._entry, wake))
        if isinstance(self._entry.value, Stored):
            return await asyncio.get_running_loop().run_in_executor(None, self.get)
        return self.get()

    # -- identity ---------------------------------------------------------------------------------------------------

    def hex(self) -> str:
        """The 16-byte id as 32 hex characters."""
        return self._entry.object_id.hex()

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ObjectRef):
            return NotImplemented
        return self._entry is other._entry or self._entry.object_id == other._entry.object_id

    def __hash__(self) -> int:
        return hash(self._entry.object_id)

    def __copy__(self) -> ObjectRef[T]:
        return ObjectRef(self._entry)

    def __deepcopy__(self, _memo: object) -> ObjectRef[T]:
        return ObjectRef(self._entry)

    def __reduce__(self) -> tuple[Any, ...]:
        seat = current_client()
        if seat is not None:
            seat.sharing.show(self._entry)
            if not note_reference(self):
                seat.sharing.out_of_band.append(self._entry)
        return _rebuild, (self._entry.object_id,)

    def __repr__(self) -> str:
        entry = self._entry
        error = error_line(entry)
        what = f", {entry.type_name}" if entry.type_name and not error else ""
        size = f", {entry.nbytes} bytes" if entry.nbytes and not error else ""
        text = f": {error}" if error else ""
        age = old(age_of(entry))
        aged = f", {age} old" if age else ""
        return f"<ObjectRef {entry.object_id[-4:].hex()} [{STATE_NAMES[entry.state]}{what}{size}{text}{aged}]>"

    def _repr_html_(self) -> str:
        from zmreg.api.look import card, facts_of  # late: for notebooks alone

        return card(f"ObjectRef {self.hex()}", facts_of(self._entry))


if sites.wanted():
    ObjectRef.__init__ = sites.noting(ObjectRef.__init__)  # type: ignore[method-assign, assignment]


def age_of(entry: Entry) -> float | None:
    """Seconds since its number was given out, if that was here and is known. Waits for nothing, and for no lock."""
    seat = current_client()
    return None if seat is None or entry.owner != seat.me else seat.ticks.age(entry.counter)


def refs_of(refs: object, what: str) -> list[ObjectRef[Any]]:
    """A ref or any number of them, as a list. TypeError for anything else."""
    if isinstance(refs, ObjectRef):
        return [refs]
    found: list[Any] = list(refs) if isinstance(refs, Iterable) and not isinstance(refs, (str, bytes)) else [refs]
    for each in found:
        if not isinstance(each, ObjectRef):
            raise TypeError(f"{what} takes refs, not {type(each).__name__}: {each!r:.80}")
    return found


def interrupted(entries: Iterable[Entry], cancel: bool = False) -> None:
    """A wait for these ends by KeyboardInterrupt, which the caller raises: see api/interrupting.py."""
    from zmreg.api.interrupting import ended  # late: for Ctrl-C alone

    ended(entries, cancel)


async def notified(listen: Callable[[Callable[[], None]], object], timeout: float | None = None) -> None:
    """Wait on the running loop until somebody calls what `listen` was given, from any thread; at most `timeout` s."""
    import asyncio

    loop = asyncio.get_running_loop()
    # One future per awaiter: cancelling one must not poison the ref for others.
    there: asyncio.Future[None] = loop.create_future()

    def wake() -> None:
        if not there.done():
            there.set_result(None)

    listen(lambda: _call_soon(loop, wake))
    on_await = client().on_await
    awaited = there if on_await is None else _blocking(there, on_await)
    if timeout is None:
        await awaited
        return
    try:
        await asyncio.wait_for(awaited, max(0.0, timeout))
    except TimeoutError:
        return


async def _blocking(there: asyncio.Future[None], on_await: Callable[[asyncio.AbstractEventLoop, bool], None]) -> None:
    """Await it in a task: when that takes longer than telling the node does, the task's CPU is free meanwhile."""
    told, loop = False, there.get_loop()

    def tell() -> None:
        nonlocal told
        told = True
        on_await(loop, True)

    timer = loop.call_later(_BLOCKED_AFTER_S, tell)
    try:
        await there
    finally:
        timer.cancel()
        if told:
            on_await(loop, False)


def _call_soon(loop: asyncio.AbstractEventLoop, callback: Callable[[], None]) -> None:
    try:
        loop.call_soon_threadsafe(callback)
    except RuntimeError:  # the loop is closed: nobody awaits any more
        return


def _rebuild(object_id: bytes) -> ObjectRef[Any]:
    entry = client().arrive(object_id)
    arrivals.note(entry)
    return ObjectRef(entry)
