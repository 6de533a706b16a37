"""``python -m tests.attack.defences [NAME…]``: take each defence away, once, and see the attack catch it.

The checkout is copied, the defence is taken out of the copy, and a small attack is run there. An attack that finds
nothing without the defence does not test it. Exit 0 only if each was missed.
"""

import subprocess
import sys
from dataclasses import dataclass
from typing import Final

from tests.world.without import Edit, copied, environment_of

ACTS: Final = 120  # each activity is asked for at least once
REST_S: Final = 40  # without a defence all may never be at rest again
SERVICE: Final = "services/constitution_service"


@dataclass(frozen=True, slots=True)
class Defence:
    """One defence, all the layers of it, and a word of what the attack finds without.

    Args:
        name: what it is called.
        edits: each place where it is.
        found: part of a finding.
    """

    name: str
    edits: tuple[Edit, ...]
    found: str


DEFENCES: Final = (
    Defence(
        "an update that has ended stays ended",
        (
            Edit(
                f"{SERVICE}/tables/updates.py",
                "if record is not None and record.state in ENDED:",
                "if record is not None and not record.steps:",
            ),
            Edit(f"{SERVICE}/tables/updates.py", "record.state not in PROGRESS:", "record.state is None:"),
            Edit(
                f"{SERVICE}/tables/updates.py",
                "reached = -1 if record is None else PROGRESS.index(record.state)",
                "reached = -1 if record is None else PROGRESS.index(record.state) if record.state in PROGRESS else 1",
            ),
            Edit(
                "deploy/sql/migrations/20261129000001_updates.sql",
                "ELSE ARRAY[]::text[]\n",
                "ELSE ARRAY['lease', 'loaded', 'confirmed', 'undone']\n",
            ),
        ),
        "releases:",
    ),
    Defence(
        "the time that the board signed",
        (
            Edit(
                f"{SERVICE}/releasing/authority.py", "plan.not_before is not None and plan.not_before > moment", "False"
            ),
        ),
        "releases:",
    ),
    Defence(
        "an undo of what is confirmed is ordered or decided",
        (
            Edit(
                f"{SERVICE}/releasing/undo_rules.py",
                "    if bad.standing is None and update_id == bad.update_id:\n        return",
                "    return",
            ),
        ),
        "releases:",
    ),
    Defence(
        "poisoned and withdrawn take evidence",
        (
            Edit(
                f"{SERVICE}/releasing/standing_rules.py",
                "    standing = watch_rules.undone_standing(counted)\n",
                "    return request.standing, verdict\n    standing = watch_rules.undone_standing(counted)\n",
            ),
        ),
        "standings:",
    ),
    Defence(
        "confirmed takes what an assessor saw",
        (
            Edit(
                f"{SERVICE}/releasing/standing_rules.py",
                "    if all(problems):  # also of none",
                "    if False:",
            ),
        ),
        "stood still",
    ),
    Defence(
        "an outcome is announced as it is recorded",
        (Edit("activities/broadcast.py", "        x = await self._recorded(x)\n", ""),),
        "the channel",
    ),
    Defence(
        "an outcome is archived as it is recorded",
        (Edit("activities/archive.py", "        require_backed(release, x.outcome)\n", ""),),
        "the archive has gained",
    ),
    Defence(
        "a person is named only for what they signed",
        (Edit(f"{SERVICE}/audit/audit_events.py", '"actor": client, "details"', '"details"'),),
        "the audit stream says",
    ),
    Defence(
        "activities run for our runs alone",
        (Edit("activities/callers.py", "await self._ours_only.require(activity.info())", "activity.info()"),),
        "activity of a foreign run",
    ),
    Defence(
        "a lease ends without a sign of life",
        (
            Edit(
                f"{SERVICE}/tables/leases.py",
                "    if row.held is None:\n        return False\n    renewed_at",
                "    return False\n    renewed_at",
            ),
        ),
        "lease",
    ),
    Defence(
        "steering takes a signature",
        (
            Edit("workflows/steering.py", "if message.order is None and not info.unsigned_steering:", "if False:"),
            Edit(
                f"{SERVICE}/releasing/order_calls.py",
                'context.config.environment.unsigned_steering != "allow" or request',
                "request",
            ),
        ),
        "orders:",
    ),
)


def findings(defence: Defence) -> list[str]:
    """Return what a small attack finds in a checkout that lacks a defence.

    Raises:
        ValueError: the defence is not where it was.
    """
    copy = copied(defence.name, defence.edits)
    command = [sys.executable, "-m", "tests.attack", "--acts", str(ACTS), "--rest", str(REST_S)]
    ran = subprocess.run(  # noqa: S603 - ourselves
        command, check=False, cwd=copy, env=environment_of(copy), stdout=subprocess.PIPE, text=True
    )
    return [line for line in ran.stdout.splitlines() if line.startswith("  ")]


def main() -> int:
    """Take each defence away; return how many were not missed."""
    unnoticed = 0
    for defence in DEFENCES:
        if len(sys.argv) > 1 and defence.name not in sys.argv[1:]:
            continue
        found = findings(defence)
        caught = any(defence.found in line for line in found)
        unnoticed += not caught
        sys.stdout.write(f"{'caught' if caught else 'NOT CAUGHT'} without: {defence.name}\n")
        sys.stdout.writelines(f"  {line.strip()}\n" for line in found[:5])
        sys.stdout.flush()
    return unnoticed


if __name__ == "__main__":
    sys.exit(main())
