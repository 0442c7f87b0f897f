"""Public helpers for tests: yours of your own machines and actors as well as zmreg's own.

Names are loaded when they are first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from zmreg.testing.cluster import LocalCluster
    from zmreg.testing.inside.cluster import InProcess
    from zmreg.testing.proxy import ChaosProxy
    from zmreg.testing.simulation import Broadcast, Machine, Send, Simulation, SimulationStatistics, Weather

_HOMES = {
    "Broadcast": "zmreg.testing.simulation",
    "ChaosProxy": "zmreg.testing.proxy",
    "InProcess": "zmreg.testing.inside.cluster",
    "LocalCluster": "zmreg.testing.cluster",
    "Machine": "zmreg.testing.simulation",
    "Send": "zmreg.testing.simulation",
    "Simulation": "zmreg.testing.simulation",
    "SimulationStatistics": "zmreg.testing.simulation",
    "Weather": "zmreg.testing.simulation",
}

__all__ = [
    "Broadcast",
    "ChaosProxy",
    "InProcess",
    "LocalCluster",
    "Machine",
    "Send",
    "Simulation",
    "SimulationStatistics",
    "Weather",
]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it has {', '.join(__all__)}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return [*globals(), *__all__]
