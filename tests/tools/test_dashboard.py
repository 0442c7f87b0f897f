"""Row 75: what the dashboard asks and when, what it shows of it, and whom it answers. No cluster is needed here."""

from __future__ import annotations

import contextlib
import http.client
import json
import math
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from types import SimpleNamespace
from typing import Any

import pytest

from tests.doors import asked, serving
from tests.tools.told_facts import DRIVER, NODE, NOW, OTHER, TASK, WORKER, facts, families, family, node, told
from zmreg.model.errors import ClusterError
from zmreg.services.head.head import Head
from zmreg.services.node.views import answer
from zmreg.services.setup.http_door import MOST_AT_ONCE, HttpHandler
from zmreg.tools.dashboard.copies import MOST_CLICKS, WANTED_S, Copies, Copy
from zmreg.tools.dashboard.door import DashboardDoor
from zmreg.tools.dashboard.figures import GAP_S, MOST_POINTS, RATE, Figure, Figures
from zmreg.tools.dashboard.findings import findings
from zmreg.tools.dashboard.sources import Sources
from zmreg.tools.dashboard.views import MOST_ROWS, VIEWS, bounded
from zmreg.tools.dashboard.watch import Busy, Watch

TOKEN = "a-token-of-some-length"


# -- when what is asked ------------------------------------------------------------------------------------------------


def test_row_75_dashboard_asks_while_somebody_looks_and_then_no_more():
    copies = Copies({"nodes": 2.0}, {})
    assert copies.due(0.0) == [] and copies.next_at(0.0) == math.inf
    assert copies.want(("nodes",), 0.0) and copies.due(0.0) == [("nodes",)]
    copies.put(("nodes",), [1], 0.0, 0.01)
    assert copies.due(1.9) == [] and copies.next_at(1.0) == 2.0 and copies.due(2.0) == [("nodes",)]
    assert copies.of(("nodes",)).value == [1]
    assert copies.due(WANTED_S) == [] and copies.of(("nodes",)) is None, "who comes later gets no old copy"


def test_row_75_dashboard_C30_many_who_look_cost_what_one_does():
    copies = Copies({"nodes": 2.0}, {})
    asked = 0
    for turn in range(1000):
        now = turn / 100
        copies.want(("nodes",), now)
        for key in copies.due(now):
            asked += 1
            copies.put(key, [], now, now + 0.001)
    assert asked == 5


def test_row_75_dashboard_C30_what_takes_long_and_large_clusters_are_asked_seldom():
    copies = Copies({"memory": 2.0}, {})
    copies.want(("memory",), 0.0)
    copies.put(("memory",), {}, 0.0, 1.5)
    assert copies.next_at(1.5) == 7.5
    copies.nodes = 400
    assert copies.next_at(1.5) == 8.0


def test_row_75_dashboard_clicks_are_bounded_and_those_nobody_reads_make_room():
    copies = Copies({"why": 2.0, "nodes": 2.0}, {"nodes": 10.0})
    assert all(copies.want(("why", str(each)), 0.0) for each in range(MOST_CLICKS))
    assert not copies.want(("why", "more"), 1.0) and copies.want(("why", "3"), 1.0) and copies.want(("nodes",), 1.0)
    assert copies.want(("why", "more"), WANTED_S + 0.5)


def test_row_75_dashboard_metrics_go_on_more_slowly_while_nobody_looks():
    copies = Copies({"metrics": 2.0}, {"metrics": 10.0})
    assert copies.due(0.0) == [("metrics",)]
    copies.put(("metrics",), {}, 0.0, 0.0)
    assert copies.next_at(1.0) == 10.0
    copies.want(("metrics",), 1.0)
    assert copies.next_at(1.0) == 2.0
    assert copies.next_at(20.0) == 10.0 and copies.of(("metrics",)) is not None


def test_row_75_dashboard_an_answer_that_does_not_come_leaves_the_one_before():
    copies = Copies({"actors": 2.0}, {})
    copies.want(("actors",), 0.0)
    copies.fail(("actors",), "no head", 0.0, 0.0)
    assert copies.of(("actors",)).value is None and copies.of(("actors",)).error == "no head"
    copies.put(("actors",), [1], 2.0, 2.0)
    copies.fail(("actors",), "no head", 4.0, 4.0)
    found = copies.of(("actors",))
    assert (found.value, found.at, found.error) == ([1], 2.0, "no head")


def test_row_75_dashboard_an_answer_that_nobody_waits_for_any_more_is_not_kept():
    copies = Copies({"log": 2.0}, {})
    key = ("log", NODE, WORKER)
    copies.want(key, 0.0)
    assert copies.due(0.0) == [key] and copies.due(WANTED_S + 1.0) == []  # it is asked by then, and takes its time
    copies.put(key, {"Text": "long"}, 0.0, WANTED_S + 1.0)
    assert copies.of(key) is None
    copies.fail(key, "no answer", 0.0, WANTED_S + 1.0)
    assert copies.of(key) is None and copies.next_at(WANTED_S + 1.0) == math.inf


# -- figures and findings ----------------------------------------------------------------------------------------------


def test_row_75_dashboard_figures_are_bounded_and_a_counter_that_begins_anew_is_a_gap():
    figures = Figures([Figure("done", "/s", "n_total", (), RATE), Figure("level", "", "n_total")])
    for turn in range(2 * MOST_POINTS):
        figures.take([family("n_total", "counter", (3.0 * turn, {}))], float(turn))
    rate, level = figures.lines()
    assert len(level["Points"]) == MOST_POINTS and level["Last"] == 3.0 * (2 * MOST_POINTS - 1)
    assert len(rate["Points"]) == MOST_POINTS - 1 and {value for _, value in rate["Points"]} == {3.0}
    last = 2.0 * MOST_POINTS
    figures.take([family("n_total", "counter", (1.0, {}))], last)
    figures.take([family("n_total", "counter", (5.0, {}))], last + 1)
    figures.take([family("n_total", "counter", (9.0, {}))], last + 2 + GAP_S)
    rate, level = figures.lines()
    assert [value for _, value in rate["Points"][-4:]] == [3.0, None, 4.0, None]
    assert [value for _, value in level["Points"][-3:]] == [5.0, None, 9.0]
    figures.take([], last + 10_000)
    assert figures.lines() == []


def test_row_75_dashboard_figures_are_of_the_series_that_they_name():
    amounts = Figures().lines
    assert amounts() == []
    made = Figures()
    made.take(families(), 1.0)
    assert {each["Name"]: each["Last"] for each in made.lines()}["calls queued"] == 2.0


def test_row_75_dashboard_findings_say_what_is_wrong_the_worst_first():
    assert findings([node("one", NODE)], {}, families(), NOW) == []
    rows = [node("one", NODE, ObjectStoreUsedBytes=990), node("two", OTHER, State="SUSPECTED"),
            node("three", "c" * 16, Alive=False, State="DEAD", Reason="silent for 10 s")]  # fmt: skip
    health = {NODE: {"HeadLost": True, "Time": NOW + 100, "Asked": NOW, "Version": "1"},
              OTHER: {"HeadLost": False, "Time": NOW + 1, "Asked": NOW, "Version": "2"}}  # fmt: skip
    found = findings(rows, health, [family("zmreg_memory_ended_total", "counter", (2.0, {"node": NODE}))], NOW)
    texts = [each["Text"] for each in found]
    assert [each["Level"] for each in found] == ["error"] * 2 + ["warning"] * 5
    for words in ("three (cccccccc) is dead: silent for 10 s", "the head is silent to node one", "100 s ahead of",
                  "two (bbbbbbbb) is silent", "the store of node one", "different versions: 1, 2",
                  "2 workers were ended for want of memory"):  # fmt: skip
        assert any(words in text for text in texts), (words, texts)
    many = [node(str(each), f"{each:016x}", Alive=False, State="DEAD") for each in range(100)]
    assert len(findings(many, {}, [], NOW)) == 22
    visitor = {"f" * 16: {"HeadLost": True, "Time": NOW, "Asked": NOW, "Version": "1"}}
    gone, lost = findings([node("one", NODE, Alive=False, State="LEFT")], visitor, [], NOW)
    assert "no node of the cluster is there" in gone["Text"] and "silent to the visitor on this machine" in lost["Text"]


# -- what is shown -----------------------------------------------------------------------------------------------------


def test_row_75_dashboard_lists_are_bounded_and_say_how_many_more_there_are():
    rows = [{"Name": f"row {each}", "Text": "x" * 1000} for each in range(2500)]
    found = bounded(rows)
    assert (len(found["Rows"]), found["Total"], found["More"]) == (1000, 2500, 1500)
    assert len(found["Rows"][0]["Text"]) == 300
    found = bounded(rows, "ROW 249")
    assert (len(found["Rows"]), found["Total"], found["More"]) == (11, 11, 0)
    assert bounded(rows[:5], total=70)["More"] == 65


def test_row_75_dashboard_views_put_together_what_nodes_and_processes_say():
    overview = told("overview")
    assert overview["Sums"]["CPUs"] == [3.0, 4.0] and overview["Sums"]["Gone"] == 1 and overview["AgeSeconds"] == 1.0
    assert overview["Nodes"]["Rows"][0]["MemoryBytes"] == [5, 10]
    waits, lives = told("actors", Pending={})["Actors"]["Rows"]
    assert (lives["Pid"], lives["Pending"], lives["Restarts"]) == (11, 4, 1) and lives["ActorID"] == "c" * 32
    assert (waits["State"], waits["Pid"], waits["Pending"]) == ("PENDING", None, 0)
    tasks = told("tasks", "train")
    assert tasks["Running"]["Rows"][0]["Name"] == "train", "by its owner: its node knows no function's name"
    assert tasks["Queued"]["Rows"][0]["Why"] == "waits for train" and tasks["Queued"]["More"] == 1
    objects = told("objects")
    assert objects["Objects"]["Rows"][0]["ReadBy"] == [DRIVER[-8:]] and objects["Sums"]["sealed"] == 1
    flows = told("flows")
    (stage,) = flows["Stages"]["Rows"]
    assert (stage["Name"], stage["In"], stage["Out"]) == ("parse", 7.0, 0.0)
    assert flows["PhaseStates"] == {"running": 1.0}
    assert [row["Log"] for row in told("logs")["Logs"]["Rows"]] == ["node", WORKER]
    assert [row["Sum"] for row in told("metrics")["Metrics"]["Rows"]][-1] == 2
    assert (
        told("tasks", contains=TASK)["Running"]["Total"] == 1 and told("tasks", contains="?")["Running"]["Total"] == 0
    )


@pytest.mark.parametrize("view", VIEWS)
def test_row_75_dashboard_views_say_what_is_missing_and_show_the_rest(view):
    sources = VIEWS[view][1]
    for missing in sources:
        found = told(view, **{missing: None})
        assert found["Missing"] == [missing]
    found = told(view, **dict.fromkeys(sources))
    assert found["Missing"] == list(sources) and found["AgeSeconds"] is None


def test_row_75_dashboard_asks_the_head_for_the_newest_actors_alone():
    """A head with a hundred thousand of them would tell them all, again and again."""
    ids = [bytes(8) + each.to_bytes(8, "big") for each in range(5000)]

    class Told(Head):
        def __init__(self) -> None:
            made = SimpleNamespace(class_name="Model", name="", namespace="")
            self.creations = dict.fromkeys(ids, made)
            self.actors = Roll.fromkeys(ids)

    class Roll(dict):
        def worker(self, actor):
            return b""

        def state(self, actor):
            return "ALIVE"

        def restarts(self, actor):
            return 0

    node = SimpleNamespace(head=Told())
    assert [row["ActorID"] for row in answer(node, "actors", "3")] == [each.hex() for each in ids[-3:]]
    assert len(answer(node, "actors", "")) == 5000
    shown = told("actors", actors=answer(node, "actors", "1000"))["Actors"]["Rows"]
    assert len(shown) == 1000 and shown[0]["ActorID"] == ids[-1].hex()


# -- who asks ----------------------------------------------------------------------------------------------------------


class FakeCluster:
    """A node that is asked; `away` while it is not there."""

    def __init__(self) -> None:
        self.away = False
        self.visits = 0
        self.word = SimpleNamespace(cluster="c", node=NODE, name="one")

    @contextmanager
    def visit(self) -> Iterator[FakeCluster]:
        if self.away:
            raise ClusterError("no cluster runs here")
        self.visits += 1
        yield self

    def ask(self, topic: str, key: str = "", timeout: float = 0.0) -> Any:
        if self.away:
            raise ClusterError("node one ended")
        return {}


class Over(BaseException):
    """Ends a watch, as an interrupt does."""


@contextmanager
def watching(cluster: FakeCluster, sources: dict[str, Any]) -> Iterator[Watch]:
    """Ends by a question that only this asks."""

    def end(_: Any) -> None:
        raise Over

    copies = Copies(dict.fromkeys([*sources, "end"], 0.01), {})
    watch = Watch(cluster.visit, {**sources, "end": end}, copies)
    ready = threading.Event()

    def run() -> None:
        with contextlib.suppress(Over):
            watch.run(ready.set)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    assert ready.wait(20)
    try:
        yield watch
    finally:
        cluster.away = False
        copies.want(("end",), math.inf)
        thread.join(20)
        assert not thread.is_alive()


def test_row_75_dashboard_waits_for_a_cluster_that_goes_away_and_comes_back(monkeypatch):
    monkeypatch.setattr("zmreg.tools.dashboard.watch.RETRY_S", 0.01)
    cluster = FakeCluster()
    with watching(cluster, {"nodes": lambda observer: observer.ask("nodes") or ["a row"]}) as watch:
        assert watch.read([("nodes",)], 20, 20)[("nodes",)].value == ["a row"] and watch.state()["Answers"]
        cluster.away = True
        until(lambda: not watch.read([("nodes",)], 0, 0) or not watch.state()["Answers"])
        state = until(lambda: (found := watch.state())["Trouble"] == "no cluster runs here" and found)
        assert state["NodeName"] == "one", "whose facts are shown still"
        cluster.away = False
        until(lambda: watch.state()["Answers"])
        assert cluster.visits == 2 and watch.read([("nodes",)], 20, 20)[("nodes",)].value == ["a row"]


def test_row_75_dashboard_one_question_that_fails_is_no_trouble_for_others(caplog):
    def fails(_: Any) -> Any:
        raise KeyError("a node of another version")

    def headless(_: Any) -> Any:
        raise ClusterError("no head")

    with watching(FakeCluster(), {"bad": fails, "far": headless, "good": lambda _: 1}) as watch:
        keys = [("good",), ("bad",), ("far",)]
        found = watch.read(keys, 20, 20)
        assert found[("good",)].value == 1 and found[("far",)].error == "no head" and watch.state()["Answers"]
        assert "KeyError" in found[("bad",)].error
        until(lambda: watch.read(keys, 20, 20)[("good",)].at > found[("good",)].at)
    assert len([each for each in caplog.records if "bad could not be asked" in each.getMessage()]) == 1


def test_row_75_dashboard_that_finds_no_cluster_at_first_says_so():
    cluster = FakeCluster()
    cluster.away = True
    with pytest.raises(ClusterError, match="no cluster runs here"):
        Watch(cluster.visit, {}, Copies({}, {})).run(lambda: None)


def until(found: Any, seconds: float = 20.0) -> Any:
    """Polled by the page, too."""
    deadline, pause = time.monotonic() + seconds, threading.Event()
    while not (answer := found()):
        assert time.monotonic() < deadline, "it never came"
        pause.wait(0.005)
    return answer


# -- over HTTP ---------------------------------------------------------------------------------------------------------


class FakeWatch:
    def __init__(self) -> None:
        self.asked: list[Any] = []
        self.busy = False

    def read(self, keys, patience_s, rest_s):
        self.asked += keys
        if self.busy:
            raise Busy
        known = {**facts("a-name"), "log": {"Text": "printed"}, "why": {"Lines": []}}
        return {key: Copy(known[key[0]], 0.0) for key in keys}

    def state(self):
        return {"Answers": True, "Trouble": ""}


def opened(host: str = "127.0.0.1") -> AbstractContextManager[DashboardDoor]:
    return serving(DashboardDoor(host, 0, FakeWatch(), TOKEN))


def ask(door: DashboardDoor, path: str = "/api/overview", method: str = "GET", **headers: str) -> tuple[int, Any, dict]:
    headers = {"Authorization": f"Bearer {TOKEN}", **{name.replace("_", "-"): text for name, text in headers.items()}}
    status, body, said = asked(door, method, path, headers)
    is_json = said.get("Content-Type", "").startswith("application/json")
    return status, json.loads(body) if is_json and body else body, said


def test_row_75_dashboard_serves_a_page_and_facts_and_changes_nothing():
    with opened() as door:
        status, body, headers = ask(door, "/", Authorization="")
        assert status == 200 and body.startswith("<!doctype html>") and "a-name" not in body and TOKEN not in body
        assert headers["Content-Security-Policy"] == door.policy and headers["Referrer-Policy"] == "no-referrer"
        assert door.url == f"http://127.0.0.1:{door.server_port}/#token={TOKEN}"
        for view in VIEWS:
            status, body, headers = ask(door, f"/api/{view}")
            assert status == 200 and body["View"] == view and body["State"]["Answers"], view
            assert headers["Cache-Control"] == "no-store" and headers["X-Content-Type-Options"] == "nosniff"
            assert "Access-Control-Allow-Origin" not in headers and "Set-Cookie" not in headers
            assert "default-src 'none'" in headers["Content-Security-Policy"]
        assert ask(door, "/api/actors?contains=nobody")[1]["Actors"]["Total"] == 0
        assert ask(door, f"/api/log?node={NODE}&log={WORKER}")[1]["Found"] == {"Text": "printed"}
        assert ask(door, f"/api/why?id={TASK}")[1]["Found"] == {"Lines": []}
        assert door.watch.asked[-2:] == [("log", NODE, WORKER), ("why", TASK)]
        for path, expected in (
            ("/api/none", 404), ("/api/", 404), ("/api", 404), ("/page.html", 404), ("/../etc/passwd", 404),
            ("/api/why?id=zz", 400), ("/api/log?node=..&log=node", 400), (f"/api/log?node={NODE}&log=../x", 400),
        ):  # fmt: skip
            assert ask(door, path)[0] == expected, path
        for method in ("POST", "PUT", "DELETE", "PATCH", "OPTIONS", "CONNECT", "TRACE"):
            assert ask(door, "/api/nodes", method)[0] == 405, method
        door.watch.busy = True
        status, body, _ = ask(door, f"/api/why?id={TASK}")
        assert status == 503 and "ask again" in body["Error"]


def test_row_75_dashboard_puts_memory_together_when_it_is_told_and_not_for_each_who_looks():
    objects = [{"ObjectID": f"{number:032x}", "Bytes": number, "State": "memory", "Primary": True, "AgeSeconds": 1.0,
                "CreatorID": WORKER, "Pins": {}} for number in range(MOST_ROWS + 50)]  # fmt: skip
    store = {"used_bytes": 1, "budget_bytes": 2, "sealed": len(objects), "spilled": 0}
    answers = {NODE: {"Objects": objects, "Processes": [], "Store": store}}
    observer = SimpleNamespace(
        word=SimpleNamespace(node=NODE), ask=lambda *_: [node("one", NODE)], ask_much=lambda *_: answers
    )
    found = Sources(Copies({}, {})).table()["memory"](observer)
    assert [row["Bytes"] for row in found["Objects"]] == list(range(MOST_ROWS + 49, 49, -1)), "the largest, no more"
    assert found["Stores"] == [store] and found["Processes"] == []


def test_row_75_dashboard_facts_that_make_no_sense_are_an_answer_and_one_line_in_the_log(caplog):
    with opened() as door:
        door.watch.read = lambda keys, *_: {key: Copy([{"of another version": 1}], 0.0) for key in keys}
        for _ in range(3):
            status, body, _ = ask(door, "/api/actors")
            assert status == 500 and body["Error"].startswith("actors could not be told (KeyError)")
        assert [record.getMessage() for record in caplog.records] == ["actors could not be told"]
        assert caplog.records[0].exc_info


def test_row_75_dashboard_tells_nothing_without_its_token():
    with opened() as door:
        for given in ("", "Bearer", f"Bearer {TOKEN}x", f"Basic {TOKEN}", TOKEN, "Bearer \xff"):
            status, body, headers = ask(door, Authorization=given)
            assert (status, headers["WWW-Authenticate"]) == (401, "Bearer") and "a-name" not in body, given
        assert ask(door, f"/api/overview?token={TOKEN}", Authorization="")[0] == 401
        assert ask(door, Authorization="", Cookie=f"token={TOKEN}")[0] == 401
        assert not door.watch.asked
    with pytest.raises(ValueError, match="token"):
        DashboardDoor("127.0.0.1", 0, FakeWatch(), "")


def test_row_75_dashboard_a_page_of_somebody_else_gets_nothing_even_with_the_token():
    with opened() as door:
        port = door.server_port
        for host in (
            "evil.example",
            f"evil.example:{port}",
            "localhost:80:80",
            "",
            f"10.0.0.1:{port}",
            f"127.0.0.1.evil:{port}",
        ):
            for path in ("/", "/api/overview"):
                assert ask(door, path, Host=host)[0] == 403, (host, path)
        for origin in ("http://evil.example", "null", f"https://127.0.0.1:{port}", f"http://localhost:{port}"):
            assert ask(door, Origin=origin)[0] == 403, origin
        assert ask(door, Sec_Fetch_Site="cross-site")[0] == 403 and ask(door, Sec_Fetch_Site="same-site")[0] == 403
        assert ask(door, "/", Sec_Fetch_Site="cross-site")[0] == 200, "a link may lead here"
        assert ask(door, Origin=f"http://127.0.0.1:{port}", Sec_Fetch_Site="same-origin")[0] == 200
        for host in (f"localhost:{port}", "LOCALHOST:9999", "127.0.0.1", "[::1]:8265"):  # by a tunnel, at another port
            assert ask(door, Host=host)[0] == 200, host


def test_row_75_dashboard_that_others_reach_is_called_by_addresses_and_its_own_name():
    with opened("0.0.0.0") as door:
        port = door.server_port
        assert door.url == f"http://localhost:{port}/#token={TOKEN}" and not door.is_near
        for host in (f"10.1.2.3:{port}", f"[fe80::1]:{port}", f"{socket.gethostname()}:{port}", f"localhost:{port}"):
            assert ask(door, Host=host)[0] == 200, host
        for host in (f"evil.example:{port}", "evil.example", "10.1.2.3.evil.example", "[::1].evil:80"):
            assert ask(door, Host=host)[0] == 403, host
        assert ask(door, Authorization="", Host=f"10.1.2.3:{port}")[0] == 401


def test_row_75_dashboard_those_who_never_read_hold_up_nobody_for_long(monkeypatch):
    """More of them than there are places, each with an answer that no socket has room for."""
    monkeypatch.setattr(HttpHandler, "timeout", 0.3)
    with opened() as door:
        door.page = b"x" * (8 << 20)
        stalled = []
        for _ in range(MOST_AT_ONCE + 4):
            each = socket.socket()
            each.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            each.connect(("127.0.0.1", door.server_port))
            each.sendall(f"GET / HTTP/1.1\r\nHost: 127.0.0.1:{door.server_port}\r\n\r\n".encode())
            stalled.append(each)

        def answers() -> bool:
            with contextlib.suppress(OSError, http.client.HTTPException):
                return ask(door)[0] == 200
            return False

        until(answers)
        for each in stalled:
            each.close()
