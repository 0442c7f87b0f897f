"""Test processes take turns: threads stand for them here, since each `taken` opens the locks anew."""

from __future__ import annotations

import threading
from pathlib import Path

from tests.footprint import is_locked
from tests.processes.drivers import eventually
from tests.turns import Turns


def test_who_wants_to_be_alone_waits_for_the_others_and_those_who_come_later_wait_for_them(tmp_path: Path) -> None:
    turns, story, leave = Turns(tmp_path), [], threading.Event()

    def visit(name: str, alone: bool) -> None:
        with turns.taken(alone):
            story.append(name)
            if name == "first":
                leave.wait(10)

    def come(name: str, alone: bool = False) -> threading.Thread:
        thread = threading.Thread(target=visit, args=(name, alone))
        thread.start()
        return thread

    threads = [come("first")]
    eventually(lambda: story == ["first"], 10, "nobody is in")
    come("beside").join(10)
    assert story == ["first", "beside"], "who does not mind others goes in beside them"
    threads.append(come("alone", alone=True))
    eventually(lambda: is_locked(tmp_path / "door"), 10, "it does not wait at the door")
    threads += [come("later") for _ in range(3)]
    assert story == ["first", "beside"]
    leave.set()
    for thread in threads:
        thread.join(10)
    assert story == ["first", "beside", "alone", "later", "later", "later"]
