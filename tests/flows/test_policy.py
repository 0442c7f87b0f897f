"""One Policy for tasks, steps, stages and phases (design 10): each takes what it can do, and refuses the rest."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import zmreg
from tests.effort import examples
from zmreg import Phase, Pipeline, Policy, Step
from zmreg.core.graphs import plan
from zmreg.model.errors import PhaseError
from zmreg.model.policy import FIELDS, MOST_BACKOFF_S, pause_s


class Flaky:
    """Fails as often as it is told, then gives back what it is called with. Called in this process."""

    def __init__(self, times: int, error: type[Exception] = ValueError) -> None:
        self.left, self.error = times, error

    def process(self, item: int) -> int:
        if self.left:
            self.left -= 1
            raise self.error("not yet")
        return item


STUBBORN = Policy(retries=2, backoff=0.001, retry_on=ValueError)


def counts_up(folder: str) -> int:
    """How often it was called by now; fails at first."""
    calls = len(list(Path(folder).iterdir())) + 1
    (Path(folder) / str(calls)).touch()
    if calls < 3:
        raise ValueError("not yet")
    return calls


def test_a_stage_takes_all_but_the_cache_and_what_it_says_itself_goes_before() -> None:
    whole = Policy(timeout=5, retries=1, backoff=0.1, on_error="skip", concurrency=2, buffer=3, rate=100)
    terms = zmreg.stage(len, policy=whole, retries=4).terms
    assert (terms.timeout, terms.retries, terms.backoff, terms.on_error) == (5, 4, 0.1, "skip")
    assert (terms.concurrency, terms.buffer, terms.rate, terms.retry_on) == (2, 3, 100, (Exception,))
    assert (Pipeline() | zmreg.stage(Flaky(2), policy=STUBBORN)).collect([1, 2]) == [1, 2]
    with pytest.raises(zmreg.errors.PipelineError, match="not yet"):
        (Pipeline() | zmreg.stage(Flaky(2, OSError), policy=STUBBORN)).collect([1])
    with pytest.raises(TypeError, match=r"a stage has no cache.*policy.but\(cache=None\)"):
        zmreg.stage(len, policy=Policy(cache=True))


def test_a_step_takes_its_timeout_and_retries() -> None:
    both = Policy(timeout=5, retries=3)
    steps = plan([Step("a", "f", policy=both), Step("b", "f", ("a",), timeout=1, policy=both)]).steps
    assert [(each.timeout, each.retries, each.policy) for each in steps.values()] == [(5, 3, None), (1, 3, None)]
    with pytest.raises(
        TypeError, match=r"step 'a' .* has no rate, and its policy says rate=3; it has timeout, retries"
    ):
        plan([Step("a", "f", policy=Policy(rate=3))])


def test_a_task_is_tried_again_as_its_policy_says(cluster: object, tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    count = zmreg.remote(counts_up).options(policy=Policy(retries=2))
    assert count.remote(str(tmp_path / "one")).get() == 3
    with pytest.raises(ValueError, match="not yet"):
        zmreg.remote(policy=Policy(retries=2, retry_on=OSError))(counts_up).remote(str(tmp_path / "two")).get()
    with pytest.raises(TypeError, match="a task has no timeout"):
        zmreg.remote(counts_up).options(policy=Policy(timeout=1))
    with pytest.raises(TypeError, match="policy must be a zmreg.Policy"):
        zmreg.remote(policy={"retries": 2})(counts_up)


def test_a_phase_takes_its_policy(cluster: object, tmp_path: Path) -> None:
    result = zmreg.run([Phase("count", counts_up, config={"folder": str(tmp_path)}, policy=STUBBORN)])
    assert result["count"] == 3
    skipping = Policy(on_error="skip", concurrency=1)
    result = zmreg.run([Phase("each", lambda n: 1 / n, foreach=[1, 0, 2], policy=skipping)])
    assert result["each"] == [1.0, 0.5]
    with pytest.raises(TypeError, match="phase 'p' has no buffer"):
        zmreg.run([Phase("p", len, policy=Policy(buffer=3))])
    with pytest.raises(PhaseError, match="write 'raise' or 'skip'"):
        zmreg.run([Phase("p", len, policy=Policy(on_error="dead_letter"))])


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        ({"retries": -1}, "retries=-1: a whole number from 0"), ({"retries": True}, "retries=True"),
        ({"concurrency": 0}, "concurrency=0: a whole number from 1"), ({"buffer": 1.5}, "buffer=1.5"),
        ({"timeout": 0}, "timeout=0: a number above 0"), ({"rate": "9"}, "rate='9': a number above 0"),
        ({"backoff": -1}, "backoff=-1: a number from 0"), ({"on_error": "stop"}, "'raise', 'skip', 'dead_letter'"),
        ({"retry_on": "ValueError"}, "write classes of exceptions"),
    ],
)  # fmt: skip
def test_values_that_are_none_are_refused_where_they_are_written(wrong: dict[str, object], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        Policy(**wrong)  # type: ignore[arg-type]


def test_a_policy_is_a_value() -> None:
    assert pickle.loads(pickle.dumps(STUBBORN)) == STUBBORN
    assert STUBBORN.but(retries=None).said("a stage", FIELDS) == {"backoff": 0.001, "retry_on": ValueError}


@given(st.floats(0, 1e6), st.integers(1, examples(5000)), st.floats(0, 1))
def test_pauses_double_up_to_a_bound_and_are_spread_by_a_quarter(backoff: float, failures: int, chance: float) -> None:
    pause = pause_s(backoff, failures, chance)
    assert 0 <= pause <= MOST_BACKOFF_S * 1.25
    assert pause <= pause_s(backoff, failures + 1, chance)
    assert pause_s(1.0, failures, 0.5) == min(30.0, 2.0 ** min(20, failures - 1))
