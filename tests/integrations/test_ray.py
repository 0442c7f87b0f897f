"""Ray's names and module paths (core-api rows 50-52)."""

from __future__ import annotations

import pytest

import zmreg
import zmreg.integrations.ray as ray
from zmreg.integrations.ray.exceptions import RayActorError, RayTaskError
from zmreg.integrations.ray.util.multiprocessing import Pool
from zmreg.integrations.ray.util.queue import Empty, Full
from zmreg.integrations.ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

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
        _ = ray.cross_language


def test_rays_init_keywords():
    found = ray.init(ignore_reinit_error=True, include_dashboard=False, logging_level="info", log_to_driver=None)
    assert found.node_id
    with pytest.raises(ValueError, match="local_mode"):
        ray.init(local_mode=True)
    with pytest.raises(RuntimeError, match="object_store_bytes"):
        ray.init(object_store_memory=1 << 30)


def test_every_name_for_an_error_is_an_error_of_ours():
    for name in ray.exceptions.__all__:
        assert issubclass(getattr(ray.exceptions, name), zmreg.errors.ZmregError), name
