"""Walk-forward optimisation of a trading rule over thirteen years of real daily prices, as a run that survives kill -9.

The rule: hold a stock while the mean of its last `fast` closes is above that of its last `slow` ones. Which numbers are
good is looked for in three years, and tried in the year after; then all moves on by a year. Every trial is a row in
Parquet. In FOLDER, if there is one, rows (`trials`), journal and picture stay.

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
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

import zmreg
from zmreg import Phase

STOCKS = ("AAPL", "GOOG", "IBM", "MSFT")  # the fifth, FB, was listed for less than a year
GRID = {"fast": [5, 10, 20, 40], "slow": [60, 120, 180, 240]}  # 16 pairs
YEAR = 252  # trading days
COST = 0.0005  # of what is bought or sold
LAST = 40  # the trial after which the program dies, if it is to: two stocks are done, the third is half done


def signals(folder: str) -> dict[str, Any]:
    """{stock: its days, the return of each, and for each `n` of the grid the mean close of `n` days}."""
    from bokeh_sampledata import stocks

    note(folder, "signals")
    found = {}
    for stock in STOCKS:
        prices = getattr(stocks, stock)
        close = np.array(prices["adj_close"])
        total = np.cumsum([0.0, *close])
        means = {n: np.append(np.full(n - 1, np.nan), (total[n:] - total[:-n]) / n) for n in sum(GRID.values(), [])}
        found[stock] = {"days": prices["date"], "returns": close[1:] / close[:-1] - 1, "means": means}
    return found


def trial(stock: str, fast: int, slow: int, signals: dict[str, Any], sink: zmreg.Sink, folder: str) -> dict[str, Any]:
    """One pair of numbers over all years. What is known in the evening decides about the next day."""
    note(folder, f"grid_{stock}")
    means, returns = signals[stock]["means"], signals[stock]["returns"]
    held = (means[fast] > means[slow])[:-1].astype(float)
    profit = held * returns - COST * np.abs(np.diff(held, prepend=0.0))
    scores = []
    for fold, start in enumerate(range(3 * YEAR, len(profit) - YEAR + 1, YEAR)):
        scores.append(sharpe(profit[start - 3 * YEAR : start]))
        tried = {"learned": scores[-1], "unseen": sharpe(profit[start : start + YEAR])}
        name = f"{stock}/{fast}/{slow}/{fold}"
        sink.write({"id": name, "stock": stock, "fast": fast, "slow": slow, "fold": fold, "metrics": tried})
    return {"fast": fast, "slow": slow, "scores": scores, "profit": profit}


def analysis(context: Any) -> dict[str, Any]:
    """{stock: what each year chose, what that earned day by day in the year after, and what holding the stock did}."""
    note(context["folder"], "analysis")
    found = {}
    for stock in STOCKS:
        trials, prices = context[f"grid_{stock}_results"], context["signals_results"][stock]
        best = [trials[int(np.argmax(scores))] for scores in zip(*(each["scores"] for each in trials), strict=True)]
        years = [slice((3 + year) * YEAR, (4 + year) * YEAR) for year in range(len(best))]
        rule = np.concatenate([each["profit"][year] for each, year in zip(best, years, strict=True)])
        hold = np.concatenate([prices["returns"][year] for year in years])
        chosen = [(each["fast"], each["slow"]) for each in best]
        days = prices["days"][3 * YEAR + 1 :][: len(rule)]
        found[stock] = {"chosen": chosen, "days": days, "rule": rule, "hold": hold}
    return found


def report(analysis: dict[str, Any], folder: str) -> list[str]:
    """A table, and a picture where matplotlib is installed."""
    note(folder, "report")
    lines = ["stock years from        rule: a year  Sharpe  hold: a year  Sharpe"]
    for stock, each in analysis.items():
        years = len(each["chosen"])
        told = [f"{np.prod(1 + each[k]) ** (1 / years) - 1:12.1%} {sharpe(each[k]):7.2f}" for k in ("rule", "hold")]
        lines.append(f"{stock:<5} {years:>5} {each['days'][0]}  {told[0]}  {told[1]}")
    if find_spec("matplotlib") is None:
        return [*lines, "no picture: matplotlib is not installed"]
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 6), layout="tight")
    for place, (stock, each) in zip(figure.subplots(2, 2).flat, analysis.items(), strict=True):
        for name in ("rule", "hold"):
            place.plot(np.array(each["days"], "datetime64[D]"), np.cumprod(1 + each[name]), label=name)
        place.set(title=stock, yscale="log")
        place.legend()
    figure.savefig(Path(folder, "walk_forward.png"))
    return lines


def sharpe(returns: Any) -> float:
    return float(returns.mean() / (returns.std() or 1.0) * YEAR**0.5)


def note(folder: str, phase: str) -> None:
    """Proof of work: a line for each time that a phase's function is called."""
    with Path(folder, "calls").open("a") as file:
        file.write(f"{phase}\n")


def go(folder: Path, dies: bool = False) -> zmreg.RunResult:
    """All of it, or what is left to do. `dies`: in the middle."""

    def die(_: object) -> None:
        if (folder / "calls").read_text().count("grid") >= LAST:
            os.kill(os.getpid(), signal.SIGKILL)

    grids = [Phase(f"grid_{s}", trial, ["signals"], foreach={"grid": GRID}, config={"stock": s}) for s in STOCKS]
    names = [each.name for each in grids]
    begin = Phase("signals", signals, record=False)  # a mapping, but no row
    end = [Phase("analysis", analysis, ["signals", *names], record=False), Phase("report", report, ["analysis"])]
    sink = zmreg.Sink(folder / "trials", "parquet", key="id")  # of rows with the same id the first one counts
    return zmreg.run(
        [begin, *grids, *end], id="walk-forward", folder=folder, resume=True, sink=sink, concurrency=1,
        config={"folder": str(folder)}, on_result=die if dies else None,
    ).raise_for_status()  # fmt: skip


def main(folder: Path, kill: bool) -> None:
    if kill:
        died = subprocess.run([sys.executable, __file__, "--die", folder], check=False).returncode
        print("killed while it worked at", (folder / "calls").read_text().split()[-1])
        assert died == -signal.SIGKILL
    zmreg.init(num_cpus=2)
    result = go(folder)
    print(*result["report"], sep="\n")
    done = ("signals", "grid_AAPL", "grid_GOOG")
    assert result.reused == (done if kill else ()), result.reused
    times = Counter((folder / "calls").read_text().split())
    assert [times[name] for name in done] == [1, 16, 16], "what was done was not done again"
    assert times["grid_IBM"] > 16 if kill else times["grid_IBM"] == 16
    rows = list(zmreg.Sink.read(folder / "trials"))
    wanted = 16 * sum(len(each["chosen"]) for each in result["analysis"].values())
    assert len(rows) == len({row["id"] for row in rows}) == wanted, (len(rows), wanted)
    print(f"{wanted} trials, each written once; not done again: {', '.join(result.reused) or 'nothing'}")
    zmreg.shutdown()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as passing:
        where = Path(next((each for each in sys.argv[1:] if not each.startswith("--")), passing)).absolute()
        if "--die" in sys.argv:
            zmreg.init(num_cpus=2)
            go(where, dies=True)
        where.mkdir(exist_ok=True)
        main(where, "--kill" in sys.argv)
