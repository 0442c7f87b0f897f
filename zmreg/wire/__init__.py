"""Sentences: bytes <-> values. No sockets, no clocks, no threads of its own."""
