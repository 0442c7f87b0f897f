"""Events: told to whoever listens, anywhere in the cluster, and to nobody if nobody does."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from types import TracebackType
from typing import Any, NamedTuple

from zmreg.api.refs import notified
from zmreg.model.arguments import check_count, check_name, check_seconds
from zmreg.model.errors import ClusterError
from zmreg.services.seat.bus import Channel, bus
from zmreg.services.seat.logged import kept, value_of
from zmreg.services.seat.seats import client


class Event(NamedTuple):
    """What was published, and under which topic."""

    topic: str
    value: Any


class KeptEvent(NamedTuple):
    """What was logged: `time` in Unix seconds, by the clock of the process that did, on the node of that id."""

    topic: str
    value: Any
    time: float
    node_id: str


class Subscription:
    """What `subscribe` returns: iterate over it, `async for` over it, or `get` one event at a time.

    Each event goes to one reader of a subscription; who wants all of them has a subscription of its own. A `with`
    block closes it.
    """

    def __init__(self, channel: Channel) -> None:
        self._channel = channel

    @property
    def pattern(self) -> str:
        """What it listens to."""
        return self._channel.pattern

    @property
    def dropped(self) -> int:
        """How many events it has missed: here, because they were not read in time, or on the way here."""
        return self._channel.dropped

    def get(self, timeout: float | None = None) -> Event:
        """The oldest event that was not read; waits for one, at most `timeout` seconds.

        Raises GetTimeoutError; ClusterError when the subscription is closed or the cluster has ended; and what
        unpickling the value raises.
        """
        check_seconds(timeout, past=True)
        found = self._channel.wait(timeout)
        if found is None:
            raise ClusterError(f"the subscription to {self.pattern!r} is closed; subscribe again")
        return Event(*found)

    def __iter__(self) -> Iterator[Event]:
        return self

    def __next__(self) -> Event:
        found = self._channel.wait(None)
        if found is None:
            raise StopIteration
        return Event(*found)

    def __aiter__(self) -> AsyncIterator[Event]:
        return self

    async def __anext__(self) -> Event:
        channel = self._channel
        while (found := channel.take()) is None:
            if channel.closed:
                raise StopAsyncIteration
            listeners: list[Callable[[], None]] = []

            def listen(listener: Callable[[], None], kept: list[Callable[[], None]] = listeners) -> None:
                kept.append(listener)
                channel.listen(listener)

            try:
                await notified(listen)
            finally:
                for listener in listeners:
                    channel.unlisten(listener)
        return Event(*found)

    def close(self) -> None:
        """Listen no more: iteration ends, `get` raises, what was not read is gone. Idempotent."""
        self._channel.close()

    def __enter__(self) -> Subscription:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def __repr__(self) -> str:
        state = "closed" if self._channel.closed else f"{len(self._channel.backlog)} waiting"
        return f"<Subscription {self.pattern} [{state}, {self.dropped} dropped]>"


def subscribe(pattern: str, *, backlog: int = 1000) -> Subscription:
    """Listen to what is published anywhere in the cluster under topics that `pattern` stands for.

    In a pattern, words are joined by dots; `*` stands for one word and `#` for any number: `run.*.done`, `run.#`.
    At most `backlog` events (and 16 MiB) wait to be read; then the oldest go, and `.dropped` counts them. Whoever
    publishes never waits.

    When this returns, events of processes on this machine come from now on; those of other machines as soon as these
    have heard of it, usually within some 20 ms.

    Raises ValueError for what is no pattern.
    """
    check_name(pattern, "pattern")
    return Subscription(bus(client()).subscribe(pattern, check_count(backlog, "backlog", 1)))


def publish(topic: str, value: object = None) -> None:
    """Tell `value` to whoever listens to `topic`; to nobody if nobody does, at the price of a look into a table.

    `value` is pickled, and has less than 64 KiB then. A ref in it keeps nothing alive: who receives it can get it as
    long as somebody else holds it. Never waits for those who listen.

    Raises ValueError for what is no topic, MessageTooLargeError, SerializationError.
    """
    if type(topic) is not str:
        check_name(topic, "topic")
    bus(client()).publish(topic, value)


def log_event(topic: str, value: object = None) -> None:
    """`publish` it, and have this node keep it for those who come later: `get_events` finds it, on any node.

    A node keeps the latest 1,000 events and 1 MiB of a topic, 1,000 topics (then the one that has been silent longest
    goes) and 16 MiB in all, 300 bytes for each event among them; and it takes what it keeps with it when it ends. The
    process that has logged may end. Never waits for anybody; always costs a message. Raises what `publish` raises.
    """
    if type(topic) is not str:
        check_name(topic, "topic")
    bus(client()).log(topic, value)


def get_events(pattern: str = "#", *, limit: int = 1000) -> list[KeptEvent]:
    """The latest `limit` events that any node keeps under topics that `pattern` stands for, the oldest first.

    `pattern` as for `subscribe`. In the order of their times: those of one process are in its order, between machines
    it is as good as their clocks. What has just been logged elsewhere may still be under way. A node that does not
    answer within 5 s is left out.

    Raises ValueError for what is no pattern or a limit below 1, ClusterError, and SerializationError for a
    value that cannot be unpickled here.
    """
    check_name(pattern, "pattern")
    limit = check_count(limit, "limit", 1)
    return [KeptEvent(row[2], value_of(row), row[0], row[1]) for row in kept(client(), pattern, limit)]


def wanted(topic: str) -> bool:
    """Whether anybody may listen to `topic`, or to one that goes on from there after a dot."""
    return bus(client()).wanted(topic)


__all__ = ["Event", "KeptEvent", "Subscription", "get_events", "log_event", "publish", "subscribe", "wanted"]
