"""Letters that were sent to a peer and not yet acknowledged, and the ways to send them again.

The half of a courier (core/courier.py) that outlives a link: what it keeps, where sending again stands, how much goes
at once. Sending again is "go back n" with an end: a burst is at most 1 MiB (or one letter), the next burst waits for
word that the last one arrives, and how much may be under way grows with that word. While old letters are being sent
again, new ones wait behind them: sent at once they would arrive out of order and be dropped.

When a second has passed in silence, the peer may be slow instead of cut off, and all that was sent may still be on its
way. So nothing is repeated then but the last letter that left, as a *probe*: a peer that lost what came before it sees
a gap and says where to go on, and a peer that has not lost anything drops it.

Invariants:
- `_unacked` holds exactly the letters `_acked` + 1 to `sent`.
- `_cursor` is 0 in the usual case, when every letter has been on a link. Else `_acked` < `_cursor` <= `sent` + 1, and
  letters above `_high`, `_held_bytes` in all, were never on a link.
- `_out_bytes` is what the letters from `_acked` + 1 to below `_cursor` hold, while there is a cursor.
"""

from __future__ import annotations

from collections import deque
from typing import Final

# Letters sent again in one go, in bytes and (for tiny ones: a burst is a turn of the caller's loop) in number.
BURST_BYTES: Final = 1 << 20
BURST_LETTERS: Final = 1_024
# How much may be under way at most while sending again. More than a fast network holds in its buffers.
MAX_WINDOW_BYTES: Final = 64 << 20


class Outgoing:
    """`sent` is the last number given, `unacked_bytes` what the letters kept hold. Not used alone."""

    __slots__ = (
        "_acked",
        "_cursor",
        "_down",
        "_held_bytes",
        "_high",
        "_out_bytes",
        "_resends",
        "_resent",
        "_resent_bytes",
        "_strange",
        "_unacked",
        "_window_bytes",
        "sent",
        "unacked_bytes",
    )

    def __init__(self) -> None:
        self.sent = 0
        self.unacked_bytes = 0
        self._unacked: deque[tuple[object, int]] = deque()
        self._acked = 0
        self._down = False
        self._cursor = 0  # the next to go out while sending again; also says that new letters wait
        self._high = 0  # the last that was ever on a link; kept only while there is a cursor
        self._held_bytes = 0
        self._out_bytes = 0
        self._window_bytes = BURST_BYTES
        self._resends = self._resent = self._resent_bytes = 0
        self._strange = 0  # words of the peer that make no sense

    @property
    def acked(self) -> int:
        """The last number that the peer has acknowledged."""
        return self._acked

    def kept(self) -> list[object]:
        """The letters that are not acknowledged, in order."""
        return [letter for letter, _ in self._unacked]

    def _was_sent(self, seq: int) -> bool:
        return 0 < seq <= (self._high if self._cursor else self.sent)

    def _settle(self, ack: int) -> bool:
        """Let go of what is acknowledged; whether there is now something to pump."""
        if ack <= self._acked:
            return False
        if not self._was_sent(ack):
            self._strange += 1
            return False
        freed = freed_out = 0
        for seq in range(self._acked + 1, ack + 1):
            nbytes = self._unacked.popleft()[1]
            freed += nbytes
            if seq < self._cursor:
                freed_out += nbytes
        self._acked = ack
        self.unacked_bytes -= freed
        if not self._cursor:
            return False
        self._out_bytes -= freed_out
        self._window_bytes = min(MAX_WINDOW_BYTES, self._window_bytes + freed)
        if ack >= self._cursor:
            # More than this cursor has sent: letters of an earlier sending had arrived before the link was cut.
            self._cursor = ack + 1
            self._out_bytes = 0
        return True

    def _rewind(self) -> None:
        """Start again behind what is acknowledged."""
        if not self._cursor:
            self._high = self.sent
            self._held_bytes = 0
        self._cursor = self._acked + 1
        self._out_bytes = 0
        self._window_bytes = BURST_BYTES
        self._resends += not self._down and self._acked < self._high

    def _burst(self) -> list[tuple[int, object]]:
        """(number, letter) from the cursor on, as far as the window allows; at the end of the queue, back to usual."""
        letters: list[tuple[int, object]] = []
        burst = 0
        while self._cursor and not self._down:
            index = self._cursor - self._acked - 1
            if index >= len(self._unacked):
                self._cursor = 0
                break
            letter, nbytes = self._unacked[index]
            full = burst + nbytes > BURST_BYTES or len(letters) >= BURST_LETTERS
            # A letter larger than the burst or the window passes alone.
            if (letters and full) or (self._out_bytes and self._out_bytes + nbytes > self._window_bytes):
                break
            letters.append((self._cursor, letter))
            if self._cursor > self._high:
                self._high = self._cursor
                self._held_bytes -= nbytes
            else:
                self._resent += 1
                self._resent_bytes += nbytes
            self._cursor += 1
            self._out_bytes += nbytes
            burst += nbytes
        return letters

    def _probe(self) -> list[tuple[int, object]]:
        """(number, letter) of the last one that left, if it is still to be acknowledged."""
        last = self._cursor - 1 if self._cursor else self.sent
        if last <= self._acked:
            return []
        letter, nbytes = self._unacked[last - self._acked - 1]
        self._resent += 1
        self._resent_bytes += nbytes
        return [(last, letter)]
