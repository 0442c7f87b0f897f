"""Cells on every worker, for IPython: `%load_ext zmreg`, then `%%zmreg` at the top of a cell.

Each CPU of each node gets an actor with a namespace of its own, which stays from cell to cell; the actors take no CPU
from tasks, and end with the notebook's seat in the cluster. What they print comes back with the cell, grouped: workers
with the same output are shown together.

    %%zmreg [--targets 0,2-5] [--push NAME,NAME] [--as NAME] [--timeout SECONDS]
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import io
import linecache
import os
import sys
import traceback
import types
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

import zmreg

# Rich forms of a value that are brought along, each under this size: a notebook keeps them for ever.
_FORMS: Final = {
    "text/html": "_repr_html_",
    "image/png": "_repr_png_",
    "image/svg+xml": "_repr_svg_",
    "text/latex": "_repr_latex_",
}
_FORM_BYTES: Final = 4 << 20
# Of what one worker prints in one cell: the end is what one looks for.
_TEXT_CHARS: Final = 1 << 20
# On a machine with many CPUs; more by hand would be a task's business.
MOST_A_NODE: Final = 64


@zmreg.remote(num_cpus=0)
class Engine:
    """One worker's namespace. `number` counts from 0 over the whole cluster."""

    def __init__(self, number: int) -> None:
        os.environ.setdefault("MPLBACKEND", "Agg")
        self.number = number
        self.count = 0
        self.names = types.ModuleType("__main__").__dict__
        self.names["engine"] = number

    def __repr__(self) -> str:
        return f"%%zmreg {self.number}"

    def push(self, names: dict[str, Any]) -> None:
        """Set names."""
        self.names.update(names)

    def run(self, source: str, wants_value: bool) -> dict[str, Any]:
        """Run a cell: {"text": printed, "forms": [{mime type: data}], "error": traceback or "", "value": ...}.

        The value of a last expression is among the forms, as in any cell.
        """
        self.count += 1
        printed = io.StringIO()
        found: dict[str, Any] = {"forms": [], "error": "", "value": None}
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
            try:
                value = self._value(source)
                if value is not None:
                    self.names["_"] = value
                    found["forms"].append(forms_of(value))
                    found["value"] = value if wants_value else None
                found["forms"] += figures()
            except Exception as error:  # noqa: BLE001  the user's code may raise anything; the notebook shows it
                error.__traceback__ = _without_us(error.__traceback__)
                found["error"] = "".join(traceback.format_exception(error))
        found["text"] = printed.getvalue()[-_TEXT_CHARS:]
        return found

    def _value(self, source: str) -> Any:
        name = f"<cell {self.count} of %%zmreg>"
        linecache.cache[name] = (len(source), None, source.splitlines(keepends=True), name)
        linecache.cache.pop(f"<cell {self.count - 100} of %%zmreg>", None)
        tree = ast.parse(source, name)
        last = tree.body[-1] if tree.body else None
        if isinstance(last, ast.Expr):
            tree.body.pop()
        flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
        self._complete(eval(compile(tree, name, "exec", flags), self.names))
        if not isinstance(last, ast.Expr):
            return None
        return self._complete(eval(compile(ast.Expression(last.value), name, "eval", flags), self.names))

    def _complete(self, result: Any) -> Any:
        if not isinstance(result, types.CoroutineType):
            return result
        import asyncio  # late: few cells await

        return asyncio.run(result)


def _without_us(trace: types.TracebackType | None) -> types.TracebackType | None:
    while trace is not None and trace.tb_frame.f_code.co_filename == __file__:
        trace = trace.tb_next
    return trace


def forms_of(value: Any) -> dict[str, Any]:
    """How a value shows itself: its repr, and what else it offers."""
    forms: dict[str, Any] = {"text/plain": repr(value)[-_TEXT_CHARS:]}
    for mime, method in _FORMS.items():
        show = getattr(type(value), method, None)
        data = show(value) if callable(show) else None
        if isinstance(data, (str, bytes)) and len(data) <= _FORM_BYTES:
            forms[mime] = data
    return forms


def figures() -> Iterator[dict[str, Any]]:
    """Open figures of matplotlib, which are closed then."""
    pyplot: Any = sys.modules.get("matplotlib.pyplot")
    for number in [] if pyplot is None else pyplot.get_fignums():
        file = io.BytesIO()
        figure = pyplot.figure(number)
        figure.savefig(file, format="png", bbox_inches="tight")
        pyplot.close(figure)
        yield {"text/plain": repr(figure), "image/png": file.getvalue()}


class Engines:
    """The actors of one cluster, by number."""

    def __init__(self) -> None:
        self._session = ""
        self._of: dict[int, tuple[str, Any]] = {}
        """{number: (node id, handle)}. A number is never given to another node."""

    def ready(self) -> dict[int, Any]:
        """One for each CPU of each living node, new ones where nodes have come."""
        session = zmreg.init(ignore_reinit_error=True).session
        if session != self._session:
            self._session, self._of = session, {}
        alive = {row["NodeID"]: row for row in zmreg.nodes() if row["Alive"]}
        self._of = {number: pair for number, pair in self._of.items() if pair[0] in alive}
        for node, row in alive.items():
            have = sum(each == node for each, _ in self._of.values())
            for _ in range(have, min(MOST_A_NODE, int(row["Resources"].get("CPU", 0)))):
                self._start(node)
        return {number: handle for number, (_, handle) in sorted(self._of.items())}

    def _start(self, node: str) -> None:
        number = next(each for each in range(len(self._of) + 1) if each not in self._of)
        there = zmreg.NodeAffinitySchedulingStrategy(node, soft=False)
        actor: Any = Engine  # checkers take the decorator for the class itself
        self._of[number] = node, actor.options(scheduling_strategy=there).remote(number)

    def drop(self, number: int) -> None:
        """It is dead: the next cell has another one, with an empty namespace."""
        self._of.pop(number, None)


def numbers(text: str, known: Iterable[int]) -> list[int]:
    """`0,2-4` as numbers. ValueError for those that are not there."""
    wanted = list(known)
    if not text:
        return wanted
    found: dict[int, None] = {}
    for part in text.split(","):
        first, _, last = part.strip().partition("-")
        found |= dict.fromkeys(range(int(first), int(last or first) + 1))
    if missing := [each for each in found if each not in wanted]:
        raise ValueError(f"there is no worker {missing[0]}; they are {spans(wanted)}")
    return list(found)


def spans(wanted: Iterable[int]) -> str:
    """Numbers for people: 0-3, 5."""
    runs: list[list[int]] = []
    for number in sorted(wanted):
        if runs and runs[-1][1] == number - 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ", ".join(str(first) if first == last else f"{first}-{last}" for first, last in runs)


def grouped(outcomes: dict[int, dict[str, Any]]) -> list[tuple[list[int], dict[str, Any]]]:
    """Workers with the same output together, in the order of their first."""
    groups: dict[str, tuple[list[int], dict[str, Any]]] = {}
    for number, outcome in outcomes.items():
        key = repr((outcome["text"], outcome["error"], outcome["forms"]))
        groups.setdefault(key, ([], outcome))[0].append(number)
    return list(groups.values())


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("%%zmreg", add_help=False, exit_on_error=False)
    parser.add_argument("--targets", default="")
    parser.add_argument("--push", default="")
    parser.add_argument("--as", dest="name", default="")
    parser.add_argument("--timeout", type=float, default=None)
    return parser


class Cells:
    """The magic, in one shell."""

    def __init__(self, shell: Any) -> None:
        self._shell = shell
        self._engines = Engines()

    def __call__(self, line: str, cell: str) -> None:
        """Run a cell on the workers and show what they give. RuntimeError when it fails on any."""
        options, rest = _parser().parse_known_args(line.split())
        if rest:
            raise ValueError(f"%%zmreg does not know {rest[0]!r}; it takes --targets, --push, --as and --timeout")
        engines = self._engines.ready()
        chosen = numbers(options.targets, engines)
        names = {name: self._shell.user_ns[name] for name in options.push.split(",") if name}
        if names:
            sent = zmreg.put(names)
            zmreg.get([engines[number].push.remote(sent) for number in chosen])
        refs = {number: engines[number].run.remote(cell, bool(options.name)) for number in chosen}
        outcomes = self._wait(refs, options.timeout)
        self._show(outcomes)
        if options.name:
            self._shell.user_ns[options.name] = [outcome["value"] for outcome in outcomes.values()]
        if failed := [number for number, outcome in outcomes.items() if outcome["error"]]:
            last = outcomes[failed[0]]["error"].strip().splitlines()[-1]
            raise RuntimeError(f"the cell failed on {len(failed)} of {len(outcomes)} workers ({spans(failed)}): {last}")

    def _wait(self, refs: dict[int, Any], timeout: float | None) -> dict[int, dict[str, Any]]:
        try:
            values: Sequence[Any] = zmreg.get(list(refs.values()), timeout, return_exceptions=True)
        except (KeyboardInterrupt, zmreg.errors.GetTimeoutError):
            for ref in refs.values():
                ref.cancel()
            raise
        outcomes = {}
        for number, value in zip(refs, values, strict=True):
            if isinstance(value, BaseException):
                if isinstance(value, zmreg.errors.ActorDiedError):
                    self._engines.drop(number)
                value = {"text": "", "forms": [], "error": f"{type(value).__name__}: {value}", "value": None}
            outcomes[number] = value
        return outcomes

    def _show(self, outcomes: dict[int, dict[str, Any]]) -> None:
        from IPython.display import display  # late, as in `load`: workers need no IPython

        for group, outcome in grouped(outcomes):
            text = outcome["text"].rstrip("\n")
            if text or outcome["forms"]:
                print(f"[{spans(group)}]", text, sep="\n" if "\n" in text else " ")
            for forms in outcome["forms"]:
                display(forms, raw=True)
            if outcome["error"]:
                print(f"[{spans(group)}] {outcome['error'].rstrip()}", file=sys.stderr)


def load(shell: Any) -> None:
    """`%load_ext zmreg`."""
    shell.register_magic_function(Cells(shell), "cell", "zmreg")


def unload(shell: Any) -> None:
    """`%unload_ext zmreg`: the workers' namespaces go."""
    shell.magics_manager.magics["cell"].pop("zmreg", None)
