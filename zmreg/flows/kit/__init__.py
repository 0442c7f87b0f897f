"""What programs share by name: pools, queues, locks, datasets."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if not TYPE_CHECKING:  # checkers find the module by themselves

    def __getattr__(name: str) -> object:
        """`zmreg.sync` is the module, loaded when it is used."""
        if name != "sync":
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return import_module("zmreg.flows.kit.sync")
