"""What the workers of one process (X33) keep apart."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from zmreg.services.worker.voice import QUIET, Speech

NOBODY: Any = SimpleNamespace(parent=None)
ACTOR = bytes(16)


def test_X33_what_a_lodger_prints_is_labelled_and_hushed_as_its_own() -> None:
    house, lodger = Speech(NOBODY), Speech(NOBODY)
    lodger.label, lodger.at_rest, lodger.quiet = "Session", (ACTOR, "Session"), True
    assert house.who() is None
    house.guest = lambda: lodger
    assert house.who() == (ACTOR, "Session")
    assert QUIET.encode() in house.mark_of((ACTOR, "Session"))
    house.guest = lambda: None
    assert QUIET.encode() not in house.mark_of((ACTOR, "Session"))
