"""Named functions at one node: what is registered here, what others have told, and the clients that want to hear of it.

A row belongs to the process that serves it, and goes with it. Each node publishes the rows of its own processes, as it
does with locations, in a table of their own (docs/decisions/0016).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Final

from zmreg.core.functions import Functions, checked, key_of, row_key
from zmreg.core.graves import Graves
from zmreg.core.index import Rows
from zmreg.core.versions import read_version, show_version
from zmreg.model.errors import ProtocolError
from zmreg.model.ids import node_of
from zmreg.model.messages import (
    Answer,
    FunctionNews,
    FunctionRow,
    Message,
    RegisterFunction,
    WatchFunctions,
    WithdrawFunction,
)
from zmreg.model.replica_messages import ReplicaTable
from zmreg.wire import batches, codec

if TYPE_CHECKING:  # a node that listens on no network has no use for them
    from zmreg.services.network.tables import Table
    from zmreg.services.node.node import Node

# Half of what a table takes (core/publishing.py). Names and texts have bounds of their own; lists of locs do not.
MAX_ROW_BYTES: Final = 32 << 10
# An envelope has room for 4 MiB.
_NEWS_BYTES: Final = 1 << 20
# Who is silent, or about to leave, is looked at so often for those who watch.
_LOOK_S: Final = 0.05


class KnownRows(Rows):
    """The table as it travels, and beside it what it says. What makes no sense is kept, as its writer counts it, and
    otherwise as good as not there."""

    def __init__(self, changed: Callable[[bytes], None]) -> None:
        """`changed(key)` is called for each row that is new, other or gone."""
        super().__init__()
        self.known = Functions()
        self.malformed = 0
        self._graves = Graves()
        self._changed = changed

    def put(self, node: bytes, key: bytes, value: bytes) -> bytes | None:
        try:
            row = codec.decode(value)
            if not isinstance(row, FunctionRow) or key != key_of(row) or node_of(row.host) != node:
                raise ProtocolError(f"a row of node {node.hex()} is no named function of its own")
            read_version(row.version)
        except (ProtocolError, ValueError):
            self.malformed += 1
            self.known.remove(key)
        else:
            if row.host not in self._graves:
                self.known.put(key, row)
        self._changed(key)
        return super().put(node, key, value)

    def process_gone(self, process: bytes) -> None:
        """A process of another node is dead: nobody is to be sent there, though its node has not taken its rows back
        yet, and word of both comes by different ways. A call that is sent to the dead is never answered."""
        self._graves.bury(process)
        for key in self.known.drop(process):
            self._changed(key)

    def remove(self, node: bytes, key: bytes) -> bytes | None:
        old = super().remove(node, key)
        if old is not None:
            self.known.remove(key)
            self._changed(key)
        return old

    def drop(self, node: bytes) -> None:
        for key in self.part(node):
            self.known.remove(key)
            self._changed(key)
        super().drop(node)


class NamedFunctions:
    """The functions table at one node."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self.rows = KnownRows(self._note)
        self.known = self.rows.known
        self.table: Table | None = None
        self._node_name = ""
        self._watchers: set[bytes] = set()
        self._changed: dict[bytes, None] = {}
        """Keys of rows that those who watch have to hear of."""
        self._resting: set[bytes] = set()
        self._look_at = float("-inf")

    def listen(
        self, name: str, publish: Callable[[Message], None], send: Callable[[bytes, Message], object]
    ) -> tuple[int, Table]:
        """There are other nodes, and this one is called so among them: publish, and hear what they publish."""
        from zmreg.core.publishing import Publisher  # late: of no use to a node alone, like the next two
        from zmreg.core.replicas import Replica
        from zmreg.services.network.tables import Table

        me, number = self._node.me, ReplicaTable.FUNCTIONS
        self._node_name = name
        publisher, replica = Publisher(me, number, self.rows), Replica(me, number, self.rows)
        self.table = Table(publisher, replica, publish, send)
        return number, self.table

    def hear(self, sender: bytes, message: RegisterFunction | WithdrawFunction | WatchFunctions) -> None:
        """A word of a process, ours or another node's."""
        match message:
            case RegisterFunction():
                self._on_register(sender, message)
            case WithdrawFunction():
                self._on_withdraw(sender, message)
            case WatchFunctions():
                self._on_watch(sender)

    # -- what our own processes serve -------------------------------------------------------------------------------

    def _on_register(self, sender: bytes, message: RegisterFunction) -> None:
        """A process serves a name from now on."""
        try:
            row = self._admissible(message)
            value = codec.encode(row)
            if len(value) > MAX_ROW_BYTES:
                raise ValueError(f"what is said of {row.name!r} has {len(value)} bytes, and may have {MAX_ROW_BYTES}")
        except (ProtocolError, ValueError) as error:
            self._answer(sender, message.request, str(error))
            return
        for twin in self.known.twins(row):  # it takes their place
            self._unset(key_of(twin))
        self._set(key_of(row), value)
        self._answer(sender, message.request, "")

    def _admissible(self, message: RegisterFunction) -> FunctionRow:
        """The row as this node publishes it. Raises ProtocolError, ValueError."""
        said = codec.decode(message.row)
        if not isinstance(said, FunctionRow):
            raise ProtocolError(f"what is to be registered is a {type(said).__name__} and not a FunctionRow")
        node = self._node
        if said.host != node.me and (said.host not in node.clients or said.host in node.leaving):
            raise ValueError(
                f"process {said.host.hex()}, which is to serve {said.name!r}, is not on this node, {node.me.hex()}, or "
                f"not any more; register what lives"
            )
        row = checked(said.but(node_name=self._node_name, node_locs=tuple(sorted(node.settings.locs))))
        self.known.check_new(row, message.replace)
        return row

    def _on_withdraw(self, sender: bytes, message: WithdrawFunction) -> None:
        """A process serves a name no more."""
        why = ""
        try:
            versions = (
                self.known.versions_of(message.host, message.name)
                if message.every
                else [show_version(read_version(message.version))]
            )
        except ValueError as error:
            why = str(error)
        else:
            for version in versions:
                self._unset(row_key(message.host, message.name, version))
        self._answer(sender, message.request, why)

    def process_gone(self, process: bytes) -> None:
        """A process of ours has ended, and serves nothing."""
        self._watchers.discard(process)
        for key in [key for key in self.rows.part(self._node.me) if key.startswith(process)]:
            self._unset(key)

    def _set(self, key: bytes, value: bytes) -> None:
        if self.table is not None:
            self.table.perform(self.table.publisher.add(key, value))
        elif self.rows.part(self._node.me).get(key) != value:
            self.rows.put(self._node.me, key, value)

    def _unset(self, key: bytes) -> None:
        if self.table is not None:
            self.table.perform(self.table.publisher.delete(key))
        else:
            self.rows.remove(self._node.me, key)

    def _answer(self, sender: bytes, request: int, why: str) -> None:
        self._tell_changes()  # first: who has registered, and watches, can call it then
        self._node.post(sender, Answer(request, True, batches.pack_plain(why)))

    # -- those who ask ----------------------------------------------------------------------------------------------

    def rows_of(self, name: str = "") -> list[bytes]:
        """The rows of one name, or all, encoded: sorted by name, the highest version first."""
        return [self._as_told(row) for row in self.known.rows(name)]

    def _as_told(self, row: FunctionRow) -> bytes:
        """With what only we know: whether its node gets new calls."""
        resting = self._rests(node_of(row.host))
        return codec.encode(row if row.resting is resting else row.but(resting=resting))

    def _rests(self, node: bytes) -> bool:
        neighbours = self._node.neighbours
        if node == self._node.me or neighbours is None:
            return self._node.departure.draining
        record = neighbours.members.record(node)
        return record is None or record.draining or not neighbours.members.usable(node)

    # -- those who watch --------------------------------------------------------------------------------------------

    def _on_watch(self, client: bytes) -> None:
        """A client of ours wants to know all rows, and all that changes."""
        if client in self._node.clients:
            self._tell_changes()  # to those who were here before
            if not self._watchers:
                self._resting = self._now_resting()
            self._watchers.add(client)
            self._tell([client], [key for node in self.rows.nodes() for key in self.rows.part(node)])

    def turn(self, now: float) -> None:
        """In each turn of the node's loop: tell what has changed."""
        if not self._watchers:
            return
        if now >= self._look_at:
            self._look_at = now + _LOOK_S
            resting = self._now_resting()
            for node in resting ^ self._resting:
                self._changed |= dict.fromkeys(self.rows.part(node))
            self._resting = resting
        self._tell_changes()

    def _now_resting(self) -> set[bytes]:
        return {node for node in self.rows.nodes() if self._rests(node)}

    def _note(self, key: bytes) -> None:
        if self._watchers:
            self._changed[key] = None

    def _tell_changes(self) -> None:
        if self._changed:
            keys = list(self._changed)
            self._changed.clear()
            self._tell(self._watchers, keys)

    def _tell(self, clients: Iterable[bytes], keys: Iterable[bytes]) -> None:
        news = self._news(keys)
        for client in clients:
            for each in news:
                self._node.post(client, each)

    def _news(self, keys: Iterable[bytes]) -> list[FunctionNews]:
        """What is to be said of these rows, in messages of a fair size: at least one, and the last one is `whole`."""
        news: list[FunctionNews] = []
        rows: list[bytes] = []
        gone: list[bytes] = []
        size = 0
        for key in keys:
            row = self.known.get(key)
            said = key if row is None else self._as_told(row)
            (gone if row is None else rows).append(said)
            size += len(said)
            if size > _NEWS_BYTES:
                news.append(FunctionNews(tuple(rows), tuple(gone), False))
                rows, gone, size = [], [], 0
        return [*news, FunctionNews(tuple(rows), tuple(gone), True)]
