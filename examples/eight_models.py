"""Eight processes, each with a set of real data, or a part of one, that no other has; a model is trained where the data
is, and one request trains, predicts, compares and reports.

The data come with scikit-learn: iris, wine, breast cancer and diabetes, and handwritten digits in four parts. Each host
trains on two thirds of its rows and answers for the rest. The four models of the digits also vote on each other's.

    pip install scikit-learn
    python examples/eight_models.py
    python examples/eight_models.py --kill      # one host dies in the middle of its training; the answer is the same
"""

from __future__ import annotations

import os
import signal
import sys
import tempfile
from functools import partial
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # eight processes share this machine

import zmreg
from zmreg.testing import LocalCluster

SETS = ("iris", "wine", "breast_cancer", "diabetes")
DIGITS = ("digits_0", "digits_1", "digits_2", "digits_3")
HOSTS = (*SETS, *DIGITS)
VICTIM = "digits_2"
OMEN = "EIGHT_MODELS_OMEN"
PATIENCE_S = 30.0


# -- what each host serves ---------------------------------------------------------------------------------------------


class Holder:
    """One set, in the memory of one process."""

    def __init__(self, name: str, omen: Path | None = None) -> None:
        from sklearn import datasets

        self.name, self.omen = name, omen
        self.measured = "R2" if name == "diabetes" else "accuracy"
        part = DIGITS.index(name) if name in DIGITS else 0
        rows, targets = getattr(datasets, f"load_{name.partition('_')[0] if name in DIGITS else name}")(return_X_y=True)
        if name in DIGITS:
            rows, targets = rows[part :: len(DIGITS)], targets[part :: len(DIGITS)]
        held_out = [index % 3 == 0 for index in range(len(rows))]
        known = [not each for each in held_out]
        self.known, self.held_out = (rows[known], targets[known]), (rows[held_out], targets[held_out])

    def train(self) -> dict:
        """A model that knows two thirds of the rows, and what it is measured by."""
        from sklearn.linear_model import LogisticRegression, Ridge
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler

        kind = Ridge(1.0) if self.measured == "R2" else LogisticRegression(max_iter=500)
        model = make_pipeline(StandardScaler(), kind)
        if self.omen is not None and self.omen.exists():
            self.omen.unlink()
            os.kill(os.getpid(), signal.SIGKILL)
        return {"model": model.fit(*self.known), "rows": len(self.known[0]), "measured": self.measured}

    def questions(self) -> object:
        """The rows that the model has not seen."""
        return self.held_out[0]

    def check(self, predicted: list) -> float:
        """How good a prediction of the other rows is: 1 is perfect."""
        from sklearn import metrics

        measure = metrics.r2_score if self.measured == "R2" else metrics.accuracy_score
        return float(measure(self.held_out[1], predicted))


def predict(model: object, questions: dict[str, object]) -> dict[str, list]:
    """{host: what a model says of its rows}."""
    return {name: model.predict(rows).tolist() for name, rows in questions.items()}


def vote(said: dict[str, dict[str, list]]) -> dict[str, list]:
    """{host: what most models say of each of its rows}; the smallest digit of equals."""
    return {
        name: [
            max(sorted(set(each)), key=each.count) for each in zip(*(one[name] for one in said.values()), strict=True)
        ]
        for name in DIGITS
    }


def report(alone: dict[str, float], together: dict[str, float], rows: dict[str, int], measured: dict[str, str]) -> str:
    lines = [f"{'host':<14} {'rows':>5}  {'measure':<8}  {'alone':>6}  by vote"]
    for name in HOSTS:
        voted = f"{together[name]:7.3f}" if name in together else "      -"
        lines.append(f"{name:<14} {rows[name]:>5}  {measured[name]:<8}  {alone[name]:6.3f}  {voted}")
    better = sum(together[name] >= alone[name] for name in DIGITS)
    return "\n".join(
        [*lines, f"for {better} of {len(DIGITS)} parts of the digits, four models know as much as one, or more"]
    )


def served_by(holder: Holder) -> dict:
    own = {"train": holder.train, "questions": holder.questions, "check": holder.check}
    return {**own, "predict": predict, "vote": vote, "report": report}


def setup(name: str) -> None:
    """What a host's process does when it is started: load its data, and say what can be asked of it."""
    omen = os.environ.get(OMEN)
    zmreg.serve(served_by(Holder(name, Path(omen) if omen and name == VICTIM else None)), locs={name}, block=False)


class Hosts:
    """`eight_models:Hosts.wine` is what the process with the wines is told to load."""


for _name in HOSTS:
    setattr(Hosts, _name, partial(setup, _name))


# -- the request -------------------------------------------------------------------------------------------------------


def steps() -> list[zmreg.Step]:
    """A text that is another step's name stands for its value, wherever it is; `locs` say which host it must be."""
    at = partial(zmreg.Step, retries=2)
    each = []
    for name in HOSTS:
        asked = {other: f"{other} questions" for other in (DIGITS if name in DIGITS else (name,))}
        each += [
            at(f"{name} trained", "train", locs={name}),
            at(f"{name} questions", "questions", locs={name}),
            at(f"{name} said", "predict", (f"{name} trained.model", asked), locs={name}),
            at(f"{name} alone", "check", (f"{name} said.{name}",), locs={name}),
        ]
    for name in DIGITS:
        each.append(at(f"{name} voted", "check", (f"vote.{name}",), locs={name}))
    return [
        *each,
        at("vote", "vote", ({name: f"{name} said" for name in DIGITS},)),
        at(
            "report",
            "report",
            ({name: f"{name} alone" for name in HOSTS}, {name: f"{name} voted" for name in DIGITS}),
            {what: {name: f"{name} trained.{what}" for name in HOSTS} for what in ("rows", "measured")},
        ),
    ]


def main(kill: bool) -> None:
    with tempfile.TemporaryDirectory() as directory:
        omen = Path(directory) / "omen"
        if kill:
            omen.touch()
        os.environ[OMEN] = str(omen)
        module = Path(__file__).stem
        nodes = [
            {"name": "left", "load": [f"{module}:Hosts.{name}" for name in HOSTS[::2]]},
            {"name": "right", "load": [f"{module}:Hosts.{name}" for name in HOSTS[1::2]]},
        ]
        with LocalCluster(nodes) as cluster:  # which starts a host again that dies, as `zmreg start --load` does
            cluster.attach()
            result = zmreg.request(
                steps(), queue_until=PATIENCE_S, return_intermediate_results=True, include_execution_summary=True
            )
        assert not omen.exists()

    print(result.report(), end="\n\n")
    for row in result.timeline():
        again = ", called again" if row["attempt"] else ""
        began = row["queued_s"] if row["started_s"] is None else row["started_s"]
        print(f"{began:7.3f} s to {row['ended_s']:7.3f} s  {row['node']:<6} {row['step']}{again}")
    summary = result.execution_summary
    print(f"\nslowest level: {summary.bottleneck_level_index}; from node to node: {summary.cross_node_hops} values")
    print(f"\n{result['report']}")

    attempts = {row["step"]: row["attempt"] for row in result.timeline() if row["attempt"]}
    assert list(result) == ["report"], "only what no other step takes comes back"
    assert result["report"] == plainly(), "the same as without any of it"
    assert (f"{VICTIM} trained" in attempts) == kill


def plainly() -> str:
    """The same in one process."""
    holders = {name: Holder(name) for name in HOSTS}
    trained = {name: holder.train() for name, holder in holders.items()}
    asked = {name: DIGITS if name in DIGITS else (name,) for name in HOSTS}
    said = {
        name: predict(one["model"], {other: holders[other].questions() for other in asked[name]})
        for name, one in trained.items()
    }
    alone = {name: holder.check(said[name][name]) for name, holder in holders.items()}
    voted = vote({name: said[name] for name in DIGITS})
    together = {name: holders[name].check(voted[name]) for name in DIGITS}
    rows, measured = ({name: one[what] for name, one in trained.items()} for what in ("rows", "measured"))
    return report(alone, together, rows, measured)


if __name__ == "__main__":
    main("--kill" in sys.argv)
