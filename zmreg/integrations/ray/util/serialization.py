"""`ray.util.serialization`: how values of a class that cannot be pickled are sent."""

from __future__ import annotations

import copyreg
from collections.abc import Callable
from typing import Any


def register_serializer(cls: type, *, serializer: Callable[[Any], Any], deserializer: Callable[[Any], Any]) -> None:
    """Values of `cls` (not of its subclasses) are sent from this process as what `serializer` makes of them, and made
    anew by `deserializer`, which goes along. By way of `copyreg`, so `copy` and `pickle` here do the same."""
    copyreg.pickle(cls, lambda value: (deserializer, (serializer(value),)))


def deregister_serializer(cls: type) -> None:
    """No longer."""
    copyreg.dispatch_table.pop(cls, None)


__all__ = ["deregister_serializer", "register_serializer"]
