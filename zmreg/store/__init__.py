"""Shelves: one shared-memory arena per node, the table of what lies in it, and the spill files; imports model only."""
