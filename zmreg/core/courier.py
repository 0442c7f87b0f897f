"""The stream of letters between two nodes: each exactly once and in order, over a connection that may not be.

One courier per peer node and node life, for both directions. Letters are numbered from 1; an acknowledgement says "all
up to here". What is not acknowledged is kept, and sent again when the link is back or the peer asks for it; after a
second without an acknowledgement, a probe makes it ask.

**A hot path.** Every message between machines passes here, so the usual case has calls of its own that make no records
and ask no clock; they say 0 where the machine proper has to be asked:

    number = courier.take_seq(letter, nbytes)          # 0: kept back, the courier will say Transmit when it is time
    if number: put (number, courier.received, letter) on the link

    verdict = courier.accept(number, ack, nbytes)      # 0: nothing was done, ask on_letter
    if verdict: deliver the letter; if verdict == ACK_DUE: say courier.take_ack() to the peer
    else: perform(courier.on_letter(number, ack, letter, nbytes, now))

    at the end of a turn: perform(courier.tick(now)), then sleep until courier.due() at most

What is kept and how it is sent again stands in core/outgoing.py; this is the conversation around it.
"""

from __future__ import annotations

from typing import Final

from zmreg.core.outgoing import Outgoing
from zmreg.model.record import Record

# What `accept` says. The word for "not the usual case" is 0.
DELIVER: Final = 1
ACK_DUE: Final = 2

# An acknowledgement of its own, when no letter goes the other way: after so many letters, bytes, or this long.
ACK_LETTERS: Final = 64
# Half a burst: the word of progress comes while the other half is under way.
ACK_BYTES: Final = 512 * 1024
ACK_S: Final = 0.02
# Between two questions for the same missing letter: 50 ms, doubled up to 4 s. Between any two: 50 ms.
ASK_S: Final = 0.05
# Without progress for this long, the peer is probed; doubled up to 4 s. TCP loses nothing while it stands, so this is
# for a question that was lost and for a link that was cut without a word.
PROBE_S: Final = 1.0
MAX_PAUSE_S: Final = 4.0
MAX_UNACKED_BYTES: Final = 1 << 30


class Transmit(Record):
    """Put this on the link: letter number `seq`, and that all of theirs up to `ack` have arrived."""

    seq: int
    ack: int
    letter: object


class SendAck(Record):
    """Say to the peer: all up to `ack` have arrived."""

    ack: int


class AskResend(Record):
    """Say to the peer: `first` is missing, and what you sent after it was dropped."""

    first: int


class Deliver(Record):
    """Hand on this letter of the peer."""

    letter: object


class Overflow(Record):
    """More is kept for the peer than allowed. Nothing is dropped; who sends should stop, or give the peer up."""

    unacked_bytes: int


CourierEffect = Transmit | SendAck | AskResend | Deliver | Overflow


class CourierStatistics(Record):
    """Counts since the start, but for `unacked`, `unacked_bytes` and `held_bytes`, which are of this moment.

    `held_bytes` are of letters kept back, never sent. `resends`: how often sending again has begun; `probes`: how
    often a second has passed in silence; `nonsense`: words of the peer about letters that were never sent, or numbered
    0, all ignored.
    """

    sent: int
    unacked: int
    unacked_bytes: int
    held_bytes: int
    probes: int
    resends: int
    resent: int
    resent_bytes: int
    received: int
    received_bytes: int
    duplicates: int
    out_of_order: int
    asked: int
    nonsense: int


class Courier(Outgoing):
    """See the module. `sent` and `received` are the last numbers given and delivered; ticks a second apart at most."""

    __slots__ = (
        "_acked_at_tick",
        "_ask_pause_s",
        "_asked",
        "_asked_at",
        "_asked_for",
        "_cap_bytes",
        "_duplicates",
        "_gap",
        "_out_of_order",
        "_overflow_told",
        "_owed_since",
        "_patience_s",
        "_probes",
        "_resend_asked_at",
        "_resend_first",
        "_silent_since",
        "_told",
        "_told_at_tick",
        "_told_bytes",
        "received",
        "received_bytes",
    )

    def __init__(self, cap_bytes: int = MAX_UNACKED_BYTES) -> None:
        super().__init__()
        self._resend_first = 0  # what the peer last asked for, and when
        self._resend_asked_at = float("-inf")
        self._silent_since: float | None = None  # as ticks see it, like `_owed_since`
        self._acked_at_tick = 0
        self._patience_s = PROBE_S
        self._probes = 0
        self._cap_bytes = cap_bytes
        self._overflow_told = False
        self.received = 0
        self.received_bytes = 0
        self._told = 0  # what the peer has been told has arrived; less when it seems not to have heard
        self._told_bytes = 0
        self._told_at_tick = 0
        self._owed_since: float | None = None
        self._gap = 0  # the first one missing, when a later one has come
        self._ask_pause_s = ASK_S
        self._asked_for = 0
        self._asked_at = float("-inf")
        self._duplicates = self._out_of_order = self._asked = 0

    # -- the usual case ------------------------------------------------------------------------------------------------

    def take_seq(self, letter: object, nbytes: int) -> int:
        """Keep the letter; its number, to be sent at once with `received` as the ack. 0: it is sent later by itself."""
        self.sent = seq = self.sent + 1
        self._unacked.append((letter, nbytes))
        self.unacked_bytes += nbytes
        if self._cursor:
            self._held_bytes += nbytes
            return 0
        self._told = self.received
        self._told_bytes = self.received_bytes
        return seq

    def accept(self, seq: int, ack: int, nbytes: int) -> int:
        """DELIVER or ACK_DUE when this is the next letter: hand it on. 0: not the usual case, nothing is noted."""
        if seq != self.received + 1:
            return 0
        acked = self._acked
        if ack > acked:
            if self._cursor or ack > self.sent:
                return 0
            self._acked = ack
            take = self._unacked.popleft
            freed = 0
            while acked < ack:
                freed += take()[1]
                acked += 1
            self.unacked_bytes -= freed
        self.received = seq
        self.received_bytes = total = self.received_bytes + nbytes
        if seq - self._told >= ACK_LETTERS or total - self._told_bytes >= ACK_BYTES:
            return ACK_DUE
        return DELIVER

    def take_ack(self) -> int:
        """What an acknowledgement says that leaves now."""
        self._told = self.received
        self._told_bytes = self.received_bytes
        return self.received

    # -- sending -------------------------------------------------------------------------------------------------------

    @property
    def overflow(self) -> bool:
        """Whether more than the cap waits to be acknowledged."""
        return self.unacked_bytes > self._cap_bytes

    @property
    def hopeless(self) -> bool:
        """Whether twice as much does."""
        return self.unacked_bytes > 2 * self._cap_bytes

    @property
    def stuck(self) -> bool:
        """Whether two probes in a row, 3 s, have gone without an answer."""
        return self._silent_since is not None and self._patience_s >= 4 * PROBE_S

    def send(self, letter: object, nbytes: int) -> list[CourierEffect]:
        """Keep the letter and send it, or keep it back while older ones have to go first."""
        seq = self.take_seq(letter, nbytes)
        effects: list[CourierEffect] = [Transmit(seq, self.received, letter)] if seq else []
        return effects + self._complain()

    def on_ack(self, ack: int) -> list[CourierEffect]:
        """The peer has all up to `ack`. An older word than one heard before is ignored."""
        return self._pump() if self._settle(ack) else []

    def on_resend(self, first: int, now: float) -> list[CourierEffect]:
        """The peer misses `first` and has all before it. Asked twice within 50 ms for the same, it gets one burst."""
        if not self._was_sent(first):
            self._strange += 1
            return []
        goes_on = self._settle(first - 1)
        again = first <= self._resend_first and now - self._resend_asked_at < ASK_S
        if first <= self._acked or again or self._down:
            return self._pump() if goes_on else []
        self._resend_first = first
        self._resend_asked_at = now
        self._rewind()
        return self._pump()

    def connected(self) -> list[CourierEffect]:
        """The link is back: what was on it may be lost, either way. Tell what has arrived, send what has not."""
        self._down = False
        self._silent_since = None
        effects: list[CourierEffect] = [SendAck(self.take_ack())] if self.received else []
        self._rewind()
        return effects + self._pump()

    def disconnected(self) -> None:
        """The link is down: letters are kept, and nothing is sent until `connected`. Need not be said."""
        if not self._down:
            self._down = True
            self._rewind()

    def _pump(self) -> list[CourierEffect]:
        return self._transmit(self._burst())

    def _transmit(self, letters: list[tuple[int, object]]) -> list[CourierEffect]:
        return [Transmit(seq, self.take_ack(), letter) for seq, letter in letters]

    def _complain(self) -> list[CourierEffect]:
        """Overflow, once each time the cap is passed; armed again at half of it."""
        if self.unacked_bytes > self._cap_bytes and not self._overflow_told:
            self._overflow_told = True
            return [Overflow(self.unacked_bytes)]
        if self._overflow_told and self.unacked_bytes <= self._cap_bytes // 2:
            self._overflow_told = False
        return []

    # -- receiving -----------------------------------------------------------------------------------------------------

    def on_letter(self, seq: int, ack: int, letter: object, nbytes: int, now: float) -> list[CourierEffect]:
        """Any letter of the peer: the next one, one that came before, or one after a gap."""
        effects = self.on_ack(ack)
        if seq == self.received + 1:
            effects.append(Deliver(letter))
            if self.accept(seq, 0, nbytes) == ACK_DUE:
                effects.append(SendAck(self.take_ack()))
        elif seq < 1:
            self._strange += 1
        elif seq <= self.received:
            # It has not heard that we have this one. Said again at a tick, once for however many come.
            self._duplicates += 1
            self._told = min(self._told, self.received - 1)
        else:
            self._out_of_order += 1
            self._gap = self.received + 1
            effects += self._ask(now)
        return effects

    def _ask(self, now: float) -> list[CourierEffect]:
        """AskResend for the first one missing, unless it has come or was asked for a short while ago."""
        if self._gap <= self.received:
            self._gap = 0
        if not self._gap or now < self._ask_due():
            return []
        self._ask_pause_s = min(MAX_PAUSE_S, 2 * self._ask_pause_s) if self._asked_for == self._gap else ASK_S
        self._asked_for = self._gap
        self._asked_at = now
        self._asked += 1
        return [AskResend(self._gap)]

    def _ask_due(self) -> float:
        return self._asked_at + (self._ask_pause_s if self._asked_for == self._gap else ASK_S)

    # -- time ----------------------------------------------------------------------------------------------------------

    def tick(self, now: float) -> list[CourierEffect]:
        """What time alone asks for. Spans count from the tick that first sees their cause: the usual case has no clock.

        So call it at the end of each turn in which something was sent or came, and when `due` says.
        """
        effects = self._complain()
        if self._down:
            self._owed_since = self._silent_since = None
            return effects
        effects += self._ask(now)
        if self._told == self.received:
            self._owed_since = None
        elif self._owed_since is None or self._told != self._told_at_tick:
            self._owed_since = now
            self._told_at_tick = self._told
        elif now >= self._owed_since + ACK_S:
            self._owed_since = None
            effects.append(SendAck(self.take_ack()))
        if not self._unacked:
            self._silent_since = None
        elif self._silent_since is None or self._acked != self._acked_at_tick:
            self._silent_since = now
            self._acked_at_tick = self._acked
            self._patience_s = PROBE_S
        elif now >= self._silent_since + self._patience_s:
            self._silent_since = now
            self._patience_s = min(MAX_PAUSE_S, 2 * self._patience_s)
            self._probes += 1
            effects += self._transmit(self._probe())
        return effects

    def due(self) -> float | None:
        """When `tick` has something to do, as of the last tick; None: not before something is sent or comes."""
        times = [] if self._owed_since is None else [self._owed_since + ACK_S]
        if self._silent_since is not None:
            times.append(self._silent_since + self._patience_s)
        if self._gap and not self._down:
            times.append(self._ask_due())
        return min(times, default=None)

    def statistics(self) -> CourierStatistics:
        return CourierStatistics(
            self.sent,
            len(self._unacked),
            self.unacked_bytes,
            self._held_bytes,
            self._probes,
            self._resends,
            self._resent,
            self._resent_bytes,
            self.received,
            self.received_bytes,
            self._duplicates,
            self._out_of_order,
            self._asked,
            self._strange,
        )

    def __repr__(self) -> str:
        how = "down" if self._down else "sending again" if self._cursor else "up"
        kept = f"{len(self._unacked)} unacked ({self.unacked_bytes} bytes)"
        return f"<Courier {how} | {self.sent} sent, {kept}, {self._resent} resent | {self.received} received>"
