"""The arithmetic of docs/scale.md agrees with what the simulator counts."""

from __future__ import annotations

import pytest

from docs import scale
from zmreg.testing.registry import BAD_WEATHER


@pytest.mark.parametrize("nodes", [2, 8])
def test_messages_and_bytes_by_arithmetic_are_those_the_simulator_counts(nodes: int) -> None:
    messages, nbytes = scale.predicted(nodes)
    counted = scale.simulated(nodes)
    assert counted.sent == pytest.approx(messages, rel=0.03)
    assert counted.nbytes == pytest.approx(nbytes, rel=0.03)


def test_a_lost_tenth_costs_less_than_half_as_much_again() -> None:
    calm, bad = scale.simulated(8), scale.simulated(8, BAD_WEATHER)
    assert calm.sent < bad.sent < 1.5 * calm.sent


def test_an_operation_takes_the_25_bytes_the_requirements_reckon_with() -> None:
    assert scale.delta_bytes(1_000) / 1_000 <= 25


def test_smaller_scopes_cost_less() -> None:
    entries = [int(scale.cost(64, scope)[2].replace(",", "")) for scope in ("all", "large", "owner")]
    assert entries == [640_000, 6_400, 0]
