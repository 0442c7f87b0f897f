"""`ray.experimental.tqdm_ray`: tqdm's own bars; workers' are shown by the program as they are, each on its line."""

from __future__ import annotations

from tqdm import tqdm

safe_print = tqdm.write

__all__ = ["safe_print", "tqdm"]
