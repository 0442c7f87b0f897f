"""Many calls of a function that takes less than a call costs are told of, once (core-api C2)."""

from __future__ import annotations

import logging
import threading
import time

import pytest

import zmreg
from tests.api.objects_help import eventually
from zmreg.services.calling import advice
from zmreg.services.seat.client import current

pytestmark = pytest.mark.usefixtures("cluster")


@pytest.fixture
def told(caplog):
    caplog.set_level(logging.WARNING, logger="zmreg.performance")
    return lambda: [record.getMessage() for record in caplog.records if record.name == "zmreg.performance"]


def callbacks_ran():
    """What was left for the callbacks' thread before has been done."""
    done = threading.Event()
    current().callbacks.put(done.set)
    assert done.wait(20)


def test_C2_many_tiny_calls_are_told_of_once_for_each_function(told):
    @zmreg.remote
    def tiny(n):
        return n

    @zmreg.remote
    def other(n):
        return -n

    for _ in range(3):
        zmreg.get([tiny.remote(n) for n in range(2_000)], timeout=60)
    zmreg.get([tiny.options(num_cpus=0.5).remote(n) for n in range(2_000)], timeout=60)
    eventually(told)
    callbacks_ran()
    (only,) = told()
    assert "tiny" in only and "zmreg.map(" in only
    zmreg.get([other.remote(n) for n in range(2_000)], timeout=60)
    eventually(lambda: len(told()) == 2)


def test_C2_few_calls_and_long_ones_are_not_told_of(told):
    @zmreg.remote
    def few(n):
        return n

    @zmreg.remote
    def long(n):
        deadline = time.perf_counter() + 0.0005
        while time.perf_counter() < deadline:
            pass

    zmreg.get([few.remote(n) for n in range(900)], timeout=60)
    zmreg.get([long.remote(n) for n in range(1_500)], timeout=60)
    callbacks_ran()
    assert told() == []


def test_C2_methods_projections_and_map_are_not_told_of(told):
    @zmreg.remote
    class Actor:
        def tiny(self, n):
            return n

    actor = Actor.remote()
    zmreg.get([actor.tiny.remote(n) for n in range(2_000)], timeout=60)
    ref = zmreg.put({"a": 1})
    for _ in range(1_200):
        ref["a"].get(timeout=60)
    assert len(list(zmreg.map(lambda n: n, range(20_000)))) == 20_000
    callbacks_ran()
    assert told() == []


def test_C2_the_standard_configuration_of_logs_switches_it_off(told, caplog):
    @zmreg.remote
    def quiet(n):
        return n

    caplog.set_level(logging.ERROR, logger="zmreg.performance")
    zmreg.get([quiet.remote(n) for n in range(3_000)], timeout=60)
    callbacks_ran()
    assert told() == []
    assert quiet._template.target in advice._told
