"""A report of what ran between two times, as one page of HTML that loads nothing (report.html).

The page's script reads plain facts, made here. Of everything there is only so much, and the number of what is left out.
"""

from __future__ import annotations

import base64
import json
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from importlib.resources import files
from typing import Any, Final

from zmreg.model.ids import NODE_BYTES
from zmreg.model.record import Record
from zmreg.telemetry.past import DONE
from zmreg.telemetry.profile import Profiled, hottest, largest
from zmreg.telemetry.timeline import Owned, Span, counts, spans

# A bar takes 50 bytes of the page, a node of the profile 20, a frame 100, a row 200: half a megabyte with all of it.
MOST_BARS: Final = 4_000
MOST_LANES: Final = 200
MOST_ROWS: Final = 200
MOST_PROFILE: Final = 1_500
MOST_HOT: Final = 50
MOST_NOTES: Final = 20
_TEXT_CHARS: Final = 300
_NODE_HEX: Final = 2 * NODE_BYTES
_HALF_US: Final = 0.5e-6
_KIB: Final = 1024

Table = dict[str, Any]


class Block(Record):
    """What a report is about. Times are of the reader's monotonic clock where nothing else is said."""

    title: str
    began: float
    seconds: float
    began_at: float
    """Unix seconds."""
    error: str
    """By which it has ended, in one line; empty for none."""
    owned: list[Owned]
    """All that is remembered; what was over before is left out here."""
    names: Mapping[str, str]
    """Of processes by their ids in hex."""
    nodes: Sequence[Mapping[str, Any]]
    versions: Sequence[tuple[str, str]]
    notes: Sequence[str]
    profile: Profiled | None


def page(block: Block) -> bytes:
    """The file's content."""
    from hashlib import sha256  # late: few need it

    text = files("zmreg.telemetry").joinpath("report.html").read_text(encoding="utf-8")

    def hashed(tag: str) -> str:
        found = re.search(rf"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
        assert found is not None
        return f"'sha256-{base64.b64encode(sha256(found[1].encode()).digest()).decode()}'"

    policy = f"default-src 'none'; script-src {hashed('script')}; style-src {hashed('style')}"
    facts = json.dumps(document(block), separators=(",", ":"))
    for sign in "<>&":
        facts = facts.replace(sign, f"\\u{ord(sign):04x}")
    head, tail = text.replace("@POLICY@", policy).split("@FACTS@")
    return f"{head}{facts}{tail}".encode()


def document(block: Block) -> dict[str, Any]:
    """The facts that the page shows."""
    inside = [Owned(each.owner, [fact for fact in each.facts if fact.answered >= block.began]) for each in block.owned]
    shown = [span for span in spans(block.owned) if span.end >= block.began]
    functions = counts(inside)
    ended = max((span.end for span in shown), default=block.began)
    began = time.strftime("%Y-%m-%d %H:%M:%S %z", time.localtime(block.began_at))
    return {
        "Title": _cut(block.title), "About": f"{began}, {in_seconds(block.seconds)}",
        "Seconds": round(max(block.seconds, ended - block.began), 6),
        "Error": _cut(block.error), "Sums": _sums(functions, shown, block), "Notes": _notes(block),
        **_stream(shown, block), "Functions": _functions(functions), "Failures": _failures(inside, block),
        "Nodes": _nodes(shown, block), "Versions": _table([["", 0], ["version", 0]], block.versions),
        "Profile": None if block.profile is None else _profile(block.profile),
    }  # fmt: skip


def _notes(block: Block) -> list[str]:
    notes = [*block.notes]
    if block.profile is not None and block.profile.silent:
        notes.append(f"Not sampled to the end: {', '.join(block.profile.silent)}")
    more = [f"... and {len(notes) - MOST_NOTES} more"] if len(notes) > MOST_NOTES else []
    return [_cut(each) for each in notes[:MOST_NOTES]] + more


def _sums(functions: list[dict[str, Any]], shown: Sequence[Span], block: Block) -> list[list[str]]:
    busy = sum(_within(span, block) for span in shown)
    cpus = sum(row["Resources"].get("CPU", 0.0) for row in block.nodes if row["Alive"])
    counted = ("Calls", "Failed", "Cancelled", "Retries")
    rows = [
        ["took", in_seconds(block.seconds)],
        *([name.lower(), str(sum(row[name] for row in functions))] for name in counted),
        ["ran, in sum", in_seconds(busy)],
        ["workers", str(len({span.fact.worker for span in shown}))],
        ["CPUs", f"{cpus:g}"],
    ]  # fmt: skip
    return rows if not cpus or not block.seconds else [*rows, ["calls at a time", f"{busy / block.seconds:.3g}"]]


def _within(span: Span, block: Block) -> float:
    """How much of it was in the block, in seconds."""
    return max(0.0, min(span.end, block.began + block.seconds) - max(span.start, block.began))


# -- the task stream ---------------------------------------------------------------------------------------------------


def _stream(shown: Sequence[Span], block: Block) -> dict[str, Any]:
    """Bars in lanes: a worker has one, and another for each call that it runs beside others."""
    by_worker: dict[bytes, list[float]] = {}
    placed: list[tuple[bytes, int, Span]] = []
    for span in shown:
        ends = by_worker.setdefault(span.fact.worker, [])
        place = next((at for at, end in enumerate(ends) if end <= span.start + _HALF_US), len(ends))
        ends[place:] = [span.end] if place == len(ends) else [span.end, *ends[place + 1 :]]
        placed.append((span.fact.worker, place, span))
    names = {row["NodeID"][:_NODE_HEX]: row["NodeName"] for row in block.nodes}
    lanes = [(worker, place) for worker in sorted(by_worker) for place in range(len(by_worker[worker]))][:MOST_LANES]
    numbers = {lane: number for number, lane in enumerate(lanes)}
    drawn = [each for each in placed if each[:2] in numbers]
    drawn.sort(key=lambda each: each[2].start - each[2].end)
    functions: dict[str, int] = {}
    bars = []
    for worker, place, span in sorted(drawn[:MOST_BARS], key=lambda each: each[2].start):
        fact = span.fact
        start = max(0.0, span.start - block.began)
        bars.append([
            numbers[worker, place], functions.setdefault(_cut(fact.name), len(functions)), round(start, 6),
            round(max(0.0, span.end - block.began - start), 6), fact.state, fact.attempt,
            None if fact.waited_s is None else round(fact.waited_s, 6), _cut(fact.error),
        ])  # fmt: skip
    labels = [_worker(worker, block, names) + (f" ({place + 1})" if place else "") for worker, place in lanes]
    return {"Names": list(functions), "Lanes": labels, "Bars": bars, "MoreBars": len(placed) - len(bars)}


def _worker(worker: bytes, block: Block, nodes: Mapping[str, str]) -> str:
    name = worker.hex()
    node = nodes.get(name[:_NODE_HEX], name[:_NODE_HEX])
    return _cut(f"{block.names.get(name) or f'worker {name[_NODE_HEX:]}'} @ {node}")


# -- tables ------------------------------------------------------------------------------------------------------------


def _table(heads: Sequence[Sequence[Any]], rows: Iterable[Sequence[str]], most: int = MOST_ROWS) -> Table:
    """`heads`: of each column its name and whether it is of numbers."""
    every = list(rows)
    shown = [[_cut(str(cell)) for cell in row] for row in every[:most]]
    return {"Heads": [list(head) for head in heads], "Rows": shown, "More": max(0, len(every) - most)}


def _functions(rows: Iterable[Mapping[str, Any]]) -> Table:
    heads = [["function", 0], ["calls", 1], ["failed", 1], ["cancelled", 1], ["retries", 1], ["run, sum", 1],
             ["mean", 1], ["max", 1], ["mean wait", 1]]  # fmt: skip
    return _table(heads, (
        [row["Name"], *(str(row[name]) for name in ("Calls", "Failed", "Cancelled", "Retries")),
         *(in_seconds(row[name]) for name in ("TotalSeconds", "MeanSeconds", "MaxSeconds")),
         "-" if row["MeanWaitSeconds"] is None else in_seconds(row["MeanWaitSeconds"])]
        for row in rows
    ))  # fmt: skip


def _failures(inside: Iterable[Owned], block: Block) -> Table:
    """Attempts that did not give a value, the first ones first."""
    names = {row["NodeID"][:_NODE_HEX]: row["NodeName"] for row in block.nodes}
    found = sorted(
        (fact for each in inside for fact in each.facts if fact.state != DONE), key=lambda fact: fact.answered
    )
    heads = [["at", 1], ["function", 0], ["", 0], ["attempt", 1], ["worker", 0], ["error", 0]]
    return _table(heads, (
        [in_seconds(max(0.0, fact.answered - block.began)), fact.name, fact.state, str(fact.attempt + 1),
         _worker(fact.worker, block, names) if fact.worker else "-", fact.error or "-"]
        for fact in found
    ))  # fmt: skip


def _nodes(shown: Iterable[Span], block: Block) -> Table:
    ran: dict[str, list[float]] = {}
    for span in shown:
        ran.setdefault(span.fact.worker.hex()[:_NODE_HEX], []).append(_within(span, block))
    heads = [["node", 0], ["id", 0], ["state", 0], ["CPUs", 1], ["other resources", 0], ["store used", 1], ["store", 1],
             ["workers", 1], ["calls", 1], ["run, sum", 1], ["Python", 0], ["zmreg", 0]]  # fmt: skip
    rows = []
    for row in block.nodes:
        there = ran.get(row["NodeID"][:_NODE_HEX], [])
        others = ", ".join(_amount(name, of) for name, of in sorted(row["Resources"].items()) if name != "CPU")
        rows.append([
            row["NodeName"], row["NodeID"][:8], row["State"], f"{row['Resources'].get('CPU', 0):g}", others or "-",
            in_bytes(row["ObjectStoreUsedBytes"]), in_bytes(row["ObjectStoreBytes"]), str(row["Workers"]),
            str(len(there)), in_seconds(sum(there)), row["Python"], row["Version"],
        ])  # fmt: skip
    return _table(heads, rows)


def _amount(name: str, amount: float) -> str:
    return f"{name} {in_bytes(amount)}" if name in ("memory", "object_store_memory") else f"{name} {amount:g}"


def _profile(found: Profiled) -> dict[str, Any]:
    nodes = found.tree.nodes()
    kept = largest(nodes, MOST_PROFILE)
    numbers: dict[tuple[str, str, int], int] = {}
    rows = [[node.parent, numbers.setdefault(node.frame, len(numbers)), node.self_us, node.total_us] for node in kept]
    whole = sum(node.self_us for node in nodes) or 1
    heads = [["own time", 1], ["of all", 1], ["with what it called", 1], ["function", 0], ["where", 0]]
    hot = _table(heads, (
        [in_seconds(each.self_us * 1e-6), f"{100 * each.self_us / whole:.1f} %", in_seconds(each.total_us * 1e-6),
         each.frame[0], f"{each.frame[1]}:{each.frame[2]}"]
        for each in hottest(nodes)
    ), MOST_HOT)  # fmt: skip
    left = f"; {len(nodes) - len(kept)} smaller places are not drawn" if len(kept) < len(nodes) else ""
    cut = f"; of {found.tree.cut} the innermost part had no room" if found.tree.cut else ""
    about = (
        f"{found.tree.samples} stacks of {found.processes} processes in {in_seconds(found.seconds)}: elapsed time of"
        f" all threads together, waiting included{left}{cut}. Click to look closer."
    )
    return {"About": about, "Frames": [list(frame) for frame in numbers], "Nodes": rows, "Hot": hot}


# -- how values look ---------------------------------------------------------------------------------------------------


def _cut(text: str) -> str:
    return text if len(text) <= _TEXT_CHARS else text[: _TEXT_CHARS - 3] + "..."


def in_seconds(value: float) -> str:
    """With three digits and the unit that suits."""
    if value < 1e-3:
        return f"{value * 1e6:.3g} us" if value else "0 s"
    if value < 1:
        return f"{value * 1e3:.3g} ms"
    return f"{value:.3g} s" if value < 120 else f"{value / 60:.3g} min"


def in_bytes(value: float) -> str:
    """The same."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < _KIB:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= _KIB
    return f"{value:.1f} TiB"
