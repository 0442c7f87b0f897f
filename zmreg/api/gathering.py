"""Values of many refs at once: errors among them, and refs anywhere in a nested structure."""

from __future__ import annotations

from collections.abc import Mapping
from operator import methodcaller
from typing import Any

from zmreg.api.cluster import get
from zmreg.api.refs import ObjectRef
from zmreg.model.arguments import check_seconds
from zmreg.model.errors import GetTimeoutError, ZmregError
from zmreg.services.seat.seats import client

__tracebackhide__ = methodcaller("errisinstance", ZmregError)  # as in api/refs.py


def get_each(refs: list[ObjectRef[Any]], timeout: float | None, copy: bool) -> list[Any]:
    """The values in order, an error in the place of each that failed. GetTimeoutError."""
    seat = client()
    entries = [ref._entry for ref in refs]
    distinct = list({id(entry): entry for entry in entries}.values())
    if distinct and not seat.wait_for(distinct, len(distinct), False, timeout):
        seat.check()
        raise GetTimeoutError(
            f"not all of {len(refs)} objects were there within {timeout} s; the work goes on", timeout
        )
    values: list[Any] = []
    for ref in refs:
        try:
            values.append(ref.get(None, copy))
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # noqa: BLE001  asked for: errors as values
            values.append(error)
    return values


def gather(structure: Any, timeout: float | None = None, *, errors: str = "raise") -> Any:
    """The same nested structure (lists, tuples, sets, dicts) with every ref in it replaced by its value.

    `errors`: "raise" the first one found, "return" each in the place of its value, or "skip" what failed (None where
    nothing can be left out: a ref alone, a field of a named tuple). GetTimeoutError after `timeout` seconds in all.
    """
    if errors not in ("raise", "return", "skip"):
        raise ValueError(f"errors={errors!r}: use 'raise', 'return' or 'skip'")
    check_seconds(timeout, past=True)
    refs: list[ObjectRef[Any]] = []
    _collect(structure, refs)
    values = {id(ref): value for ref, value in zip(refs, _gathered(refs, timeout, errors), strict=True)}
    whole = _replace(structure, values)
    return None if whole is _SKIPPED else whole


_SKIPPED: Any = object()


def _gathered(refs: list[ObjectRef[Any]], timeout: float | None, errors: str) -> list[Any]:
    if errors == "raise":
        return get(refs, timeout)
    values = get_each(refs, timeout, False)
    if errors == "return":
        return values
    # By the ref: a value may be an exception that a task returned.
    return [_SKIPPED if ref.failed() else value for ref, value in zip(refs, values, strict=True)]


def _collect(part: Any, refs: list[ObjectRef[Any]]) -> None:
    if isinstance(part, ObjectRef):
        refs.append(part)
    elif isinstance(part, Mapping):
        for value in part.values():
            _collect(value, refs)
    elif isinstance(part, (list, tuple, set, frozenset)):
        for value in part:
            _collect(value, refs)


def _replace(part: Any, values: Mapping[int, Any]) -> Any:
    if isinstance(part, ObjectRef):
        return values[id(part)]
    if isinstance(part, Mapping):
        pairs = {key: _replace(value, values) for key, value in part.items()}
        return {key: value for key, value in pairs.items() if value is not _SKIPPED}
    if isinstance(part, tuple) and hasattr(part, "_fields"):
        fields: list[Any] = [_replace(value, values) for value in part]
        named: Any = type(part)
        return named(*(None if value is _SKIPPED else value for value in fields))
    if isinstance(part, (list, tuple, set, frozenset)):
        items = (_replace(value, values) for value in part)
        return type(part)(value for value in items if value is not _SKIPPED)
    return part
