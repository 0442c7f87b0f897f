"""Every test starts clean and leaves nothing behind; one shared cluster for the modules that ask for it."""

from __future__ import annotations

import contextlib
import gc
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.effort import be_patient
from tests.footprint import MARK, Footprint
from tests.here import why_not
from tests.turns import Turns, in_order, turns_of

# The rooms whose tests start no process: they skip the dear half of the check.
PURE_ROOMS = {"model", "core", "wire", "store"}
HERE = Path(__file__).parent
TURNS = pytest.StashKey[Turns | None]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--rewrite", action="store_true", help="write the transcripts anew (tests/test_transcripts.py)")


def pytest_configure(config: pytest.Config) -> None:
    """A runtime directory of this run's own, and under xdist of each process': two runs on one machine, or a user's
    live cluster, never meet."""
    config.stash[TURNS] = turns_of(config, os.environ.get("XDG_RUNTIME_DIR"))
    os.environ[MARK] = str(os.getpid())
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # a shell's background job: Ctrl-C would do nothing here
        signal.signal(signal.SIGINT, signal.default_int_handler)
    # Short on purpose: an ipc path holds 107 characters.
    runtime = tempfile.mkdtemp(prefix="zt-")
    config.add_cleanup(lambda: shutil.rmtree(runtime, ignore_errors=True))
    os.environ["XDG_RUNTIME_DIR"] = runtime


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Outside of everything else: the wait for a turn is not in the test's time."""
    if (turns := item.config.stash[TURNS]) is None:
        return (yield)
    with turns.taken(alone=item.get_closest_marker("alone") is not None):
        return (yield)


@pytest.fixture(autouse=True)
def leaves_nothing_behind(request: pytest.FixtureRequest) -> Iterator[None]:
    """Wider fixtures are set up before this one: what they hold is in the baseline, not in the test's account."""
    before = Footprint.now(pure=room_of(request.path) in PURE_ROOMS)
    was_up = is_up()
    yield
    leaks = before.leaks()
    if is_up() and not was_up:
        leaks.append("zmreg is still initialised")
        sys.modules["zmreg"].shutdown()
    if leaks:
        pytest.fail("the test left behind:\n  " + "\n  ".join(leaks), pytrace=False)


@pytest.fixture(scope="module")
def cluster() -> Iterator[object]:
    """One cluster of 2 CPUs for all tests of a module; yields what `zmreg.init` returned.

    With ZMREG_TEST_FAR=1 those CPUs are another node's: the same tests, and all work, data and actors are far away.
    With ZMREG_TEST_HERE=1 they are threads of this process (tests/here.py).
    """
    import zmreg

    before = Footprint.now()
    with contextlib.ExitStack() as stack:
        if os.environ.get("ZMREG_TEST_FAR"):
            from zmreg.testing import LocalCluster

            nodes = [{"num_cpus": 0}, {"num_cpus": 2}]
            address = stack.enter_context(LocalCluster(nodes=nodes)).address
            stack.callback(zmreg.shutdown)
            yield zmreg.init(address=address)
        elif os.environ.get("ZMREG_TEST_HERE"):
            from zmreg.testing import InProcess

            yield stack.enter_context(InProcess(num_cpus=2))
        else:
            stack.callback(zmreg.shutdown)
            yield zmreg.init(num_cpus=2)
    leaks = before.leaks()
    if os.environ.get("ZMREG_TEST_HERE"):  # a thread that hangs in C cannot be killed, and some tests kill one
        leaks = [each for each in leaks if not each.startswith("thread 'zmreg-")]
    if leaks:
        pytest.fail("zmreg.shutdown() left behind:\n  " + "\n  ".join(leaks), pytrace=False)


def pytest_pycollect_makemodule(module_path: Path) -> None:
    """Before it is imported: what its tests do not say themselves is settled then."""
    if b"hypothesis" in module_path.read_bytes():
        be_patient()


def pytest_collection_finish() -> None:
    """Thousands of tests stay: without this each full collection of garbage looks at them all, for a third of a second,
    and tests that wait for the end of what they held collect again and again."""
    gc.collect()
    gc.freeze()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """`near`: looks into the driver's own node, or starts a cluster of its own."""
    if config.stash[TURNS] is not None:
        items[:] = in_order(items, HERE)
    if os.environ.get("ZMREG_TEST_HERE"):
        for item in items:
            if why := why_not(item):
                item.add_marker(pytest.mark.skip(reason=why))
    if os.environ.get("ZMREG_TEST_FAR"):
        for item in items:
            if item.get_closest_marker("near"):
                item.add_marker(pytest.mark.skip(reason="looks into one node, where the work is"))


def room_of(path: Path) -> str:
    """The folder below tests/ a test file stands in; "" for tests/ itself."""
    parts = path.relative_to(HERE).parts
    return parts[0] if len(parts) > 1 else ""


def is_up() -> bool:
    """Whether this process has called `zmreg.init` (without importing zmreg to find out)."""
    is_initialized = getattr(sys.modules.get("zmreg"), "is_initialized", None)
    return bool(is_initialized and is_initialized())
