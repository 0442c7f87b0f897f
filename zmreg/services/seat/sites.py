"""Where this program has made its values, for the errors of those that are lost: by ZMREG_RECORD_CALL_SITES=1 alone.

It costs a look at the stack for each ref, so the constructor of refs is replaced where it is wanted, and nobody else
pays for the question.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

VARIABLE: Final = "ZMREG_RECORD_CALL_SITES"
# Of the latest values; some 150 bytes each.
_MOST: Final = 10_000
_PACKAGE: Final = str(Path(__file__).parents[2]) + os.sep

_sites: dict[bytes, tuple[str, int, str]] = {}
"""Object id -> file, line, function."""


def wanted() -> bool:
    """Whether this process records them."""
    return os.environ.get(VARIABLE, "") not in ("", "0")


def noting(plain: Callable[[Any, Any], None]) -> Callable[[Any, Any], None]:
    """The constructor of refs that notes who has called for them, if the value is ours and new."""
    from zmreg.services.seat.client import current  # late: it leads here itself

    def noted(self: Any, entry: Any) -> None:
        plain(self, entry)
        seat = current()
        if seat is not None and entry.owner == seat.me and entry.object_id not in _sites:
            _note(entry.object_id)

    return noted


def _note(object_id: bytes) -> None:
    frame = sys._getframe(1)
    while frame.f_code.co_filename.startswith(_PACKAGE):
        if frame.f_back is None:
            return
        frame = frame.f_back
    with contextlib.suppress(RuntimeError):  # another thread has just noted one: it makes room, or whoever is next
        while len(_sites) >= _MOST:
            _sites.pop(next(iter(_sites)), None)
    _sites[object_id] = frame.f_code.co_filename, frame.f_lineno, frame.f_code.co_qualname


def made_at(object_id: bytes) -> str:
    """A sentence that goes behind others, or nothing."""
    site = _sites.get(object_id)
    return "" if site is None else f". It was made at {site[0]}:{site[1]}, in {site[2]}"
