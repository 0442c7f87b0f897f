"""All guests' tests, one after the other: `make guests`, or `python -m tests.guests joblib dask futures` for some."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[2]

# Those whose outcome depends on the back end; a guest's other tests are about itself.
FILES = {
    "joblib": ("test/test_parallel.py",),
    "dask": (
        "tests/test_threaded.py",
        "tests/test_delayed.py",
        "tests/test_base.py",
        "tests/test_callbacks.py",
        "tests/test_traceback.py",
        "array/tests/test_reductions.py",
        "dataframe/dask_expr/tests/test_merge.py",
    ),
}


def run(guest: str) -> int:
    env = {**os.environ, "PYTHONPATH": str(ROOT), "ZMREG_GUEST": guest, "ZMREG_ADDRESS": "local"}
    # Neither our configuration, which makes every warning an error, nor a place that theirs would be found from.
    with tempfile.TemporaryDirectory() as empty:
        if guest == "futures":
            return subprocess.run([sys.executable, "-m", "tests.guests.futures"], cwd=empty, env=env).returncode
        found = importlib.util.find_spec(guest)
        if found is None or not found.submodule_search_locations:
            print(f"skipped: {guest} is not installed; pip install 'zmreg[guests]'")
            return 0
        here = Path(found.submodule_search_locations[0])
        files = [str(here / name) for name in FILES[guest] if (here / name).exists()]
        options = ["-q", "-p", "tests.guests.plugin", "-p", "no:cacheprovider", "-c", os.devnull, "--timeout", "120"]
        print(f"-- {guest}: {', '.join(FILES[guest])}", flush=True)
        command = [sys.executable, "-m", "pytest", *options, "-W", "ignore", "--tb=short", *files]
        return subprocess.run(command, cwd=empty, env=env).returncode


if __name__ == "__main__":
    sys.exit(max([run(guest) for guest in sys.argv[1:] or ("futures", "joblib", "dask")]))
