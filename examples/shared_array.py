"""One large array, many readers, one copy: numpy arrays are read where they lie, in shared memory."""

from __future__ import annotations

import numpy as np

import zmreg

ROWS = 1_000_000


@zmreg.remote
def make(rows: int) -> np.ndarray:
    return np.arange(rows, dtype=np.float64)


@zmreg.remote
def part_sum(array: np.ndarray, start: int, stop: int) -> float:
    # A view into the store, the same pages for every reader; so nobody may write to it.
    assert not array.flags.writeable
    assert not array.flags.owndata
    return float(array[start:stop].sum())


def main() -> None:
    zmreg.init(num_cpus=2)

    ref = make.remote(ROWS)
    step = ROWS // 4
    # The ref is passed, not the array: eight million bytes stay where they were made, eight numbers travel.
    sums = zmreg.get([part_sum.remote(ref, start, start + step) for start in range(0, ROWS, step)])
    print("sums of the four parts:", sums)
    assert sum(sums) == ROWS * (ROWS - 1) / 2

    print("size, asked without fetching:", ref.meta.nbytes, "bytes")
    assert ref.meta.nbytes >= ROWS * 8

    shared = ref.get()
    assert not shared.flags.writeable
    private = ref.get(copy=True)
    private[0] = -1.0
    print("a private copy may be changed:", private[0], "and the shared one stays:", shared[0])
    assert shared[0] == 0.0

    # From here to there the same way: put it once, hand the ref to many.
    put = zmreg.put(np.ones(ROWS))
    assert zmreg.get([part_sum.remote(put, 0, ROWS) for _ in range(4)]) == [ROWS] * 4

    zmreg.shutdown()


if __name__ == "__main__":
    main()
