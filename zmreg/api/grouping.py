"""Concurrency groups and order of calls: what a class may ask for, and what a call may."""

from __future__ import annotations

import inspect
from collections.abc import Collection, Mapping
from typing import Any

from zmreg.services.calling.kinds import is_async_class
from zmreg.services.worker.concurrency import Grouped


def grouped(cls: type, methods: Mapping[str, Mapping[str, Any]], options: Mapping[str, Any]) -> Any:
    """What to ship in place of the class: itself when it has no groups."""
    limits = options.get("concurrency_groups")
    if not limits:
        return cls
    return Grouped(
        cls,
        dict(limits),
        {name: own["concurrency_group"] for name, own in methods.items() if own.get("concurrency_group")},
    )


def is_ordered(cls: type, options: Mapping[str, Any]) -> bool:
    """Whether a caller's calls run one by one, in the order they were made."""
    return not (
        options.get("allow_out_of_order_execution") or options.get("concurrency_groups") or _is_concurrent(cls, options)
    )


def check_class(cls: type, methods: Mapping[str, Mapping[str, Any]], options: Mapping[str, Any]) -> None:
    """ValueError for a method of a group that the class has not, and for order where many calls run at once."""
    check_groups(options.get("concurrency_groups"))
    groups = options.get("concurrency_groups") or {}
    for name, own in methods.items():
        if own.get("concurrency_group") is not None:
            check_group(own["concurrency_group"], groups, f"{cls.__name__}.{name}")
        if own.get("batch") is not None and own["batch"] not in methods:
            raise ValueError(f"{cls.__name__}.{name} has batch={own['batch']!r}, which is no method of the class")
        if own.get("release") and not inspect.isgeneratorfunction(getattr(cls, name)):
            raise ValueError(
                f"{cls.__name__}.{name} has release=True and is no generator: `value = yield ref` is where it lets go"
            )
    if options.get("allow_out_of_order_execution") is False and (groups or _is_concurrent(cls, options)):
        raise ValueError(
            f"{cls.__name__} runs several calls at once (async methods, max_concurrency or concurrency_groups), in no "
            "order: leave allow_out_of_order_execution=False out, or make it a plain class"
        )


def check_group(group: Any, known: Collection[str], what: str) -> None:
    """ValueError for a group that is not among those of the class."""
    if group is not None and group not in known:
        have = ", ".join(sorted(known)) or "none"
        raise ValueError(
            f"{what} asks for concurrency_group={group!r}, and its class has {have}: name it in "
            "@zmreg.remote(concurrency_groups={...}); None is the default group"
        )


def check_groups(groups: Any) -> None:
    """TypeError or ValueError for anything but {name: how many calls at once}."""
    if groups is None:
        return
    if not isinstance(groups, dict):
        raise TypeError(f"concurrency_groups is a dict of group -> calls at once, not {groups!r}")
    for name, limit in groups.items():
        if not isinstance(name, str) or not name or "\0" in name:
            raise ValueError(f"concurrency_groups: a group's name is a string that is not empty, not {name!r}")
        if not isinstance(limit, int) or isinstance(limit, bool):
            raise TypeError(f"concurrency_groups: {name!r} has {limit!r} calls at once; give an int")
        if limit < 1:
            raise ValueError(f"concurrency_groups: {name!r} has {limit} calls at once; the least is 1")


def _is_concurrent(cls: type, options: Mapping[str, Any]) -> bool:
    return is_async_class(cls) or (options.get("max_concurrency") or 1) > 1
