"""The adapters, by name, in the order of the tables. Imported one at a time: a driver loads only its own."""

from __future__ import annotations

from importlib import import_module
from typing import Final

from benchmarks.peers.base import Peer

CLASSES: Final = {
    "bare": ("bare", "Bare"),
    "zmreg": ("zmreg", "Zmreg"),
    "processpool": ("pools", "ProcessPool"),
    "loky": ("pools", "Loky"),
    "mpire": ("mpire", "Mpire"),
    "xoscar": ("xoscar", "Xoscar"),
    "ray": ("ray", "Ray"),
    "dask": ("dask", "Dask"),
    "ipyparallel": ("ipyparallel", "IpyParallel"),
}
NAMES: Final = tuple(CLASSES)


def peer_class(name: str) -> type[Peer]:
    """The adapter of that name. Raises KeyError, naming all, when there is none."""
    if name not in CLASSES:
        raise KeyError(f"no peer {name!r}; there are: {', '.join(NAMES)}")
    module, attribute = CLASSES[name]
    found: type[Peer] = getattr(import_module(f"benchmarks.peers.{module}"), attribute)
    return found


__all__ = ["NAMES", "Peer", "peer_class"]
