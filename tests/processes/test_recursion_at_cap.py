"""Tasks that start tasks and wait for them, on nodes with fewer workers than there are waiting tasks (C9).

Real processes, small caps: whatever the shape of the tree and the order in which its tasks end, all of it ends. A tree
that got stuck shows as GetTimeoutError after `PATIENCE_S`, with a picture of who waits for what.
"""

from __future__ import annotations

from collections.abc import Iterator
from random import Random
from types import SimpleNamespace

import pytest

import zmreg
from tests.processes.drivers import eventually
from zmreg.model.messages import LeaseGranted, WorkersAtCap
from zmreg.model.specs import Shape
from zmreg.services.seat.client import current
from zmreg.services.worker.environments import PLAIN
from zmreg.services.worker.helping import Helping

PATIENCE_S = 20.0
SIZES = [(cpus, max_workers) for cpus in (1, 2) for max_workers in (1, 2, 3, 4)]


@pytest.fixture(params=SIZES, ids=lambda size: f"{size[0]}cpu-{size[1]}workers", scope="module")
def small(request: pytest.FixtureRequest) -> Iterator[int]:
    """A cluster with so many CPUs and such a cap on workers; yields the cap."""
    cpus, max_workers = request.param
    zmreg.init(num_cpus=cpus, max_workers=max_workers)
    try:
        yield max_workers
    finally:
        zmreg.shutdown()


def ends_with(ref: zmreg.ObjectRef, max_workers: int):
    """The value of the outermost task. Nobody may have needed a worker above the cap."""
    try:
        value = ref.get(timeout=PATIENCE_S)
    except zmreg.errors.GetTimeoutError as error:
        error.add_note(f"workers: {current().ask('workers')}\nactors and leases: {current().ask('stats')}")
        raise
    assert len(current().ask("workers")) <= max_workers
    return value


@zmreg.remote(_generator_backpressure_num_objects=2)
def items(n):
    yield from range(n)


@zmreg.remote
def total(n):
    return sum(ref.get() for ref in items.remote(n))


def test_c9_row28_a_bound_holds_up_no_task_that_takes_the_items_where_they_are_made(small):
    assert ends_with(total.remote(20), small) == 190


@zmreg.remote
def chain(n):
    return 0 if n == 0 else 1 + chain.remote(n - 1).get()


@zmreg.remote
def tree(n):
    return 1 if n == 0 else 1 + sum(zmreg.get([tree.remote(n - 1), tree.remote(n - 1)]))


def shape_of(seed: int, tasks: int = 60):
    """A random tree: nested lists, the children of a task; half of the seeds make bushes, the others long threads."""
    chance = Random(seed)
    root: list = []
    nodes = [root]
    for _ in range(tasks - 1):
        child: list = []
        parents = nodes[-3:] if seed % 2 else nodes
        chance.choice(parents).append(child)
        nodes.append(child)
    return root


@zmreg.remote
def grow(shape, seed):
    """How many tasks `shape` is of. Each waits for its children in one of the ways there are, after a while or none."""
    import time
    from random import Random

    chance = Random(seed)
    if chance.random() < 0.3:
        time.sleep(chance.random() * 0.005)
    refs = [grow.remote(child, chance.getrandbits(32)) for child in shape]
    way = chance.choice(["get", "one by one", "wait", "as completed", "asked again", "late"])
    if way == "get":
        return 1 + sum(zmreg.get(refs))
    if way == "one by one":
        return 1 + sum(ref.get() for ref in reversed(refs))
    if way == "as completed":
        return 1 + sum(ref.get() for ref in zmreg.as_completed(refs))
    count = 1
    if way == "late":
        refs, given = refs[:1], refs[1:]
        for ref in given:
            count += ref.get()
    while refs:
        done, refs = zmreg.wait(refs, timeout=0.002 if way == "asked again" else None)
        count += sum(zmreg.get(done))
    return count


def test_c9_a_chain_forty_deep_ends(small):
    assert ends_with(chain.remote(40), small) == 40


def test_c9_a_tree_of_63_ends(small):
    assert ends_with(tree.remote(5), small) == 63


@pytest.mark.parametrize("seed", range(6))
def test_c9_trees_of_any_shape_end(small, seed):
    assert ends_with(grow.remote(shape_of(seed), seed), small) == 60


def test_c9_several_trees_at_once_end(small):
    refs = [grow.remote(shape_of(seed, 20), seed) for seed in range(10, 16)]
    assert [ends_with(ref, small) for ref in refs] == [20] * 6


@zmreg.remote
async def async_chain(n):
    return 0 if n == 0 else 1 + await async_chain.remote(n - 1)


@zmreg.remote
async def async_tree(n, sync):
    """Coroutines that wait: side by side, or by a plain get() in the midst of a step of the event loop."""
    import asyncio

    if n == 0:
        return 1
    children = [async_tree.remote(n - 1, not sync), async_tree.remote(n - 1, sync), tree.remote(1)]
    return 1 + sum(zmreg.get(children) if sync else await asyncio.gather(*children))


def test_c9_tasks_that_await_end(small):
    assert ends_with(async_chain.remote(40), small) == 40


@pytest.mark.parametrize("sync", [False, True])
def test_c9_tasks_that_await_and_tasks_that_wait_end(small, sync):
    # t(n) = 1 + 2 t(n - 1) + 3, t(0) = 1
    assert ends_with(async_tree.remote(4, sync), small) == 76


@zmreg.remote
def leave_behind(n):
    """Starts a child, waits for none, and hands out its ref: the child's owner has nothing to do when it runs."""
    return [n, leave_behind.remote(n - 1)] if n else [0]


@zmreg.remote
def fast_then_deep(n):
    """Fast enough to be sent ahead to one's own worker, should the node have lent it to itself; then it waits."""
    return tree.remote(2).get() if n == 0 else [fast_then_deep.remote(0) for _ in range(n)]


def test_c9_children_left_behind_run_even_where_their_parent_ran(small):
    value = ends_with(leave_behind.remote(8), small)
    while value[0]:
        value = ends_with(value[1], small)


def test_c9_children_left_behind_may_wait_themselves(small):
    for _ in range(5):
        refs = ends_with(fast_then_deep.remote(6), small)
        assert [ends_with(ref, small) for ref in refs] == [7] * 6


def test_c9_a_call_taken_by_hand_is_cancelled_with_the_one_that_waits(small, tmp_path):
    begun = tmp_path / "begun"

    @zmreg.remote
    def sleeper(n):
        import time

        if n:
            return sleeper.remote(n - 1).get()
        begun.touch()
        time.sleep(PATIENCE_S)

    ref = sleeper.remote(6)
    eventually(begun.exists, PATIENCE_S, "the innermost call does not run")
    zmreg.cancel(ref)
    with pytest.raises(zmreg.errors.TaskCancelledError):
        ref.get(timeout=PATIENCE_S)
    assert ends_with(tree.remote(3), small) == 15


def test_a_lease_is_looked_after_from_the_day_it_is_granted(small):
    assert ends_with(tree.remote(0), small) == 1
    assert current().pump.tick_s > 0, "with nobody looking at the clock, it would be held until others ask for it"


def test_c9_nobody_helps_himself_any_more_once_a_worker_was_granted():
    """A call run by hand holds up the wait that it is run in, also one with a timeout: only where it has to be."""
    helping = Helping(SimpleNamespace(host=None, environment=PLAIN))
    one, gpu = Shape.of(1), Shape.of(1, 1)
    for shape in (one, one, gpu):
        helping.on_cap(WorkersAtCap(shape.resources, shape.locs, ""))
    assert helping._capped == [one], "a GPU would have to be booked"
    helping.on_grant(LeaseGranted(gpu.resources, gpu.locs, "", b"worker01"))
    assert helping._capped == [one]
    helping.on_grant(LeaseGranted(one.resources, one.locs, "", b"worker01"))
    assert helping._capped == []
