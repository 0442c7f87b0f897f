"""Programs as Ray's own tutorials have them, with another import and nothing else: all rows of core-api together."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import os
import random
import sys
import time
from collections import Counter
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import zmreg
import zmreg.integrations.ray
from zmreg.integrations.ray.util import ActorPool
from zmreg.integrations.ray.util.placement_group import placement_group, remove_placement_group
from zmreg.integrations.ray.util.queue import Empty, Queue
from zmreg.integrations.ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

pytestmark = pytest.mark.usefixtures("cluster")


@pytest.fixture(params=[zmreg, zmreg.integrations.ray], ids=lambda module: module.__name__)
def ray(request: pytest.FixtureRequest) -> ModuleType:
    return request.param


def test_tasks_that_take_refs_and_give_several(ray: ModuleType):
    @ray.remote
    def square(x):
        return x * x

    @ray.remote(num_returns=2)
    def divmod_of(a, b):
        return a // b, a % b

    def plus(a, b):
        return a + b

    assert ray.get([square.remote(i) for i in range(4)]) == [0, 1, 4, 9]
    quotient, rest = divmod_of.remote(17, 5)
    added = ray.remote(plus).remote(quotient, rest)
    assert ray.get(square.options(name="last", num_cpus=0.5).remote(added)) == 25
    large = ray.put(np.arange(300_000))
    total = ray.remote(num_cpus=1)(lambda array: int(array.sum()))
    assert ray.get([total.remote(large) for _ in range(3)]) == [44999850000] * 3


def test_a_wait_loop_with_a_bound_on_what_is_under_way(ray: ModuleType):
    @ray.remote
    def work(i):
        time.sleep(random.random() / 100)
        return i

    pending: list[Any] = []
    results = []
    for i in range(30):
        if len(pending) >= 5:
            ready, pending = ray.wait(pending, num_returns=1)
            results += ray.get(ready)
        pending.append(work.remote(i))
    while pending:
        [ready], pending = ray.wait(pending)
        results.append(ray.get(ready))
    assert sorted(results) == list(range(30))


def test_monte_carlo_with_an_actor_that_is_told_of_progress(ray: ModuleType):
    @ray.remote
    class Progress:
        def __init__(self, total):
            self.total = total
            self.done: dict[int, int] = {}

        def report(self, task_id, done):
            self.done[task_id] = done

        def progress(self):
            return sum(self.done.values()) / self.total

    @ray.remote
    def sample(count, task_id, progress):
        inside = 0
        for i in range(count):
            inside += random.random() ** 2 + random.random() ** 2 <= 1
            if (i + 1) % 500 == 0:
                progress.report.remote(task_id, i + 1)
        return inside

    progress = Progress.remote(4 * 2000)
    counts = ray.get([sample.remote(2000, i, progress) for i in range(4)])
    assert 2.9 < 4 * sum(counts) / 8000 < 3.4
    while ray.get(progress.progress.remote()) < 1:
        pass


def test_a_parameter_server_in_step_and_out_of_step(ray: ModuleType):
    @ray.remote
    class ParameterServer:
        def __init__(self, size, rate):
            self.weights, self.rate = np.zeros(size), rate

        def apply_gradients(self, *gradients):
            self.weights = self.weights - self.rate * np.mean(gradients, axis=0)
            return self.weights

        def get_weights(self):
            return self.weights

    @ray.remote
    class DataWorker:
        def compute_gradients(self, weights):
            return weights - 1.0

    server = ParameterServer.remote(20_000, 0.5)
    workers = [DataWorker.remote() for _ in range(2)]
    weights = server.get_weights.remote()
    for _ in range(5):
        weights = server.apply_gradients.remote(*[worker.compute_gradients.remote(weights) for worker in workers])
    assert np.allclose(ray.get(weights), 1 - 0.5**5)
    gradients = {worker.compute_gradients.remote(weights): worker for worker in workers}
    for _ in range(10):
        ready, _rest = ray.wait(list(gradients))
        worker = gradients.pop(ready[0])
        gradients[worker.compute_gradients.remote(server.apply_gradients.remote(*ready))] = worker
    assert abs(ray.get(server.get_weights.remote())[0] - 1) < 0.05


def test_a_tree_of_actors(ray: ModuleType):
    @ray.remote(num_cpus=0)
    class Leaf:
        def work(self, n):
            return n * n

    @ray.remote(num_cpus=0)
    class Supervisor:
        def __init__(self, leaves):
            self.leaves = [Leaf.remote() for _ in range(leaves)]

        def work(self, n):
            return sum(ray.get([leaf.work.remote(n) for leaf in self.leaves]))

    assert ray.get([each.work.remote(3) for each in [Supervisor.remote(2), Supervisor.remote(1)]]) == [18, 9]


def test_map_reduce(ray: ModuleType):
    @ray.remote
    def map_words(text, parts):
        counts = [Counter() for _ in range(parts)]
        for word in text.split():
            counts[len(word) % parts][word] += 1
        return counts

    @ray.remote
    def reduce_words(*counts):
        return sum(counts, Counter())

    texts = ["the zen of the python", "beautiful is better than ugly", "the end"]
    mapped = [map_words.options(num_returns=3).remote(text, 3) for text in texts]
    reduced = ray.get([reduce_words.remote(*(parts[i] for parts in mapped)) for i in range(3)])
    assert sum(reduced, Counter()) == Counter(" ".join(texts).split())


def test_nested_tasks_and_a_tree_of_sums(ray: ModuleType):
    @ray.remote
    def quick_sort(numbers):
        if len(numbers) < 20:
            return sorted(numbers)
        pivot = numbers[len(numbers) // 2]
        lower = quick_sort.remote([n for n in numbers if n < pivot])
        upper = quick_sort.remote([n for n in numbers if n > pivot])
        return ray.get(lower) + [n for n in numbers if n == pivot] + ray.get(upper)

    @ray.remote
    def add(a, b):
        return a + b

    numbers = [random.randrange(1000) for _ in range(150)]
    assert ray.get(quick_sort.remote(numbers)) == sorted(numbers)
    values = [ray.put(i) for i in range(16)]
    while len(values) > 1:
        values = values[2:] + [add.remote(values[0], values[1])]
    assert ray.get(values[0]) == 120


def test_generators(ray: ModuleType):
    @ray.remote
    def count(n):
        for i in range(n):
            yield np.full(3, i)

    @ray.remote
    class Reader:
        def lines(self, n):
            yield from (f"line {i}" for i in range(n))

    @ray.remote(num_returns=3)
    def three():
        yield from "abc"

    assert [int(ray.get(ref)[0]) for ref in count.remote(4)] == [0, 1, 2, 3]
    assert [ray.get(ref) for ref in Reader.remote().lines.options(num_returns="streaming").remote(2)] == [
        "line 0",
        "line 1",
    ]
    assert ray.get(three.remote()) == ["a", "b", "c"]
    assert isinstance(count.remote(1), ray.ObjectRefGenerator)


def test_actors_that_are_async_and_one_that_signals(ray: ModuleType):
    @ray.remote(num_cpus=0)
    class SignalActor:
        def __init__(self):
            self.ready_event, self.waiting = asyncio.Event(), 0

        def send(self, clear=False):
            self.ready_event.set()
            if clear:
                self.ready_event.clear()

        async def wait(self, should_wait=True):
            self.waiting += 1
            if should_wait:
                await self.ready_event.wait()
            return self.waiting

        async def cur_num_waiters(self):
            return self.waiting

    @ray.remote
    def wait_and_go(signal):
        ray.get(signal.wait.remote())
        return "go"

    signal = SignalActor.options(max_concurrency=10).remote()
    going = [wait_and_go.remote(signal) for _ in range(3)]
    assert ray.wait(going, timeout=0.05)[0] == []
    while ray.get(signal.cur_num_waiters.remote()) < 3:
        pass
    ray.get(signal.send.remote())
    assert ray.get(going) == ["go"] * 3

    async def driver():
        assert await signal.wait.remote(False) == 4
        return await asyncio.gather(*(signal.wait.remote() for _ in range(3)))

    assert sorted(asyncio.run(driver())) == [5, 6, 7]


def test_named_actors_and_those_that_are_killed(ray: ModuleType):
    @ray.remote
    class Store:
        def __init__(self):
            self.values: dict[str, int] = {}

        def set(self, key, value):
            self.values[key] = value

        def get(self, key):
            return self.values[key]

    @ray.remote
    def writes(name):
        ray.get(ray.get_actor(name).set.remote("x", 7))

    name = f"store-{ray.__name__}"
    store = Store.options(name=name, lifetime="detached").remote()
    same = Store.options(name=name, get_if_exists=True).remote()
    ray.get(writes.remote(name))
    assert ray.get(same.get.remote("x")) == 7
    with pytest.raises(KeyError):
        ray.get(store.get.remote("y"))
    ray.kill(store)
    with pytest.raises(ValueError):
        ray.get_actor(name)


def test_an_actor_that_dies_and_comes_back(ray: ModuleType):
    @ray.remote(max_restarts=2, max_task_retries=-1)
    class Frail:
        def __init__(self):
            self.calls = 0

        def call(self):
            self.calls += 1
            if self.calls == 3:
                os._exit(1)
            return self.calls

    frail = Frail.remote()
    assert [ray.get(frail.call.remote()) for _ in range(4)] == [1, 2, 1, 2]


def test_what_is_cancelled_late_or_wrong(ray: ModuleType):
    @ray.remote
    def sleeps():
        time.sleep(60)

    errors = ray.exceptions if hasattr(ray, "exceptions") else ray.errors
    ref = sleeps.remote()
    with pytest.raises(errors.GetTimeoutError):
        ray.get(ref, timeout=0.05)
    ray.cancel(ref)
    with pytest.raises(errors.TaskCancelledError):
        ray.get(ref)


def test_an_actor_with_threads_and_one_with_groups(ray: ModuleType):
    @ray.remote(concurrency_groups={"io": 2, "compute": 1})
    class Grouped:
        @ray.method(concurrency_group="io")
        async def f(self):
            return "io"

        @ray.method(concurrency_group="compute")
        async def g(self):
            return "compute"

        @ray.method(num_returns=2)
        async def both(self):
            return 1, 2

    grouped = Grouped.remote()
    assert ray.get([grouped.f.remote(), grouped.g.remote(), grouped.f.options(concurrency_group="compute").remote()])
    assert ray.get(grouped.both.remote()) == [1, 2]


def test_what_the_program_knows_of_itself(ray: ModuleType):
    @ray.remote(num_cpus=1)
    def who():
        context = ray.get_runtime_context()
        return context.get_node_id(), context.get_task_id(), context.get_assigned_resources()

    node, task, resources = ray.get(who.remote())
    assert node in [each["NodeID"] for each in ray.nodes() if each["Alive"]] and task
    assert resources["CPU"] == 1.0
    assert ray.cluster_resources()["CPU"] == 2.0 >= ray.available_resources().get("CPU", 0.0)


def test_an_actor_pool_and_a_queue():
    ray = zmreg.integrations.ray

    @ray.remote
    class Worker:
        def double(self, n):
            return 2 * n

    @ray.remote
    def consume(queue):
        found = []
        while (item := queue.get(block=True, timeout=20)) is not None:
            found.append(item)
        return found

    pool = ActorPool([Worker.remote(), Worker.remote()])
    assert list(pool.map(lambda actor, n: actor.double.remote(n), range(6))) == [0, 2, 4, 6, 8, 10]
    pool.submit(lambda actor, n: actor.double.remote(n), 21)
    assert pool.has_next() and pool.get_next_unordered() == 42 and not pool.has_next()
    queue = Queue(maxsize=100)
    consumers = [consume.remote(queue) for _ in range(2)]
    for item in [*range(10), None, None]:
        queue.put(item)
    assert sorted(sum(ray.get(consumers), [])) == list(range(10))
    with pytest.raises(Empty):
        queue.get_nowait()
    queue.shutdown()


def test_a_placement_group():
    ray = zmreg.integrations.ray

    @ray.remote(num_cpus=1)
    class Trainer:
        def rank(self, n):
            return n

    group = placement_group([{"CPU": 1}, {"CPU": 1}], strategy="PACK")
    ray.get(group.ready(), timeout=20)
    trainers = [
        Trainer.options(
            scheduling_strategy=PlacementGroupSchedulingStrategy(placement_group=group, placement_group_bundle_index=n)
        ).remote()
        for n in range(2)
    ]
    assert ray.get([trainer.rank.remote(n) for n, trainer in enumerate(trainers)]) == [0, 1]
    assert group.bundle_specs == [{"CPU": 1.0}, {"CPU": 1.0}]
    for trainer in trainers:
        ray.kill(trainer)
    remove_placement_group(group)


def test_a_mix_of_generators_and_refs_is_waited_for(ray: ModuleType):
    @ray.remote
    def items(n):
        yield from range(n)

    @ray.remote
    def plain():
        return "plain"

    pending, found = [items.remote(3), plain.remote()], []
    while pending:
        ready, pending = ray.wait(pending)
        for each in ready:
            if isinstance(each, ray.ObjectRefGenerator):
                with contextlib.suppress(StopIteration):
                    found.append(ray.get(next(each)))
                    pending.append(each)
            else:
                found.append(ray.get(each))
    assert sorted(map(str, found)) == ["0", "1", "2", "plain"]

    async def reads():
        return [await ref async for ref in items.remote(3)]

    async def both():
        return await asyncio.gather(reads(), reads())

    assert asyncio.run(both()) == [[0, 1, 2]] * 2


def test_idle_actors_get_the_next_piece(ray: ModuleType):
    @ray.remote(num_cpus=0.25)
    class Predictor:
        def __init__(self, model):
            self.model = model

        def predict(self, shard):
            return sum(self.model[n % 3] for n in shard)

    model = ray.put([1, 10, 100])
    idle, shards = [Predictor.remote(model) for _ in range(2)], [range(n, n + 5) for n in range(6)]
    busy, total = {}, 0
    while shards or busy:
        while idle and shards:
            actor = idle.pop()
            busy[actor.predict.remote(shards.pop())] = actor
        [ready], _ = ray.wait(list(busy), num_returns=1)
        idle.append(busy.pop(ready))
        total += ray.get(ready)
    assert total == sum([1, 10, 100][n % 3] for start in range(6) for n in range(start, start + 5))


def test_a_controller_that_replaces_a_worker_that_crashes():
    ray = zmreg.integrations.ray

    @ray.remote(num_cpus=0)
    class Worker:
        def __init__(self, state):
            self.state = state

        def step(self, crash):
            if crash:
                sys.exit(1)
            self.state += 1
            return self.state

    worker, state, crashes = Worker.remote(0), 0, 0
    for attempt in range(6):
        try:
            state = ray.get(worker.step.remote(crash=attempt % 3 == 1))
        except ray.exceptions.RayActorError:
            crashes += 1
            worker = Worker.remote(state)
    assert (state, crashes) == (4, 2)


def test_a_bar_that_an_actor_keeps(ray: ModuleType):
    @ray.remote
    class Bar:
        def __init__(self):
            self.done = self.delta = 0
            self.event = asyncio.Event()

        def update(self, n):
            self.done += n
            self.delta += n
            self.event.set()

        async def wait_for_update(self):
            await self.event.wait()
            self.event.clear()
            delta, self.delta = self.delta, 0
            return delta, self.done

    @ray.remote
    def work(i, bar):
        bar.update.remote(1)
        return i

    bar = Bar.remote()
    refs, seen, done = [work.remote(i, bar) for i in range(6)], 0, 0
    while done < 6:
        delta, done = ray.get(bar.wait_for_update.remote())
        seen += delta
    assert (seen, ray.get(refs)) == (6, list(range(6)))


def test_actors_that_hold_actors_count_words_piece_by_piece():
    ray = zmreg.integrations.ray

    @ray.remote(num_cpus=0)
    class Mapper:
        def __init__(self, texts):
            self.texts, self.counts = iter(texts), []

        def get_range(self, index, first, last):
            while len(self.counts) <= index:
                self.counts.append(Counter(next(self.texts).split()))
            return [(word, n) for word, n in self.counts[index].items() if first <= word[0] <= last]

    @ray.remote(num_cpus=0)
    class Reducer:
        def __init__(self, keys, *mappers):
            self.keys, self.mappers = keys, mappers

        def next_result(self, index):
            total: Counter[str] = Counter()
            pending = [mapper.get_range.remote(index, *self.keys) for mapper in self.mappers]
            while pending:
                [ready], pending = ray.wait(pending)
                for word, n in ray.get(ready):
                    total[word] += n
            return total

    texts = [f"ray counts words {i % 2} and {i}" for i in range(6)]
    mappers = [Mapper.remote(texts[i::2]) for i in range(2)]
    reducers = [Reducer.remote(keys, *mappers) for keys in ("0i", "jz")]
    total = Counter()
    for index in range(3):
        for counts in ray.get([reducer.next_result.remote(index) for reducer in reducers]):
            total += counts
    assert total == Counter(" ".join(texts).split())


def test_the_users_own_exceptions_with_what_they_carry():
    ray = zmreg.integrations.ray

    class WithCode(Exception):
        def __init__(self, code, text):
            super().__init__(code, text)
            self.code = code

    class Final(Exception):
        def __init_subclass__(cls, **_):
            raise TypeError("no subclass of this one")

    @ray.remote
    def fails(error):
        raise error

    @ray.remote
    class Broken:
        def __init__(self):
            raise ValueError("no constructor")

        def f(self):
            pass

    task_error = ray.exceptions.RayTaskError
    with pytest.raises(WithCode) as caught:
        ray.get(fails.remote(WithCode(7, "seven")))
    assert caught.value.code == 7 and isinstance(caught.value, task_error)
    with pytest.raises(task_error) as kept:
        ray.get(fails.remote(Final("x")))
    assert isinstance(kept.value.cause, Final) and not isinstance(kept.value, Final)
    with pytest.raises(ray.exceptions.RayActorError) as made:
        ray.get(Broken.remote().f.remote())
    assert "no constructor" in str(made.value)


def test_retries_of_chosen_errors_alone(ray: ModuleType, tmp_path):
    @ray.remote(max_retries=2, retry_exceptions=[OSError])
    def reads(path, error):
        if not path.exists():
            path.touch()
            raise error
        return "read"

    assert ray.get(reads.remote(tmp_path / "a", OSError("disk"))) == "read"
    with pytest.raises(ValueError, match="wrong"):
        ray.get(reads.remote(tmp_path / "b", ValueError("wrong")))


def test_futures_of_both_kinds(ray: ModuleType):
    @ray.remote
    def double(n):
        return 2 * n

    futures = [double.remote(n).future() for n in range(4)]
    assert sorted(each.result() for each in concurrent.futures.as_completed(futures)) == [0, 2, 4, 6]

    async def main():
        done, late = await asyncio.wait([asyncio.wrap_future(double.remote(3).future())], timeout=20)
        return [each.result() for each in done], late, await asyncio.wait_for(double.remote(4), timeout=20)

    assert asyncio.run(main()) == ([6], set(), 8)


def test_a_class_with_everything_a_class_can_have(ray: ModuleType):
    class Base:
        def __init__(self, x):
            self.x = x

        def get(self):
            return self.x

        @classmethod
        def name(cls):
            return cls.__name__

        @staticmethod
        def plus_one(n):
            return n + 1

    @ray.remote
    class Child(Base):
        def __init__(self, x, *, y=2, **rest):
            super().__init__(x)
            self.more = y, rest

        def both(self):
            return self.x, *self.more

        def __call__(self, n):
            return n * 10

        def me(self):
            return ray.get_runtime_context().current_actor

    child = Child.remote(1, y=3, z=4)
    assert ray.get(child.__ray_ready__.remote()) is True
    assert ray.get([child.get.remote(), child.plus_one.remote(1), child.__call__.remote(2)]) == [1, 2, 20]
    assert ray.get(child.both.remote()) == (1, 3, {"z": 4}) and ray.get(child.name.remote()) == "Child"
    assert ray.get(child.me.remote()) == child and len({child, child}) == 1


def test_bound_calls_of_functions_and_of_actors(ray: ModuleType):
    @ray.remote
    def plus(a, b=1):
        return a + b

    @ray.remote
    class Sum:
        def __init__(self):
            self.total = 0

        def add(self, n):
            self.total += n
            return self.total

    first = plus.bind(1, b=2)
    assert ray.get(plus.bind(plus.bind(first, b=3), b=first).execute()) == 9
    total = Sum.remote()
    assert ray.get(plus.bind(total.add.bind(first)).execute()) == 4 and ray.get(total.add.remote(0)) == 3
    with pytest.raises(TypeError, match="zmreg.Graph"):
        first.execute(3)
    with pytest.raises(AttributeError, match="bind its methods"):
        Sum.bind()


def test_blocks_that_swap_their_edges_in_step():
    ray = zmreg.integrations.ray

    @ray.remote(num_cpus=0)
    class Block:
        def __init__(self, grid):
            self.grid = np.array(grid)

        def edge(self, row):
            return self.grid[row].copy()

        def step(self, above, below):
            self.grid = life(np.vstack([above, self.grid, below]))[1:-1]

        def cells(self):
            return self.grid

    def life(grid):
        near = [(dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1) if (dy, dx) != (0, 0)]
        count = sum(np.roll(np.roll(grid, dy, 0), dx, 1) for dy, dx in near)
        return ((count == 3) | ((grid == 1) & (count == 2))).astype(np.int8)

    grid = (np.random.default_rng(0).random((12, 20)) < 0.3).astype(np.int8)
    blocks = [Block.remote(part) for part in np.split(grid, 2)]
    for _ in range(4):
        bottoms, tops = ([block.edge.remote(row) for block in blocks] for row in (-1, 0))
        ray.get([block.step.remote(bottoms[i - 1], tops[i - 1]) for i, block in enumerate(blocks)])
        grid = life(grid)
    assert np.array_equal(np.vstack(ray.get([block.cells.remote() for block in blocks])), grid)


def test_variables_of_tasks_and_actors():
    ray = zmreg.integrations.ray

    @ray.remote
    def variable(name):
        return os.environ.get(name)

    @ray.remote(runtime_env={"env_vars": {"FROM_RAY": "actor"}})
    class Actor:
        def variable(self, name):
            return os.environ.get(name)

    assert ray.get(variable.remote("FROM_RAY")) is None
    given = zmreg.integrations.ray.runtime_env.RuntimeEnv(env_vars={"FROM_RAY": "task"}, working_dir=None)
    assert ray.get(variable.options(runtime_env=given).remote("FROM_RAY")) == "task"
    assert ray.get(Actor.remote().variable.remote("FROM_RAY")) == "actor"


def test_an_actor_that_ends_a_loop_by_stop_iteration():
    ray = zmreg.integrations.ray

    @ray.remote
    class Reader:
        def __init__(self, n):
            self.items = iter(range(n))

        def next(self):
            return next(self.items)

    reader, found = Reader.remote(3), []
    with contextlib.suppress(StopIteration):
        while True:
            found.append(ray.get(reader.next.remote()))
    assert found == [0, 1, 2]
    with pytest.raises(ray.exceptions.RayTaskError, match="StopIteration"):
        ray.get([reader.next.remote()])


def test_a_child_outside_of_its_parents_group():
    ray = zmreg.integrations.ray

    @ray.remote(num_cpus=1)
    def child():
        return ray.util.get_current_placement_group() is not None

    @ray.remote(num_cpus=1)
    def parent():
        outside = child.options(scheduling_strategy=PlacementGroupSchedulingStrategy(placement_group=None))
        return ray.get([child.remote(), outside.remote()])

    group = placement_group([{"CPU": 1}])
    captured = PlacementGroupSchedulingStrategy(placement_group=group, placement_group_capture_child_tasks=True)
    assert ray.get(parent.options(scheduling_strategy=captured).remote(), timeout=30) == [True, False]
    assert not group.is_empty
    remove_placement_group(group)
