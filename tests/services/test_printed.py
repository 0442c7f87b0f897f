"""What workers print: marks in the log, parts that are skipped, lines of several threads."""

from __future__ import annotations

import io
import threading
from pathlib import Path
from types import SimpleNamespace

from zmreg.services.node.printed import Printed
from zmreg.services.node.spoken import Ancestry
from zmreg.services.seat.running import running
from zmreg.services.worker.voice import AGAIN_CHARS, Speech, Voice, captured, mark, marks, one_line, without_marks

ONE, TWO = bytes(range(16)), bytes(range(16, 32))
WORKER = b"\1" * 8


def log_of(tmp_path: Path, data: bytes = b"") -> Printed:
    printed = Printed(tmp_path)
    printed.begin(WORKER)
    printed.path(WORKER).write_bytes(data)
    return printed


def news(printed: Printed, limit: int = 1 << 20, keep: int = 1 << 30) -> list[tuple[bytes, str, str, int]]:
    return [(each.task, each.label, each.text, each.skipped) for each in printed.news(limit, keep)]


def test_row73_a_mark_says_whose_the_next_lines_are(tmp_path: Path) -> None:
    printed = log_of(tmp_path, b"early\n" + mark(ONE, "f") + b"a\nb\n" + mark(TWO, "g") + b"c\nunfini")
    assert news(printed) == [(b"", "", "early\n", 0), (ONE, "f", "a\nb\n", 0), (TWO, "g", "c\n", 0)]
    with printed.path(WORKER).open("ab") as log:
        log.write(b"shed\n")
    assert news(printed) == [(TWO, "g", "unfinished\n", 0)], "it stays in force"
    assert [(each.task, each.text) for each in printed.end(WORKER)] == []


def test_row73_last_words_without_a_newline_are_told_at_the_end(tmp_path: Path) -> None:
    printed = log_of(tmp_path, mark(ONE, "f") + b"last")
    assert news(printed) == []
    assert [(each.task, each.label, each.text) for each in printed.end(WORKER)] == [(ONE, "f", "last")]
    assert printed.tail(WORKER) == "last", "people see no marks"


def test_fault61_a_skipped_part_is_counted_and_the_last_mark_in_it_found(tmp_path: Path) -> None:
    flood = mark(ONE, "f") + b"x" * 99 + b"\n"
    data = flood * 8_000 + mark(TWO, "g") + b"y\n"
    printed = log_of(tmp_path, data)
    (first,) = news(printed, 1_000)
    assert first[:2] == (ONE, "f") and first[3] > 700_000
    with printed.path(WORKER).open("ab") as log:
        log.write(b"after\n")
    assert news(printed) == [(TWO, "g", "after\n", 0)]


def test_fault61_a_skipped_part_without_a_mark_makes_it_nobodys(tmp_path: Path) -> None:
    printed = log_of(tmp_path, mark(ONE, "f") + (b"x" * 99 + b"\n") * 8_000)
    assert news(printed, 1_000)[0][0] == ONE
    with printed.path(WORKER).open("ab") as log:
        log.write(b"after\n")
    assert news(printed) == [(b"", "", "after\n", 0)], "it may have been another driver's call by then"


def test_fault61_a_log_that_is_cut_counts_what_nobody_has_seen(tmp_path: Path) -> None:
    printed = log_of(tmp_path, mark(ONE, "f") + b"x\n" * 1_000)
    told = news(printed, limit=200, keep=500)
    assert told[-1][3] > 1_500 and printed.path(WORKER).stat().st_size == 0
    printed.path(WORKER).write_bytes(b"after\n")
    assert news(printed) == [(ONE, "f", "after\n", 0)]


def test_marks_are_found_and_left_out() -> None:
    data = b"a\n" + mark(ONE, "f g") + b"b\n"
    assert list(marks(data)) == [(b"", "", b"a\n"), (ONE, "f g", b"b\n")]
    assert without_marks(data) == b"a\nb\n"
    assert without_marks(data + mark(TWO, "cut")[:-3]) == b"a\nb\n"
    assert list(marks(b"\x1e not a mark\n")) == [(b"", "", b"\x1e not a mark\n")]
    assert one_line("Net(\n  layers=3\n)\x1e") == "Net( layers=3 )" and len(one_line("x" * 500)) == 80


class Stage:
    """A worker's stdout and stderr, into memory."""

    def __init__(self) -> None:
        self.raw = io.BytesIO()
        self.speech = Speech(SimpleNamespace(parent=None))  # type: ignore[arg-type]
        self.out, self.err = (
            Voice(io.TextIOWrapper(self.raw, "utf-8"), self.speech, name) for name in ("stdout", "stderr")
        )

    def told(self) -> list[tuple[bytes, str, bytes]]:
        self.out.flush()
        self.err.flush()
        return [each for each in marks(self.raw.getvalue()) if each[2]]


def test_row73_each_call_marks_its_lines_once_for_both_streams() -> None:
    stage = Stage()
    running.set((ONE, "mod.<locals>.f", 0))
    print("a", 1, file=stage.out)
    print("b", file=stage.err)
    running.set((TWO, "g", 0))
    print("c", file=stage.out)
    running.set(None)
    print("later", file=stage.out)
    assert stage.told() == [(ONE, "f", b"a 1\nb\n"), (TWO, "g", b"c\nlater\n")]


def test_row73_an_actor_is_labelled_as_it_shows_itself() -> None:
    stage = Stage()
    stage.speech.label, stage.speech.at_rest = "Counter(3)", (TWO, "Counter(3)")
    print("made", file=stage.out)
    running.set((ONE, "Counter.add", 0))
    print("adds", file=stage.out)
    running.set(None)
    assert stage.told() == [(TWO, "Counter(3)", b"made\n"), (ONE, "Counter(3)", b"adds\n")]


def test_row73_beginnings_of_lines_of_several_threads_never_mix() -> None:
    stage, turn = Stage(), threading.Barrier(2, timeout=10)

    def speaks(task: bytes, first: str, second: str) -> None:
        running.set((task, "f", 0))
        stage.out.write(first)
        turn.wait()
        stage.out.write(second)

    threads = [threading.Thread(target=speaks, args=args) for args in ((ONE, "a", "b\n"), (TWO, "c", "d\n"))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(stage.told()) == [(ONE, "f", b"ab\n"), (TWO, "f", b"cd\n")]


def test_row73_a_line_that_never_ended_is_its_own_calls() -> None:
    stage = Stage()
    running.set((ONE, "f", 0))
    stage.out.write("no end")
    running.set((TWO, "g", 0))
    print("next", file=stage.out)
    stage.out.write("part")
    stage.out.flush()
    running.set((ONE, "f", 0))
    print("again", file=stage.out)
    running.set(None)
    assert stage.told() == [(ONE, "f", b"no end\n"), (TWO, "g", b"next\npart\n"), (ONE, "f", b"again\n")]


def test_fault61_a_mark_is_repeated_while_one_call_floods() -> None:
    stage = Stage()
    running.set((ONE, "f", 0))
    for _ in range(3):
        print("x" * AGAIN_CHARS, file=stage.out)
    stage.out.write("y" * AGAIN_CHARS)
    running.set(None)
    assert stage.raw.getvalue().count(b"\x1e") >= 3 and stage.raw.getvalue().endswith(b"y" * 100)


def test_what_is_captured_goes_nowhere_else() -> None:
    stage, heard = Stage(), []
    token = captured.set(heard)
    print("caught", file=stage.err)
    captured.reset(token)
    assert heard == [("stderr", "caught"), ("stderr", "\n")] and stage.told() == []


def test_row73_a_worker_knows_in_which_task_each_call_was_made() -> None:
    ancestry = Ancestry()
    assert ancestry.of(3) == b""
    for counter, parent in ((1, ONE), (5, TWO), (9, None), (12, ONE)):
        ancestry.note(counter, parent)
    assert [ancestry.of(counter) for counter in (0, 1, 4, 5, 11, 12, 99)] == [ONE, ONE, ONE, TWO, TWO, ONE, ONE]
