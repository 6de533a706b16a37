"""The order of versions is total, and a version has one spelling."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from constitution.errors import InvalidRequestError
from constitution.version import Version

VERSIONS = st.builds(Version, *[st.integers(0, 999_999_999)] * 3)


@given(VERSIONS, VERSIONS, VERSIONS)
def test_order_is_total(a: Version, b: Version, c: Version) -> None:
    assert (a < b) + (a == b) + (a > b) == 1
    if a <= b <= c:
        assert a <= c


@given(VERSIONS)
def test_text_and_value_are_one(version: Version) -> None:
    assert Version.parse(str(version)) == version


def test_numbers_are_compared_as_numbers() -> None:
    assert Version.parse("1.10.0") > Version.parse("1.9.9")


@pytest.mark.parametrize(
    "text", ["", "1", "1.2", "1.2.3.4", "01.2.3", "1.2.3-rc1", "1.2.3\n", "\u0661.\u0662.\u0663", "1.2.-3", "v1.2.3"]
)
def test_other_spellings_are_refused(text: str) -> None:
    with pytest.raises(InvalidRequestError):
        Version.parse(text)
