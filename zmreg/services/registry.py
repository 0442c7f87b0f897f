"""The replicated registry at one node: it publishes what its store holds, and knows what the stores of others do."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import assert_never

from zmreg.core.index import SCOPES, Admit, LocationIndex, everything, location
from zmreg.core.publishing import Publisher
from zmreg.core.replica_effects import Learned, Publish, PublisherEffect, Replaced, ReplicaEffect, SendTo
from zmreg.core.replicas import Replica
from zmreg.model.messages import AskReplay, AskSnapshot, Beacon, Delta, Message, SnapshotPart
from zmreg.model.replica_messages import ReplicaTable

ReplicaMessage = Delta | Beacon | AskReplay | AskSnapshot | SnapshotPart


class Registry:
    """The locations table. `learned(object_id, node)` is called for each new location that somebody may wait for."""

    def __init__(
        self,
        me: bytes,
        publish: Callable[[Message], None],
        send: Callable[[bytes, Message], object],
        learned: Callable[[bytes, bytes], None],
        scope: str,
    ) -> None:
        self._moved: set[bytes] = set()
        """Objects that a node left with us: their owners look elsewhere, so they are told whatever the scope."""
        self._publish = publish
        self._send = send
        self._learned = learned
        self.index = LocationIndex()
        self.publisher = Publisher(me, ReplicaTable.LOCATIONS, self.index, admit=self._admits(SCOPES[scope]))
        self.replica = Replica(me, ReplicaTable.LOCATIONS, self.index)

    # -- our own part -----------------------------------------------------------------------------------------------

    def holds(self, object_id: bytes, nbytes: int, primary: bool) -> None:
        """Our store has it whole."""
        self._perform(self.publisher.add(object_id, location(nbytes, primary)))

    def holds_no_more(self, object_id: bytes) -> None:
        """It has left our store."""
        self._perform(self.publisher.delete(object_id))
        self._moved.discard(object_id)

    def note_moved(self, object_id: bytes) -> None:
        """A node that leaves has us keep it, from now on."""
        if self._scoped and object_id not in self._moved:
            self._perform(self.publisher.delete(object_id))
            self._moved.add(object_id)

    def _admits(self, admit: Admit) -> Admit:
        self._scoped = admit is not everything
        return (lambda key, value: key in self._moved or admit(key, value)) if self._scoped else everything

    # -- everybody's ------------------------------------------------------------------------------------------------

    def holders(self, object_id: bytes) -> list[tuple[bytes, int, bool]]:
        """(node, size, primary) of each copy known here."""
        return self.index.holders(object_id)

    def by_holder(self, object_ids: Iterable[bytes]) -> dict[bytes, list[bytes]]:
        """Which of these objects each node has."""
        found: dict[bytes, list[bytes]] = {}
        for object_id in object_ids:
            for holder, _, _ in self.holders(object_id):
                found.setdefault(holder, []).append(object_id)
        return found

    def on_message(self, sender: bytes, message: ReplicaMessage, now: float) -> None:
        """A word about the table, published or said to us alone."""
        if isinstance(message, AskReplay | AskSnapshot):
            self._perform(self.publisher.on_message(sender, message, now))
        else:
            self._perform(self.replica.on_message(sender, message, now))

    def forget(self, node: bytes) -> None:
        """That node is gone, and what it held with it."""
        self.replica.forget(node)

    def tick(self, now: float) -> float:
        """Publish what is due, ask again for what did not come. When to call again."""
        self._perform(self.publisher.tick(now))
        self._perform(self.replica.tick(now))
        due = self.replica.due(now)
        return min(self.publisher.due(), due) if due is not None else self.publisher.due()

    def _perform(self, effects: Iterable[PublisherEffect | ReplicaEffect]) -> None:
        for effect in effects:
            match effect:
                case Publish(message):
                    self._publish(message)
                case SendTo(node, message):
                    self._send(node, message)
                case Learned(node, keys, values):
                    for key, value in zip(keys, values, strict=True):
                        if value:
                            self._learned(key, node)
                case Replaced():
                    continue  # whoever waits for a holder asks the index again after a pause
                case _:
                    assert_never(effect)
