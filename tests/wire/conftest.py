"""Hypothesis for this folder: a machine busy with other tests must not fail an example for being slow."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("no deadline", deadline=None)
settings.load_profile("no deadline")
