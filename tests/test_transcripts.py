"""Stories of a cluster, as text: commands, a line of dashes, what the nodes then decide. `--rewrite` writes it anew.

The nodes are pure machines on a virtual clock (tests/house.py), so a story is the same every time. Commands:

    nodes n1*:0 n2:1       nodes of so many CPUs, * is the head; each knows the others at once, or as its head tells it
    join n3:1              one more, let in by the head
    call n1 x 3            n1 has task x make 3 MiB where there is a CPU
    get n1 x               n1 fetches it
    run 2.5                so many seconds go by
    kill n2 | cut n1 n2 | heal
    states                 how each node sees the others
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.house import House
from zmreg.testing.simulation import Simulation

TRANSCRIPTS = sorted((Path(__file__).parent / "transcripts").glob("*.txt"))
DASHES = "----"


class Story:
    """A simulation and what its nodes have said."""

    def __init__(self) -> None:
        self.simulation = Simulation(seed=1)
        self.houses: dict[str, House] = {}
        self.lines: list[str] = []

    def write(self, who: str, what: str) -> None:
        self.lines.append(f"{self.simulation.now:7.2f}  {who}  {what}")

    def do(self, command: str) -> None:
        """One line before the dashes. ValueError for one that is none."""
        simulation, (verb, *words) = self.simulation, command.split()
        match verb, words:
            case "nodes", names:
                for spec in names:
                    self._add(spec)
                for house in list(self.houses.values()):
                    self._introduce(house)
            case "join", [spec]:
                self._introduce(self._add(spec))
            case "call", [name, task, size]:
                simulation.perform(name, self.houses[name].call(task, int(float(size) * (1 << 20)), simulation.now))
            case "get", [name, task]:
                simulation.perform(name, self.houses[name].get(task, simulation.now))
            case "run", [seconds]:
                simulation.run(float(seconds))
            case "kill", [name]:
                simulation.remove(name)
                del self.houses[name]
            case "cut", [some, others]:
                simulation.partition(some.split(","), others.split(","))
            case "heal", []:
                simulation.heal()
            case "states", []:
                self.lines += [f"{name} sees {house.states()}" for name, house in self.houses.items()]
            case _:
                raise ValueError(f"{command!r} is no command")

    def _add(self, spec: str) -> House:
        name, _, cpus = spec.partition(":")
        house = House(name.rstrip("*"), self.write, int(cpus), name.endswith("*"))
        self.houses[house.name] = house
        self.simulation.add(house.name, house)
        return house

    def _introduce(self, fresh: House) -> None:
        now = self.simulation.now
        for house in self.houses.values():
            self.simulation.perform(house.name, house.meet(fresh.record(), now))
            self.simulation.perform(fresh.name, fresh.meet(house.record(), now))


def told(text: str) -> str:
    """The transcript as it comes out now: its comments and commands with what follows from them."""
    story, out = Story(), []
    for block in text.split("\n\n"):
        commands = block.partition(f"\n{DASHES}")[0].splitlines()
        story.lines.clear()
        for command in commands:
            if not command.startswith("#"):
                story.do(command)
        silent = all(command.startswith("#") for command in commands)
        out.append("\n".join(commands) if silent else "\n".join([*commands, DASHES, *story.lines]))
    return "\n\n".join(out).rstrip("\n") + "\n"


@pytest.mark.parametrize("path", TRANSCRIPTS, ids=[path.stem for path in TRANSCRIPTS])
def test_transcript(path: Path, request: pytest.FixtureRequest) -> None:
    text = path.read_text()
    now = told(text)
    if request.config.getoption("--rewrite"):
        path.write_text(now)
    else:
        assert now == text, (
            f"{path.name} tells another story now; if it is right: pytest {Path(__file__).name} --rewrite"
        )


def test_there_are_transcripts_and_a_wrong_command_is_an_error() -> None:
    assert {"call", "get", "lose_a_node", "late_joiner", "head_restart"} <= {path.stem for path in TRANSCRIPTS}
    with pytest.raises(ValueError, match="sing"):
        told("sing")
