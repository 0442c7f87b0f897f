"""Row 75 in a cluster: what users count in drivers, tasks and actors, and what the cluster says of itself."""

from __future__ import annotations

import os
import pickle
import re
import signal
import threading
from pathlib import Path

import pytest

import zmreg
from tests import prometheus
from tests.processes.drivers import eventually
from tests.prometheus import total
from zmreg.metrics import Counter, Gauge, Histogram
from zmreg.services.seat.client import current
from zmreg.services.seat.metering import metering
from zmreg.services.setup import scraping
from zmreg.services.setup.observer import Observer
from zmreg.services.setup.sessions import read_word
from zmreg.telemetry.meters import MOST_SERIES

pytestmark = pytest.mark.near

PAGE = Path(__file__).parents[2] / "docs" / "guides" / "metrics.md"
CALLS = Counter("shop_calls", "Calls.", ("who",)).set_default_tags({"who": "nobody"})
STOCK = Gauge("shop_stock", "What is there.", ("shelf",))
TOOK = Histogram("shop_took_seconds", "Took.", boundaries=[0.1, 1.0])


def scrape() -> dict[str, prometheus.Metric]:
    """All of this driver's cluster, read by a strict reader."""
    seat = current()
    assert seat is not None
    with Observer(read_word(seat.session)) as observer:
        return prometheus.read(scraping.as_text(scraping.families(observer)))


def until(name: str, value: float, **labels: str) -> dict[str, prometheus.Metric]:
    """What was scraped as soon as that is so."""
    found: list[dict[str, prometheus.Metric]] = []

    def is_so() -> bool:
        found.append(scrape())
        return total(found[-1], name, **labels) == value

    eventually(is_so, 20, f"{name} {labels} is not {value}")
    return found[-1]


@zmreg.remote
def sells(number):
    CALLS.inc(tags={"who": "task"})
    TOOK.observe(number / 10)
    return os.getpid()


@zmreg.remote
class Shop:
    def __init__(self, shelf):
        self.shelf = shelf

    def counts(self, calls, stock):
        for _ in range(calls):
            CALLS.inc(tags={"who": self.shelf})
        STOCK.set(stock, {"shelf": self.shelf})
        return os.getpid()


def test_row_75_another_cluster_begins_at_zero():
    """The first test here: the others share a cluster."""
    CALLS.inc(tags={"who": "before"})
    for already in (1, 0):
        zmreg.init("local", num_cpus=1)
        try:
            assert total(scrape(), "shop_calls_total") == already
            CALLS.inc(tags={"who": "here"})
            assert total(scrape(), "shop_calls_total") == already + 1
        finally:
            zmreg.shutdown()


def test_row_75_drivers_tasks_and_actors_count_into_one_sum(cluster):
    first, second = Shop.remote("a"), Shop.remote("a")
    zmreg.get([sells.remote(number) for number in range(20)], timeout=30)
    zmreg.get([first.counts.remote(3, 5), second.counts.remote(4, 6)], timeout=30)
    CALLS.inc(2.5)
    found = scrape()  # what was counted before is in it: processes are asked
    assert total(found, "shop_calls_total", who="task") == 20 and total(found, "shop_calls_total", who="a") == 7
    assert total(found, "shop_calls_total", who="nobody", node=cluster.node_id) == 2.5
    assert total(found, "shop_stock", shelf="a") == 11 and found["shop_stock"].text == "What is there."
    assert total(found, "shop_took_seconds_count") == 20 and total(found, "shop_took_seconds_bucket", le="1") == 11
    assert total(found, "shop_took_seconds_sum") == pytest.approx(19)
    zmreg.kill(first)
    found = until("shop_stock", 6, shelf="a")  # its gauge goes with it
    assert total(found, "shop_calls_total", who="a") == 7  # its counts stay


def test_row_75_a_worker_that_leaves_has_told_all_and_one_that_is_killed_what_was_asked_for(cluster):
    leaves, dies = Shop.remote("leaves"), Shop.remote("dies")
    pid = dies.counts.remote(5, 1).get(timeout=30)
    assert total(scrape(), "shop_calls_total", who="dies") == 5
    leaves.counts.remote(7, 1).get(timeout=30)
    leaves.__zmreg_terminate__.remote()
    os.kill(pid, signal.SIGKILL)
    until("shop_stock", 0, shelf="leaves")
    found = until("shop_stock", 0, shelf="dies")
    assert total(found, "shop_calls_total", who="leaves") == 7 and total(found, "shop_calls_total", who="dies") == 5


def test_row_75_what_changes_is_told_without_being_asked(cluster, monkeypatch):
    """So that little is lost with a process that is killed."""
    told = threading.Event()
    seat = current()
    assert seat is not None
    monkeypatch.setattr(type(metering()), "tell", lambda self, station: told.set())
    CALLS.inc(tags={"who": "pushed"})
    assert told.wait(20)
    monkeypatch.undo()
    assert total(scrape(), "shop_calls_total", who="pushed") == 1


def test_row_75_a_source_that_raises_takes_nothing_from_the_others(cluster, caplog):
    """Said once in the log; what is counted besides is told, also without being asked."""
    asked = threading.Semaphore(0)

    def broken():
        asked.release()
        raise RuntimeError("this source is broken")

    metering().keep(broken, lambda: None)
    try:
        for number in range(1, 3):
            CALLS.inc(tags={"who": "beside"})
            assert asked.acquire(timeout=20), "nobody pushes any more"
            assert total(scrape(), "shop_calls_total", who="beside") == number
            while asked.acquire(blocking=False):
                pass
    finally:
        metering()._kept.pop(broken)
    assert sum("broken" in each.getMessage() for each in caplog.records) == 1


def test_row_75_a_tag_with_a_value_for_everybody_is_bounded_counted_and_said_once(cluster, caplog):
    users = Counter("shop_users", tag_keys=("user",))
    for user in range(MOST_SERIES + 7):
        users.inc(tags={"user": str(user)})
    found = scrape()
    assert len(found["shop_users_total"].samples) == MOST_SERIES
    assert total(found, "zmreg_metrics_dropped_total", metric="shop_users_total") == 7
    (said,) = [record.getMessage() for record in caplog.records if "shop_users_total" in record.getMessage()]
    assert "1000 series" in said and str(MOST_SERIES) in said


def test_row_75_names_and_arguments_as_in_ray():
    assert CALLS.info == {
        "name": "shop_calls", "description": "Calls.", "tag_keys": ("who",), "default_tags": {"who": "nobody"},
    }  # fmt: skip
    assert TOOK.info["boundaries"] == [0.1, 1.0]
    for metric in (CALLS, Gauge("shop_level", across="max"), TOOK):
        again = pickle.loads(pickle.dumps(metric))
        assert again.info == metric.info and repr(again) == repr(metric) and again._family == metric._family
    for wrong, error in [
        (lambda: CALLS.inc(0), ValueError), (lambda: CALLS.inc(-1), ValueError), (lambda: CALLS.inc("1"), TypeError),
        (lambda: CALLS.inc(float("inf")), ValueError),
        (lambda: CALLS.inc(tags={"what": "x"}), ValueError), (lambda: CALLS.inc(tags={"who": 7}), TypeError),
        (lambda: STOCK.set(1), ValueError), (lambda: STOCK.set(None, {"shelf": "a"}), TypeError),
        (lambda: TOOK.observe(float("nan")), ValueError), (lambda: CALLS.set_default_tags({"x": "y"}), ValueError),
        (lambda: Counter("a b"), ValueError), (lambda: Counter(7), TypeError),
        (lambda: Counter("x", tag_keys="who"), TypeError),
        (lambda: Counter("zmreg_mine"), ValueError), (lambda: Histogram("x"), ValueError),
        (lambda: Gauge("x", across="avg"), ValueError), (lambda: Gauge("shop_calls_total"), ValueError),
        (lambda: Counter("x", 7), TypeError), (lambda: Counter("x", tag_keys=(7,)), TypeError),
    ]:  # fmt: skip
        with pytest.raises(error):
            wrong()


def test_row_75_numbers_of_numpy_are_numbers(cluster):
    import numpy

    Gauge("shop_array").set(numpy.float32(0.5))
    assert total(scrape(), "shop_array") == 0.5


@zmreg.remote
def fails():
    raise ValueError("on purpose")


@zmreg.remote
def sleeps(path):
    open(path, "w").close()
    while not zmreg.cancelled():
        threading.Event().wait(0.01)


def test_row_75_tasks_by_state_and_by_outcome(cluster, tmp_path):
    before = scrape()
    zmreg.get([sells.remote(1) for _ in range(30)], timeout=30)
    for ref in [fails.remote() for _ in range(3)]:
        assert isinstance(ref.exception(timeout=30), ValueError)
    path = tmp_path / "runs"
    ref = sleeps.remote(str(path))
    eventually(path.exists, 20, "it does not run")
    found = scrape()
    assert total(found, "zmreg_tasks", state="running") == 1 == total(found, "zmreg_tasks", state="submitted")
    assert total(found, "zmreg_workers", state="leased") >= 1 and total(found, "zmreg_resources", resource="CPU") == 2
    zmreg.cancel(ref)
    zmreg.wait([ref], timeout=30)
    found = scrape()
    counted = {
        outcome: total(found, "zmreg_tasks_finished_total", outcome=outcome)
        - total(before, "zmreg_tasks_finished_total", outcome=outcome)
        for outcome in ("ok", "failed", "cancelled")
    }
    assert counted == {"ok": 30, "failed": 3, "cancelled": 1}
    assert total(found, "zmreg_tasks", state="running") == 0 == total(found, "zmreg_tasks", state="submitted")


def test_row_75_calls_are_told_by_function_with_how_long_they_ran_and_waited(cluster):
    @zmreg.remote(name="takes its time")
    def rests():
        threading.Event().wait(0.02)

    zmreg.get([rests.remote() for _ in range(6)], timeout=30)
    told = scrape()
    zmreg.get([rests.remote() for _ in range(3)], timeout=30)
    found = scrape()
    for name in ("zmreg_call_run_seconds", "zmreg_call_wait_seconds"):
        counts = [
            sum(
                value
                for (part, labels), value in each[name].samples.items()
                if part == f"{name}_count" and ("function", "takes its time") in labels
            )
            for each in (told, found)
        ]
        assert counts == [6, 9], "each call once, whenever somebody asks"
    below = {
        dict(labels)["le"]: value
        for (part, labels), value in found["zmreg_call_run_seconds"].samples.items()
        if part.endswith("_bucket") and ("function", "takes its time") in labels
    }
    assert below["0.01"] == 0 and below["+Inf"] == 9


def test_row_75_a_call_that_is_tried_again_is_counted_when_it_has_ended(cluster, tmp_path):
    path = tmp_path / "tries"

    @zmreg.remote(max_retries=2, retry_exceptions=True)
    def unsteady():
        with open(path, "a") as file:
            file.write("x")
        if os.path.getsize(path) < 3:
            raise ValueError("again")
        return 1

    before = scrape()
    assert unsteady.remote().get(timeout=30) == 1
    found = scrape()
    for outcome, count in (("ok", 1), ("failed", 0)):
        name = "zmreg_tasks_finished_total"
        assert total(found, name, outcome=outcome) - total(before, name, outcome=outcome) == count


def test_row_75_actors_and_stored_values_are_told(cluster):
    before = scrape()
    ref = zmreg.put(b"x" * 3_000_000)
    shop = Shop.remote("told")
    shop.counts.remote(1, 1).get(timeout=30)
    found = scrape()
    assert total(found, "zmreg_actors", state="alive") - total(before, "zmreg_actors", state="alive") == 1
    assert total(found, "zmreg_objects") - total(before, "zmreg_objects") == 1
    name = "zmreg_object_store_bytes"
    assert total(found, name, location="primary") - total(before, name, location="primary") >= 3_000_000
    assert total(found, "zmreg_nodes", state="alive") == 1 and total(found, "zmreg_process_cpu_seconds_total") > 0
    del ref


def lowers(word):
    return word.lower()


def keeps_short(word):
    return word if len(word) < 4 else None


def test_row_75_P21_stages_are_told_where_they_run_and_stay_counted(cluster):
    words = ["An", "APPLE", "A", "day"] * 25
    here = zmreg.Pipeline() | lowers | keeps_short
    assert len(here.collect(words)) == 75
    there = zmreg.Pipeline() | lowers | zmreg.stage(keeps_short, name="far", num_cpus=1, concurrency=2)
    assert len(there.collect(words)) == 75
    found = until("zmreg_pipeline_lanes", 0)
    for stage, came, out, dropped in (("lowers", 200, 200, 0), ("keeps_short", 100, 75, 25), ("far", 100, 75, 25)):
        assert total(found, "zmreg_pipeline_items_in_total", stage=stage) == came, stage
        assert total(found, "zmreg_pipeline_items_out_total", stage=stage) == out, stage
        assert total(found, "zmreg_pipeline_filtered_total", stage=stage) == dropped, stage


def test_row_75_P21_a_stage_is_told_while_it_runs(cluster):
    with (zmreg.Pipeline() | lowers).open() as session:
        for word in ("A", "B", "C"):
            session.send(word)
            session.recv()
        found = scrape()
        assert total(found, "zmreg_pipeline_lanes", stage="lowers") == 1
        before = total(found, "zmreg_pipeline_items_in_total", stage="lowers")
        session.send("D")
        session.recv()
        assert total(scrape(), "zmreg_pipeline_items_in_total", stage="lowers") == before + 1


def test_row_75_phases_of_a_run_are_told_while_it_runs_and_by_how_they_ended(cluster, tmp_path):
    gate = tmp_path / "gate"

    def squares(context):
        return context.item**2

    def waits(context):
        while not gate.exists():
            threading.Event().wait(0.01)

    def wrong(context):
        raise ValueError("on purpose")

    phases = [
        zmreg.Phase("squares", squares, foreach=range(5)),
        zmreg.Phase("waits", waits, ["squares"]),
        zmreg.Phase("wrong", wrong, ["waits"], required=False),
    ]
    done: list[zmreg.RunResult] = []
    thread = threading.Thread(target=lambda: done.append(zmreg.run(phases)))
    thread.start()
    try:
        found = until("zmreg_run_phases", 1, state="running")
        found = until("zmreg_run_items_out_total", 5, phase="squares")
        assert total(found, "zmreg_run_phases", state="done") == 1
    finally:
        gate.touch()
        thread.join(30)
    found = scrape()
    assert done and total(found, "zmreg_run_phases") == 0
    assert total(found, "zmreg_run_phases_ended_total", state="done") == 2
    assert total(found, "zmreg_run_phases_ended_total", state="failed") == 1


def test_row_75_the_page_names_what_there_is_and_nothing_else(cluster):
    """With what only nodes of a network tell, and without what nobody has counted here."""
    from zmreg.testing import LocalCluster

    named = dict(re.findall(r"^\| `(zmreg_\w+)` \| (counter|gauge|histogram) \|", PAGE.read_text(), re.MULTILINE))
    told = {name: metric.kind for name, metric in scrape().items() if name.startswith("zmreg_")}
    nodes = [{"num_cpus": 1}, {"num_cpus": 1}]
    with LocalCluster(nodes=nodes) as two, Observer(read_word(two.nodes[0].session)) as observer:
        shown = prometheus.read(scraping.as_text(scraping.families(observer)))
        only = scraping.families(observer, two.nodes[1].node_id)
    told |= {name: metric.kind for name, metric in shown.items()}
    assert told.keys() - named.keys() == set() and {name: named[name] for name in told} == told
    assert named.keys() - told.keys() <= {"zmreg_metrics_dropped_total"}
    own = [labels for family in only for labels in family.series if not family.whole]
    assert len(own) <= 50, "experience.md: so many series of a node, with defaults"
