"""Recorded speech through a pipeline over two nodes: decode, frame, is it a voice?, three features, merge.

The node `sound` decodes and says where somebody speaks, the node `maths` computes; frames go from one to the other and
never through this program. The recordings: a voice that names the speakers in a room ("front left", ...) and noise,
which Debian's alsa-utils brings; or all WAV files (16 bit) of a FOLDER.

    pip install 'zmreg[examples]'; apt-get install alsa-utils
    python examples/speech_features.py [--picture FILE.png] [FOLDER]
"""

from __future__ import annotations

import sys
import wave
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

import zmreg
from zmreg.testing import LocalCluster

RECORDINGS = "/usr/share/sounds/alsa"
FRAMES_S = 50  # of 20 ms each


def decode(path: str) -> dict[str, Any]:
    """A recording as numbers from -1 to 1, the first channel alone."""
    with wave.open(path) as file:
        data = np.frombuffer(file.readframes(file.getnframes()), "<i2")[:: file.getnchannels()]
        return {"file": Path(path).stem, "rate": file.getframerate(), "samples": data / 32768, "sound": node()}


def frames(recording: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """It in pieces of 20 ms."""
    size = recording["rate"] // FRAMES_S
    for number in range(len(recording["samples"]) // size):
        piece = recording["samples"][number * size : (number + 1) * size]
        yield {**recording, "at": number / FRAMES_S, "samples": piece}


class Voice:
    """Lets frames pass in which somebody speaks: loud, and they repeat themselves; and 60 ms behind these."""

    def initialize(self) -> None:
        self.file, self.left = "", 0

    def process(self, frame: dict[str, Any]) -> dict[str, Any] | None:
        left = self.left - 1 if frame["file"] == self.file else 0
        voiced = decibels(frame["samples"]) > -45 and repeats(frame)[1] > 0.6
        self.file, self.left = frame["file"], 4 if voiced else max(0, left)
        return frame if self.left else None


def loudness(frame: dict[str, Any]) -> dict[str, Any]:
    about = {name: frame[name] for name in ("file", "at", "sound")}
    return {**about, "maths": node(), "db": decibels(frame["samples"])}


def pitch(frame: dict[str, Any]) -> dict[str, Any]:
    hertz, sure = repeats(frame)
    return {"hertz": hertz if sure > 0.6 else None}


def timbre(frame: dict[str, Any]) -> dict[str, Any]:
    """Where the middle of the spectrum is."""
    power = np.abs(np.fft.rfft(frame["samples"] * np.hanning(len(frame["samples"])))) ** 2
    at = np.fft.rfftfreq(len(frame["samples"]), 1 / frame["rate"])
    return {"centre": float((at * power).sum() / (power.sum() or 1.0))}


def merge(parts: tuple[dict[str, Any], ...]) -> dict[str, Any]:
    return {name: value for part in parts for name, value in part.items()}


def decibels(samples: Any) -> float:
    return float(10 * np.log10((samples**2).mean() + 1e-12))


def repeats(frame: dict[str, Any]) -> tuple[float, float]:
    """(how often a second it repeats itself, from 80 to 400; how much, up to 1)."""
    samples = frame["samples"] - frame["samples"].mean()
    alike = np.fft.irfft(np.abs(np.fft.rfft(samples, 2 * len(samples))) ** 2)
    shortest = frame["rate"] // 400
    lag = shortest + int(np.argmax(alike[shortest : frame["rate"] // 80]))
    return frame["rate"] / lag, float(alike[lag] / (alike[0] or 1.0))


def node() -> str:
    return zmreg.get_runtime_context().get_node_id()


def pipeline(sound: set[str], maths: set[str]) -> zmreg.Pipeline:
    heard = zmreg.Pipeline() | zmreg.stage(decode, locs=sound, buffer=1) | zmreg.stage(frames, locs=sound)
    features = [zmreg.stage(each, locs=maths) for each in (loudness, pitch, timbre)]
    return heard | zmreg.stage(Voice, locs=sound) | features | zmreg.stage(merge, merge="zip", locs=maths)


def plainly(paths: list[str]) -> list[dict[str, Any]]:
    """What the pipeline does, as a loop."""
    voice = Voice()
    voice.initialize()
    heard = [each for path in paths for each in frames(decode(path)) if voice.process(each)]
    return [merge((loudness(each), pitch(each), timbre(each))) for each in heard]


def draw(rows: list[dict[str, Any]], path: str) -> str:
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return "no picture: matplotlib is not installed"
    figure = Figure(figsize=(10, 8), layout="tight")
    names = sorted({row["file"] for row in rows})
    for place, name in zip(figure.subplots(len(names), 1, sharex=True, squeeze=False).flat, names, strict=True):
        mine = [(row["at"], row["hertz"] or np.nan) for row in rows if row["file"] == name]
        place.plot(*zip(*mine, strict=True), ".")
        place.set(ylim=(80, 400), title=name)
    figure.savefig(path)
    return f"picture: {path}"


def main(folder: str, picture: str) -> None:
    paths = sorted(map(str, Path(folder).glob("*.wav")))
    if not paths:
        sys.exit(f"there are no WAV files in {folder}: apt-get install alsa-utils, or name another folder")
    rows, asked = [], []
    nodes = [{"num_cpus": 0}, {"name": "sound", "locs": {"sound"}}, {"name": "maths", "locs": {"maths"}}]
    with LocalCluster(nodes) as cluster:
        cluster.attach()
        for row in pipeline({"sound"}, {"maths"}).stream(asked.append(path) or path for path in paths):
            if not rows:
                print(f"the first features are there when {len(asked)} of {len(paths)} recordings were asked for")
            rows.append(row)
        places = {(row["sound"], row["maths"]) for row in rows}
        assert places == {tuple(each.node_id for each in cluster.nodes[1:])}
        here = {name: node() for name in ("sound", "maths")}
        assert [{**row, **here} for row in rows] == plainly(paths), "the same as a loop does, in the same order"
    for path in paths:
        mine = [row for row in rows if row["file"] == Path(path).stem]
        hertz = [row["hertz"] for row in mine if row["hertz"]]
        told = f" at {np.median(hertz):.0f} Hz" if hertz else ""
        print(f"{Path(path).stem:<14} {len(mine) / FRAMES_S:4.1f} s of voice{told}")
        assert folder != RECORDINGS or (len(mine) < FRAMES_S // 10 if "Noise" in path else len(mine) > FRAMES_S // 3)
    if picture:
        print(draw(rows, picture))


if __name__ == "__main__":
    given = sys.argv[1:]
    picture = given.pop(given.index("--picture") + 1) if "--picture" in given else ""
    main(next((each for each in given if not each.startswith("--")), RECORDINGS), picture)
