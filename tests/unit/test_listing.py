"""Names for people are bounded, and the rest is counted."""

import pytest

from constitution.listing import NAMED, first_names, named


@pytest.mark.parametrize(
    ("names", "others", "text"),
    [
        ((), 0, ""),
        (("a",), 0, "a"),
        (("a", "b"), 0, "a, b"),
        (("a", "b"), 1, "a, b and 1 other"),
        (("a", "b"), 4321, "a, b and 4,321 others"),
        ((), 4321, "4,321 targets"),
        ((), 1, "1 target"),
    ],
)
def test_a_few_are_named_and_the_others_are_counted(names: tuple[str, ...], others: int, text: str) -> None:
    assert named(names, others) == text


def test_more_than_a_sentence_holds_are_counted() -> None:
    many = [f"n{number:03d}" for number in range(NAMED + 5)]
    assert named(many, 2).endswith(f"{many[NAMED - 1]} and 7 others")
    assert first_names(reversed(many)) == tuple(many[:NAMED])
