"""Stacks that were seen, counted: a tree of calls with the time for which each was the innermost one.

A sample stands for the time since the one before it. So a process that could not be looked at for a while (C code kept
Python's lock) has that time where it was found afterwards, and processes that are looked at less often count alike.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from zmreg.model.record import Record

# Of one process, and of all together: what would be one more is counted for its caller. A node is some 60 bytes of an
# answer; programs have a few hundred.
MOST_NODES: Final = 5_000
MOST_FRAMES: Final = 2_000
MOST_DEPTH: Final = 100
ROOT: Final = -1
_TEXT_CHARS: Final = 300

Frame = tuple[str, str, int]
"""(function, file, line of its `def`)."""


class Node(Record):
    """A place in the tree."""

    parent: int
    """A node's number, smaller than its own, or `ROOT`."""
    frame: Frame
    self_us: int
    total_us: int
    """With all that it called."""


class Hot(Record):
    """A function, wherever it was called."""

    frame: Frame
    self_us: int
    total_us: int
    """Once for each stack, however often it is in there."""


class CallTree:
    """Grows by paths, or by the plain form of others."""

    __slots__ = ("_children", "_frames", "_numbers", "_of", "_parents", "_self", "cut", "samples")

    def __init__(self) -> None:
        self._frames: list[Frame] = []
        self._numbers: dict[Frame, int] = {}
        self._parents: list[int] = []
        self._of: list[int] = []
        self._self: list[int] = []
        self._children: dict[tuple[int, int], int] = {}
        self.samples = 0
        self.cut = 0
        """Samples of which the innermost part found no room any more."""

    def __len__(self) -> int:
        return len(self._parents)

    def number(self, frame: Frame) -> int:
        """What stands for this frame in `add`; -1 when there are too many."""
        known = self._numbers.get(frame)
        if known is None:
            if len(self._frames) >= MOST_FRAMES:
                return -1
            known = self._numbers[frame] = len(self._frames)
            function, file, line = frame
            self._frames.append((function[:_TEXT_CHARS], file[-_TEXT_CHARS:], line))
        return known

    def add(self, path: Iterable[int], us: int) -> None:
        """A stack, the outermost frame first, that stands for so many microseconds."""
        at = ROOT
        self.samples += 1
        for depth, frame in enumerate(path):
            below = self._below(at, frame) if depth < MOST_DEPTH else ROOT
            if below == ROOT:
                self.cut += 1
                break
            at = below
        if at != ROOT:
            self._self[at] += us

    def _below(self, parent: int, frame: int) -> int:
        """The node; ROOT when there is no room for it."""
        node = self._children.get((parent, frame))
        if node is None:
            if frame < 0 or len(self._parents) >= MOST_NODES:
                return ROOT
            node = self._children[parent, frame] = len(self._parents)
            self._parents.append(parent)
            self._of.append(frame)
            self._self.append(0)
        return node

    def plain(self) -> dict[str, Any]:
        """For a message: parents stand before their children."""
        return {
            "Frames": [list(frame) for frame in self._frames],
            "Nodes": [list(row) for row in zip(self._parents, self._of, self._self, strict=True)],
            "Samples": self.samples, "Cut": self.cut,
        }  # fmt: skip

    def merge(self, plain: Mapping[str, Any]) -> None:
        """Take another tree's samples as well. Of a node for which there is no room the time is its caller's."""
        frames = [self.number((str(function), str(file), int(line))) for function, file, line in plain["Frames"]]
        here: list[int] = []
        for parent, frame, us in plain["Nodes"]:
            above = here[parent] if parent != ROOT else ROOT
            below = self._below(above, frames[frame])
            here.append(above if below == ROOT else below)
            if here[-1] != ROOT:
                self._self[here[-1]] += us
        self.samples += plain["Samples"]
        self.cut += plain["Cut"]

    def nodes(self) -> list[Node]:
        """All of them, with their sums."""
        total = list(self._self)
        for node in range(len(total) - 1, -1, -1):
            if self._parents[node] != ROOT:
                total[self._parents[node]] += total[node]
        rows = zip(self._parents, self._of, self._self, total, strict=True)
        return [Node(parent, self._frames[frame], own, every) for parent, frame, own, every in rows]


def largest(nodes: Sequence[Node], most: int) -> list[Node]:
    """The `most` with the longest time, still a tree: a caller has at least the time of what it called."""
    order = sorted(range(len(nodes)), key=lambda number: (-nodes[number].total_us, number))[:most]
    kept: dict[int, int] = {ROOT: ROOT}
    found: list[Node] = []
    for number in sorted(order):
        node = nodes[number]
        kept[number] = len(found)
        found.append(Node(kept[node.parent], node.frame, node.self_us, node.total_us))
    return found


def hottest(nodes: Sequence[Node]) -> list[Hot]:
    """The functions, those with the longest time of their own first."""
    own: dict[Frame, int] = {}
    total: dict[Frame, int] = {}
    above: list[frozenset[Frame]] = []
    for node in nodes:
        callers = frozenset[Frame]() if node.parent == ROOT else above[node.parent]
        above.append(callers | {node.frame} if node.frame not in callers else callers)
        own[node.frame] = own.get(node.frame, 0) + node.self_us
        if node.frame not in callers:
            total[node.frame] = total.get(node.frame, 0) + node.total_us
    order = sorted(own, key=lambda frame: (-own[frame], -total[frame], frame))
    return [Hot(frame, own[frame], total[frame]) for frame in order]


def nested(nodes: Sequence[Node]) -> list[dict[str, Any]]:
    """The same as dicts within dicts, the longest first: Name, File, Line, SelfSeconds, TotalSeconds, Calls."""
    made: list[dict[str, Any]] = []
    top: list[dict[str, Any]] = []
    for node in nodes:
        function, file, line = node.frame
        row = {"Name": function, "File": file, "Line": line, "SelfSeconds": node.self_us * 1e-6,
               "TotalSeconds": node.total_us * 1e-6, "Calls": []}  # fmt: skip
        made.append(row)
        (top if node.parent == ROOT else made[node.parent]["Calls"]).append(row)
    for rows in (top, *(row["Calls"] for row in made)):
        rows.sort(key=lambda row: -float(row["TotalSeconds"]))
    return top


class Profiled(Record):
    """What was seen of a program's processes."""

    tree: CallTree
    processes: int
    seconds: float
    silent: list[str]
    """Processes and nodes that have not answered the last time."""
