"""What fits on a small terminal: what to type next is never cut off."""

import pytest

from constitution.messages import Phase, Status, StepStatus
from constitution_client.render import fitted, status_lines

RUN = "constitution-update/development/CR-142"
NAMES = ("request", "signatures", "gate", "board", "stage", "validate", "lease", "publish", "sync", "watch", "confirm")
NEXT = f"constitution approve {RUN}"


def _status(done: int, refusals: int, steps: int) -> Status:
    names = [f"{NAMES[number % len(NAMES)]}-{number}" for number in range(steps)]
    states = ["done"] * done + ["waiting"] + ["pending"] * steps
    return Status(
        workflow="ConstitutionUpdate",
        phase=Phase.WAITING,
        step=names[min(done, steps - 1)],
        waiting_for="2 board members to approve CR-142",
        next_command=NEXT,
        checksum="sha256:" + "0" * 64,
        version="1.4.0",
        change_request="CR-142",
        refusals=tuple(
            f"decide: somebody is no member of the board {number} " + "x" * 150 for number in range(refusals)
        ),
        steps=tuple(
            StepStatus(name=name, state=state, detail="y" * 100) for name, state in zip(names, states, strict=False)
        ),
    )


@pytest.mark.parametrize("size", [(80, 24), (80, 10), (40, 12), (132, 50), (60, 8)])
@pytest.mark.parametrize(("done", "refusals", "steps"), [(0, 0, 14), (3, 0, 14), (13, 0, 14), (3, 9, 14), (0, 0, 40)])
def test_a_terminal_shows_what_to_type_whole(size: tuple[int, int], done: int, refusals: int, steps: int) -> None:
    width, height = size
    shown = fitted(status_lines(RUN, _status(done, refusals, steps)), width, height)
    rows = [row for line in shown for row in ([line[at : at + width] for at in range(0, len(line), width)] or [""])]
    assert len(rows) < height
    assert shown[-1] == f"next: {NEXT}"
    assert shown[0].startswith(RUN[:width])
    assert any(line.startswith("waiting for") for line in shown)


def test_a_terminal_that_is_high_enough_shows_everything() -> None:
    lines = status_lines(RUN, _status(3, 1, 14))
    assert fitted(lines, 200, 60) == lines
