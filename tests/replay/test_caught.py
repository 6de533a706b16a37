"""The replay tests catch a breaking change: in a copy of the checkout with two steps swapped, they fail."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]
COPIED = ("workflows", "tests/replay")
LINKED = ("activities", "adapters", "constitution", "constitution_client", "deploy", "services", "signatures")

STAGE = """\
        await self._stepper.run(
            "stage",
            Stage.stage_artifact,
            StageInput(update=update, document=request.document, signatures=request.signatures or ()),
            policies.WRITE,
            summary="stage the signed artifact in the store",
        )
"""
VALIDATE = """\
        await self._stepper.run(
            "validate", Validate.validate_signature, update, policies.READ, summary="validate the signature"
        )
"""


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A checkout whose workflows may be changed."""
    for name in COPIED:
        shutil.copytree(CHECKOUT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in LINKED:
        (tmp_path / name).symlink_to(CHECKOUT / name)
    for path in (CHECKOUT / "pyproject.toml", *(CHECKOUT / "tests").iterdir()):
        if path.name != "replay":
            (tmp_path / path.relative_to(CHECKOUT)).symlink_to(path)
    return tmp_path


def replay(checkout: Path) -> tuple[int, str]:
    """What `pytest tests/replay/test_replay.py` says there."""
    arguments = ("-q", "-p", "no:cacheprovider", "-k", "test_a_stored_history_replays", "tests/replay/test_replay.py")
    environment = {"PATH": os.environ["PATH"], "HOME": str(checkout), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(  # noqa: S603 - our own tests
        [sys.executable, "-m", "pytest", *arguments],
        cwd=checkout,
        env=environment,
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


@pytest.mark.slow
def test_two_steps_that_are_swapped_are_caught(copy: Path) -> None:
    update = copy / "workflows" / "update.py"
    before = update.read_text()
    assert before.count(STAGE + VALIDATE) == 1  # the change is made to what is really there
    update.write_text(before.replace(STAGE + VALIDATE, VALIDATE + STAGE))
    code, said = replay(copy)
    assert code == 1, said
    failed = set(re.findall(r"FAILED \S+\[([a-z-]+)\]", said))
    assert {"update-completed", "update-rolled-back", "first-release-completed"} <= failed, said
    assert "TMPRL1100" in said


@pytest.mark.slow
def test_the_copy_without_a_change_is_not_caught(copy: Path) -> None:
    code, said = replay(copy)
    assert code == 0, said
    assert re.search(r"\d+ passed", said), said
