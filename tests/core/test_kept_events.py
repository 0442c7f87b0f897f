"""X12: what a node keeps of events for those who come later; how much at most, and which ones go."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.effort import examples
from zmreg.core.kept_events import ALL_BYTES, EVENT_BYTES, TOPIC_BYTES, TOPIC_EVENTS, TOPICS, Kept, KeptEvents


def values(kept: KeptEvents, pattern: str = "#", most: int = 1 << 30) -> list[bytes]:
    return [event[3] for event in kept.page(pattern, most, 1 << 40)[0]]


def test_X12_the_latest_of_a_topic_stay() -> None:
    kept = KeptEvents()
    kept.put("rare", 1.0, b"rare")
    for number in range(TOPIC_EVENTS + 7):
        kept.put("often", float(number), b"%d" % number)
    assert values(kept, "often") == [b"%d" % number for number in range(7, TOPIC_EVENTS + 7)]
    assert values(kept, "rare") == [b"rare"]
    assert kept.statistics().gone == 7


def test_X12_a_topic_has_so_many_bytes_and_no_more() -> None:
    kept = KeptEvents()
    size = 60_000
    for number in range(100):
        kept.put("t", 1.0, b"%06d" % number + bytes(size - 6))
    fits = TOPIC_BYTES // (size + 1 + EVENT_BYTES)
    assert [int(value[:6]) for value in values(kept)] == list(range(100 - fits, 100))
    assert kept.statistics().nbytes <= TOPIC_BYTES


def test_X12_with_too_many_topics_the_one_that_has_been_silent_longest_goes() -> None:
    kept = KeptEvents()
    for number in range(TOPICS):
        kept.put(f"t.{number}", 1.0, b"")
        kept.put(f"t.{number}", 1.0, b"")
    kept.put("t.0", 2.0, b"again")
    kept.put("new", 3.0, b"")
    assert values(kept, "t.1") == [] and values(kept, "t.0") == [b"", b"", b"again"] and values(kept, "new") == [b""]
    assert kept.statistics().topics == TOPICS and kept.statistics().gone == 2


def test_X12_small_events_are_counted_with_what_they_take() -> None:
    """16 MiB of values of one byte would be 5 GB of this process."""
    kept = KeptEvents()
    for number in range(100_000):
        kept.put(f"topic.{number % TOPICS}", 1.0, b"x")
    assert kept.statistics().events < ALL_BYTES // EVENT_BYTES
    assert kept.statistics().nbytes <= ALL_BYTES


def test_X12_what_is_larger_than_a_bound_is_not_kept_and_costs_no_other() -> None:
    kept = KeptEvents(topic_bytes=1_000)
    kept.put("a", 1.0, b"a")
    kept.put("a", 1.0, bytes(1_000))
    assert values(kept) == [b"a"] and kept.statistics().gone == 1


def test_X12_pages_lead_back_to_the_oldest_and_leave_nothing_out() -> None:
    kept = KeptEvents()
    for number in range(300):
        kept.put(f"{'ab'[number % 2]}.x", float(number), b"%03d" % number)
    pages: list[list[Kept]] = []
    before, older = 0, True
    while older:
        page, older = kept.page("a.*", 1_000, 60, before)
        pages.insert(0, page)
        before = page[0][0]
    assert len(pages) > 5 and all(sum(len(each[1]) + len(each[3]) for each in page) <= 60 for page in pages)
    assert [int(each[3]) for page in pages for each in page] == list(range(0, 300, 2))
    assert [each[3] for each in kept.page("#", 3, 1 << 20)[0]] == [b"297", b"298", b"299"]
    assert kept.page("a.*", 1, 0)[1] and len(kept.page("a.*", 1_000, 0)[0]) == 1, "one, however large it is"
    assert kept.page("c.#", 10, 10) == ([], False)
    with pytest.raises(ValueError, match="mixes"):
        kept.page("a*", 1, 1)


puts = st.lists(st.tuples(st.sampled_from("abcdef"), st.integers(0, 900)), max_size=120)


@settings(max_examples=examples(200))
@given(puts, st.integers(1, 6), st.integers(1, 4))
def test_X12_all_bounds_hold_after_each_event_and_the_newest_is_there(
    puts: list[tuple[str, int]], most_events: int, most_topics: int
) -> None:
    kept = KeptEvents(most_events, 3_000, most_topics, 5_000)
    for number, (topic, size) in enumerate(puts):
        kept.put(topic, float(number), bytes(size))
        said, rows = kept.statistics(), kept.page("#", 1_000, 1 << 20)[0]
        each = {name: [row for row in rows if row[1] == name] for name in "abcdef"}
        assert rows[-1][1:] == (topic, float(number), bytes(size))
        assert rows == sorted(rows) and len(rows) == said.events and number + 1 == said.events + said.gone
        assert said.topics == sum(map(bool, each.values())) <= most_topics
        assert said.nbytes == sum(1 + len(row[3]) + EVENT_BYTES for row in rows) <= 5_000
        for ring in each.values():
            assert len(ring) <= most_events and sum(1 + len(row[3]) + EVENT_BYTES for row in ring) <= 3_000
