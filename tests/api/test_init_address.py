"""Row 66: which cluster `zmreg.init(address=...)` means. Programs of their own, on pretended machines."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator

import pytest

from tests.tools.machines import SMALL, Machine, free_port, machine, until

pytestmark = pytest.mark.timeout(120)

PRELUDE = """
import json, time, zmreg

@zmreg.remote
def node():
    return zmreg.get_runtime_context().get_node_id()

def typed(**arguments):
    began = time.monotonic()
    try:
        info = zmreg.init(**arguments)
    except Exception as error:
        return [type(error).__name__, isinstance(error, ConnectionError), str(error), time.monotonic() - began]
    return info.address
"""


@pytest.fixture
def here() -> Iterator[Machine]:
    with machine() as found:
        yield found


@pytest.fixture
def there() -> Iterator[Machine]:
    with machine() as found:
        yield found


def tell(place: Machine, source: str, **variables: str):
    """The last line that a program prints, as JSON; `init` and `shutdown` print nothing."""
    done = place.program(PRELUDE + textwrap.dedent(source), **variables)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert done.stdout.count("\n") == 1, done.stdout
    return json.loads(done.stdout)


def test_row66_none_starts_a_cluster_of_ones_own_when_none_runs(here):
    assert tell(here, "print(json.dumps(zmreg.init(num_cpus=1).address))") == "local"
    assert not here.sessions()


def test_row66_none_and_auto_find_the_cluster_that_runs_and_leave_it_running(here):
    head = here.head()
    for argument in ("", '"auto"', repr(head["address"])):
        found = tell(
            here,
            f"""
            info = zmreg.init({argument})
            print(json.dumps([info.address, info.node_id, node.remote().get(timeout=20), zmreg.is_initialized()]))
            zmreg.shutdown()
            assert not zmreg.is_initialized()
            """,
        )
        assert found == [head["address"], head["node"], head["node"], True]
    assert here.asks("status")["alive"] == 1


def test_row66_auto_without_a_cluster_is_a_connection_error(here):
    kind, is_connection_error, text, _ = tell(here, 'print(json.dumps(typed(address="auto")))')
    assert kind == "ClusterError" and is_connection_error and "zmreg start --head" in text


def test_row66_what_is_no_number_is_told_by_its_name(here):
    kind, _, text, _ = tell(here, 'print(json.dumps(typed(address="local", num_cpus="two")))')
    assert (kind, text) == ("TypeError", "num_cpus must be a number, not str ('two')")


def test_row66_local_is_always_new(here):
    head = here.head()
    found = tell(
        here,
        """
        info = zmreg.init("local", num_cpus=1)
        print(json.dumps([info.address, node.remote().get(timeout=20)]))
        """,
    )
    assert found[0] == "local" and found[1] != head["node"]


def test_row66_the_environment_comes_before_the_cluster_that_runs(here):
    here.head()
    source = "print(json.dumps(zmreg.init(num_cpus=1).address))"
    assert tell(here, source, ZMREG_ADDRESS="local") == "local"


def test_row66_files_say_which_cluster_and_arguments_come_first(here):
    head = here.head()
    (here.here / "zmreg.toml").write_text('address = "local"\nnum_cpus = 3\n')
    assert tell(here, "info = zmreg.init(); print(json.dumps([info.address, info.num_cpus]))") == ["local", 3.0]
    assert tell(here, f"print(json.dumps(zmreg.init({head['address']!r}).address))") == head["address"]


def test_a_slip_in_a_file_is_an_error_with_a_suggestion(here):
    (here.here / "zmreg.toml").write_text('adress = "local"\n')
    kind, _, text, _ = tell(here, "print(json.dumps(typed()))")
    assert kind == "ConfigError" and "did you mean 'address'" in text


def test_a_program_on_a_machine_without_a_node_joins_without_offering_any_cpu(here, there):
    head = here.head()
    found = tell(
        there,
        f"""
        info = zmreg.init({head["address"]!r}, key={head["key_file"]!r})
        rows = zmreg.nodes()
        print(json.dumps([info.address, node.remote().get(timeout=20), [row["Resources"].get("CPU") for row in rows]]))
        """,
    )
    assert found == [head["address"], head["node"], [None, 1.0]]

    def left() -> bool:
        return [row["Alive"] for row in here.asks("nodes")] == [True, False]

    until(left, seconds=3.0)
    assert not there.sessions()


def test_a_program_that_joins_may_offer_cpus_when_asked_to(here, there):
    head = here.head()
    found = tell(
        there,
        f"""
        info = zmreg.init({head["address"]!r}, num_cpus=2, locs=["mine"])
        print(json.dumps([zmreg.cluster_resources()["CPU"], node.options(locs=["mine"]).remote().get(timeout=20)]))
        """,
        ZMREG_KEY=head["key_file"],
    )
    assert found[0] == 3.0 and found[1] != head["node"]


def test_a_wrong_key_is_an_authentication_error_within_3_s_that_names_the_file(here, there):
    head = here.head()
    wrong = there.here / "wrong"
    there.program(f"from zmreg.services.setup import keys; from pathlib import Path; keys.create(Path({str(wrong)!r}))")
    for place in (there, here):  # it would be let in here without a key, but not with a wrong one
        source = f"print(json.dumps(typed(address={head['address']!r}, key={str(wrong)!r})))"
        kind, _, text, seconds = tell(place, source)
        assert kind == "AuthenticationError"
        assert str(wrong) in text
        assert seconds < 3.0


def test_no_key_and_nobody_there_are_told_at_once(here, there):
    head = here.head()
    kind, _, text, _ = tell(there, f"print(json.dumps(typed(address={head['address']!r})))")
    assert kind == "AuthenticationError" and "ZMREG_KEY" in text
    nowhere = f"127.0.0.1:{free_port()}"
    kind, _, text, seconds = tell(there, f"print(json.dumps(typed(address={nowhere!r}, key={head['key_file']!r})))")
    assert kind == "ClusterError" and nowhere in text and seconds < 3.0


def test_what_a_running_cluster_cannot_be_given_any_more_is_refused(here):
    head = here.head()
    kind, _, text, _ = tell(here, "print(json.dumps(typed(num_cpus=2)))")
    assert kind == "ValueError" and head["address"] in text and "address='local'" in text


def test_row66_a_second_init_is_the_same_seat_or_an_error(here):
    head = here.head()
    found = tell(
        here,
        f"""
        first = zmreg.init()
        same = [zmreg.init().node_id, zmreg.init({head["address"]!r}).node_id, zmreg.init(first.address).node_id]
        print(json.dumps([same, typed(address="local"), typed(address="local", ignore_reinit_error=True)]))
        """,
    )
    assert found[0] == [head["node"]] * 3
    assert found[1][0] == "RuntimeError"
    assert found[2] == head["address"]


def test_several_clusters_are_told_apart_by_address_or_key(here):
    heads = [here.head("--state-dir", str(here.here / name), "--name", name) for name in ("a", "b")]
    kind, _, text, _ = tell(here, "print(json.dumps(typed()))")
    assert kind == "ClusterError" and all(head["address"] in text for head in heads)
    for head in heads:
        assert tell(here, f"print(json.dumps(typed(address={head['address']!r})))") == head["address"]
        assert tell(here, f"print(json.dumps(typed(key={head['key_file']!r})))") == head["address"]


def test_a_worker_of_the_cluster_on_this_machine_is_taken_without_a_key(here, there):
    head = here.head()
    worker = there.worker(head, "--key", head["key_file"])
    found = tell(there, f"print(json.dumps(zmreg.init({head['address']!r}).node_id))")
    assert found == worker["node"]


def test_row67_shutdown_and_a_new_init_elsewhere_in_one_process(here):
    head = here.head()
    found = tell(
        here,
        """
        places = []
        for address in ("auto", "local", "auto"):
            zmreg.init(address)
            places.append(node.remote().get(timeout=20))
            zmreg.shutdown()
        print(json.dumps(places))
        """,
    )
    assert found[0] == found[2] == head["node"] != found[1]


def test_row68_amounts_are_floats_summed_over_living_nodes(here):
    head = here.head()
    here.worker(head, "--resources", '{"licence": 2}')
    found = tell(
        here,
        """
        zmreg.init()
        print(json.dumps([zmreg.cluster_resources(), zmreg.available_resources()]))
        """,
    )
    for amounts in found:
        assert amounts["CPU"] == 2.0 and amounts["licence"] == 2.0
        assert all(isinstance(amount, float) for amount in amounts.values())


def test_names_are_found_and_actors_ordered_from_a_node_that_is_not_the_head(here, there):
    head = here.head()
    there.worker(head, "--key", head["key_file"])
    make = """
    @zmreg.remote
    class Keeper:
        def __init__(self):
            self.kept = []
        def keep(self, value):
            self.kept.append(value)
            return self.kept
    """
    tell(
        there,
        make
        + """
    zmreg.init()
    keeper = Keeper.options(name="keeper", lifetime="detached").remote()
    print(json.dumps(keeper.keep.remote(1).get(timeout=20)))
    """,
    )
    for place in (here, there):
        found = tell(place, 'zmreg.init(); print(json.dumps(zmreg.get_actor("keeper").keep.remote(2).get(timeout=20)))')
    assert found == [1, 2, 2]


def test_a_driver_whose_node_is_stopped_is_told(here):
    process, _ = here.up("--head", "--port", str(free_port()), *SMALL)
    source = """
    import os, signal, threading
    @zmreg.remote
    def never():
        signal.pause()
    zmreg.init()
    ref = never.remote()
    ref2 = node.remote()
    os.kill(zmreg.nodes()[0]["Pid"], signal.SIGTERM)
    try:
        ref.get(timeout=20)
    except zmreg.errors.ZmregError as error:
        print(json.dumps(type(error).__name__))
    """
    done = here.program(PRELUDE + textwrap.dedent(source))
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) in ("ClusterError", "WorkerDiedError")
    assert process.wait(20) == 0
