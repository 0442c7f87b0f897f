"""Actors: creation, class rules, resources, order of calls, handles, hooks (core-api rows 30-34, 42, 43, X30, C23)."""

from __future__ import annotations

import copy
import gc
import os
import threading
import time
from typing import Any

import pytest

import zmreg
from tests.api.objects_help import eventually
from zmreg.model.errors import ActorDiedError, GetTimeoutError, PendingCallsLimitError

pytestmark = pytest.mark.usefixtures("cluster")
T = 30


@zmreg.remote
class Counter:
    """Counts, and tells in what order it was told to."""

    kind = "counter"

    def __init__(self, start: int = 0) -> None:
        self.value = start
        self.log: list[Any] = []

    def inc(self, by: int = 1) -> int:
        self.value += by
        return self.value

    def note(self, what: Any) -> Any:
        self.log.append(what)
        return what

    def read(self) -> list[Any]:
        return self.log

    @staticmethod
    def twice(x: int) -> int:
        return 2 * x

    @classmethod
    def what(cls) -> str:
        return cls.kind

    def pair(self) -> tuple[int, int]:
        return 1, 2

    @zmreg.method(num_returns=2)
    def two(self) -> tuple[str, str]:
        return "a", "b"


@zmreg.remote(num_cpus=0)
class Gate:
    """An event that tasks can wait for without a sleep: `passed` is answered once `open` was called."""

    def __init__(self) -> None:
        import asyncio

        self.event = asyncio.Event()
        self.arrived = 0

    async def passed(self, value: Any = None) -> Any:
        self.arrived += 1
        await self.event.wait()
        return value

    async def open(self) -> int:
        self.event.set()
        return self.arrived


@zmreg.remote(num_cpus=0)
class Witness:
    """Remembers what it was told."""

    def __init__(self) -> None:
        self.seen: list[Any] = []

    def tell(self, what: Any) -> None:
        self.seen.append(what)

    def all(self) -> list[Any]:
        return self.seen


def gone(handle: Any) -> ActorDiedError:
    """Wait until calls fail because the actor is dead."""
    while True:
        error = handle.__ray_ready__.remote().exception(timeout=T)
        if isinstance(error, ActorDiedError):
            return error


# -- 30: creation ------------------------------------------------------------------------------------------------------


def test_row30_a_handle_at_once_and_state_kept_between_calls():
    counter = Counter.remote(5)
    refs = [counter.inc.remote() for _ in range(3)]
    assert zmreg.get(refs, timeout=T) == [6, 7, 8]


def test_row30_the_constructor_runs_later_than_remote():
    gate = Gate.remote()

    @zmreg.remote
    class Slow:
        def __init__(self, gate: Any) -> None:
            self.value = gate.passed.remote("through").get(timeout=T)

        def get(self) -> str:
            return self.value

    slow = Slow.remote(gate)  # would never return if it waited for the constructor
    value = slow.get.remote()
    assert not value.done()
    gate.open.remote()
    assert value.get(timeout=T) == "through"


def test_row30_constructor_error_surfaces_on_calls_with_its_traceback():
    @zmreg.remote
    class Broken:
        def __init__(self) -> None:
            raise KeyError("no such thing")

        def m(self) -> None: ...

    broken = Broken.remote()
    for error in (broken.m.remote().exception(timeout=T), broken.m.remote().exception(timeout=T)):
        assert isinstance(error, ActorDiedError)
        assert error.init_failed and error.actor_init_failed  # the second is Ray's name
        assert isinstance(error.cause, KeyError)
        assert "no such thing" in str(error)
        assert 'raise KeyError("no such thing")' in str(error)
        assert "Broken" in str(error)


def test_row30_trap_calls_queued_behind_a_failed_constructor_do_not_hang():
    gate = Gate.remote()

    @zmreg.remote
    class Broken:
        def __init__(self, gate: Any) -> None:
            gate.passed.remote().get(timeout=T)
            raise ValueError("late")

        def m(self) -> None: ...

    broken = Broken.remote(gate)
    queued = [broken.m.remote() for _ in range(50)]
    gate.open.remote()
    assert all(isinstance(ref.exception(timeout=T), ActorDiedError) for ref in queued)


def test_row30_bad_constructor_arity_raises_at_the_call():
    with pytest.raises(TypeError, match="Counter"):
        Counter.remote(1, 2, 3)
    with pytest.raises(TypeError, match="begin"):
        Counter.remote(begin=1)


def test_row30_a_constructor_argument_may_be_a_ref_that_is_not_there_yet():
    gate = Gate.remote()
    counter = Counter.remote(gate.passed.remote(10))
    value = counter.inc.remote()  # asks where the actor is before it could have been made
    gate.open.remote()
    assert value.get(timeout=T) == 11


def test_row30_a_handle_is_good_elsewhere_before_the_constructor_could_start():
    gate = Gate.remote()
    counter = Counter.remote(gate.passed.remote(10))

    @zmreg.remote
    def use(handles: list[Any]) -> int:
        return handles[0].inc.remote().get(timeout=T)

    value = use.remote([counter])
    with pytest.raises(GetTimeoutError):
        value.get(timeout=0.3)
    gate.open.remote()
    assert value.get(timeout=T) == 11


def test_row30_a_failed_constructor_argument_fails_the_actor_with_the_first_cause():
    @zmreg.remote
    def bad() -> int:
        raise ZeroDivisionError("upstream")

    counter = Counter.remote(bad.remote())
    error = counter.inc.remote().exception(timeout=T)
    assert isinstance(error, ActorDiedError)
    assert error.init_failed
    assert isinstance(error.cause, ZeroDivisionError)


def test_row30_large_arguments_of_constructor_and_call():
    blob = bytes(range(256)) * 4_000

    @zmreg.remote
    class Holder:
        def __init__(self, data: bytes, more: bytes) -> None:
            self.data = data + more

        def size(self, other: bytes) -> int:
            return len(self.data) + len(other)

    holder = Holder.remote(blob, zmreg.put(blob))
    assert holder.size.remote(blob).get(timeout=T) == 3 * len(blob)


# -- 31: class rules ---------------------------------------------------------------------------------------------------


def test_row31_direct_use_is_a_type_error_with_advice():
    with pytest.raises(TypeError, match=r"Counter\.remote"):
        Counter()
    with pytest.raises(TypeError, match="cannot be subclassed"):

        class Sub(Counter): ...

    with pytest.raises(TypeError, match=r"inc\.remote"):
        Counter.remote().inc()


def test_row31_unknown_method_is_an_attribute_error_at_once():
    counter = Counter.remote()
    with pytest.raises(AttributeError, match="Counter has no method 'dec'.*keeps the class"):
        _ = counter.dec
    assert not hasattr(counter, "dec")


def test_row31_inherited_static_class_methods_and_no_init():
    class Base:
        def hello(self) -> str:
            return f"hello from {type(self).__name__}"

    @zmreg.remote
    class Child(Base):
        extra = 3

        def plus(self) -> int:
            return self.extra

        def hello(self) -> str:
            return super().hello() + "!"

    child = Child.remote()
    assert child.hello.remote().get(timeout=T) == "hello from Child!"
    assert child.plus.remote().get(timeout=T) == 3
    counter = Counter.remote()
    assert zmreg.get([counter.twice.remote(4), counter.what.remote()], timeout=T) == [8, "counter"]


def test_row31_redefined_classes_of_one_name_do_not_collide():
    def make(answer: int) -> Any:
        @zmreg.remote
        class Same:
            def m(self) -> int:
                return answer

        return Same

    actors = [make(n).remote() for n in range(3)]
    assert [actor.m.remote().get(timeout=T) for actor in actors] == [0, 1, 2]


def test_row31_wrong_arguments_of_a_method_raise_at_the_call():
    counter = Counter.remote()
    with pytest.raises(TypeError, match=r"Counter\.inc"):
        counter.inc.remote(1, 2, 3)
    assert counter.inc.remote(by=2).get(timeout=T) == 2


def test_row31_options_leave_the_class_alone_and_unknown_ones_are_listed():
    with pytest.raises(ValueError, match="max_restarts"):
        Counter.options(max_restart=1)
    with pytest.raises(ValueError, match="max_concurrency"):
        Counter.options(max_concurrency=0)
    assert Counter.options(num_cpus=0) is not Counter


def test_row31_errors_in_a_method_do_not_end_the_actor():
    @zmreg.remote
    class Touchy:
        def m(self, bad: bool) -> str:
            if bad:
                raise LookupError("bad")
            return "fine"

    touchy = Touchy.remote()
    with pytest.raises(LookupError, match="bad"):
        touchy.m.remote(True).get(timeout=T)
    assert touchy.m.remote(False).get(timeout=T) == "fine"


# -- 32: resources -----------------------------------------------------------------------------------------------------


def test_row32_idle_actors_hold_no_cpu():
    actors = [Counter.remote(n) for n in range(6)]  # three times the CPUs of this cluster
    assert zmreg.get([actor.inc.remote() for actor in actors], timeout=T) == [1, 2, 3, 4, 5, 6]

    @zmreg.remote(num_cpus=2)
    def all_of_them() -> str:
        return "there"

    assert all_of_them.remote().get(timeout=T) == "there"


def test_row32_a_given_resource_is_held_for_life():
    first, second = (Counter.options(num_cpus=1).remote() for _ in range(2))
    zmreg.get([first.inc.remote(), second.inc.remote()], timeout=T)
    eventually(lambda: zmreg.available_resources().get("CPU", 0) == 0, "of another node it is known a moment later")
    third = Counter.options(num_cpus=1).remote()
    value = third.inc.remote()
    with pytest.raises(GetTimeoutError):
        value.get(timeout=0.3)
    del first
    gc.collect()
    assert value.get(timeout=T) == 1


# -- 33: order ---------------------------------------------------------------------------------------------------------


def test_row33_one_callers_order_is_kept_even_behind_a_slow_argument():
    gate, counter = Gate.remote(), Counter.remote()
    refs = [counter.note.remote(gate.passed.remote("slow"))]
    refs += [counter.note.remote(n) for n in range(20)]
    assert not any(ref.done() for ref in refs)
    gate.open.remote()
    zmreg.get(refs, timeout=T)
    assert counter.read.remote().get(timeout=T) == ["slow", *range(20)]


def test_row33_trap_one_callers_slow_argument_never_delays_another_caller():
    gate, counter = Gate.remote(), Counter.remote()
    slow = counter.note.remote(gate.passed.remote("mine"))

    @zmreg.remote
    def other(handle: Any) -> str:
        return handle.note.remote("other").get(timeout=T)

    assert other.remote(counter).get(timeout=T) == "other"
    assert not slow.done()
    gate.open.remote()
    assert slow.get(timeout=T) == "mine"
    assert counter.read.remote().get(timeout=T) == ["other", "mine"]


def test_row33_order_of_many_pipelined_calls():
    counter = Counter.remote()
    refs = [counter.note.remote(n) for n in range(2_000)]
    assert counter.read.remote().get(timeout=T) == list(range(2_000))
    assert zmreg.get(refs, timeout=T) == list(range(2_000))


def test_row33_a_chain_of_calls_on_one_actor_rides_in_order():
    counter = Counter.remote()
    ref = counter.inc.remote()
    for _ in range(50):
        ref = counter.inc.remote(ref)
    assert ref.get(timeout=T) > 1 << 49


def test_row33_cancelling_the_slow_head_lets_the_rest_go():
    gate, counter = Gate.remote(), Counter.remote()
    head = counter.note.remote(gate.passed.remote())
    rest = counter.note.remote("rest")
    head.cancel()
    assert rest.get(timeout=T) == "rest"
    assert isinstance(head.exception(timeout=T), zmreg.errors.TaskCancelledError)
    gate.open.remote()


def test_row33_a_failed_argument_fails_that_call_only():
    @zmreg.remote
    def bad() -> None:
        raise ZeroDivisionError

    counter = Counter.remote()
    failed, fine = counter.note.remote(bad.remote()), counter.note.remote(1)
    assert fine.get(timeout=T) == 1
    assert isinstance(failed.exception(timeout=T), ZeroDivisionError)
    assert counter.read.remote().get(timeout=T) == [1]


def test_row33_two_threads_of_one_driver_each_keep_their_order():
    counter = Counter.remote()

    def send(name: str) -> None:
        for n in range(200):
            counter.note.remote((name, n))

    threads = [threading.Thread(target=send, args=(name,)) for name in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(T)
    log = counter.read.remote().get(timeout=T)
    for name in "ab":
        assert [n for who, n in log if who == name] == list(range(200))


# -- 34, C23: handles --------------------------------------------------------------------------------------------------


def test_row34_a_handle_shows_its_class_and_its_actor():
    counter = Counter.remote()
    assert repr(counter) == f"<ActorHandle[Counter] {counter._actor_id[-4:].hex()}>"
    assert repr(counter.inc) == f"<ActorMethod inc of {counter!r}>"


def test_row34_handles_are_equal_by_actor_and_hashable():
    first, second = Counter.remote(), Counter.remote()
    again = first.__ray_call__.remote(lambda self: zmreg.get_runtime_context().current_actor).get(timeout=T)
    assert first == again == copy.copy(first)
    assert first != second
    assert len({first, again, second}) == 2
    assert first != "first"


def test_row34_handles_pass_in_arguments_results_and_closures():
    counter = Counter.remote()

    @zmreg.remote
    def by_argument(handle: Any) -> Any:
        handle.inc.remote().get(timeout=T)
        return handle

    @zmreg.remote
    def by_closure() -> dict[str, Any]:
        counter.inc.remote().get(timeout=T)
        return {"handle": counter}

    back = by_argument.remote(counter).get(timeout=T)
    assert back == counter
    nested = by_closure.remote().get(timeout=T)["handle"]
    assert nested.inc.remote().get(timeout=T) == 3
    boxed = zmreg.put([counter])
    assert boxed.get(timeout=T)[0].inc.remote().get(timeout=T) == 4


def test_row34_last_strong_handle_gone_the_actor_finishes_its_queue_then_ends():
    gate, witness = Gate.remote(), Witness.remote()

    @zmreg.remote
    class Worker:
        def run(self, witness: Any, n: int, _gate: Any = None) -> int:
            witness.tell.remote(n).get(timeout=T)
            return n

    worker = Worker.options(name="finishes").remote()
    refs = [worker.run.remote(witness, 0, gate.passed.remote())]
    refs += [worker.run.remote(witness, n) for n in range(1, 5)]
    weak = zmreg.get_actor("finishes")
    del worker
    gc.collect()
    gate.open.remote()
    assert zmreg.get(refs, timeout=T) == [0, 1, 2, 3, 4]
    assert witness.all.remote().get(timeout=T) == [0, 1, 2, 3, 4]
    assert "last handle is gone" in str(gone(weak))


def test_row34_an_idle_driver_notices_that_the_last_handle_is_gone(tmp_path):
    @zmreg.remote
    class Leaves:
        def __init__(self, path: str) -> None:
            self.path = path

        def __pre_destroy__(self) -> None:
            os.mkfifo(self.path)

        def m(self) -> None: ...

    leaves = Leaves.remote(str(tmp_path / "gone"))
    leaves.m.remote().get(timeout=T)
    del leaves
    gc.collect()
    deadline = time.monotonic() + T  # nothing of zmreg is called from here on: its own thread must tell the node
    while not (tmp_path / "gone").exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_row34_get_actor_and_self_handles_are_weak():
    @zmreg.remote
    class Narcissus:
        def __init__(self) -> None:
            self.me = zmreg.get_runtime_context().current_actor

        def hold(self) -> bool:
            return self.me == zmreg.get_runtime_context().current_actor

    actor = Narcissus.options(name="narcissus").remote()
    assert actor.hold.remote().get(timeout=T)
    weak = zmreg.get_actor("narcissus")
    assert weak.hold.remote().get(timeout=T)
    del actor
    gc.collect()
    gone(weak)
    with pytest.raises(ValueError, match="narcissus"):
        zmreg.get_actor("narcissus")


def test_row34_a_borrowed_handle_keeps_the_actor():
    @zmreg.remote
    class Keeper:
        def keep(self, box: list[Any]) -> None:
            self.kept = box[0]

        def use(self) -> int:
            return self.kept.inc.remote().get(timeout=T)

        def drop(self) -> None:
            del self.kept

    keeper, counter = Keeper.remote(), Counter.options(name="kept").remote()
    keeper.keep.remote([counter]).get(timeout=T)
    weak = zmreg.get_actor("kept")
    del counter
    gc.collect()
    assert [keeper.use.remote().get(timeout=T) for _ in range(3)] == [1, 2, 3]
    keeper.drop.remote().get(timeout=T)
    gone(weak)


def test_row34_an_actor_made_in_a_task_lives_as_long_as_its_handle():
    @zmreg.remote
    def make() -> Any:
        return Counter.remote(100)

    counter = make.remote().get(timeout=T)
    assert counter.inc.remote().get(timeout=T) == 101

    @zmreg.remote
    def hog() -> int:
        return 1

    zmreg.get([hog.remote() for _ in range(50)], timeout=T)
    assert counter.inc.remote().get(timeout=T) == 102


def test_C23_a_temporary_handle_lives_long_enough():
    assert Counter.remote().inc.remote().get(timeout=T) == 1
    method = Counter.remote(7).inc
    gc.collect()
    assert method.remote().get(timeout=T) == 8
    assert method.remote().get(timeout=T) == 9


# -- 42, 43: method options --------------------------------------------------------------------------------------------


def test_row42_num_returns_by_decorator_and_by_options():
    counter = Counter.remote()
    first, second = counter.two.remote()
    assert zmreg.get([first, second], timeout=T) == ["a", "b"]
    assert zmreg.get(counter.pair.options(num_returns=2).remote(), timeout=T) == [1, 2]
    assert counter.pair.remote().get(timeout=T) == (1, 2)
    assert counter.pair.options(num_returns=0).remote() is None
    with pytest.raises(ValueError, match="num_returns"):
        counter.pair.options(returns=2)


def test_row42_method_name_shows_in_messages():
    @zmreg.remote
    class Named:
        def m(self, x: int) -> None: ...

    named = Named.remote()

    @zmreg.remote
    def never() -> None: ...

    ref = named.m.options(name="the-special-one").remote(Gate.remote().passed.remote())
    ref.cancel()
    assert "the-special-one" in str(ref.exception(timeout=T))


def test_row42_method_decorator_with_exception_classes_travels_in_named_handles():
    @zmreg.remote
    class Flaky:
        def __init__(self) -> None:
            self.tries = 0

        @zmreg.method(max_task_retries=3, retry_exceptions=[ConnectionError])
        def m(self) -> int:
            self.tries += 1
            if self.tries < 3:
                raise ConnectionError("again")
            return self.tries

    flaky = Flaky.options(name="flaky").remote()
    assert zmreg.get_actor("flaky").m.remote().get(timeout=T) == 3
    assert flaky.m.remote().get(timeout=T) == 4


def test_row43_max_pending_calls_raises_in_the_caller():
    gate = Gate.remote()
    counter = Counter.options(max_pending_calls=3).remote()
    refs = [counter.note.remote(gate.passed.remote(n)) for n in range(3)]
    with pytest.raises(PendingCallsLimitError, match="max_pending_calls"):
        counter.note.remote(3)
    gate.open.remote()
    assert zmreg.get(refs, timeout=T) == [0, 1, 2]
    assert counter.note.remote(4).get(timeout=T) == 4


# -- X30: hooks --------------------------------------------------------------------------------------------------------


def test_X30_post_create_pre_destroy_and_on_receive():
    witness = Witness.remote()

    @zmreg.remote
    class Hooked:
        def __init__(self, witness: Any) -> None:
            self.witness, self.ready = witness, False

        def __post_create__(self) -> None:
            self.ready = True

        def __on_receive__(self, method: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            return [method, getattr(self, method)(*args, **kwargs)]

        def __pre_destroy__(self) -> None:
            self.witness.tell.remote("destroyed").get(timeout=T)

        def m(self, x: int) -> tuple[bool, int]:
            return self.ready, x

    hooked = Hooked.remote(witness)
    assert hooked.m.remote(1).get(timeout=T) == ["m", (True, 1)]
    assert isinstance(hooked.__ray_terminate__.remote().exception(timeout=T), ActorDiedError)
    assert witness.all.remote().get(timeout=T) == ["destroyed"]


def test_X30_async_hooks():
    witness = Witness.remote()

    @zmreg.remote
    class Hooked:
        def __init__(self, witness: Any) -> None:
            self.witness = witness

        async def __post_create__(self) -> None:
            await self.witness.tell.remote("created")

        async def __pre_destroy__(self) -> None:
            await self.witness.tell.remote("destroyed")

    hooked = Hooked.remote(witness)
    assert hooked.__ray_ready__.remote().get(timeout=T) is True
    assert isinstance(hooked.__ray_terminate__.remote().exception(timeout=T), ActorDiedError)
    assert witness.all.remote().get(timeout=T) == ["created", "destroyed"]


def test_X30_an_error_in_post_create_is_a_constructor_error():
    @zmreg.remote
    class Hooked:
        def __post_create__(self) -> None:
            raise OSError("no device")

        def m(self) -> None: ...

    error = Hooked.remote().m.remote().exception(timeout=T)
    assert isinstance(error, ActorDiedError) and error.init_failed
    assert isinstance(error.cause, OSError)
