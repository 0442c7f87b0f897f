"""Which tests of what users call run on a cluster within the process too (ZMREG_TEST_HERE=1, `make test-here`), and why
the others do not. Everything that is skipped is about processes: their ids, their deaths by signal, their logs."""

from __future__ import annotations

import inspect
import re
from typing import Final

import pytest

FILES: Final = frozenset(
    {
        "actors",
        "actors_concurrent",
        "actors_deadlock",
        "actors_ending",
        "actors_groups",
        "actors_peer",
        "actors_releasing",
        "annotate",
        "cancel",
        "cancel_actors",
        "cancel_grace",
        "context",
        "errors",
        "get_wait",
        "map",
        "named_actors",
        "objects",
        "refs",
        "register",
        "sent_ahead",
        "shared_arguments",
        "streaming",
        "streaming_actors",
        "tasks",
        "wait_for_actors",
    }
)
"""tests/api/test_*.py; the others start clusters of their own, or count and kill processes from top to bottom."""

WORDS: Final = {
    r"pid\b|\bgone\(|\balive\(|\bdies\(": "tells workers by their process ids, or kills them by those",
    r"atexit|sys\.modules|sys\.path|os\.environ|subprocess|os\.fork|monkeypatch\.setenv": "a process's own state",
    r"zmreg\.init\(|zmreg\.shutdown\(|LocalCluster|ClusterUtils": "starts a cluster of its own",
    r"capfd|caplog|last words|log_tail|printed|log_lines": "reads the log of a worker",
    r"SIGTERM|SIGINT|SIGKILL|pthread_kill|faulthandler": "signals",
    r"setrecursionlimit|nthreads|active_count|threading\.enumerate": "counts the threads of a process",
}
NAMES: Final = {
    "test_C14_one_stuck_in_native_code_with_the_interpreter_lock_is_killed": "the lock is everybody's here",
    "test_C37_the_same_call_twice_runs_twice": "locks a file, which keeps out other processes only",
    "test_C42_a_missing_module_names_host_and_interpreter": "what can be imported is one and the same here",
}


def why_not(item: pytest.Item) -> str:
    """Why a test is not for a cluster within the process; empty when it is."""
    function = getattr(item, "function", None)
    if item.path.stem.removeprefix("test_") not in FILES or item.path.parent.name != "api" or function is None:
        return "not chosen: tests/here.py"
    if item.get_closest_marker("near") or "cluster" not in getattr(item, "fixturenames", ()):
        return "starts a cluster of its own, or looks into its node"
    if function.__name__ in NAMES:
        return NAMES[function.__name__]
    source = inspect.getsource(function)
    return next((why for words, why in WORDS.items() if re.search(words, source)), "")
