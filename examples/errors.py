"""What failures look like: an error is the user's own exception again, and every wait ends."""

from __future__ import annotations

import os
import threading

import zmreg


class OutOfStock(Exception):
    def __init__(self, item: str, wanted: int) -> None:
        super().__init__(f"{wanted} x {item}")
        self.item = item
        self.wanted = wanted


@zmreg.remote
def order(item: str, wanted: int) -> str:
    raise OutOfStock(item, wanted)


@zmreg.remote
def confirm(receipt: str) -> str:
    return f"confirmed: {receipt}"


@zmreg.remote(max_retries=0)
def vanish() -> None:
    os._exit(7)


@zmreg.remote
def forever() -> None:
    threading.Event().wait()


@zmreg.remote
class Picky:
    def __init__(self, size: int) -> None:
        if size < 0:
            raise ValueError(f"size must not be negative, got {size}")

    def use(self) -> None:
        pass


def main() -> None:
    zmreg.init(num_cpus=2)

    print("1. caught by its own class, attributes and remote traceback included")
    try:
        order.remote("lamp", 3).get()
    except OutOfStock as error:
        assert isinstance(error, zmreg.errors.TaskError)
        assert (error.item, error.wanted) == ("lamp", 3)
        assert "raise OutOfStock(item, wanted)" in str(error)
        print("  ", str(error).splitlines()[0])
    else:
        raise AssertionError("the error was lost")

    print("2. a call whose input failed never runs, and fails the same way")
    failure = confirm.remote(order.remote("lamp", 3)).exception()
    assert isinstance(failure, OutOfStock)

    print("3. a worker that dies is named with its exit code")
    death = vanish.remote().exception()
    assert isinstance(death, zmreg.errors.WorkerDiedError)
    assert death.exit_code == 7
    print("  ", str(death).splitlines()[0])

    print("4. a wait ends when told to; the work goes on until it is cancelled")
    ref = forever.remote()
    try:
        ref.get(timeout=0.2)
    except TimeoutError as error:
        print("  ", str(error).splitlines()[0])
    else:
        raise AssertionError("there was nothing to get")
    zmreg.cancel(ref, force=True)
    assert isinstance(ref.exception(), zmreg.errors.ZmregError)

    print("5. an actor whose constructor raised answers every call with that error")
    died = Picky.remote(-1).use.remote().exception()
    assert isinstance(died, zmreg.errors.ActorDiedError)
    assert died.init_failed
    assert "size must not be negative" in str(died)

    print("6. wrong calls are refused here, before anything is sent")
    try:
        confirm.remote()  # type: ignore[call-arg]
    except TypeError as error:
        print("  ", error)
    else:
        raise AssertionError("a call without its argument was accepted")

    zmreg.shutdown()


if __name__ == "__main__":
    main()
