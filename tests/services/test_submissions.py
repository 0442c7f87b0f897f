"""The head's list of submitted jobs, their logs and their wardens: row 76, without a cluster."""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.services.test_ledger import CLUSTER, NODE, settled
from zmreg.core.actors import ActorBook
from zmreg.model.errors import ProtocolError
from zmreg.model.job_messages import ENDED, GONE, PENDING, RUNNING, JobNoted
from zmreg.model.specs import ActorEntry
from zmreg.services.head.ledger import open_ledger
from zmreg.services.head.submissions import ENDED_KEPT, Submission, Submissions
from zmreg.services.machine.job_logs import OVER, SEGMENTS, WARDEN, JobLog, page

ACTOR = b"a" * 16
PATIENCE_S = 20.0


def word(stage: int, note: str = "{}", job_id: str = "nightly", tail: bytes = b"") -> JobNoted:
    return JobNoted(job_id, ACTOR, stage, note, tail)


def alive(actor_id: bytes = ACTOR) -> ActorBook:
    book = ActorBook()
    book.create(ActorEntry(actor_id, actor_id[:8]), 0.0)
    return book


ALIVE = alive()


def stand(jobs: Submissions, job_id: str = "nightly") -> tuple[int, str]:
    row = jobs.row(job_id)
    assert row is not None
    return row["stage"], row["note"]


# -- the list ----------------------------------------------------------------------------------------------------------


def test_row_76_a_job_goes_only_forward_and_its_end_is_final() -> None:
    jobs = Submissions()
    jobs.noted(word(RUNNING, "runs"), ALIVE)
    jobs.noted(word(PENDING, "waits"), ALIVE)  # the submitter's word, which was slower
    assert stand(jobs) == (RUNNING, "runs")
    jobs.noted(word(ENDED, "done", tail=b"the end"), ALIVE)
    jobs.noted(word(ENDED, "stopped"), ALIVE)
    jobs.noted(word(RUNNING, "again"), ALIVE)
    assert stand(jobs) == (ENDED, "done") and (jobs.row("nightly") or {})["tail"] == b"the end"
    jobs.noted(word(GONE), ALIVE)
    assert jobs.row("nightly") is None


def test_row_76_only_what_is_over_is_forgotten() -> None:
    jobs = Submissions()
    jobs.noted(word(RUNNING), ALIVE)
    jobs.noted(word(GONE), ALIVE)
    assert stand(jobs)[0] == RUNNING


def test_row_76_a_job_ends_with_the_actor_that_looks_after_it() -> None:
    jobs, actors = Submissions(), alive()
    jobs.noted(word(PENDING), actors)
    jobs.settle(actors)
    assert stand(jobs)[0] == PENDING
    actors.unplaceable(ACTOR, b"no node has 9 CPUs")
    jobs.settle(actors)
    row = jobs.row("nightly")
    assert row is not None and row["stage"] == ENDED and row["fate"] == "no node has 9 CPUs" and row["noticed"] > 0


def test_row_76_a_late_word_of_a_forgotten_job_is_nothing_to_the_next_of_its_name() -> None:
    jobs, actors, other = Submissions(), alive(), b"b" * 16
    actors.kill(ACTOR)
    jobs.noted(word(RUNNING), actors)
    assert jobs.row("nightly") is None
    actors.create(ActorEntry(other, other[:8]), 0.0)
    jobs.noted(JobNoted("nightly", other, PENDING, "next", b""), actors)
    jobs.noted(word(ENDED, "late"), actors)
    assert stand(jobs) == (PENDING, "next")


@pytest.mark.parametrize("job_id", ["", "../etc", "a/b", ".hidden", "a" * 65, "a\n", "a b"])
def test_row_76_an_id_is_never_a_path(job_id: str) -> None:
    with pytest.raises(ProtocolError):
        Submissions().noted(word(RUNNING, job_id=job_id), ALIVE)


def test_row_76_what_is_kept_is_bounded() -> None:
    jobs, forgotten = Submissions(), []
    jobs.changed = lambda job: forgotten.append(job.job_id) if job.stage == GONE else None
    jobs.noted(word(RUNNING, job_id="runs"), ALIVE)
    for number in range(ENDED_KEPT + 2):
        jobs.noted(word(ENDED, job_id=f"j{number}"), ALIVE)
    assert forgotten == ["j0", "j1"] and stand(jobs, "runs")[0] == RUNNING
    for large in (word(RUNNING, "x" * (1 << 17), "x"), word(RUNNING, job_id="x", tail=bytes(1 << 17))):
        with pytest.raises(ProtocolError):
            jobs.noted(large, ALIVE)


def test_row_76_the_list_comes_in_pages() -> None:
    jobs, found, start = Submissions(), [], 0
    for number in range(60):
        jobs.noted(word(ENDED, "x" * 60_000, f"j{number}"), ALIVE)
    while True:
        answer = jobs.page(str(start))
        found += [row["job_id"] for row in answer["rows"]]
        start = answer["next"]
        if not start:
            break
        assert len(answer["rows"]) < 20
    assert found == [f"j{number}" for number in range(60)]


def test_row_76_the_next_head_knows_the_jobs(tmp_path: Path) -> None:
    first = open_ledger(tmp_path, CLUSTER, NODE)
    jobs = Submissions()
    jobs.changed = first.submission
    jobs.noted(word(RUNNING, "one"), ALIVE)
    jobs.noted(word(ENDED, "two", "weekly", b"tail"), ALIVE)
    jobs.noted(word(ENDED, "three", "old"), ALIVE)
    assert settled(first) == ""
    jobs.noted(word(ENDED, "ended", tail=b"its log"), ALIVE)
    jobs.noted(word(GONE, job_id="old"), ALIVE)
    first.close()
    second = open_ledger(tmp_path, CLUSTER, b"next\0\0\0\0")
    again = Submissions()
    again.restore(second.submissions)
    second.close()
    assert [(each.job_id, each.note, each.tail) for each in second.submissions] == [
        ("nightly", "ended", b"its log"), ("weekly", "two", b"tail"),
    ]  # fmt: skip
    assert all(isinstance(each, Submission) for each in second.submissions)
    again.noted(word(RUNNING, "late"), ALIVE)
    assert stand(again) == (ENDED, "ended")


# -- the log -----------------------------------------------------------------------------------------------------------


def test_row_76_a_log_is_bounded_and_read_on_by_its_first_offsets(tmp_path: Path) -> None:
    assert page(tmp_path, 0, 100) is None
    log = JobLog(tmp_path, segment_bytes=1_000)
    whole = b"".join(b"line %06d\n" % number for number in range(1_000))
    for start in range(0, len(whole), 120):
        log.write(whole[start : start + 120])
    log.close()
    files = list(tmp_path.iterdir())
    assert len(files) == SEGMENTS and sum(path.stat().st_size for path in files) < 2_400
    read, offset, first = b"", 0, 0
    while True:
        found = page(tmp_path, offset, 500)
        assert found is not None
        first = found["start"] if not read else first
        read += found["data"]
        offset = found["next"]
        if offset == found["size"]:
            break
    assert found["size"] == len(whole) and read == whole[first:] and len(read) > 1_000
    end = page(tmp_path, -24, 500)
    assert end is not None and end["data"] == whole[-24:]
    past = page(tmp_path, 10**9, 500)
    assert past is not None and past["data"] == b"" and past["next"] == len(whole)


# -- the warden --------------------------------------------------------------------------------------------------------


class Ward:
    """A warden of ours, and what it says."""

    def __init__(self, directory: Path, script: str) -> None:
        self.directory = directory
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-c", WARDEN], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            start_new_session=True, env={"PYTHONPATH": str(Path(__file__).parents[2])},
        )  # fmt: skip
        command = ["/bin/sh", "-c", script]
        env = {"PATH": os.environ["PATH"]}
        self.say(json.dumps({"command": command, "directory": str(directory), "cwd": str(directory), "env": env}))

    def say(self, line: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{line}\n".encode())
        self.process.stdin.flush()

    def hear(self) -> list[str]:
        assert self.process.stdout is not None
        ready, _, _ = select.select([self.process.stdout], [], [], PATIENCE_S)
        assert ready, "the warden said nothing"
        return self.process.stdout.readline().decode().split()

    def printed(self, count: int) -> list[str]:
        """Its first lines, as soon as they are there."""
        return until(lambda: lines if len(lines := self.log().split()) >= count else None)

    def log(self) -> str:
        found = page(self.directory, 0, 1 << 20)
        return found["data"].decode() if found else ""

    def close(self) -> None:
        with contextlib.suppress(BrokenPipeError), self.process:
            self.process.kill()


def until(found: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + PATIENCE_S
    while not (answer := found()):
        assert time.monotonic() < deadline, "it never came"
        select.select([], [], [], 0.01)
    return answer


@pytest.fixture
def wards(tmp_path: Path) -> Iterator[Callable[[str], Ward]]:
    with contextlib.ExitStack() as closing:

        def make(script: str) -> Ward:
            made = Ward(tmp_path, script)
            closing.callback(made.close)
            return made

        yield make


def test_row_76_a_program_that_ends_takes_what_it_has_left_with_it(wards: Callable[[str], Ward]) -> None:
    ward = wards(
        "setsid sleep 600 & echo $!; trap '' TERM; sh -c 'trap \"\" TERM; echo $$; sleep 600' & sleep 0.3; exit 4"
    )
    assert ward.hear()[0] == "started"
    pids = [int(text) for text in ward.printed(2)]
    assert ward.hear() == ["ended", str(4 << 8), "alone"]
    assert ward.process.wait(PATIENCE_S) == 0
    assert not [pid for pid in pids if psutil.pid_exists(pid)] and (ward.directory / OVER).exists()


def test_row_76_stop_is_sigterm_and_then_sigkill_for_the_whole_group(wards: Callable[[str], Ward]) -> None:
    ward = wards(
        "trap 'echo told' TERM; sh -c 'trap \"\" TERM; echo $$; sleep 600' & echo $!; while :; do sleep 0.05; done"
    )
    pid = int(ward.hear()[1])
    pids = [pid, *(int(text) for text in ward.printed(2))]
    ward.say("stop 0.4")
    assert ward.hear() == ["ended", "9", "stopped"]
    assert "told" in ward.log()
    assert not [each for each in pids if psutil.pid_exists(each)]


def test_row_76_a_program_without_its_supervisor_is_ended(wards: Callable[[str], Ward]) -> None:
    ward = wards("echo $$; exec sleep 600")
    pid = int(ward.printed(1)[0])
    assert ward.process.stdin is not None
    ward.process.stdin.close()
    assert ward.process.wait(PATIENCE_S) == 0
    assert not psutil.pid_exists(pid)
