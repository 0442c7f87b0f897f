"""Which values move where: row X5 of the specs, the part of `zmreg.rebalance`."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from zmreg.core.rebalancing import LEVEL, Move, Piece, plan

A, B, C = b"a", b"b", b"c"


def pieces(*sizes: int, at: bytes = A) -> list[Piece]:
    return [Piece(at + bytes([number]), nbytes, (at,)) for number, nbytes in enumerate(sizes)]


def test_X5_half_of_what_one_node_has_goes_to_an_empty_one() -> None:
    moves = plan(pieces(10, 10, 10, 10), {A: (40, 100), B: (0, 100)})
    assert [(move.source, move.target, move.nbytes) for move in moves] == [(A, B, 10)] * 2
    assert len({move.key for move in moves}) == 2


def test_X5_what_is_level_stays() -> None:
    assert plan(pieces(10, 10), {A: (20, 100), B: (20, 100)}) == []
    assert plan(pieces(1), {A: (1, 100), B: (0, 100)}) == [], "two per cent are not worth a move"
    assert plan(pieces(50), {A: (50, 100), B: (0, 100)}) == [], "the other would be the full one"
    assert plan([], {A: (90, 100), B: (0, 100)}) == []
    assert plan(pieces(10, 10), {}) == []


def test_X5_a_little_over_level_is_better_than_far_below() -> None:
    """Two of ten and a node with one: half of the gap is less than ten."""
    assert [move.nbytes for move in plan(pieces(10, 10), {A: (20, 100), B: (1, 100)})] == [10]


def test_X5_large_stores_take_more() -> None:
    moves = plan(pieces(*[10] * 12), {A: (120, 200), B: (0, 400)})
    assert len(moves) == 8


def test_X5_a_copy_goes_to_none_of_its_own_holders() -> None:
    held = [Piece(bytes([number]), 10, (A, B)) for number in range(4)]
    stores = {A: (40, 100), B: (40, 100), C: (0, 100)}
    moves = plan(held, stores)
    assert moves and {move.target for move in moves} == {C}
    assert plan(held, {A: (40, 100), B: (0, 100)}) == []


def test_X5_nothing_goes_where_there_is_no_room_and_what_is_on_disk_counts() -> None:
    assert plan(pieces(60, 60), {A: (1_000, 1_000), B: (0, 50)}) == []
    assert [move.target for move in plan(pieces(40, 40, 40), {A: (40, 100), B: (40, 100)})] == [B]


def test_X5_a_plan_is_bounded() -> None:
    many = [Piece(number.to_bytes(4, "big"), 1_000, (A,)) for number in range(60_000)]
    assert len(plan(many, {A: (60_000_000, 80_000_000), B: (0, 80_000_000)})) == 10_000
    assert len(plan(many, {A: (60_000_000, 80_000_000), B: (0, 80_000_000)}, 7)) == 7


sizes = st.lists(st.tuples(st.integers(1, 60), st.sampled_from([(A,), (B,), (C,), (A, B), (B, C)])), max_size=30)


@given(sizes, st.tuples(st.integers(50, 400), st.integers(50, 400), st.integers(50, 400)))
def test_X5_any_plan_makes_nodes_more_alike_and_moves_nothing_twice(
    made: list[tuple[int, tuple[bytes, ...]]], room: tuple[int, int, int]
) -> None:
    held = {bytes([number]): Piece(bytes([number]), nbytes, at) for number, (nbytes, at) in enumerate(made)}
    size = dict(zip((A, B, C), room, strict=True))
    used = {node: sum(piece.nbytes for piece in held.values() if node in piece.holders) for node in size}
    stores = {node: (used[node], size[node]) for node in size}
    moves = plan(held.values(), stores)
    assert len({move.key for move in moves}) == len(moves), "nothing moves twice"
    for move in moves:
        before = used[move.source] / size[move.source] - used[move.target] / size[move.target]
        _carry_out(move, held, used)
        after = used[move.source] / size[move.source] - used[move.target] / size[move.target]
        assert before > LEVEL and abs(after) < before
        assert used[move.target] <= size[move.target]
    assert all(len(set(piece.holders)) == len(piece.holders) for piece in held.values())


def _carry_out(move: Move, held: dict[bytes, Piece], used: dict[bytes, int]) -> None:
    piece = held[move.key]
    assert move.source in piece.holders and move.target not in piece.holders and move.nbytes == piece.nbytes
    rest = tuple(node for node in piece.holders if node != move.source)
    held[move.key] = Piece(move.key, move.nbytes, (*rest, move.target))
    used[move.source] -= move.nbytes
    used[move.target] += move.nbytes
