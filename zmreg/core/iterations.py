"""How often a phase runs: for each point of a grid, each window, each fold. A pattern that is not known is an error:
a phase never runs once where it should have run often.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final, cast

from zmreg.model.errors import PhaseError


def items_of(spec: object, phase: str) -> list[object]:
    """The items of `foreach`: of an iterable its own, of `{"grid": {...}}`, `{"windows": {...}}` and
    `{"k_fold": {...}}` what these mean. Raises PhaseError for anything else, naming the patterns."""
    if isinstance(spec, Mapping):
        if len(spec) != 1 or next(iter(spec)) not in PATTERNS:
            raise PhaseError(f"phase {phase!r}: foreach={dict(spec)!r:.120}: write one of {', '.join(PATTERNS)} "
                             "with what it takes, or an iterable of items")  # fmt: skip
        ((pattern, given),) = spec.items()
        if not isinstance(given, Mapping):
            raise PhaseError(f"phase {phase!r}: foreach {pattern} takes a mapping, and not {given!r:.80}")
        return PATTERNS[pattern](given, f"phase {phase!r}: foreach {pattern}")
    if isinstance(spec, str | bytes) or not isinstance(spec, Iterable):
        raise PhaseError(f"phase {phase!r}: foreach={spec!r:.80} is nothing to iterate over")
    return list(spec)


def _grid(axes: Mapping[str, object], where: str) -> list[object]:
    """One dict for each combination, the last axis fastest."""
    if not axes:
        raise PhaseError(f"{where}: no axis; write {{'a': [1, 2], 'b': [3, 4]}}")
    for name, values in axes.items():
        if isinstance(values, str | bytes) or not isinstance(values, Iterable):
            raise PhaseError(f"{where}: axis {name!r} is {values!r:.80}, and not a list of values")
    lists = [list(cast("Iterable[object]", values)) for values in axes.values()]
    return [dict(zip(axes, point, strict=True)) for point in itertools.product(*lists)]


def _windows(given: Mapping[str, object], where: str) -> list[object]:
    """Of a number: {"start", "stop"} of each window; of a sequence: the windows themselves. The last one that is not
    full is left out, unless `partial`."""
    over, size, step, partial = _taken(given, where, over=None, size=None, step=None, partial=False)
    length = _length(over, where)
    width, stride = _count(size, f"{where}: size"), _count(size if step is None else step, f"{where}: step")
    starts = [start for start in range(0, length, stride) if partial or start + width <= length]
    if isinstance(over, int):
        return [{"start": start, "stop": min(start + width, length)} for start in starts]
    rows = cast("Sequence[object]", over)
    return [rows[start : start + width] for start in starts]


def _k_fold(given: Mapping[str, object], where: str) -> list[object]:
    """{"fold", "train", "test"} of each fold: parts as equal as can be, the first ones larger. Of a number, parts are
    lists of indices. `seed` shuffles them first."""
    over, k, seed = _taken(given, where, over=None, k=None, seed=None)
    length, folds = _length(over, where), _count(k, f"{where}: k")
    if not 2 <= folds <= length:
        raise PhaseError(f"{where}: k={folds} of {length}: write from 2 to {length}")
    order = list(range(length))
    if seed is not None:
        random.Random(seed).shuffle(order)  # type: ignore[arg-type]  # whatever Random takes
    rows = order if isinstance(over, int) else [cast("Sequence[object]", over)[place] for place in order]
    ends = list(itertools.accumulate(length // folds + (fold < length % folds) for fold in range(folds)))
    starts = [0, *ends[:-1]]
    return [
        {"fold": fold, "train": rows[:start] + rows[end:], "test": rows[start:end]}
        for fold, (start, end) in enumerate(zip(starts, ends, strict=True))
    ]


PATTERNS: Final[dict[str, Callable[[Mapping[str, object], str], list[object]]]] = {
    "grid": _grid, "parameter_grid": _grid, "windows": _windows, "k_fold": _k_fold,
}  # fmt: skip


def _taken(given: Mapping[str, object], where: str, **known: object) -> list[object]:
    for name in given:
        if name not in known:
            raise PhaseError(f"{where} takes no {name!r}; it takes {', '.join(known)}")
    return [given.get(name, default) for name, default in known.items()]


def _length(over: object, where: str) -> int:
    if isinstance(over, int) and not isinstance(over, bool):
        return over
    if isinstance(over, Sequence) and not isinstance(over, str | bytes):
        return len(over)
    raise PhaseError(f"{where}: over={over!r:.80}: write how many there are, or the list of them")


def _count(value: object, where: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise PhaseError(f"{where}={value!r}: write a number of at least 1")
    return value
