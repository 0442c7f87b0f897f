"""The version of this package, as pyproject.toml has it (tests/test_rooms.py compares)."""

VERSION = "0.1.0"
