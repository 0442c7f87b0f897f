"""Requests: graphs of named calls, run as their inputs come, and what can be told of each step."""
