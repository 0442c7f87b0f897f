"""The house rules a machine can check: who may import whom, what may be imported where, how large things grow."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "zmreg"
TOP = "zmreg"  # the package itself: its public names

BELOW_API = {"model", "core", "wire", "store", "telemetry", "net", "services"}
MAY_IMPORT = {
    "model": set(),
    "core": {"model"},
    "wire": {"model"},
    "store": {"model"},
    "telemetry": {"model"},
    "net": {"model", "wire"},
    "services": {"model", "core", "wire", "store", "telemetry", "net"},
    "api": {"model", "services"},
    "flows": {"model", "core", "api"},
    "integrations": {TOP, "metrics"},
    "testing": {TOP, "api", *BELOW_API},
    "tools": {TOP, "model", "services", "api", "flows"},
    TOP: {"model", "api", "flows", "metrics", "testing"},  # __init__.py names what is public
    "errors": {"model"},  # so that `from zmreg.errors import ...` works
    "metrics": {"api"},  # so that `from zmreg.metrics import Counter` works
    "__main__": {TOP, "tools"},
}
ONLY_HERE = {
    "zmq": "net/",
    "msgpack": "wire/",
    "pickle": "wire/payload.py",
    "cloudpickle": "wire/payload.py",
    "tblib": "wire/payload.py",
    "mmap": "store/",
    "psutil": "services/",
    "click": "tools/",
    "pyarrow": "flows/",
}
PURE = {"core", "wire"}
FORBIDDEN_IN_PURE = {"zmq", "time", "threading", "socket", "logging"}

MODULE_LINES = 450
CLASS_LINES = 300
FUNCTION_LINES = 50
PARAMETERS = 7
# "module:name": why this one may be larger. Short, or the limits are not limits.
ALLOWED: dict[str, str] = {
    "zmreg.api.cluster:init": "the public signature of design.md section 11, Ray's names",
}

# Loaded only when used: `import zmreg` has to stay under 80 ms.
LAZY = {
    "numpy",
    "pyarrow",
    "rich",
    "asyncio",
    "click",
    "cloudpickle",
    "csv",
    "ctypes",
    "decimal",
    "hashlib",
    "multiprocessing",
    "resource",
    "shutil",
    "socket",
    "sqlite3",
    "subprocess",
    "uuid",
    "concurrent",
    "tempfile",
    "starlette",
    "uvicorn",
    "tqdm",
    "prometheus_client",
    "opentelemetry",
}

SOURCES = sorted(PACKAGE.rglob("*.py"))
ROOMS_HERE = sorted({path.relative_to(PACKAGE).parts[0].removesuffix(".py") for path in SOURCES} - {"__init__"})


def name_of(path: Path) -> str:
    """`zmreg/core/tasks.py` -> `zmreg.core.tasks`; a package's `__init__.py` is the package."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def room_of(module: str) -> str:
    return module.split(".")[1] if "." in module else TOP


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def modules_named(path: Path) -> Iterator[tuple[int, str]]:
    """(line, module) of every import in a file, wherever it stands: late and type-checking imports make knots too."""
    package = name_of(path) if path.name == "__init__.py" else name_of(path).rpartition(".")[0]
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*parents, *filter(None, [node.module])])
            # `from zmreg import core` names a room, not an attribute.
            is_room = base == TOP
            for alias in node.names:
                yield node.lineno, f"{TOP}.{alias.name}" if is_room and alias.name in MAY_IMPORT else base


def test_each_room_is_known() -> None:
    assert set(ROOMS_HERE) <= set(MAY_IMPORT), "a new room needs a row in MAY_IMPORT here and in setup.cfg"


def test_imports_follow_the_arrows() -> None:
    against = []
    for path in SOURCES:
        room = room_of(name_of(path))
        for line, module in modules_named(path):
            target = room_of(module)
            if module.split(".")[0] == TOP and target != room and target not in MAY_IMPORT[room]:
                against.append(f"{path.relative_to(ROOT)}:{line}: {room} may not import {module}")
    assert not against, "\n".join(against)


def test_libraries_stay_in_their_rooms() -> None:
    strays = []
    for path in SOURCES:
        where = path.relative_to(PACKAGE).as_posix()
        for line, module in modules_named(path):
            home = ONLY_HERE.get(module.split(".")[0])
            if home is not None and not (where.startswith(home) if home.endswith("/") else where == home):
                strays.append(f"zmreg/{where}:{line}: {module} belongs to zmreg/{home}")
    assert not strays, "\n".join(strays)


def test_minds_and_sentences_are_pure() -> None:
    impure = [
        f"{path.relative_to(ROOT)}:{line}: imports {module}"
        for path in SOURCES
        if room_of(name_of(path)) in PURE
        for line, module in modules_named(path)
        if module.split(".")[0] in FORBIDDEN_IN_PURE
    ]
    assert not impure, "\n".join(impure)


def sizes(path: Path) -> Iterator[tuple[str, str]]:
    """("module:name", complaint) of everything over a limit in a file."""
    module = name_of(path)
    lines = len(path.read_text(encoding="utf-8").splitlines())
    if lines > MODULE_LINES:
        yield f"{module}:", f"{lines} lines, the limit is {MODULE_LINES}"
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.ClassDef):
            limit = CLASS_LINES
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            limit = FUNCTION_LINES
            if (count := parameters(node)) > PARAMETERS:
                yield f"{module}:{node.name}", f"{count} parameters, the limit is {PARAMETERS}"
        else:
            continue
        length = (node.end_lineno or node.lineno) - node.lineno + 1
        if length > limit:
            yield f"{module}:{node.name}", f"{length} lines, the limit is {limit}"


def parameters(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Named ones, without self or cls."""
    args = function.args
    names = [arg.arg for arg in (*args.posonlyargs, *args.args, *args.kwonlyargs)]
    return len(names) - (bool(names) and names[0] in ("self", "cls"))


def test_nothing_grows_too_large() -> None:
    over = [(name, complaint) for path in SOURCES for name, complaint in sizes(path)]
    assert not [f"{name}: {complaint}" for name, complaint in over if name not in ALLOWED]
    modules = {name_of(path) for path in SOURCES}
    stale = [
        name for name in ALLOWED if name.split(":")[0] in modules and name not in {over_name for over_name, _ in over}
    ]
    assert not stale, f"no longer over a limit, take them out of ALLOWED: {stale}"


def test_the_allow_list_stays_short() -> None:
    assert len(ALLOWED) <= 5 and all(len(reason) > 20 for reason in ALLOWED.values())


@pytest.mark.parametrize("rule", ["except", "stub"])
def test_no_swallowed_exceptions_and_no_stubs(rule: str) -> None:
    found = []
    for path in SOURCES:
        for node in ast.walk(tree_of(path)):
            if rule == "except" and isinstance(node, ast.ExceptHandler):
                catches_all = node.type is None or getattr(node.type, "id", "") in ("Exception", "BaseException")
                bad = catches_all and all(isinstance(step, ast.Pass | ast.Continue) for step in node.body)
            else:
                bad = rule == "stub" and isinstance(node, ast.Raise) and "NotImplementedError" in ast.dump(node)
            if bad:
                found.append(f"{path.relative_to(ROOT)}:{node.lineno}")
    assert not found


def test_importing_zmreg_loads_only_what_it_needs() -> None:
    """In a fresh interpreter, as a user's script would; what the interpreter loads by itself does not count.

    With every public name, since names are loaded when used; guests' faces alone bring what they are faces of.
    """
    names = "[getattr(zmreg, name) for name in zmreg.__all__ if name not in ('Executor', 'Pool', 'executor')]"
    assert not {name.split(".")[0] for name in modules_loaded_by(f"import zmreg; {names}")} & LAZY


def test_a_node_loads_neither_what_users_type_nor_what_unpickles() -> None:
    loaded = modules_loaded_by("import zmreg.services.node.node")
    assert "zmreg.services.node.node" in loaded
    assert not loaded & {"zmreg.wire.payload", "cloudpickle", "zmreg.api", "zmreg.services.worker.worker"}


# Late imports that a daemon never reaches: they are the forked zygote's, and its children's, which become workers.
CHILDS_OWN = {"zmreg.services.node.zygote": {"_preload", "_become_worker"}}
DAEMONS = (
    "zmreg.services.node.node", "zmreg.services.head.head", "zmreg.services.setup.keys", "zmreg.services.node.daemon",
    "zmreg.services.setup.starting", "zmreg.services.setup.observer", "zmreg.services.setup.checks",
    "zmreg.tools.dashboard.door", "zmreg.tools.dashboard.sources",
)  # fmt: skip


def reachable_from(*starts: str) -> dict[str, list[str]]:
    """{module: the chain of imports that leads to it}, with late imports and without CHILDS_OWN and type checking."""
    files = {name_of(path): path for path in SOURCES}
    chains = {start: [start] for start in starts if start in files}
    waiting = list(chains)
    while waiting:
        module = waiting.pop()
        for target in modules_run(files[module], CHILDS_OWN.get(module, set())):
            if target in files and target not in chains:
                chains[target] = [*chains[module], target]
                waiting.append(target)
    return chains


def modules_run(path: Path, without: set[str]) -> Iterator[str]:
    """Modules that running the code of a file may import; `from a import b` may be the module `a.b`."""
    waiting: list[ast.AST] = [tree_of(path)]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.FunctionDef) and node.name in without:
            continue
        if isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING":
            waiting.extend(node.orelse)
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        waiting.extend(ast.iter_child_nodes(node))


def test_no_code_a_daemon_can_reach_unpickles() -> None:
    """Not only at import: nothing that a node, a head or a key command may ever import leads to what unpickles."""
    reached = reachable_from(*DAEMONS)
    assert len(reached) > 20 and "zmreg.wire.codec" in reached
    assert not {
        name: " -> ".join(reached[name])
        for name in ("zmreg.wire.payload", "zmreg.services.worker.worker")
        if name in reached
    }


def test_the_search_for_unpickling_would_find_it() -> None:
    assert "zmreg.wire.payload" in reachable_from("zmreg.services.worker.worker")


# Where a zmq socket may be made, bound and connected. A socket made elsewhere has libzmq's defaults: open to everybody.
MAKES_SOCKETS = {"net/factory.py"}
NAMES_ADDRESSES = {"net/factory.py", "net/sockets.py", "net/curve.py"}
# pyzmq's other ways to a socket or a context.
BACK_DOORS = {"get_monitor_socket", "shadow", "shadow_pyczmq", "bind_to_random_port", "recv_pyobj", "send_pyobj"}


def zmq_calls(path: Path) -> Iterator[tuple[int, str, str]]:
    """(line, what it is called on, method) of calls in a file; chains are named by their last link."""
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            value = node.func.value
            yield node.lineno, getattr(value, "id", "") or getattr(value, "attr", ""), node.func.attr


def test_every_zmq_socket_comes_from_the_factory() -> None:
    strays = []
    for path in SOURCES:
        where = path.relative_to(PACKAGE).as_posix()
        in_net = where.startswith("net/")
        for line, on, method in zmq_calls(path):
            # The standard library's module makes sockets of its own.
            of_context = method == "socket" and on not in ("socket", "sockets")
            forbidden = (
                (of_context and where not in MAKES_SOCKETS)
                or (method == "Socket" and on == "zmq")
                or (method == "Context" and not in_net)
                or (method == "instance" and on == "Context")
                or method in BACK_DOORS
                or (in_net and method == "bind" and where not in NAMES_ADDRESSES)
            )
            if forbidden:
                strays.append(f"zmreg/{where}:{line}: {on}.{method}()")
    assert not strays, "\n".join(strays)


def modules_loaded_by(statements: str) -> set[str]:
    code = f"import sys; before = set(sys.modules); {statements}; print(*sorted(set(sys.modules) - before))"
    run = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        text=True,
        capture_output=True,
        timeout=30,
    )
    assert run.returncode == 0, run.stderr
    return set(run.stdout.split())


def test_public_names_are_the_same_for_checkers_for_star_and_at_run_time() -> None:
    import zmreg

    block = next(node for node in tree_of(PACKAGE / "__init__.py").body if isinstance(node, ast.If))
    seen_by_checkers = {
        (node.module, alias.name)
        for node in ast.walk(block)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert seen_by_checkers == {(home, name) for home, names in zmreg._HOMES.items() for name in names}
    assert {name for _, name in seen_by_checkers} | {"errors"} == set(zmreg.__all__)
    for name in zmreg.__all__:
        assert getattr(zmreg, name) is not None and name in dir(zmreg)
    with pytest.raises(AttributeError, match="no attribute 'tsak'"):
        zmreg.tsak  # noqa: B018


# The time of day is for people to read, and for comparing the clocks of machines. It jumps.
TELLS_THE_TIME = {
    "api/afterwards.py",
    "api/flight.py",
    "flows/jobs/client.py",  # when what happened, for who reads it; so the two below
    "flows/jobs/supervisor.py",
    "flows/kit/coordinator.py",  # where tokens begin: above those of the coordinator before
    "flows/runs/journal.py",  # when what happened, for who reads it
    "flows/results/result_dirs.py",  # how old files are, by their own times
    "services/head/jobs.py",
    "services/head/ledger.py",
    "services/head/submissions.py",
    "services/node/node.py",
    "services/node/views.py",
    "services/seat/bus.py",  # when an event was logged, for who reads it
    "services/seat/reporting.py",  # when its block began, for who reads it
    "services/setup/checks.py",
    "tools/cli/jobs.py",
    "tools/dashboard/door.py",  # of the page and its facts; so the two below
    "tools/dashboard/sources.py",
    "tools/dashboard/watch.py",
}


def test_fault49_no_wait_goes_by_a_clock_that_may_jump() -> None:
    said = {
        path.relative_to(PACKAGE).as_posix()
        for path in SOURCES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute)
        and ast.unparse(node) in ("time.time", "datetime.now", "datetime.datetime.now")
    }
    assert said <= TELLS_THE_TIME
