"""Events at a process: what it publishes, and what it has subscribed to.

A publisher keeps a copy of the patterns that anybody listens to, so that what nobody hears costs a look into a table.
Events that come wait in the backlog of each subscription, wherever the program is meanwhile: receiving them never
waits for whoever reads them.
"""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable, Iterable
from typing import Any, Final

from zmreg.core.interests import Interests
from zmreg.core.outlets import Outlet, Receipts
from zmreg.core.topics import Backlog, Pattern, check_topic
from zmreg.model.errors import ClusterError, GetTimeoutError, MessageTooLargeError
from zmreg.model.messages import Events, EventsTaken, PatternNews, Subscribe, Unsubscribe, WatchPatterns
from zmreg.net.waiting import Waiter
from zmreg.services.seat.client import Client
from zmreg.wire import payload

_FIRST_NEWS_S: Final = 10.0
# The cluster, as the one whose patterns a publisher knows.
_ANYBODY: Final = 0


class Channel:
    """One subscription. For any number of threads and coroutines: each event goes to one of those that read."""

    def __init__(self, bus: Bus, pattern: str, backlog: int) -> None:
        """Raises ValueError for what is no pattern, and for a backlog below 1."""
        self.pattern = Pattern(pattern).text
        self.backlog: Backlog[tuple[str, bytes]] = Backlog(backlog)
        self.lost = 0
        """On the way here."""
        self.closed = False
        self._bus = bus
        self._listeners: list[Callable[[], object]] = []

    @property
    def dropped(self) -> int:
        """Events that it should have had, and has not."""
        return self.lost + self.backlog.dropped

    def take(self) -> tuple[str, Any] | None:
        """The oldest event; None when there is none. Raises ClusterError when none can come any more, and what
        unpickling its value raises."""
        client = self._bus.client
        with client.shield(), client.lock:
            taken = self.backlog.take(1)
        if taken:
            return taken[0][0], payload.unpack(taken[0][1])
        if not self.closed:
            client.check()
        return None

    def wait(self, timeout: float | None) -> tuple[str, Any] | None:
        """The oldest event, as soon as there is one; None when the subscription is closed.

        Raises GetTimeoutError after `timeout` seconds, and as `take`.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        while (event := self.take()) is None and not self.closed:
            if deadline is not None and time.monotonic() >= deadline:
                raise GetTimeoutError(f"nothing under {self.pattern!r} within {timeout} s", timeout_s=timeout)
            waiter = Waiter()
            self.listen(waiter.finish)
            try:
                self._bus.client.pump_until(waiter, deadline)
            finally:
                self.unlisten(waiter.finish)
        return event

    def listen(self, listener: Callable[[], object]) -> None:
        """Call it once when there is something to take or the end has come; now, if it is so already. From whatever
        thread receives."""
        with self._bus.client.shield(), self._bus.client.lock:
            if self.backlog or self.closed or self._bus.client.closed is not None:
                listener()
            else:
                self._listeners.append(listener)

    def unlisten(self, listener: Callable[[], object]) -> None:
        """Do not, if it has not been called."""
        with self._bus.client.shield(), self._bus.client.lock:
            if listener in self._listeners:
                self._listeners.remove(listener)

    def wake(self) -> None:
        """Under the lock: have those who listen look."""
        listeners, self._listeners = self._listeners, []
        for listener in listeners:
            listener()

    def close(self) -> None:
        """Hear no more; what was not read is gone, and who waits is let go. Idempotent."""
        self._bus.close(self)


class Bus:
    """The events of one process."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self._known: Interests[int] = Interests()
        """What anybody listens to."""
        self._whole = False
        self._first_news: list[Waiter] = []
        self._out = Outlet(lambda topic: self._known.matching(_ANYBODY, topic))
        self._logged = 0.0
        """When the last one was that the node keeps. It never goes back, so order by time is the order in which they
        were logged here."""
        self._receipts = Receipts()
        self._mine: Interests[int] = Interests()
        """What is listened to here, by number of the channel."""
        self._channels: dict[int, weakref.ref[Channel]] = {}
        self._numbers = 0
        client.handlers[PatternNews] = lambda _, message: self._on_news(message)
        client.handlers[Events] = self._on_events
        client.handlers[EventsTaken] = lambda _, message: self._on_taken(message)
        client.questions.at_the_end.append(self._end)

    # -- publishing ---------------------------------------------------------------------------------------------------

    def publish(self, topic: str, value: object) -> None:
        """Tell whoever listens, without waiting for any of them.

        Raises ValueError for what is no topic, MessageTooLargeError for 64 KiB and more, SerializationError, and
        ClusterError. A value that nobody listens to is not looked at.
        """
        check_topic(topic)
        client = self.client
        client.check()
        if not self._whole:
            self._watch()
        with client.shield(), client.lock:
            if not self._known.matching(_ANYBODY, topic):
                return
        self._tell(topic, _packed(topic, value), 0.0)

    def log(self, topic: str, value: object) -> None:
        """The same, and have the node keep it for those who come later. Errors as `publish`."""
        check_topic(topic)
        self.client.check()
        if not self._whole:
            self._watch()
        self._tell(topic, _packed(topic, value), time.time())

    def _tell(self, topic: str, data: bytes, logged: float) -> None:
        client = self.client
        with client.shield(), client.lock:
            client.check()
            if logged:
                logged = self._logged = max(logged, self._logged)
            self._out.put(topic, data, logged)
            self._send()

    def wanted(self, prefix: str) -> bool:
        """Whether anybody may listen to `prefix`, or to a topic that goes on from there. Raises ClusterError."""
        if not self._whole:
            self._watch()
        with self.client.shield(), self.client.lock:
            return self._known.under(prefix)

    def _watch(self) -> None:
        """Have the node tell who listens, and wait until it has: once in a process's life."""
        client, waiter = self.client, Waiter()
        with client.shield(), client.lock:
            client.check()
            self._first_news.append(waiter)
            client.tell_node(WatchPatterns())
        client.wait(waiter, _FIRST_NEWS_S)
        client.check()
        if not self._whole:
            raise ClusterError(f"the node did not tell who listens to events within {_FIRST_NEWS_S:g} s")

    def _on_news(self, news: PatternNews) -> None:
        for pattern in news.gone:
            self._known.remove(_ANYBODY, pattern)
        for pattern in news.added:
            self._known.add(_ANYBODY, pattern)
        self._whole = self._whole or news.whole
        if self._whole:
            waiting, self._first_news = self._first_news, []
            for waiter in waiting:
                waiter.finish()

    def _on_taken(self, message: EventsTaken) -> None:
        self._out.taken(message.items, message.nbytes)
        self._send()

    def _send(self) -> None:
        while (batch := self._out.next()) is not None:
            self.client.tell_node(batch)

    # -- subscribing --------------------------------------------------------------------------------------------------

    def subscribe(self, pattern: str, backlog: int) -> Channel:
        """Listen from now on: what this node's processes publish from here on comes, and soon what others do.

        Raises ValueError for what is no pattern, a backlog below 1, or too many patterns; ClusterError.
        """
        channel = Channel(self, pattern, backlog)
        client = self.client
        with client.shield(), client.lock:
            client.check()
            self._numbers += 1
            number = self._numbers
            self._channels[number] = weakref.ref(channel)
            self._mine.add(number, pattern)
        try:
            why = client.questions.say(lambda request: Subscribe(request, pattern))
            if why:
                raise ValueError(why)
        except BaseException:
            channel.close()
            raise
        return channel

    def close(self, channel: Channel) -> None:
        """As `Channel.close`."""
        with self.client.shield(), self.client.lock:
            channel.closed = True
            channel.backlog.clear()
            channel.wake()
            for number, kept in list(self._channels.items()):
                if kept() in (channel, None):
                    self._remove(number)

    def _remove(self, number: int) -> None:
        self._channels.pop(number, None)
        for pattern in self._mine.of(number):
            if self._mine.remove(number, pattern) and self.client.closed is None:
                self.client.tell_node(Unsubscribe(pattern))

    def _on_events(self, sender: bytes, events: Events) -> None:
        touched: dict[Channel, None] = {}
        for topic, value in zip(events.topics, events.values, strict=False):
            for channel in self._open(self._mine.listeners(topic)):
                channel.backlog.put((topic, value), len(topic) + len(value))
                touched[channel] = None
        for pattern, count in zip(events.lost, events.counts, strict=False):
            for channel in self._open(self._mine.who_has(pattern)):
                channel.lost += count
        for channel in touched:
            channel.wake()
        due = self._receipts.note(events)
        if due is not None:
            self.client.post(sender, EventsTaken(*due))

    def _open(self, numbers: Iterable[int]) -> list[Channel]:
        """Those channels; one that nobody has a handle to any more is closed."""
        found = []
        for number in numbers:
            channel = self._channels[number]()
            if channel is not None:
                found.append(channel)
            else:
                self._remove(number)
        return found

    def _end(self) -> None:
        """Under the lock: we leave, or the node is gone. What was published leaves with us, and nobody waits."""
        for batch in self._out.rest():
            self.client.tell_node(batch)
        for waiter in self._first_news:
            waiter.finish()
        for kept in list(self._channels.values()):
            channel = kept()
            if channel is not None:
                channel.wake()


def _packed(topic: str, value: object) -> bytes:
    """Raises MessageTooLargeError, SerializationError."""
    data = payload.pack(value, [], what=f"event {topic}")
    if not isinstance(data, bytes):
        raise MessageTooLargeError(
            f"an event of {data.nbytes} bytes under {topic!r}: less than {payload.LARGE_BYTES} travel with an "
            f"event; zmreg.put() the value, keep the ref, and publish the ref"
        )
    return data


_making = threading.Lock()


def bus(client: Client) -> Bus:
    """The one of this seat."""
    if client.bus is None:
        with _making:
            if client.bus is None:
                client.bus = Bus(client)
    return client.bus
