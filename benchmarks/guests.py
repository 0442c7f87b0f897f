"""The guests' work on zmreg and on what they come with, in one run: `python -m benchmarks.guests`.

Needs the extra `guests`. Every answer is compared with that of the first back end; times are the best of three, in
seconds, after one round that nobody counts.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import dask
import dask.array
import dask.dataframe
import joblib
import numpy as np
import pandas as pd
from sklearn.datasets import load_digits
from sklearn.model_selection import GridSearchCV
from sklearn.svm import SVC

import zmreg
from zmreg.integrations import dask as zmreg_dask
from zmreg.integrations import joblib as zmreg_joblib

CPUS = 2
ROUNDS = 3
BIG = np.arange(3_000_000, dtype=float)

Work = Callable[[], Any]


def increment(number: int) -> int:
    return number + 1


def grid_search() -> Any:
    images, digits = load_digits(return_X_y=True)
    grid = GridSearchCV(SVC(), {"C": [0.1, 1, 10], "gamma": [1e-4, 1e-3]}, cv=3)
    return grid.fit(images, digits).cv_results_["mean_test_score"]


def array_graph() -> Any:
    table = dask.array.random.default_rng(1).random((2_000, 2_000), chunks=(500, 500))
    return (table @ table.T).mean(axis=0)


def frame_graph() -> Any:
    rows = pd.DataFrame({"key": np.arange(400_000) % 97, "value": np.arange(400_000.0)})
    frame = dask.dataframe.from_pandas(rows, npartitions=16)
    means = frame.groupby("key").value.mean().reset_index().rename(columns={"value": "mean"})
    return frame.merge(means, on="key").assign(away=lambda each: (each.value - each["mean"]).abs()).away.mean()


JOBLIB: dict[str, Work] = {
    "grid search on digits, 18 fits": grid_search,
    "100 sums of one array of 24 MB": lambda: joblib.Parallel()(joblib.delayed(np.sum)(BIG) for _ in range(100)),
    "3,000 calls that do nothing": lambda: joblib.Parallel()(joblib.delayed(increment)(n) for n in range(3_000)),
}
DASK: dict[str, Work] = {
    "array: product of 2,000 x 2,000, mean": array_graph,
    "data frame: group, merge, mean": frame_graph,
    "3,000 delayed calls that do nothing": lambda: dask.delayed(sum)(
        [dask.delayed(increment)(n) for n in range(3_000)]
    ),
}


def best(work: Work) -> tuple[float, Any]:
    answer = work()
    times = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times), answer


@contextmanager
def distributed() -> Iterator[Any]:
    from dask.distributed import Client, LocalCluster

    with (
        LocalCluster(n_workers=CPUS, threads_per_worker=1, dashboard_address=None) as cluster,
        Client(cluster) as client,
    ):
        yield client


def print_table(works: dict[str, Work], columns: dict[str, Callable[[Work], tuple[float, Any]]]) -> None:
    print(f"| | {' | '.join(columns)} |\n|---|{'---|' * len(columns)}")
    for name, work in works.items():
        found = [measure(work) for measure in columns.values()]
        for _, answer in found:
            np.testing.assert_allclose(answer, found[0][1])
        print(f"| {name} | {' | '.join(f'{took:.3f}' for took, _ in found)} |", flush=True)


def main() -> None:
    os.environ["ZMREG_ADDRESS"] = "local"
    zmreg_joblib.register()

    def by_joblib(backend: str) -> Callable[[Work], tuple[float, Any]]:
        def measure(work: Work) -> tuple[float, Any]:
            with joblib.parallel_config(backend, n_jobs=CPUS):
                return best(work)

        return measure

    def by_dask(scheduler: Any) -> Callable[[Work], tuple[float, Any]]:
        def measure(work: Work) -> tuple[float, Any]:
            graph = work()
            with dask.config.set({"dataframe.shuffle.method": "tasks"}):
                return best(lambda: graph.compute(scheduler=scheduler, num_workers=CPUS))

        return measure

    def by_distributed(work: Work) -> tuple[float, Any]:
        with distributed() as client:
            return by_dask(client)(work)

    def by_us(work: Work) -> tuple[float, Any]:
        graph = work()
        return best(lambda: graph.compute(scheduler=zmreg_dask.get))

    with zmreg.init(address="local", num_cpus=CPUS):
        print_table(JOBLIB, {name: by_joblib(name) for name in ("zmreg", "loky", "threading")})
        print_table(DASK, {"zmreg": by_us, "threads": by_dask("threads"), "distributed": by_distributed})


if __name__ == "__main__":
    main()
