"""The replicated registry at one node: it publishes what its store holds, and knows what the stores of others do."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import compress

from zmreg.core.index import SCOPES, Admit, LocationIndex, everything, location
from zmreg.core.publishing import Publisher
from zmreg.core.replicas import Replica
from zmreg.model.messages import Message
from zmreg.model.replica_messages import ReplicaTable
from zmreg.services.network.tables import Table


class Registry(Table):
    """The locations table. `learned(node, object_ids)` is called for new locations, which somebody may wait for."""

    def __init__(
        self,
        me: bytes,
        publish: Callable[[Message], None],
        send: Callable[[bytes, Message], object],
        learned: Callable[[bytes, Sequence[bytes]], None],
        scope: str,
    ) -> None:
        self._moved: set[bytes] = set()
        """Objects that a node left with us: their owners look elsewhere, so they are told whatever the scope."""
        self._on_learned = learned
        self.index = LocationIndex()
        publisher = Publisher(me, ReplicaTable.LOCATIONS, self.index, admit=self._admits(SCOPES[scope]))
        super().__init__(publisher, Replica(me, ReplicaTable.LOCATIONS, self.index), publish, send)

    # -- our own part -----------------------------------------------------------------------------------------------

    def holds(self, object_id: bytes, nbytes: int, primary: bool) -> None:
        """Our store has it whole."""
        self.perform(self.publisher.add(object_id, location(nbytes, primary)))

    def holds_no_more(self, object_id: bytes) -> None:
        """It has left our store."""
        self.perform(self.publisher.delete(object_id))
        self._moved.discard(object_id)

    def note_moved(self, object_id: bytes) -> None:
        """A node that leaves has us keep it, from now on."""
        if self._scoped and object_id not in self._moved:
            self.perform(self.publisher.delete(object_id))
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

    def learned(self, node: bytes, keys: Sequence[bytes], values: Sequence[bytes]) -> None:
        """Somebody may wait for one of these objects."""
        self._on_learned(node, keys if all(values) else list(compress(keys, values)))
