"""Source files to one partial index (a *segment*) in one buffer, which is read where it lies.

A passage is what a hit points at: a function, a class without its methods, or the module code around them.
"""

from __future__ import annotations

import ast
import tokenize
import warnings
from array import array
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from zmreg.tools.demo import sections
from zmreg.tools.demo.words import fold, spellings, words

# A word in the name of a function or class counts as this many in its text: "retry" asks for what is so named.
NAME_WEIGHT = 4
# A posting is passage << 8 | count in 32 bits: counts saturate at 255 (BM25 is flat there), passages end at 16 million.
_COUNT_BITS = 8
_MAX_COUNT = (1 << _COUNT_BITS) - 1
_SECTIONS = 13


@dataclass(frozen=True, slots=True)
class Passage:
    """One passage of one file: where it starts (line, from 1), its qualified name ("" at module level), its lines."""

    path: str
    line: int
    name: str
    text: str


def passages(path: str, source: str) -> Iterator[Passage]:
    """Cut `source` at its functions and classes; blank stretches are left out, an unparsable file is one passage."""
    lines = source.split("\n")
    starts = _starts(source)
    for start, end in zip(starts, [*list(starts)[1:], len(lines) + 1], strict=True):
        text = "\n".join(lines[start - 1 : end - 1])
        if text and not text.isspace():
            yield Passage(path, start, starts[start], text)


def _starts(source: str) -> dict[int, str]:
    """First line -> qualified name, in line order."""
    starts = {1: ""}
    with warnings.catch_warnings():
        # Old escapes and the like: what the compiler thinks of other people's code is not this program's business.
        warnings.simplefilter("ignore")
        try:
            tree = ast.parse(source)
        except (SyntaxError, ValueError, RecursionError):
            return starts
    _mark(tree.body, "", starts)
    return dict(sorted(starts.items()))


def _mark(nodes: Iterable[ast.AST], inside: str, starts: dict[int, str]) -> None:
    for node in nodes:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            name = f"{inside}.{node.name}" if inside else node.name
            starts[min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])] = name
            if isinstance(node, ast.ClassDef):
                _mark(node.body, name, starts)
            # What follows a definition belongs to the surroundings again, unless the next definition takes that line.
            starts[(node.end_lineno or node.lineno) + 1] = inside
        elif isinstance(node, ast.If | ast.Try | ast.ExceptHandler | ast.With):
            _mark(ast.iter_child_nodes(node), inside, starts)


def read_source(path: Path) -> str:
    """The file's text with `\\n` line ends; undecodable bytes become U+FFFD. Raises OSError."""
    try:
        with tokenize.open(path) as file:
            return file.read()
    except (SyntaxError, UnicodeDecodeError):
        return path.read_text(encoding="utf-8", errors="replace")


def build_segment(root: str, paths: Sequence[str]) -> Segment:
    """Read, parse and tokenise the files `paths` (relative to `root`) into one segment. Raises OSError."""
    found = [passage for path in paths for passage in passages(path, read_source(Path(root, path)))]
    postings: dict[str, array[int]] = {}
    lengths = []
    for number, passage in enumerate(found):
        counts = _count(passage)
        lengths.append(sum(counts.values()))
        for word, count in counts.items():
            postings.setdefault(word, array("I")).append(number << _COUNT_BITS | min(count, _MAX_COUNT))
    return Segment(_layout(paths, found, lengths, postings))


def _count(passage: Passage) -> Counter[str]:
    counts: Counter[str] = Counter()
    for spelling, count in Counter(spellings(passage.text)).items():
        if word := fold(spelling):
            counts[word] += count
    for word in words(passage.name.rpartition(".")[2]):
        counts[word] += NAME_WEIGHT
    return counts


def _layout(
    paths: Sequence[str], found: Sequence[Passage], lengths: Sequence[int], postings: dict[str, array[int]]
) -> bytes:
    file_numbers = {path: number for number, path in enumerate(paths)}
    vocabulary = sorted(postings)
    return sections.join([
        *sections.strings([path.encode() for path in paths]),
        *sections.strings([passage.name.encode() for passage in found]),
        *sections.strings([passage.text.encode(errors="replace") for passage in found]),
        *sections.strings([word.encode() for word in vocabulary]),
        *sections.strings([postings[word].tobytes() for word in vocabulary]),
        sections.numbers(file_numbers[passage.path] for passage in found),
        sections.numbers(passage.line for passage in found),
        sections.numbers(lengths),
    ])  # fmt: skip


class Segment:
    """A partial index over one buffer. Holds views only: opening costs microseconds, a query reads what it needs."""

    __slots__ = (
        "_data",
        "_file_numbers",
        "_lines",
        "_names",
        "_paths",
        "_postings",
        "_texts",
        "_vocabulary",
        "lengths",
    )

    def __init__(self, data: bytes | memoryview) -> None:
        """Raises ValueError when `data` is not what `build_segment` wrote."""
        parts = sections.split(data, _SECTIONS)
        self._data = data
        self._paths = sections.Strings(parts[0], parts[1])
        self._names = sections.Strings(parts[2], parts[3])
        self._texts = sections.Strings(parts[4], parts[5])
        self._vocabulary = sections.Strings(parts[6], parts[7])
        self._postings = sections.Strings(parts[8], parts[9])
        self._file_numbers, self._lines, self.lengths = (part.cast("I") for part in parts[10:])

    def __reduce__(self) -> tuple[type[Self], tuple[memoryview]]:
        # As a buffer, not as bytes: whoever keeps buffers out of band gives the reader a view of the stored pages.
        return type(self), (memoryview(self._data),)

    @property
    def nbytes(self) -> int:
        """Size of the buffer."""
        return memoryview(self._data).nbytes

    @property
    def files(self) -> int:
        """Number of files it was made from."""
        return len(self._paths)

    def passage(self, number: int) -> Passage:
        """Passage `number` (from 0), copied out of the buffer."""
        path = self._paths[self._file_numbers[number]].decode()
        return Passage(path, self._lines[number], self._names[number].decode(), self._texts[number].decode())

    def postings(self, word: str) -> list[tuple[int, int]]:
        """(passage number, count) for each passage that has `word`, in passage order."""
        key = word.encode()
        place = bisect_left(self._vocabulary, key)
        if place == len(self._vocabulary) or self._vocabulary[place] != key:
            return []
        return [(entry >> _COUNT_BITS, entry & _MAX_COUNT) for entry in array("I", self._postings[place])]
