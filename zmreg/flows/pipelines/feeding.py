"""The driver's items on their way to the first stages of a pipeline that runs elsewhere: each gets every item."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import Any

from zmreg.api.lines import LineLostError
from zmreg.core.outbox import Outbox
from zmreg.flows.pipelines.batches import Entry, columns
from zmreg.flows.pipelines.callers import Caller
from zmreg.flows.pipelines.channel import Channel
from zmreg.flows.pipelines.inbox import DRIVER, OVER
from zmreg.flows.pipelines.parcels import EDGE_BYTES, packed
from zmreg.model.errors import ActorDiedError, ActorUnavailableError, PipelineError, ZmregError

_AGAIN_S = 0.5


class Feeder:
    """The way to one stage."""

    def __init__(self, keeps: bool) -> None:
        self.box: Outbox[Entry] = Outbox(1, EDGE_BYTES, keeps)  # until it asks
        self.line = Caller()
        self.is_parked = False
        """Whether the thread that feeds it waits for items."""


class Feeding:
    """A thread that reads the items, and one for each stage that gets them."""

    def __init__(
        self,
        items: Iterable[Any],
        feeders: list[Feeder],
        failed: Callable[[BaseException], PipelineError],
    ) -> None:
        """`failed`: told what the items have raised; says what goes on in their place."""
        lock = threading.Lock()
        self._changed = threading.Condition(lock)
        """For those who feed."""
        self._room = threading.Condition(lock)
        """For who reads."""
        self._items = items
        self._feeders = feeders
        self._failed = failed
        self._stopped = False
        threading.Thread(target=self._read, name="zmreg-pipeline-items", daemon=True).start()

    def start(self, feeder: Feeder, actor: Callable[[], Any]) -> None:
        """Feed the actor that this returns; another one, when it is dead."""
        threading.Thread(target=self._push, args=(feeder, actor), name="zmreg-pipeline-feed", daemon=True).start()

    def stop(self) -> None:
        """No more. The items are closed where they can be, by the thread that reads them."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
            self._room.notify_all()
            for feeder in self._feeders:
                feeder.line.cut()
        if isinstance(self._items, Channel):
            self._items.stop()

    def look(self) -> None:
        """Another actor is to be fed than before."""
        with self._changed:
            self._changed.notify_all()

    # -- threads ------------------------------------------------------------------------------------------------------

    def _read(self) -> None:
        over: Any = OVER
        source = None
        try:
            source = iter(self._items)
            for number, item in enumerate(source):
                sent, nbytes = packed(item)
                if not self._put((DRIVER, number, 0, sent), nbytes):
                    break
                del item, sent
        except BaseException as error:  # noqa: BLE001  it is raised where the outputs are taken
            over = self._failed(error)
        with self._changed:
            for feeder in self._feeders:
                feeder.box.end(over)
            self._changed.notify_all()
        close = getattr(source, "close", None)
        if callable(close):
            close()

    def _put(self, entry: Entry, nbytes: int) -> bool:
        """False: it was stopped."""
        with self._changed:
            for feeder in self._feeders:
                while not feeder.box.has_room() and not self._stopped:
                    self._room.wait()
                if self._stopped:
                    return False
                feeder.box.put(entry, nbytes)
                if feeder.is_parked:
                    feeder.is_parked = False
                    self._changed.notify_all()
        return True

    def _push(self, feeder: Feeder, actor_of: Callable[[], Any]) -> None:
        try:
            self._push_to_all(feeder, actor_of)
        finally:
            feeder.line.close()

    def _push_to_all(self, feeder: Feeder, actor_of: Callable[[], Any]) -> None:
        while (actor := actor_of()) is not None and not self._stopped:
            try:
                self._feed(feeder, actor)
            except LineLostError:  # what has come of it, a call will say
                continue
            except ActorUnavailableError:
                with self._changed:
                    self._changed.wait(_AGAIN_S)
                continue
            except ActorDiedError:  # whoever watches over it knows, too
                pass
            except ZmregError as error:  # an item that cannot be sent
                with self._changed:
                    feeder.box.over = self._failed(error)
                return
            with self._changed:
                while actor_of() is actor and not self._stopped:
                    self._changed.wait()
                feeder.line.close()
                feeder.line = Caller()

    def _feed(self, feeder: Feeder, actor: Any) -> None:
        """Until the end of the items, the run, or the actor."""
        box, line = feeder.box, feeder.line
        ask = actor.feed.remote(DRIVER, 0, None, None).get()
        while ask is not None:
            come, consumed, done, want, items, nbytes = ask
            with self._changed:
                box.allow(items, nbytes)
                box.ask(come, consumed, done)
                self._room.notify()
                while not box.is_ready(come):
                    if self._stopped:
                        return
                    feeder.is_parked = True
                    self._changed.wait()
                feeder.is_parked = False
                first, entries, over = box.give(come, want)
            ask = line.call(actor, "feed", DRIVER, first, columns(entries), over)
