"""Editors and type checkers see parameter names and types through `.remote` (both checkers, positive and negative)."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from importlib.util import find_spec
from pathlib import Path

import pytest

EXPECTATIONS = Path(__file__).with_name("expectations.py")
ROOT = Path(__file__).parents[2]

Findings = dict[int, str]


def run(module: str, *arguments: str) -> str:
    """A checker's standard output. It exits with 1 when it found errors, which here it should."""
    if find_spec(module) is None:
        pytest.skip(f"{module} is not installed: pip install 'zmreg[test]'")
    command = [sys.executable, "-m", module, *arguments]
    done = subprocess.run(command, cwd=ROOT, text=True, capture_output=True, timeout=110, check=False)
    assert done.returncode in (0, 1), done.stdout + done.stderr
    return done.stdout


def mypy() -> Findings:
    """Errors of mypy --strict by line (1-based)."""
    lines = run("mypy", "--strict", "--no-warn-unreachable", "--output=json", str(EXPECTATIONS)).splitlines()
    return by_line(
        (entry["line"], entry["message"])
        for entry in (json.loads(line) for line in lines if line.startswith("{"))
        if entry["severity"] == "error" and Path(ROOT, entry["file"]) == EXPECTATIONS
    )


def pyright() -> Findings:
    """Errors of pyright by line (1-based; its JSON counts from 0)."""
    report = json.loads(run("pyright", "--outputjson", "--pythonpath", sys.executable, str(EXPECTATIONS)))
    return by_line(
        (entry["range"]["start"]["line"] + 1, entry["message"])
        for entry in report["generalDiagnostics"]
        if entry["severity"] == "error"
    )


def by_line(found: Iterable[tuple[int, str]]) -> Findings:
    findings: Findings = {}
    for line, message in found:
        findings[line] = f"{findings[line]}; {message}" if line in findings else message
    return findings


@pytest.mark.timeout(120)
@pytest.mark.parametrize("checker", [mypy, pyright], ids=lambda checker: checker.__name__)
def test_experience_1_6_typing(checker: Callable[[], Findings]) -> None:
    source = EXPECTATIONS.read_text(encoding="utf-8").splitlines()
    endings = ("# error", f"# error ({checker.__name__})")
    wanted = {number for number, line in enumerate(source, 1) if line.endswith(endings)}
    findings = checker()
    complaints = [
        *surprises(source, findings, wanted),
        *(f"accepted {n}: {source[n - 1]}" for n in wanted - set(findings)),
    ]
    assert not complaints, "\n".join(complaints)


def surprises(source: Sequence[str], findings: Findings, wanted: set[int]) -> list[str]:
    return [f"line {n}: {source[n - 1].strip()}\n    {text}" for n, text in sorted(findings.items()) if n not in wanted]
