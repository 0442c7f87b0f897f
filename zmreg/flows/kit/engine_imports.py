"""What a block of code imports, and under which names."""

from __future__ import annotations

import builtins
import sys
import threading
import types
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self


class Watched:
    """While it is entered, import statements of one frame are noted; those inside of imported modules are not."""

    def __init__(self, frame: types.FrameType) -> None:
        self._frame = frame
        self._thread = threading.get_ident()
        self._seen: list[tuple[str, tuple[str, ...]]] = []
        """(module, names taken out of it)."""
        self._import: Callable[..., Any] = builtins.__import__

    def __enter__(self) -> Self:
        self._import = builtins.__import__
        builtins.__import__ = self._noted  # type: ignore[assignment]  # what it is given goes on as it is
        return self

    def __exit__(self, *_: object) -> None:
        builtins.__import__ = self._import

    def _noted(
        self,
        name: str,
        globals: dict[str, Any] | None = None,
        locals: dict[str, Any] | None = None,
        fromlist: Sequence[str] | None = (),
        level: int = 0,
    ) -> Any:
        module = self._import(name, globals, locals, fromlist, level)
        if globals is self._frame.f_globals and threading.get_ident() == self._thread:
            whole = module.__name__ if fromlist or level else name
            self._seen.append((whole, tuple(fromlist or ())))
        return module

    def found(self) -> list[tuple[str, str, str]]:
        """(name, module, attribute or ""), by what the frame has under which names now."""
        names = {**self._frame.f_globals, **self._frame.f_locals}
        rows: dict[tuple[str, str, str], None] = {}
        for module, parts in self._seen:
            if not parts:
                for each in _above(module):
                    rows |= dict.fromkeys((name, each, "") for name in _names_of(sys.modules.get(each), "", names))
            for part in _public(module) if "*" in parts else parts:
                value = getattr(sys.modules[module], part, None)
                rows |= dict.fromkeys((name, module, part) for name in _names_of(value, part, names))
        return list(rows)


def _names_of(value: object, likely: str, names: Mapping[str, object]) -> list[str]:
    """Under which names it is here; the likely one is taken if it is, as True and 1 are many things."""
    if value is None:
        return []
    if names.get(likely) is value:
        return [likely]
    return [name for name, each in names.items() if each is value]


def _public(module: str) -> list[str]:
    """What `from module import *` takes."""
    found = vars(sys.modules[module])
    return list(found.get("__all__", [name for name in found if not name.startswith("_")]))


def _above(module: str) -> list[str]:
    """a.b.c: `import` binds a, or with `as` the whole."""
    return list(dict.fromkeys([module.partition(".")[0], module]))
