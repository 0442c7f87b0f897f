"""I9 and I12: topics, patterns over them, and a backlog that never holds up who publishes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zmreg.core.topics import MAX_TOPIC_CHARS, Backlog, Pattern, check_topic, topic_for

words = st.sampled_from(["a", "b", "c"])
topics = st.lists(words, min_size=1, max_size=8)
patterns = st.lists(words | st.sampled_from(["*", "#"]), min_size=1, max_size=8)


def stands_for(pattern: list[str], topic: list[str]) -> bool:
    """What the words mean, said in the plainest way."""
    if not pattern:
        return not topic
    first, rest = pattern[0], pattern[1:]
    if first == "#":
        return any(stands_for(rest, topic[skipped:]) for skipped in range(len(topic) + 1))
    return bool(topic) and first in ("*", topic[0]) and stands_for(rest, topic[1:])


@given(patterns, topics)
def test_I9_a_pattern_matches_what_its_words_mean(pattern: list[str], topic: list[str]) -> None:
    assert Pattern(".".join(pattern)).matches(".".join(topic)) is stands_for(pattern, topic)


@pytest.mark.parametrize(
    ("pattern", "topic", "matches"),
    [
        ("debug.rpc.*.intermediate", "debug.rpc.r1.intermediate", True),
        ("debug.rpc.*.intermediate", "debug.rpc.intermediate", False),
        ("debug.rpc.*.intermediate", "debug.rpc.r.1.intermediate", False),
        ("debug.rpc.#.intermediate", "debug.rpc.r.1.intermediate", True),
        ("debug.#", "debug", True),
        ("debug.#", "debugger", False),
        ("#", "anything.at.all", True),
        ("task.done", "task.done", True),
        ("task.done", "task.done.late", False),
    ],
)
def test_I9_examples(pattern: str, topic: str, matches: bool) -> None:
    assert Pattern(pattern).matches(topic) is matches


@given(patterns, st.lists(words, min_size=1, max_size=3))
def test_I9_a_pattern_reaches_what_it_may_match_further_on(pattern: list[str], prefix: list[str]) -> None:
    """Eight more words are enough for any of these patterns, and "z" is a word that only * and # stand for."""
    further = [[*prefix, *more] for size in range(9) for more in _fillings(pattern, size)]
    assert Pattern(".".join(pattern)).reaches(".".join(prefix)) is any(stands_for(pattern, topic) for topic in further)


def _fillings(pattern: list[str], size: int) -> list[list[str]]:
    """Ends that a topic may need to match: the last `size` words of the pattern, a word for each * and none for #."""
    if size > len(pattern):
        return []
    return [["z" if word == "*" else word for word in pattern[len(pattern) - size :] if word != "#"]]


def test_I9_a_pattern_of_many_hashes_is_no_trap() -> None:
    """Twenty of them over a hundred words: a search that tries all ways would not end."""
    assert not Pattern("#.a." * 20 + "z").matches(".".join(["a"] * 100))


def test_I9_the_requests_id_is_put_in() -> None:
    template = "debug.rpc.{request_id}.intermediate"
    assert topic_for(template, "r-17") == "debug.rpc.r-17.intermediate"
    assert topic_for("plain.{other}", "r-17") == "plain.{other}", "and nothing else is touched"
    with pytest.raises(ValueError, match="is a pattern"):
        topic_for(template, "*")
    with pytest.raises(ValueError, match="is no topic"):
        topic_for(template, "")


@pytest.mark.parametrize("bad", ["", ".", "a..b", "a.", "x" * (MAX_TOPIC_CHARS + 1)])
def test_I9_what_is_no_topic_says_so(bad: str) -> None:
    with pytest.raises(ValueError, match="is no topic"):
        check_topic(bad)
    with pytest.raises(ValueError, match="is no topic"):
        Pattern(bad)


def test_I9_a_pattern_is_whole_words() -> None:
    with pytest.raises(ValueError, match="whole word"):
        Pattern("task.do*")
    with pytest.raises(ValueError, match="is a pattern"):
        check_topic("task.*")


def test_I12_the_oldest_go_and_are_counted() -> None:
    backlog = Backlog[int](most=3, most_bytes=100)
    assert [backlog.put(number, 10) for number in range(5)] == [0, 0, 0, 1, 1]
    assert backlog.take(2) == [2, 3] and backlog.take() == [4] and backlog.take() == []
    assert backlog.dropped == 2


def test_I12_each_that_goes_is_told() -> None:
    gone: list[int] = []
    backlog = Backlog[int](most=2, gone=gone.append)
    for number in range(5):
        backlog.put(number, 1)
    assert gone == [0, 1, 2] and backlog.take() == [3, 4]
    backlog.put(5, 1)
    backlog.clear()
    assert backlog.take() == [] and backlog.dropped == 3 and backlog.statistics().nbytes == 0


def test_I12_what_is_larger_than_the_bound_stays_alone() -> None:
    backlog = Backlog[str](most=10, most_bytes=100)
    backlog.put("small", 10)
    assert backlog.put("huge", 1_000) == 1
    assert len(backlog) == 1 and backlog.put("next", 1) == 1
    assert backlog.take() == ["next"]


def test_I12_a_backlog_that_keeps_nothing_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="keeps nothing"):
        Backlog[int](most=0)


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 60)), max_size=60))
def test_I12_what_is_read_is_in_order_and_with_the_dropped_it_is_everything(steps: list[tuple[bool, int]]) -> None:
    backlog = Backlog[int](most=5, most_bytes=100)
    read: list[int] = []
    put = 0
    for reads, size in steps:
        if reads:
            read += backlog.take(2)
        else:
            backlog.put(put, size)
            put += 1
        said = backlog.statistics()
        assert said.waiting <= 5 and (said.nbytes <= 100 or said.waiting == 1)
        assert said.waiting + said.taken + said.dropped == put
    assert read == sorted(set(read))
    left = backlog.take()
    assert backlog.statistics().nbytes == 0
    assert not read or not left or read[-1] < left[0]
