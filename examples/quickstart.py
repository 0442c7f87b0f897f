"""Five lines of zmreg: call a function somewhere else, get a ref at once, fetch the value when it is wanted."""

from __future__ import annotations

import zmreg


@zmreg.remote
def square(x: int) -> int:
    return x * x


@zmreg.remote
def add(left: int, right: int) -> int:
    return left + right


def main() -> None:
    zmreg.init(num_cpus=2)

    ref = square.remote(7)
    print("7 squared:", ref.get())
    assert ref.get() == 49

    # Refs are arguments like any other: `add` starts when both squares exist, and this program waits for neither.
    total = add.remote(square.remote(3), square.remote(4))
    print("3 squared + 4 squared:", total.get())
    assert total.get() == 25

    squares = zmreg.get([square.remote(x) for x in range(10)])
    print("ten at once:", squares)
    assert squares == [x * x for x in range(10)]

    # In the order in which they finish, not in which they were asked for.
    arrived = sorted(ref.get() for ref in zmreg.as_completed([square.remote(x) for x in range(10)]))
    assert arrived == squares

    zmreg.shutdown()


if __name__ == "__main__":
    main()
