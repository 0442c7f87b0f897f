"""`ray.util.rpdb`, and `ray.util.pdb`, which is the same."""

from __future__ import annotations

from builtins import breakpoint as set_trace

__all__ = ["set_trace"]
