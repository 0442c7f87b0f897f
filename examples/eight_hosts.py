"""Eight processes, each with data that no other has; one request that trains, predicts and compares across all of them.

Each host holds the source of one package of Python's own library in its memory, and says so when it joins: nobody has
a list of who is where. It trains a model of the words in three quarters of the files (a naive Bayes classifier's). Of
the rest, passages of twenty lines are cut out, and each model says how well it could have written them. Whose model
says the most is taken for the author.

    python examples/eight_hosts.py
    python examples/eight_hosts.py --kill       # one host dies in the middle of its training; the answer is the same
"""

from __future__ import annotations

import math
import os
import re
import signal
import subprocess
import sys
import sysconfig
import threading
from collections import Counter
from pathlib import Path

import zmreg
from zmreg.testing import LocalCluster

PARTS = ("asyncio", "email", "http", "importlib", "json", "multiprocessing", "unittest", "xml")
LIBRARY = Path(sysconfig.get_path("stdlib"))
LINES = 20
PATIENCE_S = 30.0


# -- what each host serves ---------------------------------------------------------------------------------------------


class Part:
    """One package's source, in the memory of one process."""

    def __init__(self, name: str, dies: bool = False) -> None:
        self.name = name
        self.dies = dies
        files = sorted((LIBRARY / name).rglob("*.py"))
        texts = [path.read_text(encoding="utf-8", errors="replace") for path in files]
        texts = [text for text in texts if text.count("\n") >= LINES]
        self.held_out, self.known = texts[::4], [text for index, text in enumerate(texts) if index % 4]

    def train(self) -> dict:
        """How often each word occurs."""
        words: Counter[str] = Counter()
        for number, text in enumerate(self.known):
            if self.dies and number == len(self.known) // 2:
                os.kill(os.getpid(), signal.SIGKILL)
            words.update(words_of(text))
        return {"part": self.name, "words": words, "total": words.total(), "files": len(self.known)}

    def sample(self) -> list[list[str]]:
        """The words of passages that the model has not seen."""
        lines = [line for text in self.held_out for line in text.splitlines() if line.strip()]
        passages = ["\n".join(lines[at : at + LINES]) for at in range(0, len(lines), LINES)]
        return [words_of(passage) for passage in passages]


def words_of(text: str) -> list[str]:
    return re.findall(r"[A-Za-z_]{2,}", text)


def predict(model: dict, samples: dict[str, list[list[str]]]) -> dict[str, list[float]]:
    """{package: how likely each of its passages is, as a logarithm}, by one model."""
    words, total = model["words"], model["total"] + 5_000  # a tenth of a time for each of 50,000 words it has not seen
    likely = {word: math.log((count + 0.1) / total) for word, count in words.items()}
    never = math.log(0.1 / total)
    return {
        part: [sum(likely.get(word, never) for word in passage) for passage in passages]
        for part, passages in samples.items()
    }


def compare(scores: dict[str, dict[str, list[float]]]) -> dict:
    """Who is taken for the author of each passage, and how often that is right."""
    table = {
        part: Counter(
            max(scores, key=lambda model: scores[model][part][index]) for index in range(len(scores[part][part]))
        )
        for part in scores
    }
    right, asked = sum(table[part][part] for part in table), sum(row.total() for row in table.values())
    return {"table": table, "right": right, "asked": asked, "accuracy": right / asked}


def report(accuracy: float, table: dict[str, Counter[str]], files: dict[str, int]) -> str:
    lines = [f"{'package':<16} {'files':>5} {'passages':>8}  taken for"]
    for part, row in table.items():
        taken = ", ".join(f"{other} {count}" for other, count in row.most_common(3))
        lines.append(f"{part:<16} {files[part]:>5} {row.total():>8}  {taken}")
    return "\n".join([*lines, f"{accuracy:.0%} of the passages are given to the right package"])


def serve(name: str, address: str, dies: bool) -> None:
    """What a host's process does: hold its part, and serve what can be asked of it, until it is told to end."""
    part = Part(name, dies)
    own = {"train": part.train, "sample": part.sample, "predict": predict, "compare": compare, "report": report}
    zmreg.serve(own, address=address, locs={name})


# -- the request -------------------------------------------------------------------------------------------------------


def steps() -> list[zmreg.Step]:
    """A text that is another step's name stands for its value, wherever it is; `locs` say which host it must be."""
    each = []
    for part in PARTS:
        samples = {other: f"{other} sample" for other in PARTS}
        each += [
            zmreg.Step(f"{part} model", "train", locs={part}, retries=2),
            zmreg.Step(f"{part} sample", "sample", locs={part}, retries=2),
            zmreg.Step(f"{part} scores", "predict", (f"{part} model", samples), locs={part}, retries=2),
        ]
    return [
        *each,
        zmreg.Step("compared", "compare", ({part: f"{part} scores" for part in PARTS},), retries=2),
        zmreg.Step(
            "report",
            "report",
            ("compared.accuracy", "compared.table"),
            {"files": {part: f"{part} model.files" for part in PARTS}},
            retries=2,
        ),
    ]


class Hosts:
    """The eight processes. One that dies is started again, as a supervisor would."""

    def __init__(self, addresses: list[str], dies: str) -> None:
        self._ending = False
        self._guard = threading.Lock()
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self.started: Counter[str] = Counter()
        places = [(part, addresses[number % len(addresses)]) for number, part in enumerate(PARTS)]
        self._threads = [threading.Thread(target=self._keep, args=(*place, place[0] == dies)) for place in places]
        for thread in self._threads:
            thread.start()

    def _keep(self, part: str, address: str, dies: bool) -> None:
        while True:
            with self._guard:
                if self._ending:
                    return
                command = [sys.executable, __file__, "--host", part, address, *(["--dies"] if dies else [])]
                host = self._running[part] = subprocess.Popen(command)
                self.started[part] += 1
            host.wait()
            dies = False

    def end(self) -> None:
        with self._guard:
            self._ending = True
        for host in self._running.values():
            host.terminate()
        for thread in self._threads:
            thread.join()


def main(kill: bool) -> None:
    with LocalCluster([{"num_cpus": 1, "name": "left"}, {"num_cpus": 1, "name": "right"}]) as cluster:
        hosts = Hosts([node.address for node in cluster.nodes], "json" if kill else "")
        try:
            cluster.attach()
            # Nobody has to know when the hosts are there: it waits until all that the request asks for is served.
            result = zmreg.request(
                steps(), queue_until=PATIENCE_S, return_intermediate_results=True, include_execution_summary=True
            )
        finally:
            hosts.end()

    print(result.report(), end="\n\n")
    for row in result.timeline():
        again = ", called again" if row["attempt"] else ""
        began = row["queued_s"] if row["started_s"] is None else row["started_s"]
        print(f"{began:7.3f} s to {row['ended_s']:7.3f} s  {row['node']:<6} {row['step']}{again}")
    summary = result.execution_summary
    print(f"\nslowest level: {summary.bottleneck_level_index}; from node to node: {summary.cross_node_hops} values")
    print(f"\n{result['report']}")

    assert list(result) == ["report"], "only what no other step takes comes back"
    assert result["report"] == plainly(), "the same as without any of it"
    assert hosts.started["json"] == (2 if kill else 1)


def plainly() -> str:
    """The same in one process."""
    parts = {name: Part(name) for name in PARTS}
    models = {name: part.train() for name, part in parts.items()}
    samples = {name: part.sample() for name, part in parts.items()}
    compared = compare({name: predict(model, samples) for name, model in models.items()})
    return report(compared["accuracy"], compared["table"], {name: model["files"] for name, model in models.items()})


if __name__ == "__main__":
    if sys.argv[1:2] == ["--host"]:
        serve(sys.argv[2], sys.argv[3], "--dies" in sys.argv)
    else:
        main("--kill" in sys.argv)
