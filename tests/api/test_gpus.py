"""Row 70: GPUs on devices that are not there. What counts is which ids code sees, and when."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import zmreg
from tests.processes.drivers import eventually
from zmreg.model.settings import Settings
from zmreg.services.machine import accelerators
from zmreg.services.node.node import totals
from zmreg.testing import LocalCluster

VISIBLE = "CUDA_VISIBLE_DEVICES"
Seen = tuple[str | None, list[str], int]


def seen() -> Seen:
    """(the variable, what the context says, pid)"""
    return os.environ.get(VISIBLE), zmreg.get_gpu_ids(), os.getpid()


class SeenAtImport:
    """Unpickled by a worker: says what the variable was then."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.getenv, (VISIBLE,)


on_gpu = zmreg.remote(num_cpus=0, num_gpus=1)(seen)
on_cpu = zmreg.remote(num_cpus=1)(seen)


@zmreg.remote(num_cpus=0, num_gpus=0.5)
class Half:
    def __init__(self, at_import: object) -> None:
        self.at_start = at_import, os.environ.get(VISIBLE)

    def seen(self) -> Any:
        return self.at_start, seen()


@pytest.fixture(autouse=True)
def as_if_unset(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (VISIBLE, *accelerators.OPT_OUTS):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def two_gpus(as_if_unset: None) -> Iterator[None]:
    zmreg.init(num_cpus=2, num_gpus=2)
    yield
    zmreg.shutdown()


def test_row70_tasks_see_their_gpu_and_no_other(two_gpus: None) -> None:
    @zmreg.remote(num_gpus=1, num_cpus=0)
    class Meeting:
        def seen(self) -> Seen:
            return seen()

    keeper = Meeting.remote()
    kept, ids, _ = zmreg.get(keeper.seen.remote())
    assert kept == "0" and ids == ["0"]
    for _ in range(3):
        variable, ids, _ = zmreg.get(on_gpu.remote())
        assert (variable, ids) == ("1", ["1"])
    zmreg.kill(keeper)


def test_row_69_a_bundles_gpus_are_for_who_is_in_it(two_gpus: None) -> None:
    group = zmreg.placement_group([{"CPU": 1, "GPU": 1}, {"GPU": 0.5}])
    assert group.wait(30) and group.bundle_specs == [{"CPU": 1.0, "GPU": 1.0}, {"GPU": 0.5}]
    first, second = (zmreg.PlacementGroupSchedulingStrategy(group, index) for index in (0, 1))
    for _ in range(2):
        assert zmreg.get(on_gpu.options(scheduling_strategy=first).remote(), timeout=30)[:2] == ("0", ["0"])
    actor = Half.options(scheduling_strategy=second).remote(SeenAtImport())
    assert zmreg.get(actor.seen.remote(), timeout=30)[0] == ("1", "1")
    outside = on_gpu.options(num_gpus=0.5).remote()
    assert zmreg.get(outside, timeout=30)[:2] == ("1", ["1"]), "the other half"
    whole = on_gpu.options(num_gpus=2).remote()
    assert zmreg.wait([whole], timeout=0.2)[0] == []
    zmreg.remove_placement_group(group)
    assert zmreg.get(whole, timeout=30)[:2] == ("0,1", ["0", "1"])


def test_row70_code_without_gpus_sees_none_on_such_a_node(two_gpus: None) -> None:
    assert zmreg.get(on_cpu.remote())[:2] == ("", [])


def test_row70_code_with_many_gpus_sees_all_of_them(two_gpus: None) -> None:
    assert zmreg.get(on_gpu.options(num_gpus=2).remote())[:2] == ("0,1", ["0", "1"])


def test_row70_two_halves_share_one_device(two_gpus: None) -> None:
    halves = [Half.remote(SeenAtImport()) for _ in range(3)]
    said = zmreg.get([half.seen.remote() for half in halves])
    assert sorted(ids[0] for _, (_, ids, _) in said) == ["0", "0", "1"]
    for at_start, (variable, ids, _) in said:
        assert variable == ids[0]
        assert at_start == (variable, variable), "before the arguments were unpickled and the constructor ran"


def test_row70_a_worker_that_goes_on_gets_the_new_variable(two_gpus: None) -> None:
    """Without max_calls=1 the same process serves one lease after the other."""
    stays = zmreg.remote(num_cpus=2, num_gpus=1, max_calls=0)(seen)
    shares = zmreg.remote(num_cpus=2, num_gpus=2, max_calls=0)(seen)
    plain = zmreg.remote(num_cpus=2)(seen)
    by_process: dict[int, set[str | None]] = {}
    for _ in range(4):
        for function, expected in ((stays, "0"), (plain, ""), (shares, "0,1"), (plain, "")):
            variable, ids, pid = zmreg.get(function.remote())
            assert variable == expected == ",".join(ids)
            by_process.setdefault(pid, set()).add(variable)
    assert any(len(variables) == 3 for variables in by_process.values()), "no process has seen all three"


def test_row70_a_gpu_task_ends_its_process(two_gpus: None) -> None:
    """C12: its memory on the device is given back."""
    pids = [zmreg.get(on_gpu.remote())[2] for _ in range(3)]
    assert len(set(pids)) == 3


def test_row70_a_restarted_actor_has_a_device_again(two_gpus: None) -> None:
    actor = Half.options(num_gpus=1, max_restarts=1, max_task_retries=2).remote(None)
    _, (variable, _, _) = zmreg.get(actor.seen.remote())
    zmreg.kill(actor, no_restart=False)
    (_, at_start), (again, _, _) = zmreg.get(actor.seen.remote(), timeout=20)
    assert variable in ("0", "1") and again in ("0", "1") and at_start == again


def test_row70_a_dead_holder_gives_its_device_back(two_gpus: None) -> None:
    both = [Half.options(num_gpus=1).remote(None) for _ in range(2)]
    zmreg.get([actor.seen.remote() for actor in both])
    zmreg.kill(both[0])
    assert zmreg.get(on_gpu.remote(), timeout=20)[0] in ("0", "1")


def test_row70_nested_tasks_on_other_gpus(two_gpus: None) -> None:
    @zmreg.remote(num_cpus=0, num_gpus=1)
    def outer() -> tuple[Seen, Seen]:
        inner = zmreg.get(on_gpu.remote())
        return seen(), inner

    (mine, _, _), (theirs, _, _) = zmreg.get(outer.remote(), timeout=20)
    assert {mine, theirs} == {"0", "1"}


def test_row70_ids_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VISIBLE, "3,GPU-5f7a")
    with zmreg.init(num_cpus=1):
        assert zmreg.cluster_resources()["GPU"] == 2
        assert zmreg.get(on_gpu.options(num_gpus=2).remote())[0] == "3,GPU-5f7a"
        assert zmreg.get_gpu_ids() == ["3", "GPU-5f7a"]
        assert zmreg.get_runtime_context().get_accelerator_ids() == {"GPU": ["3", "GPU-5f7a"]}


def test_row70_more_gpus_than_the_environment_names_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VISIBLE, "0")
    with pytest.raises(ValueError, match="num_gpus=2, but CUDA_VISIBLE_DEVICES='0' lets this process use only 1"):
        zmreg.init(num_gpus=2)


@pytest.mark.parametrize("name", accelerators.OPT_OUTS)
def test_row70_the_variable_is_left_alone_on_request(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "1")
    with zmreg.init(num_cpus=1, num_gpus=1):
        assert zmreg.get(on_gpu.remote())[:2] == (None, ["0"])


def test_row70_without_gpus_the_environment_is_not_touched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VISIBLE, "4")
    with zmreg.init(num_cpus=1, num_gpus=0):
        assert zmreg.get(on_cpu.remote())[:2] == ("4", [])


def test_row70_on_another_node() -> None:
    with LocalCluster(nodes=[{"num_cpus": 1}, {"num_cpus": 2, "num_gpus": 2}]) as cluster:
        cluster.attach()
        there = cluster.nodes[1].node_id
        where = zmreg.remote(num_cpus=0, num_gpus=1)(lambda: (zmreg.get_runtime_context().get_node_id(), *seen()[:2]))
        node, variable, ids = zmreg.get(where.remote(), timeout=20)
        assert (node, variable in ("0", "1"), ids) == (there, True, [variable])
        half = Half.remote(SeenAtImport())
        at_start, (variable, _, _) = zmreg.get(half.seen.remote(), timeout=20)
        assert variable in ("0", "1") and at_start == (variable, variable)


def test_row70_a_share_goes_to_a_node_where_one_device_has_it() -> None:
    """Named reproduction: 0.6 of a GPU was sent to where two have 0.3 each, and waited there while another was free."""
    a, b = {"num_cpus": 16, "num_gpus": 2, "locs": {"a"}}, {"num_cpus": 1, "num_gpus": 1, "locs": {"b"}}
    with LocalCluster(nodes=[{"num_cpus": 1}, a, b]) as cluster:
        cluster.attach()
        most = [Half.options(num_gpus=0.7, locs={"a"}).remote(None) for _ in range(2)]
        assert {zmreg.get(each.seen.remote(), timeout=20)[1][0] for each in most} == {"0", "1"}
        others = [Half.options(num_gpus=0, locs={"b"}).remote(None) for _ in range(4)]  # who else has room is busier
        zmreg.get([each.seen.remote() for each in others], timeout=20)

        def until_free(gpus: float) -> None:
            eventually(lambda: zmreg.available_resources()["GPU"] == pytest.approx(gpus), 20, f"not {gpus} are free")

        until_free(1.6)
        where = zmreg.remote(num_cpus=0, num_gpus=0.6)(lambda: zmreg.get_runtime_context().get_node_id())

        @zmreg.remote(num_cpus=0, num_gpus=0.6)
        class Where:
            def node(self) -> str:
                return zmreg.get_runtime_context().get_node_id()

        free = cluster.nodes[2].node_id
        actor = Where.remote()
        assert zmreg.get(actor.node.remote(), timeout=20) == free
        until_free(1.0)  # news of its end can only come behind that
        zmreg.kill(actor)
        until_free(1.6)
        assert zmreg.get(where.remote(), timeout=20) == free


def test_row70_devices_are_counted_where_there_are_files_for_them(tmp_path: Path) -> None:
    for name in ("nvidia0", "nvidia1", "nvidiactl", "nvidia-uvm"):
        (tmp_path / name).touch()
    assert accelerators.count(tmp_path) == 2


def test_row70_a_list_ends_at_what_is_no_device(monkeypatch: pytest.MonkeyPatch) -> None:
    for text, ids in (("", ()), ("-1", ()), ("1, 2", ("1", "2")), ("1,-1,2", ("1",)), ("MIG-a/1/0", ("MIG-a/1/0",))):
        monkeypatch.setenv(VISIBLE, text)
        assert accelerators.visible() == ids
    assert accelerators.count() == 1


def test_row5_a_kind_of_gpus_is_found_out_by_the_driver_s_words(tmp_path: Path) -> None:
    kinds = {
        "NVIDIA A100-SXM4-80GB": "A100", "Tesla V100-SXM2-16GB": "V100", "Tesla T4": "T4", "NVIDIA L40S": "L40S",
        "NVIDIA H100 80GB HBM3": "H100", "NVIDIA GeForce RTX 4090": "RTX-4090", "NVIDIA A10G": "A10G",
        "NVIDIA GB200": "GB200", "NVIDIA GeForce GTX 1080 Ti": "GTX-1080", "Graphics Device": "",
    }  # fmt: skip
    assert {model: accelerators.kind_of(model) for model in kinds} == kinds
    assert accelerators.kind(tmp_path) == ""
    (tmp_path / "0000:01:00.0").mkdir()
    (tmp_path / "0000:01:00.0" / "information").write_text("Model: \t\t NVIDIA A100-PCIE-40GB\nIRQ:   \t\t 151\n")
    assert accelerators.kind(tmp_path) == "A100"


def test_row5_a_node_says_what_kind_of_gpus_it_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accelerators, "kind", lambda: "T4")
    assert totals(Settings(num_gpus=1.0))["accelerator_type:T4"] == 10_000
    assert "accelerator_type:T4" not in totals(Settings())
    told = totals(Settings(num_gpus=1.0, resources={"accelerator_type:A100": 1.0}))
    assert told["accelerator_type:A100"] == 10_000 and "accelerator_type:T4" not in told


def test_row5_accelerator_type_is_a_resource_that_costs_next_to_nothing() -> None:
    with zmreg.init("local", num_cpus=2, num_gpus=1, resources={"accelerator_type:A100": 1}):
        taken = zmreg.remote(accelerator_type="A100")(zmreg.available_resources)
        assert taken.remote().get(timeout=20)["accelerator_type:A100"] == pytest.approx(0.999)

        @zmreg.remote(num_gpus=1, accelerator_type="A100")
        class Holds:
            def ids(self) -> list[str]:
                return zmreg.get_gpu_ids()

        assert Holds.remote().ids.remote().get(timeout=20) == ["0"]
        with pytest.raises(zmreg.errors.UnschedulableError, match="accelerator_type:H100"):
            taken.options(accelerator_type="H100").remote().get(timeout=20)
    for wrong in (3, ""):
        with pytest.raises((TypeError, ValueError), match="accelerator_type"):
            taken.options(accelerator_type=wrong)
