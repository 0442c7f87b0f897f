"""CPython's own tests of executors, on `zmreg.Executor`: `python -m tests.guests.futures`.

They are in the interpreter's `test` package, which some distributions leave out; nothing is copied from there. What is
asked of every executor, and of futures it makes, is run; what is asked of threads or of child processes is left out by
name, with the reason.
"""

from __future__ import annotations

import concurrent.futures
import importlib
import os
import re
import sys
import unittest
from types import ModuleType

import zmreg

PACKAGE = "test.test_concurrent_futures"
# One module up to Python 3.11, a package from 3.12 on.
MODULES = (
    "executor",
    "test_wait",
    "test_as_completed",
    "test_shutdown",
    "test_init",
    "test_process_pool",
    "test_future",
)
SUITES = (
    "ExecutorTest",
    "WaitTests",
    "AsCompletedTests",
    "ExecutorShutdownTest",
    "InitializerMixin",
    "FailingInitializerMixin",
    "ProcessPoolExecutorTest",
)

LEFT_OUT = {
    "ProcessPoolExecutorTest.test_max_workers_too_large": "a limit of Windows",
    "ProcessPoolExecutorTest.test_killed_child": "kills by the private `_processes`; here a lost worker is replaced",
    "ProcessPoolExecutorTest.test_traceback": "wants a private class as the exception's cause; ours is TaskError",
    "ProcessPoolExecutorTest.test_ressources_gced_in_workers": "counts objects with a manager of multiprocessing",
    "ProcessPoolExecutorTest.test_saturation": "counts the private `_processes`",
    "ProcessPoolExecutorTest.test_idle_process_reuse_one": "counts the private `_processes`",
    "ProcessPoolExecutorTest.test_idle_process_reuse_multiple": "counts the private `_processes`",
    "ProcessPoolExecutorTest.test_max_tasks_per_child": "max_tasks_per_child: here `max_calls`, of each function",
    "ProcessPoolExecutorTest.test_max_tasks_per_child_defaults_to_spawn_context": "start methods of multiprocessing",
    "ProcessPoolExecutorTest.test_max_tasks_early_shutdown": "max_tasks_per_child: here `max_calls`, of each function",
    "ProcessPoolExecutorTest.test_python_finalization_error": "replaces the interpreter's way to start a thread",
}


class ZmregExecutor(zmreg.Executor):
    """Its name stands in scripts that the tests start, and takes what they give every executor."""

    def __init__(self, max_workers: int | None = None, mp_context: object = None, **keywords: object) -> None:
        super().__init__(max_workers, **keywords)  # type: ignore[arg-type]


def load() -> dict[str, object]:
    """The tests' classes by name. ModuleNotFoundError when the interpreter has come without them."""
    found = importlib.import_module(PACKAGE)
    modules: list[ModuleType] = [found]
    if hasattr(found, "__path__"):
        modules = [importlib.import_module(f"{PACKAGE}.{name}") for name in MODULES]
        modules.append(importlib.import_module(f"{PACKAGE}.util"))
    names: dict[str, object] = {}
    for module in modules:
        names.update({name: value for name, value in vars(module).items() if isinstance(value, type)})
        if hasattr(module, "assert_python_ok"):
            _let_scripts_import(module)
    return names


def _let_scripts_import(module: ModuleType) -> None:
    started = module.assert_python_ok

    def assert_python_ok(*args: str, **env: str) -> object:
        """What a worker prints comes to the driver's stderr, under the worker's name; they look for it on stdout."""
        ours = "import zmreg; ZmregExecutor = zmreg.Executor"
        script = (arg.replace("from concurrent.futures import ZmregExecutor", ours) for arg in args)
        code, out, err = started(*script, **env)
        printed = re.findall(rb"^\(.*?\) (.*)\n?", err, re.MULTILINE)
        return code, b"\n".join([*printed, out]), re.sub(rb"(?m)^\(.*?\) .*\n?", b"", err)

    module.assert_python_ok = assert_python_ok  # type: ignore[attr-defined]


def suite(names: dict[str, object]) -> unittest.TestSuite:
    """Each of SUITES on zmreg's executor, without what is LEFT_OUT; the tests of futures as they are."""
    whole = unittest.TestSuite()
    for name in SUITES:
        bases: tuple[type, ...] = (names[name], names["ExecutorMixin"], names["BaseTestCase"])  # type: ignore[assignment]
        if name.endswith("InitializerMixin"):
            bases = (names[name], names["BaseTestCase"])  # type: ignore[assignment]
        elif name == "ProcessPoolExecutorTest":
            bases = (names[name], names["ExecutorMixin"], names["BaseTestCase"])  # type: ignore[assignment]
        left_out = {test.partition(".")[2]: None for test in LEFT_OUT if test.startswith(f"{name}.")}
        case = type(f"Zmreg{name}", bases, {"executor_type": ZmregExecutor, **left_out})
        whole.addTests(unittest.defaultTestLoader.loadTestsFromTestCase(case))  # type: ignore[arg-type]
    return whole


def main() -> int:
    try:
        names = load()
    except ModuleNotFoundError as error:
        print(f"skipped: this interpreter has come without its tests ({error}); another one may have them")
        return 0
    from test import support

    os.environ["ZMREG_ADDRESS"] = "local"
    support.use_resources = {"walltime": None}
    assert issubclass(ZmregExecutor, concurrent.futures.Executor)
    with zmreg.init(address="local", num_cpus=5):
        outcome = unittest.TextTestRunner(verbosity=2).run(suite(names))
    passed = outcome.testsRun - len(outcome.failures) - len(outcome.errors) - len(outcome.skipped)
    print(
        f"CPython {sys.version.split()[0]}: {passed} passed, {len(outcome.skipped)} skipped, {len(LEFT_OUT)} left out"
    )
    return not outcome.wasSuccessful()


if __name__ == "__main__":
    sys.exit(main())
