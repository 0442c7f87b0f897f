"""What a head decides in its first seconds, by its own clock (fault 9)."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from zmreg.core.nodes import RETURN_S, NodeState
from zmreg.model.messages import Inventory
from zmreg.services.head.homecoming import Homecoming

C = b"node---c"


LEDGER: Any = SimpleNamespace(former=b"", nodes=(C,), actors=(), ends={}, groups=())
"""What the head before has written down: that there was a node."""


def awaited(dead_after_s: float = 10.0, neighbours: Any = None) -> tuple[Homecoming, list[bytes]]:
    """A head that waits for a node, and whom it has buried."""
    buried: list[bytes] = []
    settings, placing = (
        SimpleNamespace(dead_after_s=dead_after_s),
        SimpleNamespace(node_gone=buried.append, all_home=list),
    )
    node: Any = SimpleNamespace(
        me=b"node---a", settings=settings, neighbours=neighbours, placing=placing, other_nodes=list
    )
    head: Any = SimpleNamespace(node_gone=lambda node, reason: None, actors=None)
    homecoming = Homecoming(node, head)
    homecoming.restore(LEDGER)
    return homecoming, buried


def test_fault9_a_node_that_does_not_come_back_in_its_time_is_dead() -> None:
    homecoming, buried = awaited()
    for now in range(100, 110):
        homecoming.tick(float(now))
    assert buried == [] and not homecoming.over
    homecoming.tick(110.0)
    assert buried == [C] and homecoming.over


def test_fault9_a_head_that_was_stopped_gives_its_nodes_their_time_anew() -> None:
    """They could not come, and are all there as soon as it goes on."""
    homecoming, buried = awaited()
    homecoming.tick(100.0)
    homecoming.tick(100.2)
    homecoming.tick(130.0)
    assert buried == [] and not homecoming.over
    for now in range(131, 141):
        homecoming.tick(float(now))
    assert buried == [C] and homecoming.over


def test_fault9_a_node_that_needs_its_time_to_find_the_head_is_not_dead_where_silence_means_death_early() -> None:
    """It connects anew every two seconds and asks once a second: with `dead_after_s` of 1 or 2 all were lost."""
    homecoming, buried = awaited(dead_after_s=1.0)
    for now in range(100, 105):
        homecoming.tick(float(now))
    assert buried == [] and not homecoming.over
    assert homecoming.until == 100.0 + RETURN_S
    homecoming.tick(105.9)
    homecoming.tick(106.0)
    assert buried == [C] and homecoming.over


@pytest.mark.parametrize("says", [True, False])
def test_fault9_a_node_that_is_there_at_the_last_moment_may_say_what_it_hosts(says: bool) -> None:
    """It was let in, and one letter was still under way. One that then says nothing is not waited for."""
    buried: list[bytes] = []
    members = SimpleNamespace(state=lambda node: NodeState.ALIVE, record=lambda node: "a record")
    verdicts = SimpleNamespace(sentence=lambda node, reason: buried.append(node))
    homecoming, _ = awaited(neighbours=SimpleNamespace(members=members, verdicts=verdicts))
    for now in range(100, 111):
        homecoming.tick(float(now))
    assert buried == [] and not homecoming.over
    if says:
        homecoming.hears(C, Inventory((), (), ()))
    for now in range(111, 115):
        homecoming.tick(float(now))
    assert buried == ([] if says else [C]) and homecoming.over
