"""How one process of a pipeline asks another: by a line where both are on one node, else by calls."""

from __future__ import annotations

import threading
from typing import Any

from zmreg.api.lines import HasRefsError, Line, LineLostError, line_to


class Caller:
    """The way to one actor. Used by one thread, which closes it; `cut` is for any."""

    __slots__ = ("_guard", "_is_cut", "_line", "_looked")

    def __init__(self) -> None:
        self._line: Line | None = None
        self._looked = self._is_cut = False
        self._guard = threading.Lock()

    def call(self, actor: Any, name: str, *args: Any) -> Any:
        """What that method of the actor returns. Raises what calls do; LineLostError: nothing is known of it, since
        the line was lost, and by now there is none, or since it was cut."""
        if not self._looked:
            self._look(actor)
        line = self._line
        if line is not None:
            try:
                return line.ask(name, *args)
            except LineLostError:
                self.close()
                raise
            except HasRefsError:
                pass
        if self._is_cut:
            raise LineLostError
        return getattr(actor, name).remote(*args).get()

    def _look(self, actor: Any) -> None:
        address = actor.lines.remote().get()
        line = None if address is None else line_to(address)
        with self._guard:
            self._looked = True
            self._line = line
            if self._is_cut and line is not None:
                line.cut()

    def cut(self) -> None:
        """Whoever waits for an answer on the line stops waiting. Idempotent."""
        with self._guard:
            self._is_cut = True
            if self._line is not None:
                self._line.cut()

    def close(self) -> None:
        """From now on it is calls. Idempotent."""
        with self._guard:
            line, self._line = self._line, None
        if line is not None:
            line.close()
