"""Runs: phases with a journal, their outputs, and going on where a program stopped."""
