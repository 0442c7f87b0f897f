"""Row 58: which calls keep their large plain arguments for another run, and when they let go of them."""

from __future__ import annotations

from zmreg.services.seat.arguments import KeptArguments


class Source:
    def __init__(self, object_id: bytes, nbytes: int) -> None:
        self.object_id, self.nbytes_plain = object_id, nbytes
        self.kept = False

    def keep_plain(self) -> None:
        self.kept = True

    def let_go(self) -> None:
        self.kept = False


class Recipe:
    def __init__(self, counter: int, **sizes: int) -> None:
        self.counter = counter
        self.why_not = ""
        self.sources = [Source(name.encode(), nbytes) for name, nbytes in sizes.items()]

    @property
    def keeps(self) -> list[bool]:
        return [source.kept for source in self.sources]


def kept(limit: int, *recipes: Recipe) -> KeptArguments:
    arguments = KeptArguments(limit)
    for recipe in recipes:
        arguments.keep(recipe)  # type: ignore[arg-type]
    return arguments


def test_core58_the_oldest_calls_let_go_first():
    calls = [Recipe(1, a=40), Recipe(2, b=40), Recipe(3, c=40)]
    arguments = kept(100, *calls)
    assert [call.keeps for call in calls] == [[False], [True], [True]]
    assert arguments.nbytes == 80
    arguments.over(2)
    arguments.over(2)
    assert arguments.nbytes == 40


def test_core58_what_many_calls_take_counts_once():
    calls = [Recipe(number, shared=90) for number in range(20)]
    arguments = kept(100, *calls)
    assert all(call.keeps == [True] for call in calls) and arguments.nbytes == 90
    for number in range(19):
        arguments.over(number)
    assert arguments.nbytes == 90
    arguments.over(19)
    assert arguments.nbytes == 0


def test_core58_one_that_is_too_large_pushes_out_nobody():
    small, large, forgotten = Recipe(1, a=60), Recipe(2, b=50, c=60), Recipe(3, d=10)
    forgotten.why_not = "how to make it was forgotten"
    arguments = kept(100, small, large, forgotten, small)
    assert (small.keeps, large.keeps, forgotten.keeps) == ([True], [False, False], [False])
    assert arguments.nbytes == 60
