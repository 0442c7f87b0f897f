"""The registry under bad weather: spec/reliability 3.5 in its short form. `make simulate` plays the long one."""

from __future__ import annotations

import pytest

from zmreg.core.publishing import BEACON_S, Publisher
from zmreg.core.replicas import Replica
from zmreg.testing import registry
from zmreg.testing.registry import BAD_WEATHER, ROUND_TRIPS_S, Outcome, Plan, plan_for, play
from zmreg.testing.simulation import Weather

SEEDS = 100


def sound(outcome: Outcome) -> bool:
    assert not outcome.wrong, f"seed {outcome.seed}: {outcome.wrong}"
    assert outcome.digest_mismatches == 0
    assert outcome.converged_s <= 2 * BEACON_S + ROUND_TRIPS_S
    return True


def test_many_seeds_of_small_clusters_converge_and_the_faults_did_bite() -> None:
    outcomes = [play(seed, plan_for(seed)) for seed in range(SEEDS)]
    assert all(map(sound, outcomes))
    for what in ("gaps", "replays", "snapshots", "restarts", "duplicates", "late"):
        assert sum(getattr(outcome, what) for outcome in outcomes) > SEEDS / 10, what
    for what in ("dropped", "duplicated", "overtaken", "cut"):
        assert sum(getattr(outcome.network, what) for outcome in outcomes) > SEEDS, what


@pytest.mark.parametrize("seed", range(2))
def test_1000_publishers_with_10_percent_loss_converge_within_two_beacons(seed: int) -> None:
    """Three of them keep a replica of all 1,000: what each of 1,000 would do, without the other 997 times the work."""
    outcome = play(seed, Plan(nodes=1_000, readers=3, objects=5, changes_per_s=2.0, restarts=20, seconds=3.0))
    assert sound(outcome)
    assert outcome.gaps > 1_000 and outcome.snapshots > 20
    network = outcome.network
    assert network.dropped > 0.07 * (network.sent - network.cut)


def test_d2_5_percent_of_deltas_lost_and_a_late_joiner() -> None:
    """10,000 registrations on one node, 5 % lost, one reader from the start and one that joins at the end."""
    outcome = play(1, Plan(2, 2, 2.0, 5_000, 0.0, restarts=1, partitions=0, weather=Weather(drop=0.05)))
    assert sound(outcome) and outcome.snapshots >= 1


def test_in_good_weather_nothing_is_asked_twice() -> None:
    outcome = play(3, Plan(8, 8, 4.0, 10, 50.0, restarts=0, partitions=0, weather=Weather()))
    assert sound(outcome)
    assert (outcome.gaps, outcome.duplicates, outcome.late, outcome.restarts) == (0, 0, 0, 0)


def test_the_same_seed_is_the_same_run() -> None:
    assert play(5, plan_for(5)) == play(5, plan_for(5)) != play(6, plan_for(5))


def test_the_checks_of_the_simulation_see_what_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    """A replica that never asks for what it missed: the simulation must notice."""
    monkeypatch.setattr(Replica, "_asks", lambda self, part, now: [])
    assert any("not so within" in text for text in play(1, Plan(weather=BAD_WEATHER)).wrong)


def test_the_checks_of_the_simulation_see_rows_of_the_dead(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Replica, "forget", lambda self, node: None)
    outcomes = [play(seed, Plan(restarts=3)) for seed in range(3)]
    assert any("which has 0" in text for outcome in outcomes for text in outcome.wrong)


def test_the_checks_of_the_simulation_see_a_writer_that_forgets_its_words(monkeypatch: pytest.MonkeyPatch) -> None:
    """A writer whose operations do not all reach its own batches: digests differ at equal sequence numbers."""
    note, skipped = Publisher._note, []

    def skip_one(self: Publisher, key: bytes, value: bytes) -> object:
        if len(skipped) == 20:
            value = b"\x55"
        skipped.append(key)
        return note(self, key, value)

    monkeypatch.setattr(Publisher, "_note", skip_one)
    assert play(1, Plan(weather=Weather())).digest_mismatches > 0


def test_the_command_names_failing_seeds_and_says_what_it_played(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert registry.main(["--seeds", "3", "--first", "10"]) == 0
    assert "3 seeds: 0 with violations, 0 digest mismatches" in capsys.readouterr().out
    monkeypatch.setattr(Replica, "_asks", lambda self, part, now: [])
    assert registry.main(["--seeds", "1", "--first", "2"]) == 1
    assert "seed 2: Plan(" in capsys.readouterr().out
    monkeypatch.undo()
    monkeypatch.setattr(registry, "plan_for", lambda seed: Plan(2, 2, 1.0, weather=Weather(), restarts=0, partitions=0))
    assert registry.main(["--seeds", "1"]) == 3, "weather without a gap proves nothing"
