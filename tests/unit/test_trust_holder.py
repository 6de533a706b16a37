"""The one holder of the trust policy: it takes what follows, and keeps what is in force whatever else appears."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from constitution.trust.trust_policy import TrustPolicy
from signatures.trust_files import version_file
from signatures.trust_holder import TrustHolder
from signatures.trust_versions import write_version
from tests.unit.trust_chain import first, next_of, version, write_folder

RENAMED = ('name = "Olga"', 'name = "Olga Berg"')


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "versions").mkdir()
    return write_folder(tmp_path, first())


def put(path: Path, old: TrustPolicy, new: TrustPolicy, *people: str) -> None:
    version_file(path, new.version).write_bytes(write_version(new, version(old, new, *people).signatures))


def look(holder: TrustHolder, times: int = 2) -> TrustPolicy | None:
    taken = [holder.look(datetime.now(UTC)) for _ in range(times)]
    return next((policy for policy in taken if policy is not None), None)


def test_every_version_that_follows_is_taken_at_one_look(path: Path) -> None:
    holder = TrustHolder.load(path)
    one = holder.policy
    two = next_of(one, RENAMED)
    three = next_of(two, (RENAMED[1], RENAMED[0]))
    assert look(holder) is None
    put(path, one, two, "alva", "bruno")
    put(path, two, three, "bruno", "chen")
    assert look(holder, 1) == holder.policy == three
    write_folder(path.parent, three)
    assert look(holder) is None
    assert (holder.refused, holder.refusals) == ("", 0)


def test_the_folder_may_be_anything_while_it_is_written(path: Path) -> None:
    holder = TrustHolder.load(path)
    path.write_text("half of")
    assert look(holder, 1) is None
    assert holder.refused == ""
    write_folder(path.parent, first())
    assert look(holder) is None
    assert (holder.refused, holder.refusals) == ("", 0)


@pytest.mark.parametrize(
    ("number", "said"),
    [(4, "leads to version 4, but 5 is in force"), (5, "has other bytes than the version 5"), (6, "no signatures")],
)
def test_what_nobody_signed_is_refused_once_and_what_is_in_force_stays(path: Path, number: int, said: str) -> None:
    five = next_of(first(), version=5)
    write_folder(path.parent, five)
    holder = TrustHolder.load(path)
    write_folder(path.parent, next_of(five, RENAMED, version=number))
    assert look(holder, 4) is None
    assert holder.policy == five
    assert said in holder.refused
    assert holder.refusals == 1
    write_folder(path.parent, five)
    assert look(holder) is None
    assert holder.refused == ""


def test_a_version_with_too_few_signatures_is_refused_and_taken_once_it_has_them(path: Path) -> None:
    holder = TrustHolder.load(path)
    one = holder.policy
    two = next_of(one, RENAMED)
    put(path, one, two, "alva")
    assert look(holder) is None
    assert "of these signed: alva" in holder.refused
    put(path, one, two, "alva", "chen")
    assert look(holder, 1) == two
    assert holder.refused == ""


def test_a_file_that_changes_after_it_was_taken_changes_nothing(path: Path) -> None:
    holder = TrustHolder.load(path)
    one = holder.policy
    two = next_of(one, RENAMED)
    put(path, one, two, "alva", "bruno")
    assert look(holder, 1) == two
    other = next_of(one, ('name = "Olga"', 'name = "Mallory"'))
    put(path, one, other, "alva")
    write_folder(path.parent, other)
    look(holder)
    assert holder.policy == two
    assert "does not follow" in holder.refused or "other bytes" in holder.refused
