"""Names that are looked up when somebody asks for them."""

from __future__ import annotations

from typing import Any

import zmreg
from zmreg.integrations.ray._absent import absent


def late(name: str, path: str) -> Any:
    """A public name of zmreg. AttributeError, in Ray's words, when this version has none."""
    if name in zmreg.__all__:
        return getattr(zmreg, name)
    raise AttributeError(absent(f"{path}.{name}".removeprefix("ray.")))
