"""Fixtures for pytest, loaded by it wherever zmreg is installed. A cluster starts with the first test that wants one.

`zmreg_local`: one cluster for the whole run. `zmreg_in_process`: one within this process, for one test.
`zmreg_chaos`: three nodes whose links can be broken, for one test. What they need is imported when they are used.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from zmreg.api.cluster import ClusterInfo
    from zmreg.testing import LocalCluster

OPTION = "--zmreg-in-process"


def pytest_addoption(parser: pytest.Parser) -> None:
    """One option."""
    group = parser.getgroup("zmreg", "clusters for tests")
    group.addoption(
        OPTION,
        action="store_true",
        dest="zmreg_in_process",
        help="zmreg_local is a cluster within this process: it starts in milliseconds, and tasks can be debugged",
    )
    parser.addini("zmreg_num_cpus", "CPUs of zmreg_local and zmreg_in_process", default="2")


@pytest.fixture(scope="session")
def zmreg_local(request: pytest.FixtureRequest) -> Iterator[ClusterInfo]:
    """A cluster of this run's own, with worker processes, or with `--zmreg-in-process` threads.

    Tests share it: what one of them leaves there (named actors, stored objects) the next one finds.
    """
    import zmreg

    cpus = float(request.config.getini("zmreg_num_cpus"))
    if request.config.getoption("zmreg_in_process"):
        from zmreg.testing import InProcess

        with InProcess(num_cpus=cpus) as cluster:
            yield cluster
        return
    if zmreg.is_initialized():
        raise RuntimeError("zmreg_local starts a cluster, and zmreg.init() was called before; use one or the other")
    with zmreg.init(address="local", num_cpus=cpus) as cluster:
        yield cluster


@pytest.fixture
def zmreg_in_process(request: pytest.FixtureRequest) -> Iterator[ClusterInfo]:
    """A fresh cluster within this process. Not in a run that uses `zmreg_local` with processes: a program has one
    seat, and it is a RuntimeError then."""
    from zmreg.testing import InProcess

    with InProcess(num_cpus=float(request.config.getini("zmreg_num_cpus"))) as cluster:
        yield cluster


@pytest.fixture
def zmreg_chaos() -> Iterator[LocalCluster]:
    """Three nodes of one CPU, with proxies between them: `kill_node`, `signal_node`, `link(a, b)` do the harm.

    `attach()` takes this program's seat, which must be free: not in a run that uses `zmreg_local`.
    """
    from zmreg.testing import LocalCluster

    with LocalCluster(nodes=[{"num_cpus": 1}] * 3, wired=True) as cluster:
        yield cluster
