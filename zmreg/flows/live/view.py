"""Drawing a live table: on a thread of its own, which looks every so often and is never waited for by what it shows."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol, TextIO

from zmreg.core.live_table import Line, LiveTable

# Where the table is drawn anew. In a log each look is a line, so there are fewer.
DRAWN_EVERY_S: Final = 0.5
LOGGED_EVERY_S: Final = 5.0

Look = Callable[[], Sequence[Line]]
"""What is to be shown, as it is now. Called on the thread of the view."""


class Canvas(Protocol):
    """Where a table is shown. `every_s`: how often to draw, unless somebody says so."""

    every_s: float

    def draw(self, table: LiveTable) -> None:
        """Show it as it stands now."""
        ...


class LiveView:
    """A table on stderr, in a notebook below the cell, or as lines of a log, until it is closed. A context manager."""

    def __init__(self, look: Look, every_s: float | None = None, stream: TextIO | None = None) -> None:
        """`every_s`: seconds between looks; None: half a second where it is drawn anew, five where it is a log."""
        if every_s is not None and not every_s > 0:
            raise ValueError(f"every_s={every_s!r}: seconds above 0")
        self._look = look
        self._canvas = canvas(sys.stderr if stream is None else stream)
        self._every_s = self._canvas.every_s if every_s is None else every_s
        self._table = LiveTable()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._go, name="zmreg-live-view", daemon=True)
        self._thread.start()

    def _go(self) -> None:
        self._show()
        while not self._over.wait(self._every_s):
            self._show()
        self._show()

    def _show(self) -> None:
        self._table.look(self._look(), time.monotonic())
        self._canvas.draw(self._table)

    def close(self) -> None:
        """Show the end, and no more. Idempotent; waits for the thread, unless it is the one that calls."""
        self._over.set()
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def drop(self) -> None:
        """The same by the garbage collector, which may come in the midst of anything: nothing is waited for."""
        self._over.set()

    def __enter__(self) -> LiveView:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def canvas(stream: TextIO) -> Canvas:
    """A notebook's cell where there is one, a terminal drawn anew where `stream` is one, else a log."""
    interactive = sys.modules.get("IPython")
    shell = interactive.get_ipython() if interactive is not None else None
    if shell is not None and hasattr(shell, "kernel"):
        return _Cell()
    return _Terminal(stream) if stream.isatty() else _Log(stream)


class _Terminal:
    """Goes up as many lines as it has written, and writes them anew."""

    every_s = DRAWN_EVERY_S

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._up = 0

    def draw(self, table: LiveTable) -> None:
        import shutil  # late: most never watch

        size = shutil.get_terminal_size()
        lines = [line[: size.columns - 1] for line in table.text()]
        if len(lines) >= size.lines:  # what has scrolled away cannot be written anew
            lines = [*lines[: size.lines - 2], f"... {len(lines) - size.lines + 2} more"]
        back = f"\x1b[{self._up}F" if self._up else ""
        # What had more lines the last time leaves some behind: they are cleared.
        self._stream.write(back + "".join(f"{line}\x1b[K\n" for line in lines) + "\x1b[J")
        self._stream.flush()
        self._up = len(lines)


class _Log:
    every_s = LOGGED_EVERY_S

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._last = ""

    def draw(self, table: LiveTable) -> None:
        told = table.plain()
        if told.partition(": ")[2] != self._last:  # nothing has moved: nothing is said
            self._last = told.partition(": ")[2]
            self._stream.write(f"{told}\n")
            self._stream.flush()


class _Cell:
    """A display below the cell, which is updated in place."""

    every_s = DRAWN_EVERY_S

    def __init__(self) -> None:
        self._handle: Any = None

    def draw(self, table: LiveTable) -> None:
        from IPython.display import display  # late: only where IPython is running

        shown = _Shown(table.to_html(), "\n".join(table.text()))
        if self._handle is None:
            self._handle = display(shown, display_id=True)
        else:
            self._handle.update(shown)


class _Shown:
    def __init__(self, html: str, text: str) -> None:
        self._html, self._text = html, text

    def _repr_html_(self) -> str:
        return self._html

    def __repr__(self) -> str:
        return self._text
