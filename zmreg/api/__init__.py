"""Manners: what users type."""

from zmreg.api import cluster

__all__ = ["cluster"]  # with any part of this room: a first use without init() has to find it
