"""How a call is shown where it runs, as far as its caller has said so: `options(name=..., quiet=..., _labels=...)`.

A task's manner stands behind the function's digest in the call itself: a call without one carries and asks nothing, and
the definition travels once, whatever its calls are named. An actor's travels with its class.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from zmreg.model.record import Record

SHOWN: Final = "\0="
"""Behind a method's name, and before all else that stands there: its call's manner."""
_SEPARATOR: Final = "\x1f"
"""In a method's manner in place of \0, which there ends it."""
DIGEST_BYTES: Final = 16
"""Of what a task's call says first; the rest is its manner."""
# What is shown of a name where the call runs. A call carries it, and a worker's board has no room for more.
NAME_CHARS: Final = 80
_LABELS_BYTES: Final = 512
_QUIET, _UNLISTED = 1, 2


class Manner(Record):
    """What a caller has said. `name`: instead of the function's; empty for that one."""

    name: str = ""
    quiet: bool = False
    """What it prints stays in its worker's log."""
    listed: bool = True
    """`zmreg list tasks` shows it."""
    labels: tuple[tuple[str, str], ...] = ()


PLAIN: Final = Manner()
UNSEEN: Final = Manner(listed=False)


class Mannered(Record):
    """What travels in place of an actor's class that has a manner. `around`, which is put there on its arrival: what
    calls `Host.create` with its arguments (services/worker/carrying.py)."""

    cls: Any
    manner: Manner
    around: Any = None


def manner_of(options: Mapping[str, Any], name: object) -> Manner:
    """What these options say; `name` is the one that a function or class has anyway."""
    given = options.get("name")
    labels = options.get("_labels") or {}
    return Manner(
        _clean(str(given))[:NAME_CHARS] if given and given != name else "",
        bool(options.get("quiet")),
        options.get("enable_task_events", True) is not False,
        tuple(sorted((_clean(key), _clean(value)) for key, value in labels.items())),
    )


def _clean(text: str) -> str:
    return text.replace("\0", " ")


def written(manner: Manner) -> bytes:
    """As it travels; empty for the plain one."""
    if manner == PLAIN:
        return b""
    flags = _QUIET * manner.quiet + _UNLISTED * (not manner.listed)
    parts = [str(flags), manner.name, *(part for label in manner.labels for part in label)]
    return "\0".join(parts).encode(errors="replace")


def method_shown(options: Mapping[str, Any], name: str) -> str:
    """What stands behind the name of a method that is called with these options; empty for the plain manner."""
    text = written(manner_of(options, name)).decode(errors="replace")
    return SHOWN + text.replace(_SEPARATOR, " ").replace("\0", _SEPARATOR) if text else ""


def read_shown(text: str) -> Manner:
    """What `method_shown` has written, without `SHOWN`."""
    return read(text.replace(_SEPARATOR, "\0").encode())


def read(data: bytes) -> Manner:
    """What was written, or its beginning: a label that is cut is left out. Of what makes no sense, the plain one."""
    flags, _, rest = data.decode(errors="replace").partition("\0")
    if not flags.isdigit():
        return PLAIN
    name, *parts = rest.split("\0")
    labels = tuple(zip(parts[::2], parts[1::2], strict=False))
    return Manner(name, bool(int(flags) & _QUIET), not int(flags) & _UNLISTED, labels)


def mannered(cls: Any, options: Mapping[str, Any], name: str) -> Any:
    """What to ship in place of a class: itself when nothing was said of how it is shown."""
    manner = manner_of(options, name)
    return cls if manner == PLAIN else Mannered(cls, manner)


def check_manner(options: Mapping[str, Any]) -> None:
    """TypeError, ValueError for what makes no sense."""
    for name in ("quiet", "enable_task_events"):
        if name in options and not isinstance(options[name], bool):
            raise TypeError(f"{name} must be a bool, not {options[name]!r}")
    labels = options.get("_labels")
    if labels is None:
        return
    if not isinstance(labels, dict) or not all(isinstance(text, str) for pair in labels.items() for text in pair):
        raise TypeError(f"_labels is a dict of str -> str, not {labels!r:.80}")
    if sum(len(text.encode()) + 1 for pair in labels.items() for text in pair) > _LABELS_BYTES:
        raise ValueError(f"_labels is for a few words: at most {_LABELS_BYTES} bytes in all")
