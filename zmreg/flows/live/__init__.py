"""Seen while running: pipelines and runs as a table that is drawn anew, in a terminal, a notebook, or a log."""
