"""Cells on every worker, for IPython: `%load_ext zmreg`, then `%%zmreg` at the top of a cell.

They are the engines of `zmreg.engines()`: each CPU of each node gets a process with a namespace of its own, which stays
from cell to cell. What they print comes back with the cell, grouped: workers with the same output are shown together.

    %%zmreg [--targets 0,2-5] [--push NAME,NAME] [--as NAME] [--timeout SECONDS]
"""

from __future__ import annotations

import argparse
import sys
from typing import Any

import zmreg


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
        self._view: zmreg.EngineView | None = None

    def __call__(self, line: str, cell: str) -> None:
        """Run a cell on the workers and show what they give. RuntimeError when it fails on any."""
        options, rest = _parser().parse_known_args(line.split())
        if rest:
            raise ValueError(f"%%zmreg does not know {rest[0]!r}; it takes --targets, --push, --as and --timeout")
        self._view = zmreg.engines() if self._view is None else self._view.refresh()
        chosen = self._view.select(options.targets)
        names = {name: self._shell.user_ns[name] for name in options.push.split(",") if name}
        if names:
            chosen.push(names)
        chosen.timeout = options.timeout
        outcomes = chosen.cell(cell, bool(options.name))
        for label, outcome in chosen.grouped(outcomes):
            show(label, outcome)
        if options.name:
            self._shell.user_ns[options.name] = [outcome["value"] for outcome in outcomes.values()]
        failed = {number: outcome for number, outcome in outcomes.items() if outcome["error"]}
        if failed:
            last = next(iter(failed.values()))["error"].strip().splitlines()[-1]
            where = chosen.label(failed)
            raise RuntimeError(f"the cell failed on {len(failed)} of {len(outcomes)} workers ({where}): {last}")


def show(label: str, outcome: dict[str, Any]) -> None:
    """What workers have printed, shown and raised."""
    from IPython.display import display  # late, as in `load`: workers need no IPython

    text = outcome["text"].rstrip("\n")
    if text or outcome["forms"]:
        print(f"[{label}]", text, sep="\n" if "\n" in text else " ")
    for forms in outcome["forms"]:
        display(forms, raw=True)
    if outcome["error"]:
        print(f"[{label}] {outcome['error'].rstrip()}", file=sys.stderr)


def load(shell: Any) -> None:
    """`%load_ext zmreg`."""
    shell.register_magic_function(Cells(shell), "cell", "zmreg")


def unload(shell: Any) -> None:
    """`%unload_ext zmreg`: the workers' namespaces go."""
    shell.magics_manager.magics["cell"].pop("zmreg", None)
