"""`ray.util.dask`."""

from __future__ import annotations

from zmreg.integrations.dask import get as ray_dask_get
from zmreg.integrations.dask import register as enable_dask_on_ray

__all__ = ["enable_dask_on_ray", "ray_dask_get"]
