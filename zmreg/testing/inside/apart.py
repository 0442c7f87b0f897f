"""Classes that travel by value are another process's own there: a worker must not share their attributes with us."""

from __future__ import annotations

import sys
import weakref
from collections.abc import Callable
from typing import Any


class _ByProcess:
    """What cloudpickle keeps of such classes, {id: class}, once for each process of the cluster."""

    def __init__(self, here: Callable[[], object], ours: Any) -> None:
        self._here = here
        self._ours = ours
        self._theirs: weakref.WeakKeyDictionary[Any, weakref.WeakValueDictionary[str, type]]
        self._theirs = weakref.WeakKeyDictionary()

    def _mine(self) -> Any:
        process = self._here()
        if process is None:
            return self._ours
        known = self._theirs.get(process)
        if known is None:
            known = self._theirs.setdefault(process, weakref.WeakValueDictionary())
        return known

    def setdefault(self, class_id: str, cls: type) -> type:
        """The class of that id in this process: the one that is known, else `cls`."""
        known: type = self._mine().setdefault(class_id, cls)
        return known

    def __setitem__(self, class_id: str, cls: type) -> None:
        self._mine()[class_id] = cls


_TABLE = "_DYNAMIC_CLASS_TRACKER_BY_ID"
_whole: list[Any] = []


def classes_apart(here: Callable[[], object] | None) -> None:
    """From now on `here()` says whose classes a thread knows (None: the program's); None: all are one process again."""
    pickler: Any = sys.modules["cloudpickle.cloudpickle"]
    if here is not None and not _whole:
        _whole.append(getattr(pickler, _TABLE))
        setattr(pickler, _TABLE, _ByProcess(here, _whole[0]))
    elif here is None and _whole:
        setattr(pickler, _TABLE, _whole.pop())
