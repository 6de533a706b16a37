"""What a confirmation rests on is said in one sentence, and never says more than happened."""

import itertools

import pytest

from constitution.confirmation import confirmation_reason
from constitution.release import Verdict


@pytest.mark.parametrize(
    ("verdict", "how", "said"),
    [
        (Verdict.OK, {}, "every target obeys; the watch said ok"),
        (Verdict.NOT_WATCHED, {}, "every target obeys; not watched, as the strategy says"),
        (Verdict.CANNOT_TELL, {}, "every target obeys; the watch cannot tell; and the strategy goes on then"),
        (
            Verdict.CANNOT_TELL,
            {"promoted_by": "alva, bruno", "cut_short": True},
            "every target obeys; the watch had not ended; promoted by alva, bruno",
        ),
        (Verdict.NO_DATA, {"promoted_by": "alva"}, "every target obeys; the watch had no data; promoted by alva"),
        (
            Verdict.CANNOT_TELL,
            {"resumed": "olga: looked at it"},
            "every target obeys; the watch cannot tell; a hold was ended by olga: looked at it",
        ),
        (None, {}, "every target obeys"),
    ],
)
def test_the_sentence(verdict: Verdict | None, how: dict[str, str | bool], said: str) -> None:
    assert confirmation_reason(verdict, **how) == said  # type: ignore[arg-type]


def test_nothing_claims_a_watch_that_did_not_say_ok_and_each_way_is_told_apart() -> None:
    cut_short: dict[str, object] = {"promoted_by": "alva", "cut_short": True}
    ways: list[dict[str, object]] = [{}, {"promoted_by": "alva"}, {"resumed": "x"}, cut_short]
    said = {}
    for verdict, (number, way) in itertools.product(Verdict, enumerate(ways)):
        text = confirmation_reason(verdict, **way)  # type: ignore[arg-type]
        assert "passed" not in text
        assert ("said ok" in text) == (verdict is Verdict.OK and "cut_short" not in way)
        assert ("promoted by alva" in text) == ("promoted_by" in way)
        said[text] = (verdict if "cut_short" not in way else None, number)
    assert len(set(said.values())) == len(said) == len(Verdict) * 3 + 1
