"""What workers have printed, shown by the program that called them: on stderr, or in the cell of a notebook.

In a notebook it appears below the cell that made the call, also when others have run since: calls are numbered, so the
number at which each cell began is enough to find it.
"""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from bisect import bisect_right
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Final

from zmreg.core.echoes import Echoes
from zmreg.model.ids import counter_of
from zmreg.model.messages import LogLines

if TYPE_CHECKING:
    from zmreg.services.seat.client import Client

# Cells whose number is remembered; what calls of earlier ones print appears in the oldest of these.
_CELLS: Final = 1_000


class Cells:
    """The cells that ran since this was made, by the number of the first call that each could make."""

    def __init__(self, shell: Any, stream: Any, next_number: Callable[[], int]) -> None:
        """`stream`: the kernel's stdout."""
        self._shell = shell
        self._stream = stream
        self._next_number = next_number
        self._first: list[int] = []
        self._headers: list[dict[str, Any]] = []
        self._begins()
        shell.events.register("pre_run_cell", self._begins)

    def _begins(self, _info: object = None) -> None:
        header = getattr(self._stream, "parent_header", None)
        if not header:
            return
        first = self._next_number()
        if self._first and self._first[-1] == first:  # the last cell has made no call
            self._headers[-1] = header
            return
        self._first.append(first)
        self._headers.append(header)
        del self._first[:-_CELLS], self._headers[:-_CELLS]

    def place(self, counter: int) -> int:
        """Which cell made the call of this number: a number for `write`. 0: the latest."""
        if not counter:
            return self._first[-1] if self._first else 0
        return self._first[max(0, bisect_right(self._first, counter) - 1)] if self._first else counter

    def write(self, place: int, text: str) -> None:
        """Show it below that cell. The kernel's own thread sends it."""
        if not self._headers:
            self._stream.write(text)
            return
        header = self._headers[max(0, bisect_right(self._first, place) - 1)]
        stream = self._stream

        def send() -> None:
            content = {"name": "stdout", "text": text}
            stream.session.send(stream.pub_thread, "stream", content, parent=header, ident=stream.topic)

        stream.pub_thread.schedule(send)

    def close(self) -> None:
        """No more cells are noted."""
        with contextlib.suppress(ValueError):  # it was taken out by whoever reset the shell
            self._shell.events.unregister("pre_run_cell", self._begins)


def cells(next_number: Callable[[], int]) -> Cells | None:
    """None when this is no notebook."""
    interactive = sys.modules.get("IPython")
    shell = interactive.get_ipython() if interactive is not None else None
    wanted = ("parent_header", "pub_thread", "session", "topic")
    if shell is None or not all(hasattr(sys.stdout, name) for name in wanted):
        return None
    return Cells(shell, sys.stdout, next_number)


def turn_on(client: Client, dedup_s: float | None) -> None:
    """Show from now on what this driver's calls print. `dedup_s`: None is what the settings say."""
    if dedup_s is None:
        from zmreg.model.settings import Settings  # late, both: read already by whoever starts a node
        from zmreg.services.setup import config

        dedup_s = float(config.values().get("log_dedup_s", Settings().log_dedup_s))
    client.screen = Screen(client, dedup_s)
    client.show_log = client.screen.show
    client.ticks.age(0)  # what is made from now on is younger


class Screen:
    """Shows lines as they come, alike ones of several workers once (core/echoes.py). Any thread."""

    def __init__(self, client: Client, dedup_s: float) -> None:
        self._echoes = Echoes(dedup_s)

        def begins() -> int:
            client.ticks.age(0)  # by this, what a cell makes is known to be no older than the cell
            return client.tasks.next_number

        self._cells = cells(begins)
        self._lock = threading.RLock()
        self._timer: threading.Timer | None = None
        self._closed = False

    def show(self, _node: bytes, message: LogLines) -> None:
        """Lines of one call, each with who has printed it. Of a line that was redrawn, what it showed last."""
        place = 0
        if self._cells is not None:
            place = self._cells.place(counter_of(message.task) if message.task else 0)
        now = time.monotonic()
        with self._lock:
            lines = [(place, message.source, each) for each in _lines(message.text)]
            shown = self._echoes.over(now) if lines else []
            shown += [line for line in lines if self._echoes.hear(*line, now)]
            if message.skipped:
                note = f"... {message.skipped} bytes not shown: over the rate cap"
                shown.append((place, message.source, note))
            self._write(shown)
            self._look_again(now)

    def _write(self, lines: list[Any]) -> None:
        by_place: dict[int, list[str]] = {}
        for place, source, line in lines:
            by_place.setdefault(place, []).append(f"({source}) {line}\n")
        for place, texts in by_place.items():
            if self._cells is not None:
                self._cells.write(place, "".join(texts))
            else:
                with _beside_bars():
                    sys.stderr.write("".join(texts))
                    sys.stderr.flush()

    def _look_again(self, now: float) -> None:
        due = self._echoes.due()
        if due is not None and self._timer is None and not self._closed:
            self._timer = threading.Timer(max(0.0, due - now), self._say_due)
            self._timer.name, self._timer.daemon = "zmreg-echoes", True
            self._timer.start()

    def _say_due(self) -> None:
        with self._lock:
            self._timer = None
            if not self._closed:
                now = time.monotonic()
                self._write(self._echoes.over(now))
                self._look_again(now)

    def close(self) -> None:
        """Say what is still counted."""
        with self._lock:
            self._closed = True
            timer, self._timer = self._timer, None
            self._write(self._echoes.over(float("inf")))
            if self._cells is not None:
                self._cells.close()
        if timer is not None:
            timer.cancel()
            timer.join()


def _lines(text: str) -> Iterator[str]:
    for line in text.split("\n")[: None if text and not text.endswith("\n") else -1]:
        yield line.rstrip("\r").rpartition("\r")[2]


@contextlib.contextmanager
def _beside_bars() -> Iterator[None]:
    """Bars of tqdm in this program are cleared meanwhile, and drawn again."""
    bars = getattr(sys.modules.get("tqdm"), "tqdm", None)
    if bars is None or not getattr(bars, "_instances", None):
        yield
        return
    with bars.external_write_mode(file=sys.stderr):
        yield
