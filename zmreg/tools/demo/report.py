"""What the demo prints: a progress line, answers, a table, one JSON document. Sizes in bytes, times in seconds."""

from __future__ import annotations

import sys
import time
from dataclasses import asdict, dataclass, field
from typing import TextIO

from zmreg.tools.demo.ranking import Answer
from zmreg.tools.demo.words import fold, spellings

# A line is redrawn at most this often: faster than eyes follow, slow enough to cost nothing.
REDRAW_S = 0.05
BAR_CHARS = 24


@dataclass(frozen=True, slots=True)
class Asked:
    """One query: its answer, how long zmreg took, how long one process took (seconds), whether both said the same."""

    query: str
    answer: Answer
    seconds: float
    single_seconds: float = 0.0
    same: bool = True


@dataclass(slots=True)
class Report:
    """All figures of one run; filled in as they become known."""

    root: str
    files: int
    source_bytes: int
    workers: int
    shards: int
    passages: int = 0
    words: int = 0
    start_s: float = 0.0
    index_s: float = 0.0
    single_index_s: float = 0.0
    kept_bytes: int = 0
    moved_bytes: int = 0
    asked: list[Asked] = field(default_factory=list)

    @property
    def speedup(self) -> float:
        """One process's indexing time over zmreg's."""
        return self.single_index_s / self.index_s if self.index_s else 0.0

    def as_dict(self) -> dict[str, object]:
        """The JSON document of `--json`."""
        document = asdict(self)
        document["speedup"] = round(self.speedup, 3)
        document["queries"] = [
            {"query": asked.pop("query"), **asked.pop("answer"), **asked} for asked in document.pop("asked")
        ]
        return document


class ProgressLine:
    """One line on `stream` that shows work being done: redrawn in place on a terminal, else printed once at the end."""

    def __init__(self, label: str, report: Report, stream: TextIO | None = None) -> None:
        self._label = label
        self._report = report
        self._stream = sys.stderr if stream is None else stream
        self._live = self._stream.isatty()
        self._began = time.perf_counter()
        self._drawn = 0.0
        self._files = 0
        self._bytes = 0

    def advance(self, files: int, nbytes: int) -> None:
        """Some more files are done."""
        self._files += files
        self._bytes += nbytes
        now = time.perf_counter()
        if self._live and now - self._drawn >= REDRAW_S:
            self._drawn = now
            self._stream.write(f"\r{self._text(now)}\x1b[K")
            self._stream.flush()

    def close(self) -> None:
        """Leave the final line standing."""
        start = "\r" if self._live else ""
        end = "\x1b[K\n" if self._live else "\n"
        self._stream.write(f"{start}{self._text(time.perf_counter())}{end}")
        self._stream.flush()

    def _text(self, now: float) -> str:
        share = self._bytes / max(1, self._report.source_bytes)
        bar = "#" * round(share * BAR_CHARS)
        return (
            f"{self._label:<12} [{bar:.<{BAR_CHARS}}] {self._files}/{self._report.files} files  "
            f"{human_bytes(self._bytes)}  {now - self._began:.1f} s"
        )


def human_bytes(nbytes: float) -> str:
    """1536 -> "1.5 KiB"."""
    for unit in ("B", "KiB", "MiB"):
        if nbytes < 1024:
            return f"{nbytes:.0f} {unit}" if unit == "B" else f"{nbytes:.1f} {unit}"
        nbytes /= 1024
    return f"{nbytes:.1f} GiB"


def human_time(seconds: float) -> str:
    """0.0031 -> "3.1 ms"."""
    return f"{seconds * 1000:.1f} ms" if seconds < 1 else f"{seconds:.2f} s"


def answer_text(asked: Asked, colour: bool) -> str:
    """The ranked hits of one query, for people."""
    answer = asked.answer
    if not answer.hits:
        return f'"{asked.query}": nothing found. Words of at least two letters are searched; try others.\n'
    wanted = frozenset(fold(piece) for piece in spellings(asked.query))
    lines = [f'"{asked.query}": best {len(answer.hits)} of {answer.matches:,} passages, {human_time(asked.seconds)}']
    for rank, hit in enumerate(answer.hits, 1):
        place = f"{hit.path}:{hit.line}"
        text = highlighted(hit.text, wanted) if colour else hit.text
        lines.append(f"{rank:>3}. {paint(place, '36') if colour else place}" + (f"  in {hit.name}" if hit.name else ""))
        lines.append(f"       {text}")
    return "\n".join(lines) + "\n"


def highlighted(text: str, wanted: frozenset[str]) -> str:
    """`text` with the words of the query in bold."""
    parts = []
    rest = text
    for piece in spellings(text):
        before, _, rest = rest.partition(piece)
        parts += [before, paint(piece, "1") if fold(piece) in wanted else piece]
    return "".join((*parts, rest))


def paint(text: str, code: str) -> str:
    """`text` between an ANSI code and its reset."""
    return f"\x1b[{code}m{text}\x1b[0m"


def table_text(report: Report) -> str:
    """The table at the end: what was done, what moved, and how one process compares."""
    moved_share = report.moved_bytes / max(1, report.kept_bytes + report.moved_bytes)
    rows = [
        ("", f"zmreg, {report.workers} workers", "one process"),
        ("files indexed", f"{report.files:,}", f"{report.files:,}"),
        ("source read", human_bytes(report.source_bytes), human_bytes(report.source_bytes)),
        ("passages, words", f"{report.passages:,}, {report.words:,}", "the same"),
        ("cluster start", human_time(report.start_s), "-"),
        (
            "indexing",
            human_time(report.index_s),
            f"{human_time(report.single_index_s)}   zmreg is {report.speedup:.2f}x as fast",
        ),
    ]
    if report.asked:
        count = len(report.asked)
        ours = human_time(sum(asked.seconds for asked in report.asked) / count)
        single = human_time(sum(asked.single_seconds for asked in report.asked) / count)
        same = "same answers" if all(asked.same for asked in report.asked) else "DIFFERENT ANSWERS"
        rows.append(("a query", ours, f"{single}   {same}"))
    rows += [
        ("index kept in place", human_bytes(report.kept_bytes), "-"),
        (
            "moved to the driver",
            f"{human_bytes(report.moved_bytes)}   {moved_share:.2%}",
            "-",
        ),
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(2)]
    return "\n".join(f"  {a:<{widths[0]}}   {b:<{widths[1]}}   {c}".rstrip() for a, b, c in rows) + "\n"
