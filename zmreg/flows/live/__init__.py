"""Seen while running: pipelines and runs as a live table, as figures for metrics, and as events."""
