"""From a user's call to a task: arguments are looked at, packed and handed to the task book.

The path of `f.remote(1, 2)`: no ref among the arguments, small and plain: one pickle, one entry, one task, one row.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from zmreg.model.ids import short
from zmreg.services.calling.calls import Dep, Task, Template
from zmreg.services.calling.peers import Peer
from zmreg.services.calling.retreat import interrupted
from zmreg.services.calling.streaming import STREAMING, new_stream
from zmreg.services.calling.tasks import Tasks
from zmreg.services.seat.client import Client
from zmreg.services.seat.entries import FAILED, INLINE, Entry, EntryRef, Plain
from zmreg.services.seat.once import UNCHANGING
from zmreg.services.seat.running import running
from zmreg.wire import payload
from zmreg.wire.packed import Packed

NOTHING = b"\x80\x05)."
"""An empty tuple, pickled."""

WHOLE_ARGUMENTS = -1
"""Position of the dependency that stands for all arguments at once."""


def define(client: Client, obj: object) -> tuple[bytes, bytes, tuple[Entry, ...]]:
    """(digest, blob, captured entries) of a function or class. Raises SerializationError."""
    refs: list[Any] = []
    digest, blob = payload.pack_definition(obj, refs)
    entries = tuple(ref._entry for ref in refs)
    client.sharing.captured += len(entries)
    return digest, blob, entries


def pack_arguments(
    client: Client, args: tuple[Any, ...], kwargs: Mapping[str, Any], what: str
) -> tuple[bytes, list[Dep] | None, list[Entry] | None]:
    """(payload, dependencies, pins) of a call's arguments.

    A ref that is itself an argument becomes a dependency and arrives as its value; refs inside containers stay refs
    and are pinned until the call is over. Arguments over the inline limit go to the store as one object, but large
    bytes and strs each as one of its own, which later calls share (services/seat/once.py).
    """
    if not args and not kwargs:
        return NOTHING, None, None
    if kwargs and any(map(client.once.takes, kwargs.values())):
        args, kwargs = client.once.stand_in(client, args, kwargs)
    deps: list[Dep] | None = None
    for position, arg in enumerate(args):
        if isinstance(arg, EntryRef):
            deps = deps or []
            deps.append((position, arg._entry))
        elif type(arg) in UNCHANGING and client.once.takes(arg):
            return pack_arguments(client, *client.once.stand_in(client, args, kwargs), what)
    if deps is not None:
        args = tuple(None if isinstance(arg, EntryRef) else arg for arg in args)
    if kwargs and any(isinstance(value, EntryRef) for value in kwargs.values()):
        deps = deps or []
        deps += [(name, value._entry) for name, value in kwargs.items() if isinstance(value, EntryRef)]
        kwargs = {name: None if isinstance(value, EntryRef) else value for name, value in kwargs.items()}
    refs: list[Any] = []
    packed = payload.pack([args, kwargs] if kwargs else args, refs, what=what)
    pins = [ref._entry for ref in refs] if refs else None
    if type(packed) is bytes:
        return packed, deps, pins
    return _large(client, packed, deps, pins)


def _large(
    client: Client, packed: bytes | Packed, deps: list[Dep] | None, pins: list[Entry] | None
) -> tuple[bytes, list[Dep] | None, list[Entry] | None]:
    entry = Plain(client.me, client.tasks.take_numbers(1))
    client.fill(entry, packed)
    if entry.state == INLINE:
        assert isinstance(entry.value, bytes)
        return entry.value, deps, pins
    return b"", [(WHOLE_ARGUMENTS, entry), *(deps or [])], pins


def submit_task(client: Client, template: Template, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Task:
    """Submit a call of a remote function. Raises SerializationError, ObjectStoreFullError, ClusterError."""
    data, deps, pins = pack_arguments(client, args, kwargs, template.name)
    tasks = client.tasks
    with client.lock:
        if client.closed is not None or client.forked:
            client.check()
        first = tasks.next_number
        try:
            task = new_task(client, tasks, template, data)
            pool = template.pool
            if pool is None:
                pool = template.pool = tasks.pool_for(template.shape)
            task.peer = pool
            if deps is None and pins is None:
                pool.place(task)
            else:
                task.deps, task.pins = deps, pins
                tasks.start(task)
            tasks.submitted += 1
        except BaseException:
            interrupted(client, first)
            raise
        burst = tasks.submitted & 31 == 0
    if burst:
        client.past.mark(first + 1, client.pump.drain_now())
    return task


def new_task(client: Client, tasks: Tasks, template: Template, data: bytes) -> Task:
    """A task with its result entries. Under the lock."""
    nreturns = template.nreturns
    counter = tasks.next_number
    if nreturns == 1:
        task = Task(counter, template, data, client.depth)
        tasks.next_number = counter + 1
        entry = Entry(client.me, counter)
        entry.task = task
        task.entries = (entry,)
    elif nreturns == STREAMING:
        task = new_stream(client, template, data)
        counter = task.counter
    else:
        task = Task(counter, template, data, client.depth)
        tasks.next_number = counter + max(1, nreturns)
        entries = tuple(Entry(client.me, counter + i) for i in range(nreturns))
        for entry in entries:
            entry.task = task
        task.entries = entries
    if client.on_wait is not None:  # a worker: which of its calls submits is known by thread and coroutine
        call = running.get()
        task.parent = parent = call[0] if call is not None else client.parent
        if parent is not client.ancestry.latest:
            client.ancestry.note(counter, parent)
    tasks.live[counter] = task
    return task


def resubmit(client: Client, entry: Entry) -> Entry:
    """Submit the task behind a failed own entry once more; inputs that failed by a task of ours are made anew too.

    Raises ValueError when there is no such task: the entry has not failed, or was put, borrowed, or an actor's call.
    """
    with client.shield(), client.lock:
        client.check()
        if not may_resubmit(entry):
            raise ValueError(
                f"object {short(entry.object_id)} cannot be retried: only the process that submitted a task can, "
                "once it has failed; an actor's call is made anew with .remote()"
            )
        made: dict[int, Task] = {}
        stack = [entry]
        while stack:  # not by recursion: chains are longer than the stack is deep
            old = stack[-1].task
            assert old is not None
            missing = [each for each in old.inputs() if may_resubmit(each) and each.task.counter not in made]  # type: ignore[union-attr]
            stack += missing
            if not missing:
                stack.pop()
                if old.counter not in made:
                    made[old.counter] = _once_more(client, old, made)
        return _part_of(made, entry)


def may_resubmit(entry: Entry) -> bool:
    """A failed entry keeps its task (Task.description)."""
    return entry.state == FAILED and entry.task is not None


def _part_of(made: Mapping[int, Task], entry: Entry) -> Entry:
    """The new task's entry in the place that `entry` had in the old one."""
    assert entry.task is not None
    return made[entry.task.counter].entries[entry.counter - entry.task.counter]


def _once_more(client: Client, old: Task, made: Mapping[int, Task]) -> Task:
    tasks = client.tasks
    task = new_task(client, tasks, old.template, old.payload)
    task.peer, task.pins = old.peer, old.pins
    if old.deps is not None:
        task.deps = [(where, _part_of(made, each) if may_resubmit(each) else each) for where, each in old.deps]
    tasks.submitted += 1
    tasks.start(task)
    return task


def submit_actor_call(
    client: Client, template: Template, peer_key: tuple[bytes, str, bool], lifeline: Entry, args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
) -> Task:  # fmt: skip
    """Submit a method call. `peer_key` = (actor id, class name, ordered). The lifeline is held until the call ends."""
    peer = client.tasks.peers.get(peer_key[0])
    if peer is None:
        with client.lock:
            peer = client.tasks.peer_for(*peer_key)
    return submit_to(client, template, peer, lifeline, args, kwargs)


def submit_to(
    client: Client, template: Template, peer: Peer, lifeline: Entry | None, args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
) -> Task:  # fmt: skip
    """Submit a call to one process. Raises as `submit_task`."""
    data, deps, pins = pack_arguments(client, args, kwargs, template.name)
    tasks = client.tasks
    with client.lock:
        if client.closed is not None or client.forked:
            client.check()
        first = tasks.next_number
        try:
            task = new_task(client, tasks, template, data)
            task.deps = deps
            task.pins = pins if lifeline is None else [lifeline] if pins is None else [lifeline, *pins]
            task.peer = peer
            if deps is None:
                peer.place(task)
            else:
                tasks.start(task)
            tasks.submitted += 1
        except BaseException:
            interrupted(client, first)
            raise
        burst = tasks.submitted & 31 == 0
    if burst:
        client.past.mark(first + 1, client.pump.drain_now())
    return task


__all__ = ["define", "submit_actor_call", "submit_task", "submit_to"]
