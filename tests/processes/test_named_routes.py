"""Where calls by name go on three nodes, and what becomes of them when hosts come, leave and die.

Rows of requests.md: R14 to R18, R20, R21, R22, R25, R28, and actors that serve. Losses of nodes: test_named_losses.py.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

import zmreg
from tests.processes.clusters import until
from tests.processes.named_hosts import Calling, Host, hosts, known
from zmreg import errors
from zmreg.testing.cluster import LocalCluster

# R22: what a crash may take to be known.
CRASH_S = 3.5
NODES: list[dict[str, Any]] = [{}, {"locs": {"m1", "common"}}, {"locs": {"m2", "common"}}]


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    with LocalCluster(NODES) as cluster:
        cluster.attach()
        yield cluster


@pytest.fixture
def pair(cluster: LocalCluster) -> Iterator[list[Host]]:
    """A host at each of the nodes with locs; the first has "gpu" beside."""
    _, first, second = cluster.nodes
    with hosts((first.address, ("gpu",)), (second.address, ())) as found:
        until(lambda: len(known("pid")) == 2, "not both are known")
        yield found
    until(lambda: not known("pid"), "they are gone, and still known")


# -- routing ----------------------------------------------------------------------------------------------------------


def test_R14_R15_R16_who_has_all_locs_is_called(pair: list[Host]) -> None:
    first, second = (host.process.pid for host in pair)
    assert zmreg.call("pid", locs={"m1"}) == first
    assert zmreg.call("pid", locs={"m2"}) == second
    assert zmreg.call("pid", locs={"m1", "gpu"}) == first
    assert zmreg.call("pid", locs={"gpu", "common"}) == first
    with pytest.raises(errors.NoRouteError) as caught:
        zmreg.call("pid", locs={"m2", "gpu"}, queue_until=0)
    assert not isinstance(caught.value, errors.FunctionNotFoundError)
    assert "'pid'" in str(caught.value) and "n3 lacks 'gpu'" in str(caught.value)
    assert "n2 lacks 'm2'" in str(caught.value)


def test_R16_queue_until_waits_for_a_host_with_the_locs(cluster: LocalCluster, pair: list[Host]) -> None:
    calling = Calling(lambda: zmreg.call("pid", locs={"tpu"}, queue_until=30))
    with hosts((cluster.nodes[0].address, ("tpu",))) as (late,):
        assert calling.ended() == late.process.pid
    until(lambda: len(known("pid")) == 2, "the late one is still known")


def test_R17_equal_hosts_share_the_calls_and_a_busy_one_is_left_alone(pair: list[Host]) -> None:
    pids = [host.process.pid for host in pair]
    shares = Counter(zmreg.call("pid", locs={"common"}) for _ in range(200))
    # The one without "gpu" is the closer match, and is taken first when both are idle.
    assert shares[pids[1]] > 140
    waiting = [Calling(lambda: zmreg.call("wait_at_gate", locs={"m2"})) for _ in range(3)]
    until(lambda: zmreg.call("count", "wait_at_gate", locs={"m2"}) == 3, "they did not begin")
    assert {zmreg.call("pid", locs={"common"}) for _ in range(20)} == {pids[0]}
    zmreg.call("open_gate", locs={"m2"})
    assert [each.ended() for each in waiting] == [pids[1]] * 3


def test_R17_two_hosts_that_are_alike_get_about_half_each(cluster: LocalCluster) -> None:
    _, first, second = cluster.nodes
    with hosts((first.address, ()), (second.address, ())) as pair:
        until(lambda: len(known("pid")) == 2, "not both are known")
        shares = Counter(zmreg.call("pid") for _ in range(200))
        assert set(shares) == {host.process.pid for host in pair} and min(shares.values()) >= 60
    until(lambda: not known("pid"), "they are gone, and still known")


def test_R18_a_node_without_locs_is_a_balancer_and_has_the_built_in_functions(pair: list[Host]) -> None:
    roles = {row["NodeName"]: row["Role"] for row in zmreg.nodes()}
    assert roles == {"n1": "BALANCER", "n2": "SERVER", "n3": "SERVER"}
    assert zmreg.call("echos", "x") == ["x"]
    assert zmreg.call("pid", locs={"m2"}) == pair[1].process.pid


# -- changes ----------------------------------------------------------------------------------------------------------


def test_R21_registered_and_withdrawn_at_run_time(pair: list[Host]) -> None:
    zmreg.call("register_late", "fresh", "one", locs={"m1"})
    assert zmreg.call("fresh") == "one"
    with pytest.raises(ValueError, match="replace=True"):
        zmreg.call("register_late", "fresh", "two", locs={"m1"})
    assert zmreg.call("fresh") == "one"
    zmreg.call("register_late", "fresh", "two", replace=True, locs={"m1"})
    assert zmreg.call("fresh") == "two"
    zmreg.call("register_late", "fresh", "three", "3", locs={"m1"})
    until(lambda: zmreg.call("fresh") == "three", "the new version is not seen")
    zmreg.call("withdraw_late", "fresh", locs={"m1"})
    until(lambda: not known("fresh"), "it is still known")
    with pytest.raises(errors.FunctionNotFoundError):
        zmreg.call("fresh", queue_until=0)


def test_R21_two_programs_of_one_node_serve_a_name_only_when_something_differs(cluster: LocalCluster) -> None:
    with hosts((cluster.nodes[0].address, ())) as (host,):
        assert zmreg.call("pid", queue_until=10) == host.process.pid
        with pytest.raises(ValueError, match="already, with the same locs"):
            zmreg.register("pid", os.getpid)
        zmreg.register("pid", os.getpid, locs={"copy-2"})
        assert zmreg.call("pid", locs={"copy-2"}) == os.getpid() and len(known("pid")) == 2
        zmreg.withdraw("pid")
        zmreg.register("pid", os.getpid, replace=True)
        until(lambda: [each.process for each in known("pid")] == [zmreg.get_runtime_context().get_worker_id()], "both")
        zmreg.withdraw("pid")


def test_R21_a_driver_serves_what_it_registers_and_hosts_call_it(pair: list[Host]) -> None:
    @zmreg.remote(name="ours", locs={"of-driver"}, version="1.2.0")
    def ours(x: int) -> int:
        return x + 1

    zmreg.register(ours)
    zmreg.register("pair_of", lambda *a: a, locs={"of-driver"})
    try:
        assert zmreg.call("call_another", "ours", 1, queue_until=5) == 2
        assert zmreg.call("ours", 1, version=">=1,<2", locs={"of-driver"}) == 2
        assert [host.version for host in known("ours")] == ["1.2"]
    finally:
        zmreg.withdraw("ours")
        zmreg.withdraw("pair_of")


def test_R22_a_host_that_is_asked_to_end_finishes_what_it_has(pair: list[Host]) -> None:
    leaver = pair[0]
    calling = Calling(lambda: zmreg.call("wait_at_gate", locs={"m1"}))
    until(lambda: zmreg.call("count", "wait_at_gate", locs={"m1"}) == 1, "it did not begin")
    leaver.ask_to_leave()
    until(lambda: len(known("pid")) == 1, "it is still called")
    assert {zmreg.call("pid", locs={"common"}) for _ in range(10)} == {pair[1].process.pid}
    assert calling.is_alive()
    leaver.process.send_signal(signal.SIGUSR1)
    assert calling.ended() == leaver.process.pid
    assert leaver.end() == 0 and leaver.after("left") == ""


def test_R22_R25_a_killed_host_gets_no_more_calls_and_what_it_had_is_told_or_repeated(pair: list[Host]) -> None:
    victim, other = pair
    told = Calling(lambda: zmreg.call("wait_at_gate", "told", locs={"common", "m1"}))
    again = Calling(lambda: zmreg.call("wait_at_gate", "again", locs={"common"}, retries=1))
    until(lambda: zmreg.call("count", "wait_at_gate", locs={"m1"}) >= 1, "it did not begin")  # perhaps both are there
    until(lambda: sum(zmreg.call("count", "wait_at_gate", locs={loc}) for loc in ("m1", "m2")) == 2, "it did not begin")
    zmreg.call("open_gate", locs={"m2"})
    victim.kill()
    began = time.monotonic()
    error = told.ended()
    assert isinstance(error, errors.WorkerDiedError) and "retries=" in str(error)
    assert again.ended() == other.process.pid
    assert time.monotonic() - began < 5
    assert {zmreg.call("pid", locs={"common"}) for _ in range(20)} == {other.process.pid}
    with pytest.raises(errors.NoRouteError):
        zmreg.call("pid", locs={"m1"}, queue_until=0)


def test_R25_a_call_that_may_run_twice_goes_on_elsewhere(pair: list[Host]) -> None:
    victim, other = pair
    calling = Calling(lambda: zmreg.call("wait_at_gate", locs={"common"}, retries=1))
    counts = {"m1": victim, "m2": other}
    where = until(
        lambda: next((loc for loc in counts if zmreg.call("count", "wait_at_gate", locs={loc})), None), "not begun"
    )
    counts.pop(where).kill()
    ((left, peer),) = counts.items()
    until(lambda: zmreg.call("count", "wait_at_gate", locs={left}) == 1, "it was not called again")
    zmreg.call("open_gate", locs={left})
    assert calling.ended() == peer.process.pid


def test_R28_a_host_that_is_started_again_is_called_again(cluster: LocalCluster) -> None:
    address = cluster.nodes[1].address
    with hosts((address, ())) as (host,):
        assert zmreg.call("pid", queue_until=10) == host.process.pid
        host.kill()
    with hosts((address, ())) as (host,):
        until(lambda: [each.process for each in known("pid")], "it is not known")
        assert zmreg.call("pid", queue_until=CRASH_S, retries=1) == host.process.pid


# -- actors -----------------------------------------------------------------------------------------------------------


@zmreg.remote(num_cpus=0, max_restarts=1)
class Model:
    """Serves two names, and notes in which order it was called."""

    def __init__(self, name: str) -> None:
        self.heard: list[Any] = []
        self.name = name
        zmreg.register("predict", self.predict, locs={name})
        zmreg.register("end_me", lambda: os._exit(1), locs={name})

    def predict(self, x: Any) -> tuple[int, Any]:
        self.heard.append(x)
        return os.getpid(), self.heard[-3:]

    def pid(self) -> int:
        return os.getpid()

    def withdraw(self) -> None:
        zmreg.withdraw("predict")


@zmreg.remote(num_cpus=0, max_concurrency=4)
class Side:
    """Calls of its names run side by side, as those of its methods."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        zmreg.register("at_side_gate", self.wait)
        zmreg.register("open_side_gate", self.gate.set)

    def wait(self) -> bool:
        return self.gate.wait(60)


@zmreg.remote(num_cpus=0)
class Loop:
    """The same, in an event loop."""

    def __init__(self) -> None:
        zmreg.register("double", self.double)

    async def double(self, x: Any) -> Any:
        return x * 2

    async def relay(self, name: str, *args: Any) -> Any:
        return await zmreg.acall(name, *args)

    def stays(self) -> None:
        zmreg.serve()


def test_R21_R22_an_actor_serves_as_long_as_it_lives_and_again_after_a_restart(cluster: LocalCluster) -> None:
    model = Model.options(locs={"m1"}).remote("mine")
    pid = model.pid.remote().get()
    assert zmreg.call("predict", 1, locs={"mine", "m1"}) == (pid, [1])
    zmreg.get([model.predict.remote(2), model.predict.remote(3)])
    assert zmreg.call("predict", {"k": [4]}) == (pid, [2, 3, {"k": [4]}])
    assert known("predict")[0].actor
    with pytest.raises(errors.ActorError):
        zmreg.call("end_me")
    second, heard = zmreg.call("predict", 5, queue_until=10)
    assert second != pid and heard == [5]
    model.withdraw.remote().get()
    with pytest.raises(errors.FunctionNotFoundError):
        zmreg.call("predict", 6, queue_until=0)
    zmreg.kill(model)
    until(lambda: not known("end_me"), "the actor is dead, and its names are not")


def test_R21_threaded_and_async_actors_serve_under_their_own_rules(cluster: LocalCluster) -> None:
    side, loop = Side.remote(), Loop.options(locs={"m2"}).remote()
    waiting = Calling(lambda: zmreg.call("at_side_gate", queue_until=10))
    zmreg.call("open_side_gate", queue_until=10)
    assert waiting.ended() is True
    assert zmreg.call("double", [1], queue_until=10) == [1, 1]
    zmreg.kill(side)
    zmreg.kill(loop)
    until(lambda: not known("double"), "the actor is dead, and its names are not")


def test_R21_a_task_cannot_serve_a_name(cluster: LocalCluster) -> None:
    @zmreg.remote
    def serves() -> None:
        zmreg.register("f", len)

    with pytest.raises(ValueError, match="a program or an actor"):
        serves.remote().get()
    assert not known("f")


def test_R20_tasks_and_actors_call_by_name(pair: list[Host]) -> None:
    @zmreg.remote(num_cpus=0)
    def calls(name: str, *args: Any) -> Any:
        return zmreg.call(name, *args)

    assert zmreg.get([calls.options(locs={loc}).remote("add", 1, 2) for loc in ("m1", "m2")]) == [3, 3]
    with pytest.raises(errors.FunctionNotFoundError, match="'echo'"):
        calls.remote("ecoh").get()
    loop = Loop.options(locs={"m1"}).remote()
    assert loop.relay.remote("add", 1, 2).get() == 3
    with pytest.raises(errors.FunctionNotFoundError, match="'echo'"):
        loop.relay.remote("ecoh").get()
    with pytest.raises(ValueError, match="block=False"):
        loop.stays.remote().get()
    zmreg.kill(loop)
    until(lambda: not known("double"), "the actor is dead, and its names are not")
