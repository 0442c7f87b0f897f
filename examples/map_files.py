"""A plain function over many files: `zmreg.map` makes the chunks, keeps the order and needs no decorator."""

from __future__ import annotations

import ast
import json
from pathlib import Path

import zmreg


def definitions(path: Path) -> int:
    """How many functions and classes the file defines."""
    tree = ast.parse(path.read_bytes())
    return sum(isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) for node in ast.walk(tree))


def main() -> None:
    zmreg.init(num_cpus=2)

    paths = sorted(Path(json.__file__).parent.parent.glob("[a-d]*.py"))
    counts = list(zmreg.map(definitions, paths))
    most, path = max(zip(counts, paths, strict=True))
    print(f"{sum(counts)} definitions in {len(paths)} files, most of them ({most}) in {path.name}")
    assert counts[paths.index(path)] == definitions(path)

    zmreg.shutdown()


if __name__ == "__main__":
    main()
