"""`breakpoint()` in a worker, and errors that are held there: what each worker has from the start. pdb comes later.

A user's own setting wins: PYTHONBREAKPOINT, wherever it is set, and a `sys.breakpointhook` of their own.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakKeyDictionary

from zmreg.services.seat.client import Client, current

if TYPE_CHECKING:
    from zmreg.services.worker.stopping import Stops
    from zmreg.services.worker.worker import Worker

POST_MORTEM: Final = "ZMREG_POST_MORTEM"
"""Of a worker's environment: calls that raise are held. `1`, or seconds."""
HOLD_S: Final = 600.0
stops: WeakKeyDictionary[Client, Stops] = WeakKeyDictionary()
"""Of the workers here, once a call of theirs has met a breakpoint."""
_YES: Final = frozenset({"1", "true", "yes", "on"})
_NO: Final = frozenset({"", "0", "false", "no", "off"})


def set_up() -> None:
    """From now on `breakpoint()` opens a stop (services/worker/stopping.py)."""
    sys.breakpointhook = stop_here


def stop_here(*args: Any, **keywords: Any) -> Any:
    """What `breakpoint()` calls."""
    worker = worker_here()
    if worker is None or os.environ.get("PYTHONBREAKPOINT"):
        return sys.__breakpointhook__(*args, **keywords)
    from zmreg.services.worker.debugger import stop_at  # late: pdb takes 20 ms

    return stop_at(worker, sys._getframe(1), *args, **keywords)


def worker_here() -> Worker | None:
    """This process's worker, if it is one with a process of its own and was not forked by user code."""
    seat = current()
    if seat is None or seat.on_wait is None or seat.shares_process or seat.forked or seat.closed is not None:
        return None
    return seat  # type: ignore[return-value]  # only a worker has on_wait


def hold(seat: Client, error: BaseException, name: str) -> None:
    """A call has raised: with post-mortem wanted, returns when somebody has looked at it, or nobody within the time."""
    try:
        seconds = hold_s(os.environ.get(POST_MORTEM, ""))
    except ValueError:  # the program that has set it was told (api/cluster.py); a task may have set anything
        seconds = 0.0
    worker = worker_here()
    if not seconds or worker is not seat or worker is None or not isinstance(error, Exception):
        return
    from zmreg.services.worker.debugger import hold_at  # late, as above

    hold_at(worker, error, name, seconds)


def hold_s(text: str) -> float:
    """What the variable says, in seconds; 0: errors are not held. ValueError for what is neither yes, no nor a time."""
    word = text.strip().lower()
    if word in _YES:
        return HOLD_S
    if word in _NO:
        return 0.0
    try:
        seconds = float(word)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < float("inf"):
        raise ValueError(f"{POST_MORTEM}={text!r}: 1, 0, or how many seconds a call that raised is held")
    return seconds
