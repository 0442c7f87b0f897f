"""What a process has put while it ran tasks outlives any actor: an actor never gets a process that has run tasks."""

from __future__ import annotations

from tests.processes.drivers import Driver

HELPERS = """
@zmreg.remote
def puts(number):
    return os.getpid(), zmreg.put([number, "a small value"]), zmreg.put(bytes([number]) * (1 << 20))

@zmreg.remote
class Counter:
    def pid(self):
        return os.getpid()

def check(kept):
    read = [(small.get(timeout=20), large.get(timeout=20)) for _, small, large in kept]
    return read == [([number, "a small value"], bytes([number]) * (1 << 20)) for number in range(len(kept))]
"""

KILLED = """
zmreg.init(num_cpus=2)
kept = [puts.remote(number).get(timeout=20) for number in range(4)]
while zmreg.available_resources()["CPU"] < 2:  # the leases are back, and the workers idle
    pass
actors = [Counter.remote() for _ in range(4)]
homes = {actor.pid.remote().get(timeout=20) for actor in actors}
for actor in actors:
    zmreg.kill(actor)
for actor in actors:
    say("call", typed(lambda: actor.pid.remote().get(timeout=20)))
say("kept", typed(lambda: check(kept)))
say("shared", len(homes & {pid for pid, _, _ in kept}))
"""

AT_CAP = """
zmreg.init(num_cpus=1, max_workers=1)
kept = [puts.remote(number).get(timeout=20) for number in range(2)]
while zmreg.available_resources()["CPU"] < 1:
    pass
actor = Counter.remote()
say("shared", actor.pid.remote().get(timeout=20) == kept[0][0])
say("kept", typed(lambda: check(kept)))
zmreg.kill(actor)
say("call", typed(lambda: actor.pid.remote().get(timeout=20)))
say("still", typed(lambda: check(kept)))
say("tasks", len(puts.remote(7).get(timeout=20)))
"""


def test_row_38_killing_an_actor_loses_nothing_that_tasks_have_put() -> None:
    with Driver(HELPERS + KILLED) as driver:
        for _ in range(4):
            assert driver.after("call") == "ActorDiedError"
        assert driver.after("kept") == "True"
        assert driver.after("shared") == "0"
        assert driver.end() == 0


def test_row_38_at_the_cap_a_worker_that_has_run_tasks_makes_room_for_an_actor_and_leaves_its_objects() -> None:
    with Driver(HELPERS + AT_CAP) as driver:
        assert driver.after("shared") == "False"
        assert driver.after("kept") == "True"
        assert driver.after("call") == "ActorDiedError"
        assert driver.after("still") == "True"
        assert driver.after("tasks") == "3"
        assert driver.end() == 0
