"""Row 69 (placement groups), rows 9 and 70 (labels), X18 (priorities) on real nodes."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import zmreg
from tests.processes.clusters import until
from zmreg import (
    NodeLabelSchedulingStrategy,
    PlacementGroup,
    PlacementGroupSchedulingStrategy,
    placement_group,
    placement_group_table,
    remove_placement_group,
)
from zmreg.model.errors import ActorDiedError, PlacementGroupRemovedError, UnschedulableError
from zmreg.testing import LocalCluster

CPU = {"CPU": 1}


def inside(group: PlacementGroup, index: int = -1, capture: bool = False) -> PlacementGroupSchedulingStrategy:
    return PlacementGroupSchedulingStrategy(group, index, capture)


@zmreg.remote
def where() -> tuple[str, str]:
    """(node, id of the placement group)"""
    group = zmreg.get_current_placement_group()
    return zmreg.get_runtime_context().get_node_id(), "" if group is None else group.id


@zmreg.remote
def where_a_child_is() -> tuple[str, str]:
    return zmreg.get(where.remote())


@zmreg.remote
def hold(path: str) -> None:
    """Runs until the file is there."""
    Path(path + ".begun").touch()
    while not os.path.exists(path):
        time.sleep(0.005)


@zmreg.remote
def note(path: str, what: str) -> None:
    with open(path, "a") as file:
        file.write(what)


@zmreg.remote
class Sits:
    def where(self) -> tuple[str, str]:
        group = zmreg.get_current_placement_group()
        return zmreg.get_runtime_context().get_node_id(), "" if group is None else group.id


def state(group: PlacementGroup) -> str:
    return str(placement_group_table(group)["state"])


@pytest.fixture(scope="class")
def zones() -> Iterator[LocalCluster]:
    """A head without CPUs, and two nodes of two each."""
    nodes = [
        {"num_cpus": 0, "name": "head"},
        {"num_cpus": 2, "name": "a", "labels": {"zone": "a"}},
        {"num_cpus": 2, "name": "b", "labels": {"zone": "b", "disk": "fast"}},
    ]
    with LocalCluster(nodes=nodes) as cluster:
        cluster.attach()
        yield cluster


@pytest.fixture(scope="class")
def ids(zones: LocalCluster) -> dict[str, str]:
    return {row["NodeName"]: row["NodeID"] for row in zmreg.nodes()}


class TestTwoZones:
    def test_row_69_strict_spread_and_bundle_indexes(self, ids: dict[str, str]) -> None:
        group = placement_group([CPU, CPU], "STRICT_SPREAD")
        assert zmreg.get(group.ready(), timeout=30) == group
        table = placement_group_table(group)
        assert table["state"] == "CREATED" and set(table["bundles_to_node_id"].values()) == {ids["a"], ids["b"]}
        for index, node in table["bundles_to_node_id"].items():
            assert zmreg.get(where.options(scheduling_strategy=inside(group, index)).remote()) == (node, group.id)
            actor = Sits.options(scheduling_strategy=inside(group, index)).remote()
            assert zmreg.get(actor.where.remote()) == (node, group.id)
        assert zmreg.get(where.remote())[1] == ""
        remove_placement_group(group)
        remove_placement_group(group)
        assert state(group) == "REMOVED"

    def test_row_69_children_are_captured_if_asked_for(self, ids: dict[str, str]) -> None:
        group = placement_group([CPU, CPU], "STRICT_PACK", name="captures")
        assert group.wait(30) and len(set(placement_group_table(group)["bundles_to_node_id"].values())) == 1
        assert zmreg.get_placement_group("captures") == group
        with pytest.raises(ValueError, match="is taken"):
            placement_group([CPU], name="captures")
        kept = where_a_child_is.options(scheduling_strategy=inside(group, 0, capture=True)).remote()
        free = where_a_child_is.options(scheduling_strategy=inside(group, 0)).remote()
        assert [each[1] for each in zmreg.get([kept, free])] == [group.id, ""]
        assert zmreg.get_current_placement_group() is None
        remove_placement_group(group)
        with pytest.raises(ValueError, match="no placement group"):
            zmreg.get_placement_group("captures")

    def test_row_69_a_group_waits_for_room_and_holds_nothing_meanwhile(self, ids: dict[str, str]) -> None:
        first, second = placement_group([{"CPU": 2}, CPU]), placement_group([{"CPU": 2}, CPU])
        assert first.wait(30) and not second.wait(0.3)
        assert state(second) == "PENDING" and placement_group_table(second)["bundles_to_node_id"] == {}
        early = where.options(scheduling_strategy=inside(second)).remote()
        waiting = Sits.options(scheduling_strategy=inside(second, 1)).remote()
        assert zmreg.get(where.remote(), timeout=30)[0] in ids.values(), "one CPU is nobody's"
        remove_placement_group(first)
        assert zmreg.get(early, timeout=30)[1] == second.id
        assert zmreg.get(waiting.where.remote(), timeout=30)[1] == second.id
        remove_placement_group(second)

    def test_row_69_removal_ends_what_is_in_it(self, tmp_path: Path, ids: dict[str, str]) -> None:
        group = placement_group([CPU, CPU], "SPREAD")
        actor = Sits.options(scheduling_strategy=inside(group, 0), max_restarts=-1).remote()
        assert zmreg.get(actor.where.remote(), timeout=30)[1] == group.id
        path = str(tmp_path / "never")
        running = hold.options(scheduling_strategy=inside(group, 1)).remote(path)
        until(lambda: os.path.exists(path + ".begun"), "the task does not begin")
        queued = where.options(scheduling_strategy=inside(group, 1)).remote()
        began = time.monotonic()
        remove_placement_group(group)
        for ref in (running, queued, group.ready(), where.options(scheduling_strategy=inside(group)).remote()):
            with pytest.raises(PlacementGroupRemovedError, match="was removed"):
                zmreg.get(ref, timeout=30)
        with pytest.raises(ActorDiedError, match="placement group"):
            zmreg.get(actor.where.remote(), timeout=30)
        assert time.monotonic() - began < 10
        until(lambda: zmreg.available_resources().get("CPU") == 4.0, "CPUs of the group stay taken")
        assert not [name for name in zmreg.cluster_resources() if "group" in name]

    def test_row_9_hard_and_soft_labels(self, ids: dict[str, str]) -> None:
        def at(**options: object) -> str:
            return str(zmreg.get(where.options(**options).remote(), timeout=30)[0])

        refused = where.options(label_selector={"zone": "c"}).remote()
        assert (
            at(label_selector={"zone": "a"}) == ids["a"]
            and at(label_selector={"zone": "!a", "disk": "fast"}) == ids["b"]
        )
        assert at(label_selector={"zone": "in(b, c)"}) == ids["b"]
        assert at(scheduling_strategy=NodeLabelSchedulingStrategy(hard={"disk": "!fast"})) == ids["a"]
        assert at(scheduling_strategy=NodeLabelSchedulingStrategy(soft={"disk": "fast"})) == ids["b"]
        assert at(scheduling_strategy=NodeLabelSchedulingStrategy(soft={"disk": "slow"})) in (ids["a"], ids["b"])
        actor = Sits.options(label_selector={"zone": "b"}).remote()
        assert zmreg.get(actor.where.remote(), timeout=30)[0] == ids["b"]
        rows = {row["NodeName"]: row["Labels"] for row in zmreg.nodes()}
        assert rows["b"] == {"zone": "b", "disk": "fast"} and rows["head"] == {}
        with pytest.raises(UnschedulableError, match="zone c"):
            zmreg.get(refused, timeout=30)

    def test_X18_higher_priorities_run_first(self, tmp_path: Path, ids: dict[str, str]) -> None:
        go, notes = str(tmp_path / "go"), str(tmp_path / "notes")
        at_a = {"label_selector": {"zone": "a"}, "num_cpus": 2}
        holding = hold.options(**at_a).remote(go)
        until(lambda: os.path.exists(go + ".begun"), "the task does not begin")
        kinds = {name: note.options(**at_a, priority=level) for name, level in (("l", -1), ("h", 7))}
        refs = [kind.remote(notes, name) for _ in range(4) for name, kind in kinds.items()]
        # By the time that everybody knows who waits at a node, those who have something there know what it wants back.
        until(lambda: next(row["Waiting"] for row in zmreg.nodes() if row["NodeID"] == ids["a"]) >= 2, "nobody waits")
        Path(go).touch()
        zmreg.get([holding, *refs], timeout=30)
        assert Path(notes).read_text() == "hhhhllll"

    @pytest.mark.parametrize(
        ("bundles", "strategy", "says"),
        [
            ([], "PACK", "one bundle"),
            ([{}], "PACK", "empty"),
            ([CPU], "NEAR", "use one of"),
        ],
    )
    def test_row_69_what_makes_no_sense_is_said_at_once(
        self, bundles: list[dict[str, int]], strategy: str, says: str
    ) -> None:
        with pytest.raises(ValueError, match=says):
            placement_group(bundles, strategy)

    def test_row_69_what_no_bundle_has_is_said_at_once(self, ids: dict[str, str]) -> None:
        group = placement_group([CPU])
        with pytest.raises(ValueError, match="only"):
            where.options(num_cpus=2, scheduling_strategy=inside(group)).remote()
        with pytest.raises(ValueError, match="bundles 0 to 0"):
            inside(group, 1)
        remove_placement_group(group)


def test_row_69_bundles_of_a_node_that_dies_are_held_elsewhere() -> None:
    with LocalCluster(nodes=[{"num_cpus": 1, "dead_after_s": 2.0}, {"num_cpus": 1, "dead_after_s": 2.0}]) as cluster:
        cluster.attach()
        group = placement_group([CPU, CPU], "STRICT_SPREAD")
        assert group.wait(30)
        spare = cluster.add_node(num_cpus=1, dead_after_s=2.0)
        places = placement_group_table(group)["bundles_to_node_id"]
        lost = next(index for index, node in places.items() if node == cluster.nodes[1].node_id)
        cluster.kill_node(cluster.nodes[1].node_id)
        until(lambda: placement_group_table(group)["bundles_to_node_id"].get(lost) == spare.node_id, "nothing is moved")
        found = where.options(scheduling_strategy=inside(group, lost)).remote()
        assert zmreg.get(found, timeout=30) == (spare.node_id, group.id)
