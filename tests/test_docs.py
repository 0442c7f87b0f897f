"""Pages do not drift: links lead somewhere, tables follow the code, what is named exists, and the examples run."""

from __future__ import annotations

import inspect
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import zmreg
from docs import generate

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
PYTHON_BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
FENCE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
MAKE = re.compile(r"\bmake ([a-z|]+)(?=[`\s])")
CODE = re.compile(r"`([^`\n]+)`")
ROOMS = "api|core|flows|model|net|services|store|testing|tools|wire"
# One page takes 1 s on an idle core: its cluster's start, and what it shows.
PAGE_S = 50


def page_id(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def text_of(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def script_of(page: Path) -> str:
    """The page's Python blocks as one script, each at the line where it stands, so that a traceback leads there."""
    text, script = text_of(page), ""
    for block in PYTHON_BLOCK.finditer(text):
        script += "\n" * (text.count("\n", 0, block.start(1)) - script.count("\n")) + block[1]
    return script


def spans() -> list[tuple[str, str]]:
    """(page, text) of everything that is set as code inside a sentence or a table."""
    return [(page_id(page), span) for page in PAGES for span in CODE.findall(FENCE.sub("", text_of(page)))]


WITH_CODE = [page for page in PAGES if script_of(page)]


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_links_lead_somewhere(page: Path) -> None:
    targets = [link.partition("#")[0] for link in LINK.findall(text_of(page))]
    local = [target for target in targets if target and "://" not in target and not target.startswith("mailto:")]
    assert not [target for target in local if not (page.parent / target).exists()]


def test_make_targets_named_in_the_pages_exist() -> None:
    targets = set(re.findall(r"^([a-z]+):", text_of(ROOT / "Makefile"), re.MULTILINE))
    # Only what is set as code: prose may make sense, too.
    fences = [fence for page in PAGES for fence in FENCE.findall(text_of(page)) if fence.startswith("```\n")]
    code = [*(span + " " for _, span in spans()), *fences]
    found = [name for text in code for name in MAKE.findall(text)]
    named = {each for name in found for each in name.split("|")}
    assert named, "the pages should say how to run things"
    assert named <= targets


@pytest.mark.parametrize("page", WITH_CODE, ids=page_id)
def test_code_in_the_pages_runs(page: Path, tmp_path: Path) -> None:
    """All blocks of a page, unchanged, as one script in an empty directory, with warnings as errors."""
    script = tmp_path / f"{page.stem}.py"
    script.write_text(script_of(page), encoding="utf-8")
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-W", "error", script.name],
        cwd=tmp_path,
        env=env,
        text=True,
        capture_output=True,
        timeout=PAGE_S,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Traceback" not in done.stderr, done.stderr


@pytest.mark.parametrize("page", list(generate.pages()), ids=page_id)
def test_generated_parts_follow_the_code(page: Path) -> None:
    text = text_of(page)
    assert generate.filled(text, skip=generate.NOT_COMPARED) == text, "the code has changed: run `make docs`"
    waiting = [line for line in text.splitlines() if generate.MISSING in line]
    assert not waiting, f"new rows wait for words, to be written in {page_id(page)}"


def test_every_part_has_its_place() -> None:
    placed = [found[2] for page in generate.pages() for found in generate.PART.finditer(text_of(page))]
    assert sorted(placed) == sorted(generate.PARTS)


def test_kept_cells_survive_and_new_rows_wait() -> None:
    table = generate.Table(("word", "kind", "meaning"), frozenset({"meaning"}), [("`a`", "new"), ("`b`", "x \\| y")])
    old = "| word | kind | meaning |\n|---|---|---|\n| `a` | old | by hand, with a \\| in it |\n"
    text = table.text(generate.read_table(old))
    assert text.splitlines()[2:] == ["| `a` | new | by hand, with a \\| in it |", "| `b` | x \\| y | … |"]
    assert table.text(generate.read_table(text)) == text


def test_tests_named_in_the_pages_exist() -> None:
    known = {*generate.tests_by_name(), *(path.stem for path in (ROOT / "tests").rglob("test_*.py"))}
    named = {(page, span) for page, span in spans() if re.fullmatch(r"test_\w+", span)}
    assert len(named) > 50, "the guarantees should name their proofs"
    assert not {(page, span) for page, span in named if span not in known}


def test_proofs_are_where_the_page_says() -> None:
    """New tests come into that table with `make docs`; here it is enough that it says nothing wrong."""
    known = generate.tests_by_name()
    told = re.findall(r"`(test_\w+)` \(([\w/]+\.py)\)", text_of(ROOT / "docs/guarantees.md"))
    assert told
    assert not [name for name, path in told if name not in known or known[name] != ROOT / "tests" / path]


# Numbers of the project's fault table, from 1.
FAULTS = 68


def test_every_fault_has_a_proof_named_after_it_or_is_not_promised() -> None:
    page = text_of(ROOT / "docs/guarantees.md")
    rows = [re.split(r"(?<!\\)\|", line)[1:-1] for line in page.splitlines() if re.match(r"\| \d+ \|", line)]
    listed = {int(row[0]): row for row in rows}
    named = {int(fault) for name in generate.tests_by_name() for fault in generate.FAULT.findall(name)}
    assert not [fault for fault in listed if fault not in named], "no test carries the number in its name"
    assert not [fault for fault, row in listed.items() if "test_" not in row[-1]], "run `make docs`"
    open_ones = page.partition("## What is not promised yet")[2]
    told = {int(number) for group in re.findall(r"\((\d+(?:, \d+)*)\)", open_ones) for number in group.split(", ")}
    assert not [fault for fault in range(1, FAULTS + 1) if fault not in listed and fault not in told]


# Rows of the project's list of the interface: Ray's, other systems', complaints, and what was seen to go wrong in Ray.
API_ROWS = [str(number) for number in range(1, 82)]
API_ROWS += [f"{kind}{n + 1}" for kind, count in (("X", 36), ("C", 45), ("S", 7)) for n in range(count)]


def test_every_row_of_the_interface_has_a_proof_or_says_that_it_is_not_there() -> None:
    """What was asked for now or soon (M, S), complained of (C), or seen in Ray. Tests by name, or in the text."""
    page, by_row = text_of(ROOT / "docs/api-table.md"), generate.tests_by_row()
    parts = [found[3] for found in generate.PART.finditer(page)]
    rows = {key: row for part in parts for key, row in generate.read_table(part).items()}
    assert list(rows) == API_ROWS
    asked = {key: row for key, row in rows.items() if re.search(r"\b[MSC]\b", row["asked"])}
    without = {key for key, row in asked.items() if key not in by_row and "`test_" not in row["in zmreg"]}
    told = {key for key, row in rows.items() if row["in zmreg"].startswith("**Not there**")}
    assert without == told
    stale = [key for key, row in rows.items() if key in by_row and "`test_" not in row["proved by"]]
    assert not stale, "run `make docs`"


def test_names_of_our_modules_in_the_pages_exist() -> None:
    """`services.calling.calls.Lane` and `zmreg.get`, looked up; files are, too."""
    missing = []
    for page, span in spans():
        name = span.partition("(")[0]
        try:
            if re.fullmatch(rf"({ROOMS})(\.\w+)+", name) and not name.endswith(".py"):
                generate.value_of(name)
            elif re.fullmatch(r"zmreg(\.\w+)+", name) and not name.endswith(".toml"):
                generate.value_of(name.removeprefix("zmreg."))
            elif re.fullmatch(r"[\w./-]+\.py", name) and "/" in name:
                assert any((ROOT / base / name).exists() for base in (".", "zmreg"))
        except (ImportError, AttributeError, AssertionError):
            missing.append(f"{page}: {span}")
    assert not missing, "\n".join(missing)


def test_names_in_the_code_of_the_pages_are_public() -> None:
    used = {name for page in PAGES for name in re.findall(r"\bzmreg\.(\w+)", script_of(page))}
    assert used and used <= {*zmreg.__all__, "testing", "integrations"}


def test_every_public_name_is_in_the_pages() -> None:
    all_text = "\n".join(text_of(page) for page in PAGES)
    functions = [name for name in zmreg.__all__ if inspect.isfunction(getattr(zmreg, name))]
    assert not [name for name in functions if f"zmreg.{name}" not in all_text]


def test_environment_variables_are_in_the_settings() -> None:
    read = {
        name for path in (ROOT / "zmreg").rglob("*.py") for name in re.findall(r"[\"'](ZMREG_\w+)[\"']", text_of(path))
    }
    assert not [name for name in read if f"`{name}`" not in text_of(ROOT / "docs/settings.md")]


def test_the_states_of_a_ref_are_in_their_page() -> None:
    from zmreg.services.seat.entries import STATE_NAMES

    assert set(STATE_NAMES) <= {span for page, span in spans() if page == "docs/states.md"}


def test_the_glossary_explains_the_words_of_the_tour() -> None:
    rows = re.findall(r"^\| ([^|]+) \|", text_of(ROOT / "docs/glossary.md"), re.MULTILINE)
    words = {word.strip() for row in rows for word in row.split(",")}
    assert {"node", "driver", "zygote", "worker", "door", "link", "owner", "lease", "board", "entry", "pin"} <= words


def test_decisions_are_numbered_and_say_where_they_stand() -> None:
    found = sorted((ROOT / "docs/decisions").glob("*.md"))
    assert [page.name[:4] for page in found] == [f"{number:04}" for number in range(1, len(found) + 1)]
    for page in found:
        text = text_of(page)
        assert text.startswith(f"# {page.name[:4]}: ") and "| status | " in text
        assert all(part in text for part in ("## Context", "## Decision", "## Consequences"))
