"""Many calls of one actor's method in one message: `h.m.batch([(1,), (2,)])`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final

from zmreg.api.refs import ObjectRef
from zmreg.services.calling.batching import BATCH, Arguments, flat
from zmreg.services.calling.submit import submit_actor_call
from zmreg.services.seat.entries import Entry
from zmreg.services.seat.seats import client
from zmreg.services.worker.concurrency import MARK

if TYPE_CHECKING:
    from zmreg.api.actors import ActorHandle

# By one message. An inline result has 64 KiB at most, so all of them 8 MiB; what a message costs is below a hundredth
# of what this many calls cost.
AT_ONCE: Final = 128


class Delayed:
    """A call of a method that is yet to be made, by `batch`."""

    __slots__ = ("args", "kwargs", "name")

    def __init__(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.name = name
        self.args = args
        self.kwargs = kwargs

    def __repr__(self) -> str:
        return f"<Delayed {self.name}>"


def submit(
    handle: ActorHandle[Any], name: str, options: dict[str, Any], calls: Iterable[tuple[Any, ...] | Delayed]
) -> list[ObjectRef[Any]]:
    """See `ActorMethod.batch`."""
    if options.get("release") or options.get("num_returns") not in (None, 1):
        raise ValueError(f"{name} has {'release' if options.get('release') else 'num_returns'}: call it one by one")
    arguments = [_arguments(name, call) for call in calls]
    signature = handle._signatures.get(name)
    if signature is not None:
        for args, kwargs in arguments:
            signature.check(args, kwargs)
    refs: list[ObjectRef[Any]] = []
    for start in range(0, len(arguments), AT_ONCE):
        part = arguments[start : start + AT_ONCE]
        if len(part) == 1:
            refs.append(handle._call(name, options, *part[0]))
        else:
            refs += _submit_part(handle, name, options, part)
    return refs


def _arguments(name: str, call: object) -> Arguments:
    if type(call) is tuple:
        return call, {}
    if not isinstance(call, Delayed):
        raise TypeError(f"{name}.batch takes tuples of arguments, or {name}.delay(...) for each call; not {call!r:.80}")
    if call.name != name:
        raise TypeError(f"{name}.batch was given a call of {call.name}")
    return call.args, call.kwargs


def _submit_part(
    handle: ActorHandle[Any], name: str, options: dict[str, Any], part: list[Arguments]
) -> list[ObjectRef[Any]]:
    seat = client()
    if handle._facts[5] > 0:
        handle._check_backlog(seat)
    template = handle._template(name, {**options})
    target, marked, group = str(template.target).partition(MARK)
    template.target = target + BATCH + marked + group
    template.nreturns = len(part)
    template.retry_exceptions = False  # one that fails is not tried again with its neighbours
    lifeline = handle._lifeline._entry if handle._lifeline is not None else Entry(b"", 0)
    task = submit_actor_call(seat, template, handle._facts[:3], lifeline, flat(part), {})
    return [ObjectRef(entry) for entry in task.entries]


def check_override(options: Mapping[str, Any]) -> None:
    """ValueError for what only the class can say of a method."""
    for name in ("release", "batch"):
        if name in options:
            raise ValueError(f"{name} belongs to the method: @zmreg.method({name}=...), not options(...)")
