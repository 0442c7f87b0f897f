"""Minds: pure machines. Plain values in, effects out; no socket, clock, thread or logger inside."""
