"""Events at one node: who listens to what, here and elsewhere, and the ways on which events are passed on.

Each node publishes the patterns that its own processes listen to, in a table of their own, as it does with named
functions. So an event goes to those nodes that have a listener, once to each, and to no others. Values are never
unpickled here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from zmreg.core.index import Rows
from zmreg.core.interests import Interests
from zmreg.core.kept_events import KeptEvents
from zmreg.core.outlets import Outlet, Receipts
from zmreg.model.ids import node_of
from zmreg.model.messages import (
    Answer,
    Events,
    EventsTaken,
    Message,
    PatternNews,
    Subscribe,
    Unsubscribe,
    WatchPatterns,
)
from zmreg.model.record import Record
from zmreg.model.replica_messages import ReplicaTable
from zmreg.wire import batches

if TYPE_CHECKING:  # a node that listens on no network has no use for them
    from zmreg.services.network.tables import Table
    from zmreg.services.node.node import Node

# Each is looked at for each new topic.
MAX_PATTERNS: Final = 1_000
_THERE: Final = b"\x01"
# A pattern has 255 characters at most, an envelope room for 4 MiB.
_NEWS_AT_ONCE: Final = 4_000

TopicMessage = Subscribe | Unsubscribe | WatchPatterns | Events | EventsTaken


class PatternRows(Rows):
    """The table as it travels: a row's key is the pattern. `learned` is called for each row of another node."""

    def __init__(self, learned: Callable[[bytes, bytes, bool], None]) -> None:
        super().__init__()
        self._learned = learned

    def put(self, node: bytes, key: bytes, value: bytes) -> bytes | None:
        self._learned(node, key, True)
        return super().put(node, key, value)

    def remove(self, node: bytes, key: bytes) -> bytes | None:
        self._learned(node, key, False)
        return super().remove(node, key)

    def drop(self, node: bytes) -> None:
        for key in list(self.part(node)):
            self._learned(node, key, False)
        super().drop(node)


class Topics:
    """The events of one node."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self.interests: Interests[bytes] = Interests()
        """By process here, and by node elsewhere."""
        self.rows = PatternRows(self._learned)
        self.table: Table | None = None
        self.malformed = 0
        self._outlets: dict[bytes, Outlet] = {}
        self._receipts: dict[bytes, Receipts] = {}
        self._watchers: set[bytes] = set()
        self.kept = KeptEvents()
        """What processes of ours have logged."""
        self._changed: dict[str, None] = {}
        """Patterns of which those who watch have to hear."""

    def listen(self, publish: Callable[[Message], None], send: Callable[[bytes, Message], object]) -> tuple[int, Table]:
        """There are other nodes: publish, and hear what they publish."""
        from zmreg.core.publishing import Publisher  # late: of no use to a node alone, like the next two
        from zmreg.core.replicas import Replica
        from zmreg.services.network.tables import Table

        me, number = self._node.me, ReplicaTable.TOPICS
        self.table = Table(Publisher(me, number, self.rows), Replica(me, number, self.rows), publish, send)
        return number, self.table

    def hear(self, sender: bytes, message: TopicMessage) -> None:
        """A word of a process of ours, or of another node."""
        match message:
            case Events():
                self._on_events(sender, message)
            case EventsTaken(items, nbytes):
                if sender in self._outlets:
                    self._outlets[sender].taken(items, nbytes)
                    self._send(sender)
            case Subscribe(request, pattern):
                why = self._subscribe(sender, pattern)
                self._tell_changes()  # first: who publishes there as well knows of it when this is answered
                self._node.post(sender, Answer(request, True, batches.pack_plain(why)))
            case Unsubscribe(pattern):
                if self.interests.remove(sender, pattern):
                    self._changed[pattern] = None
                self._publish(pattern)
            case WatchPatterns():
                if sender in self._node.clients:
                    self._tell_changes()  # to those who were here before
                    self._watchers.add(sender)
                    self._tell([sender], self.interests.patterns())

    # -- who listens --------------------------------------------------------------------------------------------------

    def _subscribe(self, client: bytes, pattern: str) -> str:
        """Why not; or nothing."""
        if client not in self._node.clients:
            return f"process {client.hex()} is not on node {self._node.me.hex()}, or not any more"
        mine = self.interests.of(client)
        if len(mine) >= MAX_PATTERNS and pattern not in mine:
            return f"a process may listen to {MAX_PATTERNS} patterns; use fewer, with * and #"
        try:
            if self.interests.add(client, pattern):
                self._changed[pattern] = None
        except ValueError as error:
            return str(error)
        self._publish(pattern)
        return ""

    def _publish(self, pattern: str) -> None:
        """Tell the other nodes whether a process of ours listens to it."""
        me, key = self._node.me, pattern.encode(errors="surrogatepass")
        wanted = any(node_of(who) == me for who in self.interests.who_has(pattern))
        if wanted == (key in self.rows.part(me)):
            return
        if self.table is None:
            _ = self.rows.put(me, key, _THERE) if wanted else self.rows.remove(me, key)
        else:
            publisher = self.table.publisher
            self.table.perform(publisher.add(key, _THERE) if wanted else publisher.delete(key))

    def _learned(self, node: bytes, key: bytes, there: bool) -> None:
        """Whether another node listens to a pattern."""
        if node == self._node.me:
            return
        try:
            pattern = key.decode(errors="surrogatepass")
            changed = self.interests.add(node, pattern) if there else self.interests.remove(node, pattern)
        except ValueError:  # of a newer version, perhaps: as good as not there
            self.malformed += 1
            return
        if changed:
            self._changed[pattern] = None

    def gone(self, who: bytes) -> None:
        """A process of ours has ended, or another node. Not before: what is under way counts at both ends of a way."""
        self._watchers.discard(who)
        self._outlets.pop(who, None)
        self._receipts.pop(who, None)
        for pattern in self.interests.forget(who):
            self._changed[pattern] = None
            self._publish(pattern)

    # -- those who watch ----------------------------------------------------------------------------------------------

    def turn(self) -> None:
        """In each turn of the node's loop: tell what has changed."""
        if self._changed:
            self._tell_changes()

    def _tell_changes(self) -> None:
        changed, self._changed = list(self._changed), {}
        if changed and self._watchers:
            self._tell(self._watchers, changed)

    def _tell(self, clients: Iterable[bytes], patterns: list[str]) -> None:
        for start in range(0, max(1, len(patterns)), _NEWS_AT_ONCE):
            part = patterns[start : start + _NEWS_AT_ONCE]
            added = tuple(each for each in part if self.interests.who_has(each))
            gone = tuple(each for each in part if not self.interests.who_has(each))
            news = PatternNews(added, gone, start + _NEWS_AT_ONCE >= len(patterns))
            for client in clients:
                self._node.post(client, news)

    # -- events -------------------------------------------------------------------------------------------------------

    def _on_events(self, sender: bytes, events: Events) -> None:
        if not _even(events):
            self._node.protocol_errors += 1
            return
        me = self._node.me
        from_here = node_of(sender) == me
        for topic, value, logged in zip(events.topics, events.values, events.kept, strict=False):
            if logged and from_here:
                self.kept.put(topic, logged, value)
        touched: dict[bytes, None] = {}
        for topic, value in zip(events.topics, events.values, strict=True):
            for who in self.interests.listeners(topic):
                if from_here or node_of(who) == me:
                    self._outlet(who).put(topic, value)
                    touched[who] = None
        for pattern, count in zip(events.lost, events.counts, strict=True):
            for who in self.interests.who_has(pattern):
                if from_here or node_of(who) == me:
                    self._outlet(who).lose(pattern, count)
                    touched[who] = None
        for who in touched:
            self._send(who)
        if from_here and sender not in self._node.clients:
            return  # its last words: nobody is there to be told
        due = self._receipts.setdefault(sender, Receipts()).note(events)
        if due is not None:
            self._node.post(sender, EventsTaken(*due))

    def _outlet(self, who: bytes) -> Outlet:
        outlet = self._outlets.get(who)
        if outlet is None:
            outlet = self._outlets[who] = Outlet(partial(self.interests.matching, who))
        return outlet

    def _send(self, who: bytes) -> None:
        outlet = self._outlets[who]
        while (batch := outlet.next()) is not None:
            self._node.post(who, batch)

    def statistics(self) -> dict[str, Any]:
        """For whoever asks this node: patterns, and what waits for or was lost on the way to each listener."""
        ways = {who.hex(): each.statistics() for who, each in self._outlets.items()}
        return {
            "Patterns": sorted(self.interests.patterns()),
            "Malformed": self.malformed,
            "Kept": _fields(self.kept.statistics()),
            "Ways": {who: _fields(said) for who, said in ways.items()},
        }


def _even(events: Events) -> bool:
    """Whether what belongs together is as long."""
    items = len(events.topics)
    return len(events.values) == items and len(events.kept) in (0, items) and len(events.lost) == len(events.counts)


def _fields(said: Record) -> dict[str, Any]:
    return {name: getattr(said, name) for name in type(said).__match_args__}
