"""The matrix itself: generated, seeded, complete in pairs, every cell allowed to end in something."""

from itertools import combinations

import pytest

from tests.faults.cells import FAULTS, SITUATIONS, Cell, allowed, find, in_turn, matrix, shard, space


@pytest.fixture(scope="module")
def cells() -> tuple[Cell, ...]:
    return matrix()


@pytest.mark.slow
def test_the_same_seed_gives_the_same_cells() -> None:
    assert matrix() == matrix()
    assert matrix(seed=1) != matrix()
    assert len({cell.id for cell in space()}) == len(list(space()))


def test_every_pair_of_values_is_in_the_matrix(cells: tuple[Cell, ...]) -> None:
    wanted = {pair for cell in space() for pair in combinations(cell.values(), 2)}
    found = {pair for cell in cells for pair in combinations(cell.values(), 2)}
    assert found == wanted
    assert {cell.situation for cell in cells} == set(SITUATIONS)
    assert {(cell.system, cell.fault) for cell in cells} == {(s, f) for s, faults in FAULTS.items() for f in faults}


def test_a_size_that_cannot_hold_every_pair_is_refused() -> None:
    with pytest.raises(ValueError, match="do not hold every pair"):
        matrix(size=20)


def test_shards_are_the_matrix_and_share_nothing(cells: tuple[Cell, ...]) -> None:
    parts = [shard(cells, f"{number}/4") for number in range(1, 5)]
    assert sorted(cell for part in parts for cell in part) == sorted(cells)
    for part in parts:
        assert sorted(in_turn(part)) == sorted(part)
    with pytest.raises(ValueError, match="SHARD is i/n"):
        shard(cells, "5/4")


def test_a_cell_is_found_by_its_id(cells: tuple[Cell, ...]) -> None:
    for cell in cells[::40]:
        assert find(cell.id) == cell
    with pytest.raises(LookupError):
        find("00000000")


def test_nothing_is_rolled_back_by_what_fails_after_confirmation(cells: tuple[Cell, ...]) -> None:
    after = [c for c in cells if c.step in ("broadcast", "archive") and c.situation in ("first_release", "update")]
    assert after
    assert all(allowed(cell) == {"completed"} for cell in after)
