"""Row 69 over a change of head: groups that were written down live on where their bundles are."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

import zmreg
from tests.processes.clusters import PATIENCE_S, until
from tests.processes.test_head_restart import Restartable
from zmreg import PlacementGroup, placement_group, placement_group_table, remove_placement_group

ONE, TWO = {"CPU": 1}, {"CPU": 2}


@zmreg.remote(num_cpus=1)
class Member:
    def pid(self) -> int:
        return os.getpid()


@zmreg.remote(num_cpus=1)
def group_here() -> str:
    group = zmreg.get_current_placement_group()
    return "" if group is None else group.id


def inside(group: PlacementGroup, index: int) -> zmreg.PlacementGroupSchedulingStrategy:
    return zmreg.PlacementGroupSchedulingStrategy(group, index)


def state(group: PlacementGroup) -> str:
    return str(placement_group_table(group)["state"])


@pytest.fixture
def restartable(tmp_path: Path) -> Iterator[Restartable]:
    made = Restartable(tmp_path, {"num_cpus": 4, "locs": {"c"}, "resources": {"token": 1}}, num_cpus=0)
    with made.cluster:
        yield made


def test_row_69_groups_live_on_and_what_is_said_without_a_head_is_done(restartable: Restartable) -> None:
    kept, removed = placement_group([ONE, ONE], name="kept"), placement_group([TWO])
    actor = Member.options(scheduling_strategy=inside(kept, 0)).remote()
    pid = zmreg.get(actor.pid.remote(), timeout=PATIENCE_S)
    assert removed.wait(PATIENCE_S)
    pending = placement_group([TWO])
    assert not pending.wait(0.1)
    places = placement_group_table(kept)["bundles_to_node_id"]

    restartable.kill()
    restartable.until_headless()
    ordered = placement_group([{"token": 1}])
    assert zmreg.get(group_here.options(scheduling_strategy=inside(kept, 1)).remote(), timeout=PATIENCE_S) == kept.id
    removing = threading.Thread(target=remove_placement_group, args=(removed,))
    removing.start()
    restartable.start()
    removing.join(PATIENCE_S)

    assert zmreg.get_placement_group("kept") == kept
    until(lambda: state(kept) == "CREATED", "its node has not said what it holds")
    assert placement_group_table(kept)["bundles_to_node_id"] == places
    assert ordered.wait(PATIENCE_S) and pending.wait(PATIENCE_S), "what waited is tried again, with what was set free"
    assert state(removed) == "REMOVED"
    assert zmreg.get(actor.pid.remote(), timeout=PATIENCE_S) == pid
    assert zmreg.get(group_here.options(scheduling_strategy=inside(kept, 1)).remote(), timeout=PATIENCE_S) == kept.id
    for group in (kept, ordered, pending):
        remove_placement_group(group)
    until(lambda: zmreg.available_resources().get("CPU") == 4.0, "CPUs of the groups stay taken")


def test_row_69_a_group_that_is_detached_outlives_its_driver_and_others_end_with_it(restartable: Restartable) -> None:
    lasting, passing = placement_group([ONE], name="lasting", lifetime="detached"), placement_group([ONE])
    assert lasting.wait(PATIENCE_S) and passing.wait(PATIENCE_S)
    restartable.kill()
    restartable.until_headless()
    zmreg.shutdown()
    restartable.start()
    restartable.cluster.attach(restartable.b.node_id)
    until(lambda: zmreg.available_resources().get("CPU") == 3.0, "the driver's group stays")
    until(lambda: state(lasting) == "CREATED", "its node has not said what it holds")
    assert set(placement_group_table()) == {lasting.id}
    assert zmreg.get_placement_group("lasting").wait(PATIENCE_S)
