"""``python -m tests.faults.defences``: take each defence away, once, and see the matrix catch it.

The checkout is copied, one line of the product is changed in the copy, and one cell is run there. A cell that stays
green without the defence does not test it. Exit 0 only if every cell turned red for what it saw.
"""

import json
import subprocess
import sys
from dataclasses import dataclass
from typing import Any, Final

from tests.faults.cells import Cell
from tests.world.without import Edit, copied, environment_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Defence:
    """One defence, how it is taken away, and the cell that must notice.

    Args:
        name: what it is called in docs/architecture.md.
        file: where it is.
        text: the line that is it.
        without: what stands there instead.
        cell: which needs it.
    """

    name: str
    file: str
    text: str
    without: str
    cell: Cell


DEFENCES: Final = (
    Defence(
        name="fencing",
        file="services/constitution_service/tables/leases.py",
        text="    held = row.held\n    if held is None:",
        without=(
            "    held = row.held or Lease(update_id=update_id, kind=Kind.UPDATE, fencing_token=fencing_token,"
            " workflow_id='', acquired_at=datetime.fromtimestamp(0).astimezone())\n    if held is None:"
        ),
        cell=Cell("rollback_during_update", "publish", "constitution-service", "late", "before"),
    ),
    Defence(
        name="idempotency key",
        file="services/constitution_service/tables/idempotency.py",
        text="    if row is None:\n        return None",
        without="    return None",
        cell=Cell("first_release", "publish", "worker", "killed", "after"),
    ),
    Defence(
        name="generation guard",
        file="adapters/redis_cache.py",
        text="if tonumber(ARGV[1]) < floor and not (ARGV[3] ~= '' and found == ARGV[3]) then return 0 end",
        without="",
        cell=Cell("rollback_during_update", "publish", "valkey", "late", "before"),
    ),
    Defence(
        name="outbox",
        file="services/constitution_service/tables/outbox.py",
        text="delivered_at IS NULL ORDER BY",
        without="delivered_at IS NULL AND created_at > clock_timestamp() - interval '1 second' ORDER BY",
        cell=Cell("update", "publish", "kafka", "down", "before"),
    ),
    Defence(
        name="shielded compensation",
        file="workflows/steering.py",
        text="return await asyncio.shield(body)",
        without="return await body",
        cell=Cell("rollback_during_update", "publish", "temporal", "slow", "during"),
    ),
)


def without(defence: Defence) -> dict[str, Any]:
    """Run the cell of a defence in a checkout that lacks it; return the cell's result.

    Raises:
        ValueError: the defence's line is not there, or more than once.
        RuntimeError: the cell was not run.
    """
    copy = copied(defence.name, [Edit(defence.file, defence.text, defence.without)])
    command = [sys.executable, "-m", "tests.faults", "--cell", defence.cell.id]
    subprocess.run(command, check=False, cwd=copy, env=environment_of(copy))  # noqa: S603 - ourselves
    report = copy / "var" / "chaos" / "report.json"
    if not report.exists():
        raise RuntimeError(f"cell {defence.cell.id} was not run without {defence.name}")
    result: dict[str, Any] = json.loads(report.read_text())["cells"][defence.cell.id]
    return result


def main() -> int:
    """Take each defence away; return how many were not missed."""
    unnoticed = 0
    for defence in DEFENCES:
        if len(sys.argv) > 1 and defence.name not in sys.argv[1:]:
            continue
        result = without(defence)
        caught = bool(result["findings"]) or (result["outcome"] and result["outcome"] not in result["allowed"])
        unnoticed += not caught
        seen = "; ".join(result["findings"]) or f"{result['outcome']}: {result['error'] or result['detail']}"
        sys.stdout.write(f"{defence.name}: {'caught' if caught else 'NOT CAUGHT'} by {defence.cell.id}: {seen}\n")
        sys.stdout.flush()
    return unnoticed


if __name__ == "__main__":
    sys.exit(main())
