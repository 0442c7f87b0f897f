"""Pages do not drift: links lead somewhere, commands exist, and the code in them runs."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
PYTHON_BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
MAKE = re.compile(r"\bmake ([a-z]+)\b(?=[`\s])")


def page_id(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def python_blocks() -> Iterator[object]:
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for number, found in enumerate(PYTHON_BLOCK.finditer(text), 1):
            yield pytest.param(found[1], id=f"{page_id(page)}:{number}")


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_links_lead_somewhere(page: Path) -> None:
    targets = [link.partition("#")[0] for link in LINK.findall(page.read_text(encoding="utf-8"))]
    local = [target for target in targets if target and "://" not in target and not target.startswith("mailto:")]
    assert not [target for target in local if not (page.parent / target).exists()]


def test_make_targets_named_in_the_pages_exist() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    # Only what is set as code: prose may make sense, too.
    code = re.compile(r"`[^`\n]+`|^```\n.*?^```$", re.MULTILINE | re.DOTALL)
    named = {
        name for page in PAGES for span in code.findall(page.read_text(encoding="utf-8")) for name in MAKE.findall(span)
    }
    assert named, "the pages should say how to run things"
    assert named <= targets


@pytest.mark.parametrize("code", list(python_blocks()))
def test_code_in_the_pages_runs(code: str, tmp_path: Path) -> None:
    """Unchanged, as a script of its own in an empty directory, with warnings as errors."""
    script = tmp_path / "page.py"
    script.write_text(code, encoding="utf-8")
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-W", "error", script.name], cwd=tmp_path, env=env, text=True, capture_output=True, timeout=50
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_glossary_explains_the_words_of_the_tour() -> None:
    rows = re.findall(r"^\| ([^|]+) \|", (ROOT / "docs/glossary.md").read_text(encoding="utf-8"), re.MULTILINE)
    words = {word.strip() for row in rows for word in row.split(",")}
    assert {"cluster", "node", "head", "worker", "driver", "client", "owner", "holder", "lease", "locations"} <= words
