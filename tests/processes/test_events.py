"""Events on real nodes (I9, I12, X12): from any process to any other, in order; nobody waits for another."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

import zmreg
from tests.processes.clusters import ask, until
from tests.processes.drivers import Driver
from tests.processes.event_peers import PATIENCE_S, peer_on, until_known
from zmreg import errors
from zmreg.api import events
from zmreg.testing.cluster import LocalCluster

# What a call between machines may take on a busy machine; a publisher that waited for a reader would take its seconds.
QUICK_S = 5.0


@pytest.fixture(scope="module")
def three() -> Iterator[LocalCluster]:
    with LocalCluster([{}, {"locs": {"m1"}}, {"locs": {"m2"}}]) as cluster:
        cluster.attach()
        yield cluster


def ways(cluster: LocalCluster, number: int) -> dict[str, dict[str, int]]:
    found: dict[str, dict[str, int]] = ask(cluster.nodes[number], "network")["Topics"]["Ways"]
    return found


def test_I9_events_of_any_process_reach_any_other_in_order(three: LocalCluster) -> None:
    one, two = peer_on("m1"), peer_on("m2")
    zmreg.get([one.subscribe.remote("all.*.done"), two.subscribe.remote("all.#")])
    with zmreg.subscribe("all.driver.#") as mine:
        until_known(three, "all.*.done", "all.#", "all.driver.#")
        zmreg.get(one.publish.remote("all.one.done", list(range(500))))
        assert [event.value for event in two.read.remote(500).get()] == list(range(500))
        zmreg.publish("all.driver.done", {"answer": 42})
        zmreg.publish("all.driver")
        assert [mine.get(timeout=PATIENCE_S) for _ in range(2)] == [
            zmreg.Event("all.driver.done", {"answer": 42}),
            zmreg.Event("all.driver", None),
        ]
        assert [topic for topic, _ in two.read.remote(2).get()] == ["all.driver.done", "all.driver"]
        assert one.read.remote(501).get()[-1].topic == "all.driver.done", "and its own"
        assert mine.dropped == 0


def test_I9_what_nobody_hears_costs_next_to_nothing_and_goes_nowhere(three: LocalCluster) -> None:
    peer = peer_on("m1")
    zmreg.get(peer.publish.remote("nobody.listens", [0]))
    before = ways(three, 1)
    assert peer.publish.remote("nobody.listens", list(range(20_000))).get() < QUICK_S
    assert ways(three, 1) == before
    events.publish("nobody", threading.Lock())  # it is not even pickled
    assert not events.wanted("nobody.listens")
    with zmreg.subscribe("nobody.*.done"):
        assert events.wanted("nobody") and events.wanted("nobody.x") and not events.wanted("nobody.x.y")
    until(lambda: not events.wanted("nobody"), "the last one has left, and nobody has said so")


def test_I9_subscribed_before_it_is_published_it_is_not_missed(three: LocalCluster) -> None:
    """On one machine, from the moment that `subscribe` returns, each time."""
    for number in range(100):
        with zmreg.subscribe(f"soon.{number}") as subscription:
            zmreg.publish(f"soon.{number}", number)
            assert subscription.get(timeout=PATIENCE_S).value == number


def test_I12_a_slow_subscriber_loses_the_oldest_counted_and_slows_nobody(three: LocalCluster) -> None:
    total = 30_000
    slow, quick = peer_on("m2"), peer_on("m2")
    zmreg.get([slow.subscribe.remote("flood", 10), quick.subscribe.remote("flood", 100_000)])
    until_known(three, "flood")
    publisher = peer_on("m1")
    reading = quick.until_last.remote("end")
    assert publisher.publish.remote("flood", [*range(total), "end"]).get() < PATIENCE_S
    read, dropped = reading.get()
    assert read + dropped == total + 1
    read, dropped = slow.until_last.remote("end").get()
    assert read <= 10 and read + dropped == total + 1


def test_I12_a_stopped_subscriber_holds_up_neither_publisher_nor_others_nor_its_node(three: LocalCluster) -> None:
    stopped, other, publisher = peer_on("m1"), peer_on("m1"), peer_on("m2")
    pid = stopped.pid.remote().get()
    zmreg.get([stopped.subscribe.remote("stop", 100_000), other.subscribe.remote("stop", 100_000)])
    until_known(three, "stop")
    os.kill(pid, signal.SIGSTOP)
    try:
        total = 15_000
        reading = other.until_last.remote("end")
        assert publisher.publish.remote("stop", [b"x" * 1_000] * total + ["end"]).get() < PATIENCE_S
        read, dropped = reading.get()
        assert read + dropped == total + 1
        waits = max(way["waiting"] for way in ways(three, 1).values())
        assert waits <= 10_000
    finally:
        os.kill(pid, signal.SIGCONT)
    read, dropped = stopped.until_last.remote("end").get()
    assert read + dropped == total + 1


def test_I12_a_killed_subscriber_is_forgotten_everywhere(three: LocalCluster) -> None:
    peer = peer_on("m2")
    peer.subscribe.remote("mortal.#").get()
    until_known(three, "mortal.#")
    assert events.wanted("mortal.x") or until(lambda: events.wanted("mortal.x"), "the publisher is not told")
    os.kill(peer.pid.remote().get(), signal.SIGKILL)
    for node in three.nodes:
        until(lambda node=node: "mortal.#" not in ask(node, "network")["Topics"]["Patterns"], "it listens on")
    until(lambda: not events.wanted("mortal.x"), "the publisher is not told")


def test_I9_last_words_of_a_process_are_heard(three: LocalCluster) -> None:
    with zmreg.subscribe("last", backlog=10_000) as subscription:
        until_known(three, "last")
        peer_on("m1").publish_and_end.remote("last", 3_000)
        assert [subscription.get(timeout=PATIENCE_S).value for _ in range(3_000)] == list(range(3_000))


def test_I9_a_driver_elsewhere_hears_and_says_it(three: LocalCluster) -> None:
    with zmreg.subscribe("from.driver", backlog=10_000) as subscription:
        until_known(three, "from.driver")
        with Driver(
            f"zmreg.init(address={three.nodes[1].address!r}, log_to_driver=False)\n"
            "print('here', flush=True)\n"
            "for _ in range(3_000): zmreg.publish('from.driver', os.getpid())\n"
            "zmreg.shutdown()\n"
        ) as driver:
            assert driver.line() == "here"  # its start has a patience of its own
            read: list[int] = []
            try:
                while len(read) < 3_000:
                    read.append(subscription.get(timeout=PATIENCE_S).value)
            except errors.GetTimeoutError as error:
                where = f"{ways(three, 1)} at its node, {ways(three, 0)} at ours, {driver.process.poll()}"
                error.add_note(f"{len(read)} came, {subscription.dropped} dropped; {where}")
                raise
            assert set(read) == {driver.process.pid} and subscription.dropped == 0


def test_I9_async_iteration_and_timeouts(three: LocalCluster) -> None:
    async def main() -> list[Any]:
        found: asyncio.Queue[Any] = asyncio.Queue()
        read_in_order: list[Any] = []
        with zmreg.subscribe("loop.#") as subscription:
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(anext(subscription), 0.02)
            assert not subscription._channel._listeners, "who was cancelled is not kept"

            async def read() -> None:
                async for event in subscription:
                    found.put_nowait(event.value)

            reader = asyncio.create_task(read())
            for number in range(5):
                zmreg.publish(f"loop.{number}", number)
                read_in_order.append(await asyncio.wait_for(found.get(), PATIENCE_S))
            subscription.close()
            await asyncio.wait_for(reader, PATIENCE_S)
        return read_in_order

    assert asyncio.run(main()) == list(range(5))


def test_I9_a_closed_subscription_lets_its_readers_go(three: LocalCluster) -> None:
    subscription = zmreg.subscribe("closed")
    ended = threading.Event()

    def read() -> None:
        assert list(subscription) == []
        ended.set()

    reader = threading.Thread(target=read)
    reader.start()
    until(lambda: subscription._channel._listeners, "it does not wait")
    subscription.close()
    assert ended.wait(PATIENCE_S)
    reader.join()
    subscription.close()
    with pytest.raises(errors.ClusterError, match="is closed"):
        subscription.get(timeout=1)
    with zmreg.subscribe("silence") as other, pytest.raises(errors.GetTimeoutError, match="nothing under 'silence'"):
        other.get(timeout=0.01)


def test_I9_a_subscription_without_a_handle_ends_with_the_next_event(three: LocalCluster) -> None:
    subscription = zmreg.subscribe("dropped.handle")
    assert events.wanted("dropped.handle") and repr(subscription).startswith("<Subscription dropped.handle [0 waiting")
    del subscription
    zmreg.publish("dropped.handle")
    until(lambda: not events.wanted("dropped.handle"), "it listens on")


def test_I9_what_cannot_be_published_or_subscribed_to_says_why(three: LocalCluster) -> None:
    with pytest.raises(ValueError, match="whole word"):
        zmreg.subscribe("run.do*")
    with pytest.raises(ValueError, match="backlog=0"):
        zmreg.subscribe("run", backlog=0)
    with pytest.raises(ValueError, match="is a pattern"):
        zmreg.publish("run.*")
    with zmreg.subscribe("large") as subscription:
        with pytest.raises(errors.MessageTooLargeError, match="publish the ref"):
            zmreg.publish("large", b"x" * 70_000)
        with pytest.raises(errors.SerializationError, match="event large"):
            zmreg.publish("large", threading.Lock())
        ref = zmreg.put(b"x" * 70_000)
        zmreg.publish("large", {"ref": ref})
        assert len(subscription.get(timeout=PATIENCE_S).value["ref"].get(timeout=PATIENCE_S)) == 70_000


def test_X12_who_comes_later_finds_what_was_logged_on_any_node_in_order_of_time(three: LocalCluster) -> None:
    one, two = peer_on("m1"), peer_on("m2")
    with zmreg.subscribe("log.#") as subscription:
        until_known(three, "log.#")
        began = time.time()
        nodes = [one.log.remote("log.a", ["first"]).get(), two.log.remote("log.b", ["second"]).get()]
        zmreg.log_event("log.a", "third")
        zmreg.publish("log.a", "not kept")
        assert [subscription.get(timeout=PATIENCE_S).value for _ in range(4)][0] == "first", "and published"
    found = zmreg.get_events("log.*")
    assert [(each.topic, each.value) for each in found] == [("log.a", "first"), ("log.b", "second"), ("log.a", "third")]
    assert [each.node_id for each in found] == [*nodes, three.nodes[0].node_id]
    assert began <= found[0].time <= found[1].time <= found[2].time <= time.time()
    assert two.kept.remote("log.a").get() == [found[0], found[2]]
    assert [each.value for each in zmreg.get_events("log.#", limit=2)] == ["second", "third"]
    assert zmreg.get_events("log") == []


def test_X12_more_than_fits_into_a_message_comes_in_pages_and_a_topic_keeps_its_latest(three: LocalCluster) -> None:
    peer = peer_on("m1")
    for topic in "abc":
        peer.log.remote(f"pages.{topic}", [(number, b"x" * 50_000) for number in range(30)]).get()
    until(lambda: [each.value[0] for each in zmreg.get_events("pages.c", limit=1)] == [29], "the last one is not kept")
    found = zmreg.get_events("pages.#")
    for topic in "abc":
        numbers = [each.value[0] for each in found if each.topic == f"pages.{topic}"]
        assert numbers == list(range(30 - len(numbers), 30)) and len(numbers) == 20, "as many as 1 MiB has room for"


def test_X12_what_a_process_logged_stays_when_it_has_ended(three: LocalCluster) -> None:
    peer_on("m2").log_and_end.remote("ended", 3_000)
    until(lambda: [each.value for each in zmreg.get_events("ended", limit=1)] == [2_999], "its last words are lost")
    assert [each.value for each in zmreg.get_events("ended", limit=5_000)] == list(range(2_000, 3_000))


def test_X12_what_cannot_be_logged_or_asked_for_says_why(three: LocalCluster) -> None:
    with pytest.raises(ValueError, match="is a pattern"):
        zmreg.log_event("run.*")
    with pytest.raises(TypeError, match="topic=7"):
        zmreg.log_event(7)  # type: ignore[arg-type]
    with pytest.raises(errors.MessageTooLargeError, match="publish the ref"):
        zmreg.log_event("large", b"x" * 70_000)
    with pytest.raises(ValueError, match="whole word"):
        zmreg.get_events("run.do*")
    with pytest.raises(ValueError, match="limit=0"):
        zmreg.get_events("run", limit=0)
    zmreg.log_event("odd", Odd())
    with pytest.raises(errors.SerializationError, match="cannot be read") as caught:
        zmreg.get_events("odd")
    assert "topic 'odd'" in caught.value.__notes__[0]


class Odd:
    def __reduce__(self) -> tuple[Any, ...]:
        return _refuse, ()


def _refuse() -> None:
    raise RuntimeError("it cannot be read")
