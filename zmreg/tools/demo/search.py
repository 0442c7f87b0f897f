"""The search engine twice: on zmreg, and in one process for comparison. The same two pieces of plain Python in both.

    groups of files ──► index_files (tasks) ──► partial indexes, in shared memory, where they were made
                                                      │ the shards read them there
    query ──► Shard actors ──► the best hits ──► here

Only counts and hits ever come to the driver.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import zmreg
from zmreg.tools.demo.files import Group
from zmreg.tools.demo.ranking import Added, Answer, Shard, merge_answers, merge_counts, query_words
from zmreg.tools.demo.segment import Segment, build_segment

index_files = zmreg.remote(build_segment)
ShardActor = zmreg.remote(Shard)


class Engine:
    """A search index in a zmreg cluster: `shards` actors hold it between them. Needs `zmreg.init()` first."""

    def __init__(self, root: Path, shards: int) -> None:
        self._root = str(root)
        self._shards = [ShardActor.remote() for _ in range(shards)]
        self._parts: list[zmreg.ObjectRef[Segment]] = []
        self.moved_bytes = 0

    def index(self, groups: Sequence[Group]) -> Iterator[tuple[Group, Added]]:
        """Index all groups; yields each one as soon as its partial index is in its shard."""
        group_of = {}
        for number, group in enumerate(groups):
            part = index_files.remote(self._root, group.paths)
            # The ref goes to the shard, not its value: the call starts once the part exists, and reads it in place.
            added = self._shards[number % len(self._shards)].add.remote(part)
            self._parts.append(part)
            group_of[added] = group
        for added in zmreg.as_completed(list(group_of)):
            yield group_of[added], self._fetch([added])[0]

    def ask(self, query: str, top: int) -> Answer:
        """The `top` best hits for `query`."""
        wanted = query_words(query)
        counts = merge_counts(self._fetch([shard.count.remote(wanted) for shard in self._shards]))
        return merge_answers(self._fetch([shard.best.remote(wanted, counts, top) for shard in self._shards]), top)

    @property
    def kept_bytes(self) -> int:
        """Size of all partial indexes, asked without fetching any."""
        return sum(part.meta.nbytes for part in self._parts)

    def _fetch(self, refs: list[zmreg.ObjectRef[Any]]) -> list[Any]:
        values = zmreg.get(refs)
        self.moved_bytes += sum(ref.meta.nbytes for ref in refs)
        return values


class OneProcess:
    """The same index and the same answers from this process alone."""

    def __init__(self, root: Path, shards: int) -> None:
        self._root = str(root)
        self._shards = [Shard() for _ in range(shards)]

    def index(self, groups: Sequence[Group]) -> Iterator[tuple[Group, Added]]:
        """Index all groups; yields each one when it is done."""
        for number, group in enumerate(groups):
            yield group, self._shards[number % len(self._shards)].add(build_segment(self._root, group.paths))

    def ask(self, query: str, top: int) -> Answer:
        """The `top` best hits for `query`."""
        wanted = query_words(query)
        counts = merge_counts([shard.count(wanted) for shard in self._shards])
        return merge_answers([shard.best(wanted, counts, top) for shard in self._shards], top)
