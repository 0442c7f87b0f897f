"""Walk-forward optimisation of a trading rule over thirteen years of real daily prices, as a run that survives kill -9.

The rule: hold a stock while the mean of its last `fast` closes is above that of its last `slow` ones. Which two numbers
are good is looked for in three years, and tried in the year after, which nobody has looked at; then all moves on by a
year. Every trial is a row in Parquet. FOLDER keeps the rows, the journal and the picture.

    pip install 'zmreg[examples]'
    python examples/walk_forward.py [FOLDER]
    python examples/walk_forward.py --kill [FOLDER]    # the program dies in the middle, by kill -9, and is run again
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

import zmreg

STOCKS = ("AAPL", "GOOG", "IBM", "MSFT")  # the fifth, FB, was listed for less than a year
GRID = {"fast": [5, 10, 20, 40], "slow": [60, 120, 180, 240]}
YEAR = 252  # trading days
TRAIN, TEST = 3 * YEAR, YEAR
COST = 0.0005  # of what is bought or sold
LAST_WORDS = 40  # the trial after which the program that is to die does: two stocks are done, the third is half done


# -- phases ------------------------------------------------------------------------------------------------------------


def signals(calls: str) -> dict[str, Any]:
    """{stock: returns of each day, and the mean close of the `n` days before it for each n of the grid}."""
    from bokeh_sampledata import stocks

    note(calls, "signals")
    found = {}
    for stock in STOCKS:
        close = np.array(getattr(stocks, stock)["adj_close"])
        total = np.concatenate([[0.0], np.cumsum(close)])
        means = {n: np.concatenate([np.full(n - 1, np.nan), (total[n:] - total[:-n]) / n]) for n in sum(GRID.values(), [])}
        found[stock] = {"dates": getattr(stocks, stock)["date"], "returns": close[1:] / close[:-1] - 1, "means": means}
    return found


def trial(stock: str, fast: int, slow: int, signals: dict[str, Any], sink: zmreg.Sink, calls: str) -> dict[str, Any]:
    """One pair of numbers, over all years. What is known on the evening of a day decides about the next one."""
    note(calls, f"grid_{stock}")
    means, returns = signals[stock]["means"], signals[stock]["returns"]
    held = (means[fast] > means[slow])[:-1].astype(float)
    profit = held * returns - COST * np.abs(np.diff(held, prepend=0.0))
    train = []
    for fold, start in enumerate(range(0, len(profit) - TRAIN - TEST + 1, TEST)):
        known, unknown = profit[start : start + TRAIN], profit[start + TRAIN : start + TRAIN + TEST]
        train.append(sharpe(known))
        row = {"stock": stock, "fast": fast, "slow": slow, "fold": fold, "train": train[-1], "test": sharpe(unknown)}
        sink.write({"id": f"{stock}/{fast}/{slow}/{fold}", **row})
    return {"fast": fast, "slow": slow, "train": train, "profit": profit}


def analysis(context: Any) -> dict[str, Any]:
    """{stock: what was chosen for each year, what that earned day by day, and what holding the stock did}."""
    note(context["calls"], "analysis")
    found = {}
    for stock in STOCKS:
        trials, prices = context[f"grid_{stock}_results"], context["signals_results"][stock]
        years = range(len(trials[0]["train"]))
        best = [max(trials, key=lambda trial, year=year: trial["train"][year]) for year in years]
        parts = [slice(TRAIN + year * TEST, TRAIN + (year + 1) * TEST) for year in years]
        found[stock] = {
            "chosen": [(each["fast"], each["slow"]) for each in best],
            "rule": np.concatenate([each["profit"][part] for each, part in zip(best, parts, strict=True)]),
            "hold": np.concatenate([prices["returns"][part] for part in parts]),
            "dates": prices["dates"][TRAIN + 1 : TRAIN + 1 + len(parts) * TEST],
        }
    return found


def report(analysis: dict[str, Any], calls: str) -> list[str]:
    note(calls, "report")
    lines = ["stock  years from        rule: a year, Sharpe    held: a year, Sharpe"]
    for stock, each in analysis.items():
        told = [f"{np.prod(1 + each[k]) ** (YEAR / len(each[k])) - 1:8.1%} {sharpe(each[k]):6.2f}" for k in ("rule", "hold")]
        lines.append(f"{stock:<5} {len(each['chosen']):>6} {each['dates'][0]} {told[0]:>20} {told[1]:>23}")
    return lines


def sharpe(returns: Any) -> float:
    spread = float(returns.std())
    return float(returns.mean()) / spread * YEAR**0.5 if spread else 0.0


def note(calls: str, phase: str) -> None:
    """Proof of work: a line for each time that a phase's function was called."""
    with open(calls, "a") as file:
        file.write(f"{phase}\n")


# -- the run -----------------------------------------------------------------------------------------------------------


def go(folder: Path, dies: bool = False) -> zmreg.RunResult:
    """All of it, or what is left to do. `dies`: in the middle."""
    left = LAST_WORDS

    def count(result: dict[str, Any]) -> None:
        nonlocal left
        left -= result["phase"].startswith("grid")
        if dies and not left:
            os.kill(os.getpid(), signal.SIGKILL)

    grids = [
        zmreg.Phase(f"grid_{stock}", trial, ["signals"], foreach={"grid": GRID}, config={"stock": stock}) for stock in STOCKS
    ]
    phases = [
        zmreg.Phase("signals", signals),
        *grids,
        zmreg.Phase("analysis", analysis, ["signals", *(each.name for each in grids)]),
        zmreg.Phase("report", report, ["analysis"]),
    ]
    folder.mkdir(exist_ok=True)
    sink = zmreg.Sink(folder / "trials", "parquet", key="id")
    return zmreg.run(
        phases, id="walk-forward", folder=folder, resume=True, sink=sink,
        config={"calls": str(folder / "calls")}, concurrency=1, on_result=count,
    ).raise_for_status()  # fmt: skip


def draw(analysis: dict[str, Any], path: Path) -> str:
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return "no picture: matplotlib is not installed"
    figure = Figure(figsize=(10, 6), layout="tight")
    for place, (stock, each) in zip(figure.subplots(2, 2).flat, analysis.items(), strict=True):
        dates = np.array(each["dates"], "datetime64[D]")
        for name in ("rule", "hold"):
            place.plot(dates, np.cumprod(1 + each[name]), label=name)
        place.set(title=stock, yscale="log")
        place.legend()
    figure.savefig(path)
    return f"picture: {path}"


def main(folder: Path, kill: bool) -> None:
    if kill:
        died = subprocess.run([sys.executable, __file__, "--die", str(folder)], check=False).returncode
        assert died == -signal.SIGKILL, died
        print("killed while it worked at", (folder / "calls").read_text().splitlines()[-1])
    zmreg.init(num_cpus=2)
    result = go(folder)
    print(*result["report"], sep="\n")
    print(draw(result["analysis"], folder / "walk_forward.png"))

    done = ("signals", "grid_AAPL", "grid_GOOG")
    assert result.reused == (done if kill else ())
    times, each = Counter((folder / "calls").read_text().split()), len(GRID["fast"]) * len(GRID["slow"])
    assert [times[name] for name in done] == [1, each, each], "what was done was not done again"
    assert times["grid_IBM"] > each if kill else times["grid_IBM"] == each
    rows = list(zmreg.Sink.read(folder / "trials"))
    wanted = each * sum(len(found["chosen"]) for found in result["analysis"].values())
    assert len(rows) == len({row["id"] for row in rows}) == wanted, (len(rows), wanted)
    print(f"{wanted} trials in {folder / 'trials'}, each once; reused: {', '.join(result.reused) or 'nothing'}")
    zmreg.shutdown()


if __name__ == "__main__":
    flags = {each for each in sys.argv[1:] if each.startswith("--")}
    with tempfile.TemporaryDirectory() as passing:
        where = Path(next((each for each in sys.argv[1:] if each not in flags), passing)).absolute()
        if "--die" in flags:
            zmreg.init(num_cpus=2)
            go(where, dies=True)
        else:
            main(where, "--kill" in flags)
