"""What the two sides of a replicated table ask the world to do (core/publishing.py, core/replicas.py)."""

from __future__ import annotations

from zmreg.model.record import Record
from zmreg.model.replica_messages import AskReplay, AskSnapshot, Beacon, Delta, SnapshotPart


class Publish(Record):
    """Say it to every node that listens. It may get lost on the way."""

    message: Delta | Beacon


class SendTo(Record):
    """Say it to one node. It may get lost, too: whoever needs the answer asks again."""

    node: bytes
    message: Delta | Beacon | AskReplay | AskSnapshot | SnapshotPart


class Learned(Record):
    """These rows of `node`'s part are now known here (an empty value: gone), in this order; the store has them."""

    node: bytes
    keys: tuple[bytes, ...]
    values: tuple[bytes, ...]


class Replaced(Record):
    """Any row of `node`'s part may have changed: a snapshot took its place, or a new life made it void. Look again."""

    node: bytes


PublisherEffect = Publish | SendTo
ReplicaEffect = SendTo | Learned | Replaced
