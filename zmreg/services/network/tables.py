"""A replicated table at one node: it publishes its own part, and keeps a replica of everybody else's."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import assert_never

from zmreg.core.publishing import Publisher
from zmreg.core.replica_effects import Learned, Publish, PublisherEffect, Replaced, ReplicaEffect, SendTo
from zmreg.core.replicas import Replica
from zmreg.model.messages import AskReplay, AskSnapshot, Beacon, Delta, Message, SnapshotPart

TableMessage = Delta | Beacon | AskReplay | AskSnapshot | SnapshotPart


class Table:
    """Both sides of it. Publisher and replica share one store of rows, which is where they are looked up."""

    def __init__(
        self,
        publisher: Publisher,
        replica: Replica,
        publish: Callable[[Message], None],
        send: Callable[[bytes, Message], object],
    ) -> None:
        self.publisher = publisher
        self.replica = replica
        self._publish = publish
        self._send = send

    def learned(self, node: bytes, keys: Sequence[bytes], values: Sequence[bytes]) -> None:
        """These rows of `node` are known now, or (an empty value) gone. For those who wait for one of them."""

    def on_message(self, sender: bytes, message: TableMessage, now: float) -> None:
        """A word about the table, published or said to us alone."""
        if isinstance(message, AskReplay | AskSnapshot):
            self.perform(self.publisher.on_message(sender, message, now))
        else:
            self.perform(self.replica.on_message(sender, message, now))

    def forget(self, node: bytes) -> None:
        """That node is gone, and its part with it."""
        self.replica.forget(node)

    def tick(self, now: float) -> float:
        """Publish what is due, ask again for what did not come. When to call again."""
        self.perform(self.publisher.tick(now))
        self.perform(self.replica.tick(now))
        due = self.replica.due(now)
        return min(self.publisher.due(), due) if due is not None else self.publisher.due()

    def perform(self, effects: Iterable[PublisherEffect | ReplicaEffect]) -> None:
        """Do what publisher or replica decided."""
        for effect in effects:
            match effect:
                case Publish(message):
                    self._publish(message)
                case SendTo(node, message):
                    self._send(node, message)
                case Learned(node, keys, values):
                    self.learned(node, keys, values)
                case Replaced():
                    continue  # whoever waits for a row looks again after a pause
                case _:
                    assert_never(effect)
