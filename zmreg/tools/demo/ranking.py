"""A shard of the index answers queries: BM25 over passages, with the counts of *all* shards: no split ever shows."""

from __future__ import annotations

import heapq
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from zmreg.tools.demo.segment import Passage, Segment
from zmreg.tools.demo.words import words

# BM25's usual constants: how fast repeats stop counting, and how much a long passage pays for its length.
SATURATION = 1.2
LENGTH_SHARE = 0.75
# Longest line shown in an answer; generated tables have lines of 10 kB.
MAX_LINE_CHARS = 160


@dataclass(frozen=True, slots=True)
class Counts:
    """What one shard, or all of them, hold: passages, words, and how many passages have each word of a query."""

    passages: int
    words: int
    passages_with: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Added:
    """What one segment brought to its shard."""

    files: int
    passages: int
    words: int


@dataclass(frozen=True, slots=True)
class Hit:
    """One answer: the best line of one passage. `line` counts from 1; `score`: higher is better."""

    path: str
    line: int
    name: str
    text: str
    score: float


@dataclass(frozen=True, slots=True)
class Answer:
    """The best hits, best first, and how many passages had any word of the query."""

    hits: tuple[Hit, ...]
    matches: int


class Shard:
    """Some segments of the index. Plain Python: `zmreg.remote(Shard)` makes it an actor."""

    def __init__(self) -> None:
        self._segments: list[Segment] = []
        self._passages = 0
        self._words = 0

    def add(self, segment: Segment) -> Added:
        """Take one more segment; it is kept as it came, not copied."""
        added = Added(segment.files, len(segment.lengths), sum(segment.lengths))
        self._segments.append(segment)
        self._passages += added.passages
        self._words += added.words
        return added

    def count(self, query: Sequence[str]) -> Counts:
        """First half of a query: this shard's share of the counts. `query` is folded words."""
        having = {word: sum(len(segment.postings(word)) for segment in self._segments) for word in query}
        return Counts(self._passages, self._words, having)

    def best(self, query: Sequence[str], counts: Counts, top: int) -> Answer:
        """Second half: this shard's `top` best hits, scored with the `counts` of all shards."""
        weights = word_weights(counts)
        mean_length = counts.words / max(1, counts.passages)
        found: list[tuple[float, Segment, int]] = []
        for segment in self._segments:
            scores: defaultdict[int, float] = defaultdict(float)
            matched: defaultdict[int, int] = defaultdict(int)
            for word in query:
                for number, count in segment.postings(word):
                    length = 1 - LENGTH_SHARE + LENGTH_SHARE * segment.lengths[number] / mean_length
                    scores[number] += weights[word] * count * (SATURATION + 1) / (count + SATURATION * length)
                    matched[number] += 1
            # Times the share of the words found. Rounded: shards and merger must agree on what a tie is.
            found.extend((round(s * matched[n] / len(query), 6), segment, n) for n, s in scores.items())
        # Places are looked up only for those that may win, ties of the last one included.
        bar = min(heapq.nlargest(top, (score for score, _, _ in found)), default=0.0)
        hits = [hit_in(segment.passage(number), query, score) for score, segment, number in found if score >= bar]
        return Answer(tuple(sorted(hits, key=_order)[:top]), len(found))


def _order(hit: Hit) -> tuple[float, str, int]:
    """Best first; equal scores by place, so that every split of the files gives the same list."""
    return -hit.score, hit.path, hit.line


def word_weights(counts: Counts) -> dict[str, float]:
    """BM25's inverse document frequency of each word: rare words weigh more, none less than zero."""
    return {
        word: math.log(1 + (counts.passages - having + 0.5) / (having + 0.5))
        for word, having in counts.passages_with.items()
    }


def hit_in(passage: Passage, query: Sequence[str], score: float) -> Hit:
    """The passage's best line: most different words of the query, then most of them, then the first."""
    wanted = frozenset(query)

    def merit(numbered: tuple[int, str]) -> tuple[int, int, int]:
        here = [word for word in words(numbered[1]) if word in wanted]
        return len(set(here)), len(here), -numbered[0]

    offset, text = max(enumerate(passage.text.split("\n")), key=merit)
    text = text.strip()
    if len(text) > MAX_LINE_CHARS:
        text = text[: MAX_LINE_CHARS - 3] + "..."
    return Hit(passage.path, passage.line + offset, passage.name, text, score)


def merge_counts(shares: Iterable[Counts]) -> Counts:
    """The shards' counts, added up."""
    shares = list(shares)
    vocabulary = shares[0].passages_with if shares else {}
    return Counts(
        passages=sum(share.passages for share in shares),
        words=sum(share.words for share in shares),
        passages_with={word: sum(share.passages_with[word] for share in shares) for word in vocabulary},
    )


def merge_answers(answers: Iterable[Answer], top: int) -> Answer:
    """The shards' best hits, merged to the best of all."""
    answers = list(answers)
    hits = sorted((hit for answer in answers for hit in answer.hits), key=_order)
    return Answer(tuple(hits[:top]), sum(answer.matches for answer in answers))


def query_words(query: str) -> tuple[str, ...]:
    """What a user typed -> folded words, each once, in order."""
    return tuple(dict.fromkeys(words(query)))
