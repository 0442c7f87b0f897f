"""Six steps over four machines: load, clean, transform, analyse, validate, store. What was done is seen, also when the
fourth fails.

The nodes are called storage, cpu, gpu and ml, and each has an actor that serves what only it can do. The data: all
modules at the top of Python's own library, and what one sees of a module from afar. The question: how many functions a
module of so many lines has.

    python examples/six_steps.py
    python examples/six_steps.py --kill       # the actor on cpu dies while it transforms; the answer is the same
"""

from __future__ import annotations

import json
import os
import re
import signal
import statistics
import sys
import sysconfig
import tempfile
from pathlib import Path

import zmreg
from zmreg.testing import LocalCluster

LIBRARY = Path(sysconfig.get_path("stdlib"))
NODES = [{"name": name, "locs": {name}} for name in ("storage", "cpu", "gpu", "ml")]
SAYS = re.compile(r"\s*[^\s#]")
FUNCTION = re.compile(r"\s*(async )?def ")
PATIENCE_S = 30.0


# -- what the nodes serve ----------------------------------------------------------------------------------------------


@zmreg.remote
class Storage:
    """Has the files, and keeps the results."""

    def __init__(self, directory: str) -> None:
        self.directory = Path(directory)
        zmreg.register("load", self.load)
        zmreg.register("store", self.store)

    def load(self, pattern: str) -> dict[str, str]:
        return {path.name: path.read_text(encoding="utf-8") for path in sorted(LIBRARY.glob(pattern))}

    def store(self, model: dict, quality: float) -> str:
        path = self.directory / "model.json"
        path.write_text(json.dumps({**model, "quality": quality}), encoding="utf-8")
        return str(path)


@zmreg.remote
class Workshop:
    """Has processors."""

    def __init__(self, omen: str) -> None:
        self.omen = Path(omen)
        zmreg.register("clean", self.clean)
        zmreg.register("transform", self.transform)

    def clean(self, texts: dict[str, str]) -> dict[str, list[str]]:
        """Lines that say something, of modules that are for others and not tiny."""
        lines = {name: [line for line in text.splitlines() if SAYS.match(line)] for name, text in texts.items()}
        return {name: found for name, found in lines.items() if not name.startswith("_") and len(found) > 20}

    def transform(self, modules: dict[str, list[str]]) -> list[dict]:
        rows = []
        for name, lines in modules.items():
            if len(rows) == 50 and self.omen.exists():
                self.omen.unlink()
                os.kill(os.getpid(), signal.SIGKILL)
            functions = sum(bool(FUNCTION.match(line)) for line in lines)
            rows.append({"module": name, "lines": len(lines), "functions": functions})
        return rows


@zmreg.remote
class Accelerator:
    """Calculates."""

    def __init__(self) -> None:
        zmreg.register("analyse", self.analyse)

    def analyse(self, rows: list[dict], of: str, by: str) -> dict:
        """A straight line through every second module."""
        for name in (of, by):
            if name not in rows[0]:
                raise ValueError(f"no column {name!r}: there are {', '.join(rows[0])}")
        known = rows[::2]
        slope, intercept = statistics.linear_regression([row[by] for row in known], [row[of] for row in known])
        return {"of": of, "by": by, "slope": slope, "intercept": intercept}


@zmreg.remote
class Judge:
    """Knows a good model when it sees one."""

    def __init__(self) -> None:
        zmreg.register("validate", self.validate)

    def validate(self, model: dict, rows: list[dict]) -> float:
        """How much of what the other modules differ in is explained (1 is all)."""
        others = rows[1::2]
        wanted = [row[model["of"]] for row in others]
        told = [model["intercept"] + model["slope"] * row[model["by"]] for row in others]
        middle = statistics.mean(wanted)
        missed = sum((is_ - was) ** 2 for is_, was in zip(wanted, told, strict=True))
        return 1 - missed / sum((is_ - middle) ** 2 for is_ in wanted)


# -- the request -------------------------------------------------------------------------------------------------------


def steps(of: str) -> list[zmreg.Step]:
    """In any order: who needs whose value says what comes first."""
    return [
        zmreg.Step("stored", "store", ("model", "quality"), locs={"storage"}),
        zmreg.Step("raw", "load", ("*.py",), locs={"storage"}, retries=1),
        zmreg.Step("cleaned", "clean", ("raw",), locs={"cpu"}, retries=1),
        zmreg.Step("table", "transform", ("cleaned",), locs={"cpu"}, retries=1),
        zmreg.Step("model", "analyse", ("table", of, "lines"), locs={"gpu"}, retries=1),
        zmreg.Step("quality", "validate", ("model", "table"), locs={"ml"}, retries=1),
    ]


def fails_at_the_fourth() -> None:
    """There is no column of that name; everybody before has done their work, and it can be seen."""
    try:
        zmreg.request(steps("classes"), queue_until=PATIENCE_S, return_intermediate_results=True)
    except ValueError as error:
        assert isinstance(error, zmreg.errors.TaskError)
        print(f"step {error.step!r} failed on node {error.node}: {str(error).splitlines()[0]}")
        print("it was called with", error.arg_previews)
        for record in error.intermediate_results:
            for step, value in record.level_results.items():
                print(f"  before that: {step}, {record.execution_time_ms:.0f} ms, {str(value)[:60]}")
        assert (error.step, error.node, len(error.intermediate_results)) == ("model", "gpu", 3)
        table = error.intermediate_results[2].level_results["table"]
        print(f"  the table it did not like has {len(table)} rows, such as {table[0]}")
    else:
        raise AssertionError("there is no such column")


def main(kill: bool) -> None:
    with tempfile.TemporaryDirectory() as here, LocalCluster(NODES) as cluster:
        cluster.attach()
        omen = Path(here) / "omen"
        actors = [
            Storage.options(locs={"storage"}).remote(here),
            Workshop.options(locs={"cpu"}, max_restarts=1).remote(str(omen)),
            Accelerator.options(locs={"gpu"}).remote(),
            Judge.options(locs={"ml"}).remote(),
        ]
        fails_at_the_fourth()

        if kill:
            omen.touch()
        result = zmreg.request(steps("functions"), queue_until=PATIENCE_S, return_intermediate_results=True)
        print()
        print(result.report())
        print(result.to_mermaid())
        model = json.loads(Path(result["stored"]).read_text(encoding="utf-8"))
        print(f"a module has {model['slope'] * 100:.1f} functions in 100 lines; that explains {model['quality']:.0%}")

        went = [(row["step"], row["node"]) for row in result.timeline()]
        assert went[:3] == [("raw", "storage"), ("cleaned", "cpu"), ("table", "cpu")]
        assert went[3:] == [("model", "gpu"), ("quality", "ml"), ("stored", "storage")]
        again = {row["step"]: row["attempt"] for row in result.timeline() if row["attempt"]}
        assert again == ({"table": 1} if kill else {})
        assert not omen.exists()
        assert 0 < model["quality"] <= 1
        assert len(actors) == 4


if __name__ == "__main__":
    main("--kill" in sys.argv)
