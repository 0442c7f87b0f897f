"""Ray's names and module paths (core-api rows 50-52)."""

from __future__ import annotations

import copy
import importlib
import pickle
import re
import subprocess
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest

import zmreg
import zmreg.integrations.ray as ray
import zmreg.integrations.ray.util.state
from zmreg.integrations.ray._starting import RayContext
from zmreg.integrations.ray.exceptions import RayActorError, RayTaskError
from zmreg.integrations.ray.util.multiprocessing import Pool
from zmreg.integrations.ray.util.queue import Empty, Full
from zmreg.integrations.ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
from zmreg.model.specs import Shape
from zmreg.services.calling.leasing import of_a_node

pytestmark = pytest.mark.usefixtures("cluster")


def test_rays_words_for_everyday_things():
    @ray.remote(num_cpus=1)
    def divide(a, b):
        return a / b

    @ray.remote
    class Counter:
        def __init__(self):
            self.count = 0

        def add(self, n):
            self.count += n
            return self.count

    assert ray.is_initialized()
    assert ray.get([divide.remote(4, 2)], timeout=20) == [2.0]
    with pytest.raises(RayTaskError) as caught:
        ray.get(divide.remote(1, 0))
    assert isinstance(caught.value, ZeroDivisionError)
    counter = Counter.options(name="rays").remote()
    assert ray.get(ray.get_actor("rays").add.remote(ray.put(3))) == 3
    ray.kill(counter)
    with pytest.raises(RayActorError):
        ray.get(counter.add.remote(1), timeout=20)
    here = NodeAffinitySchedulingStrategy(ray.nodes()[0]["NodeID"], soft=False)
    assert ray.get(divide.options(scheduling_strategy=here).remote(1, 1)) == 1


def test_rays_utilities():
    @ray.remote
    def double(n):
        return 2 * n

    assert sorted(ray.util.as_completed([double.remote(n) for n in range(4)])) == [0, 2, 4, 6]
    assert sorted(ray.util.map_unordered(double, range(20), backpressure_size=3)) == list(range(0, 40, 2))
    assert ray.util.get_node_ip_address().count(".") == 3
    with Pool(2, ray_remote_args={"num_cpus": 1}) as pool:
        assert pool.map(abs, [-1, 2]) == [1, 2]
    assert issubclass(Empty, Exception) and issubclass(Full, Exception)
    assert callable(ray.util.placement_group)


def test_row_75_rays_metrics_count():
    from zmreg.integrations.ray.util.metrics import Counter, Gauge, Histogram

    assert (Counter, Gauge, Histogram) == (zmreg.metrics.Counter, zmreg.metrics.Gauge, zmreg.metrics.Histogram)
    counter = ray.util.metrics.Counter("ray_requests", description="Requests.", tag_keys=("actor",))
    counter.set_default_tags({"actor": "a"}).inc()
    counter.inc(2.0, tags={"actor": "b"})
    gauge = Gauge("ray_level", tag_keys=("actor",))
    gauge.set(5, tags={"actor": "a"})
    Histogram("ray_took", description="Took.", boundaries=[1, 10], tag_keys=()).observe(3)
    assert counter.info["default_tags"] == {"actor": "a"} and gauge.info["tag_keys"] == ("actor",)
    with pytest.raises(ValueError, match="needs a value for tag 'actor'"):
        gauge.set(5)


def test_names_that_came_late_are_the_public_ones():
    for name, path in [("ActorPool", ray.util), ("ActorPool", ray.util.actor_pool), ("Queue", ray.util.queue)]:
        if name in zmreg.__all__:
            assert getattr(path, name) is getattr(zmreg, name)
    with pytest.raises(AttributeError, match="no counterpart of ray.util.tracing"):
        _ = ray.util.tracing
    with pytest.raises(AttributeError, match="coming-from-ray"):
        _ = ray.something_of_tomorrow


def test_rays_init_keywords():
    found = ray.init(ignore_reinit_error=True, include_dashboard=False, logging_level="info", log_to_driver=None)
    assert found.node_id == found["node_id"] == found.address_info["node_id"]
    assert found.get("nothing", 3) == 3 and set(found.keys()) > {"address", "node_ip_address", "session_dir"}
    with pytest.raises(ValueError, match="local_mode"):
        ray.init(local_mode=True)
    with pytest.raises(ValueError, match="no Ray Client here.*'HOST:PORT', key="):
        ray.init("ray://head:10001")
    for store in (1 << 30, 1e9):
        with pytest.raises(RuntimeError, match="object_store_bytes"):
            ray.init(object_store_memory=store)
    with pytest.warns(UserWarning, match=r"_temp_dir=\.\.\.\) is not used: sessions are below"):
        ray.init(ignore_reinit_error=True, _temp_dir="/tmp/ray", _metrics_export_port=8080)
    with pytest.raises(TypeError, match="zmreg.integrations.ray.init takes Ray's; it takes"):
        zmreg.api.cluster._check({"object_store_memory": 1 << 30})
    logging = ray.LoggingConfig(encoding="JSON", log_level="DEBUG")
    assert ray.init(ignore_reinit_error=True, logging_config=logging).ray_version == zmreg.__version__


@pytest.mark.parametrize(
    "statement, advice",
    [
        ("import zmreg.integrations.ray.data", "ray.data: .*zmreg.Pipeline"),
        ("from zmreg.integrations.ray import tune", "ray.tune: .*zmreg.map"),
        ("from zmreg.integrations.ray.tune import Tuner", "ray.tune: .*zmreg.run"),
        ("from zmreg.integrations.ray.dag.input_node import InputNode", "ray.dag: .*zmreg.Graph"),
        ("from zmreg.integrations.ray import DynamicObjectRefGenerator", "num_returns='dynamic' is deprecated"),
        ("from zmreg.integrations.ray.util import collective", "ray.util.collective: .*refs"),
        ("import zmreg.integrations.ray.util.nothing", "ray.util.nothing: docs/guides/coming-from-ray.md"),
    ],
)
def test_imports_of_what_is_rays_alone_say_what_to_use(statement, advice):
    with pytest.raises(ModuleNotFoundError, match=advice):
        exec(statement)


def test_names_of_rays_alone_say_what_to_use():
    assert ray.util.multiprocessing.Pool and ray.job_submission.JobSubmissionClient
    assert not hasattr(ray, "serve") and not hasattr(zmreg, "exceptions")
    with pytest.raises(AttributeError, match="zmreg.register and zmreg.serve"):
        _ = ray.serve
    with pytest.raises(AttributeError, match="Python alone"):
        _ = ray.java_function
    with pytest.raises(AttributeError, match="list_workers"):
        _ = ray.util.state.list_runtime_envs
    with pytest.raises(AttributeError, match="modules are below zmreg.integrations.ray"):
        _ = zmreg.util
    with pytest.raises(ValueError, match="let a method of it return it"):
        ray.put(1, _owner=object())


@pytest.mark.parametrize(
    "options, advice",
    [
        ({"placement_group": None}, "zmreg.PlacementGroupSchedulingStrategy"),
        ({"tensor_transport": "nccl"}, "go through the store"),
        ({"num_retrun": 2}, "did you mean num_returns"),
    ],
    ids=lambda given: next(iter(given)) if isinstance(given, dict) else "",
)
def test_options_of_rays_alone_say_what_to_use(options, advice):
    function = ray.remote(abs)
    with pytest.raises(ValueError, match=advice):
        function.options(**options)


def test_a_resource_called_by_an_address_says_what_to_use():
    assert "zmreg.NodeAffinitySchedulingStrategy" in of_a_node(Shape.of(resources={"node:10.0.0.1": 0.01}))
    assert of_a_node(Shape.of(num_cpus=1, resources={"licence": 1})) == ""


def test_rays_older_names_in_the_runtime_context():
    @ray.remote
    class Actor:
        def ids(self):
            context = ray.get_runtime_context()
            return context.actor_id.hex(), context.get_actor_id(), context.task_id, context.get_task_id(), context.get()

    context = ray.get_runtime_context()
    assert context.node_id.hex() == context.get_node_id() and context.node_id.binary().hex() == context.node_id
    assert (context.task_id, context.actor_id, context.current_placement_group_id) == (None, None, None)
    assert context.get_resource_ids() == context.get_accelerator_ids() and context.namespace == ""
    assert context.job_id == context.get_job_id() and context.get_node_labels() == {}
    actor, again, task, same, found = ray.get(Actor.remote().ids.remote())
    assert (actor, task) == (again, same) == (found["actor_id"], found["task_id"])


def test_what_init_and_get_runtime_context_give_can_be_copied_and_sent():
    context = RayContext(SimpleNamespace(address="10.0.0.1:7550", session="here", node_id="ab"))
    assert pickle.loads(pickle.dumps(context)).address_info == copy.copy(context).address_info == context.address_info
    with pytest.raises(AttributeError, match="_missing"):
        _ = context._missing
    assert copy.copy(ray.get_runtime_context()).get_node_id() == ray.get_runtime_context().get_node_id()


def test_row_74_lists_of_what_there_is():
    from zmreg.integrations.ray.util.state import get_actor, list_actors, list_tasks, summarize_tasks

    @ray.remote
    class Listed:
        def ping(self):
            return 1

    @ray.remote
    def fails():
        raise ValueError

    actor = Listed.options(name="rays-listed").remote()
    Listed.options(name="rays-other", namespace="fruits", lifetime="detached").remote()
    ray.get([actor.ping.remote() for _ in range(3)])
    with pytest.raises(ValueError):
        ray.get(fails.options(name="rays-failure").remote())
    [row] = list_actors(filters=[("class_name", "=", "Listed"), ("name", "!=", "rays-other")])
    assert row.state == row["state"] == "ALIVE" and row.get("pid") > 0
    assert get_actor(row.actor_id).asdict() == row.asdict() and get_actor("") is None
    assert [each.state for each in list_tasks(filters=[("name", "=", "rays-failure")])] == ["FAILED"]
    counts = summarize_tasks()["cluster"]["summary"]["Listed.ping"]
    assert counts["type"] == "ACTOR_TASK" and sum(counts["state_counts"].values()) >= 3
    assert "rays-listed" in ray.util.list_named_actors() and "rays-other" not in ray.util.list_named_actors()
    assert {"namespace": "fruits", "name": "rays-other"} in ray.util.list_named_actors(all_namespaces=True)
    with pytest.raises(ValueError, match="there are actor_id, class_name"):
        list_actors(filters=[("nonsense", "=", 1)])
    ray.kill(ray.get_actor("rays-other", namespace="fruits"))


def test_rays_ways_with_what_cannot_be_sent(capsys):
    lock = threading.Lock()

    class Open:
        def __init__(self, x):
            self.x, self.lock = x, threading.Lock()

    fine, parts = ray.util.inspect_serializability(lambda: lock, name="test")
    assert not fine and [part.name for part in parts] == ["lock"] and "'test' cannot be sent" in capsys.readouterr().out
    assert ray.util.inspect_serializability(abs)[0]
    ray.util.register_serializer(Open, serializer=lambda value: value.x, deserializer=lambda x: Open(x))
    assert ray.get(ray.put(Open(3))).x == 3
    ray.util.deregister_serializer(Open)
    with pytest.raises(TypeError):
        ray.put(Open(3))
    assert ray.get(ray.cloudpickle.loads(ray.cloudpickle.dumps(ray.put(5)))) == 5
    assert [ray.util.log_once("a key of ours") for _ in range(2)] == [True, False]


def test_rays_conditions_on_labels():
    from zmreg.integrations.ray.util.scheduling_strategies import In, NodeLabelSchedulingStrategy, NotIn

    strategy = NodeLabelSchedulingStrategy(hard={"zone": In("west", "north")}, soft={"kind": NotIn("spot")})
    assert (strategy.hard, strategy.soft) == ({"zone": "in(west, north)"}, {"kind": "!in(spot)"})


def test_the_guides_own_words_change_a_programs_imports(tmp_path):
    guide = (Path(__file__).parents[2] / "docs/guides/coming-from-ray.md").read_text()
    [command] = re.findall(r"^```sh\n(sed .*?)^```", guide, re.MULTILINE | re.DOTALL)
    program = tmp_path / "program.py"
    program.write_text(
        "import ray\nfrom ray.util.queue import Queue\nimport ray.util.multiprocessing as mp\nimport rays\n"
        "def f():\n    import ray\n    from ray import ObjectRef\n    from raylib import x\n"
    )
    subprocess.run(command, shell=True, check=True, cwd=tmp_path)
    assert program.read_text() == (
        "import zmreg.integrations.ray as ray\nfrom zmreg.integrations.ray.util.queue import Queue\n"
        "import zmreg.integrations.ray.util.multiprocessing as mp\nimport rays\n"
        "def f():\n    import zmreg.integrations.ray as ray\n    from zmreg.integrations.ray import ObjectRef\n"
        "    from raylib import x\n"
    )


def test_rays_bars():
    tqdm = pytest.importorskip("tqdm").tqdm
    assert importlib.import_module("zmreg.integrations.ray.experimental.tqdm_ray").tqdm is tqdm


def test_every_name_for_an_error_is_an_error_of_ours():
    for name in ray.exceptions.__all__:
        assert issubclass(getattr(ray.exceptions, name), zmreg.errors.ZmregError), name


def test_row42_annotations_with_actor_proxy_run():
    from zmreg.integrations.ray.actor import ActorHandle, ActorProxy

    class Counter:
        @ray.method
        def add(self, amount: int) -> int:
            return amount + 1

    def use(counter: ActorProxy[Counter]) -> int:
        return ray.get(counter.add.remote(1), timeout=20)

    handle = ray.remote(Counter).remote()
    assert isinstance(handle, ActorHandle) and use(handle) == 2
