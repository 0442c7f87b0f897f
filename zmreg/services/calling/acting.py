"""Creating, finding and ending actors, as a client."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from zmreg.model.errors import ActorExistsError, StaleRefError, StateError
from zmreg.model.messages import ActorInputs, CreateActor, KillActor
from zmreg.model.record import Record
from zmreg.model.specs import Shape
from zmreg.services.calling.calls import Dep
from zmreg.services.calling.submit import define, pack_arguments
from zmreg.services.seat.client import Client, is_former
from zmreg.services.seat.entries import INLINE, PENDING, Entry, Lifeline, Stored
from zmreg.wire import batches, payload
from zmreg.wire.packed import Packed

# A message carries 128 MiB; the rest is for the class and what is inline anyway. What is larger stays in the store, and
# is lost with its owner.
MAX_COPIES_BYTES = 64 << 20


class ActorOrder(Record):
    """An actor as ordered by a user. `facts` go into handles that others get by name."""

    name: str
    namespace: str
    class_name: str
    place: Shape
    hold: Shape
    max_restarts: int
    detached: bool
    max_concurrency: int
    ordered: bool
    facts: tuple[dict[str, dict[str, Any]], int, int, tuple[str, ...]]


def create_actor(
    client: Client, cls: object, order: ActorOrder, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> Entry:
    """Order an actor from the head. Returns the lifeline its handles hold; the constructor runs later.

    Inputs of the constructor stay pinned as long as the actor may be restarted.
    Raises ActorExistsError when the name is taken (asked from the head, which decides).
    """
    _, blob, captured = define(client, cls)
    data, deps, pins = pack_arguments(client, args, kwargs, f"{order.class_name}.__init__")
    lifeline = Lifeline(client.me, client.tasks.take_numbers(1), client.ended_actors)
    actor_id = lifeline.object_id
    waiting = [entry for _, entry in deps or () if entry.state == PENDING]
    lifeline.contained = (*captured, *(pins or ()), *(entry for _, entry in deps or ()))
    handle = _inline(payload.pack((actor_id, order.class_name, order.ordered, *order.facts), [], what="a handle"))

    copies = _copies(client, deps) if order.detached else {}

    def inputs() -> bytes:
        rows = [_input_row(where, entry, copies) for where, entry in deps or ()]
        return batches.pack_deps(rows) if rows else b""

    with client.shield(), client.lock:
        client.check()
        client.questions.require_head()
        client.sharing.show(lifeline)
        for _, entry in deps or ():  # whoever constructs the actor may have to ask for one that is lost
            client.sharing.show(entry)
        if order.detached:
            client.detached.append(lifeline)
        client.tell_node(
            CreateActor(
                actor_id, order.name, order.namespace, order.class_name, order.place.resources, order.hold.resources,
                order.place.locs, order.max_restarts, order.detached, order.max_concurrency, blob, data,
                b"" if waiting else inputs(), handle, bool(waiting), order.place.strategy, order.place.terms,
            )
        )  # fmt: skip
        if waiting:
            _send_when_there(client, waiting, lambda: client.tell_node(ActorInputs(actor_id, inputs())))
    if order.name or order.detached:
        refusal = client.questions.refusal(actor_id)
        if refusal is not None and refusal.kind:
            raise StateError(f"{order.class_name} {order.name!r} was not created: {refusal.reason}")
        if refusal is not None:
            raise ActorExistsError(f"{refusal.reason}. Namespace: {order.namespace!r}; zmreg.get_actor finds it.")
    return lifeline


def _inline(packed: bytes | Packed) -> bytes:
    return packed if isinstance(packed, bytes) else packed.inline()


def _send_when_there(client: Client, waiting: list[Entry], send: Any) -> None:
    left = {id(entry) for entry in waiting}

    def there(entry: Entry) -> None:
        left.discard(id(entry))
        if not left:
            send()

    for entry in waiting:
        entry.listen(there)
        client.sharing.want(entry)


def _copies(client: Client, deps: list[Dep] | None) -> dict[int, bytes]:
    """By entry: stored inputs of a detached actor as bytes. They go to the head, for restarts after we are gone."""
    copies = {}
    left = MAX_COPIES_BYTES
    for _, entry in deps or ():
        value = entry.value
        if isinstance(value, Stored) and value.nbytes <= left:
            left -= value.nbytes
            with client.shield():
                view = client.shelf.view(client.shelf.ask(value.object_id, value.nbytes, value.holder))
                copies[id(entry)] = bytes(view)
    return copies


def _input_row(where: int | str, entry: Entry, copies: Mapping[int, bytes]) -> batches.Row:
    value = entry.value
    copy = copies.get(id(entry))
    if copy is not None:
        return [where, batches.INLINE, copy, 0]
    if isinstance(value, Stored):
        return [where, batches.STORED, value.object_id, value.nbytes, value.holder]
    if entry.state == INLINE:
        return [where, batches.INLINE, value, 0]
    if entry.state == PENDING:  # it was there, and is just made again: the worker asks for it, and waits
        return [where, batches.STORED, entry.object_id, 0, b""]
    failure = entry.failure or payload.pack_failure(client_lost(entry))
    return [where, batches.FAILED_INPUT, failure, 0]


def client_lost(entry: Entry) -> Exception:
    """The error of an input that was freed."""
    from zmreg.model.errors import ObjectLostError

    return ObjectLostError("an input of the constructor was freed", object_id=entry.object_id.hex())


def find_actor(client: Client, name: str, namespace: str) -> Any:
    """What a handle needs (a tuple) of the named actor, or None."""
    found = client.ask("actor", f"{namespace}\0{name}")
    return None if found is None else payload.unpack(found["handle"])


def kill_actor(client: Client, actor_id: bytes, no_restart: bool) -> None:
    """Ask the head to end an actor; returns when it has been told, so that its name is free.

    Raises StaleRefError for an actor of an earlier session of this process.
    """
    if is_former(actor_id[:8]):
        raise StaleRefError(
            f"actor {actor_id.hex()[-8:]} belongs to a session that is over, and ended with it; make a new one"
        )
    with client.shield(), client.lock:
        client.check()
        client.flush()
        client.tell_node(KillActor(actor_id, no_restart))
    client.ask("actor", "\0")
