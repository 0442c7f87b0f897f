"""A node and what its workers print: whom it asks whose that is, and who gets it, whoever is gone by then."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from zmreg.model.ask_messages import CallersOf, LogLines, WhoseCalls
from zmreg.model.ids import new_driver_id, new_node_id, object_id, worker_id
from zmreg.services.node.printed import Printed
from zmreg.services.node.spoken import PATIENCE_S, Spoken
from zmreg.services.worker.voice import mark

HERE, THERE = new_node_id(), new_node_id()
MINE, OTHER = new_driver_id(THERE), new_driver_id(HERE)
TALKS, ASKS, FAR = worker_id(HERE, 1), worker_id(HERE, 2), worker_id(THERE, 1)
ROOT = object_id(MINE, 5)


class Stage:
    """A node with one worker, which serves the program MINE of another node and prints; OTHER has a seat here."""

    def __init__(self, tmp_path: Path, job: bytes = MINE) -> None:
        self.said: list[tuple[bytes, Any]] = []
        self.printed = Printed(tmp_path)
        self.printed.begin(TALKS)
        children = {worker: SimpleNamespace(name="talk", pid=7) for worker in (TALKS, ASKS)}
        self.node: Any
        self.node = SimpleNamespace(
            me=HERE,
            settings=SimpleNamespace(log_to_driver=True, log_bytes_per_worker=1 << 20),
            nursery=SimpleNamespace(printed=self.printed, children=children),
            leases=SimpleNamespace(holder=lambda worker: b"", job_of=lambda worker: job),
            clients={OTHER: SimpleNamespace(role="driver")},
            neighbours=object(),
            is_founder=lambda hello: False,
            post=self.post,
        )
        self.spoken = Spoken(self.node, 1 << 20)

    def post(self, peer: bytes, message: Any) -> bool:
        self.said.append((peer, message))
        return True

    def prints(self, task: bytes, text: str) -> None:
        with self.printed.path(TALKS).open("ab") as log:
            log.write(mark(task, "talk") + text.encode() + b"\n")

    def heard(self) -> list[tuple[bytes, Any]]:
        said, self.said[:] = list(self.said), []
        return said


def told(task: bytes, text: str) -> tuple[bytes, LogLines]:
    return MINE, LogLines(f"talk pid=7 node={HERE.hex()[:8]}", f"{text}\n", 0, task)


def test_row73_a_worker_in_between_is_asked_and_never_given_the_lines(tmp_path: Path) -> None:
    stage = Stage(tmp_path)
    stage.prints(object_id(FAR, 3), "nested")
    stage.prints(ROOT, "plain")
    stage.spoken.tick(0.0)
    assert stage.heard() == [told(ROOT, "plain"), (FAR, WhoseCalls((object_id(FAR, 3),)))]
    stage.spoken.on_callers(CallersOf((object_id(FAR, 3),), (object_id(ASKS, 1),)))
    assert stage.heard() == [(ASKS, WhoseCalls((object_id(ASKS, 1),)))]
    stage.spoken.on_callers(CallersOf((object_id(ASKS, 1),), (ROOT,)))
    assert stage.heard() == [told(ROOT, "nested")]


def test_row73_lines_outlive_a_worker_in_between_that_was_ended_when_it_had_nothing_to_do(tmp_path: Path) -> None:
    """Its lease had been given back by then, so nobody knew whom it had served, and the lines were dropped."""
    stage = Stage(tmp_path)
    del stage.node.nursery.children[ASKS]
    stage.prints(object_id(ASKS, 1), "here")
    stage.spoken.tick(0.0)
    assert stage.heard() == [told(b"", "here")]
    stage.prints(object_id(FAR, 1), "far")
    stage.spoken.tick(0.2)
    stage.heard()
    stage.spoken.on_callers(CallersOf((object_id(FAR, 1),), (b"",)))  # its node says so
    assert stage.heard() == [told(b"", "far")]


def test_row73_lines_outlive_a_worker_in_between_that_dies_with_the_question(tmp_path: Path) -> None:
    stage = Stage(tmp_path)
    for text, end in (("one", FAR), ("two", THERE[:4])):
        stage.prints(object_id(FAR, 1), text)
        stage.spoken.tick(0.0)
        stage.heard()
        stage.spoken.gone(end)
        assert stage.heard() == [told(b"", text)]


def test_row73_a_worker_in_between_that_stands_still_holds_up_nothing_for_long(tmp_path: Path) -> None:
    stage = Stage(tmp_path)
    stage.prints(object_id(FAR, 1), "late")
    stage.spoken.tick(0.0)
    stage.heard()
    stage.spoken.tick(float("inf"))
    assert PATIENCE_S < 1 and stage.heard() == [told(b"", "late")]


def test_row73_the_answer_to_a_program_that_ends_comes_behind_its_lines(tmp_path: Path) -> None:
    """The node had answered at once, and lines that a worker had to pass on came when nobody listened."""
    stage = Stage(tmp_path)
    stage.prints(object_id(FAR, 1), "nested")
    stage.spoken.tick(0.0)  # read already when it asks
    stage.heard()
    stage.spoken.finish(lambda: stage.said.append((MINE, "answer")))
    assert stage.heard() == []
    stage.spoken.on_callers(CallersOf((object_id(FAR, 1),), (ROOT,)))
    assert stage.heard() == [told(ROOT, "nested"), (MINE, "answer")]
    stage.spoken.finish(lambda: stage.said.append((MINE, "answer")))
    assert stage.heard() == [(MINE, "answer")], "there is nothing"


def test_row73_what_is_left_at_the_end_is_read_in_several_turns(tmp_path: Path) -> None:
    stage = Stage(tmp_path)
    for number in range(4):
        stage.prints(ROOT, f"{number} " + "x" * 40_000)
    stage.spoken.finish(lambda: stage.said.append((MINE, "answer")))
    *lines, last = stage.heard()
    text = "".join(message.text for _, message in lines)
    assert [line[0] for line in text.splitlines()] == ["0", "1", "2", "3"] and last == (MINE, "answer")


def test_row73_of_a_cluster_of_ones_own_it_is_the_programs_that_started_it(tmp_path: Path) -> None:
    stage = Stage(tmp_path, job=b"")
    stage.node.neighbours = None
    second = new_driver_id(HERE)
    stage.node.clients[second] = SimpleNamespace(role="driver")
    stage.node.leases.holder = lambda worker: ASKS
    stage.node.is_founder = lambda hello: hello is stage.node.clients[OTHER]
    del stage.node.nursery.children[ASKS]
    stage.prints(object_id(ASKS, 1), "own")
    stage.spoken.tick(0.0)
    assert stage.heard() == [(OTHER, LogLines("talk pid=7", "own\n", 0, b""))]
    stage.node.leases.holder = lambda worker: b""
    stage.node.is_founder = lambda hello: False
    stage.prints(object_id(ASKS, 1), "nobody's")
    stage.spoken.tick(0.2)
    assert [peer for peer, _ in stage.heard()] == [OTHER, second]
