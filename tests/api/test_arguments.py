"""Every public argument that is a time, a count or one of a few words is checked where it is given.

One table over `zmreg.__all__`: each wrong value is a TypeError or a ValueError at the call, which names the parameter;
nothing is sent, and nobody waits.
"""

from __future__ import annotations

import asyncio
import inspect
import math
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest

import zmreg
from zmreg import metrics, sync
from zmreg.model.errors import GetTimeoutError, PhaseError
from zmreg.model.policy import Policy

pytestmark = pytest.mark.usefixtures("cluster")

# By kind of argument: what is wrong.
NO_NUMBER = ("1", [], True)
NAN = math.nan
WRONG: dict[str, tuple[Any, ...]] = {
    "seconds": (*NO_NUMBER, NAN, -1),
    "polls": (*NO_NUMBER, NAN),  # where a time that is over is as good as 0, as in Ray and concurrent.futures
    "count": (*NO_NUMBER, 1.5, NAN, -1),
    "count from 1": (*NO_NUMBER, 1.5, 0, -1),
    "count or -1": (*NO_NUMBER, 1.5, -2),
    "whole": (*NO_NUMBER, 1.5, NAN),
    "amount": (*NO_NUMBER, NAN, -1, math.inf),
    "resource": ("1", [], NAN, -1, math.inf),  # where True is 1, as in Ray: whether there is a GPU
    "number": NO_NUMBER,
    "word": ("sometimes",),
    "name": (3, ""),
    "text": (3,),
    "ref": (3, "a"),
    "refs": (3, "a", [3]),
}


class Held:
    """What the rows are called on. Made once for all of them."""

    def __init__(self) -> None:
        self.never = zmreg.put(1)
        self.slow = Waits.remote()
        self.pending = self.slow.waits.remote()
        self.pool = zmreg.Pool(1)
        self.actors = zmreg.ActorPool([self.slow])
        self.actors.submit(lambda actor, _: actor.waits.remote(), 1)
        self.queue = zmreg.Queue()
        self.subscription = zmreg.subscribe("nothing.at.all")
        self.run = zmreg.start_request([zmreg.Step("a", "nobody.has.it")], bind_timeout=0)

    def close(self) -> None:
        self.subscription.close()
        self.pool.terminate()
        self.queue.shutdown(force=True)
        zmreg.kill(self.slow)


@zmreg.remote(num_cpus=0)
class Waits:
    async def waits(self) -> None:
        await asyncio.Event().wait()


@zmreg.remote
def adds(one: int) -> int:
    return one + 1


@pytest.fixture(scope="module")
def held(cluster):
    held = Held()
    yield held
    held.close()


def run(coroutine: Any) -> Any:
    return asyncio.run(coroutine)


Call = Callable[[Held, Any], Any]
ROWS: list[tuple[str, str, str, Call]] = [
    # (function, parameter, kind, a call with that value)
    ("get", "timeout", "polls", lambda h, x: zmreg.get(h.pending, x)),
    ("get", "timeout", "polls", lambda h, x: zmreg.get([h.pending], timeout=x)),
    ("get", "timeout", "polls", lambda h, x: zmreg.get([h.never], timeout=x, return_exceptions=True)),
    ("get", "refs", "refs", lambda h, x: zmreg.get(x)),
    ("ObjectRef", "timeout", "polls", lambda h, x: h.never.get(x)),
    ("ObjectRef", "timeout", "polls", lambda h, x: h.pending.get(x)),
    ("ObjectRef", "timeout", "polls", lambda h, x: h.pending.result(x)),
    ("ObjectRef", "timeout", "polls", lambda h, x: h.never.exception(x)),
    ("ObjectRef", "timeout", "polls", lambda h, x: h.pending.exception(x)),
    ("ObjectRef", "timeout", "polls", lambda h, x: h.pending.get_into(bytearray(1), x)),
    ("ObjectRef", "grace", "seconds", lambda h, x: h.pending.cancel(grace=x)),
    ("ObjectRefGenerator", "grace", "seconds", lambda h, x: numbers.remote().cancel(grace=x)),
    ("wait", "timeout", "seconds", lambda h, x: zmreg.wait([h.pending], timeout=x)),
    ("wait", "num_returns", "count from 1", lambda h, x: zmreg.wait([h.pending], num_returns=x)),
    ("wait", "refs", "refs", lambda h, x: zmreg.wait(x)),
    ("as_completed", "timeout", "polls", lambda h, x: zmreg.as_completed([h.pending], timeout=x)),
    ("as_completed", "refs", "refs", lambda h, x: zmreg.as_completed(x)),
    ("as_completed", "ref", "ref", lambda h, x: zmreg.as_completed().add(x)),
    ("gather", "timeout", "polls", lambda h, x: zmreg.gather([h.pending], x)),
    ("gather", "timeout", "polls", lambda h, x: zmreg.gather([h.pending], x, errors="skip")),
    ("gather", "errors", "word", lambda h, x: zmreg.gather([h.never], errors=x)),
    ("map", "timeout", "polls", lambda h, x: zmreg.map(abs, [1], timeout=x)),
    ("map", "chunk", "count from 1", lambda h, x: zmreg.map(abs, [1], chunk=x)),
    ("map", "chunk", "word", lambda h, x: zmreg.map(abs, [1], chunk=x)),
    ("map", "function", "ref", lambda h, x: zmreg.map(x, [1])),
    ("progress", "every_s", "seconds", lambda h, x: zmreg.progress([h.never], every_s=x)),
    ("progress", "refs", "refs", lambda h, x: zmreg.progress(x)),
    ("put", "replicas", "count from 1", lambda h, x: zmreg.put(1, replicas=x)),
    ("replicate", "n", "count from 1", lambda h, x: zmreg.replicate(h.never, x)),
    ("replicate", "timeout", "polls", lambda h, x: zmreg.replicate(h.never, 1, timeout=x)),
    ("replicate", "refs", "refs", lambda h, x: zmreg.replicate(x)),
    ("rebalance", "timeout", "polls", lambda h, x: zmreg.rebalance(timeout=x)),
    ("rebalance", "refs", "refs", lambda h, x: zmreg.rebalance(x)),
    ("who_has", "refs", "refs", lambda h, x: zmreg.who_has(x)),
    ("has_what", "limit", "count", lambda h, x: zmreg.has_what(limit=x)),
    ("listing", "limit", "count", lambda h, x: zmreg.listing("nodes", x)),
    ("debug", "timeout", "seconds", lambda h, x: zmreg.debug("none", timeout=x)),
    ("cancel", "grace", "seconds", lambda h, x: zmreg.cancel(h.pending, grace=x)),
    ("cancel", "ref", "ref", lambda h, x: zmreg.cancel(x)),
    ("interrupt", "grace", "seconds", lambda h, x: zmreg.interrupt(x)),
    ("restart", "timeout", "seconds", lambda h, x: zmreg.restart(x)),
    ("wait_for_nodes", "count", "count from 1", lambda h, x: zmreg.wait_for_nodes(x)),
    ("wait_for_nodes", "timeout", "polls", lambda h, x: zmreg.wait_for_nodes(9, timeout=x)),
    ("wait_for_actors", "timeout", "polls", lambda h, x: zmreg.wait_for_actors([h.slow], timeout=x)),
    ("wait_for_actors", "handles", "refs", lambda h, x: zmreg.wait_for_actors(x)),
    ("drain_node", "timeout", "polls", lambda h, x: zmreg.drain_node("nobody", timeout=x)),
    ("drain_node", "grace", "seconds", lambda h, x: zmreg.drain_node("nobody", grace=x)),
    ("drain_node", "node_id", "text", lambda h, x: zmreg.drain_node(x)),
    ("run_on_all", "timeout", "polls", lambda h, x: zmreg.run_on_all(abs, 1, timeout=x)),
    ("run_on_all", "fn", "ref", lambda h, x: zmreg.run_on_all(x)),
    ("init", "num_cpus", "resource", lambda h, x: zmreg.init(num_cpus=x)),
    ("init", "num_gpus", "resource", lambda h, x: zmreg.init(num_gpus=x)),
    ("init", "resources", "refs", lambda h, x: zmreg.init(resources=x)),
    ("init", "object_store_bytes", "count", lambda h, x: zmreg.init(object_store_bytes=x)),
    ("init", "log_dedup_s", "seconds", lambda h, x: zmreg.init(log_dedup_s=x)),
    # events
    ("subscribe", "backlog", "count from 1", lambda h, x: zmreg.subscribe("a", backlog=x)),
    ("subscribe", "pattern", "name", lambda h, x: zmreg.subscribe(x)),
    ("Subscription", "timeout", "polls", lambda h, x: h.subscription.get(x)),
    ("publish", "topic", "name", lambda h, x: zmreg.publish(x)),
    ("log_event", "topic", "name", lambda h, x: zmreg.log_event(x)),
    ("get_events", "pattern", "name", lambda h, x: zmreg.get_events(x)),
    ("get_events", "limit", "count from 1", lambda h, x: zmreg.get_events("a", limit=x)),
    # actors
    ("ActorHandle", "timeout", "polls", lambda h, x: h.slow.close(x)),
    ("kill", "handle", "ref", lambda h, x: zmreg.kill(x)),
    ("typed", "handle", "ref", lambda h, x: zmreg.typed(x)),
    ("get_actor", "name", "name", lambda h, x: zmreg.get_actor(x)),
    ("get_actor", "namespace", "text", lambda h, x: zmreg.get_actor("a", x)),
    ("remote", "max_retries", "count or -1", lambda h, x: adds.options(max_retries=x)),
    ("remote", "num_returns", "count", lambda h, x: adds.options(num_returns=x)),
    ("remote", "num_cpus", "resource", lambda h, x: adds.options(num_cpus=x)),
    ("remote", "num_gpus", "resource", lambda h, x: adds.options(num_gpus=x)),
    ("remote", "memory", "resource", lambda h, x: adds.options(memory=x)),
    ("remote", "max_calls", "count", lambda h, x: zmreg.remote(max_calls=x)(abs)),
    ("remote", "name", "text", lambda h, x: zmreg.remote(name=x)(abs)),
    ("remote", "name", "name", lambda h, x: Waits.options(name=x)),
    ("remote", "resources", "refs", lambda h, x: zmreg.remote(resources=x)(abs)),
    ("remote", "resources", "refs", lambda h, x: adds.options(resources={3: x})),
    ("remote", "resources", "refs", lambda h, x: Waits.options(resources=x, accelerator_type="A100")),
    ("annotate", "resources", "refs", lambda h, x: zmreg.annotate(resources=x)),
    ("ActorPool", "actor", "refs", lambda h, x: h.actors.push(x)),
    ("ActorPool", "actor", "refs", lambda h, x: h.actors.push(None)),
    ("ActorClass", "max_restarts", "count or -1", lambda h, x: Waits.options(max_restarts=x)),
    ("ActorClass", "max_concurrency", "count from 1", lambda h, x: Waits.options(max_concurrency=x)),
    ("ActorClass", "lifetime", "word", lambda h, x: Waits.options(lifetime=x)),
    ("ActorClass", "name", "name", lambda h, x: Waits.options(name=x)),
    ("ActorClass", "namespace", "text", lambda h, x: Waits.options(namespace=x)),
    ("method", "num_returns", "count", lambda h, x: zmreg.method(num_returns=x)),
    ("annotate", "priority", "whole", lambda h, x: zmreg.annotate(priority=x)),
    ("annotate", "retries", "count or -1", lambda h, x: zmreg.annotate(retries=x)),
    # pools and executors
    ("ActorPool", "timeout", "polls", lambda h, x: h.actors.get_next(x)),
    ("ActorPool", "timeout", "polls", lambda h, x: h.actors.get_next_unordered(x)),
    ("ActorPool", "actors", "refs", lambda h, x: zmreg.ActorPool(x)),
    ("Executor", "max_workers", "count from 1", lambda h, x: zmreg.Executor(x)),
    ("Executor", "timeout", "polls", lambda h, x: zmreg.Executor(1).map(abs, [1], timeout=x)),
    ("Executor", "chunksize", "count from 1", lambda h, x: zmreg.Executor(1).map(abs, [1], chunksize=x)),
    ("Executor", "buffersize", "count from 1", lambda h, x: zmreg.Executor(1).map(abs, [1], buffersize=x)),
    ("executor", "max_workers", "count from 1", lambda h, x: zmreg.executor(x)),
    ("Pool", "processes", "count from 1", lambda h, x: zmreg.Pool(x)),
    ("Pool", "maxtasksperchild", "count from 1", lambda h, x: zmreg.Pool(1, maxtasksperchild=x)),
    ("Pool", "chunksize", "count from 1", lambda h, x: h.pool.map(abs, [1], chunksize=x)),
    ("Pool", "chunksize", "count from 1", lambda h, x: h.pool.starmap(abs, [(1,)], chunksize=x)),
    ("Pool", "chunksize", "count from 1", lambda h, x: h.pool.imap(abs, [1], chunksize=x)),
    ("Pool", "timeout", "polls", lambda h, x: h.pool.apply_async(abs, (1,)).get(x)),
    ("Pool", "timeout", "polls", lambda h, x: h.pool.apply_async(abs, (1,)).wait(x)),
    ("Pool", "timeout", "polls", lambda h, x: h.pool.imap(abs, [1]).next(x)),
    # kit
    ("Queue", "maxsize", "whole", lambda h, x: zmreg.Queue(x)),
    ("Queue", "timeout", "seconds", lambda h, x: h.queue.get(timeout=x)),
    ("Queue", "timeout", "seconds", lambda h, x: h.queue.put(1, timeout=x)),
    ("Queue", "timeout", "seconds", lambda h, x: run(h.queue.get_async(timeout=x))),
    ("Queue", "num_items", "count", lambda h, x: h.queue.get_nowait_batch(x)),
    ("Queue", "grace_period_s", "seconds", lambda h, x: h.queue.shutdown(grace_period_s=x)),
    ("sync", "timeout", "seconds", lambda h, x: sync.Lock("arguments").acquire(x)),
    ("sync", "timeout", "seconds", lambda h, x: run(sync.Lock("arguments").acquire_async(x))),
    ("sync", "limit", "count from 1", lambda h, x: sync.Semaphore("arguments", x)),
    ("sync", "timeout", "seconds", lambda h, x: sync.Event("arguments").wait(x)),
    ("sync", "parties", "count from 1", lambda h, x: sync.Barrier("arguments", x)),
    ("sync", "timeout", "seconds", lambda h, x: sync.Barrier("arguments", 2).wait(x)),
    ("sync", "timeout", "polls", lambda h, x: sync.Variable("arguments").get(x)),
    ("sync", "timeout", "polls", lambda h, x: run(sync.Variable("arguments").get_async(x))),
    ("sync", "name", "name", lambda h, x: sync.Lock(x)),
    ("sync", "name", "name", lambda h, x: sync.MultiLock([x])),
    ("sync", "name", "name", lambda h, x: sync.Variable(x)),
    ("publish_dataset", "name", "name", lambda h, x: zmreg.publish_dataset(x, 1)),
    ("get_dataset", "name", "name", lambda h, x: zmreg.get_dataset(x)),
    ("unpublish_dataset", "name", "name", lambda h, x: zmreg.unpublish_dataset(x)),
    ("KeptResult", "name", "name", lambda h, x: zmreg.KeptResult(x)),
    ("KeptResult", "timeout", "polls", lambda h, x: zmreg.KeptResult("a").get(x)),
    ("get_result", "timeout", "polls", lambda h, x: zmreg.get_result("a", x)),
    ("forget_result", "name", "name", lambda h, x: zmreg.forget_result(x)),
    ("keep", "ttl", "seconds", lambda h, x: zmreg.keep(1, "a", ttl=x)),
    ("keep", "name", "name", lambda h, x: zmreg.keep(1, x)),
    ("submit_detached", "ttl", "seconds", lambda h, x: zmreg.submit_detached(abs, 1, name="a", ttl=x)),
    ("submit_detached", "function", "ref", lambda h, x: zmreg.submit_detached(x, name="a")),
    ("limit_results", "max_bytes", "count from 1", lambda h, x: zmreg.limit_results(x)),
    ("engines", "n", "count from 1", lambda h, x: zmreg.engines(x)),
    ("engines", "timeout", "seconds", lambda h, x: zmreg.engines(1, timeout=x)),
    # groups
    ("placement_group", "strategy", "word", lambda h, x: zmreg.placement_group([{"CPU": 1}], x)),
    ("placement_group", "lifetime", "word", lambda h, x: zmreg.placement_group([{"CPU": 1}], lifetime=x)),
    ("placement_group", "name", "text", lambda h, x: zmreg.placement_group([{"CPU": 1}], name=x)),
    ("placement_group", "bundles", "refs", lambda h, x: zmreg.placement_group(x)),
    ("PlacementGroup", "timeout", "polls", lambda h, x: zmreg.PlacementGroup(b"1" * 16, ()).wait(x)),
    ("get_placement_group", "name", "name", lambda h, x: zmreg.get_placement_group(x)),
    ("remove_placement_group", "group", "ref", lambda h, x: zmreg.remove_placement_group(x)),
    ("placement_group_table", "group", "ref", lambda h, x: zmreg.placement_group_table(x)),
    # names
    ("call", "timeout", "polls", lambda h, x: zmreg.call("nobody", timeout=x)),
    ("call", "retries", "count", lambda h, x: zmreg.call("nobody", retries=x)),
    ("call", "queue_until", "polls", lambda h, x: zmreg.call("nobody", queue_until=x)),
    ("call", "name", "name", lambda h, x: zmreg.call(x)),
    ("acall", "timeout", "polls", lambda h, x: run(zmreg.acall("nobody", timeout=x))),
    ("acall", "retries", "count", lambda h, x: run(zmreg.acall("nobody", retries=x))),
    ("describe", "name", "name", lambda h, x: zmreg.describe(x)),
    ("register", "name", "name", lambda h, x: zmreg.register(x, abs)),
    ("withdraw", "name", "name", lambda h, x: zmreg.withdraw(x)),
    # requests, pipelines, runs
    ("Step", "timeout", "seconds", lambda h, x: zmreg.request([zmreg.Step("a", "f", timeout=x)])),
    ("Step", "retries", "count", lambda h, x: zmreg.request([zmreg.Step("a", "f", retries=x)])),
    ("request", "timeout", "seconds", lambda h, x: zmreg.request([zmreg.Step("a", "f")], timeout=x)),
    ("start_request", "timeout", "seconds", lambda h, x: zmreg.start_request([zmreg.Step("a", "f")], timeout=x)),
    ("arequest", "timeout", "seconds", lambda h, x: run(zmreg.arequest([zmreg.Step("a", "f")], timeout=x))),
    ("Run", "timeout", "polls", lambda h, x: h.run.result(x)),
    ("JobClient", "timeout", "polls", lambda h, x: zmreg.JobClient.wait_job(None, "a", x)),
    ("JobClient", "grace", "seconds", lambda h, x: zmreg.JobClient.stop_job(None, "a", x)),
    ("stage", "concurrency", "count from 1", lambda h, x: zmreg.stage(abs, concurrency=x)),
    ("stage", "timeout", "seconds", lambda h, x: zmreg.stage(abs, timeout=x)),
    ("stage", "retries", "count", lambda h, x: zmreg.stage(abs, retries=x)),
    ("stage", "on_error", "word", lambda h, x: zmreg.stage(abs, on_error=x)),
    ("Pipeline", "buffer", "count from 1", lambda h, x: (zmreg.Pipeline() | abs).collect([1], buffer=x)),
    ("Phase", "timeout", "seconds", lambda h, x: zmreg.run([zmreg.Phase("a", abs, timeout=x)])),
    ("Phase", "retries", "count", lambda h, x: zmreg.run([zmreg.Phase("a", abs, retries=x)])),
    ("Phase", "backoff", "seconds", lambda h, x: zmreg.run([zmreg.Phase("a", abs, backoff=x)])),
    ("Phase", "on_error", "word", lambda h, x: zmreg.run([zmreg.Phase("a", abs, on_error=x)])),
    ("Policy", "timeout", "seconds", lambda h, x: Policy(timeout=x)),
    ("Policy", "retries", "count", lambda h, x: Policy(retries=x)),
    ("Policy", "backoff", "seconds", lambda h, x: Policy(backoff=x)),
    ("Policy", "rate", "seconds", lambda h, x: Policy(rate=x)),
    ("Policy", "concurrency", "count from 1", lambda h, x: Policy(concurrency=x)),
    ("Policy", "on_error", "word", lambda h, x: Policy(on_error=x)),
    ("remote", "policy", "ref", lambda h, x: adds.options(policy=x)),
    ("Sink", "buffer_size", "count from 1", lambda h, x: zmreg.Sink("/nowhere", buffer_size=x)),
    ("Sink", "format", "word", lambda h, x: zmreg.Sink("/nowhere", format=x)),
    ("ResultStreamer", "buffer_size", "count from 1", lambda h, x: zmreg.ResultStreamer("a", "/no", buffer_size=x)),
    ("DistributedResultCollector", "num_sources", "count from 1",
     lambda h, x: zmreg.DistributedResultCollector("a", x)),
    ("DistributedResultCollector", "queue_size", "count from 1",
     lambda h, x: zmreg.DistributedResultCollector("a", 1, x)),
    # metrics
    ("metrics", "value", "number", lambda h, x: metrics.Gauge("arguments_gauge").set(x)),
    ("metrics", "value", "amount", lambda h, x: metrics.Counter("arguments_total").inc(x)),
    ("metrics", "name", "name", lambda h, x: metrics.Counter(x)),
    ("call_info", "ref", "ref", lambda h, x: zmreg.call_info(x)),
    ("call_stack", "ref", "ref", lambda h, x: zmreg.call_stack(x)),
    ("story", "ref", "ref", lambda h, x: zmreg.story(x)),
    ("why", "ref", "ref", lambda h, x: zmreg.why(x)),
]  # fmt: skip


@zmreg.remote
def numbers():
    yield 1


@pytest.mark.timeout(100)
def test_experience_4_1_a_wrong_argument_is_refused_at_once_and_by_its_name(held: Held):
    complaints = []
    for place, (name, parameter, kind, call) in enumerate(ROWS):
        for value in WRONG[kind]:
            try:
                got = call(held, value)
                complaints.append(f"{place} {name}({parameter}={value!r}) gave {got!r:.60}")
            except (TypeError, ValueError, PhaseError) as error:
                if parameter.lower() not in str(error).lower():
                    complaints.append(f"{place} {name}: {error!r:.200} does not name {parameter}")
            except Exception as error:  # noqa: BLE001  all that is found is told at once
                complaints.append(f"{place} {name}({parameter}={value!r}) raised {error!r:.200}")
    assert not complaints, "\n".join(complaints)


def test_experience_4_1_numbers_of_other_libraries_and_times_without_end_are_good(held: Held):
    numpy = pytest.importorskip("numpy")
    ref = adds.remote(1)
    for endless in (math.inf, 1e12, numpy.float32(1e3), numpy.int64(1_000)):
        assert adds.remote(1).get(endless) == 2 and zmreg.get([ref], timeout=endless) == [2]
        assert zmreg.wait([adds.remote(1)], num_returns=numpy.int64(1), timeout=endless)[1] == []
        assert [each.get() for each in zmreg.as_completed([adds.remote(1)], timeout=endless)] == [2]
        assert list(zmreg.map(abs, [-1], chunk=numpy.int64(1), timeout=endless)) == [1]
        assert held.pool.apply_async(abs, (-1,)).get(endless) == 1
        assert sync.Lock("other numbers").acquire(endless)
        assert zmreg.gather([adds.remote(1)], endless, errors="skip") == [2]
    with pytest.raises(GetTimeoutError):
        held.pending.get(timeout=numpy.float64(0.01))


def test_experience_4_1_a_time_that_is_over_is_as_good_as_none_left(held: Held):
    left = -0.25  # of a deadline of one's own
    for late in (
        lambda: list(zmreg.as_completed([held.pending], timeout=left)),
        lambda: zmreg.wait_for_nodes(9, timeout=left),
        lambda: held.actors.get_next(left),
        lambda: held.subscription.get(left),
        lambda: sync.Variable("never set").get(left),
        lambda: held.pending.get(left),
    ):
        with pytest.raises(GetTimeoutError):
            late()
    with suppress(GetTimeoutError):  # unless it is there already
        assert list(zmreg.map(abs, [-1], timeout=left)) == [1]
    zmreg.wait_for_nodes(1, timeout=left)
    zmreg.replicate(held.never, 1, timeout=left)


TIMES_AND_COUNTS = {
    "backlog", "backoff", "count", "grace", "limit", "n", "num_returns", "retries", "timeout", "timeout_s", "ttl",
}  # fmt: skip


def test_experience_4_1_whatever_public_takes_a_time_or_a_count_has_a_row():
    covered = {name for name, *_ in ROWS}
    for name in set(zmreg.__all__) - covered:
        value = getattr(zmreg, name)
        methods = list(vars(value).values()) if inspect.isclass(value) else [value]
        for each in filter(inspect.isfunction, methods):
            takes = TIMES_AND_COUNTS & set(inspect.signature(each).parameters)
            assert not takes or each.__name__.startswith("_"), f"{name}: {each.__name__} takes {takes}; give it a row"
