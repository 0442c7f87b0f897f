"""The arguments of a call by name that is no part of a request, and the version it asks for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from zmreg.core.graphs import plan
from zmreg.core.versions import read_version
from zmreg.model.graphs import Lit, Ref, Step

_LOOKED_INTO: Final = (Ref, Lit, list, tuple, dict, set, frozenset)


def plain(name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[tuple[Any, ...], Mapping[str, Any]]:
    """`Lit` is what it holds, and there is nothing a `Ref` could lead to. Raises GraphError."""
    if not any(isinstance(arg, _LOOKED_INTO) for arg in (*args, *kwargs.values())):
        return args, kwargs
    name = name or "call"
    return plan([Step(name, name, args, kwargs)]).templates[name].fill(())


def check_version(version: str) -> None:
    """Raises ValueError for what is no version."""
    read_version(version)
