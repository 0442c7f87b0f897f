"""Fills the generated parts of the pages: `make docs` writes them, tests/test_docs.py fails when they have drifted.

A part stands between `<!-- generated: name -->` and `<!-- end -->`. In its tables some columns only a person can write
(what a setting means, how an error is fixed). These live in the page itself and are kept, found again by the row's
first cell; a row that is new gets `MISSING` there, and the tests fail until somebody has written it.
"""

from __future__ import annotations

import ast
import dataclasses
import importlib
import importlib.util
import inspect
import json
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

MISSING = "…"
PART = re.compile(r"(<!-- generated: ([a-z-]+) -->\n)(.*?)(<!-- end -->)", re.DOTALL)
# Brought up to date by `make docs`, but not compared in tests: neither a run of the benchmarks nor a new test may fail
# the suite. That the tests named in the pages exist is checked by itself.
NOT_COMPARED = frozenset({"figures", "proofs", "api-ray", "api-others", "api-complaints", "api-seen"})
# In the name of a test: the number of the fault that it proves something about.
FAULT = re.compile(r"(?:^test|_)_?fault_?(\d+)_")
# In the name of a test: a row of docs/api-table.md; a plain number there is `row24` or `core24`.
API_ROW = re.compile(r"_(?:row|core)_?(\d+)(?=_)|_([CX]\d+)(?=_)", re.IGNORECASE)

PROTOCOL_LIMITS = (
    ("wire.codec.MAX_ENVELOPE", "bytes"),
    ("wire.codec.MAX_CARRIER", "bytes"),
    ("wire.batches.MAX_BATCH_BYTES", "bytes"),
    ("net.factory.MAX_IPC_BYTES", "bytes"),
    ("net.factory.MAX_GATE_BYTES", "bytes"),
    ("net.factory.MAX_SHOUT_BYTES", "bytes"),
    ("services.calling.calls.BATCH_ROWS", "calls"),
    ("services.calling.calls.BATCH_BYTES", "bytes"),
    ("services.worker.intake.ANSWER_ROWS", "answers"),
    ("wire.payload.DEFINITION_MAX_BYTES", "bytes"),
)
CONSTANTS = (
    ("model.settings.INLINE_LIMIT_BYTES", "bytes"),
    ("services.calling.calls.AHEAD_US", "us"),
    ("services.calling.calls.MAX_AHEAD", "calls"),
    ("services.calling.pools.LEASE_IDLE_S", "s"),
    ("services.worker.worker.ANSWER_S", "s"),
    ("net.pump.TAKE_OVER_S", "s"),
    ("api.coordination.CHUNK_S", "s"),
    ("api.coordination.MAX_CHUNK", "items"),
    ("api.coordination.AHEAD_PER_CPU", "chunks"),
)
REGISTRY_LIMITS = (
    ("core.publishing.FLUSH_S", "s"),
    ("core.publishing.FLUSH_BYTES", "bytes"),
    ("core.publishing.BEACON_S", "s"),
    ("core.publishing.RING_OPS", "operations"),
    ("core.publishing.RING_BYTES", "bytes"),
    ("core.publishing.PART_BYTES", "bytes"),
    ("core.publishing.MAX_ROW_BYTES", "bytes"),
    ("core.replicas.RETRY_S", "s"),
    ("core.replicas.SILENT_S", "s"),
    ("core.replicas.HELD_OPS", "operations"),
    ("core.replicas.WINDOW_PARTS", "parts"),
    ("core.replicas.CREDIT_PARTS", "parts"),
)


@dataclasses.dataclass(frozen=True, slots=True)
class Table:
    """`columns` in their order; those in `kept` are the page's. `rows` hold the other cells; the first is the key."""

    columns: tuple[str, ...]
    kept: frozenset[str]
    rows: list[tuple[str, ...]]

    def text(self, old: Mapping[str, Mapping[str, str]]) -> str:
        """As Markdown, with the kept cells of `old` (key -> column -> cell)."""
        lines = [_line(self.columns), "|---" * len(self.columns) + "|"]
        for row in self.rows:
            made = iter(row)
            theirs = old.get(row[0], {})
            cells = [theirs.get(name) or MISSING if name in self.kept else next(made) for name in self.columns]
            lines.append(_line(cells))
        return "\n".join(lines) + "\n"


def _line(cells: list[str] | tuple[str, ...]) -> str:
    return "| " + " | ".join(cells) + " |"


def read_table(text: str) -> dict[str, dict[str, str]]:
    """{first cell: {column: cell}} of the first Markdown table in `text`."""
    rows = [re.split(r"(?<!\\)\|", line.strip())[1:-1] for line in text.splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in row] for row in rows]
    if not cells:
        return {}
    head, body = cells[0], cells[2:]
    return {row[0]: dict(zip(head, row, strict=False)) for row in body}


def code(text: object) -> str:
    """Set as code, safe inside a table."""
    return f"`{str(text).replace('|', chr(92) + '|')}`"


def one_line(text: str) -> str:
    """Without line breaks, safe inside a table."""
    return " ".join(text.split()).replace("|", "\\|")


# -- messages ----------------------------------------------------------------------------------------------------------


def messages(_old: str) -> Table:
    """Every message of `model.messages`, by kind."""
    from zmreg.wire import codec

    rows = []
    for kind, cls in sorted(codec.kinds().items()):
        who, _, says = one_line(inspect.getdoc(cls) or "").partition(": ")
        written = vars(cls).get("__annotations__", {})
        fields = [code(f"{name}: {written[name]}") for name in cls.__match_args__]
        notes = [f"{code(name)}: {one_line(note)}" for name, note in field_notes(cls).items()]
        rows.append((str(kind), code(cls.__name__), who, "<br>".join([says, *notes]), ", ".join(fields) or "none"))
    return Table(("kind", "message", "who to whom", "what it says", "fields, in their order"), frozenset(), rows)


def field_notes(cls: type[Any]) -> dict[str, str]:
    """{field: the string written below it} of a class."""
    tree = ast.parse(inspect.getsource(cls)).body[0]
    assert isinstance(tree, ast.ClassDef)
    notes = {}
    for field, note in zip(tree.body, tree.body[1:], strict=False):
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and isinstance(note, ast.Expr):
            notes[field.target.id] = str(ast.literal_eval(note.value))
    return notes


def rows(_old: str) -> str:
    """The layouts of the two batches, as their module states them."""
    from zmreg.wire import batches

    layouts = (inspect.getdoc(batches) or "").split("\n\n", 2)[2]
    return f"```text\n{layouts}\n```\n"


def constants(named: tuple[tuple[str, str], ...]) -> Callable[[str], Table]:
    """A table of named constants with their values."""

    def table(_old: str) -> Table:
        rows = [(code(name), amount(value_of(name), unit)) for name, unit in named]
        return Table(("constant", "value", "what it bounds"), frozenset({"what it bounds"}), rows)

    return table


def value_of(dotted: str) -> Any:
    """What `services.calling.calls.MAX_AHEAD`, or a public name, is in the package. AttributeError: there is none."""
    parts = dotted.split(".")
    found: Any = importlib.import_module("zmreg")
    for place, part in enumerate(parts):
        if inspect.ismodule(found) and not hasattr(found, part):
            name = ".".join(("zmreg", *parts[: place + 1]))
            if importlib.util.find_spec(name) is not None:
                importlib.import_module(name)
        found = getattr(found, part)
    return found


def amount(value: float, unit: str) -> str:
    """262144 bytes -> '256 KiB', 0.0005 s -> '0.5 ms'."""
    if unit == "us":
        value, unit = value / 1e6, "s"
    if unit == "s" and value < 1:
        return f"{value * 1e3:g} ms"
    if unit == "bytes":
        for size, name in ((1 << 20, "MiB"), (1 << 10, "KiB")):
            if value >= size and not value % size:
                return f"{value // size} {name}"
        return f"{value:,} bytes"
    return f"{value:,g} {unit}"


# -- lifecycles --------------------------------------------------------------------------------------------------------


def lifecycle(dotted: str, first: str, end: str) -> Callable[[str], str]:
    """A diagram of one MOVES table."""

    def text(_old: str) -> str:
        moves = value_of(dotted)
        lines = ["```mermaid", "stateDiagram-v2", f"    [*] --> {first}"]
        lines += [f"    {start.name} --> {after.name}: {event.value}" for (start, event), after in moves.items()]
        return "\n".join([*lines, f"    {end} --> [*]", "```"]) + "\n"

    return text


def words(dotted: str) -> Callable[[str], Table]:
    """The states of one MOVES table and what can happen in them."""

    def table(_old: str) -> Table:
        states, events = (type(part) for part in next(iter(value_of(dotted))))
        rows = [(code(each.name), "state") for each in states] + [(code(each.value), "event") for each in events]
        return Table(("word", "is a", "meaning"), frozenset({"meaning"}), rows)

    return table


# -- errors ------------------------------------------------------------------------------------------------------------


def error_tree(_old: str) -> str:
    """The tree of the errors, as their module states it."""
    from zmreg import errors

    tree = (inspect.getdoc(errors) or "").split("\n\n")[1]
    return f"```text\n{tree}\n```\n"


def error_table(_old: str) -> Table:
    """Every exception of `zmreg.errors`; cause and fix are the page's."""
    from zmreg import errors

    classes = [cls for cls in vars(errors).values() if isinstance(cls, type) and issubclass(cls, errors.ZmregError)]
    bases = {base for cls in classes for base in cls.__bases__}
    made = names_called()
    rows = []
    for cls in classes:
        raised = "yes" if cls.__name__ in made else "its subclasses" if cls in bases else "not yet"
        also = [code(base.__name__) for base in cls.__mro__[1:-1] if base.__module__ == "builtins"][:1]
        also = [] if also in (["`Exception`"], ["`BaseException`"]) else also
        rows.append((code(cls.__name__), " ".join(also), raised))
    kept = frozenset({"cause", "what to do"})
    return Table(("error", "is also a", "raised today", "cause", "what to do"), kept, rows)


def names_called() -> set[str]:
    """Every name that is called anywhere in the package, apart from the module that defines the errors."""
    found = {"TaskError"}  # made by make_task_error, with the user's class mixed in
    for path in (ROOT / "zmreg").rglob("*.py"):
        if path.name != "errors.py":
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                    found.add(node.func.id)
    return found


# -- settings ----------------------------------------------------------------------------------------------------------


def init_arguments(_old: str) -> Table:
    """The arguments that `init` names."""
    import zmreg

    parameters = inspect.signature(zmreg.init).parameters.values()
    rows = [
        (code(each.name), code(each.annotation), code(repr(each.default)))
        for each in parameters
        if each.kind is not each.VAR_KEYWORD
    ]
    return _options(("argument", "type", "default"), rows)


def _default(field: dataclasses.Field[Any]) -> object:
    return field.default if field.default_factory is dataclasses.MISSING else field.default_factory()


def settings(_old: str) -> Table:
    """The fields of `Settings` that `init` takes as further keywords."""
    import zmreg
    from zmreg.model.settings import Settings

    named = inspect.signature(zmreg.init).parameters
    rows = [
        (code(field.name), code(field.type), code(_default(field)))
        for field in dataclasses.fields(Settings)
        if field.name not in named
    ]
    return _options(("setting", "type", "default"), rows)


def options(which: str) -> Callable[[str], Table]:
    """One of the option tables of api/options.py."""

    def table(_old: str) -> Table:
        known: Mapping[str, object] = value_of(f"api.options.{which}")
        return _options(("option", "default"), [(code(name), code(repr(default))) for name, default in known.items()])

    return table


def _options(columns: tuple[str, ...], rows: list[tuple[str, ...]]) -> Table:
    return Table((*columns, "meaning"), frozenset({"meaning"}), rows)


# -- proofs and figures ------------------------------------------------------------------------------------------------


def tests_by_name() -> dict[str, Path]:
    """{test function: its file} of the whole suite."""
    found = {}
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        for name in re.findall(r"^ *(?:async )?def (test_\w+)", path.read_text(encoding="utf-8"), re.MULTILINE):
            found[name] = path
    return found


def proofs(old: str) -> Table:
    """The faults listed in the page, each with the tests that are named after it."""
    by_fault: dict[str, list[str]] = {}
    for name, path in tests_by_name().items():
        for fault in FAULT.findall(name):
            by_fault.setdefault(fault, []).append(f"{code(name)} ({path.relative_to(ROOT / 'tests')})")
    rows = [(key, "<br>".join(by_fault.get(key, ["no test yet"]))) for key in read_table(old)]
    return Table(("#", "fault", "what happens", "proved by"), frozenset({"fault", "what happens"}), rows)


def tests_by_row() -> dict[str, list[str]]:
    """{row of docs/api-table.md: tests named after it}, by file and place."""
    by_row: dict[str, list[str]] = {}
    for name in tests_by_name():
        for number, letter in API_ROW.findall(name):
            by_row.setdefault(number or letter.upper(), []).append(name)
    return by_row


def api_proofs(old: str) -> Table:
    """The rows of the interface, each with the first of the tests that are named after it."""
    by_row = tests_by_row()

    def proved(key: str) -> str:
        found = by_row.get(key, [])
        more = f" and {len(found) - 2} more" if len(found) > 2 else ""
        return (", ".join(map(code, found[:2])) + more) or "-"

    rows = [(key, proved(key)) for key in read_table(old)]
    return Table(("row", "asked", "what", "in zmreg", "proved by"), frozenset({"asked", "what", "in zmreg"}), rows)


def figures(_old: str) -> str:
    """zmreg's own lines of the newest complete run of the benchmarks."""
    results = sorted(path for path in (ROOT / "benchmarks/results").glob("*.json") if "-partial" not in path.name)
    if not results:
        return "No run is kept in `benchmarks/results` yet. `make bench` writes one, `make docs` brings it here.\n"
    from benchmarks import report, workloads
    from benchmarks.harness import Cell

    record = json.loads(results[-1].read_text(encoding="utf-8"))
    cells = [Cell(**cell) for cell in record["cells"]]
    lines = [f"Run {results[-1].stem}. {report.machine_text(record['machine'])}", ""]
    lines += ["| workload | what is measured | figure | zmreg: median (least to greatest) |", "|---|---|---|---|"]
    for name in workloads.NAMES:
        work = workloads.workload(name)
        row = report.rows_of(work, cells).get(report.SUBJECT)
        for figure in work.figures if row is not None else ():
            spread = row.figures.get(figure.name)
            if spread is not None:
                middle, *ends = (
                    report.number(value, figure.digits) for value in (spread.median, spread.least, spread.greatest)
                )
                lines.append(_line((name, work.title, figure.name, f"{middle} ({' to '.join(ends)})")))
    return "\n".join(lines) + "\n"


# -- the registry ------------------------------------------------------------------------------------------------------


def scale_costs(_old: str) -> str:
    """What the registry costs a node, by the number of nodes and the scope."""
    from docs import scale

    head = ("nodes", "scope", "entries", "memory", "traffic in, and out", "of a core", "connections")
    rows = [scale.cost(nodes, scope) for nodes in scale.NODES for scope in ("all", "large", "owner")]
    return "\n".join([_line(head), "|---" * len(head) + "|", *map(_line, rows)]) + "\n"


def scale_simulated(_old: str) -> str:
    """Messages and bytes by arithmetic and by simulation."""
    from docs import scale

    head = ("nodes", "by arithmetic", "simulated", "with a tenth lost")
    return "\n".join([_line(head), "|---" * len(head) + "|", *map(_line, scale.comparison())]) + "\n"


# -- pages -------------------------------------------------------------------------------------------------------------

PARTS: dict[str, Callable[[str], Table | str]] = {
    "messages": messages,
    "rows": rows,
    "limits": constants(PROTOCOL_LIMITS),
    "constants": constants(CONSTANTS),
    "actor-states": lifecycle("core.actors.MOVES", "PENDING", "DEAD"),
    "actor-words": words("core.actors.MOVES"),
    "object-states": lifecycle("store.records.MOVES", "WAITING", "GONE"),
    "object-words": words("store.records.MOVES"),
    "fetch-states": lifecycle("core.wants.MOVES", "QUEUED", "ENDED"),
    "fetch-words": words("core.wants.MOVES"),
    "step-states": lifecycle("core.graph_run.MOVES", "WAITING", "DONE"),
    "step-words": words("core.graph_run.MOVES"),
    "error-tree": error_tree,
    "errors": error_table,
    "init": init_arguments,
    "settings": settings,
    "task-options": options("TASK_OPTIONS"),
    "actor-options": options("ACTOR_OPTIONS"),
    "method-options": options("METHOD_OPTIONS"),
    "part-states": lifecycle("core.replica_parts.MOVES", "UNKNOWN", "DEAD"),
    "part-words": words("core.replica_parts.MOVES"),
    "registry-limits": constants(REGISTRY_LIMITS),
    "scale-costs": scale_costs,
    "scale-simulated": scale_simulated,
    "proofs": proofs,
    "api-ray": api_proofs,
    "api-others": api_proofs,
    "api-complaints": api_proofs,
    "api-seen": api_proofs,
    "figures": figures,
}


def filled(page: str, skip: frozenset[str] = frozenset()) -> str:
    """The page with every part made anew, except those to `skip`. KeyError for a part that nobody makes."""

    def make(found: re.Match[str]) -> str:
        begin, name, old, end = found.groups()
        if name in skip:
            return found[0]
        made = PARTS[name](old)
        return begin + (made.text(read_table(old)) if isinstance(made, Table) else made) + end

    return PART.sub(make, page)


def pages() -> Iterator[Path]:
    """Every page that has generated parts."""
    for page in sorted((ROOT / "docs").rglob("*.md")):
        if PART.search(page.read_text(encoding="utf-8")):
            yield page


def main() -> None:
    """Write all pages; say which have changed and where words are missing."""
    for page in pages():
        before = page.read_text(encoding="utf-8")
        after = filled(before)
        if after != before:
            page.write_text(after, encoding="utf-8")
            print(f"wrote {page.relative_to(ROOT)}")
        if MISSING in after:
            print(f"{page.relative_to(ROOT)}: cells with {MISSING} wait for words", file=sys.stderr)


if __name__ == "__main__":
    main()
