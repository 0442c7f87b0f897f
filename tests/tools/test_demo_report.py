"""What the demo prints, from made-up figures."""

from __future__ import annotations

import io
import json

import pytest

from zmreg.tools.demo.ranking import Answer, Hit
from zmreg.tools.demo.report import Asked, ProgressLine, Report, answer_text, human_bytes, human_time, table_text

HIT = Hit(path="contextlib.py", line=17, name="AbstractContextManager", text="class AbstractContextManager:", score=9.5)
ASKED = Asked("context manager", Answer((HIT,), 750), seconds=0.004, single_seconds=0.002)


def made_up() -> Report:
    report = Report(root="/lib", files=600, source_bytes=10 << 20, workers=2, shards=2, passages=20_000, words=10**6)
    report.start_s, report.index_s, report.single_index_s = 0.2, 2.0, 3.0
    report.kept_bytes, report.moved_bytes = 15 << 20, 4096
    report.asked.append(ASKED)
    return report


@pytest.mark.parametrize(
    ("nbytes", "text"), [(0, "0 B"), (1536, "1.5 KiB"), (15 << 20, "15.0 MiB"), (3 << 30, "3.0 GiB")]
)
def test_human_bytes(nbytes: int, text: str) -> None:
    assert human_bytes(nbytes) == text


@pytest.mark.parametrize(("seconds", "text"), [(0.0031, "3.1 ms"), (2.5, "2.50 s")])
def test_human_time(seconds: float, text: str) -> None:
    assert human_time(seconds) == text


def test_table() -> None:
    assert table_text(made_up()) == (
        "                        zmreg, 2 workers    one process\n"
        "  files indexed         600                 600\n"
        "  source read           10.0 MiB            10.0 MiB\n"
        "  passages, words       20,000, 1,000,000   the same\n"
        "  cluster start         200.0 ms            -\n"
        "  indexing              2.00 s              3.00 s   zmreg is 1.50x as fast\n"
        "  a query               4.0 ms              2.0 ms   same answers\n"
        "  index kept in place   15.0 MiB            -\n"
        "  moved to the driver   4.0 KiB   0.03%     -\n"
    )


def test_json_document() -> None:
    document = json.loads(json.dumps(made_up().as_dict()))
    assert document["speedup"] == 1.5
    assert document["queries"][0]["query"] == "context manager"
    assert document["queries"][0]["hits"][0]["path"] == "contextlib.py"
    assert "asked" not in document


def test_answer_is_plain_without_colour_and_bold_with() -> None:
    plain = answer_text(ASKED, colour=False)
    assert "contextlib.py:17  in AbstractContextManager" in plain
    assert "\x1b" not in plain
    assert "Abstract\x1b[1mContext\x1b[0m\x1b[1mManager\x1b[0m" in answer_text(ASKED, colour=True)


def test_nothing_found_says_what_next() -> None:
    assert "nothing found" in answer_text(Asked("zz", Answer((), 0), 0.001), colour=False)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_progress_is_one_plain_line_in_a_file() -> None:
    stream = io.StringIO()
    line = ProgressLine("indexing", made_up(), stream)
    line.advance(600, 10 << 20)
    line.close()
    assert stream.getvalue().startswith("indexing     [########################] 600/600 files  10.0 MiB")
    assert stream.getvalue().count("\n") == 1
    assert "\x1b" not in stream.getvalue()


def test_progress_is_redrawn_in_place_on_a_terminal() -> None:
    stream = Terminal()
    line = ProgressLine("indexing", made_up(), stream)
    line.advance(300, 5 << 20)
    line.advance(300, 5 << 20)  # within the redraw interval: not drawn
    line.close()
    assert stream.getvalue().count("\r") == 2
    assert stream.getvalue().count("\n") == 1
