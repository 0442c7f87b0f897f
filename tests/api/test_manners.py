"""Row 8, 73 and C19: how a call is shown where it runs, as its caller says: its name, its labels, whether at all."""

from __future__ import annotations

import queue
import re
import threading
import time
from pathlib import Path

import pytest

import zmreg
from zmreg.model.messages import LogLines
from zmreg.services.calling.manners import PLAIN, Manner, manner_of, read, written
from zmreg.services.seat.client import current
from zmreg.store.board import NOTE_BYTES, Board, described, read_board, showing
from zmreg.tools.cli.looking import _text

pytestmark = pytest.mark.usefixtures("cluster")
T = 30


def title() -> str:
    return Path("/proc/self/comm").read_text().rstrip("\n")


@zmreg.remote
def holds(path: str) -> str:
    Path(path).touch()
    while not Path(path + ".go").exists():
        time.sleep(0.01)
    return title()


@zmreg.remote
def titled() -> str:
    return title()


def appears(path: Path) -> None:
    deadline = time.monotonic() + T
    while not path.exists():
        assert time.monotonic() < deadline, f"{path} never came"
        time.sleep(0.01)


# -- what is said ------------------------------------------------------------------------------------------------------


def test_row8_a_manner_is_read_as_it_was_written():
    for options in (
        {"name": "mine"},
        {"quiet": True},
        {"enable_task_events": False},
        {"_labels": {"team": "red", "a": ""}},
        {"name": "a\0b", "quiet": True, "enable_task_events": False, "_labels": {"k\0": "v"}},
    ):
        manner = manner_of(options, "own")
        assert manner != PLAIN and read(written(manner)) == manner
    assert manner_of({"name": "own", "quiet": False, "enable_task_events": True, "_labels": {}}, "own") == PLAIN
    assert written(PLAIN) == b"" and read(b"") == PLAIN and read(b"\xff\0") == PLAIN
    cut = written(Manner("n", labels=(("a", "1"), ("b", "2"))))[:-2]
    assert read(cut).labels == (("a", "1"),), "a label that is cut is left out"


def test_row8_a_board_describes_one_task_or_all(tmp_path: Path):
    board, path = Board(tmp_path / "now"), tmp_path / "now"
    one, other = b"1" * 16, b"2" * 16
    board.show(one)
    assert described(path, one) == b"" and described(tmp_path / "none", one) == b""
    board.describe(one, b"note")
    assert described(path, one) == b"note" and described(path, other) == b"" and showing(path) == one
    board.describe(other, b"x" * 10_000)
    assert described(path, one) == b"" and described(path, other) == b"x" * NOTE_BYTES
    board.describe(b"", b"all")
    assert described(path, one) == described(path, other) == b"all"
    board.stored(other)
    words = read_board(path)
    assert words.running == one and words.sealed == (other,), "after a death, what is described is nothing of these"


@pytest.mark.parametrize(
    ("options", "kind"),
    [
        ({"quiet": 1}, TypeError),
        ({"enable_task_events": None}, TypeError),
        ({"_labels": ["a"]}, TypeError),
        ({"_labels": {"a": 1}}, TypeError),
        ({"_labels": {"a": "x" * 600}}, ValueError),
    ],
)
def test_row8_what_makes_no_sense_is_refused_where_it_is_said(options, kind):
    with pytest.raises(kind, match=next(iter(options))):
        titled.options(**options)
    with pytest.raises(kind, match=next(iter(options))):
        zmreg.remote(**options)(type("Some", (), {}))


# -- shown -------------------------------------------------------------------------------------------------------------


def test_row8_a_name_stands_in_lists_stacks_and_the_title(tmp_path: Path):
    paths = [tmp_path / "named", tmp_path / "unlisted"]
    named = holds.options(name="shown", _labels={"team": "red"}).remote(str(paths[0]))
    unlisted = holds.options(enable_task_events=False).remote(str(paths[1]))
    for path in paths:
        appears(path)
    rows = [row for row in current().ask("tasks") if row["Type"] == "TASK"]
    assert [(row["Name"], row["Labels"]) for row in rows] == [("shown", {"team": "red"})], "the other asked not to be"
    import zlib

    from zmreg.wire import batches

    stacks = batches.unpack_plain(zlib.decompress(current().ask("stacks", timeout=T)))
    (stack,) = [row for row in stacks if row["Pid"] == rows[0]["Pid"]]
    assert stack["Task"] == "shown" and f"worker in shown pid={stack['Pid']}" in _text([stack])
    for path in paths:
        Path(str(path) + ".go").touch()
    assert named.get(timeout=T) == "shown"
    before = unlisted.get(timeout=T)
    assert before != "shown" and set(zmreg.get([titled.remote() for _ in range(8)], timeout=T)) == {before}


def test_row8_a_call_knows_the_name_it_was_given():
    @zmreg.remote
    def asks():
        context = zmreg.get_runtime_context()
        return context.get_task_name(), context.get_task_function_name().rpartition(".")[2]

    assert asks.options(name="given").remote().get(timeout=T) == ("given", "asks")
    assert asks.remote().get(timeout=T)[1] == "asks"


def test_row8_a_name_stands_in_the_title_while_coroutines_and_generators_run():
    @zmreg.remote
    async def coroutine():
        import asyncio

        await asyncio.sleep(0)
        return title()

    @zmreg.remote
    def items():
        yield title()
        yield title()

    @zmreg.remote
    async def async_items():
        yield title()

    @zmreg.remote
    def fails():
        raise ValueError(title())

    before = titled.remote().get(timeout=T)
    assert coroutine.options(name="co").remote().get(timeout=T) == "co"
    assert [ref.get(timeout=T) for ref in items.options(name="some").remote()] == ["some"] * 2
    assert [ref.get(timeout=T) for ref in async_items.options(name="more").remote()] == ["more"]
    with pytest.raises(ValueError, match="fl") as raised:
        fails.options(name="fl").remote().get(timeout=T)
    assert "raised by fl " in str(raised.value)
    assert set(zmreg.get([titled.remote() for _ in range(8)], timeout=T)) == {before}


def test_row8_a_thousand_names_are_one_function_and_one_definition():
    @zmreg.remote
    def counts() -> tuple[int, int]:
        seen.append(1)
        worker = current()
        return len(seen), len(worker.callees)

    seen: list[int] = []
    seat, sent = current(), []
    post = seat.tasks.wires.post
    seat.tasks.wires.post = lambda peer, message: (sent.append(type(message).__name__), post(peer, message))[1]
    try:
        found = zmreg.get([counts.options(name=f"n{n}").remote() for n in range(1_000)], timeout=T)
    finally:
        seat.tasks.wires.post = post
    assert sent.count("Definition") <= 2, "once for each worker"
    assert sum(count == 1 for count, _ in found) <= 2, "and there it is the same function under each name"
    assert max(callees for _, callees in found) < 300


def test_row8_an_actor_is_titled_as_it_is_named_and_listed_unless_it_asks_not_to_be():
    @zmreg.remote
    class Hides:
        def title(self):
            return title()

    @zmreg.remote
    class Shows(Hides.__wrapped__):
        pass

    hides = Hides.options(name="hidden", enable_task_events=False).remote()
    shows = Shows.options(_labels={"a": "b"}).remote()
    assert hides.title.remote().get(timeout=T) == "hidden" and shows.title.remote().get(timeout=T) != "hidden"
    rows = {row["Name"]: row for row in current().ask("tasks") if row["Type"] == "ACTOR_TASK"}
    assert "Hides" not in rows and rows["Shows"]["Labels"] == {"a": "b"}
    for each in (hides, shows):
        each.close()


# -- quiet -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def lines(cluster):
    """(what has come to this program by now)."""
    seat, come = current(), queue.SimpleQueue()
    before, seat.show_log = seat.show_log, lambda _, message: come.put(message)

    def by_now() -> list[LogLines]:
        seat.ask("output", timeout=T)
        return [come.get() for _ in range(come.qsize())]

    yield by_now
    seat.show_log = before


@zmreg.remote
def talks(text: str) -> str:
    print(text)
    thread = threading.Thread(target=lambda: print(text, "of a thread"))
    thread.start()
    thread.join()
    return str(current().session / "logs" / f"{current().me.hex()}.log")


def test_C19_row73_what_a_quiet_call_prints_stays_in_the_log(lines):
    log = talks.options(quiet=True).remote("hushed").get(timeout=T)
    talks.remote("aloud").get(timeout=T)
    talks.options(name="other").remote("named").get(timeout=T)
    told = lines()
    text = "".join(each.text for each in told)
    assert "aloud\n" in text and "named of a thread" in text and "hushed" not in text
    assert {re.sub(" pid.*", "", each.source) for each in told} == {"talks", "other"}
    written_there = Path(log).read_text()
    assert "hushed\n" in written_there and "hushed of a thread" in written_there


def test_C19_what_a_quiet_call_calls_is_as_loud_as_it_says(lines):
    @zmreg.remote
    def outer():
        print("hushed")
        talks.remote("inner").get()
        print("hushed again")

    outer.options(quiet=True).remote().get(timeout=T)
    text = "".join(each.text for each in lines())
    assert "inner\n" in text and "hushed" not in text


def test_C19_a_quiet_actor_prints_nothing_here(lines):
    @zmreg.remote(quiet=True)
    class Quiet:
        def __init__(self):
            print("hushed")

        def talks(self):
            print("hushed too")

    actor = Quiet.remote()
    actor.talks.remote().get(timeout=T)
    assert not lines()
    actor.close()


# -- methods -----------------------------------------------------------------------------------------------------------


class Shown:
    def __init__(self, path: str):
        self.path = path

    def holds(self):
        return holds.__wrapped__(self.path)

    @zmreg.method(name="given")
    def asks(self):
        context = zmreg.get_runtime_context()
        return title(), context.get_task_name(), context.get_task_function_name().rpartition(".")[2]

    def plain(self):
        return title()

    @zmreg.method(quiet=True)
    def hushed(self, text: str):
        print(text)

    def says(self, text: str):
        print(text)

    @zmreg.method(release=True, name="lets go", quiet=True)
    def lets_go(self, text: str):
        print(text)
        first = title()
        value = yield zmreg.put(len(text))
        print(text)
        return first, value

    @zmreg.method(name="item")
    def items(self):
        yield title()


def test_row8_a_method_is_named_in_lists_stacks_and_the_title_while_it_runs(tmp_path: Path):
    path = tmp_path / "holds"
    actor = zmreg.remote(Shown).options(_labels={"a": "b"}).remote(str(path))
    plain = actor.plain.remote().get(timeout=T)
    ref = actor.holds.options(name="shown").remote()
    appears(path)
    (row,) = [row for row in current().ask("tasks") if row["Type"] == "ACTOR_TASK" and row["Labels"] == {"a": "b"}]
    assert row["Name"] == "shown", "with the actor's labels"
    import zlib

    from zmreg.wire import batches

    stacks = batches.unpack_plain(zlib.decompress(current().ask("stacks", timeout=T)))
    assert [stack["Task"] for stack in stacks if stack["Pid"] == row["Pid"]] == ["shown"]
    Path(str(path) + ".go").touch()
    assert ref.get(timeout=T) == "shown"
    assert actor.asks.remote().get(timeout=T) == ("given", "given", "asks")
    assert actor.asks.options(name="again").remote().get(timeout=T)[:2] == ("again", "again")
    assert actor.lets_go.remote("abc").get(timeout=T) == ("lets go", 3)
    assert [item.get(timeout=T) for item in actor.items.remote()] == ["item"]
    assert actor.plain.batch([(), ()])[1].get(timeout=T) == plain
    assert zmreg.get(actor.plain.options(name="one of many").batch([(), ()]), timeout=T) == ["one of many"] * 2
    assert actor.plain.remote().get(timeout=T) == plain, "and what follows is called as before"
    (row,) = [row for row in current().ask("tasks") if row["Labels"] == {"a": "b"}]
    assert row["Name"] == "Shown"
    hidden = actor.holds.options(enable_task_events=False).remote()
    assert hidden.get(timeout=T) == plain
    actor.close()


@pytest.mark.parametrize("options", [{}, {"max_concurrency": 4}, {"concurrency_groups": {"io": 2}}], ids=str)
def test_C19_what_a_quiet_method_prints_stays_in_the_log(lines, options):
    actor = zmreg.remote(Shown).options if not options else lambda **more: zmreg.remote(**options)(Shown)
    actor = actor(num_cpus=0).remote("")
    actor.hushed.remote("hushed").get(timeout=T)
    actor.hushed.options(quiet=False).remote("aloud").get(timeout=T)
    zmreg.get(actor.says.options(quiet=True).batch([("hushed",), ("hushed",)]), timeout=T)
    actor.says.remote("said").get(timeout=T)
    assert actor.lets_go.remote("hushed").get(timeout=T)[1] == 6
    if "concurrency_groups" in options:
        actor.says.options(quiet=True, name="@~*=", concurrency_group="io").remote("hushed").get(timeout=T)
    text = "".join(each.text for each in lines())
    assert "aloud\n" in text and "said\n" in text and "hushed" not in text
    actor.close()


def test_C19_what_a_quiet_coroutine_of_an_actor_prints_stays_in_the_log(lines):
    @zmreg.remote
    class Talks:
        @zmreg.method(quiet=True)
        async def hushed(self):
            print("hushed")
            import asyncio

            await asyncio.sleep(0)
            print("hushed")
            return title()

        async def says(self):
            print("said")

    actor = Talks.remote()
    refs = [ref for _ in range(3) for ref in (actor.hushed.remote(), actor.says.remote())]
    zmreg.get(refs, timeout=T)
    text = "".join(each.text for each in lines())
    assert text.count("said\n") >= 1 and "hushed" not in text
    actor.close()


def test_row8_a_thousand_names_of_a_method_leave_nothing_behind():
    class Counts:
        def callees(self):
            return len(current().callees)

    actor = zmreg.remote(Counts).remote()
    assert max(actor.callees.options(name=f"number {n}").remote().get(timeout=T) for n in range(300)) < 200
    actor.close()


@pytest.mark.parametrize(
    ("options", "kind"),
    [
        ({"quiet": 1}, TypeError), ({"name": 3}, TypeError), ({"release": 1}, TypeError), ({"batch": 1}, TypeError),
        ({"max_task_retries": -2}, ValueError), ({"retry_exceptions": 3}, TypeError), ({"loud": True}, ValueError),
        ({"concurrency_group": 1}, TypeError),
    ],
)  # fmt: skip
def test_row42_options_of_a_method_are_checked_where_they_are_said(options, kind):
    with pytest.raises(kind, match=next(iter(options))):
        zmreg.method(**options)


def test_row42_a_method_may_be_decorated_without_options():
    class Plain:
        @zmreg.method
        def add(self, amount: int) -> int:
            return amount + 1

    assert Plain().add(1) == 2
    handle = zmreg.remote(Plain).remote()
    assert zmreg.typed(handle) is handle and zmreg.typed(handle).add.remote(1).get(timeout=T) == 2
    handle.close()
    for wrong in (lambda: zmreg.method(Plain.add, quiet=True), lambda: zmreg.method(3), lambda: zmreg.typed(Plain)):
        with pytest.raises(TypeError, match="zmreg"):
            wrong()
