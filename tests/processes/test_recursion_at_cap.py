"""Tasks that start tasks and wait for them, on nodes with fewer workers than there are waiting tasks (C9).

Real processes, small caps: whatever the shape of the tree and the order in which its tasks end, all of it ends. A tree
that got stuck shows as GetTimeoutError after `PATIENCE_S`, with a picture of who waits for what.
"""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

import pytest

import zmreg
from zmreg.services.client import current

PATIENCE_S = 50.0
SIZES = [(cpus, max_workers) for cpus in (1, 2) for max_workers in (2, 3, 4)]


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
