"""Plugins on a worker: set up once by name; torn down when replaced, taken away, or when the worker ends in peace."""

from __future__ import annotations

import atexit
import logging
import threading
from collections.abc import Iterable
from typing import Any

from zmreg.wire import payload

log = logging.getLogger("zmreg.plugins")

_plugged: dict[str, tuple[int, Any]] = {}
_guard = threading.RLock()


def plug(blob: bytes) -> None:
    """Set one up, unless it is there already or a later one is. Raises what unpickling it and its `setup` raise."""
    row: Any = payload.unpack(blob)
    name, stamp, plugin = row
    with _guard:
        if not _plugged:
            atexit.register(unplug_all)
        if _plugged.get(name, (0, None))[0] >= stamp:
            return
        _tear_down(name)
        _plugged[name] = stamp, plugin
        _call(plugin, "setup")


def unplug(name: str, stamp: int) -> None:
    """Tear it down, unless a later one has its name. Raises what its `teardown` raises.

    It is noted also where it is not there: a worker that has just been welcomed may be about to set it up.
    """
    with _guard:
        if _plugged.get(name, (0, None))[0] < stamp:
            _tear_down(name)
            _plugged[name] = stamp, None


def unplug_all() -> None:
    """The worker ends: the last one first."""
    with _guard:
        for name in reversed(list(_plugged)):
            try:
                _tear_down(name)
            except Exception:
                log.exception("plugin %r raised when it was torn down", name)


def begin(blobs: Iterable[bytes]) -> None:
    """Set up what there is, before the first call. An error is told on stderr, and the worker works without it."""
    for blob in blobs:
        try:
            plug(blob)
        except Exception:
            log.exception("a plugin of this worker could not be set up")


def _tear_down(name: str) -> None:
    _, plugin = _plugged.pop(name, (0, None))
    _call(plugin, "teardown")


def _call(plugin: Any, what: str) -> None:
    function = getattr(plugin, what, None)
    if function is not None:
        function()
