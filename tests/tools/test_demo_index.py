"""The demo's plain Python: words, passages, partial indexes, ranking. No cluster anywhere."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zmreg.tools.demo import sections
from zmreg.tools.demo.files import Group, grouped, python_files, standard_library
from zmreg.tools.demo.ranking import MAX_LINE_CHARS, Answer, Shard, hit_in, merge_answers, merge_counts, query_words
from zmreg.tools.demo.segment import Passage, build_segment, passages
from zmreg.tools.demo.words import words

SOURCE = '''"""About rooms."""
import os

@cached
def open_door(key):
    return key


class Room:
    """A room has doors."""

    size = 1

    def doors(self):
        return [self.size]

    width = 2


LAST = 3
'''


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("AsyncContextManager", ["async", "context", "manager"]),
        ("retry_on_error", ["retry", "on", "error"]),
        ("HTTPServer", ["http", "server"]),
        ("managers class is", ["manager", "class", "is"]),
        ("x = a + 1", []),
        ("", []),
    ],
)
def test_words(text: str, expected: list[str]) -> None:
    assert words(text) == expected


def test_a_query_counts_each_word_once() -> None:
    assert query_words("Context managers, context") == ("context", "manager")


def test_passages_follow_definitions() -> None:
    found = [(passage.line, passage.name) for passage in passages("a.py", SOURCE)]
    assert found == [(1, ""), (4, "open_door"), (9, "Room"), (14, "Room.doors"), (16, "Room"), (18, "")]


def test_passages_cover_every_line_once() -> None:
    lines = SOURCE.split("\n")
    for passage in passages("a.py", SOURCE):
        size = passage.text.count("\n") + 1
        assert passage.text == "\n".join(lines[passage.line - 1 : passage.line - 1 + size])
    assert sum(passage.text.count("\n") + 1 for passage in passages("a.py", SOURCE)) >= len(lines) - 2


def test_an_unparsable_file_is_one_passage() -> None:
    assert [passage.name for passage in passages("a.py", "def broken(:\n  pass")] == [""]


@given(st.lists(st.binary(max_size=50), max_size=10))
def test_sections_round_trip(parts: list[bytes]) -> None:
    joined = sections.join(parts)
    assert [view.tobytes() for view in sections.split(joined, len(parts))] == parts
    assert list(sections.Strings(*map(memoryview, sections.strings(parts)))) == parts


@pytest.mark.parametrize("data", [b"", b"zmdemo1\n", b"something else entirely", sections.join([b"a", b"b"])[:-1]])
def test_a_cut_or_foreign_buffer_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="partial index"):
        sections.split(data, 2)


@pytest.fixture
def library(tmp_path: Path) -> Path:
    """A library of five files, one of them in Latin-1, one empty, one broken."""
    (tmp_path / "rooms.py").write_text(SOURCE)
    (tmp_path / "latin.py").write_bytes("# -*- coding: latin-1 -*-\n# caf\xe9 door\n".encode("latin-1"))
    (tmp_path / "empty.py").write_text("")
    (tmp_path / "broken.py").write_bytes(b"def door(:\n\xff\n")
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "keys.py").write_text("class Key:\n    def fits(self, door):\n        return True\n")
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "test_door.py").write_text("door = 1\n")
    return tmp_path


def index(root: Path, split: int) -> list[Shard]:
    """The library in `split` shards, one file in each partial index."""
    shards = [Shard() for _ in range(split)]
    for number, (path, _) in enumerate(python_files(root)):
        shards[number % split].add(build_segment(str(root), [path]))
    return shards


def ask(shards: list[Shard], query: str, top: int) -> Answer:
    wanted = query_words(query)
    counts = merge_counts([shard.count(wanted) for shard in shards])
    return merge_answers([shard.best(wanted, counts, top) for shard in shards], top)


def test_files_leave_tests_out(library: Path) -> None:
    paths = [path for path, _ in python_files(library)]
    assert paths == ["broken.py", "empty.py", "latin.py", "package/keys.py", "rooms.py"]
    assert len(python_files(library, limit=2)) == 2


def test_no_source_says_what_next(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="--root"):
        python_files(tmp_path)


@given(st.lists(st.integers(0, 10**6), min_size=1, max_size=80), st.integers(1, 8))
def test_groups_hold_every_file_once(sizes: list[int], workers: int) -> None:
    files = [(f"f{number}", size) for number, size in enumerate(sizes)]
    groups: list[Group] = grouped(files, workers)
    assert sorted(path for group in groups for path in group.paths) == sorted(path for path, _ in files)
    assert sum(group.nbytes for group in groups) == sum(sizes)


def test_segment_finds_its_words(library: Path) -> None:
    segment = build_segment(str(library), ["rooms.py", "package/keys.py"])
    found = [segment.passage(number) for number, _ in segment.postings("door")]
    assert [(passage.path, passage.name) for passage in found] == [
        ("rooms.py", "open_door"),
        ("rooms.py", "Room"),
        ("rooms.py", "Room.doors"),
        ("package/keys.py", "Key.fits"),
    ]
    assert segment.postings("nowhere") == []
    assert segment.files == 2


def test_segment_travels_as_one_buffer(library: Path) -> None:
    segment = build_segment(str(library), ["rooms.py"])
    make, (data,) = segment.__reduce__()
    assert data.nbytes == segment.nbytes
    again = make(data)
    assert again.postings("door") == segment.postings("door")


def test_best_line_is_the_one_with_most_words() -> None:
    passage = Passage("a.py", 10, "f", "def f():\n    open the window\n    open the door\n    door")
    hit = hit_in(passage, ("open", "door"), 1.0)
    assert (hit.line, hit.text) == (12, "open the door")


def test_long_lines_are_cut() -> None:
    assert len(hit_in(Passage("a.py", 1, "", "door " * 1000), ("door",), 1.0).text) == MAX_LINE_CHARS


@pytest.mark.parametrize("query", ["door", "open door", "room doors size", "key", "nowhere", ""])
@pytest.mark.parametrize("top", [1, 3, 50])
def test_the_split_never_shows(library: Path, query: str, top: int) -> None:
    whole = ask(index(library, 1), query, top)
    assert [ask(index(library, split), query, top) for split in (2, 3, 5)] == [whole] * 3
    assert len(whole.hits) == min(top, whole.matches)


def test_names_weigh_more_than_mentions(library: Path) -> None:
    assert ask(index(library, 2), "open door", 1).hits[0].name == "open_door"


def test_known_answer_in_the_real_library() -> None:
    root = standard_library()
    shard = Shard()
    shard.add(build_segment(str(root), ["contextlib.py", "json/decoder.py", "queue.py"]))
    hits = ask([shard], "context manager", 5).hits
    assert hits
    for hit in hits:
        lines = (root / hit.path).read_text().split("\n")
        assert lines[hit.line - 1].strip() == hit.text
    assert {hit.path for hit in hits} == {"contextlib.py"}
