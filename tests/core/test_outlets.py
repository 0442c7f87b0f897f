"""I12: a way that events take. Who reads slowly misses the oldest and knows how many; nothing waits for it."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from zmreg.core.outlets import BATCH_BYTES, BATCH_ITEMS, WINDOW_BYTES, WINDOW_ITEMS, Outlet, Receipts
from zmreg.core.topics import Pattern
from zmreg.model.event_messages import Events

PATTERNS = [Pattern("a.#"), Pattern("*.x"), Pattern("b.x")]


def matching(topic: str) -> list[str]:
    return [pattern.text for pattern in PATTERNS if pattern.matches(topic)]


class Way:
    """An outlet, what it has sent and is not taken yet, and what came out at the other end."""

    def __init__(self, most: int, most_bytes: int = 1 << 30) -> None:
        self.outlet = Outlet(matching, most, most_bytes)
        self.receipts = Receipts()
        self.under_way: list[Events] = []
        self.acks: list[tuple[int, int]] = []
        self.read: list[int] = []
        self.lost: Counter[str] = Counter()

    def send(self) -> None:
        while (batch := self.outlet.next()) is not None:
            assert len(batch.topics) <= BATCH_ITEMS and len(batch.topics) == len(batch.values)
            self.under_way.append(batch)

    def arrive(self) -> None:
        batch = self.under_way.pop(0)
        self.read += [int(value[:6]) for value in batch.values]
        self.lost.update(dict(zip(batch.lost, batch.counts, strict=True)))
        due = self.receipts.note(batch)
        if due is not None:
            self.acks.append(due)

    def acknowledge(self) -> None:
        self.outlet.taken(*self.acks.pop(0))
        self.send()

    def settle(self) -> None:
        while self.under_way or self.acks:
            if self.under_way:
                self.arrive()
            else:
                self.acknowledge()


deeds = st.lists(
    st.tuples(st.sampled_from(["put", "put", "arrive", "acknowledge", "lose"]), st.integers(1, 150)), max_size=60
)


@given(deeds, st.integers(1, 300), st.sampled_from([1 << 30, 2_000]))
def test_I12_what_comes_is_in_order_and_with_what_is_lost_it_is_everything(
    deeds: list[tuple[str, int]], most: int, most_bytes: int
) -> None:
    way, put, expected = Way(most, most_bytes), 0, Counter[str]()
    topics = ["a", "a.x", "b.x", "c"]
    for what, count in deeds:
        if what == "put":
            for _ in range(count):
                topic = topics[put % 4]
                way.outlet.put(topic, f"{put:06}".encode())
                expected.update(matching(topic))
                put += 1
                if count % 2:
                    way.send()
            way.send()
        elif what == "arrive" and way.under_way:
            way.arrive()
        elif what == "acknowledge" and way.acks:
            way.acknowledge()
        elif what == "lose":
            way.outlet.lose("a.#", count)
            expected["a.#"] += count
            way.send()
        said = way.outlet.statistics()
        assert said.under_way < WINDOW_ITEMS + BATCH_ITEMS and said.waiting <= most
    way.settle()
    assert len(way.outlet._backlog) == 0, "it stalls though all was taken"
    assert way.read == sorted(way.read)
    got = Counter(pattern for number in way.read for pattern in matching(topics[number % 4]))
    assert got + way.lost == expected
    assert len(way.read) + way.outlet.statistics().dropped == put


def test_I12_a_reader_that_stands_still_costs_a_window_and_a_backlog() -> None:
    way = Way(most=1_000)
    for number in range(50_000):
        way.outlet.put("a", str(number).encode())
        way.send()
    said = way.outlet.statistics()
    assert (said.waiting, said.under_way, said.dropped) == (1_000, WINDOW_ITEMS, 50_000 - 1_000 - WINDOW_ITEMS)
    way.settle()
    assert way.read == [*range(WINDOW_ITEMS), *range(49_000, 50_000)] and way.lost == {"a.#": said.dropped}


def test_I12_the_window_counts_bytes_as_well() -> None:
    way, value = Way(most=1_000), b"1" * 60_000
    for _ in range(100):
        way.outlet.put("a", value)
    way.send()
    sizes = [sum(map(len, batch.values)) for batch in way.under_way]
    assert max(sizes) < BATCH_BYTES + len(value) and sum(sizes) < WINDOW_BYTES + BATCH_BYTES + len(value)
    before = len(way.under_way)
    while not way.acks:
        way.arrive()
    way.acknowledge()
    assert len(way.under_way) > 0 and way.outlet.statistics().sent > before


def test_I12_what_is_left_goes_at_the_end_whatever_is_under_way() -> None:
    way = Way(most=1_000)
    for number in range(900):
        way.outlet.put("a", str(number).encode())
        way.send()
    way.under_way += way.outlet.rest()
    while way.under_way:
        way.arrive()
    assert way.read == list(range(900)) and way.outlet.next() is None


def test_X12_what_is_to_be_kept_says_so_and_the_others_cost_nothing() -> None:
    outlet = Outlet(matching)
    outlet.put("a", b"1")
    batch = outlet.next()
    assert batch is not None and batch.kept == ()
    outlet.put("a", b"1")
    outlet.put("a", b"2", 5.0)
    assert outlet.next() == Events(("a", "a"), (b"1", b"2"), (), (), (0.0, 5.0))
