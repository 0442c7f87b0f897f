"""Conditions that can be written down in a file: {"signals.metrics.sharpe": {">": 1}}. Text is never evaluated."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from typing import Any, Final

from zmreg.core.fields import follow
from zmreg.model.errors import PhaseError
from zmreg.model.graphs import Field

_SIGNS: Final[dict[str, Callable[[Any, Any], Any]]] = {
    ">": operator.gt, ">=": operator.ge, "<": operator.lt, "<=": operator.le, "==": operator.eq, "!=": operator.ne,
}  # fmt: skip


def check_threshold(spec: Mapping[str, object], phase: str, depends_on: tuple[str, ...]) -> None:
    """Raises PhaseError, with what may be written, for a condition that makes no sense."""
    for path, tests in spec.items():
        dep = path.partition(".")[0] if isinstance(path, str) else path
        if dep not in depends_on:
            raise PhaseError(f"phase {phase!r}: when has {path!r}, and {dep!r} is none of the phases that it depends "
                             f"on ({', '.join(depends_on) or 'none'})")  # fmt: skip
        if not isinstance(tests, Mapping) or not tests or not set(tests) <= set(_SIGNS):
            raise PhaseError(f"phase {phase!r}: when {path}={tests!r:.80}: write {{sign: value}} with one of "
                             f"{' '.join(_SIGNS)}")  # fmt: skip


def unmet(spec: Mapping[str, Mapping[str, object]], value_of: Callable[[str], object]) -> str | None:
    """What does not hold, in words; None when all of it does. `value_of(phase)` is its output.

    Raises FieldError for a part that is not there, and what comparing raises.
    """
    for path, tests in spec.items():
        dep, _, rest = path.partition(".")
        found = follow(value_of(dep), tuple(map(Field, rest.split("."))) if rest else (), dep)
        for sign, bound in tests.items():
            if not _SIGNS[sign](found, bound):
                return f"{path} is {found!r:.40}, and not {sign} {bound!r:.40}"
    return None
