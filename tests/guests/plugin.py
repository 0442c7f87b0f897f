"""Puts zmreg in the place of joblib's and Dask's own back ends, for their own tests: `pytest -p tests.guests.plugin`.

`ZMREG_GUEST` says which guest. Tests of joblib that are run for "loky" are run for "zmreg" instead, and only those;
Dask's default, threaded and synchronous schedulers are all `zmreg.integrations.dask.get`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from fnmatch import fnmatch
from typing import Any

import pytest

import zmreg
from tests.guests.left_out import DASK, JOBLIB

os.environ["ZMREG_ADDRESS"] = "local"
GUEST = os.environ.get("ZMREG_GUEST", "")


def pytest_configure(config: pytest.Config) -> None:
    if GUEST == "joblib":
        from zmreg.integrations import joblib

        joblib.register()
    elif GUEST == "dask":
        import dask
        import dask.base
        import dask.threaded

        from zmreg.integrations.dask import get, register

        register()
        for name in ("sync", "synchronous", "single-threaded", "threads", "threading"):
            dask.base.named_schedulers[name] = get
        dask.threaded.get = get  # type: ignore[assignment]


@pytest.fixture(scope="session", autouse=True)
def a_cluster() -> Iterator[None]:
    with zmreg.init(address="local", num_cpus=4, log_to_driver=False):
        yield


def pytest_pycollect_makeitem(collector: Any, name: str, obj: Any) -> None:
    """Where a test names joblib's own processes, it gets ours."""
    if GUEST != "joblib" or not name.startswith("test_"):
        return
    obj.pytestmark = [_ours(mark) for mark in getattr(obj, "pytestmark", [])]


def _ours(mark: pytest.Mark) -> pytest.Mark:
    if mark.name != "parametrize" or len(mark.args) < 2 or "backend" not in str(mark.args[0]):
        return mark
    values = ["zmreg" if value == "loky" else value for value in mark.args[1] if value != "zmreg"]
    return pytest.Mark(mark.name, (mark.args[0], values, *mark.args[2:]), mark.kwargs, _ispytest=True)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    patterns = {"joblib": JOBLIB, "dask": DASK}[GUEST]
    left_out = [
        item
        for item in items
        if any(fnmatch(item.name, pattern) for pattern in patterns) or (GUEST == "joblib" and "zmreg" not in item.name)
    ]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if item not in set(left_out)]
