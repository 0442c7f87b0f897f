"""`ray.util.joblib`."""

from __future__ import annotations

import joblib

from zmreg.integrations.joblib import ZmregBackend, register


def register_ray() -> None:
    """Make the backend known to joblib as "ray", and as "zmreg"."""
    joblib.register_parallel_backend("ray", ZmregBackend)
    register()


__all__ = ["register_ray"]
