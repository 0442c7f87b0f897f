"""Which files are searched, and how they are dealt out in groups of about equal work."""

from __future__ import annotations

import os
import sysconfig
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

# Tests of the library are three times the library and answer every query; site-packages is not the standard library.
SKIPPED_FOLDERS = frozenset({"__pycache__", "idlelib", "lib2to3", "site-packages", "test", "tests"})
# Groups of about this much source: large enough that a partial index is stored and not sent (over 64 KiB by far),
# small enough that there is something to balance. Fewer bytes when there would not be 8 groups for each worker.
GROUP_BYTES = 256 << 10
GROUPS_PER_WORKER = 8


@dataclass(frozen=True, slots=True)
class Group:
    """Files that one task indexes: paths relative to the root, and their size on disk."""

    paths: tuple[str, ...]
    nbytes: int


def standard_library() -> Path:
    """Where this interpreter's own library lies."""
    return Path(sysconfig.get_path("stdlib"))


def python_files(root: Path, limit: int | None = None) -> list[tuple[str, int]]:
    """(path relative to root, bytes on disk) of the Python files below `root`, in path order, at most `limit`.

    Raises FileNotFoundError when there is none: some systems ship their library without its source.
    """
    found = []
    for folder, subfolders, names in os.walk(root):
        subfolders[:] = [name for name in subfolders if name not in SKIPPED_FOLDERS and not name.startswith(".")]
        found += [os.path.join(folder, name) for name in names if name.endswith(".py")]
    files = [(os.path.relpath(path, root), os.stat(path).st_size) for path in sorted(found) if os.path.isfile(path)]
    if not files:
        raise FileNotFoundError(
            f"no Python source under {root} (tests and site-packages are left out); "
            "name another folder with --root, for example your own project"
        )
    return files[:limit]


def grouped(files: Sequence[tuple[str, int]], workers: int) -> list[Group]:
    """Deal `files` into groups, largest files first, so that the last tasks to start are the short ones."""
    total = sum(size for _, size in files)
    target = min(GROUP_BYTES, total // (workers * GROUPS_PER_WORKER) + 1)
    groups: list[Group] = []
    paths: list[str] = []
    nbytes = 0
    for path, size in sorted(files, key=lambda file: (-file[1], file[0])):
        paths.append(path)
        nbytes += size
        if nbytes >= target:
            groups.append(Group(tuple(paths), nbytes))
            paths, nbytes = [], 0
    if paths:
        groups.append(Group(tuple(paths), nbytes))
    return groups
