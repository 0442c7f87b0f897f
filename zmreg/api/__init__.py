"""Manners: what users type."""
