"""The program behind `zmreg demo`, without its progress line: a search engine over Python's own standard library.

Tasks parse and tokenise groups of files, each makes one partial index; actors hold the shards and read the partial
indexes where they were made. The pieces are plain Python, in `zmreg/tools/demo/`: `segment.build_segment` makes a
partial index, `ranking.Shard` answers queries from some of them, and `search.Engine` runs both on zmreg.

    python examples/search_stdlib.py context manager
"""

from __future__ import annotations

import sys

import zmreg
from zmreg.tools.demo.files import grouped, python_files, standard_library
from zmreg.tools.demo.search import Engine

WORKERS = 2


def main(query: str) -> None:
    root = standard_library()
    groups = grouped(python_files(root), WORKERS)
    zmreg.init(num_cpus=WORKERS)

    engine = Engine(root, shards=WORKERS)
    for group, added in engine.index(groups):
        print(f"{added.passages:6,} passages from {added.files:3} files, {group.nbytes:9,} bytes")

    answer = engine.ask(query, top=5)
    for hit in answer.hits:
        print(f"{hit.path}:{hit.line}  {hit.text}")

    print(f"kept in place: {engine.kept_bytes:,} bytes; moved here: {engine.moved_bytes:,} bytes")
    assert answer.hits
    assert engine.moved_bytes < engine.kept_bytes / 100

    zmreg.shutdown()


if __name__ == "__main__":
    main(" ".join(sys.argv[1:]) or "context manager")
