"""A hold ends by a resume that came after it, or by as many promoters as it takes; by nothing else."""

from datetime import UTC, datetime, timedelta

import pytest

from constitution.api import OrderRecord
from constitution.environment import Deadlines
from constitution.errors import HeldError
from constitution.rollback_plan import confirm_by
from services.constitution_service.tables.orders import OrderRow, is_resumed, require_not_held

NOW = datetime(2026, 11, 29, tzinfo=UTC)


def rows(*orders: str) -> list[OrderRow]:
    """Orders as ``verb`` or ``verb:person``, oldest first."""
    said = [order.partition(":") for order in orders]
    return [
        OrderRow(
            OrderRecord(person=person or "olga", order=verb, step=None, reason="to look", accepted_at=NOW),
            envelope=None,
        )
        for verb, _, person in said
    ]


@pytest.mark.parametrize(
    "orders",
    [
        (),
        ("resume",),
        ("hold", "resume"),
        ("hold", "resume", "hold", "resume"),
        ("hold", "promote:alva", "promote:bruno"),
        ("hold", "retry", "resume"),
    ],
)
def test_what_is_not_held_may_be_confirmed(orders: tuple[str, ...]) -> None:
    require_not_held(rows(*orders), 2)


@pytest.mark.parametrize(
    "orders",
    [
        ("hold",),
        ("resume", "hold"),
        ("hold", "resume", "hold"),
        ("hold", "promote:alva"),
        ("hold", "promote:alva", "promote:alva"),
        ("promote:alva", "promote:bruno", "hold"),
        ("hold", "retry", "abort"),
    ],
)
def test_what_is_held_names_who_holds_it(orders: tuple[str, ...]) -> None:
    with pytest.raises(HeldError, match="held by olga: to look"):
        require_not_held(rows(*orders), 2)


def test_a_release_is_overdue_after_every_wait_that_its_run_may_make() -> None:
    deadlines = Deadlines(sync=60, hold=100, person=1000)
    assert confirm_by(NOW, 30, deadlines) == NOW + timedelta(seconds=60 + 2 * 30 + 1000 + 1000)
    assert confirm_by(NOW, 0, Deadlines(sync=1, hold=100, person=10)) == NOW + timedelta(seconds=1 + 100 + 10)


def test_only_a_resume_since_the_release_went_live_ends_its_strategys_hold() -> None:
    assert is_resumed(rows("hold", "resume"), since=NOW)
    assert not is_resumed(rows("resume"), since=NOW + timedelta(seconds=1))
    assert not is_resumed(rows("hold", "retry", "promote:alva"), since=NOW)
