"""OpenTelemetry: spans of calls, here and where they run (core-api row 75)."""

from __future__ import annotations

import asyncio
import decimal
import importlib
import json
import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("opentelemetry.sdk", reason="opentelemetry-sdk is not installed: pip install 'zmreg[test]'")

from opentelemetry import baggage, trace
from opentelemetry.context import attach, detach
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

import zmreg
from tests.processes.clusters import until
from tests.processes.named_hosts import hosts
from zmreg.integrations.opentelemetry import instrument, uninstrument
from zmreg.testing.cluster import LocalCluster

pytestmark = pytest.mark.usefixtures("cluster")
T = 30
NEAR = {"near"}


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    """This program's node, and another one, where a program serves functions and knows nothing of traces."""
    with LocalCluster([{"num_cpus": 2, "locs": NEAR}, {"num_cpus": 1, "locs": {"far"}}]) as cluster:
        cluster.attach()
        with hosts((cluster.nodes[1].address, ())):
            yield cluster


def writing_to(path: str, at_once: bool = True) -> Callable[[], None]:
    """Sets up a worker: each span that ends is a line of that file, before its call is answered; or by and by."""

    def setup() -> None:
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import (
            BatchSpanProcessor,
            SimpleSpanProcessor,
            SpanExporter,
            SpanExportResult,
        )

        class Lines(SpanExporter):
            def export(self, spans: Any) -> SpanExportResult:
                file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
                for span in spans:
                    os.write(file, (span.to_json(indent=None) + "\n").encode())
                os.close(file)
                return SpanExportResult.SUCCESS

        provider = TracerProvider()
        lines = Lines()
        hour_ms = 3_600_000
        processor = SimpleSpanProcessor(lines) if at_once else BatchSpanProcessor(lines, schedule_delay_millis=hour_ms)
        provider.add_span_processor(processor)
        trace.set_tracer_provider(provider)

    return setup


class Told:
    """All spans of one trace: those of this process, and those that workers have written."""

    def __init__(self, tracer: trace.Tracer, here: InMemorySpanExporter, there: Path) -> None:
        self._tracer = tracer
        self._here = here
        self._there = there
        self.trace_id = ""

    @contextmanager
    def root(self) -> Iterator[None]:
        with self._tracer.start_as_current_span("root") as span:
            self.trace_id = span_id_of(span)[0]
            yield

    def all(self) -> list[dict[str, Any]]:
        lines = self._there.read_text().splitlines() if self._there.exists() else []
        found = [json.loads(span.to_json()) for span in self._here.get_finished_spans()] + [*map(json.loads, lines)]
        return [span for span in found if span["context"]["trace_id"] == self.trace_id]

    def named(self, name: str) -> list[dict[str, Any]]:
        found = [span for span in self.all() if span["name"] == name]
        assert found, f"no span {name!r} among {[span['name'] for span in self.all()]}"
        return sorted(found, key=lambda span: str(span["start_time"]))

    def one(self, name: str) -> dict[str, Any]:
        (span,) = self.named(name)
        return span

    def parent(self, span: dict[str, Any]) -> str:
        """Its name."""
        return next(each["name"] for each in self.all() if each["context"]["span_id"] == span["parent_id"])

    def chain(self, name: str) -> list[str]:
        """The names from there up to the root."""
        names = [name]
        while names[-1] != "root":
            names.append(self.parent(self.one(names[-1])))
        return names


def span_id_of(span: trace.Span | None = None) -> tuple[str, str]:
    """(trace, span) as JSON has them; of what runs, unless given."""
    context = (span or trace.get_current_span()).get_span_context()
    return f"0x{context.trace_id:032x}", f"0x{context.span_id:016x}"


NONE = ("0x" + "0" * 32, "0x" + "0" * 16)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("traces") / "spans"


@pytest.fixture
def told(file: Path) -> Iterator[Told]:
    here = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(here))
    instrument(writing_to(str(file)), tracer_provider=provider)
    try:
        yield Told(provider.get_tracer("test"), here, file)
    finally:
        uninstrument()
        provider.shutdown()


@zmreg.remote(num_cpus=0)
def leaf(x: int = 0) -> Any:
    return x, span_id_of()


@zmreg.remote(num_cpus=0)
class Asynchronous:
    def __init__(self) -> None:
        self.meeting = asyncio.Event()
        self.there = 0

    async def asks(self, x: int) -> Any:
        await asyncio.sleep(0)
        return await leaf.remote(x), span_id_of()

    async def meets(self) -> Any:
        """Two calls, each of which goes on when the other has begun."""
        self.there += 1
        if self.there == 2:
            self.meeting.set()
        await self.meeting.wait()
        return span_id_of(), await asyncio.to_thread(span_id_of)

    async def items(self, number: int) -> Any:
        for _ in range(number):
            await asyncio.sleep(0)
            yield span_id_of()


@zmreg.remote(num_cpus=0)
class Plain:
    def __init__(self, start: int = 0, fails: bool = False) -> None:
        self.made_in = span_id_of()
        if fails:
            raise ValueError("not made")

    def asks(self, other: Any, x: int) -> Any:
        return other.asks.remote(x).get(), span_id_of()

    def add(self, a: int, b: int = 1) -> int:
        return a + b

    def where(self) -> Any:
        return self.made_in

    @zmreg.method(release=True)
    def lets_go(self, x: int) -> Any:
        before = span_id_of()
        value = yield leaf.remote(x)
        return before, value, span_id_of()

    def ends(self) -> None:
        zmreg.exit_actor()

    def serves(self) -> None:
        zmreg.register("row75_in_actor", lambda x: (x, span_id_of()))


@zmreg.remote(num_cpus=0)
def begins(other: Any) -> Any:
    plain = Plain.remote(3)
    return plain.asks.remote(other, 7).get(), plain.where.remote().get(), span_id_of()


def test_row_75_opentelemetry_a_trace_leads_through_tasks_actors_and_async_actors(told: Told):
    other = Asynchronous.remote()
    with told.root():
        token = attach(baggage.set_baggage("tenant", "red"))
        [[[[[x, in_leaf], in_async], in_plain], made_in, in_task], tenant] = zmreg.get(
            [begins.remote(other), zmreg.remote(lambda: baggage.get_baggage("tenant")).remote()], timeout=T
        )
        detach(token)
    assert x == 7 and tenant == "red"
    assert told.chain("run leaf") == [
        "run leaf", "submit leaf", "run Asynchronous.asks", "submit Asynchronous.asks", "run Plain.asks",
        "submit Plain.asks", "run begins", "submit begins", "root",
    ]  # fmt: skip
    for name, seen in (
        ("run leaf", in_leaf), ("run Asynchronous.asks", in_async), ("run Plain.asks", in_plain),
        ("run Plain.__init__", made_in), ("run begins", in_task),
    ):  # fmt: skip
        assert seen == (told.trace_id, told.one(name)["context"]["span_id"]), name
    assert told.chain("run Plain.__init__")[1:3] == ["submit Plain.__init__", "run begins"]
    assert {span["status"]["status_code"] for span in told.all()} == {"UNSET"}


def test_row_75_opentelemetry_spans_say_what_was_called_and_where(told: Told):
    with told.root():
        plain = Plain.options(locs=NEAR).remote()
        assert plain.add.remote(1, b=zmreg.put(2)).get(timeout=T) == 3
        assert leaf.options(name="mine").remote(4).get(timeout=T)[0] == 4
    sent, ran = told.one("submit Plain.add"), told.one("run Plain.add")
    assert (sent["kind"], ran["kind"]) == ("SpanKind.PRODUCER", "SpanKind.CONSUMER")
    here = zmreg.get_runtime_context()
    common = {
        "messaging.system": "zmreg", "messaging.destination.name": "Plain.add", "zmreg.node_id": here.get_node_id(),
        "zmreg.actor_id": plain._actor_id.hex(), "zmreg.actor_class": "Plain",
    }  # fmt: skip
    task_id = ran["attributes"]["zmreg.task_id"]
    assert sent["attributes"] == {
        **common, "messaging.operation.name": "submit", "messaging.operation.type": "send",
        "messaging.client.id": here.get_worker_id(), "messaging.message.id": task_id, "zmreg.task_id": task_id,
    }  # fmt: skip
    assert len(task_id) == 32 and ran["attributes"] == {
        **common, "messaging.operation.name": "run", "messaging.operation.type": "process",
        "messaging.client.id": ran["attributes"]["messaging.client.id"], "messaging.message.id": task_id,
        "zmreg.task_id": task_id, "zmreg.attempt": 0,
        "code.function.name": f"{Plain.__module__}.Plain.add",
    }  # fmt: skip
    made = told.one("run Plain.__init__")["attributes"]
    assert made["code.function.name"] == f"{Plain.__module__}.Plain.__init__" and made["zmreg.actor_class"] == "Plain"
    assert made["zmreg.actor_id"] == told.one("submit Plain.__init__")["attributes"]["zmreg.actor_id"]
    assert told.one("run mine")["attributes"]["code.function.name"] == f"{leaf.__module__}.leaf"


def test_row_75_opentelemetry_a_span_lasts_as_long_as_a_generator(told: Told):
    @zmreg.remote(num_cpus=0)
    def items(number: int) -> Any:
        for _ in range(number):
            yield span_id_of()
        leaf.remote()

    plain, other = Plain.remote(), Asynchronous.remote()
    with told.root():
        found = [{ref.get(timeout=T) for ref in items.remote(3)}, {ref.get(timeout=T) for ref in other.items.remote(3)}]
        before, (x, _), after = plain.lets_go.remote(5).get(timeout=T)
        assert plain.add.batch([(1,), (2, 3), plain.add.delay(4, b=5)])[2].get(timeout=T) == 9
        unread = items.options(_generator_backpressure_num_objects=1).remote(3)
        next(iter(unread)).get(timeout=T)
        del unread
    assert x == 5 and before == after
    for name, seen in (("items", found[0]), ("Asynchronous.items", found[1]), ("Plain.lets_go", {before})):
        assert seen == {(told.trace_id, told.named(f"run {name}")[0]["context"]["span_id"])}, name
    assert told.parent(told.named("submit leaf")[0]) == "run items"
    assert told.one("run Plain.add")["attributes"]["code.function.name"].endswith(".Plain.add")


def test_row_75_opentelemetry_each_attempt_is_a_span_and_errors_are_on_it(told: Told):
    @zmreg.remote(num_cpus=0, max_retries=2, retry_exceptions=[KeyError])
    def third_time_lucky() -> Any:
        if zmreg.get_runtime_context().get_attempt_number() < 2:
            raise KeyError("again")
        return span_id_of()

    with told.root():
        trace_id, span_id = third_time_lucky.remote().get(timeout=T)
        with pytest.raises(zmreg.errors.ActorDiedError):
            Plain.remote(fails=True).where.remote().get(timeout=T)
        ends = Plain.remote()
        with pytest.raises(zmreg.errors.ActorDiedError):
            ends.ends.remote().get(timeout=T)
        with pytest.raises(zmreg.errors.SerializationError, match=r"value\[1\] is a _thread.lock"):
            ends.add.remote(1, threading.Lock())
    runs = told.named("run third_time_lucky")
    assert [run["attributes"]["zmreg.attempt"] for run in runs] == [0, 1, 2]
    assert [run["status"]["status_code"] for run in runs] == ["ERROR", "ERROR", "UNSET"]
    assert {told.parent(run) for run in runs} == {"submit third_time_lucky"}
    assert told.one("submit third_time_lucky") and runs[2]["context"]["span_id"] == span_id
    assert runs[0]["status"]["description"] == "KeyError: 'again'"
    assert runs[0]["attributes"]["error.type"] == "builtins.KeyError"
    (event,) = runs[0]["events"]
    assert event["name"] == "exception" and "third_time_lucky" in event["attributes"]["exception.stacktrace"]
    made = {span["status"]["status_code"]: span for span in told.named("run Plain.__init__")}
    assert made["ERROR"]["status"]["description"] == "ValueError: not made"
    assert told.one("run Plain.ends")["status"]["status_code"] == "UNSET"
    unsent = told.one("submit Plain.add")
    assert unsent["status"]["status_code"] == "ERROR" and "zmreg.task_id" not in unsent["attributes"]


def test_row_75_opentelemetry_calls_side_by_side_keep_their_spans_apart(told: Told):
    @zmreg.remote(num_cpus=0, max_concurrency=2)
    class Threaded:
        def __init__(self) -> None:
            self.meeting = threading.Barrier(2)

        def meets(self) -> Any:
            self.meeting.wait(T)
            return span_id_of(), leaf.remote().get()[1]

    threads, other = Threaded.remote(), Asynchronous.remote()
    with told.root():
        by_threads = zmreg.get([threads.meets.remote() for _ in range(2)], timeout=T)
        in_loop = zmreg.get([other.meets.remote() for _ in range(2)], timeout=T)
    for name, calls in (("Threaded.meets", by_threads), ("Asynchronous.meets", in_loop)):
        assert {own[1] for own, _ in calls} == {span["context"]["span_id"] for span in told.named(f"run {name}")}
    assert all(own == in_thread for own, in_thread in in_loop)
    above = {span["context"]["span_id"]: span["parent_id"] for span in told.all()}
    assert all(above[above[below]] == own for (_, own), (_, below) in by_threads)


@zmreg.remote(num_cpus=0)
class Keeps:
    def put(self, digits: int) -> None:
        decimal.setcontext(decimal.Context(prec=digits))  # a context variable

    def take(self) -> Any:
        return decimal.getcontext().prec, span_id_of(), leaf.remote().get()[1]


def test_row_75_opentelemetry_nothing_is_left_behind_for_the_next_call(told: Told):
    @zmreg.remote(num_cpus=0, locs=NEAR)
    def seen() -> Any:
        return os.getpid(), span_id_of(), leaf.remote().get()[1]

    keeps = Keeps.remote()
    with told.root():
        pids = {zmreg.get(seen.remote(), timeout=T)[0] for _ in range(3)}
        keeps.put.remote(7).get(timeout=T)

    def again() -> Any:
        """By a worker that has run one of these."""
        return until(lambda: (found := seen.remote().get(timeout=T))[0] in pids and found[1:], "always another worker")

    # Still instrumented, in another trace; then not any more: the same workers trace nothing, nor what is called there.
    (trace_id, _), (below, _) = again()
    assert trace_id == below and trace_id not in (told.trace_id, NONE[0])
    uninstrument()
    assert again() == (NONE, NONE)
    # What a call leaves behind itself is there as ever.
    assert keeps.take.remote().get(timeout=T) == (7, NONE, NONE)


def test_row_75_opentelemetry_calls_by_name_are_traced(told: Told):
    zmreg.register("row75_here", lambda x: (x, span_id_of()))
    serving = Plain.remote()
    serving.serves.remote().get(timeout=T)
    names = ("row75_here", "row75_in_actor")
    with told.root():
        found = [zmreg.call(name, [1], queue_until=T) for name in names]
        # A request's steps go by the same way; here with a value inside of a container.
        steps = [zmreg.Step("first", "echo", (5,)), zmreg.Step("last", "row75_here", ([0, zmreg.Ref("first")],))]
        requested = zmreg.request(steps)["last"]
        apart = asyncio.run(zmreg.arequest(steps))["last"]
    zmreg.withdraw("row75_here")
    first, last, _ = told.named("run row75_here")
    assert found == [
        ([1], (told.trace_id, span["context"]["span_id"])) for span in (first, told.one("run row75_in_actor"))
    ]
    assert requested == ([0, 5], (told.trace_id, last["context"]["span_id"])) and apart[1][0] == told.trace_id
    assert told.chain("run row75_in_actor") == ["run row75_in_actor", "submit row75_in_actor", "root"]
    assert {told.parent(span) for span in told.named("submit echo")} == {"root"}


def test_row_75_opentelemetry_across_nodes_and_to_programs_that_trace_nothing(told: Told, cluster: LocalCluster):
    other = Asynchronous.options(locs=NEAR).remote()
    with told.root():
        (in_leaf, own), *_ = begins.options(locs={"far"}).remote(other).get(timeout=T)[0]
        assert zmreg.call("add", 1, b=2, queue_until=T) == 3
    assert in_leaf[1][0] == own[0] == told.trace_id
    assert told.chain("run leaf")[-3:] == ["run begins", "submit begins", "root"]
    at = {span["name"]: span["attributes"].get("zmreg.node_id") for span in told.all()}
    near, far = (node.node_id for node in cluster.nodes)
    assert at["submit begins"] == near != far == at["run begins"]
    assert at["submit add"] == near and "run add" not in at


# -- setting it up -----------------------------------------------------------------------------------------------------


def test_row_75_opentelemetry_a_worker_goes_on_without_a_setup_that_fails():
    instrument("row75_no_such_module:setup")
    try:
        assert zmreg.remote(lambda x: x + 1).remote(1).get(timeout=T) == 2
    finally:
        uninstrument()


def test_row_75_opentelemetry_a_worker_that_ends_in_peace_sends_what_it_still_has(tmp_path: Path):
    file = tmp_path / "spans"
    instrument(writing_to(str(file), at_once=False))
    try:
        plain = Plain.remote()
        assert plain.add.remote(1).get(timeout=T) == 2 and not file.exists()
    finally:
        uninstrument()
    del plain
    until(lambda: file.exists() and "run Plain.add" in file.read_text(), "the spans never came")


def test_row_75_opentelemetry_is_instrumented_once_and_told_what_is_no_setup(told: Told):
    with pytest.raises(RuntimeError, match="zmreg.intercept"):
        instrument()
    uninstrument()
    uninstrument()
    for wrong, kind in (("module", ValueError), (":f", ValueError), (3, TypeError)):
        with pytest.raises(kind, match="setup"):
            instrument(wrong)  # type: ignore[arg-type]
    with told.root():
        assert leaf.remote().get(timeout=T) == (0, NONE)
    assert [span["name"] for span in told.all()] == ["root"]


def test_row_75_opentelemetry_is_what_rays_hook_sets_up(monkeypatch: pytest.MonkeyPatch):
    from zmreg.integrations import ray

    called = []
    monkeypatch.setattr(zmreg, "init", lambda *_: called.append("init"))
    monkeypatch.setattr("gc.collect", lambda: called.append("hook"))
    ray.init(_tracing_startup_hook="gc:collect")
    try:
        assert called == ["hook", "init"]
        with pytest.raises(RuntimeError, match="zmreg.intercept"):
            instrument()
    finally:
        uninstrument()


def test_row_75_opentelemetry_not_installed_says_what_to_install(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "opentelemetry.context", None)
    monkeypatch.delitem(sys.modules, "zmreg.integrations.opentelemetry")
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'zmreg\[otel\]'"):
        importlib.import_module("zmreg.integrations.opentelemetry")
