"""A hold ends by a resume that names it, or by as many promoters as it takes; by nothing else."""

from datetime import UTC, datetime, timedelta

import pytest

from constitution.api import OrderRecord
from constitution.checksum import checksum_of
from constitution.environment import Deadlines
from constitution.messages import Held
from constitution.rollback_plan import confirm_by
from constitution.trust.hold_rules import answered_watches, standing_holds, step_of_hold, step_of_watch

NOW = datetime(2026, 11, 29, tzinfo=UTC)
WATCH = checksum_of(b"a watch")


def named(label: str) -> str:
    """The name of the hold that these tests call ``label``."""
    return step_of_hold(checksum_of(label.encode()))


def orders(*said: str) -> list[OrderRecord]:
    """Orders as ``hold LABEL``, ``resume LABEL``, ``promote PERSON`` and others, oldest first."""
    records = []
    for at, text in enumerate(said):
        verb, _, about = text.partition(" ")
        records.append(
            OrderRecord(
                digest=checksum_of(about.encode() if verb == "hold" else str(at).encode()),
                person=about if verb == "promote" else "olga",
                order=verb,
                step=named(about) if verb == "resume" else None,
                reason="to look",
                accepted_at=NOW,
            )
        )
    return records


@pytest.mark.parametrize(
    "said",
    [
        (),
        ("resume a",),
        ("hold a", "resume a"),
        ("hold a", "resume a", "hold b", "resume b"),
        ("hold a", "hold b", "resume b", "resume a"),
        ("hold a", "promote alva", "promote bruno"),
        ("hold a", "retry", "resume a"),
    ],
)
def test_what_is_not_held_may_be_confirmed(said: tuple[str, ...]) -> None:
    assert standing_holds(orders(*said), promoters=2) == ()


@pytest.mark.parametrize(
    ("said", "standing"),
    [
        (("hold a",), "a"),
        (("hold a", "resume b"), "a"),
        (("hold a", "resume a", "hold b"), "b"),
        (("hold a", "hold b", "resume b"), "a"),
        (("hold a", "hold b", "resume a"), "b"),
        (("hold a", "promote alva"), "a"),
        (("hold a", "promote alva", "promote alva"), "a"),
        (("promote alva", "promote bruno", "hold a"), "a"),
        (("hold a", "retry", "abort"), "a"),
    ],
)
def test_what_is_held_names_who_holds_it(said: tuple[str, ...], standing: str) -> None:
    assert standing_holds(orders(*said), promoters=2) == (Held(name=named(standing), why="held by olga: to look"),)


def test_a_resume_answers_the_watch_that_it_names_and_no_hold() -> None:
    resume = orders("resume a")[0].model_copy(update={"step": step_of_watch(WATCH)})
    held = orders("hold a")
    assert answered_watches([*held, resume]) == {WATCH}
    assert standing_holds([*held, resume], promoters=2)[0].name == named("a")
    assert answered_watches(orders("hold a", "resume a")) == set()
    assert answered_watches([resume.model_copy(update={"order": "retry"})]) == set()


def test_a_release_is_overdue_after_every_wait_that_its_run_may_make() -> None:
    deadlines = Deadlines(sync=60, hold=100, person=1000)
    assert confirm_by(NOW, 30, deadlines) == NOW + timedelta(seconds=60 + 2 * 30 + 1000 + 1000)
    assert confirm_by(NOW, 0, Deadlines(sync=1, hold=100, person=10)) == NOW + timedelta(seconds=1 + 100 + 10)
