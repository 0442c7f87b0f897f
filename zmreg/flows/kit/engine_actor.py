"""The actor behind `zmreg.engines` and `%%zmreg`: a process with named globals, in which code runs."""

from __future__ import annotations

import ast
import contextlib
import importlib
import io
import linecache
import os
import sys
import threading
import traceback
import types
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

from zmreg.api.context import cancelled
from zmreg.api.watching import interrupt_own_call

# Rich forms of a value that are brought along, each under this size: a notebook keeps them for ever.
_FORMS: Final = {
    "text/html": "_repr_html_",
    "image/png": "_repr_png_",
    "image/svg+xml": "_repr_svg_",
    "text/latex": "_repr_latex_",
}
_FORM_BYTES: Final = 4 << 20
# Of what one engine prints in one go: the end is what one looks for.
_TEXT_CHARS: Final = 1 << 20
# Sources whose lines a traceback can show.
_SOURCES_KEPT: Final = 100
# How long Ctrl-C takes to get to code that runs.
_LOOK_S: Final = 0.1


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """A call of an actor that is cancelled is told so and no more: code that was not written for us is interrupted."""
    over = threading.Event()

    def watch() -> None:
        while not over.wait(_LOOK_S):
            if cancelled():
                interrupt_own_call()
                return

    watcher = threading.Thread(target=watch, name="zmreg-engine", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()


class Engine:
    """One process's namespace. `number` counts from 0 over all engines that were made together."""

    def __init__(self, number: int) -> None:
        os.environ.setdefault("MPLBACKEND", "Agg")
        self.number = number
        self.count = 0
        self.names = types.ModuleType("__main__").__dict__
        self.names["engine"] = number
        self._brought: dict[str, Any] = {}
        """Names that came with functions: a later function may bring others under the same names."""
        self._printed = ""

    def __repr__(self) -> str:
        return f"engine {self.number}"

    # -- names ------------------------------------------------------------------------------------------------------

    def push(self, names: Sequence[str], *values: Any) -> None:
        """Set names."""
        for name, value in zip(names, values, strict=True):
            self._brought.pop(name, None)
            self.names[name] = value

    def pull(self, names: Sequence[str]) -> list[Any]:
        """Their values. NameError."""
        for name in names:
            if name not in self.names:
                raise NameError(f"name {name!r} is not defined")
        return [self.names[name] for name in names]

    def delete(self, name: str) -> None:
        """Forget a name. NameError."""
        self.pull([name])
        del self.names[name]

    def imports(self, found: Sequence[tuple[str, str, str]]) -> None:
        """(name, module, attribute or ""): what an import statement would bind to `name`."""
        for name, module, attribute in found:
            value: Any = importlib.import_module(module)
            if attribute and not hasattr(value, attribute):  # a module inside a package
                importlib.import_module(f"{module}.{attribute}")
            self.names[name] = getattr(value, attribute) if attribute else value

    # -- code -------------------------------------------------------------------------------------------------------

    def apply(self, function: Callable[..., Any], names: Sequence[str], *values: Any) -> Any:
        """Call it; the last `names` of the values are named ones. A function of the main program sees our globals."""
        at = len(values) - len(names)
        with _interruptible():
            return self._at_home(function)(*values[:at], **dict(zip(names, values[at:], strict=True)))

    def _at_home(self, function: Callable[..., Any]) -> Callable[..., Any]:
        if not isinstance(function, types.FunctionType) or function.__module__ != "__main__":
            return function
        for name, value in function.__globals__.items():
            if name not in self.names or (name in self._brought and self.names[name] is self._brought[name]):
                self.names[name] = self._brought[name] = value
        ours = types.FunctionType(
            function.__code__, self.names, function.__name__, function.__defaults__, function.__closure__
        )
        ours.__kwdefaults__ = function.__kwdefaults__
        return ours

    def execute(self, source: str, name: str) -> str:
        """Run code; what it has printed. Of code that raises, `printed` has it."""
        self.count += 1
        out = io.StringIO()
        try:
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out), _interruptible():
                self._value(source, name or _named("code", self.count))
        except BaseException as error:
            error.__traceback__ = _without_us(error.__traceback__)
            raise
        finally:
            self._printed = out.getvalue()[-_TEXT_CHARS:]
        return self._printed

    def printed(self) -> str:
        """What the last `execute` has printed."""
        return self._printed

    def cell(self, source: str, wants_value: bool) -> dict[str, Any]:
        """Run a cell: {"text": printed, "forms": [{mime type: data}], "error": traceback or "", "value": ...}.

        The value of a last expression is among the forms, as in any cell.
        """
        self.count += 1
        out = io.StringIO()
        found: dict[str, Any] = {"forms": [], "error": "", "value": None}
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out), _interruptible():
            try:
                value = self._value(source, _named("cell", self.count))
                if value is not None:
                    self.names["_"] = value
                    found["forms"].append(forms_of(value))
                    found["value"] = value if wants_value else None
                found["forms"] += figures()
            except Exception as error:  # noqa: BLE001  the user's code may raise anything; the notebook shows it
                error.__traceback__ = _without_us(error.__traceback__)
                found["error"] = "".join(traceback.format_exception(error))
        found["text"] = out.getvalue()[-_TEXT_CHARS:]
        return found

    def _value(self, source: str, name: str) -> Any:
        linecache.cache[name] = (len(source), None, source.splitlines(keepends=True), name)
        linecache.cache.pop(_named("cell", self.count - _SOURCES_KEPT), None)
        linecache.cache.pop(_named("code", self.count - _SOURCES_KEPT), None)
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
        import asyncio  # late: little code awaits

        return asyncio.run(result)


def _named(kind: str, number: int) -> str:
    """What stands for a file's name in tracebacks."""
    return f"<cell {number} of %%zmreg>" if kind == "cell" else f"<code {number}>"


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
